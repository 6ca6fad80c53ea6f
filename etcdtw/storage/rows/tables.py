"""The write side of `state/`: named databases, one generation as one transaction.

Runs in the writer process, and within a test's own.  Knows no sockets and no overlay.
"""

from __future__ import annotations

import marshal
import os
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol

import lmdb

from etcdtw.storage.rows.codec import (
    BUCKETS,
    DEAD,
    FORMAT,
    LIVE,
    META,
    META_INDEX,
    META_TERM,
    ROW_FORMAT,
    ROW_HAS_LONG,
    ROW_REVISION,
    TABLE_ATTACHED,
    TABLE_CURRENT,
    TABLE_FENCES,
    TABLE_HISTORY,
    TABLE_KEY,
    TABLE_PRIVATE,
    BucketRow,
    attached_key,
    current_value,
    encode_tombstone,
    encode_u64,
    fence_row,
    pack_revision,
    pack_version,
    revision_key,
    stored_key,
)
from etcdtw.storage.rows.seal import SEALS

DATABASES_MAX: Final = 32
MAP_SIZE_MAX: Final = 1 << 42

COMMIT_ROWS_MAX: Final = 8192  # rows made ready at a time within a commit
ANONYMOUS_OCTETS_MAX: Final = 96 << 20  # of the process; with more its memory is given back

_KEY_SEAL: Final = SEALS[TABLE_KEY]
_HISTORY_SEAL: Final = SEALS[TABLE_HISTORY]
_CURRENT_SEAL: Final = SEALS[TABLE_CURRENT]

Change = tuple[int, int, bytes, bytes | None]
_Packed = tuple[Any, ...]
"""A change as it came: compiled code would take a tuple of known types apart at each call, and make
its numbers anew, a tenth of a commit's time."""
Attachment = tuple[int, bytes, bool]
Row = tuple[bytes, bytes]


def pack_changes(changes: list[Change]) -> bytes:
    """Return changes as octets: a third of the memory, until they are committed."""
    return marshal.dumps(changes)


class ChangedRows(NamedTuple):
    """What changes mean to the tables, as it is stored; each list is in its table's order.

    Rows come into being as they are asked for, once: written at once, they are still in the
    processor's cache, which saves a sixth of a commit's time.
    """

    key: Iterator[Row]
    history: Iterator[Row]
    current: Iterator[Row]
    dead: list[bytes]
    """Names that go from ``current``."""


def changed_rows(changes: list[Change]) -> ChangedRows:
    """Return the rows that ``changes``, in revision order, put and take away."""
    # Stable: the versions of a key stay in their order.
    ordered: list[_Packed] = sorted(changes, key=_name)
    newest = {_name(change): change for change in ordered}
    dead = [name for name, change in newest.items() if change[3] is None]
    for name in dead:
        del newest[name]
    return ChangedRows(
        map(_key_row, changes),
        map(_history_row, ordered),
        map(_current_row, newest.values()),
        dead,
    )


def _name(change: _Packed) -> bytes:
    # Asked for again by each row: to carry it along, in pairs, takes 0.5 us more a put.
    return stored_key(change[2])


def _key_row(change: _Packed) -> Row:
    record: bytes | None = change[3]
    if record is None:
        return _KEY_SEAL.row(revision_key(change[0], change[1], True), encode_tombstone(change[2]))
    return _KEY_SEAL.row(pack_revision(change[0], b"_", change[1]), record)


def _history_row(change: _Packed) -> Row:
    flag = DEAD if change[3] is None else LIVE
    return _HISTORY_SEAL.row(stored_key(change[2]), pack_version(change[0], change[1], flag))


def _current_row(change: _Packed) -> Row:
    record: bytes | None = change[3]
    assert record is not None, "the dead have no row"
    return _CURRENT_SEAL.row(stored_key(change[2]), current_value(change[0], change[1], record))


def attached_rows(attachments: list[Attachment]) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield name, stored value, and whether the row is put or else taken away, in order."""
    closed = SEALS[TABLE_ATTACHED].closed
    for lease_id, key, is_attached in attachments:
        name = attached_key(lease_id, key)
        yield name, closed(name, b"" if name[8:] == key else key), is_attached


def anonymous_octets() -> int:
    """Return how much memory of its own this process holds; 0 where Linux does not tell."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            _, resident, shared, *_ = statm.read().split()
    except OSError:
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")


class Tables:
    """The databases of one open environment.  ``handles`` maps names to LMDB's handles."""

    def __init__(self, env: lmdb.Environment, is_new: bool = False) -> None:
        """Open the databases; ``is_new`` creates what is missing, with the format marker."""
        self.env = env
        self.handles: dict[bytes, Any] = {}
        if is_new:
            # One transaction: a crash leaves an empty environment or a complete one.
            with env.begin(write=True) as txn:
                self._open(txn)
                txn.put(ROW_FORMAT, FORMAT, db=self.handles[TABLE_PRIVATE])
        else:
            self._open(None)

    def _open(self, txn: lmdb.Transaction | None) -> None:
        open_db = self.env.open_db
        is_new = txn is not None
        for name in (*BUCKETS, TABLE_KEY, TABLE_CURRENT, TABLE_ATTACHED, TABLE_FENCES):
            self.handles[name] = open_db(name, txn=txn, create=is_new)
        self.handles[TABLE_HISTORY] = open_db(
            TABLE_HISTORY, txn=txn, create=is_new, dupsort=True, dupfixed=True
        )
        self.handles[TABLE_PRIVATE] = open_db(TABLE_PRIVATE, txn=txn, create=is_new)

    def adopt(self, fresh: Tables) -> None:
        """Stand on another environment with the same content, and close this one."""
        env = self.env
        self.env = fresh.env
        self.handles = fresh.handles
        env.close()

    def replace(self, open_fresh: Callable[[], Tables]) -> None:
        """Close this environment, and stand on the one that ``open_fresh`` then opens."""
        self.env.close()
        fresh = open_fresh()
        self.env = fresh.env
        self.handles = fresh.handles


