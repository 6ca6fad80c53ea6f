"""The read side of `state/`: durable rows, through one read transaction kept between commits.

Knows no overlay.  The transaction is renewed when the writer confirmed a commit, so it never
pins pages for longer than one generation lives.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from itertools import islice
from pathlib import Path
from typing import Any, Final

import lmdb

from etcdtw.storage.directory import DATA_FILE, DataDirError, names_held, open_environment
from etcdtw.storage.row_blocks import BLOCK_ROWS_MAX, Interval, RowBlock, RowBlocks
from etcdtw.storage.spare_descriptors import SpareDescriptors
from etcdtw.storage.state_boot import BootState, read_boot_state
from etcdtw.storage.state_codec import (
    KEY_SIZE_MAX,
    REFERENCE_SIZE,
    ROW_HAS_LONG,
    TABLE_ATTACHED,
    TABLE_CURRENT,
    TABLE_HISTORY,
    TABLE_KEY,
    TABLE_PRIVATE,
    encode_frame,
    encode_u64,
    key_of,
    lease_prefix,
    parse_reference,
    parse_revision_key,
    parse_version,
    revision_key,
    stored_key,
)
from etcdtw.storage.state_compaction import newest_version
from etcdtw.storage.state_tables import DATABASES_MAX, Tables
from etcdtw.wire.record import record_of

CHUNK_FIRST: Final = 16  # rows read before the first look at where the range ends
CHUNK_STEP: Final = 64  # rows
CHUNK_MAX: Final = 1024
LONG_ROWS_MAX: Final = 16  # rows at a time where long keys are and octets are bounded

Row = tuple[bytes, bytes]


class StateReader:
    """Durable state as of the last `renew`."""

    def __init__(self, tables: Tables, lock_fd: int = -1) -> None:
        self._tables = tables
        self._lock_fd = lock_fd
        self._spares = SpareDescriptors()
        self._env = tables.env
        self._txn: Any = None
        self.has_long = False
        self._size_in_use = -1
        self.blocks = RowBlocks()
        """What is kept of the transaction's rows in joined octets."""
        self.renew()

    def renew(self) -> None:
        """See everything that is durable now."""
        self.release()
        self._size_in_use = -1
        try:
            self._txn = self._env.begin()
        except lmdb.MapResizedError:
            self._env.set_mapsize(0)  # the writer grew the map; take its size
            self._txn = self._env.begin()
        handles = self._tables.handles
        self._key_db = handles[TABLE_KEY]
        self._current_db = handles[TABLE_CURRENT]
        self._current: Any = self._txn.cursor(self._current_db)
        self._history: Any = self._txn.cursor(handles[TABLE_HISTORY])
        self._key: Any = self._txn.cursor(self._key_db)
        self.has_long = self._txn.get(ROW_HAS_LONG, db=handles[TABLE_PRIVATE]) is not None

    def reopen(self) -> BootState:
        """Read on from the file that has taken the place of this one; return what it says.

        Works where no descriptor is left.  Raises `DataDirError`.
        """
        with self._spares.lent():
            return self._reopen()

    def _reopen(self) -> BootState:
        self.release()
        path, map_size = Path(self._env.path()), self._env.info()["map_size"]
        self._env.close()
        try:
            with names_held(path, is_changing=False):
                env = open_environment(path, map_size, DATABASES_MAX, readonly=True)
            self._tables = Tables(env)
            self._env = self._tables.env
            self.renew()
        except (lmdb.Error, OSError) as error:
            raise DataDirError(f"{path} cannot be read: {error}") from error
        return read_boot_state(self._tables, path)

    def release(self) -> None:
        """End the transaction; only `renew` or `reopen` may follow."""
        self.blocks.clear()
        if self._txn is not None:
            self._txn.abort()
            self._txn = None

    # The current view.

    def get(self, key: bytes) -> bytes | None:
        """Return the record of a live key."""
        value = self._txn.get(
            key if len(key) <= KEY_SIZE_MAX else stored_key(key), None, self._current_db
        )
        if value is None:
            return None
        if value[0] == 0:
            return self._referenced(value)
        return record_of(value)

    def rows(
        self, start: bytes, end: bytes | None, limit: int, octets_max: int = 0
    ) -> tuple[list[Row], bytes | None]:
        """Return up to ``limit`` (user key, frame) in ``[start, end)``, and where to go on.

        The second is None when nothing is left.  With long keys around the list may exceed
        ``limit`` by those that share a prefix, and may be empty though more follow.  With
        ``octets_max`` it stops once large records have as many octets; small ones need no bound.
        """
        if self.has_long and octets_max:
            limit = min(limit, LONG_ROWS_MAX)
        rows, bound = self._cut(start, end, limit)
        if self.has_long:
            return self._expand(rows, start, end), bound
        if REFERENCE_SIZE in [len(value) for _, value in rows]:
            framed = self._frame_rows(rows, octets_max)
            if len(framed) < len(rows):
                bound = _behind(framed[-1][0], end)
            return framed, bound
        return rows, bound

    def _frame_rows(self, rows: list[Row], octets_max: int) -> list[Row]:
        """Put large records in the place of their references, up to the bound."""
        framed: list[Row] = []
        size = 0
        for key, value in rows:
            frame = self._framed(value)
            framed.append((key, frame))
            size += len(frame)
            if 0 < octets_max <= size:
                break
        return framed

    def keys(self, start: bytes, end: bytes | None, limit: int) -> tuple[list[bytes], bytes | None]:
        """Return up to ``limit`` live user keys in ``[start, end)``, and where to go on."""
        if self.has_long or len(start) > KEY_SIZE_MAX:
            rows, bound = self.rows(start, end, limit)
            return [key for key, _ in rows], bound
        cursor = self._current
        if not cursor.set_range(start):
            return [], None
        found: list[bytes] = []
        iterator = cursor.iternext(True, False)
        chunk = CHUNK_FIRST
        while len(found) < limit:
            chunk = min(chunk, limit - len(found))
            more = list(islice(iterator, chunk))
            found += more
            if end is not None and more and more[-1] >= end:
                del found[bisect_left(found, end) :]
                return found, None
            if len(more) < chunk:
                return found, None
            chunk = min(chunk * 4, CHUNK_MAX)
        return found, _behind(found[-1], end)

    def fill(self, interval: Interval) -> RowBlock | None:
        """Return a block of all rows of an interval; None if they make none: then it is refused.

        Not with long keys around.  A block has no references: large records would fill the bound.
        """
        assert not self.has_long, "rows are not in the order of keys"
        rows, bound = self._cut(interval[0], interval[1], BLOCK_ROWS_MAX + 1)
        frames = [value for _, value in rows]
        if bound is not None or 0 in [frame[0] for frame in frames]:
            self.blocks.refuse(interval)
            return None
        return self.blocks.add(interval, frames)

    def _cut(self, start: bytes, end: bytes | None, limit: int) -> tuple[list[Row], bytes | None]:
        """Return stored rows from ``start`` to ``end`` or the limit; whole groups of long keys.

        Rows of long keys sort by their first 480 octets, so a group on either edge of the range
        is returned whole; `_expand` cuts it.
        """
        cursor = self._current
        if not cursor.set_range(start[:KEY_SIZE_MAX]):
            return [], None
        rows: list[Row] = []
        iterator = cursor.iternext()
        chunk = CHUNK_FIRST
        is_plain = not self.has_long or (end is not None and len(end) <= KEY_SIZE_MAX)
        if len(start) > KEY_SIZE_MAX and cursor.key() == start[:KEY_SIZE_MAX]:
            next(iterator)  # the prefix of ``start`` is a key itself
        while len(rows) < limit:
            chunk = min(chunk, limit - len(rows))
            more = list(islice(iterator, chunk))
            rows += more
            if end is not None and more:
                if is_plain and more[-1][0] >= end:
                    del rows[bisect_left(rows, (end,)) :]
                    return rows, None
                if not is_plain and more[-1][0][:KEY_SIZE_MAX] > end:
                    return rows, None
            if len(more) < chunk:
                return rows, None
            # What is read beyond ``end``, for nothing, is less than one of these.
            chunk = min(chunk * 4, CHUNK_STEP)
        if len(rows[-1][0]) > KEY_SIZE_MAX:
            prefix = rows[-1][0][:KEY_SIZE_MAX]
            for row in iterator:
                if row[0][:KEY_SIZE_MAX] != prefix:
                    break
                rows.append(row)
        return rows, _behind(rows[-1][0], end)

    def _expand(self, rows: list[Row], start: bytes, end: bytes | None) -> list[Row]:
        """Name rows by their user keys, in the order of those, within ``[start, end)``."""
        framed = [(key, self._framed(value)) for key, value in rows]
        named = [
            (key if len(key) <= KEY_SIZE_MAX else key_of(record_of(frame)), frame)
            for key, frame in framed
        ]
        named.sort()
        return [row for row in named if row[0] >= start and (end is None or row[0] < end)]

    def _framed(self, value: bytes) -> bytes:
        if len(value) == REFERENCE_SIZE and value[0] == 0:
            return encode_frame(self._referenced(value))
        return value

    def _referenced(self, reference: bytes) -> bytes:
        record: bytes = self._txn.get(parse_reference(reference), None, self._key_db)
        return record

    # Older views.

    def version_at(self, key: bytes, revision: int) -> tuple[int, int, bool] | None:
        """Return the newest (main, sub, is_tombstone) of ``key`` up to main ``revision``."""
        return newest_version(self._history, stored_key(key), revision)

    def get_at(self, key: bytes, revision: int) -> bytes | None:
        """Return the record of ``key`` as of main revision ``revision``."""
        version = self.version_at(key, revision)
        if version is None or version[2]:
            return None
        return self.record(version[0], version[1])

    def record(self, main: int, sub: int) -> bytes | None:
        """Return the record put at a revision."""
        record: bytes | None = self._txn.get(revision_key(main, sub), None, self._key_db)
        return record

    def known_keys(
        self, start: bytes, end: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """Return up to ``limit`` user keys with any version, dead ones too, and where to go on."""
        cursor = self._history
        if not cursor.set_range(start[:KEY_SIZE_MAX]):
            return [], None
        names: list[bytes] = []
        bound = None
        for name in cursor.iternext_nodup(True, False):
            if end is not None and name[:KEY_SIZE_MAX] >= end:
                break
            if len(name) < len(start) and start.startswith(name):
                continue  # the prefix of a long ``start`` is a key itself
            if len(names) >= limit and not _is_same_group(name, names[-1]):
                bound = _behind(names[-1], end)
                break
            names.append(name)
        keys = [name if len(name) <= KEY_SIZE_MAX else self._long_name(name) for name in names]
        keys.sort()
        return [key for key in keys if key >= start and (end is None or key < end)], bound

    def _long_name(self, name: bytes) -> bytes:
        """Return the user key behind a hashed name: every version's record holds it."""
        self._history.set_key(name)
        main, sub, is_tombstone = parse_version(self._history.value())
        record = self._txn.get(revision_key(main, sub, is_tombstone), None, self._key_db)
        return key_of(record)

    # Revision order.

    def changes(self, first: int, last: int, limit: int) -> list[tuple[int, int, bool, bytes]]:
        """Return (main, sub, is_tombstone, record) of main revisions ``first..last``.

        Stops at the end of the main revision in which ``limit`` is reached.
        """
        found: list[tuple[int, int, bool, bytes]] = []
        cursor = self._key
        if not cursor.set_range(encode_u64(first)):
            return found
        for stored, record in cursor.iternext():
            main, sub, is_tombstone = parse_revision_key(stored)
            if main > last or (len(found) >= limit and found[-1][0] != main):
                break
            found.append((main, sub, is_tombstone, record))
        return found

    # The small buckets and the attachments.

    def bucket_get(self, bucket: bytes, key: bytes) -> bytes | None:
        value: bytes | None = self._txn.get(key, None, self._tables.handles[bucket])
        return value

    def bucket_items(self, bucket: bytes) -> list[Row]:
        return list(self._txn.cursor(self._tables.handles[bucket]))

    def attached(self, lease_id: int, position: bytes, limit: int) -> tuple[list[bytes], bytes]:
        """Return up to ``limit`` keys attached to a lease, in no order, and where to go on.

        ``position`` is empty at first, and at the end.
        """
        cursor = self._txn.cursor(self._tables.handles[TABLE_ATTACHED])
        prefix = lease_prefix(lease_id)
        found: list[bytes] = []
        if cursor.set_range(position or prefix):
            for name, key in cursor.iternext():
                if name[:8] != prefix:
                    break
                if len(found) == limit:
                    return found, name
                found.append(key or name[8:])
        return found, b""

    def close(self) -> None:
        """Let go of the files and of the directory's lock."""
        self.release()
        self._spares.close()
        self._env.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def size_allocated(self) -> int:
        """Return the octets of the file."""
        return os.stat(os.path.join(self._env.path(), DATA_FILE)).st_size

    def size_in_use(self) -> int:
        """Return the octets of the pages that the databases use; counted once for each `renew`."""
        if self._size_in_use < 0:
            self._size_in_use = self._measure()
        return self._size_in_use

    def _measure(self) -> int:
        total = 0
        for handle in self._tables.handles.values():
            stat = self._txn.stat(handle)
            total += stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(total * stat["psize"])


def _behind(name: bytes, end: bytes | None) -> bytes | None:
    """Return the first user key behind a stored name, and behind all of its group if long.

    None when that is ``end`` or later: the range is exhausted.
    """
    if len(name) <= KEY_SIZE_MAX:
        bound = name + b"\0"
    else:
        prefix = name[:KEY_SIZE_MAX].rstrip(b"\xff")
        if not prefix:
            return None
        bound = prefix[:-1] + bytes((prefix[-1] + 1,))
    return bound if end is None or bound < end else None


def _is_same_group(name: bytes, other: bytes) -> bool:
    return len(name) > KEY_SIZE_MAX and name[:KEY_SIZE_MAX] == other[:KEY_SIZE_MAX]
