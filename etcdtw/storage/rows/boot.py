"""What a member finds in `state/` when it starts, and whether its tables agree.

Knows no overlay and no writer.
"""

from __future__ import annotations

from pathlib import Path

import lmdb

from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.rows.codec import (
    META,
    META_FINISHED,
    META_INDEX,
    META_SCHEDULED,
    META_TERM,
    ROW_REVISION,
    TABLE_CURRENT,
    TABLE_FENCES,
    TABLE_KEY,
    TABLE_PRIVATE,
    parse_revision_key,
)
from etcdtw.storage.rows.seal import SEALS, StateDamageError, opened_rows
from etcdtw.storage.rows.tables import Tables


class DerivedDamageError(DataDirError):
    """What follows from `key` contradicts itself or cannot be read; it may be made anew."""


class BootState:
    """What an opened store knows about itself."""

    __slots__ = ("applied_index", "applied_term", "fences", "revision")

    def __init__(
        self, applied_index: int, applied_term: int, revision: int, fences: list[tuple[bytes, int]]
    ) -> None:
        self.applied_index = applied_index
        self.applied_term = applied_term
        self.revision = revision
        self.fences = fences


def read_boot_state(tables: Tables, path: Path) -> BootState:
    """Read what a restart begins with and check that the tables agree with one another."""
    handles = tables.handles
    try:
        with tables.env.begin() as txn:
            private = dict(opened_rows(TABLE_PRIVATE, list(txn.cursor(handles[TABLE_PRIVATE]))))
            revision = _number(private.get(ROW_REVISION))
            applied_index = _number(_opened(txn, tables, META, META_INDEX))
            applied_term = _number(_opened(txn, tables, META, META_TERM))
            rows = opened_rows(TABLE_FENCES, list(txn.cursor(handles[TABLE_FENCES])))
            fences = [(name[1:], _number(count)) for name, count in rows]
            live = txn.stat(handles[TABLE_CURRENT])["entries"]
            cursor = txn.cursor(handles[TABLE_KEY])
            newest = parse_revision_key(bytes(cursor.key()))[0] if cursor.last() else 0
            for name in (META_SCHEDULED, META_FINISHED):
                mark = _opened(txn, tables, META, name)
                if mark is not None:
                    newest = max(newest, parse_revision_key(mark)[0])
    except (lmdb.Error, StateDamageError) as error:
        raise DerivedDamageError(f"{path} is damaged: {error}") from error
    counted = sum(count for _, count in fences)
    if counted != live:
        raise DerivedDamageError(f"{path}: {live} live keys where the fences count {counted}")
    if revision and newest > revision:
        raise DataDirError(
            f"{path}: revision {newest} is stored beyond the current revision {revision}; "
            "restore this member from a snapshot"
        )
    return BootState(applied_index, applied_term, max(revision, newest, 1), fences)


def _opened(txn: lmdb.Transaction, tables: Tables, table: bytes, name: bytes) -> bytes | None:
    stored = txn.get(name, db=tables.handles[table])
    return None if stored is None else SEALS[table].opened(name, bytes(stored))


def _number(value: bytes | None) -> int:
    return int.from_bytes(value, "big") if value is not None else 0
