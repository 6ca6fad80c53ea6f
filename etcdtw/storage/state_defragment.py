"""Giving free pages back: a compact copy of `state/` takes the place of the file.

Runs in the writer process, between two commits.  The member keeps reading the old file, which
has no name any more, until it is told; nothing is committed in between.

    new/data.mdb    the copy, made durable, then opened there, with a lock file of its own
    data.mdb        replaced by renaming; then the lock file, which belongs to one data file

At every moment ``data.mdb`` is complete and holds the last commit.  A copy that a crash left
behind is deleted at the next start.
"""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import Any, Final

import lmdb

from etcdtw.storage.directory import (
    DATA_FILE,
    DataDirError,
    names_held,
    open_environment,
    sync_directory,
)
from etcdtw.storage.state_codec import TABLE_ATTACHED, TABLE_CURRENT, TABLE_HISTORY, TABLE_KEY
from etcdtw.storage.state_tables import DATABASES_MAX, Tables

COPY_DIRECTORY: Final = "new"
LMDB_LOCK_FILE: Final = "lock.mdb"
COPY_ROWS_MAX: Final = 8192  # in one transaction: bounds the memory of the copying
SORTED_TABLES: Final = (TABLE_KEY, TABLE_CURRENT, TABLE_HISTORY, TABLE_ATTACHED)
"""The large ones, empty in a fresh environment, so that pages are filled to the brim."""


def remove_copy(path: Path) -> None:
    """Delete what a defragmentation left in the directory of a state."""
    copy = path / COPY_DIRECTORY
    if copy.is_dir():
        for name in (DATA_FILE, LMDB_LOCK_FILE):
            (copy / name).unlink(missing_ok=True)
        copy.rmdir()


def defragment(tables: Tables, path: Path, map_size: int) -> str:
    """Replace the file by a compact copy; ``tables`` stand on that afterwards.

    No transaction may be open on them in this process.  Returns "", or why there is no copy:
    then nothing has changed.  Raises `OSError` when the copy could not be put in place; the
    process must end then, and a restart finds the old file or the new one.
    """
    copy = path / COPY_DIRECTORY
    fresh: Tables | None = None
    try:
        remove_copy(path)
        copy.mkdir(mode=0o700)
        fresh = Tables(open_environment(copy, map_size, DATABASES_MAX), is_new=True)
        for name, handle in tables.handles.items():
            _copy_table(tables.env, handle, fresh.env, fresh.handles[name], name in SORTED_TABLES)
        _sync_file(copy / DATA_FILE)
    except (OSError, lmdb.Error, DataDirError) as error:
        if fresh is not None:
            fresh.env.close()
        remove_copy(path)
        return str(error)
    with names_held(path, is_changing=True):
        os.rename(copy / DATA_FILE, path / DATA_FILE)
        os.rename(copy / LMDB_LOCK_FILE, path / LMDB_LOCK_FILE)
    sync_directory(path)
    copy.rmdir()
    tables.adopt(fresh)
    return ""


def _copy_table(
    source: lmdb.Environment, rows: Any, target: lmdb.Environment, copied: Any, appends: bool
) -> None:
    """Copy a database row by row: LMDB's own compacting copy crashes on some of ours (0.9.36)."""
    with source.begin() as txn:
        iterator = iter(txn.cursor(rows))
        while some := list(islice(iterator, COPY_ROWS_MAX)):
            with target.begin(write=True) as copying:
                copying.cursor(copied).putmulti(some, append=appends)


def _sync_file(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
