"""The current view in pieces of many frames: `Backend.pieces`.

Goes from fence to fence.  Where a fence's rows are kept as a block and the overlay changed none of
those wanted, they are one slice of the block; everywhere else they are what `frames` says.
"""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.storage.rows.fences import Fences
from etcdtw.storage.state.reader import CHUNK_MAX, StateReader
from etcdtw.storage.state.row_blocks import BLOCK_ROWS_MIN, Interval, RowBlock

Frames = Callable[[bytes, bytes | None, int, int], list[bytes]]
Changed = Callable[[bytes, bytes | None], dict[bytes, bytes | None]]


class PieceReader:
    """Reads for one state.  ``frames`` and ``changed`` are the state's own."""

    def __init__(self, reader: StateReader, frames: Frames, changed: Changed) -> None:
        self._reader = reader
        self._frames = frames
        self._changed = changed

    def read(
        self, fences: Fences, start: bytes, end: bytes | None, limit: int, octets_max: int
    ) -> tuple[list[bytes], int]:
        """Return what `Backend.pieces` does.

        ``fences`` only say where blocks begin and end: a block is right whatever they count.
        """
        if self._reader.has_long:  # rows are not in the order of keys
            frames = self._frames(start, end, limit, octets_max)
            return frames, len(frames)
        found: list[bytes] = []
        count = size = 0
        position: bytes | None = start
        while position is not None:
            fence = fences.position(position)
            interval = fences.interval(fence)
            is_dense = fences.counts[fence] >= BLOCK_ROWS_MIN
            behind = interval[1] if is_dense else fences.next_dense(fence, BLOCK_ROWS_MIN)
            stop = end if behind is None or (end is not None and end < behind) else behind
            wanted = limit - count if limit else 0
            block: RowBlock | None = None
            if is_dense:
                block = self._block(interval, fences.counts[fence], position, stop)
            if block is not None:
                octets, rows = block.cut(position, stop, wanted)
                pieces = [octets]
            else:
                left = octets_max - size if octets_max else 0
                pieces = self._frames(position, stop, wanted, left)
                rows = len(pieces)
                if is_dense:
                    self._reader.blocks.note(interval, rows)
            found += pieces
            count += rows
            size += sum(map(len, pieces))
            if stop is None or stop == end or 0 < limit <= count or 0 < octets_max <= size:
                break
            position = stop if rows else fences.next_live(stop)
        return found, count

    def count(self, start: bytes, end: bytes | None) -> int:
        """Return how many live keys are stored in ``[start, end)``; the overlay is not asked."""
        blocks = self._reader.blocks
        found = blocks.count((start, end))
        if found is None:
            found = 0
            position: bytes | None = start
            while position is not None:
                keys, position = self._reader.keys(position, end, CHUNK_MAX)
                found += len(keys)
            blocks.note_count((start, end), found)
        return found

    def _block(
        self, interval: Interval, count: int, start: bytes, stop: bytes | None
    ) -> RowBlock | None:
        """Return the block of an interval of about ``count`` rows, if it may serve its part."""
        reader = self._reader
        block = reader.blocks.get(interval)
        # Asked last: it may sort a part of the overlay, and `frames` will ask again.
        if block is None and not reader.blocks.is_due(interval, count):
            return None
        if self._changed(start, stop):
            return None
        return reader.fill(interval) if block is None else block
