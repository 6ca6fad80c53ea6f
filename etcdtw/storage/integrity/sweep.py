"""Looking through a whole state, a few rows at a time: what checksums of single rows cannot find.

    seals     each row of each table is as it was written, and behind the one before it
    search    what a walk meets is also found by its name: a damaged branch page hides rows
    history   each version has its row in `key`; the newest one decides about `current`
    current   each row is the newest version's; a fence counts as many as there are
    key       each row has its version in `history`
    attached  each row is of a live key with that lease, and each such key has one

Each step reads in a transaction of its own and goes on behind the last row, so that no pages are
kept from reuse, and whatever is committed in between does no harm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from operator import ge
from typing import Any, Final, NamedTuple

import lmdb

from etcdtw.storage.disk.words import is_outside_cause
from etcdtw.storage.rows.codec import (
    BUCKETS,
    DEAD,
    KEY_SIZE_MAX,
    LIVE,
    TABLE_ATTACHED,
    TABLE_CURRENT,
    TABLE_FENCES,
    TABLE_HISTORY,
    TABLE_KEY,
    TABLE_PRIVATE,
    StateCorruptionError,
    attached_key,
    current_value,
    encode_version,
    key_of,
    lease_of,
    parse_revision_key,
    parse_version,
    revision_key,
    revision_of,
    stored_key,
)
from etcdtw.storage.rows.compaction import newest_version
from etcdtw.storage.rows.seal import (
    OTHER_SUM,
    SEAL_SIZE,
    SEALS,
    StateDamageError,
    opened_rows,
    sealed_rows,
)
from etcdtw.storage.rows.tables import Tables
from etcdtw.storage.rows.version_page import page_around, shows_all

STEP_ROWS: Final = 256  # in one transaction: some 2 ms
QUICK_ROWS: Final = 4096
NOT_BEHIND: Final = "it is out of order"
FINDINGS_MAX: Final = 64  # in one pass; more say nothing new

_WANTS: Final = (lmdb.MapFullError, lmdb.ReadersFullError, lmdb.MemoryError)
"""What LMDB lacks now and then; the next commit makes the map larger."""

Row = tuple[bytes, bytes]


def is_for_later(error: Exception) -> bool:
    """Whether an error says nothing about what is stored."""
    return isinstance(error, _WANTS) or is_outside_cause(error)


class Finding(NamedTuple):
    """One thing that is wrong."""

    table: bytes
    name: bytes
    """Of the row; empty: the table's own."""
    why: str

    def text(self) -> str:
        return f"`{self.table.decode()}`, {self.name[:64]!r}: {self.why}"


class _View:
    """The tables in one read transaction."""

    def __init__(self, tables: Tables, txn: Any) -> None:
        self.txn = txn
        self.handles = tables.handles
        self.versions = txn.cursor(tables.handles[TABLE_HISTORY])

    def cursor(self, table: bytes) -> Any:
        return self.txn.cursor(self.handles[table])

    def get(self, table: bytes, name: bytes) -> bytes | None:
        """Return a row's value.  Raises `StateDamageError`."""
        stored = self.txn.get(name, None, self.handles[table])
        return None if stored is None else SEALS[table].opened(name, stored)

    def entries(self, table: bytes) -> int:
        return int(self.txn.stat(self.handles[table])["entries"])

    def newest(self, name: bytes) -> tuple[int, int, bool] | None:
        return newest_version(self.versions, name, (1 << 63) - 1)


class _Position:
    """Where a walk over a table goes on: behind ``last``."""

    __slots__ = ("last",)

    def __init__(self) -> None:
        self.last: Row | None = None


Check = Callable[[_View, list[Row]], Iterator[Finding]]


