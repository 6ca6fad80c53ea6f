"""Micro-benchmarks of the storage room: ``python benchmarks/micro_storage.py [PART ...]``.

The parts are log, state and feed; all by default.

Prints one figure a line.  Data goes to a temporary folder under ``--folder`` (default: here).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from etcdtw.raft.entry import Entry
from etcdtw.storage.log.journal_open import begin_journal
from etcdtw.storage.log.journal_writer import JournalWriter
from etcdtw.storage.log.log import MAP_SIZE, LmdbLog, open_log
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.state import LmdbState
from etcdtw.storage.writer.process import ProcessStateWriter

VALUE_SIZE = 256
REACTOR: Any = reactor


def say(what: str, figure: float, unit: str) -> None:
    """Print one figure."""
    print(f"{what:<68} {figure:>12,.2f} {unit}", flush=True)


def die(reason: str) -> None:
    """End as a member does when a commit fails."""
    print("fail-stop:", reason, file=sys.stderr)
    os._exit(1)


def key_of(number: int) -> bytes:
    """Return the key with a number."""
    return b"/registry/bench/%012d" % number


def record_of(key: bytes, main: int, value: bytes) -> bytes:
    """Return a KeyValue of a value between 128 and 16,383 octets."""
    size = len(value)
    return b"\x0a%c%b\x10%c\x18%c\x2a%c%c%b" % (
        len(key), key, main & 127, main & 127, size & 127 | 128, size >> 7, value,
    )  # fmt: skip


def best_us(call: Callable[[], object], times: int) -> float:
    """Return the least CPU time of one call, in microseconds."""
    best = 1e9
    for _ in range(times):
        started = time.process_time()
        call()
        best = min(best, time.process_time() - started)
    return best * 1e6


# The log.


def bench_log(folder: Path) -> None:
    """Measure single appends, then batches beside a busy reactor."""
    env, lock_fd = open_log(folder / "wal")
    journal = begin_journal(env, folder / "wal", MAP_SIZE, bytes(8))
    writer = JournalWriter(env, journal, MAP_SIZE, time.perf_counter, REACTOR.callFromThread, die)
    log = LmdbLog(env, writer, lock_fd=lock_fd)
    data = bytes(VALUE_SIZE)
    latencies: list[float] = []
    for index in range(1, 501):
        inline = writer.inline_flushes
        started = time.perf_counter()
        log.append(None, [Entry(1, index, 0, data)], nothing)
        if writer.inline_flushes == inline:
            while log.has_work():
                REACTOR.iterate(0.001)
        else:
            latencies.append(time.perf_counter() - started)
    say("log append of one entry, inline, p50", statistics.median(latencies) * 1e6, "us")
    say(
        "log append of one entry, inline, p99",
        sorted(latencies)[len(latencies) * 99 // 100] * 1e6,
        "us",
    )
    say("appends that stayed inline", len(latencies), "of 500")
    bench_log_thread(log, 64, 2.0)
    log.close()


def nothing() -> None:
    """Take note of nothing."""


def bench_log_thread(log: LmdbLog, size: int, seconds: float) -> None:
    """Batches through the thread while the reactor works 90 % of the time."""
    data = bytes(VALUE_SIZE)
    state = {"index": log.last_index(), "batches": 0}
    deadline = time.perf_counter() + seconds

    def append() -> None:
        first = state["index"] + 1
        state["index"] += size
        log.append(None, [Entry(1, i, 0, data) for i in range(first, first + size)], appended)

    def appended() -> None:
        state["batches"] += 1
        if time.perf_counter() < deadline:
            append()

    def busy() -> None:
        until = time.perf_counter() + 0.0009
        while time.perf_counter() < until:
            pass
        if time.perf_counter() < deadline or log.has_work():
            REACTOR.callLater(0.0001, busy)
        else:
            REACTOR.crash()

    sys.setswitchinterval(0.0005)
    append()
    busy()
    REACTOR.run(installSignalHandlers=False)
    say(f"log batches of {size} through the thread, reactor busy", state["batches"] / seconds, "/s")


# The state.


class Feed:
    """Puts at a given rate over random keys, with ticks, from the reactor."""

    def __init__(self, state: LmdbState, keys: int, rate: int, seconds: float) -> None:
        self.state = state
        self.keys = keys
        self.rate = rate
        self.seconds = seconds
        self.main = state.revision
        self.value = os.urandom(VALUE_SIZE)
        self.random = random.Random(1)
        self.put_s = 0.0
        self.tick_s_max = 0.0
        self.octets_max = 0
        self.waits: list[float] = []
        self.durable = 0
        self.puts = 0

    def run(self) -> None:
        self.started = time.perf_counter()
        self.turn()
        REACTOR.run(installSignalHandlers=False)
        say(f"  {self.keys:,} keys: puts a second offered", self.puts / self.seconds, "/s")
        say(
            "  CPU of one put on the apply path (bench's own included)",
            self.put_s / self.puts * 1e6,
            "us",
        )
        say("  longest tick (closing a generation)", self.tick_s_max * 1e3, "ms")
        say("  largest overlay", self.octets_max / 2**20, "MiB")
        say("  seconds from last put to all durable", self.drained - self.seconds, "s")

    def turn(self) -> None:
        now = time.perf_counter() - self.started
        due = min(int(now * self.rate), int(self.seconds * self.rate)) - self.puts
        state, keys, value, pick = self.state, self.keys, self.value, self.random.randrange
        begun = time.process_time()
        for _ in range(due):
            self.main += 1
            key = key_of(pick(keys))
            state.put(self.main, 0, key, record_of(key, self.main, value), False)
        self.put_s += time.process_time() - begun
        self.puts += due
        state.set_applied(self.main, 1)
        begun = time.perf_counter()
        state.tick(int(now * 1000))
        self.tick_s_max = max(self.tick_s_max, time.perf_counter() - begun)
        closed = state._closed.octets if state._closed is not None else 0
        self.octets_max = max(self.octets_max, state._open.octets + closed)
        if now < self.seconds:
            REACTOR.callLater(0.001, self.turn)
        else:
            state.flush(self.finish)

    def finish(self) -> None:
        self.drained = time.perf_counter() - self.started
        REACTOR.crash()


def open_bench_state(folder: Path) -> LmdbState:
    """Open a state with its writer process."""
    return open_state(
        folder / "state",
        die,
        lambda path, map_size, lock_fd: ProcessStateWriter(REACTOR, path, map_size, lock_fd),
    )


def fill(state: LmdbState, count: int) -> float:
    """Put ``count`` keys in order; return the seconds until all is durable."""
    value = os.urandom(VALUE_SIZE)
    started = time.perf_counter()
    state_main = state.revision
    for number in range(count):
        key = key_of(number)
        state.put(state_main + 1 + number, 0, key, record_of(key, number, value), True)
        if number % 20_000 == 19_999:
            state.set_applied(number, 1)
            state.flush(REACTOR.crash)
            REACTOR.run(installSignalHandlers=False)
    state.flush(lambda: REACTOR.callLater(0, REACTOR.crash))
    REACTOR.run(installSignalHandlers=False)
    return time.perf_counter() - started


def bench_state(folder: Path) -> None:
    """Measure reads and writes with 100,000 keys."""
    state = open_bench_state(folder)
    say("fill 100,000 new keys, durable", fill(state, 100_000), "s")
    low, high = key_of(50_000), key_of(51_000)
    say("get, from LMDB", best_us(lambda: [state.get(low) for _ in range(1000)], 20) / 1000, "us")
    say(
        "frames of 1,000 keys, join, nothing in the overlay",
        best_us(lambda: b"".join(state.frames(low, high)), 200),
        "us",
    )
    say("frames, limit 1,000 of 100,000", best_us(lambda: state.frames(b"", None, 1000), 200), "us")
    say("count of all 100,000", best_us(lambda: state.count(b"", None), 200), "us")
    odd_low, odd_high = key_of(333), key_of(99_777)
    say("count of 99,444, odd bounds", best_us(lambda: state.count(odd_low, odd_high), 200), "us")
    say(
        "get_at, from LMDB",
        best_us(lambda: [state.get_at(low, 10**6) for _ in range(1000)], 20) / 1000,
        "us",
    )
    say("frames_at of 1,000 keys", best_us(lambda: state.frames_at(low, high, 10**6), 20), "us")
    say("changes, 1,000", best_us(lambda: state.changes_from(50_000, 0, 60_000, 1000), 50), "us")
    value = os.urandom(VALUE_SIZE)
    main = state.revision
    keys = [key_of(number) for number in random.Random(2).sample(range(100_000), 20_000)]
    records = [record_of(key, 7, value) for key in keys]
    begun = time.process_time()
    for key, record in zip(keys, records, strict=True):
        main += 1
        state.put(main, 0, key, record, False)
    say("put of a live key", (time.process_time() - begun) / len(keys) * 1e6, "us")
    begun = time.process_time()
    for number in range(20_000):
        main += 1
        state.put(main, 0, b"new" + keys[number], records[number], True)
    say("put of a new key", (time.process_time() - begun) / len(keys) * 1e6, "us")
    say(
        "get, from the overlay",
        best_us(lambda: [state.get(keys[5]) for _ in range(1000)], 20) / 1000,
        "us",
    )
    say(
        "frames of 1,000 keys, 200 of them in the overlay",
        best_us(lambda: state.frames(low, high), 100),
        "us",
    )
    say(
        "frames, limit 1,000, overlay of 40,000",
        best_us(lambda: state.frames(b"", None, 1000), 100),
        "us",
    )
    say(
        "count of 99,444, overlay of 40,000",
        best_us(lambda: state.count(odd_low, odd_high), 100),
        "us",
    )
    state.close()


def bench_feed(folder: Path) -> None:
    """Measure whether the writer keeps up."""
    for keys in (100_000, 1_000_000):
        state = open_bench_state(folder / str(keys))
        print(f"feed of 25,000 puts/s of {VALUE_SIZE} octets over {keys:,} random keys")
        say("  fill, durable", fill(state, keys), "s")
        Feed(state, keys, 25_000, 6.0).run()
        say("  file", state.size_allocated / 2**20, "MiB")
        say("  resident memory of the writer", resident_mib(state._writer.pid), "MiB")  # type: ignore[attr-defined]
        time.sleep(4)
        say(
            "  the same after four idle seconds",
            resident_mib(state._writer.pid),  # type: ignore[attr-defined]
            "MiB",
        )
        state.close()


def resident_mib(pid: int) -> float:
    """Return the anonymous memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    """Run the named parts, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=[])
    parser.add_argument("--folder", default=".")
    arguments = parser.parse_args()
    parts = arguments.parts or ["log", "state", "feed"]
    folder = Path(tempfile.mkdtemp(prefix="storage-bench-", dir=arguments.folder))
    try:
        for name, part in (("log", bench_log), ("state", bench_state), ("feed", bench_feed)):
            if name in parts:
                part(folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
