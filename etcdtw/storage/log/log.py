"""`LmdbLog`: the Raft log on its own fully synced LMDB environment.

Appends are grouped: at most one job is in flight, and everything that arrives meanwhile is the
next one.  Recent entries stay in memory, and those that the writer's journal holds and LMDB does
not; older ones are read back, always through their CRCs.  Knows no reactor and no journal: how a
job becomes durable is the writer's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import lmdb

from etcdtw.raft.entry import ConfState, Entry, HardState, Snapshot
from etcdtw.raft.errors import SnapshotUnavailableError
from etcdtw.raft.storage import CompactedError, UnavailableError
from etcdtw.storage.disk.directory import (
    DataDirError,
    check_format,
    lock_directory,
    open_environment,
    prepare_directory,
    refuse_remote,
)
from etcdtw.storage.disk.page_check import check_pages
from etcdtw.storage.disk.words import disk_words, is_outside_cause
from etcdtw.storage.log.codec import (
    BATCH_PREFIX,
    FORMAT,
    FORMATS_BEFORE,
    KEY_COMPACTED,
    KEY_FORMAT,
    KEY_HARD_STATE,
    KEY_SNAPSHOT,
    CorruptionError,
    batch_key,
    batch_previous,
    decode_batch,
    decode_hard_state,
    decode_mark,
    decode_snapshot,
    encode_batch,
    encode_hard_state,
    encode_mark,
    encode_snapshot,
    index_of_key,
)
from etcdtw.storage.log.journal_open import recover, take_over_log
from etcdtw.storage.log.names import check_names
from etcdtw.storage.log.writer import LogJob, LogWriter

MAP_SIZE: Final = 4 << 30
TAIL_SIZE_MAX: Final = 16 << 20  # octets of entries kept in memory
ENTRY_OVERHEAD: Final = 200  # octets an Entry costs beside its data
NO_CRC: Final = 0  # of the entry that a snapshot stands for: nobody here has seen it


def open_log(
    path: Path,
    map_size: int = MAP_SIZE,
    allow_remote: bool = False,
    wait_s: float = 2.0,
    on_owned: Callable[[], None] | None = None,
) -> tuple[lmdb.Environment, int]:
    """Open (or create) the log's environment in ``path``; return it and its lock's descriptor.

    What only the journal held is in LMDB afterwards.  ``on_owned`` is called once no other
    process can have the directory, before anything is opened or grows.

    Raises `DataDirError` with advice when the directory cannot be used.
    """
    prepare_directory(path)
    if not allow_remote:
        refuse_remote(path)
    lock_fd = lock_directory(path, wait_s)
    try:
        if on_owned is not None:
            on_owned()
        check_pages(path)
        env = open_environment(path, map_size, 0)
        try:
            with env.begin() as txn:
                found = txn.get(KEY_FORMAT)
                is_empty = txn.stat()["entries"] == 0
            if found not in FORMATS_BEFORE:
                check_format(found, FORMAT, is_empty, path)
            with env.begin() as txn:
                check_names(txn)  # one may be the journal's: what it holds would be forgotten
            if found in FORMATS_BEFORE:
                take_over_log(env, path, map_size)
            else:
                if is_empty:
                    with env.begin(write=True) as txn:
                        txn.put(KEY_FORMAT, FORMAT)
                recover(env, path, map_size)
        except (lmdb.Error, OSError, CorruptionError) as error:
            env.close()
            if is_outside_cause(error):
                raise DataDirError(f"cannot write {path}: {disk_words(error, path)}") from error
            raise DataDirError(f"{path} is damaged: {error}; restore this member") from error
        except DataDirError:
            env.close()
            raise
    except DataDirError:
        os.close(lock_fd)
        raise
    return env, lock_fd


class LmdbLog:
    """The log of one member.  Implements `raft.storage.LogStore`.

    Invariants: the tail in memory is contiguous and ends at ``last_index()``; what `Storage`
    shows is durable; ``_crcs`` runs parallel to the tail.
    """

    def __init__(
        self,
        env: lmdb.Environment,
        writer: LogWriter,
        tail_size_max: int = TAIL_SIZE_MAX,
        lock_fd: int = -1,
    ) -> None:
        """Read and check what is stored.  Raises `DataDirError` when it is damaged."""
        self._env = env
        self._writer = writer
        self._lock_fd = lock_fd
        self._tail_size_max = tail_size_max
        self._tail: list[Entry] = []
        self._crcs: list[int] = []
        self._tail_size = 0
        self._appended_octets = 0
        self._last_index = 0
        self._last_term = 0
        self._last_crc = 0
        # Pending: what the next job will hold.
        self._pending: list[Entry] = []
        self._pending_first = 0  # where the pending entries overwrite; 0: no entries pend
        self._pending_done: list[Callable[[], None]] = []
        self._pending_snapshot: Snapshot | None = None
        self._pending_install = 0  # the index that the pending snapshot takes the log to; 0: none
        self._hard_state_due = False
        self._forget_due = False
        # The job in flight.
        self._compact_to = 0
        # What is stored, or waits to be: always the newest.
        self._hard_state = HardState()
        self._commit_changed = False
        self._snapshot = Snapshot()
        self._mark = (0, 0, 0)  # index, term and CRC of the last forgotten entry
        self._is_busy = False
        self._is_pumping = False
        self._flight: list[Entry] = []
        self._flight_crcs: list[int] = []
        self._flight_done: list[Callable[[], None]] = []
        self._flight_snapshot: Snapshot | None = None
        self._flight_install = 0
        try:
            self._load()
        except (CorruptionError, lmdb.Error) as error:
            raise DataDirError(
                f"the log in {env.path()} is damaged: {error}; remove this member's data "
                "directory and let it join again, or restore a snapshot"
            ) from error

    # Storage.

    def initial_state(self) -> tuple[HardState, ConfState]:
        """The configuration is the snapshot mark's; the state's own is newer where it exists."""
        state = self._hard_state
        return HardState(state.term, state.vote, state.commit), self._snapshot.conf_state

    def first_index(self) -> int:
        return self._mark[0] + 1

    def recent_index(self) -> int:
        return self._tail[0].index if self._tail else self._last_index + 1

    def appended_octets(self) -> int:
        return self._appended_octets

    def last_index(self) -> int:
        return self._last_index

    def term(self, index: int) -> int:
        if index == self._last_index:
            return self._last_term
        if index == self._mark[0]:
            return self._mark[1]
        if index < self._mark[0]:
            raise CompactedError(index)
        if index > self._last_index:
            raise UnavailableError(index)
        position = len(self._tail) - 1 - (self._last_index - index)
        if position >= 0:
            return self._tail[position].term
        return self._read(index, index + 1, 0)[0].term

    def entries(self, low: int, high: int, size_max: int) -> list[Entry]:
        if low < self.first_index():
            raise CompactedError(low)
        if high > self._last_index + 1:
            raise UnavailableError(high - 1)
        tail_first = self._last_index + 1 - len(self._tail)
        if low < tail_first:
            found = self._read(low, min(high, tail_first), size_max)
            if low + len(found) < min(high, tail_first) or high <= tail_first:
                return found
        else:
            found = []
        size = sum([len(entry.data) for entry in found])
        start = low + len(found) - tail_first
        for entry in self._tail[start : high - tail_first]:
            size += len(entry.data)
            if size > size_max and found:
                break
            found.append(entry)
        return found

    def snapshot(self) -> Snapshot:
        """Raises `SnapshotUnavailableError` when the log begins behind the newest mark."""
        if self._snapshot.index < self._mark[0]:
            raise SnapshotUnavailableError
        return self._snapshot

    # LogStore.

    def append(
        self, hard_state: HardState | None, entries: Sequence[Entry], done: Callable[[], None]
    ) -> None:
        if hard_state is not None:
            self._take_hard_state(hard_state)
        if entries:
            self._take_entries(entries)
        if self._is_busy:
            if not entries and not self._has_pending():
                # Nothing of its own to write: it completes with the job in flight.
                self._flight_done.append(done)
            else:
                self._pending_done.append(done)
            return
        if not self._has_pending():
            done()
            return
        self._pending_done.append(done)
        self._pump()

    def compact(self, index: int) -> None:
        """Also writes the new first index; entries that are not durable yet are never dropped."""
        index = min(index, self._last_index)
        if index <= self._mark[0]:
            return
        if self._is_busy:
            # The job in flight may replace what lies behind; settle with the next one.
            self._compact_to = max(self._compact_to, index)
            return
        self._forget_to(index)
        self._pump()

    # Beside the seam.

    def put_snapshot(self, snapshot: Snapshot, done: Callable[[], None]) -> None:
        """Replace the snapshot mark; it is what `initial_state` takes its configuration from.

        The log itself is left alone: compaction is a call of its own.
        """
        assert not self._pending_install, "a mark amid an install"
        self._pending_snapshot = snapshot
        self._pending_done.append(done)
        self._pump()

    def install_snapshot(
        self, hard_state: HardState, snapshot: Snapshot, done: Callable[[], None]
    ) -> None:
        """Let ``snapshot`` stand for the whole log: every entry goes, the next is behind its index.

        All in one job with the hard state.  What waits to be appended is dropped with the rest,
        and its callbacks are called with this one; appends that follow begin behind the index.
        """
        assert hard_state.commit >= snapshot.index > self._mark[0], "a snapshot of the past"
        self._take_hard_state(hard_state)
        self._hard_state_due = True
        self._pending = []
        self._pending_first = 0
        self._compact_to = 0
        self._pending_snapshot = snapshot
        self._pending_install = snapshot.index
        self._pending_done.append(done)
        self._pump()

    def has_work(self) -> bool:
        """Whether anything is in flight or waits."""
        return self._is_busy or self._has_pending()

    def reusable(self, _row: int) -> int:
        """Return the octets of unused pages: in rows, for the oldest entries go first."""
        stat = self._env.stat()
        used = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return max(0, int((self._env.info()["last_pgno"] + 1 - used) * stat["psize"]))

    def close(self) -> None:
        """Wait for the job in flight and let go of the files.  No callback runs afterwards."""
        self._flight_done = []
        self._pending_done = []
        self._writer.close()
        self._env.close()
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1

    # Grouping.

    def _take_hard_state(self, hard_state: HardState) -> None:
        old = self._hard_state
        if hard_state.term != old.term or hard_state.vote != old.vote:
            self._hard_state_due = True
        elif hard_state.commit != old.commit:
            self._commit_changed = True
        self._hard_state = HardState(hard_state.term, hard_state.vote, hard_state.commit)

    def _take_entries(self, entries: Sequence[Entry]) -> None:
        first = entries[0].index
        if not self._pending_first:
            self._pending_first = first
            assert first <= self._end_index() + 1, "a gap in the log"
        else:
            # Relative to what already waits: overwrite from `first` on.
            assert first <= self._pending_first + len(self._pending), "a gap in the log"
            del self._pending[max(0, first - self._pending_first) :]
            self._pending_first = min(self._pending_first, first)
        floor = max(self._mark[0], self._pending_install, self._flight_install)
        assert first > floor, "an overwrite of compacted entries"
        self._pending.extend(entries)

    def _end_index(self) -> int:
        """Return the last index once the job in flight, and an install that waits, is done."""
        if self._pending_install:
            return self._pending_install
        if self._flight:
            return self._flight[-1].index
        return self._flight_install or self._last_index

    def _has_pending(self) -> bool:
        return (
            self._pending_first != 0
            or self._hard_state_due
            or self._forget_due
            or self._pending_snapshot is not None
        )

    def _start(self) -> None:
        """Make one job of all that waits and hand it to the writer."""
        job = LogJob()
        install = self._pending_snapshot if self._pending_install else None
        if self._pending_first:
            first = self._pending_first
            previous = self._crc_at(first - 1) if install is None else NO_CRC
            job.batch, self._flight_crcs = encode_batch(previous, self._pending)
            job.batch_first = first
            job.entry_count = len(self._pending)
            if first <= self._last_index:
                job.keep_below = first
        if self._hard_state_due or (self._commit_changed and self._pending_first):
            job.hard_state = encode_hard_state(self._hard_state)
            self._hard_state_due = self._commit_changed = False
        if self._pending_snapshot is not None:
            job.snapshot = encode_snapshot(self._pending_snapshot)
        if install is not None:
            job.keep_below = 1
            job.mark = encode_mark(install.index, install.term, NO_CRC)
        elif self._forget_due:
            job.mark = encode_mark(*self._mark)
            job.forget_below = self._mark[0] + 1
        self._flight = self._pending
        self._flight_done = self._pending_done
        self._flight_snapshot = self._pending_snapshot
        self._flight_install, self._pending_install = self._pending_install, 0
        self._pending = []
        self._pending_first = 0
        self._pending_done = []
        self._pending_snapshot = None
        self._forget_due = False
        self._is_busy = True
        self._writer.write(job, self._written)

    def _pump(self) -> None:
        """Start jobs until one stays in flight.  A loop: inline commits must not nest."""
        if self._is_pumping:
            return
        self._is_pumping = True
        while not self._is_busy and self._has_pending():
            self._start()
        self._is_pumping = False

    def _written(self, more_to_forget: bool) -> None:
        """The job in flight is durable: show it, tell, go on with the next one."""
        if self._flight_install:
            self._start_over()
        if self._flight:
            self._publish()
        if self._flight_snapshot is not None:
            self._snapshot = self._flight_snapshot
            self._flight_snapshot = None
        self._forget_due = self._forget_due or more_to_forget
        if self._compact_to:
            self._forget_to(min(self._compact_to, self._last_index))
            self._compact_to = 0
        # Still busy while telling: what a callback appends waits its turn, so order holds.
        while self._flight_done:
            calls, self._flight_done = self._flight_done, []
            for call in calls:
                call()
        self._is_busy = False
        self._pump()

    def _forget_to(self, index: int) -> None:
        """Move the first index behind ``index``; the next job writes it and deletes."""
        if index > self._mark[0]:
            self._mark = (index, self.term(index), self._crc_at(index))
            self._forget_due = True

    def _start_over(self) -> None:
        """The snapshot in flight is durable: nothing is left of the log before it."""
        snapshot = self._flight_snapshot
        assert snapshot is not None
        self._flight_install = 0
        self._tail, self._crcs, self._tail_size = [], [], 0
        self._mark = (snapshot.index, snapshot.term, NO_CRC)
        self._last_index, self._last_term, self._last_crc = self._mark

    def _publish(self) -> None:
        flight, crcs = self._flight, self._flight_crcs
        self._flight = []
        self._flight_crcs = []
        for _ in range(min(self._last_index - flight[0].index + 1, len(self._tail))):
            self._tail_size -= len(self._tail.pop().data) + ENTRY_OVERHEAD
            self._crcs.pop()
        self._tail.extend(flight)
        self._crcs.extend(crcs)
        self._last_index = flight[-1].index
        self._last_term = flight[-1].term
        self._last_crc = crcs[-1]
        size = sum([len(entry.data) for entry in flight]) + ENTRY_OVERHEAD * len(flight)
        self._tail_size += size
        self._appended_octets += size
        if self._tail_size > self._tail_size_max:
            self._trim_tail()

    def _trim_tail(self) -> None:
        """Drop the oldest eighth at once: dropping one at a time would move the rest each time.

        What LMDB does not hold yet stays.
        """
        tail_first = self._last_index + 1 - len(self._tail)
        dropped_max = min(len(self._tail) - 1, self._writer.unsettled_first() - tail_first)
        dropped = 0
        while self._tail_size > self._tail_size_max * 7 // 8 and dropped < dropped_max:
            self._tail_size -= len(self._tail[dropped].data) + ENTRY_OVERHEAD
            dropped += 1
        del self._tail[:dropped]
        del self._crcs[:dropped]

    # Reading back.

    def _crc_at(self, index: int) -> int:
        """Return the CRC of a stored entry, or of the one a compaction or snapshot stands for."""
        if index == self._last_index:
            return self._last_crc
        if index == self._mark[0]:
            return self._mark[2]
        position = len(self._tail) - 1 - (self._last_index - index)
        if position >= 0:
            return self._crcs[position]
        with self._env.begin() as txn:
            cursor = txn.cursor()
            first, value = self._batch_of(cursor, index)
        return decode_batch(first, value)[1][index - first]

    def _read(self, low: int, high: int, size_max: int) -> list[Entry]:
        """Return stored entries ``[low, high)`` from disk: at least one, then up to the size."""
        found: list[Entry] = []
        size = 0
        crc = -1
        with self._env.begin() as txn:
            cursor = txn.cursor()
            first, value = self._batch_of(cursor, low)
            while True:
                if crc not in (-1, batch_previous(value)):
                    raise CorruptionError(f"entry {first} of the log does not follow")
                entries, crcs = decode_batch(first, value)
                crc = crcs[-1]
                for entry in entries[max(0, low - first) :]:
                    if entry.index >= high:
                        return found
                    size += len(entry.data)
                    if size > size_max and found:
                        return found
                    found.append(entry)
                if low + len(found) >= high:
                    return found
                if not cursor.next():
                    raise CorruptionError(f"entry {low + len(found)} of the log is missing")
                first, value = index_of_key(bytes(cursor.key())), bytes(cursor.value())
                if first != low + len(found):
                    raise CorruptionError(f"entry {low + len(found)} of the log is missing")

    @staticmethod
    def _batch_of(cursor: lmdb.Cursor, index: int) -> tuple[int, bytes]:
        """Leave the cursor at the batch that holds ``index``; return its first index and value."""
        wanted = batch_key(index)
        is_placed = cursor.set_range(wanted)
        if not is_placed or cursor.key() != wanted:
            is_placed = cursor.prev() if is_placed else cursor.last()
        if not is_placed or cursor.key()[:1] != BATCH_PREFIX:
            raise CorruptionError(f"entry {index} of the log is missing")
        return index_of_key(bytes(cursor.key())), bytes(cursor.value())

    def _load(self) -> None:
        """Read the small records, then walk every batch: contiguous, chained, checked."""
        with self._env.begin() as txn:
            self._hard_state = decode_hard_state(txn.get(KEY_HARD_STATE))
            self._snapshot = decode_snapshot(txn.get(KEY_SNAPSHOT))
            self._mark = decode_mark(txn.get(KEY_COMPACTED))
            self._last_index, self._last_term, self._last_crc = self._mark
            cursor = txn.cursor()
            is_first = True
            is_placed = cursor.set_range(batch_key(0))
            while is_placed:
                first, value = index_of_key(bytes(cursor.key())), bytes(cursor.value())
                entries, crcs = decode_batch(first, value)
                self._check_link(first, batch_previous(value), crcs, is_first)
                is_first = False
                if crcs and entries[-1].index > self._mark[0]:
                    self._flight = entries
                    self._flight_crcs = crcs
                    self._publish()
                is_placed = cursor.next()
        self._forget_due = False

    def _check_link(self, first: int, previous: int, crcs: list[int], is_first: bool) -> None:
        """A batch must continue what came before it, or hold the compaction mark's entry."""
        mark_index, _, mark_crc = self._mark
        if not crcs:
            raise CorruptionError(f"the batch at index {first} is empty")
        last = first + len(crcs) - 1
        if is_first and first <= mark_index:
            # Left over from an unfinished compaction, or the batch that spans the mark.
            is_linked = last < mark_index or crcs[mark_index - first] == mark_crc
        elif last <= mark_index or first <= mark_index:
            is_linked = last < mark_index or crcs[mark_index - first] == mark_crc
        else:
            is_linked = first == self._last_index + 1 and previous == self._last_crc
        if not is_linked:
            raise CorruptionError(f"entry {first} of the log does not continue the one before")