class Batch:
    """What a generation's commit carries beside its changes.  Plain values: it is marshalled."""

    __slots__ = ("attached", "buckets", "fences", "has_long", "index", "revision", "term")

    def __init__(
        self,
        buckets: list[BucketRow],
        attached: list[tuple[int, bytes, bool]],
        fences: list[tuple[bytes, int]],
        has_long: bool,
        index: int,
        term: int,
        revision: int,
    ) -> None:
        self.buckets = buckets
        self.attached = attached
        self.fences = fences
        self.has_long = has_long
        self.index = index
        self.term = term
        self.revision = revision

    def as_tuple(self) -> tuple[object, ...]:
        return (
            self.buckets,
            self.attached,
            self.fences,
            self.has_long,
            self.index,
            self.term,
            self.revision,
        )


class Follower(Protocol):
    """Is told of all that was committed, piece by piece and in order."""

    def follow(self, changes: list[Change], attachments: list[Attachment]) -> None: ...


class StateCommitter:
    """Collects the changes of a generation and commits them.  One per writer."""

    def __init__(self, tables: Tables, map_size: int) -> None:
        self._tables = tables
        self.map_size = map_size
        self._packed: list[bytes] = []
        self._attachments: list[Attachment] = []
        self._bucket_rows: list[BucketRow] = []
        self.changes_since_reopen = 0
        self.follower: Follower | None = None

    def reopen(self) -> None:
        """Go on with the same environment opened anew; what was collected stays."""
        self.changes_since_reopen = 0

    def start_over(self) -> None:
        """Forget what was collected: it is durable, or the tables hold another state."""
        self._packed = []
        self._attachments = []
        self._bucket_rows = []

    def add(self, packed: bytes) -> None:
        """Take the next changes of the generation, packed, in revision order."""
        self._packed.append(packed)
        self.changes_since_reopen += 1

    def attach(self, attachments: list[Attachment]) -> None:
        """Take the next attachments of the generation, oldest first."""
        self._attachments += attachments

    def put_in_buckets(self, rows: list[BucketRow]) -> None:
        """Take the next rows of etcd's small buckets, oldest first; None: deleted."""
        self._bucket_rows += rows

    def commit(self, batch: Batch) -> None:
        """Make the collected changes and ``batch`` durable in one transaction.

        Raises `lmdb.Error` or `OSError`; nothing of the generation is then stored, and the
        process must end.
        """
        while True:
            try:
                with self._tables.env.begin(write=True) as txn:
                    for changes in self._unpacked():
                        self._write_changes(txn, changes)
                    self._write_attachments(txn, self._attachments)
                    self._write_batch(txn, batch)
                break
            except lmdb.MapFullError:
                self.grow()
        if self.follower is not None:
            for changes in self._unpacked():
                self.follower.follow(changes, [])
            self.follower.follow([], self._attachments + batch.attached)
        self.start_over()

    def grow(self) -> None:
        """Double the map; no transaction is open in this process."""
        self.map_size *= 2
        if self.map_size > MAP_SIZE_MAX:
            raise lmdb.MapFullError("the map cannot grow further")
        self._tables.env.set_mapsize(self.map_size)

    def _unpacked(self) -> Iterator[list[Change]]:
        """Yield the changes piece by piece, so that their rows never stand in memory at once."""
        changes: list[Change] = []
        for packed in self._packed:
            changes += marshal.loads(packed)  # noqa: S302
            if len(changes) >= COMMIT_ROWS_MAX:
                yield changes
                changes = []
        if changes:
            yield changes

    def _write_changes(self, txn: Any, changes: list[Change]) -> None:
        handles = self._tables.handles
        rows = changed_rows(changes)
        _, added = txn.cursor(handles[TABLE_KEY]).putmulti(rows.key, append=True)
        if added != len(changes):
            raise lmdb.CorruptedError("a revision is stored already, or out of order")
        txn.cursor(handles[TABLE_HISTORY]).putmulti(rows.history)
        current = handles[TABLE_CURRENT]
        for name in rows.dead:
            txn.delete(name, db=current)
        txn.cursor(current).putmulti(rows.current)

    def _write_attachments(self, txn: Any, attachments: list[Attachment]) -> None:
        attached = self._tables.handles[TABLE_ATTACHED]
        for name, value, is_attached in attached_rows(attachments):
            if is_attached:
                txn.put(name, value, db=attached)
            else:
                txn.delete(name, db=attached)

    def _write_batch(self, txn: Any, batch: Batch) -> None:
        handles = self._tables.handles
        for bucket, key, value in self._bucket_rows + batch.buckets:
            if value is None:
                txn.delete(key, db=handles[bucket])
            else:
                txn.put(key, SEALS[bucket].closed(key, value), db=handles[bucket])
        self._write_attachments(txn, batch.attached)
        fences = handles[TABLE_FENCES]
        for start, count in batch.fences:
            name, value = fence_row(start, count)
            txn.put(name, SEALS[TABLE_FENCES].closed(name, value), db=fences)
        private = [(ROW_REVISION, encode_u64(batch.revision))]
        if batch.has_long:
            private.append((ROW_HAS_LONG, b"\x01"))
        txn.cursor(handles[TABLE_PRIVATE]).putmulti(SEALS[TABLE_PRIVATE].rows(private))
        if batch.index:
            meta = [(META_INDEX, encode_u64(batch.index)), (META_TERM, encode_u64(batch.term))]
            txn.cursor(handles[META]).putmulti(SEALS[META].rows(meta))
