"""A complete state from etcd's database file: its rows, and the tables that follow from them.

Everything is checked on the way, and sorted outside memory, so that each table is written once
and in order.  Knows no member and no process; `state_install` is about the places on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

import lmdb
from google.protobuf.message import DecodeError

from etcdtw.bbolt.check import check
from etcdtw.bbolt.layout import BboltError
from etcdtw.bbolt.reader import BboltFile
from etcdtw.storage.sorted_runs import RUN_OCTETS_MAX, SortedRuns
from etcdtw.storage.state_codec import (
    BUCKETS,
    DEAD,
    KEY_SIZE_MAX,
    LIVE,
    META,
    META_CONF_STATE,
    META_FINISHED,
    META_INDEX,
    META_SCHEDULED,
    META_STORAGE_VERSION,
    META_TERM,
    RECORD_INLINE_MAX,
    ROW_HAS_LONG,
    ROW_REVISION,
    TABLE_ATTACHED,
    TABLE_CURRENT,
    TABLE_FENCES,
    TABLE_HISTORY,
    TABLE_KEY,
    TABLE_PRIVATE,
    attached_key,
    encode_frame,
    encode_reference,
    encode_tombstone,
    encode_u64,
    encode_version,
    parse_version,
    revision_key,
    stored_key,
)
from etcdtw.storage.state_tables import MAP_SIZE_MAX, Tables
from etcdtw.wire.mvccpb import KeyValue

COMMIT_ROWS_MAX: Final = 16_384  # rows in one transaction, which holds their pages in memory
COMMIT_OCTETS_MAX: Final = 8 << 20
FENCE_COUNT: Final = 512  # live keys to a fence
LMDB_KEY_SIZE_MAX: Final = 511
REVISION_SIZE: Final = 17
REVISION_MAX: Final = (1 << 63) - 1

Row = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class SnapshotFacts:
    """What is known of a snapshot beside its file."""

    index: int = 0
    """The index that the file must cover; 0: whatever it says."""
    meta: dict[bytes, bytes] = field(default_factory=dict)
    """Rows of `meta` that take the place of the file's, such as term and confState."""
    buckets: dict[bytes, list[Row]] = field(default_factory=dict)
    """Whole buckets that take the place of the file's: membership that is known better."""


@dataclass(frozen=True, slots=True)
class SnapshotInstall:
    """What was built."""

    index: int
    term: int
    revision: int
    conf_state: bytes


class _Target:
    """The environment that is filled; its map grows as needed."""

    def __init__(self, tables: Tables, map_size: int) -> None:
        self.tables = tables
        self._map_size = map_size

    def change(self, work: Callable[[Any], object]) -> None:
        """Do ``work(txn)`` in one transaction, again in a larger map when need be."""
        while True:
            try:
                with self.tables.env.begin(write=True) as txn:
                    work(txn)
            except lmdb.MapFullError:
                self._map_size *= 2
                if self._map_size > MAP_SIZE_MAX:
                    raise
                self.tables.env.set_mapsize(self._map_size)
            else:
                return

    def append(self, table: bytes, rows: list[Row]) -> None:
        """Write rows behind all that the table has."""

        def work(txn: Any) -> None:
            _, added = txn.cursor(self.tables.handles[table]).putmulti(rows, append=True)
            if added != len(rows):
                raise BboltError(f"a row of {table!r} is there already, or out of order")

        self.change(work)


