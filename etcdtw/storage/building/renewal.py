"""A whole state made anew beside the one that is there, from its bucket `key` and the small ones.

    renewing/     an environment that is being filled
    data.mdb      the state; replaced by renaming the new one over it when that is durable

Nothing that follows from `key` is trusted, so it mends every derived table, and a state of an
earlier format becomes one of this (`takeover`).  Until the renaming the old file stands as
it was: a crash at any moment leaves one whole state, and the next start deletes the other.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

import lmdb

from etcdtw.bbolt.layout import BboltError
from etcdtw.storage.building.from_bbolt import SnapshotFacts, import_rows
from etcdtw.storage.building.swap import take_place
from etcdtw.storage.disk.directory import DATA_FILE, DataDirError, open_environment
from etcdtw.storage.rows.codec import (
    META,
    META_STORAGE_VERSION,
    ROW_REVISION,
    TABLE_PRIVATE,
)
from etcdtw.storage.rows.seal import StateDamageError, opened_rows
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables

RENEWING: Final = "renewing"
LEAF_ROWS: Final = 1024  # rows at a time

Row = tuple[bytes, bytes]
Opened = Callable[[bytes, list[Row]], list[Row]]
"""Returns the rows of a table without what is stored beside them."""


class _Rows:
    """The rows of one read transaction, as `from_bbolt` wants them."""

    def __init__(self, tables: Tables, txn: Any, opened: Opened) -> None:
        self.buckets = tables.handles
        self._txn = txn
        self._opened = opened

    def items(self, name: bytes) -> Iterator[Row]:
        return iter(self._opened(name, list(self._txn.cursor(self.buckets[name]))))

    def leaves(self, name: bytes) -> Iterator[list[Row]]:
        rows = iter(self._txn.cursor(self.buckets[name]))
        count = 0
        while some := list(islice(rows, LEAF_ROWS)):
            count += len(some)
            yield self._opened(name, some)
        wanted = self._txn.stat(self.buckets[name])["entries"]
        if count != wanted:  # a damaged page hides some
            raise StateDamageError(name, b"", f"{count} rows are found where {wanted} are counted")


def remove_renewing(path: Path) -> None:
    """Delete what a renewal that a crash cut short left beside the state in ``path``."""
    if (path / RENEWING).is_dir():
        shutil.rmtree(path / RENEWING)


def renew(tables: Tables, path: Path, map_size: int, opened: Opened = opened_rows) -> None:
    """Let a state made from ``tables``' own `key` take the place of the one in ``path``.

    ``tables`` are closed then: nothing else may have the state open.  Raises `StateDamageError`
    when a row of a bucket is damaged, or `DataDirError`; then the state is as it was, and open.
    """
    remove_renewing(path)
    renewing = path / RENEWING
    try:
        renewing.mkdir(mode=0o700)
        env = open_environment(renewing, map_size, DATABASES_MAX)
        try:
            fresh = Tables(env, is_new=True)
            with tables.env.begin() as txn:
                rows = _Rows(tables, txn, opened)
                import_rows(rows, fresh, _facts(rows), renewing / "runs")
            env.sync(True)
        finally:
            env.close()
    except BboltError as error:
        remove_renewing(path)
        raise DataDirError(f"{path} is damaged: {error}") from error
    except (lmdb.Error, OSError) as error:
        remove_renewing(path)
        raise DataDirError(
            f"{path} cannot be written anew: {error}; a second copy of it must fit on the disk "
            "beside it"
        ) from error
    except (StateDamageError, DataDirError):
        remove_renewing(path)
        raise
    tables.env.close()
    take_place(path, renewing / DATA_FILE)
    remove_renewing(path)


def _facts(rows: _Rows) -> SnapshotFacts:
    private = dict(rows.items(TABLE_PRIVATE))
    meta = dict(rows.items(META))
    kept = {name: value for name, value in meta.items() if name == META_STORAGE_VERSION}
    revision = int.from_bytes(private.get(ROW_REVISION, b""), "big")
    return SnapshotFacts(meta=kept, revision=revision)
