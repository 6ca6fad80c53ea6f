"""The Raft log on LMDB: grouping, overwriting, compaction, restart."""

from __future__ import annotations

import errno
import os
import queue
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import lmdb
import pytest

from etcdtw.raft.entry import ConfState, Entry, HardState, Snapshot
from etcdtw.raft.errors import SnapshotUnavailableError
from etcdtw.raft.storage import CompactedError, LogStore, UnavailableError
from etcdtw.storage.log.codec import CorruptionError, decode_batch, encode_batch
from etcdtw.storage.log.journal_open import begin_journal
from etcdtw.storage.log.journal_writer import INLINE_SIZE_MAX, JournalWriter
from etcdtw.storage.log.log import ENTRY_OVERHEAD, LmdbLog, open_log
from etcdtw.storage.log.writer import FORGET_BATCHES_MAX, NOTHING_UNSETTLED, LogJob, perform

NO_LIMIT = 1 << 40


def entry(index: int, term: int = 1, data: bytes | None = None) -> Entry:
    return Entry(term, index, 0, b"data %d" % index if data is None else data)


def run(first: int, last: int, term: int = 1) -> list[Entry]:
    return [entry(index, term) for index in range(first, last + 1)]


class HeldWriter:
    """Commits on demand, so that a test decides when a job is durable."""

    def __init__(self, env: lmdb.Environment) -> None:
        self.env = env
        self.jobs: list[tuple[LogJob, Callable[[bool], None]]] = []
        self.written: list[LogJob] = []
        self.is_inline = False
        self.forget_max = FORGET_BATCHES_MAX

    def write(self, job: LogJob, done: Callable[[bool], None]) -> None:
        assert not self.jobs, "at most one job in flight"
        self.jobs.append((job, done))
        if self.is_inline:
            self.release()

    def release(self) -> None:
        job, done = self.jobs.pop()
        with self.env.begin(write=True) as txn:
            more = perform(txn, job, self.forget_max)
        self.written.append(job)
        done(more)

    def unsettled_first(self) -> int:
        return NOTHING_UNSETTLED

    def close(self) -> None:
        self.jobs.clear()


class LogRig:
    """A log whose writer is held by the test."""

    def __init__(self, path: Path, tail_size_max: int = 1 << 20) -> None:
        self.path = path
        self.tail_size_max = tail_size_max
        self.told: list[object] = []
        self.open()

    def open(self) -> None:
        env, lock_fd = open_log(self.path, 1 << 24)
        self.writer = HeldWriter(env)
        self.log = LmdbLog(env, self.writer, self.tail_size_max, lock_fd)

    def reopen(self) -> None:
        self.log.close()
        self.open()

    def append(self, entries: list[Entry], hard_state: HardState | None = None) -> None:
        """Append durably."""
        self.writer.is_inline = True
        self.log.append(hard_state, entries, lambda: None)
        self.writer.is_inline = False

    def tell(self, what: object) -> Callable[[], None]:
        return lambda: self.told.append(what)

    def all(self) -> list[Entry]:
        first, last = self.log.first_index(), self.log.last_index()
        return self.log.entries(first, last + 1, NO_LIMIT) if last >= first else []


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[LogRig]:
    made = LogRig(tmp_path / "member" / "wal")
    yield made
    made.log.close()


def test_lmdb_log_is_a_log_store(rig: LogRig) -> None:
    store: LogStore = rig.log
    assert (store.first_index(), store.last_index(), store.term(0)) == (1, 0, 0)
    assert store.initial_state() == (HardState(), ConfState())


def test_appended_entries_are_shown_when_durable_and_survive_a_restart(rig: LogRig) -> None:
    rig.log.append(HardState(1, 7, 0), run(1, 3), rig.tell("a"))
    assert (rig.told, rig.log.last_index()) == ([], 0)
    rig.writer.release()
    assert rig.told == ["a"]
    assert rig.all() == run(1, 3)
    rig.reopen()
    assert rig.all() == run(1, 3)
    assert rig.log.initial_state()[0] == HardState(1, 7, 0)
    assert rig.log.term(3) == 1