def import_state(
    file: BboltFile,
    tables: Tables,
    map_size: int,
    facts: SnapshotFacts,
    runs: Path,
    still_wanted: Callable[[], None] = lambda: None,
    run_octets_max: int = RUN_OCTETS_MAX,
) -> SnapshotInstall:
    """Fill the empty ``tables`` from ``file``; what is sorted is spilled to files named ``runs``-x.

    Raises `BboltError` when the file is damaged, or no store of etcd's, or not as ``facts`` say.
    """
    check(file)
    target = _Target(tables, map_size)
    buckets = _small_buckets(file, facts)
    history = SortedRuns(runs.with_name(runs.name + "-history"), run_octets_max)
    attached = SortedRuns(runs.with_name(runs.name + "-attached"), run_octets_max)
    try:
        newest = _import_keys(file, target, history, still_wanted)
        fences = _derive(target, history, attached, still_wanted)
        for rows in _chunks(iter(attached)):
            target.append(TABLE_ATTACHED, rows)
            still_wanted()
    finally:
        history.close()
        attached.close()
    meta = dict(buckets[META])
    marks = [_mark(meta, name) for name in (META_SCHEDULED, META_FINISHED)]
    revision = max(1, newest, *marks)
    target.append(TABLE_FENCES, fences.rows())

    def finish(txn: Any) -> None:
        for name, rows in buckets.items():
            txn.cursor(tables.handles[name]).putmulti(rows)
        private = tables.handles[TABLE_PRIVATE]
        txn.put(ROW_REVISION, encode_u64(revision), db=private)
        if fences.has_long:
            txn.put(ROW_HAS_LONG, b"\x01", db=private)

    target.change(finish)
    return SnapshotInstall(
        _number(meta, META_INDEX),
        _number(meta, META_TERM),
        revision,
        meta.get(META_CONF_STATE, b""),
    )


def _small_buckets(file: BboltFile, facts: SnapshotFacts) -> dict[bytes, list[Row]]:
    """Return the rows of every bucket but ``key``; a file may lack some, or have others."""
    if TABLE_KEY not in file.buckets:
        raise BboltError("the file has no bucket `key`: it is no database of etcd's")
    buckets: dict[bytes, list[Row]] = {}
    for name in BUCKETS:
        rows = facts.buckets[name] if name in facts.buckets else list(file.items(name))
        for key, _ in rows:
            if len(key) > LMDB_KEY_SIZE_MAX:
                raise BboltError(f"bucket {name!r}: the key {key[:64]!r} is too long for a member")
        buckets[name] = rows
    meta = dict(buckets[META])
    meta.pop(META_STORAGE_VERSION, None)  # of the member that wrote the file
    found = _number(meta, META_INDEX)
    if facts.index and found != facts.index:
        raise BboltError(f"the file covers index {found}, the snapshot is of index {facts.index}")
    meta.update(facts.meta)
    _number(meta, META_TERM)
    buckets[META] = sorted(meta.items())
    return buckets


def _number(meta: dict[bytes, bytes], name: bytes) -> int:
    value = meta.get(name, bytes(8))
    if len(value) != 8:
        raise BboltError(f"meta/{name.decode()} has {len(value)} octets")
    return int.from_bytes(value, "big")


def _mark(meta: dict[bytes, bytes], name: bytes) -> int:
    """Return the revision of a compaction mark; 0: there is none."""
    value = meta.get(name)
    return 0 if value is None else _revision_of(value)[0]


def _revision_of(stored: bytes) -> tuple[int, int]:
    """Return (main, sub) of a row's name.  Raises `BboltError` when it is none."""
    if not (len(stored) == REVISION_SIZE or (len(stored) == 18 and stored[17:] == b"t")):
        raise BboltError(f"{stored[:32]!r} is no revision")
    main = int.from_bytes(stored[:8], "big")
    sub = int.from_bytes(stored[9:17], "big")
    if stored[8:9] != b"_" or not 0 < main <= REVISION_MAX or sub > REVISION_MAX:
        raise BboltError(f"{stored[:32]!r} is no revision")
    return main, sub


