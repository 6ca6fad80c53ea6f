"""`SortedRuns`: more rows than memory should hold, in order.

Rows are collected, sorted and written to a file, a run at a time; reading merges the runs.
"""

from __future__ import annotations

import heapq
import marshal
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

RUN_OCTETS_MAX: Final = 24 << 20  # of memory for the run being collected
ROW_OVERHEAD: Final = 170  # octets a row of two costs beside its content
BLOCK_ROWS: Final = 1024  # written and read at a time: what each run holds while merging
SIZE_OCTETS: Final = 4

Row = tuple[bytes, bytes]


class SortedRuns:
    """One sort.  Call `add` as often as needed, then iterate once, then `close`."""

    def __init__(self, file: Path, octets_max: int = RUN_OCTETS_MAX) -> None:
        """``file`` is made when the rows of one run are too many, and has no name while open."""
        self._file = file
        self._octets_max = octets_max
        self._rows: list[Row] = []
        self._octets = 0
        self._fd = -1
        self._size = 0
        self._runs: list[tuple[int, int]] = []

    def add(self, rows: list[Row]) -> None:
        """Take some rows, a few hundred at a time."""
        self._rows += rows
        self._octets += sum([len(name) + len(value) + ROW_OVERHEAD for name, value in rows])
        if self._octets > self._octets_max:
            self._spill()

    def __iter__(self) -> Iterator[Row]:
        self._rows.sort()
        if not self._runs:
            return iter(self._rows)
        return heapq.merge(*[self._read(*run) for run in self._runs], self._rows)

    def close(self) -> None:
        """Let go of the file and the rows."""
        self._rows = []
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _spill(self) -> None:
        if self._fd < 0:
            self._fd = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            self._file.unlink()
        rows = self._rows
        rows.sort()
        start = self._size
        for at in range(0, len(rows), BLOCK_ROWS):
            block = marshal.dumps(rows[at : at + BLOCK_ROWS])
            octets = memoryview(len(block).to_bytes(SIZE_OCTETS, "big") + block)
            while octets:
                written = os.write(self._fd, octets)
                self._size += written
                octets = octets[written:]
        self._runs.append((start, self._size))
        self._rows = []
        self._octets = 0

    def _read(self, at: int, end: int) -> Iterator[Row]:
        while at < end:
            size = int.from_bytes(os.pread(self._fd, SIZE_OCTETS, at), "big")
            yield from marshal.loads(os.pread(self._fd, size, at + SIZE_OCTETS))  # noqa: S302
            at += SIZE_OCTETS + size
