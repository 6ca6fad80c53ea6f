"""The membership as apply changes it: the cluster room's decisions, kept in etcd's buckets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final, NamedTuple

from etcdtw.cluster.errors import MemberIdNotFoundError, MembershipError
from etcdtw.cluster.line import Line
from etcdtw.cluster.member import Member, encode_json
from etcdtw.cluster.membership import REMOVE_NODE, Membership, Row
from etcdtw.cluster.v2_store import decode_v2_store, encode_v2_store
from etcdtw.cluster.version import (
    CHECKPOINTS_KEPT_MIN,
    LINE_MIN,
    OLD_FORMS_MAX,
    V3_ENTRIES_MIN,
    Version,
    storage_version,
)
from etcdtw.mvcc.backend import (
    BUCKET_CLUSTER,
    BUCKET_MEMBERS,
    BUCKET_MEMBERS_REMOVED,
    BUCKET_META,
    Backend,
)
from etcdtw.raft.confchange import ConfChange, decode_conf_change
from etcdtw.raft.entry import ConfState, Entry

CONF_STATE_KEY: Final = b"confState"


class Decision(NamedTuple):
    """What came of a committed conf change."""

    change: ConfChange
    """For Raft.  A refused change is one of member 0, which Raft ignores."""
    error: MembershipError | None
    removed_ids: tuple[int, ...]


class Members:
    """The replicated membership of one member, in memory and in its buckets.

    ``line`` is this member's own: what it says it runs follows the cluster's version.
    """

    def __init__(self, backend: Backend, max_learners: int, line: Line | None = None) -> None:
        """Take what the buckets hold.  Raises ValueError when a row is damaged."""
        self._backend = backend
        self._membership = Membership(max_learners)
        self.line_of_member = line if line is not None else Line()
        self.has_old_members = False
        """Whether a member of a line up to 3.5 has written into the log since the start."""
        self.has_new_members = False
        """The same of a line from 3.6 on; a member of 3.4 cannot be there then."""
        self.restore()

    def restore(self) -> None:
        """Take what the buckets hold (again: a snapshot may have brought other ones)."""
        backend = self._backend
        self._membership.restore(
            backend.bucket_items(BUCKET_MEMBERS),
            backend.bucket_items(BUCKET_MEMBERS_REMOVED),
            backend.bucket_items(BUCKET_CLUSTER),
        )
        self._note_version()

    def _note_version(self) -> None:
        version = self._membership.cluster_version
        self.keeps_checkpoints = version is not None and version >= CHECKPOINTS_KEPT_MIN

    def all(self) -> list[Member]:
        """Return the members by ascending id."""
        return self._membership.members

    def voters(self) -> list[Member]:
        """Return the voting members by ascending id."""
        return [member for member in self._membership.members if not member.is_learner]

    def is_removed(self, member_id: int) -> bool:
        """Whether the id was a member's once: it never comes back."""
        return self._membership.is_removed(member_id)

    @property
    def removed_ids(self) -> list[int]:
        return self._membership.removed_ids

    def member(self, member_id: int) -> Member | None:
        return self._membership.member(member_id)

    @property
    def cluster_version(self) -> str:
        """Such as ``3.7.0``; empty before a leader has decided."""
        version = self._membership.cluster_version
        return "" if version is None else str(version)

    @property
    def storage_version(self) -> str:
        """The version stored data has; empty when it does not say one."""
        version = storage_version(self._membership.cluster_version)
        return "" if version is None else str(version)

    @property
    def version(self) -> Version | None:
        """The cluster's version; None before a leader has decided."""
        return self._membership.cluster_version

    @property
    def downgrade_target(self) -> str | None:
        """The version that a downgrade in progress goes to, such as ``3.6.0``."""
        return self._membership.downgrade_target

    @property
    def line(self) -> Version:
        """The line of etcd whose rules hold now, such as 3.7.0."""
        return self.line_of_member.current(self._membership.cluster_version)

    @property
    def is_version_decided(self) -> bool:
        """Whether the cluster's version says which forms of entries all members know."""
        version = self._membership.cluster_version
        return version is not None and version >= LINE_MIN

    @property
    def writing_line(self) -> Version:
        """The line in whose forms this member writes about itself and the cluster.

        Others are taken at their word: 3.7 dies of the old forms, and before the cluster has
        decided 3.4 may be there, which dies of the new ones.
        """
        line = self.line
        if self.has_new_members and (line >= OLD_FORMS_MAX or not self.is_version_decided):
            return max(line, V3_ENTRIES_MIN)
        if not self.is_version_decided and self.has_old_members:
            return min(line, OLD_FORMS_MAX)
        return line

    @property
    def server_version(self) -> str:
        """The release that this member says it runs, such as ``3.7.3``."""
        return str(self.line_of_member.release(self._membership.cluster_version))

    def decide(self, entry: Entry) -> Decision:
        """Apply the conf change in ``entry``.

        Every member comes to the same decision from the same state and ``--max-learners``.
        """
        change = decode_conf_change(entry)
        try:
            for kind, member_id in change.changes:
                self._keep(self._membership.applied_change(kind, member_id, change.context))
        except MembershipError as error:
            refused = replace(change, changes=tuple((kind, 0) for kind, _ in change.changes))
            return Decision(refused, error, ())
        removed = tuple(member_id for kind, member_id in change.changes if kind == REMOVE_NODE)
        return Decision(change, None, removed)

    def keep_conf_state(self, conf_state: ConfState) -> None:
        """Persist the configuration, so that a restart does not need the log that made it."""
        self._backend.bucket_put(BUCKET_META, CONF_STATE_KEY, encode_conf_state(conf_state))

    def set_attributes(self, member_id: int, name: str, client_urls: tuple[str, ...]) -> None:
        """A member has published its name and where its clients go."""
        try:
            self._keep(self._membership.set_attributes(member_id, name, client_urls))
        except MemberIdNotFoundError:
            # A refused addition may still publish; nobody knows it, on any member.
            return

    def set_cluster_version(self, version: str) -> None:
        """The leader has decided the cluster's version.  Raises `VersionError`."""
        self._keep(self._membership.set_cluster_version(version))
        self._note_version()

    def set_downgrade(self, enabled: bool, target: str) -> None:
        """A downgrade has begun or ended."""
        self._keep(self._membership.set_downgrade(enabled, target))
        if enabled:
            self.line_of_member.withdraw()

    def snapshot_data(self) -> bytes:
        """Return what goes beside the database in a snapshot for another member."""
        return encode_v2_store(self._membership.v2_store())

    def take_snapshot_data(self, data: bytes) -> None:
        """A snapshot was installed: take the membership from it where its leader keeps it there.

        Call it when the buckets are the snapshot's.  Raises `V2StoreError`.
        """
        self.restore()
        if not data:
            return  # etcd 3.7 would do without
        store = decode_v2_store(data)
        if store.is_authority and store.members:
            self._keep(self._membership.replace(store))
            self._note_version()

    def _keep(self, rows: list[Row]) -> None:
        for bucket, key, value in rows:
            if value is None:
                self._backend.bucket_delete(bucket, key)
            else:
                self._backend.bucket_put(bucket, key, value)


