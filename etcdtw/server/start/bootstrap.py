"""What a start means: a new member or an old one, and is the data directory fit for it.

Pure but for `inspect_directory`.  The identity (who this member is) is written once, with the
founding entries; where it exists the bootstrap flags are not read again, as in etcd.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from etcdtw.cluster.ids import RESERVED_IDS, cluster_id, member_id
from etcdtw.cluster.initial_cluster import (
    InitialClusterError,
    check_named_once,
    check_own_place,
    parse_initial_cluster,
)
from etcdtw.cluster.joining import (
    JoinError,
    RemoteCluster,
    Resolve,
    as_it_is,
    check_learners,
    check_not_bootstrapped,
    check_versions,
    match_members,
    urls_to_ask,
)
from etcdtw.cluster.line import parse_line
from etcdtw.cluster.member import Member, encode_member, encode_promotion
from etcdtw.cluster.version import Version
from etcdtw.config.config import Config
from etcdtw.raft.confchange import (
    ADD_LEARNER_NODE,
    ADD_NODE,
    REMOVE_NODE,
    UPDATE_NODE,
    ConfChange,
    decode_conf_change,
    encode_conf_change,
)
from etcdtw.raft.entry import ENTRY_CONF_CHANGE, ENTRY_NORMAL, ConfState, Entry, HardState
from etcdtw.storage.presence import is_guard
from etcdtw.wire.encode import encode_varint, read_varint

DIRECTORY_MODE: Final = 0o700
_FORBIDDEN_MODE: Final = 0o077
_FOREIGN_LOG: Final = "*.wal"
_FOREIGN: Final = ("member/snap/db", "member/wal/" + _FOREIGN_LOG)
"""What real etcd leaves in its data directory."""
_NODE_ID_TAG: Final = 0x08
_CLUSTER_ID_TAG: Final = 0x10


class BootstrapError(Exception):
    """The member cannot start from this directory with these flags; says what to do."""


class Identity(NamedTuple):
    """Who a member is, for ever."""

    member_id: int
    cluster_id: int


class DirectoryFacts(NamedTuple):
    """What stands at the path of the data directory."""

    path: str
    exists: bool
    is_directory: bool
    mode: int
    """Permission bits."""
    foreign: str | None
    """A file that real etcd has left there."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """How this member starts."""

    identity: Identity
    founders: tuple[Member, ...]
    """New cluster: all founding members by ascending id, for the first log entries.
    Else empty."""
    line: Version
    """The line of etcd to speak while the cluster's version is not known yet."""
    remotes: tuple[Member, ...] = ()
    """Joining: the other members, who can be spoken to before the log has named them."""
    is_joining: bool = False

    @property
    def is_new(self) -> bool:
        return bool(self.founders) or self.is_joining


def inspect_directory(path: str) -> DirectoryFacts:
    """Look at the data directory; changes nothing.  Raises OSError when it may not look."""
    root = Path(path)
    try:
        status = root.stat()
    except FileNotFoundError:
        return DirectoryFacts(path, False, False, 0, None)
    is_directory = stat.S_ISDIR(status.st_mode)
    foreign = None
    if is_directory:
        found = (match for pattern in _FOREIGN for match in sorted(root.glob(pattern)))
        foreign = next((str(match) for match in found if not is_guard(match)), None)
    return DirectoryFacts(path, True, is_directory, stat.S_IMODE(status.st_mode), foreign)


def check_directory(facts: DirectoryFacts) -> None:
    """Raises `BootstrapError` when a member must not use the directory.

    A missing one is fine: it is made with mode 0700.
    """
    if not facts.exists:
        return
    if not facts.is_directory:
        raise BootstrapError(f"--data-dir {facts.path} is not a directory: choose another path")
    if facts.foreign is not None:
        raise BootstrapError(
            f"--data-dir {facts.path} holds the data of real etcd ({facts.foreign}), which "
            "etcdtw does not open: choose an empty directory, or move the data by joining "
            "its cluster or by restoring a snapshot"
        )
    if facts.mode & _FORBIDDEN_MODE:
        raise BootstrapError(
            f"--data-dir {facts.path} has mode {facts.mode:04o}, others could read or change "
            f"the data: run chmod {DIRECTORY_MODE:o} {facts.path}"
        )


def check_log_place(wal_dir: str) -> None:
    """Refuse a place for the log in which real etcd has its own.

    Raises `BootstrapError`, and OSError when it may not look.
    """
    for found in sorted(Path(wal_dir).glob(_FOREIGN_LOG)):
        if not is_guard(found):
            raise BootstrapError(
                f"--wal-dir {wal_dir} holds the log of real etcd ({found}), which etcdtw does not "
                "open: choose an empty directory"
            )


def encode_identity(identity: Identity) -> bytes:
    """Return the identity's octets: etcd's Metadata message (1 NodeID, 2 ClusterID)."""
    return (
        bytes((_NODE_ID_TAG,))
        + encode_varint(identity.member_id)
        + bytes((_CLUSTER_ID_TAG,))
        + encode_varint(identity.cluster_id)
    )


def decode_identity(data: bytes) -> Identity:
    """Parse the octets of `encode_identity`.  Raises `BootstrapError` when they are damaged."""
    node, position = _field(data, 0, _NODE_ID_TAG)
    cluster, position = _field(data, position, _CLUSTER_ID_TAG)
    if position != len(data) or node in RESERVED_IDS or cluster == 0:
        raise _damaged(data)
    return Identity(node, cluster)


def _field(data: bytes, position: int, tag: int) -> tuple[int, int]:
    if data[position : position + 1] != bytes((tag,)):
        raise _damaged(data)
    try:
        return read_varint(data, position + 1)
    except ValueError:
        raise _damaged(data) from None


