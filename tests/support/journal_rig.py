"""A log with the product's writer and a small journal; the reactor is a queue that a test turns."""

from __future__ import annotations

import queue
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from etcdtw.raft.entry import Entry, HardState
from etcdtw.storage.log.journal import SEGMENT_FILES
from etcdtw.storage.log.journal_codec import PAGE
from etcdtw.storage.log.journal_open import begin_journal
from etcdtw.storage.log.journal_writer import JournalWriter
from etcdtw.storage.log.log import LmdbLog, open_log
from etcdtw.storage.log.writer import LogJob

MAP_SIZE = 1 << 24
SEGMENT_SIZE = 16 * PAGE
SALT = b"8 octets"
NO_LIMIT = 1 << 40


class ReadOnlyWriter:
    """For a log that is only looked at."""

    def write(self, job: LogJob, done: object) -> None:
        raise AssertionError("a log that is only read is written to")

    def unsettled_first(self) -> int:
        return 1 << 64

    def close(self) -> None:
        """Nothing is open."""


class JournalRig:
    """LMDB takes nothing over unless the test, or a lack of room, makes it."""

    def __init__(
        self,
        path: Path,
        segment_size: int = SEGMENT_SIZE,
        tail_size_max: int = 1 << 20,
        settle_delay_s: float = 1000.0,
        settle_size: int = 1 << 40,
    ) -> None:
        self.path = path
        self.calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.failures: list[str] = []
        self.told: list[int] = []
        env, lock_fd = open_log(path, MAP_SIZE)
        journal = begin_journal(env, path, MAP_SIZE, SALT, segment_size)
        self.journal = journal
        self.writer = JournalWriter(
            env,
            journal,
            MAP_SIZE,
            lambda: 0.0,
            self.calls.put,
            self.failures.append,
            settle_delay_s=settle_delay_s,
            settle_size=settle_size,
        )
        self.log = LmdbLog(env, self.writer, tail_size_max, lock_fd)

    def append(self, entries: Sequence[Entry], hard_state: HardState | None = None) -> None:
        """Append and wait until it is durable."""
        told: list[int] = []
        self.log.append(hard_state, entries, lambda: told.append(1))
        self.turn_until(lambda: told != [])

    def settle(self) -> None:
        """Wait until LMDB has taken over everything."""
        self.writer._settle()
        self.turn_until(lambda: self.writer._group is None)

    def turn_until(self, is_enough: Callable[[], bool]) -> None:
        while not is_enough():
            assert not self.failures
            with suppress(queue.Empty):
                self.calls.get(timeout=0.001)()

    def all(self) -> list[Entry]:
        return all_of(self.log)

    def image(self) -> dict[str, bytes]:
        """Return what is on the disk now; only while nothing is under way."""
        names = ("data.mdb", *SEGMENT_FILES)
        return {name: (self.path / name).read_bytes() for name in names}

    def close(self) -> None:
        self.log.close()


def all_of(log: LmdbLog) -> list[Entry]:
    first, last = log.first_index(), log.last_index()
    return log.entries(first, last + 1, NO_LIMIT) if last >= first else []


def write_image(path: Path, image: dict[str, bytes]) -> None:
    """Make ``path`` hold exactly what a crash left."""
    path.mkdir(mode=0o700, exist_ok=True)
    (path / "lock.mdb").unlink(missing_ok=True)
    for name, content in image.items():
        (path / name).write_bytes(content)


def read_log(path: Path) -> tuple[list[Entry], HardState]:
    """Recover the log in ``path`` and return what it holds."""
    env, lock_fd = open_log(path, MAP_SIZE)
    log = LmdbLog(env, ReadOnlyWriter(), lock_fd=lock_fd)
    found = all_of(log), log.initial_state()[0]
    log.close()
    return found
