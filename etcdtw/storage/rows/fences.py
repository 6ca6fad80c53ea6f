"""Counts of live keys, exact at any time: one number about every 512 keys.

A fence at ``starts[i]`` counts the live keys from there to the next fence.  Knows neither
records nor LMDB.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

FENCE_COUNT_MAX: Final = 1024  # live keys; a fence beyond it is split
FENCE_COUNT_ANEW: Final = 512  # live keys of a fence when all are cut anew
# Octets; a fence need not stand exactly at a key.  Rows keep as many octets of long keys' names.
FENCE_KEY_SIZE_MAX: Final = 480
SPARSE_FENCES_MAX: Final = 64  # fences with few keys that are passed in one step


def fence_start(key: bytes) -> bytes:
    """Return where the fence begins that has ``key`` as its first.

    Long keys with one beginning have one answer, which is before all of them: a fence that
    opens there must count each, so none may open between two of them.
    """
    return key[:FENCE_KEY_SIZE_MAX]


class FenceCutter:
    """Cuts all live keys into fences anew, as they come: in the order of their `fence_start`.

    So user keys come sorted, or their names in ``current`` as those are.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[bytes, int]] = []
        self._start = b""  # of the fence that is growing
        self._count = 0
        self._last = b""  # the `fence_start` of the key before

    def add(self, key: bytes) -> None:
        start = fence_start(key)
        if start != self._last:
            assert start > self._last, "keys out of order"
            self._last = start
            if self._count >= FENCE_COUNT_ANEW:
                self._rows.append((self._start, self._count))
                self._start = start
                self._count = 0
        self._count += 1

    def rows(self) -> list[tuple[bytes, int]]:
        """Return (start, count) of each fence."""
        return [*self._rows, (self._start, self._count)]


class Fences:
    """The table of fences.  ``starts`` ascends and begins with the empty key.

    ``dirty`` holds the starts whose rows differ from what was last handed to the writer.
    """

    def __init__(self, rows: list[tuple[bytes, int]]) -> None:
        self.starts: list[bytes] = [start for start, _ in rows]
        self.counts: list[int] = [count for _, count in rows]
        if not self.starts or self.starts[0] != b"":
            self.starts.insert(0, b"")
            self.counts.insert(0, 0)
        self.dirty: set[bytes] = set()

    def change(self, key: bytes, by: int) -> int:
        """Count a key that came to life or died; return the fence's position."""
        position = self.position(key)
        self.counts[position] += by
        self.dirty.add(self.starts[position])
        return position

    def copy(self) -> Fences:
        """Return the table as it is now; its ``dirty`` is empty."""
        return Fences(list(zip(self.starts, self.counts, strict=True)))

    def take_dirty(self) -> list[tuple[bytes, int]]:
        """Return the dirty rows; they are the writer's from now on."""
        counts = dict(zip(self.starts, self.counts, strict=True))
        rows = [(start, counts[start]) for start in self.dirty]
        self.dirty.clear()
        return rows

    def next_live(self, key: bytes) -> bytes | None:
        """Return ``key``, or the start of the first fence with live keys behind its own empty one.

        None: no key from ``key`` on is live.
        """
        position = self.position(key)
        if self.counts[position]:
            return key
        for behind in range(position + 1, len(self.counts)):
            if self.counts[behind]:
                return self.starts[behind]
        return None

    def skip_dead(self, start: bytes | None, end: bytes | None) -> bytes | None:
        """Return where live keys may follow ``start``; None: nowhere before ``end``.

        Without it a range over very many keys that were just deleted would look at each.
        """
        if start is None:
            return None
        found = self.next_live(start)
        return None if found is None or (end is not None and found >= end) else found

    def next_dense(self, position: int, count_min: int) -> bytes | None:
        """Return where to look on behind a fence that counts less than ``count_min``.

        That is the next fence which counts as many, or the `SPARSE_FENCES_MAX`-th; None: neither.
        """
        behind = position + 1
        last = min(position + SPARSE_FENCES_MAX, len(self.counts))
        while behind < last and self.counts[behind] < count_min:
            behind += 1
        return self.starts[behind] if behind < len(self.starts) else None

    def position(self, key: bytes) -> int:
        """Return the position of the fence in which ``key`` is, or would be."""
        return bisect_right(self.starts, key) - 1

    def interval(self, position: int) -> tuple[bytes, bytes | None]:
        """Return ``[start, end)`` of a fence."""
        is_last = position + 1 == len(self.starts)
        return self.starts[position], None if is_last else self.starts[position + 1]

    def split(self, position: int, keys: list[bytes]) -> None:
        """Divide a fence whose live keys are ``keys``."""
        assert len(keys) == self.counts[position], "a fence lost count: run state_rebuild"
        start = self.starts[position]
        middle = fence_start(keys[len(keys) // 2])
        if middle <= start:
            return  # long keys with one common prefix: nothing stands between them
        below = bisect_left(keys, middle)
        self.starts.insert(position + 1, middle)
        self.counts[position : position + 1] = [below, len(keys) - below]
        self.dirty.update((start, middle))

    def total(self) -> int:
        return sum(self.counts)

    def measure(
        self, start: bytes, end: bytes | None
    ) -> tuple[int, list[tuple[bytes, bytes | None]]]:
        """Return the sum of the fences wholly in ``[start, end)`` and what they leave out.

        The remaining intervals, at most two, lie in one fence each.
        """
        starts = self.starts
        if end is not None and end <= start:
            return 0, []
        first = bisect_left(starts, start)  # the first fence that begins in the range
        last = len(starts) if end is None else bisect_right(starts, end) - 1
        # Fences first .. last - 1 lie wholly inside; `last` itself begins at or before `end`.
        if first > last:
            return 0, [(start, end)]
        rest: list[tuple[bytes, bytes | None]] = []
        if first < len(starts) and start < starts[first]:
            rest.append((start, starts[first]))
        elif first == len(starts):
            return 0, [(start, end)]
        if end is not None and starts[last] < end:
            rest.append((starts[last], end))
        return sum(self.counts[first:last]), rest