def _damaged(data: bytes) -> BootstrapError:
    return BootstrapError(
        f"the identity in the data directory is damaged ({data.hex()}): restore the directory "
        "from a copy, or remove the member from its cluster and add it again"
    )


def decide_start(
    config: Config,
    identity: bytes | None,
    remote: RemoteCluster | None = None,
    resolve: Resolve = as_it_is,
) -> Start:
    """Return how to start.  ``identity``: the octets in the log, None when it has none.

    ``remote``: what the members of a running cluster have answered, which a new member joins;
    None when none has.  A new member that founds its cluster needs no answer; if it gets one,
    it learns that its data is gone.  Raises `BootstrapError` when the flags of a new member
    do not describe a cluster that it can found or join.
    """
    compat = parse_line(config.compat_version)
    if identity is not None:
        return Start(identity=decode_identity(identity), founders=(), line=compat)
    try:
        if config.initial_cluster_state == "existing":
            return _decide_join(config, remote, resolve)
        start = _decide_founding(config, compat)
        if remote is not None:
            check_not_bootstrapped(start.identity.member_id, remote.members)
    except (InitialClusterError, JoinError) as error:
        raise BootstrapError(str(error)) from error
    return start


def remote_urls(config: Config) -> tuple[str, ...]:
    """Return the peer URLs at which a new member asks others who they are.

    Raises `BootstrapError`.
    """
    try:
        return urls_to_ask(parse_initial_cluster(config.initial_cluster), config.name)
    except InitialClusterError as error:
        raise BootstrapError(str(error)) from error


def _decide_founding(config: Config, line: Version) -> Start:
    cluster = parse_initial_cluster(config.initial_cluster)
    check_own_place(
        config.initial_cluster, cluster, config.name, config.initial_advertise_peer_urls
    )
    founders = [
        Member(
            member_id=member_id(urls, config.initial_cluster_token),
            peer_urls=tuple(str(url) for url in urls),
            name=name,
        )
        for name, urls in cluster.items()
    ]
    founders.sort(key=lambda member: member.member_id)
    mine = next(member for member in founders if member.name == config.name)
    ids = [member.member_id for member in founders]
    return Start(
        identity=Identity(mine.member_id, cluster_id(ids)), founders=tuple(founders), line=line
    )


def _decide_join(config: Config, remote: RemoteCluster | None, resolve: Resolve) -> Start:
    cluster = parse_initial_cluster(config.initial_cluster)
    # Its URLs are known to the cluster already: those that it advertises are not compared.
    check_named_once(config.initial_cluster, cluster, config.name)
    if remote is None or remote.cluster_id == 0:
        raise JoinError(
            "cannot fetch cluster info from peer urls: could not retrieve cluster information "
            f"from the given URLs ({', '.join(urls_to_ask(cluster, config.name))})"
        )
    mine = match_members(cluster, remote, resolve)[config.name]
    # With its log its votes and acknowledgements are gone: it could elect who lacks what it had.
    check_not_bootstrapped(mine.member_id, remote.members)
    others = {
        number: version for number, version in remote.versions.items() if number != mine.member_id
    }
    line = check_versions(others.values())
    check_learners(config.max_learners, remote.members)
    return Start(
        identity=Identity(mine.member_id, remote.cluster_id),
        founders=(),
        line=line,
        remotes=tuple(one for one in remote.members if one.member_id != mine.member_id),
        is_joining=True,
    )


def force_new_cluster(
    hard_state: HardState,
    conf_state: ConfState,
    entries: Sequence[Entry],
    own: Member,
) -> tuple[HardState, list[Entry]] | None:
    """Return what to append to the log so that only this member is left; None: it is so already.

    ``conf_state``: the applied configuration; ``entries``: what is committed behind it, to the
    end.  Everything behind the commit index is to be dropped: the entries take its place.  They
    are conf changes like any other and count when they are applied.  Unsafe: other members
    of the old cluster may still be at work.  Raises `BootstrapError` on an empty log.
    """
    if hard_state.commit == 0:
        raise BootstrapError(
            "--force-new-cluster: this member holds nothing of its cluster yet; found a new "
            "cluster in an empty directory instead"
        )
    ids, is_voter = _ids_after(conf_state, entries, own.member_id)
    if ids == {own.member_id} and is_voter:
        return None
    changes = []
    if not is_voter:
        # First, or removing the last voter would be refused.
        context = encode_promotion(own.member_id) if own.member_id in ids else encode_member(own)
        changes.append(ConfChange(((ADD_NODE, own.member_id),), 0, context, ENTRY_CONF_CHANGE))
    changes += [
        ConfChange(((REMOVE_NODE, other),), entry_type=ENTRY_CONF_CHANGE)
        for other in sorted(ids - {own.member_id})
    ]
    first = hard_state.commit + 1
    appended = [
        Entry(hard_state.term, first + i, ENTRY_CONF_CHANGE, encode_conf_change(change))
        for i, change in enumerate(changes)
    ]
    return HardState(hard_state.term, hard_state.vote, appended[-1].index), appended


def _ids_after(
    conf_state: ConfState, entries: Sequence[Entry], own_id: int
) -> tuple[set[int], bool]:
    """Return all members and whether ``own_id`` votes, once ``entries`` are applied."""
    voters = set(conf_state.voters)
    learners = set(conf_state.learners)
    for entry in entries:
        if entry.type == ENTRY_NORMAL:
            continue
        for kind, node_id in decode_conf_change(entry).changes:
            if kind == UPDATE_NODE:
                continue
            learners.discard(node_id)
            if kind == REMOVE_NODE:
                voters.discard(node_id)
            elif kind == ADD_LEARNER_NODE:
                learners.add(node_id)
            else:
                voters.add(node_id)
    return voters | learners, own_id in voters
