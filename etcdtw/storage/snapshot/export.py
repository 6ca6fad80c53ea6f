"""A snapshot of the state as etcd's own database file, made by a process of its own.

One read transaction is all it takes: what it holds is what its `consistent_index` covers, and
commits go on meanwhile.  The file grows at the disk's speed, but in small flushes with rests
between them, so that the journal's never wait behind a large one.

Started by `snapshots`: ``python -m etcdtw.storage.snapshot.export PARENT``, its job as input.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

import lmdb

from etcdtw.bbolt.writer import BboltWriter
from etcdtw.storage.disk.core_dumps import follow_parent
from etcdtw.storage.disk.directory import (
    DATA_FILE,
    DataDirError,
    names_held,
    open_environment,
    sync_directory,
)
from etcdtw.storage.disk.old_file import held
from etcdtw.storage.disk.room import free_octets
from etcdtw.storage.disk.words import size_words
from etcdtw.storage.rows.codec import (
    BUCKETS,
    META,
    META_CONF_STATE,
    META_INDEX,
    META_STORAGE_VERSION,
    META_TERM,
    TABLE_KEY,
)
from etcdtw.storage.rows.seal import SEALS
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.snapshot.child import run_child

FLUSH_SIZE: Final = 1 << 20  # octets; what a flush of the journal may have to wait for
ROOM_PART: Final = 2  # of what the rows use: a file with less room than this plainly does not fit
REST_S_MAX: Final = 0.5  # after a flush: as long as it took, but no longer than this

Row = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class SnapshotExport:
    """A finished file.  Index, term and configuration are those of its very content."""

    size: int
    index: int
    term: int
    conf_state: bytes
    """The row ``confState`` of the bucket ``meta``; empty: there is none."""


class _PacedFile:
    """Writes a file from its beginning, a flush for every few megabytes."""

    def __init__(
        self, fd: int, seconds: Callable[[], float], sleep: Callable[[float], object]
    ) -> None:
        self._fd = fd
        self._seconds = seconds
        self._sleep = sleep
        self._unflushed = 0

    def write(self, octets: bytes) -> None:
        rest = memoryview(octets)
        while rest:
            rest = rest[os.write(self._fd, rest) :]
        self._unflushed += len(octets)
        if self._unflushed >= FLUSH_SIZE:
            started_s = self._seconds()
            os.fdatasync(self._fd)
            self._unflushed = 0
            self._sleep(min(self._seconds() - started_s, REST_S_MAX))


def export(
    tables: Tables,
    target: Path,
    storage_version: bytes = b"",
    still_wanted: Callable[[], None] = lambda: None,
    seconds: Callable[[], float] = lambda: 0.0,
    sleep: Callable[[float], object] = lambda _: None,
    free: Callable[[Path], int] = free_octets,
) -> SnapshotExport:
    """Write the state to ``target``, durably, name and all.

    ``storage_version`` is the row of that name in ``meta``; empty: none, which every version of
    etcd takes.  On any exception ``target`` is gone; `StateDamageError` names a damaged row.
    """
    fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        file = _PacedFile(fd, seconds, sleep)

        def write(octets: bytes) -> None:
            still_wanted()
            file.write(octets)

        writer = BboltWriter(write)
        with tables.env.begin() as txn:
            require_room(txn, tables, free(target))
            meta = meta_of(txn, tables, storage_version)
            add_buckets(writer, txn, tables, meta)
        os.pwrite(fd, writer.finish(), 0)
        os.fsync(fd)
        sync_directory(target.parent)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    return facts_of(writer.size, meta)


def require_room(txn: Any, tables: Tables, free: int) -> None:
    """Raise the error of a full disk where a file plainly does not fit: to try would fill it."""
    used = 0
    for name in (*BUCKETS, TABLE_KEY):
        stat = txn.stat(tables.handles[name])
        used += (stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"]
    if free < used // ROOM_PART:
        why = f"no room for a snapshot of some {size_words(used)}, {size_words(free)} are free"
        raise OSError(errno.ENOSPC, why)


def meta_of(txn: Any, tables: Tables, storage_version: bytes = b"") -> dict[bytes, bytes]:
    """Return the rows of the bucket ``meta`` as a snapshot has them."""
    meta = dict(rows_of(txn, tables, META))
    meta.pop(META_STORAGE_VERSION, None)
    if storage_version:
        meta[META_STORAGE_VERSION] = storage_version
    return meta


def add_buckets(writer: BboltWriter, txn: Any, tables: Tables, meta: dict[bytes, bytes]) -> None:
    """Write all of etcd's buckets; with one ``txn`` the same octets each time."""
    for name in sorted((*BUCKETS, TABLE_KEY)):
        rows: Iterable[Row] = sorted(meta.items()) if name == META else rows_of(txn, tables, name)
        writer.add_bucket(name, rows)


def facts_of(size: int, meta: dict[bytes, bytes]) -> SnapshotExport:
    """Return what a database of ``size`` octets is a snapshot of."""
    return SnapshotExport(
        size,
        int.from_bytes(meta.get(META_INDEX, b""), "big"),
        int.from_bytes(meta.get(META_TERM, b""), "big"),
        meta.get(META_CONF_STATE, b""),
    )


def rows_of(txn: Any, tables: Tables, name: bytes) -> Iterator[Row]:
    """Yield etcd's rows: a damaged one must not travel.  Raises `StateDamageError`."""
    opened = SEALS[name].opened
    for key, stored in txn.cursor(tables.handles[name]):
        yield key, opened(key, stored)


@contextmanager
def opened_tables(path: Path, map_size: int) -> Iterator[Tables]:
    """Open a running member's state in a process beside it, to be read."""
    # Not between the two renames of a file that takes this one's place.
    with ExitStack() as stack:
        with names_held(path, is_changing=False):
            stack.enter_context(held(path / DATA_FILE))
            env = open_environment(path, map_size, DATABASES_MAX, readonly=True)
        try:
            tables = Tables(env)
        except lmdb.Error as error:
            raise DataDirError(f"{path} cannot be read: {error}") from error
        yield tables


def _export_in_child(
    still_wanted: Callable[[], None], path: str, map_size: int, target: str, storage_version: bytes
) -> tuple[Any, ...]:
    with opened_tables(Path(path), map_size) as tables:
        # A process of its own: this is where time comes in.
        seconds, sleep = time.monotonic, time.sleep  # noqa: TID251
        return astuple(export(tables, Path(target), storage_version, still_wanted, seconds, sleep))


if __name__ == "__main__":
    follow_parent()
    os._exit(run_child(sys.argv[1:], _export_in_child))
