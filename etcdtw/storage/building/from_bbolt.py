"""A complete state from etcd's database file: its rows, and the tables that follow from them.

Everything is checked on the way, and sorted outside memory, so that each table is written once
and in order.  Knows no member and no process; `snapshot.install` is about the places on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import Any, Final, NamedTuple, Protocol

from google.protobuf.message import DecodeError

from etcdtw.bbolt.check import check
from etcdtw.bbolt.layout import BboltError
from etcdtw.bbolt.reader import BboltFile
from etcdtw.storage.building.sorted_runs import RUN_OCTETS_MAX, SortedRuns
from etcdtw.storage.rows.codec import (
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
    ROW_HAS_LONG,
    ROW_REVISION,
    TABLE_ATTACHED,
    TABLE_CURRENT,
    TABLE_FENCES,
    TABLE_HISTORY,
    TABLE_KEY,
    TABLE_PRIVATE,
    attached_key,
    current_value,
    encode_tombstone,
    encode_u64,
    encode_version,
    fence_row,
    key_of,
    lease_of,
    parse_version,
    revision_key,
    stored_key,
)
from etcdtw.storage.rows.fences import FenceCutter
from etcdtw.storage.rows.seal import SEALS
from etcdtw.storage.rows.tables import Tables
from etcdtw.wire.mvccpb import KeyValue

CHUNK_ROWS_MAX: Final = 8192  # rows at a time, and no more octets than these, but for one page
CHUNK_OCTETS_MAX: Final = 4 << 20
COMMIT_OCTETS: Final = 4 << 20  # of rows in a transaction: what a journal's flush may wait for
ROW_OVERHEAD: Final = 16  # octets of a page beside a row
MAP_FACTOR: Final = 6  # how many times the file's size a state can be at most; address space
MAP_SLACK: Final = 1 << 30
LMDB_KEY_SIZE_MAX: Final = 511
REVISION_SIZE: Final = 17
REVISION_MAX: Final = (1 << 63) - 1

_REVISION: Final = Struct(">QcQ")

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
    revision: int = 0
    """The current main revision is no less."""


class Source(Protocol):
    """Where rows come from: etcd's file, or a state."""

    @property
    def buckets(self) -> Mapping[bytes, object]: ...

    def items(self, name: bytes) -> Iterator[Row]:
        """Yield the rows of a bucket; none if there is no such bucket."""
        ...

    def leaves(self, name: bytes) -> Iterator[list[Row]]:
        """Yield the rows of a bucket, some at a time."""
        ...


@dataclass(frozen=True, slots=True)
class SnapshotInstall:
    """What was built."""

    index: int
    term: int
    revision: int
    conf_state: bytes


class _Seen(NamedTuple):
    """What the rows of ``key`` tell together."""

    newest: int
    """The last one's main revision."""
    has_leases: bool
    has_long: bool
    """Whether a key is too long to be stored as it is."""


class _Target:
    """The environment that is filled, in transactions of some megabytes.

    Each commit is flushed, so there are few; what one holds stays in memory until then.
    """

    def __init__(self, tables: Tables) -> None:
        self._env = tables.env
        self.handles = tables.handles
        self._octets = 0
        self.txn: Any = self._env.begin(write=True)

    def append(self, table: bytes, rows: list[Row]) -> None:
        """Write rows behind all that the table has."""
        stored = SEALS[table].rows(rows)
        _, added = self.txn.cursor(self.handles[table]).putmulti(stored, append=True)
        if added != len(rows):
            raise BboltError(f"a row of {table!r} is there already, or out of order")
        self._octets += sum([len(key) + len(value) + ROW_OVERHEAD for key, value in rows])
        if self._octets >= COMMIT_OCTETS:
            self.txn.commit()
            self.txn = self._env.begin(write=True)
            self._octets = 0

    def put(self, table: bytes, rows: list[Row]) -> None:
        """Write a few rows wherever they belong."""
        self.txn.cursor(self.handles[table]).putmulti(SEALS[table].rows(rows))


def import_state(
    file: BboltFile,
    tables: Tables,
    facts: SnapshotFacts,
    runs: Path,
    still_wanted: Callable[[], None] = lambda: None,
    run_octets_max: int = RUN_OCTETS_MAX,
) -> SnapshotInstall:
    """Fill the empty ``tables`` from ``file``; what is sorted is spilled to files named ``runs``-x.

    Their map must be as large as `map_size_for` says.

    Raises `BboltError` when the file is damaged, or no store of etcd's, or not as ``facts`` say.
    """
    check(file)
    return import_rows(file, tables, facts, runs, still_wanted, run_octets_max)


def import_rows(
    source: Source,
    tables: Tables,
    facts: SnapshotFacts,
    runs: Path,
    still_wanted: Callable[[], None] = lambda: None,
    run_octets_max: int = RUN_OCTETS_MAX,
) -> SnapshotInstall:
    """Do the same from any source of rows in order."""
    target = _Target(tables)
    try:
        return _import(source, target, facts, runs, still_wanted, run_octets_max)
    except BaseException:
        target.txn.abort()
        raise


def map_size_for(file_size: int) -> int:
    """Return how large a map a state from a file of that size may need."""
    return MAP_FACTOR * file_size + MAP_SLACK


