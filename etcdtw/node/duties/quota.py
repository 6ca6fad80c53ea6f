"""The space quota: refuses what would grow the state beyond it, and raises the alarm.

Counted on octets in use, which deletes and compactions give back at once; etcd counts the
allocated file, which only a defragmentation shrinks.  See ``docs/departures.md``.

What is measured is exact at each request: what is committed, what is applied and not committed,
and what this member has proposed and not applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from etcdtw.apply.alarms import Alarms
from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.node.intake.requests import Done
from etcdtw.wire import etcdserverpb as pb

ALARM_EVERY_MS: Final = 500
"""The alarm is asked for again after so long, if it is not there by then."""
TIGHT_BYTES: Final = 256 * 1024 * 1024
"""With more room than this nothing is asked: no member takes in so much between two ticks."""
COMPACTION_GRACE_MS: Final = 10_000
"""So long after the first refusal a compaction under way keeps the alarm from being raised."""


class Measured(Protocol):
    """What of the state is looked at."""

    @property
    def size_in_use(self) -> int: ...
    @property
    def pending(self) -> tuple[int, int]:
        """Octets and changes that are applied and not committed."""
        ...

    @property
    def is_compacting(self) -> bool:
        """Whether room is on its way."""
        ...


class Proposes(Protocol):
    """The member's own proposals (`node.own_proposals`)."""

    def ask_alarm(self, action: int, member_id: int, alarm: int) -> None: ...


class SpaceQuota:
    """Admits requests by their cost.  ``limit_bytes`` None: everything.

    ``is_tight`` says whether `admit` has to be asked at all; it is what the path of a put looks at.
    What is admitted and proposed is to be held: it counts until its outcome is known.
    """

    def __init__(
        self,
        member_id: int,
        alarms: Alarms,
        own: Proposes,
        state: Measured,
        limit_bytes: int | None,
        time_ms: Callable[[], int],
    ) -> None:
        self._member_id = member_id
        self._alarms = alarms
        self._own = own
        self._state = state
        self._time_ms = time_ms
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._is_blocked = False
        self._alarmed_ms = -ALARM_EVERY_MS
        self._refused_ms: int | None = None
        """When the first of the refusals came that found a compaction under way."""
        self.is_tight = limit_bytes is not None
        self.look(time_ms())

    def look(self, now_ms: int) -> None:
        """See at a tick whether requests have to ask."""
        limit_bytes = self._limit_bytes
        self.is_tight = self._is_blocked or (
            limit_bytes is not None and self._size_needed() + TIGHT_BYTES >= limit_bytes
        )

    def block(self, is_blocked: bool) -> None:
        """Refuse all that costs something, or do so no longer; the disk is short of space.

        The alarm is not raised for that: whether it must be is decided elsewhere.
        """
        if is_blocked is not self._is_blocked:
            self._is_blocked = is_blocked
            self.is_tight = is_blocked or self._limit_bytes is not None

    def admit(self, cost: int) -> bool:
        """Return whether ``cost`` more octets fit; costs are etcd's (`mvcc.cost`).

        A refusal raises this member's NOSPACE alarm through the log.  Nothing that costs
        nothing is ever refused: deletes, compactions and revokes must pass.
        """
        if cost == 0:
            return True
        if self._is_blocked:
            return False
        if self._limit_bytes is None:
            return True
        if self._size_needed() + self._held_bytes + cost < self._limit_bytes:
            self._refused_ms = None
            return True
        self._raise_alarm(self._time_ms())
        return False

    def hold(self, cost: int, done: Done) -> Done:
        """Count ``cost`` from now until the call of what is returned, which calls ``done``.

        A request whose client was told of a time-out is let go then, and counts again as applied.
        """
        self._held_bytes += cost

        def let_go(call: Call, applied: Applied) -> None:
            self._held_bytes -= cost
            done(call, applied)

        return let_go

    def _size_needed(self) -> int:
        """Octets in use once everything applied is committed."""
        return self._state.size_in_use + self._state.pending[0]

    def _raise_alarm(self, now_ms: int) -> None:
        is_raised = self._alarms.is_active(self._member_id, pb.NOSPACE)
        if is_raised or now_ms - self._alarmed_ms < ALARM_EVERY_MS:
            return
        if self._state.is_compacting:
            if self._refused_ms is None:
                self._refused_ms = now_ms
            if now_ms - self._refused_ms < COMPACTION_GRACE_MS:
                return
        self._refused_ms = None
        self._alarmed_ms = now_ms
        self._own.ask_alarm(pb.AlarmRequest.ACTIVATE, self._member_id, pb.NOSPACE)