def sweep(tables: Tables, rows_max: int = STEP_ROWS) -> Iterator[Finding | None]:
    """Yield what is wrong, and None between two steps.

    Raises `lmdb.Error` where one `is_for_later`.

    A damaged file may end the process within LMDB: whoever cannot bear that asks a child.
    """
    checks: dict[bytes, Check] = {
        TABLE_HISTORY: _check_history,
        TABLE_CURRENT: _check_current,
        TABLE_KEY: _check_key,
        TABLE_ATTACHED: _check_attached,
    }
    for table in (*BUCKETS, TABLE_PRIVATE, TABLE_KEY, TABLE_HISTORY, TABLE_CURRENT, TABLE_ATTACHED):
        yield from _walk(tables, table, rows_max, checks.get(table, _check_nothing))
    yield from _check_fences(tables, rows_max)


def quick_sweep(tables: Tables) -> Iterator[Finding | None]:
    """Yield the same of seals, order and counts alone; some 0.5 us a row."""
    for table in SEALS:
        yield from _walk(tables, table, QUICK_ROWS, _check_nothing)
    yield from _check_fences(tables, QUICK_ROWS)


def row_count(tables: Tables) -> int:
    """Return about how many rows a sweep has to look at."""
    with tables.env.begin() as txn:
        return sum(int(txn.stat(handle)["entries"]) for handle in tables.handles.values())


def _walk(tables: Tables, table: bytes, rows_max: int, check: Check) -> Iterator[Finding | None]:
    position = _Position()
    while True:
        findings: list[Finding] = []
        try:
            with tables.env.begin() as txn:
                view = _View(tables, txn)
                rows = _next_rows(view, table, position, rows_max)
                is_last = len(rows) < rows_max
                findings += _check_seals(table, rows)
                if (wrong := _out_of_order(table, rows, position)) is not None:
                    # Whoever goes on from here may come by again, and never end.
                    findings.append(Finding(table, wrong, NOT_BEHIND))
                    is_last = True
                if not findings:
                    findings += check(view, _plain(table, rows))
                if rows:
                    position.last = rows[-1]
        except StateDamageError as error:
            findings.append(Finding(error.table, error.name, error.why))
            if rows:
                position.last = rows[-1]
        except (lmdb.Error, StateCorruptionError) as error:
            if is_for_later(error):
                raise
            yield Finding(table, b"", str(error))
            return
        yield from findings
        yield None
        if is_last:
            return


def _next_rows(view: _View, table: bytes, position: _Position, rows_max: int) -> list[Row]:
    cursor = view.cursor(table)
    last = position.last
    if last is None:
        found = cursor.first()
    elif table == TABLE_HISTORY:
        # The last row may be gone, and with it all of its name's.
        found = cursor.set_range_dup(last[0], last[1])
        if found and cursor.value() == last[1]:
            found = cursor.next()
        elif not found:
            found = cursor.set_range(last[0]) and (cursor.key() != last[0] or cursor.next_nodup())
    else:
        found = cursor.set_range(last[0]) and (cursor.key() != last[0] or cursor.next())
    return list(islice(cursor.iternext(), rows_max)) if found else []


def _check_seals(table: bytes, rows: list[Row]) -> Iterator[Finding]:
    """Yield rows that are not whole."""
    seal = SEALS[table]
    sealed = sealed_rows(table, rows)
    if not seal.are_whole(sealed):
        for name, stored in sealed:
            if not seal.is_whole(name, stored):
                yield Finding(table, name, OTHER_SUM)


def _out_of_order(table: bytes, rows: list[Row], position: _Position) -> bytes | None:
    """Return the name of the first row that is not behind the one before it; None: none is."""
    ordered = rows if position.last is None else [position.last, *rows]
    if table == TABLE_HISTORY:
        if any(map(ge, ordered, ordered[1:])):
            return next(b[0] for a, b in pairwise(ordered) if a >= b)
        return None
    names = [name for name, _ in ordered]
    if any(map(ge, names, names[1:])):
        return next(b for a, b in pairwise(names) if a >= b)
    return None


