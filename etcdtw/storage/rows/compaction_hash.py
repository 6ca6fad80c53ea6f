"""The hash of a compaction, computed on its way over the rows (`mvcc.compaction_hashes`).

It takes every row before that row is deleted.  Rows that were deleted before the compaction
began are those of earlier ones; one that was interrupted has no hash, for nobody knows which
rows it had taken already.
"""

from __future__ import annotations

from typing import Any

from etcdtw.storage.rows.codec import (
    META,
    META_FINISHED,
    META_SCHEDULED,
    TABLE_KEY,
    parse_revision_key,
)
from etcdtw.storage.rows.seal import SEALS
from etcdtw.storage.rows.tables import Tables


class RunningHash:
    """The hash of one compaction while it goes on.  ``previous``: the last one's revision."""

    def __init__(self, previous: int) -> None:
        import google_crc32c

        self._extend = google_crc32c.extend
        self.previous = previous
        self._of_kept = self._of_all = int(google_crc32c.value(TABLE_KEY))
        self._has_kept = False
        self.has_live = False
        """Whether any key is live at the compaction's revision.

        If none is, versions of etcd before 3.5.16 hash another set of rows.
        """

    @property
    def value(self) -> int:
        """The hash of all rows fed so far."""
        # etcd's quirk: with nothing to keep, nothing that the last compaction left is left out.
        return self._of_kept if self._has_kept else self._of_all

    def feed(
        self, main: int, stored: bytes, record: bytes, *, is_kept: bool, is_tombstone: bool
    ) -> None:
        """Take the next row; ``is_kept``: the compaction leaves it."""
        if is_tombstone and main == self.previous:
            return
        row = stored + record
        if is_kept:
            self._has_kept = True
            self.has_live = self.has_live or not is_tombstone
        if not self._has_kept:
            self._of_all = self._extend(self._of_all, row)
        if is_kept or main > self.previous:
            self._of_kept = self._extend(self._of_kept, row)

    def state(self) -> tuple[int, int, bool, bool]:
        """Return what `reset` goes back to, when a step's transaction must be done again."""
        return self._of_kept, self._of_all, self._has_kept, self.has_live

    def reset(self, state: tuple[int, int, bool, bool]) -> None:
        self._of_kept, self._of_all, self._has_kept, self.has_live = state


def last_finished(tables: Tables) -> int:
    """Return the revision of the last compaction that was completed, -1: there was none."""
    with tables.env.begin() as txn:
        return _mark(tables, txn, META_FINISHED)


def interrupted(tables: Tables) -> int:
    """Return the revision of a compaction that may have begun without an end; -1: none."""
    with tables.env.begin() as txn:
        scheduled = _mark(tables, txn, META_SCHEDULED)
        return scheduled if scheduled > _mark(tables, txn, META_FINISHED) else -1


def _mark(tables: Tables, txn: Any, name: bytes) -> int:
    stored = txn.get(name, db=tables.handles[META])
    return -1 if stored is None else parse_revision_key(SEALS[META].opened(name, stored))[0]