def test_what_arrives_during_a_commit_is_one_batch_and_completes_in_order(rig: LogRig) -> None:
    rig.log.append(None, run(1, 2), rig.tell(1))
    for index in range(3, 6):
        rig.log.append(None, [entry(index)], rig.tell(index))
    rig.log.append(HardState(0, 0, 4), [], rig.tell("commit"))
    rig.writer.release()
    assert rig.told == [1]
    rig.writer.release()
    assert rig.told == [1, 3, 4, 5, "commit"]
    assert [job.entry_count for job in rig.writer.written] == [2, 3]


def test_a_commit_alone_costs_no_transaction_and_rides_with_the_next_append(rig: LogRig) -> None:
    rig.append(run(1, 2), HardState(1, 1, 0))
    rig.log.append(HardState(1, 1, 2), [], rig.tell("at once"))
    assert rig.told == ["at once"]
    assert len(rig.writer.written) == 1
    rig.append([entry(3)])
    rig.reopen()
    assert rig.log.initial_state()[0] == HardState(1, 1, 2)


def test_a_commit_alone_waits_behind_the_job_in_flight(rig: LogRig) -> None:
    rig.log.append(HardState(1, 1, 0), run(1, 2), rig.tell("append"))
    rig.log.append(HardState(1, 1, 1), [], rig.tell("commit"))
    assert rig.told == []
    rig.writer.release()
    assert rig.told == ["append", "commit"]
    assert len(rig.writer.written) == 1


def test_a_vote_is_a_transaction_of_its_own(rig: LogRig) -> None:
    rig.log.append(HardState(2, 9, 0), [], rig.tell("vote"))
    assert rig.told == []
    rig.writer.release()
    rig.reopen()
    assert rig.log.initial_state()[0] == HardState(2, 9, 0)


@pytest.mark.parametrize("at", range(1, 10))
def test_an_append_replaces_everything_behind_it_even_within_a_batch(rig: LogRig, at: int) -> None:
    rig.append(run(1, 3))
    rig.append(run(4, 7))
    rig.append(run(8, 8))
    rig.append([entry(at, 2)])
    expected = [*run(1, at - 1), entry(at, 2)]
    assert rig.all() == expected
    assert rig.log.term(at) == 2
    rig.reopen()
    assert rig.all() == expected


def test_overwrites_among_waiting_appends_and_under_a_job_in_flight(rig: LogRig) -> None:
    rig.append(run(1, 4))
    rig.log.append(None, run(5, 9), rig.tell("flight"))
    rig.log.append(None, run(8, 12, 2), rig.tell("x"))
    rig.log.append(None, run(10, 10, 3), rig.tell("y"))
    rig.log.append(None, run(3, 6, 4), rig.tell("z"))
    rig.writer.release()
    assert rig.all() == run(1, 9)
    rig.writer.release()
    assert rig.all() == [*run(1, 2), *run(3, 6, 4)]
    rig.reopen()
    assert rig.all() == [*run(1, 2), *run(3, 6, 4)]


def test_a_callback_that_appends_does_not_overtake_the_callbacks_behind_it(rig: LogRig) -> None:
    rig.log.append(None, [entry(1)], lambda: rig.log.append(None, [entry(3)], rig.tell(3)))
    rig.log.append(None, [entry(2)], rig.tell(2))
    rig.writer.is_inline = True
    rig.writer.release()
    assert rig.told == [2, 3]


def test_four_hundred_appends_from_callbacks_do_not_nest(rig: LogRig) -> None:
    def next_one() -> None:
        index = rig.log.last_index() + 1
        if index <= 400:
            rig.log.append(None, [entry(index)], next_one)

    rig.writer.is_inline = True
    next_one()
    assert rig.log.last_index() == 400


def test_entries_keep_to_the_size_but_return_at_least_one(rig: LogRig) -> None:
    rig.append([entry(index, 1, bytes(100)) for index in range(1, 11)])
    assert len(rig.log.entries(3, 11, 0)) == 1
    assert len(rig.log.entries(3, 11, 100)) == 1
    assert len(rig.log.entries(3, 11, 300)) == 3
    assert len(rig.log.entries(3, 5, 10_000)) == 2
    with pytest.raises(UnavailableError):
        rig.log.entries(3, 12, 1)


def test_appended_octets_count_what_was_found_and_what_came(rig: LogRig) -> None:
    rig.append([entry(1, 1, bytes(100)), entry(2, 1, bytes(50))])
    size = 150 + 2 * ENTRY_OVERHEAD
    assert rig.log.appended_octets() == size
    rig.reopen()
    assert rig.log.appended_octets() == size
    rig.append([entry(2, 2, b"x")])
    assert rig.log.appended_octets() == size + 1 + ENTRY_OVERHEAD


