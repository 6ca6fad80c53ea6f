"""The write side of the log: one job is one LMDB transaction; at most one job is in flight.

`LogWriter` is the seam: `ThreadLogWriter` is the product's, tests and the simulator put their
own in its place.  Knows what a job changes, not why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Protocol

import lmdb

from etcdtw.storage.log_codec import (
    KEY_COMPACTED,
    KEY_HARD_STATE,
    KEY_SNAPSHOT,
    batch_count,
    batch_key,
    batch_previous,
    decode_batch,
    encode_batch,
    index_of_key,
)

INLINE_ENTRIES_MAX: Final = 4
INLINE_SIZE_MAX: Final = 64 * 1024  # octets; copying more into pages is no longer "small"
INLINE_COMMIT_S_MAX: Final = 0.002  # a thread hand-over costs about 1 ms; above this it pays
RECENT_COMMITS: Final = 100
SLOW_COMMITS_MAX: Final = 1  # of `RECENT_COMMITS`: the 99th percentile is below the bound
FORGET_BATCHES_MAX: Final = 1000  # batches deleted in one transaction
MAP_SIZE_MAX: Final = 1 << 40


class LogJob:
    """What one transaction changes.  ``batch_first`` 0: no entries."""

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
        """Commit ``job``, then call ``done(more)`` on the reactor's thread, maybe at once.

        ``more``: batches below ``forget_below`` are left.  On any error the process is stopped
        through the injected ``fail_stop`` and ``done`` is never called.
        """
        ...

    def close(self) -> None:
        """Finish the job in flight and release the thread."""
        ...


def perform(txn: lmdb.Transaction, job: LogJob) -> bool:
    """Carry ``job`` out within ``txn``; return whether batches to forget are left."""
    if job.keep_below:
        _truncate(txn, job.keep_below)
    if job.batch_first:
        txn.put(batch_key(job.batch_first), job.batch)
    if job.hard_state is not None:
        txn.put(KEY_HARD_STATE, job.hard_state)
    if job.snapshot is not None:
        txn.put(KEY_SNAPSHOT, job.snapshot)
    if job.mark is not None:
        txn.put(KEY_COMPACTED, job.mark)
    return job.forget_below != 0 and _forget(txn, job.forget_below)


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
        txn.put(batch_key(first), shorter)


def _forget(txn: Any, below: int) -> bool:
    """Delete batches that end before index ``below``; True when the bound was reached first."""
    cursor = txn.cursor()
    for _ in range(FORGET_BATCHES_MAX):
        if not cursor.set_range(batch_key(0)):
            return False
        if index_of_key(cursor.key()) + batch_count(cursor.value()) > below:
            return False
        cursor.delete()
    return True


class ThreadLogWriter:
    """Commits small jobs at once on the reactor, others in its one thread.

    A write transaction lives wholly on one thread, and there is never more than one job, so
    both threads may take turns.
    """

    def __init__(
        self,
        env: lmdb.Environment,
        map_size: int,
        seconds: Callable[[], float],
        call_from_thread: Callable[[Callable[[], None]], None],
        fail_stop: Callable[[str], None],
        commit_hook: Callable[[], None] | None = None,
    ) -> None:
        """``commit_hook`` runs just before each commit; what it raises is a commit error."""
        self._env = env
        self._map_size = map_size
        self._seconds = seconds
        self._call_from_thread = call_from_thread
        self._fail_stop = fail_stop
        self._commit_hook = commit_hook
        self._jobs: SimpleQueue[tuple[LogJob, Callable[[bool], None]] | None] = SimpleQueue()
        self._recent: deque[bool] = deque((False,) * RECENT_COMMITS, RECENT_COMMITS)
        self._slow = 0  # how many of the recent commits were slow
        self._failed = False
        self.inline_commits = 0
        self.thread_commits = 0
        self._thread = Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, job: LogJob, done: Callable[[bool], None]) -> None:
        if self._failed:
            return
        if self._is_inline(job):
            self.inline_commits += 1
            self._perform(job, done, None)
        else:
            self.thread_commits += 1
            self._jobs.put((job, done))

    def close(self) -> None:
        self._jobs.put(None)
        self._thread.join()

    def _is_inline(self, job: LogJob) -> bool:
        return (
            job.entry_count <= INLINE_ENTRIES_MAX
            and len(job.batch) <= INLINE_SIZE_MAX
            and self._slow <= SLOW_COMMITS_MAX
            and not job.forget_below
        )

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            self._perform(item[0], item[1], self._call_from_thread)

    def _perform(
        self,
        job: LogJob,
        done: Callable[[bool], None],
        hand_over: Callable[[Callable[[], None]], None] | None,
    ) -> None:
        started = self._seconds()
        try:
            more = self._commit(job)
        except lmdb.MapFullError as error:
            # The map may grow only while no transaction is open on any thread: the reactor
            # holds none between calls, so it is the place to do it.
            reason = str(error)
            if hand_over is None:
                self._grow(job, done, reason)
            else:
                hand_over(lambda: self._grow(job, done, reason))
            return
        except Exception as error:
            # Whatever it is: a writer that gave up silently would hang every proposal.
            self._fail(f"log commit failed: {error}")
            return
        self._note(self._seconds() - started >= INLINE_COMMIT_S_MAX)
        if hand_over is None:
            done(more)
        else:
            hand_over(lambda: done(more))

    def _commit(self, job: LogJob) -> bool:
        with self._env.begin(write=True) as txn:
            more = perform(txn, job)
            if self._commit_hook is not None:
                self._commit_hook()
        return more

    def _grow(self, job: LogJob, done: Callable[[bool], None], reason: str) -> None:
        self._map_size *= 2
        if self._map_size > MAP_SIZE_MAX:
            self._fail(f"log commit failed: {reason}, and the map cannot grow further")
            return
        try:
            self._env.set_mapsize(self._map_size)
        except (lmdb.Error, OSError) as failure:
            self._fail(f"log commit failed: {reason}, and the map cannot grow: {failure}")
            return
        self.write(job, done)

    def _note(self, is_slow: bool) -> None:
        self._slow += is_slow - self._recent[0]
        self._recent.append(is_slow)

    def _fail(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            self._fail_stop(reason)
