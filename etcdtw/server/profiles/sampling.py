"""Where the time of this process goes, and its memory: looked at now and then by a thread.

What compiled modules do is seen under the function that called them: they have no frames.
"""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import PurePath
from types import FrameType
from typing import Final

from etcdtw.server.profiles.pprof import Place, Stack

PERIOD_S: Final = 0.01
DEPTH_MAX: Final = 128
"""Innermost places of a stack that are kept."""
STACKS_MAX: Final = 50_000
"""Different stacks of one profile; what is met beyond them is counted as `OTHERS`."""
OTHERS: Final[Stack] = (Place("(others)", "", 0),)
MEMORY_DEPTH: Final = 16
MEMORY_STACKS_MAX: Final = 10_000


def sample_cpu(
    seconds: float, stop: threading.Event, now_s: Callable[[], float]
) -> dict[Stack, tuple[int, int]]:
    """Watch all threads for ``seconds``, or until ``stop``: samples and CPU time in ns by stack.

    The CPU time of a thread between two looks is counted where it is found at the second.
    """
    found: dict[Stack, tuple[int, int]] = {}
    before: dict[int, int] = {}
    own = threading.get_ident()
    ends_s = now_s() + seconds
    while now_s() < ends_s and not stop.wait(PERIOD_S):
        for ident, frame in sys._current_frames().items():
            spent_ns = 0 if ident == own else _cpu_ns(ident)
            last_ns = before.get(ident, spent_ns)
            before[ident] = spent_ns
            if spent_ns > last_ns:
                stack = stack_of(frame)
                if stack not in found and len(found) >= STACKS_MAX:
                    stack = OTHERS
                count, sum_ns = found.get(stack, (0, 0))
                found[stack] = (count + 1, sum_ns + spent_ns - last_ns)
    return found


def _cpu_ns(ident: int) -> int:
    """Return the CPU time of a thread; 0 when it has ended."""
    try:
        return time.clock_gettime_ns(time.pthread_getcpuclockid(ident))
    except OSError:
        return 0


def stack_of(frame: FrameType | None) -> Stack:
    """Return where a thread is, the innermost place first."""
    places: list[Place] = []
    while frame is not None and len(places) < DEPTH_MAX:
        code = frame.f_code
        places.append(Place(code.co_qualname, code.co_filename, frame.f_lineno))
        frame = frame.f_back
    return tuple(places)


def threads_text() -> str:
    """Return where each thread is."""
    names = {one.ident: one.name for one in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        lines = [f"\t{p.file}:{p.line} {p.function}\n" for p in stack_of(frame)]
        parts.append(f"thread {names.get(ident, ident)}:\n{''.join(lines)}\n")
    return "".join(parts)


def sample_memory(
    seconds: float, stop: threading.Event, now_s: Callable[[], float]
) -> dict[Stack, tuple[int, int]]:
    """Return what was allocated within ``seconds`` and is still held: objects and octets by stack.

    The process is slower meanwhile (about twice), as every allocation is noted.
    """
    is_ours = not tracemalloc.is_tracing()
    if is_ours:
        tracemalloc.start(MEMORY_DEPTH)
    try:
        stop.wait(seconds)
        statistics = tracemalloc.take_snapshot().statistics("traceback")
    finally:
        if is_ours:
            tracemalloc.stop()
    return {
        tuple(_place(frame) for frame in reversed(one.traceback)): (
            one.count,
            one.size,
        )
        for one in statistics[:MEMORY_STACKS_MAX]
    }


def _place(frame: tracemalloc.Frame) -> Place:
    """What allocates is known by its line alone."""
    name = "/".join(PurePath(frame.filename).parts[-2:])
    return Place(f"{name}:{frame.lineno}", frame.filename, frame.lineno)