def stored_conf_state(backend: Backend) -> ConfState | None:
    """Return the configuration of the last applied change; None in a new state."""
    row = backend.bucket_get(BUCKET_META, CONF_STATE_KEY)
    return None if row is None else decode_conf_state(row)


def encode_conf_state(conf_state: ConfState) -> bytes:
    """Return the row ``confState`` of the bucket ``meta``, octet for octet as etcd writes it."""
    record: dict[str, object] = {"voters": list(conf_state.voters)}
    if conf_state.learners:
        record["learners"] = list(conf_state.learners)
    if conf_state.voters_outgoing:
        record["voters_outgoing"] = list(conf_state.voters_outgoing)
    if conf_state.learners_next:
        record["learners_next"] = list(conf_state.learners_next)
    record["auto_leave"] = conf_state.auto_leave
    return encode_json(record)


def decode_conf_state(row: bytes) -> ConfState:
    """Return what `encode_conf_state` encoded.  Raises ValueError."""
    record = json.loads(row)
    return ConfState(
        voters=tuple(record.get("voters") or ()),
        learners=tuple(record.get("learners") or ()),
        voters_outgoing=tuple(record.get("voters_outgoing") or ()),
        learners_next=tuple(record.get("learners_next") or ()),
        auto_leave=bool(record.get("auto_leave")),
    )
