"""The replicated membership: members, removed ids, the cluster's version.

Conf changes are checked here when they are applied; a refused one changes nothing, and raft
ignores it too (see `applied_change`).  Knows no store: every change returns the rows to put
into etcd's buckets, and `restore` takes them back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from etcdtw.cluster.errors import (
    LastVoterError,
    MemberIdExistsError,
    MemberIdNotFoundError,
    MemberIdRemovedError,
    MemberNotLearnerError,
    PeerUrlExistsError,
    TooManyLearnersError,
)
from etcdtw.cluster.ids import id_text, parse_id
from etcdtw.cluster.member import Member, decode_member, encode_json, encode_member
from etcdtw.cluster.v2_store import V2Store
from etcdtw.cluster.version import LINE_MAX, Version, VersionError, parse_version

MEMBERS: Final = b"members"
MEMBERS_REMOVED: Final = b"members_removed"
CLUSTER: Final = b"cluster"
REMOVED_VALUE: Final = b"removed"
VERSION_KEY: Final = b"clusterVersion"
DOWNGRADE_KEY: Final = b"downgrade"

# raftpb.ConfChangeType
ADD_NODE: Final = 0
REMOVE_NODE: Final = 1
UPDATE_NODE: Final = 2
ADD_LEARNER_NODE: Final = 3

Row = tuple[bytes, bytes, bytes | None]
"""bucket, key, value; None deletes the key"""


class UnknownChangeError(Exception):
    """A committed conf change of an unknown kind: the member must stop, as etcd does."""


class Membership:
    """Who is in the cluster.  One per member; the same on all of them."""

    def __init__(self, max_learners: int = 1) -> None:
        self._max_learners = max_learners
        self._members: dict[int, Member] = {}
        self._removed: set[int] = set()
        self._cluster_version: Version | None = None
        self._downgrade_target: str | None = None

    def restore(
        self,
        members: Iterable[tuple[bytes, bytes]],
        removed: Iterable[tuple[bytes, bytes]],
        cluster: Iterable[tuple[bytes, bytes]],
    ) -> None:
        """Take the rows of the three buckets in place of what was known.

        Raises ValueError when a row is damaged.
        """
        self._members = {}
        for key, value in members:
            member, _ = decode_member(value)
            member_id = parse_id(key.decode("ascii"))
            if member.member_id != member_id:
                raise ValueError(f"members row {key!r} is about member {member.member_id:x}")
            self._members[member_id] = member
        self._removed = {parse_id(key.decode("ascii")) for key, _ in removed}
        values = dict(cluster)
        version = values.get(VERSION_KEY)
        self._cluster_version = None if version is None else _spoken(version.decode())
        self._downgrade_target = decode_downgrade(values.get(DOWNGRADE_KEY, b"{}"))

    @property
    def members(self) -> list[Member]:
        """All members by ascending id."""
        return [self._members[member_id] for member_id in sorted(self._members)]

    @property
    def voter_ids(self) -> list[int]:
        return [member.member_id for member in self.members if not member.is_learner]

    @property
    def learner_ids(self) -> list[int]:
        return [member.member_id for member in self.members if member.is_learner]

    @property
    def cluster_version(self) -> Version | None:
        """None until a leader has decided."""
        return self._cluster_version

    @property
    def downgrade_target(self) -> str | None:
        """The version that a downgrade in progress goes to."""
        return self._downgrade_target

    def member(self, member_id: int) -> Member | None:
        return self._members.get(member_id)

    @property
    def removed_ids(self) -> list[int]:
        """Who was removed, for ever, by ascending id."""
        return sorted(self._removed)

    def is_removed(self, member_id: int) -> bool:
        return member_id in self._removed

    def applied_change(self, kind: int, node_id: int, context: bytes) -> list[Row]:
        """Apply a committed conf change; returns the rows to persist.

        Raises `MembershipError` when the change is refused: raft must then be told a change of
        node 0, which it ignores.  Raises `UnknownChangeError` and `MemberFormatError` when the
        entry cannot be understood: the member must stop.
        """
        if node_id in self._removed:
            raise MemberIdRemovedError(node_id)
        if kind == REMOVE_NODE:
            return self._remove(node_id)
        if kind not in (ADD_NODE, UPDATE_NODE, ADD_LEARNER_NODE):
            raise UnknownChangeError(f"conf change of kind {kind}")
        member, is_promotion = decode_member(context)
        if kind == UPDATE_NODE:
            changed = self._updated(node_id, member.peer_urls)
        elif is_promotion:
            changed = self._promoted(node_id)
        else:
            changed = self._added(node_id, member)
        # Only now, as in etcd: a change that is refused may say what it likes.
        if member.member_id != node_id:
            raise UnknownChangeError(f"change of {node_id:x} describes {member.member_id:x}")
        return self._put(changed)

    def _added(self, node_id: int, member: Member) -> Member:
        if node_id in self._members:
            raise MemberIdExistsError(node_id)
        self._check_peer_urls(node_id, member.peer_urls)
        if member.is_learner and len(self.learner_ids) >= self._max_learners:
            raise TooManyLearnersError(node_id)
        return member

    def _remove(self, node_id: int) -> list[Row]:
        if node_id not in self._members:
            raise MemberIdNotFoundError(node_id)
        if self.voter_ids == [node_id]:
            raise LastVoterError(node_id)
        del self._members[node_id]
        self._removed.add(node_id)
        key = id_text(node_id).encode()
        return [(MEMBERS, key, None), (MEMBERS_REMOVED, key, REMOVED_VALUE)]

    def _updated(self, node_id: int, peer_urls: tuple[str, ...]) -> Member:
        member = self._members.get(node_id)
        if member is None:
            raise MemberIdNotFoundError(node_id)
        self._check_peer_urls(node_id, peer_urls)
        # Whether it is a learner stays as it is, whatever the change says (etcd's PR 21736).
        return member.with_peer_urls(peer_urls)

    def _promoted(self, node_id: int) -> Member:
        member = self._members.get(node_id)
        if member is None:
            raise MemberIdNotFoundError(node_id)
        if not member.is_learner:
            raise MemberNotLearnerError(node_id)
        return member.promoted()

    def _check_peer_urls(self, node_id: int, peer_urls: tuple[str, ...]) -> None:
        for other in self._members.values():
            if other.member_id != node_id and not set(other.peer_urls).isdisjoint(peer_urls):
                raise PeerUrlExistsError(node_id)

    def set_attributes(self, member_id: int, name: str, client_urls: tuple[str, ...]) -> list[Row]:
        """A member has published its name and client URLs.

        Of a removed member: ignored.  Raises `MemberIdNotFoundError` for an id that never was:
        the member must stop, its state is not the cluster's.
        """
        member = self._members.get(member_id)
        if member is None:
            if member_id in self._removed:
                return []
            raise MemberIdNotFoundError(member_id)
        return self._put(member.with_attributes(name, client_urls))

    def set_cluster_version(self, text: str) -> list[Row]:
        """The leader has decided the cluster's version.  Raises `VersionError`."""
        self._cluster_version = _spoken(text)
        return [(CLUSTER, VERSION_KEY, str(self._cluster_version).encode())]

    def set_downgrade(self, enabled: bool, target: str) -> list[Row]:
        """A downgrade has begun or ended."""
        self._downgrade_target = target if enabled else None
        return [(CLUSTER, DOWNGRADE_KEY, encode_downgrade(enabled, target))]

    def v2_store(self) -> V2Store:
        """Return what the old store says of the cluster, for a snapshot's data."""
        return V2Store(tuple(self.members), tuple(self.removed_ids), self._cluster_version)

    def replace(self, store: V2Store) -> list[Row]:
        """Take members, removed ids and version from a snapshot's data; returns the rows.

        Its leader kept them there and not in its buckets (etcd up to 3.5).
        """
        rows: list[Row] = [
            (bucket, id_text(gone).encode(), None)
            for bucket, before, after in (
                (MEMBERS, set(self._members), {one.member_id for one in store.members}),
                (MEMBERS_REMOVED, self._removed, set(store.removed_ids)),
            )
            for gone in sorted(before - after)
        ]
        self._members = {}
        for member in store.members:
            rows += self._put(member)
        self._removed = set(store.removed_ids)
        rows += [(MEMBERS_REMOVED, id_text(i).encode(), REMOVED_VALUE) for i in store.removed_ids]
        if store.version is not None:
            rows += self.set_cluster_version(str(store.version))
        return rows

    def _put(self, member: Member) -> list[Row]:
        self._members[member.member_id] = member
        return [(MEMBERS, id_text(member.member_id).encode(), encode_member(member))]


def _spoken(text: str) -> Version:
    version = parse_version(text)
    if version.line > LINE_MAX:
        raise VersionError(
            "invalid downgrade; server version is lower than determined cluster version: the "
            f"cluster is at {version.line}, this member speaks lines up to {LINE_MAX}"
        )
    return version


def encode_downgrade(enabled: bool, target: str) -> bytes:
    """Return the row of a downgrade: etcd's JSON, with no target once it has ended."""
    return encode_json({"target-version": target if enabled else "", "enabled": enabled})


def decode_downgrade(data: bytes) -> str | None:
    """Return the target of the downgrade in progress, None without one.  Raises ValueError."""
    try:
        record = json.loads(data)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise ValueError(f"{data!r} is no downgrade")
    target = record.get("target-version")
    return target if record.get("enabled") and isinstance(target, str) else None
