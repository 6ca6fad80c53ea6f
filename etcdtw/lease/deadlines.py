"""Which ids are due?  A heap of (time, id) in which re-arming leaves stale entries behind.

Knows no leases.  `arm` and `due` cost O(log n); stale entries are dropped when met, and the
heap is rebuilt when they outnumber the live ones.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final

STALE_ENTRIES_MIN: Final = 1024
"""Below this many entries a rebuild is not worth its while."""


class Deadlines:
    """At most one time for each id.  Units: ms of one clock."""

    def __init__(self) -> None:
        self._due_ms: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._due_ms)

    @property
    def entries(self) -> int:
        """Entries held, the stale ones included."""
        return len(self._heap)

    def arm(self, key: int, due_ms: int) -> None:
        """Make ``key`` due at ``due_ms``, instead of any earlier arrangement."""
        self._due_ms[key] = due_ms
        heappush(self._heap, (due_ms, key))
        if len(self._heap) > 2 * len(self._due_ms) + STALE_ENTRIES_MIN:
            self._heap = [(due_ms, key) for key, due_ms in self._due_ms.items()]
            heapify(self._heap)

    def disarm(self, key: int) -> None:
        """Make ``key`` never due; does nothing if it is not armed."""
        self._due_ms.pop(key, None)

    def has_due(self, now_ms: int) -> bool:
        """Whether `next_due` may have something to return."""
        return bool(self._heap) and self._heap[0][0] <= now_ms

    def next_due(self, now_ms: int) -> int | None:
        """Disarm and return one key that is due, the earliest first; None: none is."""
        heap = self._heap
        while heap and heap[0][0] <= now_ms:
            due_ms, key = heappop(heap)
            if self._due_ms.get(key) == due_ms:
                del self._due_ms[key]
                return key
        return None
