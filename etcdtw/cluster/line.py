"""Which line of etcd this member speaks, and how it becomes another.

A leader raises the cluster's version as soon as every member runs a newer one, and from then
on others may write entries that older lines do not know.  So a member of ours never says that
it runs more than its cluster does, unless an operator has told it to; without a real etcd left
nothing changes.  The cluster's version is replicated, and so the line outlives a restart.
"""

from __future__ import annotations

from collections.abc import Iterable

from etcdtw.cluster.version import (
    COMPAT_RELEASES,
    LINE_MAX,
    LINE_MIN,
    V3_ENTRIES_MIN,
    Version,
)


class LineError(ValueError):
    """The member cannot speak that line, or not next."""


class Line:
    """One member's line.  ``founding``: what holds while the cluster has not decided.

    A new cluster founds with ``--compat-version``, a joining member with `joining_line`.
    """

    def __init__(self, founding: Version = LINE_MAX) -> None:
        self._founding = founding.line
        self._offered: Version | None = None

    def current(self, cluster: Version | None) -> Version:
        """Return the line whose rules hold, in a cluster of this version."""
        if cluster is None or cluster < LINE_MIN:
            return self._founding
        return min(cluster.line, LINE_MAX)

    def release(self, cluster: Version | None) -> Version:
        """Return the release to name in ``/version``, ``X-Server-Version`` and Status."""
        line = self.current(cluster)
        if self._offered is not None and self._offered > line:
            line = self._offered
        return release_of(line)

    def offer(self, target: Version, cluster: Version | None) -> None:
        """An operator's command: say ``target`` from now on.  Raises `LineError`.

        The cluster follows when all its members say so; until then nothing else changes.
        Only the next line may be offered, as etcd is upgraded.  Not kept over a restart.
        """
        line = self.current(cluster)
        if target.line > LINE_MAX:
            raise LineError(f"etcdtw speaks etcd's lines up to {_text(LINE_MAX)}")
        if target.line not in (line, Version(line.major, line.minor + 1, 0)):
            raise LineError(
                f"the cluster is at {_text(line)}: go up one minor version at a time, "
                f"not to {_text(target)}"
            )
        self._offered = target.line

    def withdraw(self) -> None:
        """Say no more than the cluster's line again (a downgrade has begun)."""
        self._offered = None


def release_of(line: Version) -> Version:
    """Return the release that stands for a line.  Raises `LineError` for an unknown one."""
    release = COMPAT_RELEASES.get(_text(line))
    if release is None:
        raise LineError(f"etcdtw does not speak etcd {_text(line)}")
    return release


def parse_line(text: str) -> Version:
    """Parse ``--compat-version``, such as ``3.5``.  Raises `LineError`."""
    release = COMPAT_RELEASES.get(text)
    if release is None:
        raise LineError(f'"{text}" is unknown; known: {", ".join(COMPAT_RELEASES)}')
    return release.line


def joining_line(
    clusters: Iterable[Version | None], servers: Iterable[Version | None]
) -> Version | None:
    """Return the line to speak in a cluster that is joined; None: there is none in common.

    ``clusters``: the cluster version that each member reports, ``servers``: what it runs;
    None where unknown.  Before the cluster has decided, its oldest member counts.
    """
    decided = [version for version in clusters if version is not None]
    line = max(decided, default=None)
    if line is None or line < LINE_MIN:
        line = min((version for version in servers if version is not None), default=None)
    if line is None or not LINE_MIN <= line.line <= LINE_MAX:
        return None
    return line.line


def writes_v2_entries(line: Version) -> bool:
    """Tell whether members publish themselves in the form of the old API in this line."""
    return line < V3_ENTRIES_MIN


def _text(line: Version) -> str:
    return f"{line.major}.{line.minor}"
