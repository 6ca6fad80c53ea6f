"""What a start means: a new member or an old one, and is the data directory fit for it.

Pure but for `inspect_directory`.  The identity (who this member is) is written once, with the
founding entries; where it exists the bootstrap flags are not read again, as in etcd.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from etcdtw import __version__
from etcdtw.cluster.ids import RESERVED_IDS, cluster_id, member_id
from etcdtw.cluster.initial_cluster import (
    InitialClusterError,
    check_own_place,
    parse_initial_cluster,
)
from etcdtw.cluster.member import Member
from etcdtw.server.config import Config
from etcdtw.wire.encode import encode_varint, read_varint

DIRECTORY_MODE: Final = 0o700
_FORBIDDEN_MODE: Final = 0o077
_FOREIGN: Final = ("member/snap/db", "member/wal/*.wal")
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
    """New member: all founding members by ascending id, for the first log entries.
    Restart: empty."""

    @property
    def is_new(self) -> bool:
        return bool(self.founders)


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
        foreign = next((str(match) for match in found), None)
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


def decide_start(config: Config, identity: bytes | None) -> Start:
    """Return how to start.  ``identity``: the octets in the log, None when it has none.

    Raises `BootstrapError` when a new member's flags do not describe a cluster it can found.
    """
    if identity is not None:
        return Start(identity=decode_identity(identity), founders=())
    if config.initial_cluster_state == "existing":
        raise BootstrapError(
            "joining a running cluster (--initial-cluster-state existing) is not supported yet "
            f"by etcdtw {__version__}"
        )
    try:
        cluster = parse_initial_cluster(config.initial_cluster)
        check_own_place(
            config.initial_cluster, cluster, config.name, config.initial_advertise_peer_urls
        )
    except InitialClusterError as error:
        raise BootstrapError(str(error)) from error
    if len(cluster) > 1:
        raise BootstrapError(
            f"--initial-cluster names {len(cluster)} members: clusters of more than one are not "
            f"supported yet by etcdtw {__version__}"
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
    return Start(identity=Identity(mine.member_id, cluster_id(ids)), founders=tuple(founders))
