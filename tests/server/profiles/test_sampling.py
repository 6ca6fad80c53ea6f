"""Where the time goes, and the memory."""

from __future__ import annotations

import threading
import time
import tracemalloc

from etcdtw.server.profiles.pprof import Place, folded
from etcdtw.server.profiles.sampling import sample_cpu, sample_memory, stack_of


class Busy:
    """A thread that does something until it is told to stop."""

    def __init__(self) -> None:
        self.is_over = threading.Event()
        self.kept: list[bytearray] = []
        self.thread = threading.Thread(target=self.keep_busy, daemon=True)
        self.thread.start()

    def keep_busy(self) -> None:
        while not self.is_over.is_set():
            if len(self.kept) < 100:
                self.kept.append(bytearray(1000))

    def end(self) -> None:
        self.is_over.set()
        self.thread.join()


def test_who_is_busy_is_found_and_who_waits_is_not() -> None:
    busy = Busy()
    try:
        samples = sample_cpu(0.2, threading.Event(), time.perf_counter)
    finally:
        busy.end()
    ours = {s: v for s, v in samples.items() if any("keep_busy" in p.function for p in s)}
    assert sum(value[1] for value in ours.values()) > 0.5 * sum(v[1] for v in samples.values()) > 0
    assert not any("sample_cpu" in place.function for stack in samples for place in stack)
    assert "Busy.keep_busy" in folded(samples)


def test_it_ends_when_it_is_told_to() -> None:
    stop = threading.Event()
    stop.set()
    assert sample_cpu(60, stop, time.perf_counter) == {}


def test_what_is_allocated_and_held_is_found() -> None:
    busy = Busy()
    try:
        busy.kept.clear()
        samples = sample_memory(0.1, threading.Event(), time.perf_counter)
    finally:
        busy.end()
    assert not tracemalloc.is_tracing()
    ours = [v for s, v in samples.items() if s[0].file == __file__]
    assert sum(count for count, _ in ours) > 0 < sum(size for _, size in ours)


def test_a_stack_is_told_from_the_innermost_place_on() -> None:
    import sys

    first = stack_of(sys._getframe())[0]
    assert first == Place("test_a_stack_is_told_from_the_innermost_place_on", __file__, first.line)
