"""Giving free pages back: a compact copy of `state/` takes the place of the file.

Runs in the writer process, a step at a time, between commits.  Each commit also goes to the copy,
as far as the copy has come, so that nobody waits for it however large the state is.

    new/data.mdb    the copy, made durable, with a lock file of its own
    data.mdb        replaced by renaming; then the lock file, which belongs to one data file

At every moment ``data.mdb`` is complete and holds the last commit.  A copy that a crash left
behind is deleted at the next start.  The member keeps reading the old file, which has no name any
more, until it is told; nothing is committed in between that it would hear of before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb

from etcdtw.storage.disk.directory import (
    DATA_FILE,
    LMDB_LOCK_FILE,
    DataDirError,
    names_held,
    open_environment,
    sync_directory,
)
from etcdtw.storage.disk.old_file import OldFile
from etcdtw.storage.rows.codec import TABLE_ATTACHED, TABLE_CURRENT, TABLE_HISTORY, TABLE_KEY
from etcdtw.storage.rows.tables import (
    DATABASES_MAX,
    Attachment,
    Change,
    Row,
    Tables,
    attached_rows,
    changed_rows,
)

COPY_DIRECTORY: Final = "new"
COPY_ROWS_MAX: Final = 8192  # in one step, which is one transaction of the copy
COPY_OCTETS_MAX: Final = 4 << 20  # likewise; one row more may follow
SORTED_TABLES: Final = (TABLE_KEY, TABLE_HISTORY, TABLE_CURRENT, TABLE_ATTACHED)
"""The large ones, in the order of copying; empty at first, so that pages are filled to the brim."""


def remove_copy(path: Path) -> None:
    """Delete what a defragmentation left in the directory of a state."""
    copy = path / COPY_DIRECTORY
    if copy.is_dir():
        for name in (DATA_FILE, LMDB_LOCK_FILE):
            (copy / name).unlink(missing_ok=True)
        copy.rmdir()


def sync_file(file: Path) -> None:
    """Make what was written to ``file`` durable."""
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class DiskSteps(NamedTuple):
    """What puts a copy in place; each step may be the last one that happens."""

    rename: Callable[[Path, Path], None] = os.rename
    sync_directory: Callable[[Path], None] = sync_directory
    sync_file: Callable[[Path], None] = sync_file


DISK_STEPS: Final = DiskSteps()


class Defragmentation:
    """One copy that grows and takes the place of the file.

    Invariant: in the copy is every row of the file up to the last one copied, and no other.  So
    what is committed behind that row needs no care: a later step finds it.
    """

    def __init__(
        self,
        tables: Tables,
        path: Path,
        map_size: int,
        rows_max: int = COPY_ROWS_MAX,
        octets_max: int = COPY_OCTETS_MAX,
        disk: DiskSteps = DISK_STEPS,
    ) -> None:
        """``tables`` will stand on the copy in the end.  Nothing but `follow` and commits may
        change them in between."""
        self.error = ""
        """Why there is no copy; then nothing has changed."""
        self._tables = tables
        self._path = path
        self._map_size = map_size
        self._rows_max = rows_max
        self._octets_max = octets_max
        self._disk = disk
        self._copy: Tables | None = None
        self._at = 0  # which of `SORTED_TABLES` is being copied
        self._last: Row | None = None  # the last row of it that was
        self.old_file: OldFile | None = None
        """What the copy took the place of."""

    def step(self) -> bool:
        """Copy some rows, or put the complete copy in place; True: it is over, see `error`.

        In the last step no transaction may be open on the tables in this process.  Raises
        `OSError` when the copy could not be put in place; the process must end then, and a
        restart finds the old file or the new one.
        """
        if self.error:
            return True
        try:
            if self._copy is None:
                self._copy = self._begin()
            if self._at < len(SORTED_TABLES):
                self._copy_some(self._copy)
                return False
            self._complete(self._copy)
        except (OSError, lmdb.Error, DataDirError) as error:
            self.give_up(str(error))
            return True
        self._swap(self._copy)
        return True

    def follow(self, changes: list[Change], attachments: list[Attachment]) -> None:
        """Take what was just committed, as far as the copy has come.  In as many transactions
        as its caller likes: the copy counts for nothing before it is complete."""
        if self._copy is None or self.error:
            return
        try:
            with self._copy.env.begin(write=True) as txn:
                self._follow(txn, self._copy.handles, changes, attachments)
        except (OSError, lmdb.Error) as error:
            self.give_up(str(error))

    def give_up(self, error: str) -> None:
        """Leave the file as it is, and nothing beside it.  Not after the last step."""
        self.error = error
        if self._copy is not None:
            self._copy.env.close()
            self._copy = None
        remove_copy(self._path)

    def _begin(self) -> Tables:
        remove_copy(self._path)
        copy = self._path / COPY_DIRECTORY
        copy.mkdir(mode=0o700)
        return Tables(open_environment(copy, self._map_size, DATABASES_MAX), is_new=True)

    def _copy_some(self, copy: Tables) -> None:
        """Copy row by row: LMDB's own compacting copy crashes on some of ours (0.9.36).

        A table is done with the step that sees its end: commits may add to it before the next.
        """
        table = SORTED_TABLES[self._at]
        rows: list[Row] = []
        size = 0
        is_full = False
        with self._tables.env.begin() as txn:
            cursor = txn.cursor(self._tables.handles[table])
            if _go_behind(cursor, self._last, table == TABLE_HISTORY):
                for row in cursor.iternext():
                    rows.append(row)
                    size += len(row[0]) + len(row[1])
                    is_full = len(rows) == self._rows_max or size >= self._octets_max
                    if is_full:
                        break
        if rows:
            with copy.env.begin(write=True) as txn:
                txn.cursor(copy.handles[table]).putmulti(rows, append=True)
            self._last = rows[-1]
        if not is_full:
            self._at += 1
            self._last = None

    def _complete(self, copy: Tables) -> None:
        """Copy the small tables, which are not followed, and make the file durable."""
        with self._tables.env.begin() as txn, copy.env.begin(write=True) as copying:
            for name, handle in self._tables.handles.items():
                if name not in SORTED_TABLES:
                    copying.cursor(copy.handles[name]).putmulti(txn.cursor(handle))
        self._disk.sync_file(self._path / COPY_DIRECTORY / DATA_FILE)

    def _swap(self, copy: Tables) -> None:
        path, new = self._path, self._path / COPY_DIRECTORY
        with names_held(path, is_changing=True):
            self.old_file = OldFile(path / DATA_FILE)
            self._disk.rename(new / DATA_FILE, path / DATA_FILE)
            self._disk.rename(new / LMDB_LOCK_FILE, path / LMDB_LOCK_FILE)
        self._disk.sync_directory(path)
        new.rmdir()
        self._tables.adopt(copy)

    def _follow(
        self, txn: Any, handles: Any, changes: list[Change], attachments: list[Attachment]
    ) -> None:
        rows = changed_rows(changes)
        txn.cursor(handles[TABLE_KEY]).putmulti(self._copied(TABLE_KEY, rows.key), append=True)
        txn.cursor(handles[TABLE_HISTORY]).putmulti(self._copied(TABLE_HISTORY, rows.history))
        current = handles[TABLE_CURRENT]
        for name, _ in self._copied(TABLE_CURRENT, [(name, b"") for name in rows.dead]):
            txn.delete(name, db=current)
        txn.cursor(current).putmulti(self._copied(TABLE_CURRENT, rows.current))
        attached = handles[TABLE_ATTACHED]
        for name, value, is_attached in attached_rows(attachments):
            if self._copied(TABLE_ATTACHED, [(name, value)]):
                if is_attached:
                    txn.put(name, value, db=attached)
                else:
                    txn.delete(name, db=attached)

    def _copied(self, table: bytes, rows: Iterable[Row]) -> list[Row]:
        """Return those of ``rows`` that no later step will find."""
        place = SORTED_TABLES.index(table)
        if place != self._at:
            return list(rows) if place < self._at else []
        last = self._last
        if last is None:
            return []
        if table == TABLE_HISTORY:
            return [row for row in rows if row <= last]
        return [row for row in rows if row[0] <= last[0]]


def _go_behind(cursor: Any, last: Row | None, has_duplicates: bool) -> bool:
    """Put the cursor on the first row behind ``last``; False: there is none."""
    if last is None:
        return bool(cursor.first())
    name, value = last
    if has_duplicates:
        # Nothing is deleted from it meanwhile: compactions wait.
        if not cursor.set_key_dup(name, value):
            raise lmdb.CorruptedError("a version has vanished while it was copied")
        return bool(cursor.next())
    return bool(cursor.set_range(name)) and (cursor.key() != name or bool(cursor.next()))
