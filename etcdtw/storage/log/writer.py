"""The write side of the log: jobs, and what they change in LMDB; at most one is in flight.

`LogWriter` is the seam: `JournalWriter` is the product's, tests and the simulator put their
own in its place.  Knows what a job changes, not why, nor when it is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import lmdb

from etcdtw.storage.log.codec import (
    KEY_COMPACTED,
    KEY_HARD_STATE,
    KEY_SNAPSHOT,
    batch_count,
    batch_key,
    batch_previous,
    decode_batch,
    encode_batch,
    index_of_key,
    join_batches,
)

FORGET_BATCHES_MAX: Final = 1000  # batches deleted in one transaction
MERGED_SIZE_MAX: Final = 128 * 1024  # octets; whoever reads one old entry decodes its batch
MAP_SIZE_MAX: Final = 1 << 40
NOTHING_UNSETTLED: Final = 1 << 64


class LogJob:
    """What becomes durable at once, or not at all.  ``batch_first`` 0: no entries."""

    __slots__ = (
        "batch", "batch_first", "entry_count", "forget_below", "hard_state", "keep_below",
        "mark", "snapshot",
    )  # fmt: skip

    def __init__(self) -> None:
        self.batch = b""
        self.batch_first = 0
        self.entry_count = 0
        self.keep_below = 0
        """Entries at or behind this index are dropped first; 0: none are."""
        self.hard_state: bytes | None = None
        self.snapshot: bytes | None = None
        self.mark: bytes | None = None
        self.forget_below = 0
        """Batches wholly before this index are deleted, boundedly; 0: none."""


class LogWriter(Protocol):
    """Makes jobs durable, one at a time."""

    def write(self, job: LogJob, done: Callable[[bool], None]) -> None:
        """Make ``job`` durable, then call ``done(more)`` on the reactor's thread, maybe at once.

        ``more``: batches below ``forget_below`` are left.  On any error the process is stopped
        through the injected ``fail_stop`` and ``done`` is never called.
        """
        ...

    def unsettled_first(self) -> int:
        """Return the first index that cannot be read from LMDB yet; `NOTHING_UNSETTLED`: none."""
        ...

    def close(self) -> None:
        """Finish the job in flight, bring everything into LMDB and release the threads."""
        ...


def perform(txn: lmdb.Transaction, job: LogJob, forget_max: int = FORGET_BATCHES_MAX) -> bool:
    """Carry ``job`` out within ``txn``; return whether batches to forget are left."""
    return perform_group(txn, (job,), 0, forget_max)


def _truncate(txn: Any, index: int) -> None:
    """Drop every entry at or behind ``index``; the batch that spans it is written shorter."""
    cursor = txn.cursor()
    while cursor.set_range(batch_key(index)):
        cursor.delete()
    if not cursor.last() or cursor.key()[:1] != batch_key(0)[:1]:
        return
    first, value = index_of_key(cursor.key()), cursor.value()
    if first + batch_count(value) > index:
        entries, _ = decode_batch(first, value)
        shorter, _ = encode_batch(batch_previous(value), entries[: index - first])
        # Not overwritten in place: LMDB would keep the longer run of pages for it.
        cursor.delete()
        txn.put(batch_key(first), shorter)


def _forget(txn: Any, below: int, batches_max: int) -> bool:
    """Delete batches that end before index ``below``; True when the bound was reached first."""
    cursor = txn.cursor()
    for _ in range(batches_max):
        if not cursor.set_range(batch_key(0)):
            return False
        if index_of_key(cursor.key()) + batch_count(cursor.value()) > below:
            return False
        cursor.delete()
    return True


def perform_group(
    txn: lmdb.Transaction,
    jobs: Sequence[LogJob],
    forget_below: int,
    forget_max: int = FORGET_BATCHES_MAX,
) -> bool:
    """Carry out ``jobs`` in order, neighbouring batches as one value.

    Deletes batches below ``forget_below`` or what the jobs ask for; True when some are left.
    """
    run: list[bytes] = []
    run_first = run_count = run_size = 0
    for job in jobs:
        if run and (job.keep_below or run_size + len(job.batch) > MERGED_SIZE_MAX):
            txn.put(batch_key(run_first), join_batches(run, run_count))
            run, run_count, run_size = [], 0, 0
        if job.keep_below:
            _truncate(txn, job.keep_below)
        if job.batch_first:
            if not run:
                run_first = job.batch_first
            run.append(job.batch)
            run_count += job.entry_count
            run_size += len(job.batch)
        if job.hard_state is not None:
            txn.put(KEY_HARD_STATE, job.hard_state)
        if job.snapshot is not None:
            txn.put(KEY_SNAPSHOT, job.snapshot)
        if job.mark is not None:
            txn.put(KEY_COMPACTED, job.mark)
        forget_below = max(forget_below, job.forget_below)
    if run:
        txn.put(batch_key(run_first), join_batches(run, run_count))
    return forget_below != 0 and _forget(txn, forget_below, forget_max)
