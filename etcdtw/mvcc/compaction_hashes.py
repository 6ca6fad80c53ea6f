"""The hashes of the last compactions, by which members compare what a compaction has left.

The hash at revision X after one at P is HashKV's rule with P as the compact revision, over the
rows as they were when X began: what P kept and X keeps, and everything in (P, X].  Members that
compacted at the same two revisions can compare it however much was written since.
Source: etcd 3.5.5 and later, HashKV at the revision of a compaction.
"""

from __future__ import annotations

from typing import Final, NamedTuple

COMPACTION_HASHES_MAX: Final = 10
"""etcd's number; older ones are forgotten, and a restart forgets all."""


class CompactionHash(NamedTuple):
    """One compaction: its own revision, the one before (-1: none), and the hash.

    ``has_live``: some key was live; else versions of etcd before 3.5.16 found another hash.
    """

    revision: int
    compact_revision: int
    value: int
    has_live: bool = True


class CompactionHashes:
    """What this member's last compactions found, by ascending revision."""

    def __init__(self) -> None:
        self._known: dict[int, CompactionHash] = {}

    def add(self, revision: int, compact_revision: int, value: int, has_live: bool = True) -> None:
        """Remember one; compactions come in ascending order."""
        self._known[revision] = CompactionHash(revision, compact_revision, value, has_live)
        while len(self._known) > COMPACTION_HASHES_MAX:
            del self._known[min(self._known)]

    def find(self, revision: int) -> CompactionHash | None:
        """Return the hash of the compaction at exactly ``revision``."""
        return self._known.get(revision)

    def since(self, revision: int) -> list[CompactionHash]:
        """Return those behind ``revision`` that every member finds alike, newest first."""
        known = sorted(self._known.items(), reverse=True)
        return [one for key, one in known if key > revision and one.has_live]
