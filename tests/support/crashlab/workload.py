"""The member in small that runs under the recorder: log, state, writer thread and process.

``python -m tests.support.crashlab.workload FOLDER SEED STEPS``.  Every promise it hears is a mark
in the recorder's log.  What entry ``index`` does to the state follows from ``index`` alone.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from etcdtw.mvcc.backend import BUCKET_META
from etcdtw.raft.entry import Entry, HardState
from etcdtw.storage.log.journal_open import begin_journal
from etcdtw.storage.log.journal_writer import JournalWriter
from etcdtw.storage.log.log import LmdbLog, open_log
from etcdtw.storage.rows.codec import revision_key
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.state import LmdbState
from etcdtw.storage.writer.process import ProcessStateWriter
from tests.support.model_backend import ModelBackend, encode_varint

MAP_SIZE = 1 << 26
KEYS = 150
SEGMENT_SIZE = 1 << 16  # octets: small, so that a run goes through many laps


def entry_of(index: int, term: int) -> Entry:
    """Return entry ``index``: most are small, some span pages."""
    size = 9000 if index % 41 == 0 else index % 300
    return Entry(term, index, 0, b"%d %d " % (index, term) + bytes(size))


def apply_entry(backend: ModelBackend | LmdbState, index: int) -> None:
    """Apply entry ``index``: a put, or every fifth time a delete."""
    key = b"key%d" % (index * 7919 % KEYS)
    if backend.get(key) is not None and index % 5 == 0:
        backend.delete(index + 1, 0, key)
    else:
        value = b"v" * (3000 if index % 37 == 0 else index % 200)
        record = b"\x0a" + encode_varint(len(key)) + key + b"\x18" + encode_varint(index + 1)
        record += b"\x2a" + encode_varint(len(value)) + value
        backend.put(index + 1, 0, key, record, backend.get(key) is None)
    backend.set_applied(index, 1)


class Workload:
    """Appends, sometimes overwrites, applies what is settled, flushes and compacts."""

    def __init__(self, reactor: Any, folder: Path, seed: int, steps: int) -> None:
        self.reactor = reactor
        self.random = Random(seed)
        self.steps = steps
        self.mark_octets = ctypes.CDLL(None).crashlab_mark
        wal = folder / "member" / "wal"
        env, lock_fd = open_log(wal, MAP_SIZE)
        salt = self.random.randbytes(8)
        journal = begin_journal(env, wal, MAP_SIZE, salt, SEGMENT_SIZE)
        writer = JournalWriter(
            env,
            journal,
            MAP_SIZE,
            time.perf_counter,
            reactor.callFromThread,
            self.stop,
            settle_delay_s=self.random.choice((0.002, 0.02, 10.0)),
            settle_size=self.random.choice((1 << 13, 1 << 15, 1 << 20)),
        )
        self.log = LmdbLog(env, writer, lock_fd=lock_fd)
        self.state = open_state(
            folder / "member" / "state",
            self.stop,
            lambda path, map_size, fd: ProcessStateWriter(reactor, path, map_size, fd),
            MAP_SIZE,
        )
        self.term = 1
        self.last = 0
        self.settled = 0  # entries that are never overwritten
        self.in_flight: deque[tuple[int, int]] = deque()  # appends: first and last index
        self.durable = 0  # the last index of the newest append that is acknowledged
        self.mark("begin")

    def mark(self, text: str) -> None:
        self.mark_octets(text.encode())

    def stop(self, reason: str) -> None:
        self.mark("stop")
        print(reason, file=sys.stderr)
        os._exit(9)

    def step(self) -> None:
        if self.steps == 0:
            self.reactor.stop()
            return
        self.steps -= 1
        random = self.random
        if self.last > self.settled and random.random() < 0.15:
            # A new leader replaces what was not settled.
            self.term += 1
            self.append(random.randint(self.settled + 1, self.last))
        else:
            self.settled = self.last
            self.append(self.last + 1)
        self.settle()
        if random.random() < 0.15:
            index = self.state.applied_index
            self.state.flush(lambda: self.mark(f"G {index}"))
        if random.random() < 0.03:
            self.compact()
        self.reactor.callLater(random.choice((0, 0, 0, 0.001, 0.003)), self.step)

    def append(self, first: int) -> None:
        self.last = first + self.random.choice((0, 0, 1, 3, 5, 20))
        entries = [entry_of(index, self.term) for index in range(first, self.last + 1)]
        text = f"{first} {self.last} {self.term}"
        self.mark("B " + text)
        self.in_flight.append((first, self.last))
        self.log.append(HardState(self.term, 1, self.settled), entries, self.appended(text))

    def appended(self, text: str) -> Callable[[], None]:
        def done() -> None:
            self.mark("A " + text)
            _, self.durable = self.in_flight.popleft()

        return done

    def settle(self) -> None:
        """Apply what is durable in the log and will not be overwritten."""
        # Where flushes are slow an append is always under way: none may wait for a quiet moment.
        durable = min([self.durable, *(first - 1 for first, _ in self.in_flight)])
        for index in range(self.state.applied_index + 1, min(durable, self.settled) + 1):
            apply_entry(self.state, index)

    def compact(self) -> None:
        applied = self.state.applied_durable
        if applied > 60:
            self.log.compact(applied - 50)
            revision = applied - 20
            self.state.bucket_put(BUCKET_META, b"scheduledCompactRev", revision_key(revision, 0))
            self.state.schedule_compaction(revision)


def main() -> None:
    """Run the workload to its end."""
    from twisted.internet import reactor

    folder, seed, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    workload = Workload(reactor, folder, seed, steps)
    turning: Any = reactor
    turning.callWhenRunning(workload.step)
    turning.run()
    workload.state.close()
    workload.log.close()


if __name__ == "__main__":
    main()