def _import_keys(
    file: BboltFile, target: _Target, history: SortedRuns, still_wanted: Callable[[], None]
) -> int:
    """Copy ``key`` row by row and collect what ``history`` will hold; return the newest main."""
    pending: list[Row] = []
    octets = 0
    previous = (0, 0)
    for rows in file.leaves(TABLE_KEY):
        for stored, record in rows:
            revision = _revision_of(stored)
            if revision == previous:
                raise BboltError(f"revision {revision} is stored twice")
            previous = revision
            is_tombstone = len(stored) == 18
            key = _key_of(stored, record, revision[0], is_tombstone)
            if key:
                version = encode_version(*revision, DEAD if is_tombstone else LIVE)
                history.add((stored_key(key), version))
            octets += len(record)
        pending += rows
        if len(pending) >= COMMIT_ROWS_MAX or octets >= COMMIT_OCTETS_MAX:
            target.append(TABLE_KEY, pending)
            still_wanted()
            pending = []
            octets = 0
    target.append(TABLE_KEY, pending)
    return previous[0]


def _key_of(stored: bytes, record: bytes, main: int, is_tombstone: bool) -> bytes:
    """Return the user key of a record; empty for what ``--bump-revision`` leaves.

    Raises `BboltError` when the record is not as etcd encodes it.
    """
    if not record and not is_tombstone:
        return b""
    try:
        decoded = KeyValue.FromString(record)
    except DecodeError:
        raise BboltError(f"the record at {stored!r} is no KeyValue") from None
    key: bytes = decoded.key
    # Readers look for the key at the beginning, where etcd has it.
    if not key or not record.startswith(encode_tombstone(key)):
        raise BboltError(f"the record at {stored!r} does not begin with its key")
    if not is_tombstone and not (
        decoded.mod_revision == main and 0 < decoded.create_revision <= main and decoded.version > 0
    ):
        raise BboltError(f"the record at {stored!r} tells of another revision")
    return key


class _Fences:
    """Cuts the live keys, which arrive in order, at every so many."""

    def __init__(self) -> None:
        self._starts = [b""]
        self._counts = [0]
        self.has_long = False

    def add(self, key: bytes) -> None:
        start = key[:KEY_SIZE_MAX]  # long keys share the fence of their prefix
        if self._counts[-1] >= FENCE_COUNT and start > self._starts[-1]:
            self._starts.append(start)
            self._counts.append(0)
        self._counts[-1] += 1

    def rows(self) -> list[Row]:
        return [
            (b"f" + start, encode_u64(count))
            for start, count in zip(self._starts, self._counts, strict=True)
        ]


def _derive(
    target: _Target,
    history: SortedRuns,
    attached: SortedRuns,
    still_wanted: Callable[[], None],
) -> _Fences:
    """Write ``history`` and ``current``, and collect attachments and fences.

    A key's versions follow one another, the newest last, so one look ahead is all it takes.
    """
    fences = _Fences()
    last: Row = (b"", b"")
    for rows in _chunks(iter(history)):
        target.append(TABLE_HISTORY, rows)
        live: list[Row] = []
        for row in rows:
            if row[0] != last[0] and last[1] and last[1][16:] == LIVE:
                live.append(last)
            last = row
        fences.has_long = fences.has_long or any(len(name) > KEY_SIZE_MAX for name, _ in rows)
        _write_current(target, live, attached, fences)
        still_wanted()
    if last[1] and last[1][16:] == LIVE:
        _write_current(target, [last], attached, fences)
    return fences


def _write_current(target: _Target, live: list[Row], attached: SortedRuns, fences: _Fences) -> None:
    """Write rows of ``current`` for keys with their newest versions."""
    current: list[Row] = []
    with target.tables.env.begin() as txn:
        key_db = target.tables.handles[TABLE_KEY]
        for name, version in live:
            main, sub, _ = parse_version(version)
            record: bytes = txn.get(revision_key(main, sub), db=key_db)  # type: ignore[assignment]
            if len(record) > RECORD_INLINE_MAX:
                current.append((name, encode_reference(main, sub)))
            else:
                current.append((name, encode_frame(record)))
            decoded = KeyValue.FromString(record)
            fences.add(decoded.key)
            if decoded.lease:
                place = attached_key(decoded.lease, decoded.key)
                attached.add((place, b"" if place[8:] == decoded.key else decoded.key))
    target.append(TABLE_CURRENT, current)


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while some := list(islice(rows, COMMIT_ROWS_MAX)):
        yield some