def _import(
    file: Source,
    target: _Target,
    facts: SnapshotFacts,
    runs: Path,
    still_wanted: Callable[[], None],
    run_octets_max: int,
) -> SnapshotInstall:
    buckets = _small_buckets(file, facts)
    history = SortedRuns(runs.with_name(runs.name + "-history"), run_octets_max)
    attached = SortedRuns(runs.with_name(runs.name + "-attached"), run_octets_max)
    try:
        seen = _import_keys(file, target, history, still_wanted)
        current = _Current(target, attached if seen.has_leases else None)
        current.derive(history, still_wanted)
        for rows in _chunks(iter(attached)):
            target.append(TABLE_ATTACHED, rows)
            still_wanted()
    finally:
        history.close()
        attached.close()
    meta = dict(buckets[META])
    marks = [_mark(meta, name) for name in (META_SCHEDULED, META_FINISHED)]
    revision = max(1, seen.newest, facts.revision, *marks)
    target.append(TABLE_FENCES, current.fences())
    for name, small in buckets.items():
        target.append(name, small)
    private = [(ROW_REVISION, encode_u64(revision))]
    if seen.has_long:
        private.append((ROW_HAS_LONG, b"\x01"))
    target.put(TABLE_PRIVATE, private)
    target.txn.commit()
    return SnapshotInstall(
        _number(meta, META_INDEX),
        _number(meta, META_TERM),
        revision,
        meta.get(META_CONF_STATE, b""),
    )


def _small_buckets(file: Source, facts: SnapshotFacts) -> dict[bytes, list[Row]]:
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
    size = len(stored)
    if size == REVISION_SIZE or (size == REVISION_SIZE + 1 and stored[-1:] == b"t"):
        main, mark, sub = _REVISION.unpack_from(stored)
        if mark == b"_" and 0 < main <= REVISION_MAX and sub <= REVISION_MAX:
            return main, sub
    raise BboltError(f"{stored[:32]!r} is no revision")


def _import_keys(
    file: Source, target: _Target, history: SortedRuns, still_wanted: Callable[[], None]
) -> _Seen:
    """Copy ``key`` row by row and collect what ``history`` will hold."""
    pending: list[Row] = []
    octets = 0
    previous = (0, 0)
    has_leases = has_long = False
    for rows in file.leaves(TABLE_KEY):
        versions: list[Row] = []
        for stored, record in rows:
            revision = _revision_of(stored)
            if revision == previous:
                raise BboltError(f"revision {revision} is stored twice")
            previous = revision
            octets += len(record)
            is_tombstone = len(stored) > REVISION_SIZE
            if not record and not is_tombstone:
                continue  # what ``--bump-revision`` leaves: it belongs to no key
            decoded = _decode(stored, record, revision[0], is_tombstone)
            if decoded.lease:
                has_leases = True
            key = decoded.key
            if len(key) > KEY_SIZE_MAX:
                has_long = True
                key = stored_key(key)
            versions.append((key, encode_version(*revision, DEAD if is_tombstone else LIVE)))
        history.add(versions)
        pending += rows
        if len(pending) >= CHUNK_ROWS_MAX or octets >= CHUNK_OCTETS_MAX:
            target.append(TABLE_KEY, pending)
            still_wanted()
            pending = []
            octets = 0
    target.append(TABLE_KEY, pending)
    return _Seen(previous[0], has_leases, has_long)


def _decode(stored: bytes, record: bytes, main: int, is_tombstone: bool) -> KeyValue:
    """Return what a record tells.  Raises `BboltError` when it is not as etcd encodes it."""
    try:
        decoded = KeyValue.FromString(record)
    except DecodeError:
        raise BboltError(f"the record at {stored!r} is no KeyValue") from None
    key = decoded.key
    size = len(key)
    # Readers look for the key at the beginning, where etcd has it.
    if 0 < size < 128:
        is_first = record[0] == 10 and record[1] == size and record.startswith(key, 2)
    else:
        is_first = size > 0 and record.startswith(encode_tombstone(key))
    if not is_first:
        raise BboltError(f"the record at {stored!r} does not begin with its key")
    if not is_tombstone and not (
        decoded.mod_revision == main and 0 < decoded.create_revision <= main and decoded.version > 0
    ):
        raise BboltError(f"the record at {stored!r} tells of another revision")
    return decoded


class _Current:
    """Writes ``history`` and ``current``, collects attachments, and cuts the keys into fences."""

    def __init__(self, target: _Target, attached: SortedRuns | None) -> None:
        self._target = target
        self._attached = attached
        self._fences = FenceCutter()

    def derive(self, history: SortedRuns, still_wanted: Callable[[], None]) -> None:
        """A key's versions follow one another, the newest last: one look ahead is all it takes."""
        last: Row = (b"", DEAD * REVISION_SIZE)
        for rows in _chunks(iter(history)):
            self._target.append(TABLE_HISTORY, rows)
            live: list[Row] = []
            for row in rows:
                if row[0] != last[0] and last[1][16:] == LIVE:
                    live.append(last)
                last = row
            self._write(live)
            still_wanted()
        if last[1][16:] == LIVE:
            self._write([last])

    def _write(self, live: list[Row]) -> None:
        """Write rows of ``current`` for keys with their newest versions."""
        current: list[Row] = []
        get, key_db = self._target.txn.get, self._target.handles[TABLE_KEY]
        attached = self._attached
        attachments: list[Row] = []
        opened = SEALS[TABLE_KEY].opened
        for name, version in live:
            main, sub, _ = parse_version(version)
            place = revision_key(main, sub)
            record = opened(place, get(place, db=key_db))
            current.append((name, current_value(main, sub, record)))
            self._fences.add(name)
            if attached is not None and (lease := lease_of(record)):
                key = name if len(name) <= KEY_SIZE_MAX else key_of(record)
                attachment = attached_key(lease, key)
                attachments.append((attachment, b"" if attachment[8:] == key else key))
        self._target.append(TABLE_CURRENT, current)
        if attached is not None:
            attached.add(attachments)

    def fences(self) -> list[Row]:
        """Return the rows of ``fences``."""
        return [fence_row(start, count) for start, count in self._fences.rows()]


def _chunks(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while some := list(islice(rows, CHUNK_ROWS_MAX)):
        yield some
