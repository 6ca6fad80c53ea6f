"""The thread that brings journaled jobs into LMDB, a group in one synced transaction.

Knows neither why a group is settled nor how its jobs became durable before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple

import lmdb

from etcdtw.storage.disk.failure import Guard
from etcdtw.storage.log.codec import KEY_JOURNAL
from etcdtw.storage.log.journal import Journal
from etcdtw.storage.log.journal_codec import encode_settled
from etcdtw.storage.log.writer import MAP_SIZE_MAX, LogJob, perform_group


class Group(NamedTuple):
    """Jobs in order, the newest record's number, and what earlier ones left to delete."""

    jobs: Sequence[LogJob]
    sequence: int
    forget_below: int


_Work = tuple[Group, Callable[[int], None]]


class LogSettler:
    """Owns every write transaction of the log's environment while the member runs."""

    def __init__(
        self,
        env: lmdb.Environment,
        map_size: int,
        journal: Journal,
        call_from_thread: Callable[[Callable[[], None]], None],
        fail: Callable[[str], None],
        delay_s: float,
        commit_hook: Callable[[], None] | None = None,
    ) -> None:
        """``commit_hook`` runs just before each commit; what it raises is a commit error."""
        self._env = env
        self._map_size = map_size
        self._journal = journal
        self._call_from_thread = call_from_thread
        self._fail = fail
        self._delay_s = delay_s
        self._commit_hook = commit_hook
        self._done: Group | None = None  # the newest group that is in LMDB
        self._has_failed = False
        self._is_closed = False
        self.commits = 0
        self._work: SimpleQueue[_Work | Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="log-settler", daemon=True)
        self._thread.start()

    def settle(self, group: Group, done: Callable[[int], None]) -> None:
        """Commit ``group``, then call ``done(more_to_forget)`` on the reactor's thread."""
        self._work.put((group, done))

    def ask_later(self, call: Callable[[], None]) -> None:
        """Call ``call`` on the reactor's thread after the delay, earlier when there is work."""
        self._work.put(call)

    def close(self, begun: Group | None, last: Group | None) -> None:
        """End the thread; commit ``begun``, if it was not, and then ``last``, on this one.

        Either is None when there is none.  Neither is when a commit failed.
        """
        self._is_closed = True
        self._work.put(None)
        self._thread.join()
        if last is None:
            return
        for group in (begun, last):
            if group is None or group is self._done or not group.jobs:
                continue
            while not self._has_failed and not self._commit(group, None):
                self._grow()

    def _run(self) -> None:
        with Guard("a thread of the log", self._fail):
            self._work_off()

    def _work_off(self) -> None:
        """Treat what comes, until the end is asked for."""
        asked: Callable[[], None] | None = None
        while True:
            item: _Work | Callable[[], None] | None = None
            try:
                item = self._work.get(timeout=None if asked is None else self._delay_s)
                is_late = False
            except Empty:
                is_late = True
            if asked is not None:
                self._call_from_thread(asked)
                asked = None
            if is_late:
                continue
            if item is None:
                return
            if not isinstance(item, tuple):
                asked = item
            elif not self._commit(*item):
                # The map may grow only while no transaction is open on any thread: the reactor
                # holds none between calls, so it is the place to do it.
                self._call_from_thread(partial(self._grow_and_retry, *item))

    def _commit(self, group: Group, done: Callable[[int], None] | None) -> bool:
        """Commit and report; False when the map is full.  Any other error is final."""
        journal = self._journal
        note = encode_settled(journal.epoch, journal.salt, group.sequence)
        try:
            with self._env.begin(write=True) as txn:
                more = perform_group(txn, group.jobs, group.forget_below)
                txn.put(KEY_JOURNAL, note)
                if self._commit_hook is not None:
                    self._commit_hook()
        except lmdb.MapFullError:
            return False
        except Exception as error:
            # Whatever it is: a settler that gave up silently would let the journal fill up.
            self._give_up(str(error))
            return True
        self._done = group
        self.commits += 1
        if done is not None:
            forget_below = max([group.forget_below, *[job.forget_below for job in group.jobs]])
            self._call_from_thread(partial(done, forget_below if more else 0))
        return True

    def _grow_and_retry(self, group: Group, done: Callable[[int], None]) -> None:
        if not self._is_closed and self._grow():
            self._work.put((group, done))

    def _grow(self) -> bool:
        """Double the map; False: it cannot be, and the process is told to stop."""
        self._map_size *= 2
        if self._map_size > MAP_SIZE_MAX:
            self._give_up("the map is full and cannot grow further")
            return False
        try:
            self._env.set_mapsize(self._map_size)
        except (lmdb.Error, OSError) as failure:
            self._give_up(f"the map is full and cannot grow: {failure}")
            return False
        return True

    def _give_up(self, reason: str) -> None:
        self._has_failed = True
        self._fail(f"log commit failed: {reason}")