def _plain(table: bytes, rows: list[Row]) -> list[Row]:
    """Return whole rows with their values."""
    return [(name, stored[:-SEAL_SIZE]) for name, stored in sealed_rows(table, rows)]


def _check_nothing(view: _View, rows: list[Row]) -> Iterator[Finding]:
    """Their seals and their order are all there is to check."""
    return iter(())


def _check_key(view: _View, rows: list[Row]) -> Iterator[Finding]:
    for stored, record in rows:
        if view.get(TABLE_KEY, stored) != record:
            yield Finding(TABLE_KEY, stored, "a search does not find it")
        main, sub, is_tombstone = parse_revision_key(stored)
        key = key_of(record)
        if not key:
            continue  # etcd's bump record
        version = encode_version(main, sub, DEAD if is_tombstone else LIVE)
        name = stored_key(key)
        if not view.versions.set_key_dup(name, SEALS[TABLE_HISTORY].closed(name, version)):
            yield Finding(TABLE_HISTORY, name, f"revision {main}.{sub} is missing")


def _check_history(view: _View, rows: list[Row]) -> Iterator[Finding]:
    for name, version in rows:
        main, sub, is_tombstone = parse_version(version)
        place = revision_key(main, sub, is_tombstone)
        record = view.get(TABLE_KEY, place)
        if record is None:
            yield Finding(TABLE_KEY, place, "it is missing")
        elif stored_key(key_of(record)) != name:
            yield Finding(TABLE_HISTORY, name, f"revision {main}.{sub} is another key's")
    for name in dict.fromkeys([name for name, _ in rows]):
        yield from _check_newest(view, name)


def _check_newest(view: _View, name: bytes) -> Iterator[Finding]:
    wanted, record = expected_current(view.txn, view.handles, view.versions, name)
    found = view.get(TABLE_CURRENT, name)
    if found != wanted:
        why = "it is missing" if found is None else "it is not the newest version"
        yield Finding(TABLE_CURRENT, name, why)
    if record is not None and (lease_id := lease_of(record)):
        attached = attached_key(lease_id, key_of(record))
        if view.get(TABLE_ATTACHED, attached) is None:
            yield Finding(TABLE_ATTACHED, attached, "it is missing")


def _check_current(view: _View, rows: list[Row]) -> Iterator[Finding]:
    for name, value in rows:
        if view.get(TABLE_CURRENT, name) != value:
            yield Finding(TABLE_CURRENT, name, "a search does not find it")
        newest = view.newest(name)
        if newest is None or newest[2]:
            yield Finding(TABLE_CURRENT, name, "no version of it is live")


def _check_attached(view: _View, rows: list[Row]) -> Iterator[Finding]:
    for place, key in rows:
        name = stored_key(key or place[8:])
        _, record = expected_current(view.txn, view.handles, view.versions, name)
        if record is None or attached_key(lease_of(record), key_of(record)) != place:
            yield Finding(TABLE_ATTACHED, place, "no live key has that lease")


def _check_fences(tables: Tables, rows_max: int) -> Iterator[Finding | None]:
    """Compare what each fence counts with the rows that are there; one fence or more a step."""
    start: bytes | None = b"f"
    while start is not None:
        findings: list[Finding] = []
        try:
            with tables.env.begin() as txn:
                view = _View(tables, txn)
                if start == b"f":
                    findings += _check_sums(view)
                start = _check_some_fences(view, start, rows_max, findings)
        except StateDamageError as error:
            yield Finding(error.table, error.name, error.why)
            return
        except lmdb.Error as error:
            if is_for_later(error):
                raise
            yield Finding(TABLE_FENCES, b"", str(error))
            return
        yield from findings
        yield None


