"""The read side of `state/`: durable rows, through one read transaction kept between commits.

Knows no overlay.  The transaction is renewed when the writer confirmed a commit, so it never
pins pages for longer than one generation lives.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Final

import google_crc32c
import lmdb

from etcdtw.storage.disk.directory import DATA_FILE, DataDirError, names_held, open_environment
from etcdtw.storage.disk.free_pages import reads
from etcdtw.storage.disk.spare_descriptors import SpareDescriptors
from etcdtw.storage.integrity.check import end_mark
from etcdtw.storage.rows.boot import BootState, read_boot_state
from etcdtw.storage.rows.codec import (
    KEY_SIZE_MAX,
    REFERENCE_SIZE,
    ROW_HAS_LONG,
    TABLE_ATTACHED,
    TABLE_CURRENT,
    TABLE_HISTORY,
    TABLE_KEY,
    TABLE_PRIVATE,
    after_group,
    current_value,
    encode_frame,
    is_same_group,
    key_of,
    lease_prefix,
    parse_reference,
    parse_revision_key,
    parse_version,
    revision_key,
    stored_key,
)
from etcdtw.storage.rows.compaction import OUT_OF_ORDER, newest_version
from etcdtw.storage.rows.hidden_versions import hides_versions
from etcdtw.storage.rows.seal import (
    SEAL_SIZE,
    SEALS,
    PageDamageError,
    Seal,
    StateDamageError,
    rest_of_group,
    sealed_rows,
)
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.rows.version_page import page_around, shows_all
from etcdtw.storage.state.row_blocks import BLOCK_ROWS_MAX, Interval, RowBlock, RowBlocks
from etcdtw.wire.record import record_at, record_of

GROWTH_HELD_MAX: Final = 256 << 10
"""Octets by which the file may grow while pages that were freed wait for this reader."""
CHUNK_FIRST: Final = 16  # rows read before the first look at where the range ends
CHUNK_STEP: Final = 64  # rows
CHUNK_MAX: Final = 1024
LONG_ROWS_MAX: Final = 16  # rows at a time where long keys are and octets are bounded
USER_KEYS_OCTETS_MAX: Final = 16 << 20  # of long keys that are kept with the names of their rows
REVISION_END: Final = (1 << 63) - 1

CURRENT_SEAL: Final = SEALS[TABLE_CURRENT]
CURRENT_SUM: Final = CURRENT_SEAL.sum
_extend: Final = google_crc32c.extend
KEY_SEAL: Final = SEALS[TABLE_KEY]
ATTACHED_SEAL: Final = SEALS[TABLE_ATTACHED]
PRIVATE_SEAL: Final = SEALS[TABLE_PRIVATE]

Row = tuple[bytes, bytes]


class StateReader:
    """Durable state as of the last `renew`.

    Every row is checked against its seal when it is read.  What `current` should say is read from
    `history` and `key` where it is damaged; any other damaged row raises `StateDamageError`.
    ``on_damage`` hears of each, before anything is returned.
    """

    def __init__(self, tables: Tables, lock_fd: int = -1) -> None:
        self._tables = tables
        self._lock_fd = lock_fd
        self._spares = SpareDescriptors()
        self._env = tables.env
        self.path = Path(tables.env.path())
        self._txn: Any = None
        self.has_long = False
        self._user_keys: dict[bytes, bytes] = {}  # by the names of their rows
        self._user_keys_size = 0
        self.on_damage: Callable[[StateDamageError], None] = _nobody_hears
        self.blocks = RowBlocks()
        """What is kept of the transaction's rows in joined octets."""
        self.renew()

    def renew(self) -> None:
        """See everything that is durable now."""
        self.release()
        self._size_in_use = -1
        self._size_renewed = self.size_allocated()
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
        stat = self._txn.stat(self._key_db)
        self.large_octets: int = stat["overflow_pages"] * stat["psize"]
        """As `Backend.large_octets` has it."""
        private = sealed_rows(TABLE_PRIVATE, list(self._txn.cursor(handles[TABLE_PRIVATE])))
        if PRIVATE_SEAL.are_whole(private):
            self.has_long = any(name == ROW_HAS_LONG for name, _ in private)
        else:
            self.on_damage(StateDamageError(TABLE_PRIVATE, PRIVATE_SEAL.first_damaged(private)))

    def renew_if_held(self) -> None:
        """Renew if the file has grown since: pages that were freed may wait for this reader."""
        if self.size_allocated() - self._size_renewed >= GROWTH_HELD_MAX:
            self.renew()

    def reopen(self) -> BootState:
        """Read on from the file that has taken the place of this one; return what it says.

        Works where no descriptor is left.  Raises `DataDirError`.
        """
        with self._spares.lent():
            return self._reopen()

    def _reopen(self) -> BootState:
        self.release()
        path, map_size = self.path, self._env.info()["map_size"]
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
        stored = self._sealed(key)
        if stored is None:
            return None
        if stored[0] == 0:
            return self._record(parse_reference(stored))
        return stored[record_at(stored) : -SEAL_SIZE]

    def frame(self, key: bytes) -> bytes | None:
        """Return the frame of a live key."""
        stored = self._sealed(key)
        return None if stored is None else self._framed(stored[:-SEAL_SIZE])

    def _sealed(self, key: bytes) -> bytes | None:
        """Return what stands in ``current`` for a live key; of a damaged row, what should."""
        name = key if len(key) <= KEY_SIZE_MAX else stored_key(key)
        try:
            stored: bytes | None = self._txn.get(name, None, self._current_db)
        except lmdb.Error as error:
            raise self._unreadable(TABLE_CURRENT, name, error) from error
        if stored is None:
            return None
        if _extend(CURRENT_SUM, name + stored) != CURRENT_SUM or len(stored) <= SEAL_SIZE:
            self.on_damage(StateDamageError(TABLE_CURRENT, name))
            record = self.get_at(key, REVISION_END)
            return None if record is None else CURRENT_SEAL.closed(name, encode_frame(record))
        return stored

    def rows(
        self, start: bytes, end: bytes | None, limit: int, octets_max: int = 0
    ) -> tuple[list[Row], bytes | None]:
        """Return up to ``limit`` (user key, frame) in ``[start, end)``, and where to go on.

        The second is None when nothing is left.  With long keys around the list may exceed
        ``limit`` by those that share a prefix, and may be empty though more follow.  With
        ``octets_max`` it stops once large records have as many octets; small ones need no bound.
        Those that share a prefix are named first, and then read up to the bound.
        """
        if self.has_long and octets_max:
            limit = min(limit, LONG_ROWS_MAX)
        rows, bound = self._cut(start, end, limit)
        if self.has_long:
            rows = self._expand(rows, start, end)
            framed = self._frame_rows(rows, octets_max)
            if len(framed) < len(rows):
                # Not behind its group: there are more of that.
                position = framed[-1][0] + b"\0"
                bound = position if end is None or position < end else None
            return framed, bound
        if REFERENCE_SIZE in [len(value) for _, value in rows]:
            framed = self._frame_rows(rows, octets_max)
            if len(framed) < len(rows):
                bound = after_group(framed[-1][0], end)
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
        else:
            rows, bound = self._cut(start, end, limit)
        return [key for key, _ in rows], bound

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
        try:
            return self._cut_whole(start, end, limit)
        except StateDamageError as error:
            self.on_damage(error)
            return self._cut_derived(start, end, limit)
        except lmdb.Error as error:
            raise self._unreadable(TABLE_CURRENT, start, error) from error

    def _cut_derived(
        self, start: bytes, end: bytes | None, limit: int
    ) -> tuple[list[Row], bytes | None]:
        """Return what `_cut` does from `history` and `key`, for rows that are damaged.

        It may be empty though more follow.
        """
        names, bound = self._known_names(start, end, limit)
        rows: list[Row] = []
        for name in names:
            version = self._newest(name, REVISION_END)
            if version is None or version[2]:
                continue
            record = self.record(version[0], version[1])
            rows.append((name, current_value(version[0], version[1], record)))
        return rows, bound

    def _cut_whole(
        self, start: bytes, end: bytes | None, limit: int
    ) -> tuple[list[Row], bytes | None]:
        """Raises `StateDamageError` when a row is not as it was written."""
        cursor = self._current
        if not cursor.set_range(start[:KEY_SIZE_MAX]):
            return [], None
        if cursor.key() < start[:KEY_SIZE_MAX]:
            raise StateDamageError(TABLE_CURRENT, start, OUT_OF_ORDER)
        rows: list[Row] = []
        iterator = cursor.iternext()
        chunk = CHUNK_FIRST
        is_plain = not self.has_long or (end is not None and len(end) <= KEY_SIZE_MAX)
        if len(start) > KEY_SIZE_MAX and cursor.key() == start[:KEY_SIZE_MAX]:
            next(iterator)  # the prefix of ``start`` is a key itself
        while len(rows) < limit:
            chunk = min(chunk, limit - len(rows))
            more = CURRENT_SEAL.opened_rows(list(islice(iterator, chunk)))
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
            rows += rest_of_group(CURRENT_SEAL, iterator, rows[-1][0][:KEY_SIZE_MAX])
        if rows[-1][0] < start[:KEY_SIZE_MAX]:  # else whoever goes on from there never ends
            raise StateDamageError(TABLE_CURRENT, start, OUT_OF_ORDER)
        return rows, after_group(rows[-1][0], end)

    def _expand(self, rows: list[Row], start: bytes, end: bytes | None) -> list[Row]:
        """Name rows by their user keys, in the order of those, within ``[start, end)``."""
        named = [
            (key if len(key) <= KEY_SIZE_MAX else self._user_key(key, value), value)
            for key, value in rows
        ]
        named.sort()
        return [row for row in named if row[0] >= start and (end is None or row[0] < end)]

    def _user_key(self, name: bytes, value: bytes) -> bytes:
        """Return the user key of a row with a hashed name, which never changes: it is kept."""
        key = self._user_keys.get(name)
        if key is None:
            key = key_of(record_of(self._framed(value)))
            self._user_keys_size += len(key) + len(name)
            if self._user_keys_size > USER_KEYS_OCTETS_MAX:
                self._user_keys.clear()
                self._user_keys_size = len(key) + len(name)
            self._user_keys[name] = key
        return key

    def _framed(self, value: bytes) -> bytes:
        if len(value) == REFERENCE_SIZE and value[0] == 0:
            return encode_frame(self._record(parse_reference(value)))
        return value

    # Older views.

    def version_at(self, key: bytes, revision: int) -> tuple[int, int, bool] | None:
        """Return the newest (main, sub, is_tombstone) of ``key`` up to main ``revision``."""
        name = stored_key(key)
        version = self._newest(name, revision)
        if version is None:
            return None
        try:
            is_missed = hides_versions(self, self._history, name, version)
        except lmdb.Error as error:
            raise self._unreadable(TABLE_HISTORY, name, error) from error
        if is_missed:
            damage = StateDamageError(TABLE_HISTORY, name, "a version is missing")
            self.on_damage(damage)
            raise damage
        return version

    def _newest(self, name: bytes, revision: int) -> tuple[int, int, bool] | None:
        try:
            return newest_version(self._history, name, revision)
        except StateDamageError as error:
            self.on_damage(error)
            raise
        except lmdb.Error as error:
            raise self._unreadable(TABLE_HISTORY, name, error) from error

    def get_at(self, key: bytes, revision: int) -> bytes | None:
        """Return the record of ``key`` as of main revision ``revision``."""
        version = self.version_at(key, revision)
        if version is None or version[2]:
            return None
        return self.record(version[0], version[1])

    def version(self, name: bytes, stored: bytes) -> tuple[int, int, bool]:
        """Return what a row of `history` says."""
        return parse_version(self._opened(SEALS[TABLE_HISTORY], name, stored))

    def is_page_whole(self, name: bytes, version: bytes) -> bool:
        """Whether the page of `history` that holds a stored version shows all that lie there.

        It is asked in a view of its own, which may be a newer one: damage stays.
        """
        try:
            with self._env.begin(buffers=True) as txn:
                cursor = txn.cursor(self._tables.handles[TABLE_HISTORY])
                if not cursor.set_range_dup(name, version):
                    return True  # compacted since
                return shows_all(*page_around(cursor.value()), name)
        except (lmdb.ReadersFullError, lmdb.MapResizedError):
            return True  # it cannot be looked at just now

    def record(self, main: int, sub: int) -> bytes:
        """Return the record put at a revision, of which `history` or `current` tells."""
        return self._record(revision_key(main, sub))

    def _record(self, place: bytes) -> bytes:
        stored = self.stored(TABLE_KEY, place)
        if stored is None:
            error = StateDamageError(TABLE_KEY, place, "it is missing")
            self.on_damage(error)
            raise error
        return self._opened(KEY_SEAL, place, stored)

    def stored(self, table: bytes, name: bytes) -> bytes | None:
        """Return a row with its seal, unchecked."""
        try:
            stored: bytes | None = self._txn.get(name, None, self._tables.handles[table])
        except lmdb.Error as error:
            raise self._unreadable(table, name, error) from error
        return stored

    def _unreadable(self, table: bytes, name: bytes, error: lmdb.Error) -> StateDamageError:
        """Return what to raise when LMDB could not read on."""
        damage = PageDamageError(table, name, error)
        self.on_damage(damage)
        return damage

    def _opened(self, seal: Seal, name: bytes, stored: bytes) -> bytes:
        if not seal.is_whole(name, stored):
            error = StateDamageError(seal.table, name)
            self.on_damage(error)
            raise error
        return stored[:-SEAL_SIZE]

    def _opened_rows(self, seal: Seal, rows: list[Row]) -> list[Row]:
        try:
            return seal.opened_rows(rows)
        except StateDamageError as error:
            self.on_damage(error)
            raise

    def known_keys(
        self, start: bytes, end: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """Return up to ``limit`` user keys with any version, dead ones too, and where to go on."""
        names, bound = self._known_names(start, end, limit)
        keys = [name if len(name) <= KEY_SIZE_MAX else self._long_name(name) for name in names]
        keys.sort()
        return [key for key in keys if key >= start and (end is None or key < end)], bound

    def _known_names(
        self, start: bytes, end: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """Return what stands in `history`, unchecked: whoever asks for its versions checks."""
        try:
            return self._names(start, end, limit)
        except lmdb.Error as error:
            raise self._unreadable(TABLE_HISTORY, start, error) from error

    def _names(
        self, start: bytes, end: bytes | None, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        cursor = self._history
        if not cursor.set_range(start[:KEY_SIZE_MAX]):
            return [], None
        if cursor.key() < start[:KEY_SIZE_MAX]:  # else whoever goes on from here never ends
            raise self._misled(TABLE_HISTORY, start)
        names: list[bytes] = []
        bound = None
        for name in cursor.iternext_nodup(True, False):
            if end is not None and name[:KEY_SIZE_MAX] >= end:
                break
            if len(name) < len(start) and start.startswith(name):
                continue  # the prefix of a long ``start`` is a key itself
            if len(names) >= limit and not is_same_group(name, names[-1]):
                bound = after_group(names[-1], end)
                break
            if names and name <= names[-1]:  # it may be another's, which a search finds
                raise self._misled(TABLE_HISTORY, name)
            names.append(name)
        return names, bound

    def _misled(self, table: bytes, name: bytes) -> StateDamageError:
        """Return what to raise where a search or a walk came to another place."""
        error = StateDamageError(table, name, OUT_OF_ORDER)
        self.on_damage(error)
        return error

    def _long_name(self, name: bytes) -> bytes:
        """Return the user key behind a hashed name: every version's record holds it."""
        self._history.set_key(name)
        version = self.version(name, self._history.value())
        return key_of(self._record(revision_key(*version)))

    # Revision order.

    def changes_from(
        self, main: int, sub: int, last: int, limit: int, octets_max: int = 0
    ) -> list[tuple[int, int, bool, bytes]]:
        """Return up to ``limit`` (main, sub, is_tombstone, record) from (main, sub) on, in order.

        None is of a revision after ``last``.  ``octets_max``: as `Backend.changes_from` has it.
        """
        try:
            rows = self._revisions(revision_key(main, sub), last, limit, octets_max)
        except lmdb.Error as error:
            raise self._unreadable(TABLE_KEY, revision_key(main, sub), error) from error
        opened = self._opened_rows(KEY_SEAL, rows)
        return [(*parse_revision_key(stored), record) for stored, record in opened]

    def _revisions(self, start: bytes, last: int, limit: int, octets_max: int) -> list[Row]:
        rows: list[Row] = []
        octets = 0
        cursor = self._key
        if limit <= 0 or not cursor.set_range(start):
            return rows
        if cursor.key() < start:
            raise self._misled(TABLE_KEY, start)
        for row in cursor.iternext():
            if parse_revision_key(row[0])[0] > last:
                self._opened(KEY_SEAL, *row)  # else it may not be the end
                break
            rows.append(row)
            octets += len(row[1]) - SEAL_SIZE
            if len(rows) == limit or 0 < octets_max <= octets:
                break
        if rows and rows[-1][0] < start:
            raise self._misled(TABLE_KEY, start)
        return rows

    # The small buckets and the attachments.

    def bucket_get(self, bucket: bytes, key: bytes) -> bytes | None:
        stored = self.stored(bucket, key)
        return None if stored is None else self._opened(SEALS[bucket], key, stored)

    def bucket_items(self, bucket: bytes) -> list[Row]:
        try:
            rows = list(self._txn.cursor(self._tables.handles[bucket]))
        except lmdb.Error as error:
            raise self._unreadable(bucket, b"", error) from error
        return self._opened_rows(SEALS[bucket], rows)

    def attached(self, lease_id: int, position: bytes, limit: int) -> tuple[list[bytes], bytes]:
        """Return up to ``limit`` keys attached to a lease, in no order, and where to go on.

        ``position`` is empty at first, and at the end.
        """
        try:
            return self._attached(lease_prefix(lease_id), position, limit)
        except lmdb.Error as error:
            raise self._unreadable(TABLE_ATTACHED, position, error) from error

    def _attached(self, prefix: bytes, position: bytes, limit: int) -> tuple[list[bytes], bytes]:
        cursor = self._txn.cursor(self._tables.handles[TABLE_ATTACHED])
        found: list[bytes] = []
        if cursor.set_range(position or prefix):
            for name, stored in cursor.iternext():
                if name < (position or prefix):
                    raise self._misled(TABLE_ATTACHED, name)
                if name[:8] != prefix:
                    break
                if len(found) == limit:
                    return found, name
                found.append(self._opened(ATTACHED_SEAL, name, stored) or name[8:])
        return found, b""

    def close(self) -> None:
        """Let go of the files and of the directory's lock."""
        self.release()
        self._spares.close()
        end_mark(self.path)
        self._env.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    def open_reads(self) -> int:
        """Return how many read transactions are open on the file, in any process."""
        return len(reads(self._env.readers()))

    def forget_ended_reads(self) -> None:
        """Let go of the pages that processes read which were killed: LMDB keeps them for ever."""
        self._env.reader_check()

    def size_allocated(self) -> int:
        """Return the octets of the file."""
        return os.stat(os.path.join(self._env.path(), DATA_FILE)).st_size

    def size_in_use(self) -> int:
        """Return the octets of the pages that the databases use; counted once for each `renew`."""
        if self._size_in_use < 0:
            self._size_in_use = self._measure()
        return self._size_in_use

    def _measure(self) -> int:
        stats = [self._txn.stat(handle) for handle in self._tables.handles.values()]
        kinds = ("branch_pages", "leaf_pages", "overflow_pages")
        return int(sum([stat[kind] for stat in stats for kind in kinds]) * stats[0]["psize"])


def _nobody_hears(error: StateDamageError) -> None:
    pass
