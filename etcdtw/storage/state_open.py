"""Opening `state/`: creation, checks, and the parts that make an `LmdbState`.

Knows the directory layout; the child process's side is `state_writer`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import lmdb

from etcdtw.storage.directory import (
    DataDirError,
    check_format,
    lock_directory,
    open_environment,
    prepare_directory,
    refuse_remote,
)
from etcdtw.storage.state import BootState, LmdbState
from etcdtw.storage.state_codec import (
    FORMAT,
    META,
    META_FINISHED,
    META_INDEX,
    META_SCHEDULED,
    META_TERM,
    ROW_FORMAT,
    ROW_REVISION,
    TABLE_CURRENT,
    TABLE_FENCES,
    TABLE_KEY,
    TABLE_PRIVATE,
    parse_revision_key,
)
from etcdtw.storage.state_feed import InlineStateWriter, StateWriter
from etcdtw.storage.state_reader import StateReader
from etcdtw.storage.state_tables import DATABASES_MAX, Tables

MAP_SIZE: Final = 64 << 30  # address space, not disk


def open_state(
    path: Path,
    fail_stop: Callable[[str], None],
    make_writer: Callable[[Path, int, int], StateWriter] | None = None,
    map_size: int = MAP_SIZE,
    allow_remote: bool = False,
    wait_s: float = 2.0,
) -> LmdbState:
    """Open (or create) the state in ``path``, check it, start its writer.

    ``make_writer(path, map_size, lock_fd)`` builds the writer; None: an `InlineStateWriter`,
    in this process and synchronous, for tests.  Raises `DataDirError` with advice.
    """
    prepare_directory(path)
    if not allow_remote:
        refuse_remote(path)
    lock_fd = lock_directory(path, wait_s)
    try:
        tables = _open_tables(path, map_size)
        boot = read_boot_state(tables, path)
        if make_writer is None:
            writer: StateWriter = InlineStateWriter(tables, map_size)
        else:
            # The writer has the environment to itself; this process only reads from now on.
            tables.env.close()
            writer = make_writer(path, map_size, lock_fd)
            tables = Tables(open_environment(path, map_size, DATABASES_MAX, readonly=True))
    except DataDirError:
        os.close(lock_fd)
        raise
    return LmdbState(StateReader(tables, lock_fd), writer, boot, fail_stop)


def _open_tables(path: Path, map_size: int) -> Tables:
    env = open_environment(path, map_size, DATABASES_MAX)
    try:
        with env.begin() as txn:
            is_new = txn.stat()["entries"] == 0
            is_ours = is_new or txn.get(TABLE_PRIVATE) is not None
        if not is_ours:
            check_format(None, FORMAT, False, path)
        tables = Tables(env, is_new)
        with env.begin() as txn:
            check_format(txn.get(ROW_FORMAT, db=tables.handles[TABLE_PRIVATE]), FORMAT, False, path)
    except lmdb.Error as error:
        env.close()
        raise DataDirError(
            f"{path} is damaged or incomplete: {error}; restore this member from a snapshot"
        ) from error
    except DataDirError:
        env.close()
        raise
    return tables


def read_boot_state(tables: Tables, path: Path) -> BootState:
    """Read what a restart begins with and check that the tables agree with one another."""
    handles = tables.handles
    try:
        with tables.env.begin() as txn:
            revision = _number(txn.get(ROW_REVISION, db=handles[TABLE_PRIVATE]))
            applied_index = _number(txn.get(META_INDEX, db=handles[META]))
            applied_term = _number(txn.get(META_TERM, db=handles[META]))
            fences = [
                (bytes(name[1:]), _number(count))
                for name, count in txn.cursor(handles[TABLE_FENCES])
            ]
            live = txn.stat(handles[TABLE_CURRENT])["entries"]
            cursor = txn.cursor(handles[TABLE_KEY])
            newest = parse_revision_key(bytes(cursor.key()))[0] if cursor.last() else 0
            for name in (META_SCHEDULED, META_FINISHED):
                mark = txn.get(name, db=handles[META])
                if mark is not None:
                    newest = max(newest, parse_revision_key(bytes(mark))[0])
    except lmdb.Error as error:
        raise DataDirError(f"{path} is damaged: {error}; restore from a snapshot") from error
    counted = sum(count for _, count in fences)
    if counted != live:
        raise DataDirError(
            f"{path}: {live} live keys where the fences count {counted}; rebuild the derived tables"
        )
    if revision and newest > revision:
        raise DataDirError(
            f"{path}: revision {newest} is stored beyond the current revision {revision}; "
            "restore this member from a snapshot"
        )
    return BootState(applied_index, applied_term, max(revision, newest, 1), fences)


def _number(value: bytes | memoryview | None) -> int:
    return int.from_bytes(value, "big") if value is not None else 0