def test_old_entries_are_read_back_from_disk(tmp_path: Path) -> None:
    rig = LogRig(tmp_path / "wal", tail_size_max=2000)
    for first in range(1, 100, 3):
        rig.append([entry(index, first, bytes(50)) for index in range(first, first + 3)])
    expected = rig.all()
    assert [e.index for e in expected] == list(range(1, 100))
    assert rig.log.term(2) == 1
    assert rig.log.term(5) == 4
    for low in (1, 2, 3, 4, 60, 95, 99):
        for high in (low + 1, low + 4, 100):
            assert rig.log.entries(low, min(high, 100), NO_LIMIT) == expected[low - 1 : high - 1]
    assert len(rig.log.entries(2, 100, 260)) == 5
    rig.append([entry(50, 200)])
    assert rig.all() == [*expected[:49], entry(50, 200)]
    rig.reopen()
    assert rig.all() == [*expected[:49], entry(50, 200)]
    rig.log.close()


def test_compaction_forgets_in_steps_and_keeps_the_mark(rig: LogRig) -> None:
    rig.append(run(1, 4))
    rig.append(run(5, 9, 2))
    rig.writer.is_inline = True
    rig.log.compact(6)
    assert (rig.log.first_index(), rig.log.term(6)) == (7, 2)
    with pytest.raises(CompactedError):
        rig.log.entries(6, 8, NO_LIMIT)
    with pytest.raises(CompactedError):
        rig.log.term(5)
    assert rig.all() == run(7, 9, 2)
    rig.reopen()
    assert (rig.log.first_index(), rig.log.term(6)) == (7, 2)
    assert rig.all() == run(7, 9, 2)
    with rig.writer.env.begin() as txn:
        assert txn.stat()["entries"] == 3  # format, mark, the batch that spans the mark
    rig.append([entry(7, 3)])
    assert rig.all() == [entry(7, 3)]
    rig.writer.is_inline = True
    rig.log.compact(7)
    rig.reopen()
    assert (rig.log.first_index(), rig.log.last_index(), rig.log.term(7)) == (8, 7, 3)
    rig.append([entry(8, 3)])
    rig.reopen()
    assert rig.all() == [entry(8, 3)]


def test_compaction_of_many_batches_takes_more_than_one_transaction(rig: LogRig) -> None:
    rig.writer.forget_max = 10
    for index in range(1, 36):
        rig.append([entry(index)])
    before = len(rig.writer.written)
    rig.writer.is_inline = True
    rig.log.compact(33)
    assert len(rig.writer.written) - before == 4
    rig.reopen()
    assert rig.all() == run(34, 35)


def test_compaction_during_a_job_waits_for_it(rig: LogRig) -> None:
    rig.append(run(1, 5))
    rig.log.append(None, run(6, 8), rig.tell("a"))
    rig.log.compact(4)
    assert rig.log.first_index() == 1
    rig.writer.release()
    assert rig.log.first_index() == 5
    rig.writer.release()
    assert not rig.log.has_work()
    rig.reopen()
    assert rig.all() == run(5, 8)


def test_snapshot_mark_survives(rig: LogRig) -> None:
    rig.append(run(1, 3))
    conf = ConfState((1, 2), (3,), (4,), (5, 6), True)
    rig.log.put_snapshot(Snapshot(2, 1, conf, b"octets"), rig.tell("snapshot"))
    assert rig.log.snapshot().index == 0
    rig.writer.release()
    rig.reopen()
    found = rig.log.snapshot()
    assert (found.index, found.term, found.conf_state, found.data) == (2, 1, conf, b"octets")
    assert rig.log.initial_state()[1] == conf


def test_an_installed_snapshot_stands_for_the_whole_log(rig: LogRig) -> None:
    rig.append(run(1, 9), HardState(1, 1, 5))
    conf = ConfState((1, 2))
    rig.log.install_snapshot(HardState(4, 0, 20), Snapshot(20, 3, conf, b"v2"), rig.tell("in"))
    assert rig.log.last_index() == 9, "nothing is shown before it is durable"
    rig.writer.release()
    assert rig.told[-1] == "in"
    rig.append([entry(21, 4), entry(22, 4)])
    for _ in range(2):
        assert (rig.log.first_index(), rig.log.last_index()) == (21, 22)
        assert (rig.log.term(20), rig.log.term(22)) == (3, 4)
        assert rig.all() == [entry(21, 4), entry(22, 4)]
        assert rig.log.initial_state() == (HardState(4, 0, 20), conf)
        assert (rig.log.snapshot().index, rig.log.snapshot().data) == (20, b"v2")
        with pytest.raises(CompactedError):
            rig.log.term(19)
        rig.reopen()
    rig.append([entry(22, 5)])
    assert rig.all() == [entry(21, 4), entry(22, 5)]


