"""The cluster's alarms: which member raised what.  Replicated state, persisted by apply.

Source: etcd v3 api, Maintenance.Alarm; rows of the ``alarm`` bucket.
"""

from __future__ import annotations

from collections.abc import Iterable

from etcdtw.mvcc.backend import BUCKET_ALARM, Backend
from etcdtw.wire import etcdserverpb as pb

NAMES = {pb.NONE: "NONE", pb.NOSPACE: "NOSPACE", pb.CORRUPT: "CORRUPT"}


def alarm_name(alarm: int) -> str:
    """Return the name of an alarm; a newer member may have raised one unknown here."""
    return NAMES.get(alarm, "UNKNOWN")


class Alarms:
    """The active alarms, in memory and in their bucket."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.restore()

    def restore(self) -> None:
        """Take what the bucket holds (again: a snapshot may have brought another one)."""
        self._active: set[tuple[int, int]] = set()
        for key, _ in self._backend.bucket_items(BUCKET_ALARM):
            member = pb.AlarmMember.FromString(key)
            self._active.add((member.memberID, member.alarm))
        self._note()

    def _note(self) -> None:
        kinds = {alarm for _, alarm in self._active}
        self.no_space = pb.NOSPACE in kinds
        self.corrupt = pb.CORRUPT in kinds
        self.corrupt_members = frozenset(m for m, alarm in self._active if alarm == pb.CORRUPT)
        # One attribute for the hot path: nothing to check in a healthy cluster.
        self.is_any = bool(kinds)

    def activate(self, member_id: int, alarm: int) -> list[tuple[int, int]]:
        """Raise an alarm and return it; raising it twice returns it again.  NONE does nothing."""
        if alarm == pb.NONE:
            return []
        self._active.add((member_id, alarm))
        self._backend.bucket_put(BUCKET_ALARM, _row(member_id, alarm), b"")
        self._note()
        return [(member_id, alarm)]

    def deactivate(self, member_id: int, alarm: int) -> list[tuple[int, int]]:
        """Clear exactly (member, alarm); return it, or nothing when it was not active."""
        if (member_id, alarm) not in self._active:
            return []
        self._active.discard((member_id, alarm))
        self._backend.bucket_delete(BUCKET_ALARM, _row(member_id, alarm))
        self._note()
        return [(member_id, alarm)]

    def is_active(self, member_id: int, alarm: int) -> bool:
        """Whether this alarm of this member is raised."""
        return (member_id, alarm) in self._active

    def active(self, alarm: int = pb.NONE) -> list[tuple[int, int]]:
        """Return the active (member id, alarm) pairs of one kind, or of all with NONE."""
        return sorted(pair for pair in self._active if alarm == pb.NONE or pair[1] == alarm)


def _row(member_id: int, alarm: int) -> bytes:
    return pb.AlarmMember(memberID=member_id, alarm=alarm).SerializeToString()


def encode_alarms(pairs: Iterable[tuple[int, int]]) -> bytes:
    """Return an ``AlarmResponse`` without its header."""
    members = [pb.AlarmMember(memberID=member_id, alarm=alarm) for member_id, alarm in pairs]
    return pb.AlarmResponse(alarms=members).SerializeToString()
