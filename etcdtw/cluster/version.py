"""Versions: of servers, of the cluster, and which line of etcd we speak.

The cluster's version is the lowest that all members run, cut to its minor version; it decides
which features may be used.  Source: etcd's upgrade rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

_SEMVER: Final = re.compile(
    r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})"
    r"(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?\Z"
)


class VersionError(ValueError):
    """The text is not a semantic version."""


class Version(NamedTuple):
    """A semantic version without its pre-release; compares as such."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"

    @property
    def line(self) -> Version:
        """The version cut to its minor one, as the cluster's version is: ``3.7.0``."""
        return Version(self.major, self.minor, 0)


CLUSTER_VERSION_MIN: Final = Version(3, 0, 0)
"""What a cluster starts with, and the oldest that may be joined."""

COMPAT_RELEASES: Final = {
    "3.7": Version(3, 7, 3),
    "3.6": Version(3, 6, 16),
    "3.5": Version(3, 5, 35),
    "3.4": Version(3, 4, 44),
}
"""Line -> the etcd release whose contract is kept there, and which is said to others.

Peers look at major and minor only; the patch is the one that the contract was read from.
"""
LINE_MIN: Final = Version(3, 4, 0)
LINE_MAX: Final = Version(3, 7, 0)

V3_ENTRIES_MIN: Final = Version(3, 6, 0)
"""From this cluster version on members publish themselves with entries that older ones do not
know: etcd 3.4 dies of them, and 3.5 itself still writes the old form."""
OLD_FORMS_MAX: Final = Version(3, 5, 0)
"""The newest line that writes the old forms."""
DOWNGRADE_ENTRIES_MIN: Final = Version(3, 5, 0)
"""From this cluster version on every member knows ``downgrade_info_set``."""
CHECKPOINTS_KEPT_MIN: Final = Version(3, 6, 0)
"""From this cluster version on what is left of a lease is part of the stored state."""

STORAGE_VERSION_MIN: Final = Version(3, 6, 0)
"""Data before this one does not say its version."""


def parse_version(text: str) -> Version:
    """Parse ``3.7.3`` or ``3.8.0-alpha.0``.  Raises `VersionError`."""
    match = _SEMVER.match(text)
    if match is None:
        raise VersionError(f"{text!r} is not a version")
    return Version(int(match[1]), int(match[2]), int(match[3]))


def decide_cluster_version(
    current: Version | None,
    servers: Iterable[Version | None],
    downgrade_target: Version | None = None,
) -> Version | None:
    """Return the version that the leader should set now; None: leave it.

    ``servers``: what every member runs, None for one that did not answer: then nothing is
    decided but the very first version.  The version is only ever raised here, but for a
    downgrade: from 3.6 on the cluster goes first and its members follow, before it the
    members go first.
    """
    known = list(servers)
    if not known or None in known:
        return CLUSTER_VERSION_MIN if current is None else None
    lowest = min(version for version in known if version is not None).line
    if current is None:
        return max(lowest, CLUSTER_VERSION_MIN)
    if downgrade_target is None:
        return lowest if lowest > current else None
    goes_down = current >= V3_ENTRIES_MIN or lowest == downgrade_target
    return downgrade_target if goes_down and downgrade_target < current else None


def downgrade_is_done(target: Version, servers: Iterable[Version | None]) -> bool:
    """Tell whether every member runs the target's line: then the leader ends the downgrade."""
    known = list(servers)
    return bool(known) and all(one is not None and one.line == target.line for one in known)


def parse_downgrade_target(text: str) -> Version:
    """Parse an operator's ``3.6`` or ``3.6.1``; the patch is dropped.  Raises `VersionError`."""
    try:
        return parse_version(text).line
    except VersionError:
        return parse_version(f"{text}.0").line


def downgrade_target_of(cluster: Version) -> Version:
    """Return the only version that such a cluster may go down to."""
    return Version(cluster.major, cluster.minor - 1, 0)


def may_serve(server: Version, cluster: Version | None) -> bool:
    """Tell whether a server may run in a cluster: never an older line than the cluster's."""
    return cluster is None or server.line >= cluster.line


def may_join(server: Version, clusters: Iterable[Version]) -> bool:
    """Tell whether a server may join members that report these cluster versions."""
    found = list(clusters)
    return bool(found) and all(
        cluster >= CLUSTER_VERSION_MIN and cluster.line <= server.line for cluster in found
    )


def storage_version(cluster: Version | None) -> Version | None:
    """Return the version that stored data has in such a cluster; None: it does not say one."""
    if cluster is None or cluster < STORAGE_VERSION_MIN:
        return None
    return cluster.line
