"""Ranges in bounded steps, of the current view and of older ones: `Backend.rows`.

A step looks at a bounded number of rows, whatever it finds: rows that are dead, deleted lately or
younger than the revision count as those that are returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from etcdtw.storage.rows.codec import encode_frame
from etcdtw.storage.rows.fences import Fences
from etcdtw.storage.state.overlay import Generation, Missing, changed_from, merge_rows
from etcdtw.storage.state.reader import Row, StateReader

Generations = Callable[[], Sequence[Generation]]
VersionAt = Callable[[bytes, int], "bytes | Missing | None"]
GetAt = Callable[[bytes, int], "bytes | None"]

STEP_ROWS_MAX: Final = 1024
"""Rows of a step of those that go on to the end."""


class StepReader:
    """Reads for one state.  The functions are the state's own."""

    def __init__(
        self,
        reader: StateReader,
        generations: Generations,
        version_at: VersionAt,
        get_at: GetAt,
    ) -> None:
        self._reader = reader
        self._generations = generations
        self._version_at = version_at
        self._get_at = get_at

    def rows(
        self,
        fences: Fences,
        start: bytes,
        end: bytes | None,
        revision: int,
        rows_max: int,
        octets_max: int,
    ) -> tuple[list[Row], bytes | None]:
        """Return what `Backend.rows` does."""
        if revision:
            return self._rows_at(start, end, revision, rows_max, octets_max)
        rows, bound = self._reader.rows(start, end, rows_max, octets_max)
        behind = end if bound is None else bound
        changed, cut = changed_from(self._generations(), start, behind, rows_max)
        if cut is not None:
            rows = [row for row in rows if row[0] < cut]
            bound = cut
        if changed:
            rows = merge_rows(rows, changed, 0, octets_max)
            if len(rows) > rows_max or (0 < octets_max <= _size(rows)):
                rows = rows[:rows_max]
                position = rows[-1][0] + b"\0"
                return rows, position if end is None or position < end else None
        return rows, bound if rows else fences.skip_dead(bound, end)

    def _rows_at(
        self, start: bytes, end: bytes | None, revision: int, rows_max: int, octets_max: int
    ) -> tuple[list[Row], bytes | None]:
        keys, bound = self._known_keys(start, end, rows_max)
        rows: list[Row] = []
        size = 0
        for key in keys:
            record = self._get_at(key, revision)
            if record is not None:
                rows.append((key, encode_frame(record)))
                size += len(record)
                if 0 < octets_max <= size:
                    if key is not keys[-1]:
                        bound = key + b"\0"
                    break
        return rows, bound

    def count(
        self, start: bytes, end: bytes | None, revision: int, rows_max: int
    ) -> tuple[int, bytes | None]:
        """Return what `Backend.count_some` does."""
        keys, bound = self._known_keys(start, end, rows_max)
        count = 0
        for key in keys:
            record = self._version_at(key, revision)
            if isinstance(record, Missing):
                version = self._reader.version_at(key, revision)
                count += version is not None and not version[2]
            else:
                count += record is not None
        return count, bound

    # Whole ranges of older views, however large.

    def frames_at(
        self, start: bytes, end: bytes | None, revision: int, limit: int, octets_max: int
    ) -> list[bytes]:
        """Return what `Backend.frames_at` does."""
        found: list[bytes] = []
        size = 0
        position: bytes | None = start
        while position is not None:
            left = octets_max - size if octets_max else 0
            rows, position = self._rows_at(position, end, revision, STEP_ROWS_MAX, left)
            found += (frames := [frame for _, frame in rows])
            if 0 < limit <= len(found):
                del found[limit:]
                break
            size += sum(map(len, frames))
            if 0 < octets_max <= size:
                break
        return found

    def count_at(self, start: bytes, end: bytes | None, revision: int) -> int:
        """Return what `Backend.count_at` does."""
        total = 0
        position: bytes | None = start
        while position is not None:
            count, position = self.count(position, end, revision, STEP_ROWS_MAX)
            total += count
        return total

    def _known_keys(
        self, start: bytes, end: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """Return about ``limit`` keys with any version, and where to go on."""
        keys, bound = self._reader.known_keys(start, end, limit)
        behind = end if bound is None else bound
        changed, cut = changed_from(self._generations(), start, behind, limit)
        if cut is not None:
            keys = [key for key in keys if key < cut]
            bound = cut
        return (sorted(changed.keys() | set(keys)) if changed else keys), bound


def _size(rows: list[Row]) -> int:
    return sum([len(frame) for _, frame in rows])