def test_an_install_drops_what_waits_and_takes_what_follows_with_it(rig: LogRig) -> None:
    rig.log.append(None, run(1, 3), rig.tell("flying"))
    rig.log.append(None, run(4, 6), rig.tell("waiting"))
    rig.log.compact(2)
    rig.log.install_snapshot(HardState(2, 0, 10), Snapshot(10, 2), rig.tell("installed"))
    rig.log.append(HardState(3, 0, 10), [entry(11, 3)], rig.tell("behind"))
    assert rig.told == []
    while rig.log.has_work():
        rig.writer.release()
    assert rig.told == ["flying", "waiting", "installed", "behind"]
    assert rig.all() == [entry(11, 3)]
    rig.reopen()
    assert rig.all() == [entry(11, 3)]
    assert rig.log.initial_state()[0] == HardState(3, 0, 10)


def test_a_snapshot_behind_the_log_is_installed_over_entries_beyond_it(rig: LogRig) -> None:
    rig.append(run(1, 9))
    rig.log.install_snapshot(HardState(2, 0, 5), Snapshot(5, 2), rig.tell("in"))
    rig.log.append(None, [entry(6, 2)], rig.tell("six"))
    while rig.log.has_work():
        rig.writer.release()
    assert rig.all() == [entry(6, 2)]
    rig.reopen()
    assert rig.all() == [entry(6, 2)]


def test_an_install_takes_a_new_log_to_its_index(rig: LogRig) -> None:
    rig.log.install_snapshot(HardState(1, 0, 7), Snapshot(7, 1), rig.tell("in"))
    rig.writer.release()
    rig.reopen()
    assert (rig.log.first_index(), rig.log.last_index(), rig.all()) == (8, 7, [])


def test_there_is_no_snapshot_while_the_log_begins_behind_the_newest_mark(rig: LogRig) -> None:
    rig.append(run(1, 9))
    rig.log.put_snapshot(Snapshot(4, 1), rig.tell("mark"))
    rig.writer.release()
    rig.log.compact(4)
    rig.writer.release()
    assert rig.log.snapshot().index == 4
    rig.log.compact(5)
    rig.writer.release()
    with pytest.raises(SnapshotUnavailableError):
        rig.log.snapshot()


class ThreadRig:
    """A log with the product's writer; the reactor is a queue that the test turns."""

    def __init__(self, path: Path, map_size: int = 1 << 24, segment_size: int = 1 << 20) -> None:
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.now_s = 0.0
        self.flush_s = 0.0
        self.failures: list[str] = []
        self.flush_hook: Callable[[], None] = lambda: None
        self.commit_hook: Callable[[], None] = lambda: None
        env, lock_fd = open_log(path, map_size)
        journal = begin_journal(env, path, map_size, bytes(8), segment_size)
        self.writer = JournalWriter(
            env,
            journal,
            map_size,
            self.seconds,
            self.calls.put,
            self.failures.append,
            settle_delay_s=0.001,
            flush_hook=lambda: self.flush_hook(),
            commit_hook=lambda: self.commit_hook(),
        )
        self.log = LmdbLog(env, self.writer, lock_fd=lock_fd)
        self.told: list[int] = []

    def seconds(self) -> float:
        self.now_s += self.flush_s
        return self.now_s

    def append(self, entries: list[Entry]) -> None:
        self.log.append(None, entries, lambda: self.told.append(entries[-1].index))

    def turn_until(self, is_enough: Callable[[], bool]) -> None:
        while not is_enough():
            with suppress(queue.Empty):
                self.calls.get(timeout=0.001)()

    def turn_all(self) -> None:
        while not self.calls.empty():
            self.calls.get()()


