"""`JournalWriter`: a job is durable when its journal record is; LMDB takes it over later.

The reactor's thread decides everything.  Small records are flushed by it at once, others by the
flusher's thread; the settler's thread commits whole groups of jobs to LMDB.  A job that finds no
room, or is too large for the journal, waits for LMDB itself: that is the only backpressure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Final

import lmdb

from etcdtw.storage.disk.failure import Guard
from etcdtw.storage.log.journal import Journal, write_at
from etcdtw.storage.log.journal_codec import RECORD_SIZE_MAX, encode_record, record_size
from etcdtw.storage.log.settler import Group, LogSettler
from etcdtw.storage.log.writer import NOTHING_UNSETTLED, LogJob
from etcdtw.wire.histogram import Histogram, exponential_bounds

FLUSH_BOUNDS_S: Final = exponential_bounds(0.001, 14)  # as etcd counts its syncs

INLINE_SIZE_MAX: Final = 64 * 1024  # octets; copying and writing more is no longer "small"
# A hand-over doubles what a lone put waits; a full machine delays a flush by a tick of 4 ms now
# and then, which is no reason for it.  A slow disk is.
INLINE_FLUSH_S_MAX: Final = 0.005
RECENT_FLUSHES: Final = 100
SLOW_FLUSHES_MAX: Final = 1  # of `RECENT_FLUSHES`: the 99th percentile is below the bound
SETTLE_SIZE: Final = 4 << 20  # octets of journal that start a commit at once
SETTLE_DELAY_S: Final = 1.0  # what is journaled starts towards LMDB no later

_Flush = tuple[int, int, int, LogJob, Callable[[bool], None]]


class JournalWriter:
    """Implements `LogWriter`.  One for each log; owns its journal and two threads.

    Invariants: at most one job is in flight, so the flusher holds at most one; ``_unsettled``
    are the jobs behind the group that the settler holds, in order; after a failure nothing is
    called back any more.
    """

    def __init__(
        self,
        env: lmdb.Environment,
        journal: Journal,
        map_size: int,
        seconds: Callable[[], float],
        call_from_thread: Callable[[Callable[[], None]], None],
        fail_stop: Callable[[str], None],
        *,
        settle_delay_s: float = SETTLE_DELAY_S,
        settle_size: int = SETTLE_SIZE,
        flush_hook: Callable[[], None] | None = None,
        commit_hook: Callable[[], None] | None = None,
    ) -> None:
        """``flush_hook`` and ``commit_hook`` run just before; what they raise is a failure."""
        self._journal = journal
        self._seconds = seconds
        self._post = call_from_thread
        self._calls = Guard("what waited for the log", self._fail)
        self._threads = Guard("a thread of the log", self._fail)
        self._fail_stop = fail_stop
        self._flush_hook = flush_hook
        self._settle_size = settle_size
        self._recent: deque[bool] = deque((False,) * RECENT_FLUSHES, RECENT_FLUSHES)
        self._slow = 0  # how many of the recent flushes were slow
        self._failed = False
        self._is_closed = False
        # Journaled, in order, and not yet with the settler.
        self._unsettled: list[LogJob] = []
        self._unsettled_size = 0
        self._unsettled_first = NOTHING_UNSETTLED
        self._sequence = 0  # the newest durable record's
        self._is_timed = False  # the settler will ask for what is unsettled
        # With the settler.
        self._group: Group | None = None
        self._group_size = 0
        self._group_first = NOTHING_UNSETTLED
        self._group_done: Callable[[bool], None] | None = None
        self._held: tuple[LogJob, Callable[[bool], None]] | None = None
        self._forget_below = 0
        self.inline_flushes = 0
        self.thread_flushes = 0
        self.held_jobs = 0
        self.commit_s = Histogram(FLUSH_BOUNDS_S)
        """How long the flushes took; there is never more than one at a time."""
        self.octets_total = 0
        """Octets of records written since the start."""
        self._settler = LogSettler(
            env, map_size, journal, self._call_from_thread, self._fail, settle_delay_s, commit_hook
        )
        self._flushes: SimpleQueue[_Flush | None] = SimpleQueue()
        self._flusher = Thread(target=self._run, name="log-flusher", daemon=True)
        self._flusher.start()

    # LogWriter.

    def write(self, job: LogJob, done: Callable[[bool], None]) -> None:
        if self._failed:
            return
        size = record_size(job)
        journal = self._journal
        if size > RECORD_SIZE_MAX or not journal.has_room(size):
            self._hold(job, done)
            return
        fd, offset = journal.place(size)
        if size <= INLINE_SIZE_MAX and self._slow <= SLOW_FLUSHES_MAX:
            self.inline_flushes += 1
            if self._flush(fd, offset, journal.sequence, job):
                self._journaled(job, size, done)
        else:
            self.thread_flushes += 1
            self._flushes.put((fd, offset, journal.sequence, job, done))

    @property
    def unsettled_octets(self) -> int:
        """What only the journal holds: it takes room in LMDB when it is settled."""
        return self._unsettled_size + self._group_size

    def unsettled_first(self) -> int:
        return min(self._group_first, self._unsettled_first)

    def close(self) -> None:
        self._is_closed = True
        self._flushes.put(None)
        self._flusher.join()
        last = None
        if not self._failed:
            last = Group(self._unsettled, self._sequence, self._forget_below)
        self._settler.close(self._group, last)
        self._journal.close()

    # The journal.

    def _run(self) -> None:
        with self._threads:
            while (item := self._flushes.get()) is not None:
                fd, offset, sequence, job, done = item
                if self._flush(fd, offset, sequence, job):
                    told = partial(self._journaled, job, record_size(job), done)
                    self._call_from_thread(told)

    def _call_from_thread(self, call: Callable[[], None]) -> None:
        self._post(partial(self._call, call))

    def _call(self, call: Callable[[], None]) -> None:
        with self._calls:
            call()

    def _flush(self, fd: int, offset: int, sequence: int, job: LogJob) -> bool:
        """Make a record durable; False: it failed, and the process is told to stop."""
        journal = self._journal
        try:
            record = encode_record(journal.epoch, journal.salt, sequence, job)
            started = self._seconds()
            if self._flush_hook is not None:
                self._flush_hook()
            write_at(fd, record, offset)
        except Exception as error:
            # Whatever it is: a writer that gave up silently would hang every proposal.
            self._fail(f"log commit failed: journal: {error}")
            return False
        took_s = self._seconds() - started
        self.commit_s.observe(took_s)
        self.octets_total += len(record)
        is_slow = took_s >= INLINE_FLUSH_S_MAX
        self._slow += is_slow - self._recent[0]
        self._recent.append(is_slow)
        return True

    def _journaled(self, job: LogJob, size: int, done: Callable[[bool], None]) -> None:
        """The record in flight is durable: keep the job for LMDB, and tell."""
        if self._failed or self._is_closed:
            return
        self._sequence = self._journal.sequence
        self._unsettled.append(job)
        self._unsettled_size += size
        if job.batch_first:
            self._unsettled_first = min(self._unsettled_first, job.batch_first)
        if self._unsettled_size >= self._settle_size:
            self._settle()
        elif not self._is_timed:
            self._ask()
        done(False)

    # LMDB.

    def _ask(self) -> None:
        self._is_timed = True
        self._settler.ask_later(self._asked)

    def _asked(self) -> None:
        self._is_timed = False
        if self._unsettled and not self._failed and not self._is_closed:
            self._settle()

    def _hold(self, job: LogJob, done: Callable[[bool], None]) -> None:
        """Let ``job`` wait for LMDB: with all that is unsettled, or for room afterwards."""
        self.held_jobs += 1
        if self._group is not None:
            self._held = (job, done)
            return
        self._unsettled.append(job)
        self._group_done = done
        self._settle()

    def _settle(self) -> None:
        """Hand everything journaled to the settler, unless it is at work: then soon."""
        if self._group is not None:
            return
        self._group = Group(self._unsettled, self._sequence, self._forget_below)
        self._group_size = self._unsettled_size
        self._group_first = self._unsettled_first
        self._unsettled = []
        self._unsettled_size = 0
        self._unsettled_first = NOTHING_UNSETTLED
        self._settler.settle(self._group, self._settled)

    def _settled(self, more_to_forget: int) -> None:
        """The group is in LMDB: its records may be written over.

        ``more_to_forget``: batches below this index are left to delete; 0: none.
        """
        if self._failed or self._is_closed:
            return
        group, self._group = self._group, None
        self._group_size = 0
        assert group is not None
        self._group_first = NOTHING_UNSETTLED
        self._journal.settle(group.sequence)
        self._forget_below = more_to_forget
        if self._group_done is not None:
            done, self._group_done = self._group_done, None
            done(False)
        if self._held is not None:
            held, self._held = self._held, None
            self.write(*held)
        if self._forget_below or self._unsettled_size >= self._settle_size:
            self._settle()
        elif self._unsettled and not self._is_timed:
            self._ask()

    def _fail(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            self._fail_stop(reason)
