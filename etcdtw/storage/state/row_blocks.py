"""Joined frames of neighbouring rows of `current`, kept while one read transaction lives.

A cursor needs far longer for a thousand rows than copying their octets takes, and what it finds
cannot change before the transaction is renewed.  Knows no LMDB: who reads the rows fills a block,
and who renews the transaction clears them all.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from itertools import accumulate
from typing import Final

from etcdtw.storage.rows.codec import key_in
from etcdtw.storage.rows.fences import FENCE_COUNT_MAX

BLOCKS_OCTETS_MAX: Final = 32 << 20  # of all blocks, with their offsets
BLOCK_ROWS_MIN: Final = 64  # live keys of a fence; fewer are read as fast without a block
BLOCK_ROWS_MAX: Final = 2 * FENCE_COUNT_MAX  # a fence that cannot be split may have more
COUNTS_MAX: Final = 1024
"""Intervals, parts of fences for the most, whose rows were counted."""
NEVER: Final = -(1 << 62)

Interval = tuple[bytes, bytes | None]


class RowBlock:
    """All rows of ``[start, end)``: their frames, joined, and where each begins."""

    __slots__ = ("_end", "_octets", "_offsets", "_start")

    def __init__(self, interval: Interval, frames: list[bytes]) -> None:
        self._start, self._end = interval
        self._octets = b"".join(frames)
        self._offsets = array("I", accumulate(map(len, frames), initial=0))

    @property
    def size(self) -> int:
        """Octets of memory, about."""
        return len(self._octets) + len(self._offsets) * self._offsets.itemsize

    def cut(self, start: bytes, end: bytes | None, limit: int) -> tuple[bytes, int]:
        """Return the joined frames of ``[start, end)`` and how many they are; limit 0: all."""
        last = len(self._offsets) - 1
        first = 0
        if start > self._start:
            first = bisect_left(range(last), start, key=self._key_at)
        if end is not None and (self._end is None or end < self._end):
            last = bisect_left(range(last), end, first, key=self._key_at)
        if 0 < limit < last - first:
            last = first + limit
        return self._octets[self._offsets[first] : self._offsets[last]], last - first

    def _key_at(self, row: int) -> bytes:
        return key_in(self._octets, self._offsets[row])


class RowBlocks:
    """The blocks of one read transaction.

    A block is filled when about as many of its rows were read without it as it has: so it costs no
    more than was spent already, and a single pass over very many keys fills none.  When the bound
    is reached nothing more is kept until `clear`: where all is asked for alike, an exchange would
    win nothing.
    """

    def __init__(self, octets_max: int = BLOCKS_OCTETS_MAX) -> None:
        self._octets_max = octets_max
        self._blocks: dict[Interval, RowBlock] = {}
        self._rows_read: dict[Interval, int] = {}
        self._stale: list[RowBlock] = []
        self._is_full = False
        self._counts: dict[Interval, int] = {}
        self.octets = 0
        """Of blocks, stale ones too."""

    def clear(self) -> None:
        """Forget everything: the rows may be others now.

        The memory is given up piece by piece, to new blocks: at once it would take 2 ms, and this
        is called at every commit.
        """
        self._stale.extend(self._blocks.values())
        self._blocks.clear()
        self._rows_read.clear()
        self._counts.clear()
        self._is_full = False

    def count(self, interval: Interval) -> int | None:
        """Return how many rows an interval has; None: nobody has counted them yet."""
        return self._counts.get(interval)

    def note_count(self, interval: Interval, count: int) -> None:
        """Remember how many rows an interval has: to count them each is read and checked."""
        if len(self._counts) >= COUNTS_MAX:
            self._counts.clear()
        self._counts[interval] = count

    def get(self, interval: Interval) -> RowBlock | None:
        return self._blocks.get(interval)

    def is_due(self, interval: Interval, count: int) -> bool:
        """Whether a block of about ``count`` rows should be filled when it is read next."""
        return not self._is_full and self._rows_read.get(interval, 0) >= count

    def note(self, interval: Interval, rows: int) -> None:
        """So many rows were read without a block."""
        self._rows_read[interval] = self._rows_read.get(interval, 0) + rows

    def refuse(self, interval: Interval) -> None:
        """The rows of this interval make no block."""
        self._rows_read[interval] = NEVER

    def add(self, interval: Interval, frames: list[bytes]) -> RowBlock:
        """Return the block of these rows, and keep it if it fits."""
        block = RowBlock(interval, frames)
        while self._stale and self.octets + block.size > self._octets_max:
            self.octets -= self._stale.pop().size
        if self.octets + block.size > self._octets_max:
            self._is_full = True
        else:
            self._blocks[interval] = block
            self.octets += block.size
        return block