def test_small_jobs_are_flushed_inline_and_large_ones_in_the_thread(tmp_path: Path) -> None:
    rig = ThreadRig(tmp_path / "wal")
    rig.append(run(1, 4))
    assert rig.told == [4]
    rig.append([entry(5, 1, bytes(INLINE_SIZE_MAX))])
    assert rig.told == [4]
    rig.append(run(6, 6))
    rig.turn_until(lambda: rig.told == [4, 5, 6])
    assert (rig.writer.inline_flushes, rig.writer.thread_flushes) == (2, 1)
    rig.log.close()


def test_slow_flushes_move_to_the_thread_until_they_are_forgotten(tmp_path: Path) -> None:
    rig = ThreadRig(tmp_path / "wal")
    rig.flush_s = 0.01
    rig.append(run(1, 1))
    rig.append(run(2, 2))
    assert rig.told == [1, 2]
    rig.append(run(3, 3))
    assert rig.told == [1, 2]
    rig.turn_until(lambda: rig.told == [1, 2, 3])
    rig.flush_s = 0.0
    for index in range(4, 104):
        rig.append([entry(index)])
        rig.turn_until(lambda index=index: rig.told[-1] == index)  # type: ignore[misc]
    assert rig.writer.thread_flushes < 103
    before = rig.writer.inline_flushes
    rig.append(run(104, 104))
    assert rig.writer.inline_flushes == before + 1
    rig.log.close()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), MemoryError()])
@pytest.mark.parametrize("size", [1, INLINE_SIZE_MAX])
def test_a_failed_flush_stops_once_and_nothing_is_told_afterwards(
    tmp_path: Path, error: Exception, size: int
) -> None:
    rig = ThreadRig(tmp_path / "wal")
    rig.append(run(1, 1))

    def fail() -> None:
        raise error

    rig.flush_hook = fail
    rig.append([entry(2, 1, bytes(size))])
    rig.append(run(3, 3))
    rig.log.append(HardState(9, 9, 9), [], lambda: rig.told.append(0))
    rig.log.close()
    rig.turn_all()
    assert rig.told == [1]
    assert len(rig.failures) == 1
    assert "log commit failed" in rig.failures[0]


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "I/O error"), lmdb.DiskError("full"), MemoryError()]
)
def test_a_failed_commit_stops_once_and_nothing_is_told_afterwards(
    tmp_path: Path, error: Exception
) -> None:
    rig = ThreadRig(tmp_path / "wal")

    def fail() -> None:
        raise error

    rig.commit_hook = fail
    rig.append(run(1, 1))
    assert rig.told == [1]
    rig.turn_until(lambda: rig.failures != [])
    rig.append(run(2, 2))
    rig.log.close()
    rig.turn_all()
    assert rig.told == [1]
    assert len(rig.failures) == 1
    assert "log commit failed" in rig.failures[0]
    assert last_index_of(tmp_path / "wal") == 1, "the journal holds what LMDB could not take"


@pytest.mark.parametrize("count", [1, 40])
def test_a_full_map_grows_and_the_whole_transaction_is_redone(tmp_path: Path, count: int) -> None:
    rig = ThreadRig(tmp_path / "wal", map_size=1 << 16)
    index = 1
    while index < 400:
        entries = [entry(i, 1, bytes(1000)) for i in range(index, index + count)]
        rig.append(entries)
        index += count
        rig.turn_until(lambda index=index: rig.told[-1:] == [index - 1])  # type: ignore[misc]
    rig.turn_until(lambda: rig.writer.unsettled_first() == NOTHING_UNSETTLED)
    assert not rig.failures
    assert rig.log.last_index() == index - 1
    rig.log.close()
    assert last_index_of(tmp_path / "wal") == index - 1


def last_index_of(path: Path) -> int:
    env, lock_fd = open_log(path, 1 << 24)
    log = LmdbLog(env, HeldWriter(env), lock_fd=lock_fd)
    last_index = log.last_index()
    log.close()
    return last_index


def test_a_flipped_bit_anywhere_in_a_batch_is_detected(rig: LogRig) -> None:
    value, _ = encode_batch(77, run(5, 7))
    for bit in range(len(value) * 8):
        damaged = bytearray(value)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptionError):
            decode_batch(5, bytes(damaged))


def test_files_are_private(rig: LogRig) -> None:
    rig.append(run(1, 1))
    for folder, _, files in os.walk(rig.path.parent):
        assert os.stat(folder).st_mode & 0o777 == 0o700
        for name in files:
            assert os.stat(Path(folder) / name).st_mode & 0o077 == 0