def _check_sums(view: _View) -> Iterator[Finding]:
    rows = opened_rows(TABLE_FENCES, list(view.cursor(TABLE_FENCES)))
    counted = sum([int.from_bytes(count, "big") for _, count in rows])
    if counted != (live := view.entries(TABLE_CURRENT)):
        yield Finding(TABLE_FENCES, b"", f"{counted} keys are counted where {live} are stored")


def _check_some_fences(
    view: _View, start: bytes, rows_max: int, findings: list[Finding]
) -> bytes | None:
    """Check fences from ``start`` on until enough rows were counted; return where to go on."""
    fences = view.cursor(TABLE_FENCES)
    if not fences.set_range(start):
        return None
    rows = view.cursor(TABLE_CURRENT)
    looked = 0
    name, count = fences.item()
    if name < start:
        raise StateDamageError(TABLE_FENCES, name, NOT_BEHIND)
    while looked < rows_max:
        behind = fences.item()[0] if fences.next() else None
        if behind is not None and behind <= name:
            raise StateDamageError(TABLE_FENCES, behind, NOT_BEHIND)
        found = _count(rows, name[1:], None if behind is None else behind[1:])
        wanted = int.from_bytes(SEALS[TABLE_FENCES].opened(name, count), "big")
        if found != wanted:
            findings.append(Finding(TABLE_FENCES, name, f"{found} keys where {wanted} are counted"))
        looked += found + 1
        if behind is None:
            return None
        name, count = fences.item()
    return bytes(name)


def _count(rows: Any, start: bytes, end: bytes | None) -> int:
    """Count the names of ``current`` that a fence counts; long ones by what they begin with."""
    if not (rows.set_range(start) if start else rows.first()):
        return 0
    count = 0
    for name in rows.iternext(True, False):
        if end is not None and name[:KEY_SIZE_MAX] >= end:
            break
        count += 1
    return count


def expected_current(
    txn: Any, handles: Any, versions: Any, name: bytes
) -> tuple[bytes | None, bytes | None]:
    """Return what `current` should hold for a name, by `history` and `key`, and the record.

    None: no row.  Raises `StateDamageError` when those are damaged themselves.
    """
    newest = newest_version(versions, name, (1 << 63) - 1)
    if newest is None or newest[2]:
        return None, None
    main, sub, _ = newest
    place = revision_key(main, sub)
    stored = txn.get(place, None, handles[TABLE_KEY])
    if stored is None:
        raise StateDamageError(TABLE_KEY, place, "it is missing")
    record = SEALS[TABLE_KEY].opened(place, stored)
    return current_value(main, sub, record), record


def mend_current(tables: Tables, name: bytes) -> None:
    """Make one row of `current` what `history` and `key` say.

    Raises `StateDamageError` when those are damaged themselves, as where the row is whole and
    newer than all that is seen of its key, or `lmdb.Error`.
    """
    handles = tables.handles
    with tables.env.begin(buffers=True) as looking:
        seen = looking.cursor(handles[TABLE_HISTORY])
        has_any = seen.set_key(name) and seen.last_dup()
        if has_any and not shows_all(*page_around(seen.value()), name):
            raise StateDamageError(TABLE_HISTORY, name, "versions of it may be hidden")
    with tables.env.begin(write=True) as txn:
        versions = txn.cursor(handles[TABLE_HISTORY])
        newest = newest_version(versions, name, (1 << 63) - 1)
        wanted, _ = expected_current(txn, handles, versions, name)
        seal = SEALS[TABLE_CURRENT]
        stored = txn.get(name, None, handles[TABLE_CURRENT])
        if stored is not None:
            # A row that is there had a version, and a whole one had that of its revision.
            least = revision_of(stored) if seal.is_whole(name, stored) else 1
            if newest is None or newest[0] < least:
                raise StateDamageError(TABLE_HISTORY, name, "the newest version is missing")
        if wanted is None:
            txn.delete(name, db=handles[TABLE_CURRENT])
        else:
            txn.put(name, seal.closed(name, wanted), db=handles[TABLE_CURRENT])
