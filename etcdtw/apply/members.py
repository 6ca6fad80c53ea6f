"""The membership as apply changes it: the cluster room's decisions, kept in etcd's buckets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from etcdtw.cluster.errors import MemberIdNotFoundError, MembershipError
from etcdtw.cluster.member import Member, encode_json
from etcdtw.cluster.membership import Membership, Row
from etcdtw.cluster.version import storage_version
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


class Members:
    """The replicated membership of one member, in memory and in its buckets."""

    def __init__(self, backend: Backend, max_learners: int) -> None:
        """Take what the buckets hold.  Raises ValueError when a row is damaged."""
        self._backend = backend
        self._membership = Membership(max_learners)
        self._membership.restore(
            backend.bucket_items(BUCKET_MEMBERS),
            backend.bucket_items(BUCKET_MEMBERS_REMOVED),
            backend.bucket_items(BUCKET_CLUSTER),
        )

    def all(self) -> list[Member]:
        """Return the members by ascending id."""
        return self._membership.members

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

    def decide(self, entry: Entry) -> ConfChange:
        """Apply the conf change in ``entry``; return what Raft is to apply.

        A change that the membership refuses becomes one of member 0, which Raft ignores: every
        member comes to the same decision from the same state.
        """
        change = decode_conf_change(entry)
        try:
            for kind, member_id in change.changes:
                self._keep(self._membership.applied_change(kind, member_id, change.context))
        except MembershipError:
            return replace(change, changes=tuple((kind, 0) for kind, _ in change.changes))
        return change

    def keep_conf_state(self, conf_state: ConfState) -> None:
        """Persist the configuration, so that a restart does not need the log that made it."""
        record: dict[str, object] = {"voters": list(conf_state.voters)}
        if conf_state.learners:
            record["learners"] = list(conf_state.learners)
        if conf_state.voters_outgoing:
            record["voters_outgoing"] = list(conf_state.voters_outgoing)
        if conf_state.learners_next:
            record["learners_next"] = list(conf_state.learners_next)
        record["auto_leave"] = conf_state.auto_leave
        self._backend.bucket_put(BUCKET_META, CONF_STATE_KEY, encode_json(record))

    def set_attributes(self, member_id: int, name: str, client_urls: tuple[str, ...]) -> None:
        """A member has published its name and where its clients go."""
        try:
            self._keep(self._membership.set_attributes(member_id, name, client_urls))
        except MemberIdNotFoundError:
            # A refused addition may still publish; nobody knows it, on any member.
            return

    def set_cluster_version(self, version: str) -> None:
        """The leader has decided the cluster's version."""
        self._keep(self._membership.set_cluster_version(version))

    def _keep(self, rows: list[Row]) -> None:
        for bucket, key, value in rows:
            if value is None:
                self._backend.bucket_delete(bucket, key)
            else:
                self._backend.bucket_put(bucket, key, value)


def stored_conf_state(backend: Backend) -> ConfState | None:
    """Return the configuration of the last applied change; None in a new state."""
    row = backend.bucket_get(BUCKET_META, CONF_STATE_KEY)
    if row is None:
        return None
    record = json.loads(row)
    return ConfState(
        voters=tuple(record.get("voters") or ()),
        learners=tuple(record.get("learners") or ()),
        voters_outgoing=tuple(record.get("voters_outgoing") or ()),
        learners_next=tuple(record.get("learners_next") or ()),
        auto_leave=bool(record.get("auto_leave")),
    )
