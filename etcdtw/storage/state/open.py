"""Opening `state/`: creation, checks, and the parts that make an `LmdbState`.

Knows the directory layout; the child process's side is `writer.main`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import lmdb

from etcdtw.storage.building.renewal import remove_renewing
from etcdtw.storage.building.swap import finish_install, has_built, remove_building
from etcdtw.storage.building.takeover import FORMATS_BEFORE, take_over
from etcdtw.storage.disk.directory import (
    DATA_FILE,
    DataDirError,
    check_format,
    lock_directory,
    open_environment,
    prepare_directory,
    refuse_remote,
)
from etcdtw.storage.disk.page_check import PagesDamagedError, check_pages
from etcdtw.storage.disk.words import disk_words, is_outside_cause
from etcdtw.storage.integrity.check import (
    FULL,
    QUICK,
    RENEW,
    begin_mark,
    check_state,
    clear_mark,
)
from etcdtw.storage.rows.boot import BootState, DerivedDamageError, read_boot_state
from etcdtw.storage.rows.codec import (
    DERIVED,
    FORMAT,
    ROW_FORMAT,
    TABLE_PRIVATE,
)
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.state.reader import StateReader
from etcdtw.storage.state.state import LmdbState
from etcdtw.storage.writer.defragment import remove_copy
from etcdtw.storage.writer.feed import InlineStateWriter, StateWriter

MAP_SIZE: Final = 64 << 30  # address space, not disk


def open_state(
    path: Path,
    fail_stop: Callable[[str], None],
    make_writer: Callable[[Path, int, int], StateWriter] | None = None,
    map_size: int = MAP_SIZE,
    allow_remote: bool = False,
    wait_s: float = 2.0,
    compacted: int = 0,
    *,
    is_held: bool = False,
) -> LmdbState:
    """Open (or create) the state in ``path``, check it, start its writer.

    ``compacted`` is the last index that the log has forgotten: it decides about a snapshot that
    was being installed when the member ended (`building.swap`).

    ``make_writer(path, map_size, lock_fd)`` builds the writer; None: an `InlineStateWriter`,
    in this process and synchronous, for tests; ``is_held``: it does nothing before it is told to.
    Raises `DataDirError` with advice.
    """
    prepare_directory(path)
    if not allow_remote:
        refuse_remote(path)
    lock_fd = lock_directory(path, wait_s)
    try:
        remove_copy(path)
        remove_renewing(path)
        mended = _look_after_crash(path, map_size)
        tables, boot, mended = _open_whole(path, map_size, mended)
        if has_built(path):
            tables.env.close()
            finish_install(path, boot.applied_index, compacted)
            tables, boot, mended = _open_whole(path, map_size, mended)
        if make_writer is None:
            writer: StateWriter = InlineStateWriter(tables, map_size, is_held)
        else:
            # The writer has the environment to itself; this process only reads from now on.
            tables.env.close()
            writer = make_writer(path, map_size, lock_fd)
            tables = Tables(open_environment(path, map_size, DATABASES_MAX, readonly=True))
    except DataDirError:
        os.close(lock_fd)
        raise
    state = LmdbState(StateReader(tables, lock_fd), writer, boot, fail_stop)
    state.damage.mended_at_start = mended
    return state


def _look_after_crash(path: Path, map_size: int) -> str:
    """Have a child look at the state if its last member was killed, or distrusted it.

    Returns what was mended.
    """
    why = begin_mark(path)
    if why is None or not (path / DATA_FILE).exists():
        return ""
    mended = check_state(path, map_size, FULL if why else QUICK)
    clear_mark(path)
    return mended


def _open_whole(path: Path, map_size: int, mended: str) -> tuple[Tables, BootState, str]:
    """Open the tables and read what a start begins with; what derived tables lack is made anew."""
    try:
        check_pages(path)
    except PagesDamagedError as error:
        if error.table not in DERIVED:
            raise
        mended = f"{error}: {check_state(path, map_size, RENEW)}"
    tables = _open_tables(path, map_size)
    try:
        return tables, read_boot_state(tables, path), mended
    except DerivedDamageError as error:
        tables.env.close()
        mended = f"{error}: {check_state(path, map_size, RENEW)}"
    except DataDirError:
        tables.env.close()
        raise
    tables = _open_tables(path, map_size)
    return tables, read_boot_state(tables, path), mended


def clear_state(path: Path, wait_s: float = 2.0) -> None:
    """Delete what a killed member was building beside the state in ``path``; opens nothing.

    Before the log is opened, for which there may be no room otherwise.  Raises `DataDirError`.
    """
    if not path.is_dir():
        return
    lock_fd = lock_directory(path, wait_s)
    try:
        remove_copy(path)
        remove_renewing(path)
        remove_building(path)
    except OSError as error:
        raise DataDirError(f"cannot clear {path}: {disk_words(error, path)}") from error
    finally:
        os.close(lock_fd)


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
            found = txn.get(ROW_FORMAT, db=tables.handles[TABLE_PRIVATE])
        if found in FORMATS_BEFORE:
            take_over(tables, path, map_size)
            return _open_tables(path, map_size)
        check_format(found, FORMAT, False, path)
    except lmdb.Error as error:
        env.close()
        if is_outside_cause(error):
            raise DataDirError(f"cannot write {path}: {disk_words(error, path)}") from error
        raise DataDirError(
            f"{path} is damaged or incomplete: {error}; restore this member from a snapshot"
        ) from error
    except DataDirError:
        env.close()
        raise
    return tables
