"""The hash of a compaction, computed on its way over the rows (`mvcc.compaction_hashes`).

It takes every row before that row is deleted.  Rows that were deleted before the compaction
began are those of earlier ones; one that was interrupted has no hash, for nobody knows which
rows it had taken already.
"""

from __future__ import annotations

from typing import Any

from etcdtw.storage.state_codec import (
    META,
    META_FINISHED,
    META_SCHEDULED,
    TABLE_KEY,
    parse_revision_key,
)
from etcdtw.storage.state_tables import Tables


class RunningHash:
    """The hash of one compaction while it goes on.  ``previous``: the last one's revision."""

    def __init__(self, previous: int) -> None:
        import google_crc32c

        self._extend = google_crc32c.extend
        self.previous = previous
        self.value = int(google_crc32c.value(TABLE_KEY))
        self.has_kept = False
        """Whether any key is live at the compaction's revision."""

    def feed(self, main: int, is_kept: bool, stored: bytes, record: bytes) -> None:
        """Take the next row; ``is_kept``: it is its key's newest and no tombstone."""
        if is_kept:
            self.has_kept = True
        elif main <= self.previous:
            return
        self.value = self._extend(self.value, stored + record)

    def state(self) -> tuple[int, bool]:
        """Return what `reset` goes back to, when a step's transaction must be done again."""
        return self.value, self.has_kept

    def reset(self, state: tuple[int, bool]) -> None:
        self.value, self.has_kept = state


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
    return -1 if stored is None else parse_revision_key(stored)[0]
