"""Which ids are due?  A heap of (time, id) in which re-arming leaves stale entries behind.

Knows no leases.  `arm`, `disarm` and `next_due` cost O(log n); stale entries are dropped when met.
When they outnumber the live ones a new heap is begun, and every call brings it a few entries of
the old one: however many there are, no call does much.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from etcdtw.lease.by_id import ById

STALE_ENTRIES_MIN: Final = 1024
"""Below this many entries a new heap is not worth its while."""
MOVED_MAX: Final = 4
"""Entries that one call brings from the old heap to the new: the old is empty long before the
new one has grown as large."""
STALE_MET_MAX: Final = 1024
"""Stale entries that one `next_due` drops: about 1 ms."""


class Deadlines:
    """At most one time for each id.  Units: ms of one clock."""

    def __init__(self) -> None:
        self._due_ms: ById[int] = ById()
        self._heap: list[tuple[int, int]] = []
        self._old: list[tuple[int, int]] = []  # a heap, too: its last entry can always be taken

    def __len__(self) -> int:
        return len(self._due_ms)

    @property
    def entries(self) -> int:
        """Entries held, the stale ones included."""
        return len(self._heap) + len(self._old)

    def arm(self, key: int, due_ms: int) -> None:
        """Make ``key`` due at ``due_ms``, instead of any earlier arrangement."""
        self._due_ms[key] = due_ms
        heappush(self._heap, (due_ms, key))
        self._tidy()

    def disarm(self, key: int) -> None:
        """Make ``key`` never due; does nothing if it is not armed."""
        self._due_ms.pop(key)
        self._tidy()

    def has_due(self, now_ms: int) -> bool:
        """Whether `next_due` may have something to return, now or when it is asked again."""
        heap, old = self._heap, self._old
        return bool((heap and heap[0][0] <= now_ms) or (old and old[0][0] <= now_ms))

    def next_due(self, now_ms: int) -> int | None:
        """Disarm and return one key that is due, the earliest first.

        None: none is, or `has_due` and more of the stale ones are to be dropped first.
        """
        for _ in range(STALE_MET_MAX + 1):
            heap, old = self._heap, self._old
            if old and not (heap and heap[0] <= old[0]):
                heap = old
            if not heap or heap[0][0] > now_ms:
                return None
            due_ms, key = heappop(heap)
            if self._due_ms.get(key) == due_ms:
                self._due_ms.pop(key)
                return key
        return None

    def bury(self, count: int) -> bool:
        """Free up to ``count`` entries of each kind; True when nothing is left.

        For deadlines that are not used any more: a million at once would take 0.1 s.
        """
        del self._heap[-count:]
        del self._old[-count:]
        return self._due_ms.bury(count) and not self.entries

    def _tidy(self) -> None:
        old = self._old
        if old:
            for _ in range(min(MOVED_MAX, len(old))):
                due_ms, key = old.pop()
                if self._due_ms.get(key) == due_ms:
                    heappush(self._heap, (due_ms, key))
        elif len(self._heap) > 2 * self._due_ms.count + STALE_ENTRIES_MIN:
            self._old, self._heap = self._heap, []
