"""Garbage collections: when nobody waits for this member, and of little.

A collection takes as long as there are objects to visit, and a member may hold millions; the
interpreter would begin one whenever very much comes at once, when nobody has time for it.  So it
begins none (`gc.disable`).  What has survived one of ours, or has come in a busy tick, is frozen:
the next one visits only what came since.  What is frozen and becomes garbage is freed all the
same, unless it is a circle; those are looked for once an hour, in some 0.1 s for a million
objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

DUE_OBJECTS: Final = 2_000
"""That came, less those that went, for a collection; a fraction of a millisecond."""
VISITED_OBJECTS_MAX: Final = 10_000
"""With more they are frozen unvisited: 20,000 objects of 400 waiting txns take 19 ms."""
DUE_CPU_MS: Final = 20
"""After which also fewer are looked at: the count of those that came falls with each that goes,
so that very many may have come while as many old ones went.  So much time makes few."""
DUE_MS: Final = 10_000
"""After which also a member that does next to nothing is looked at."""
IDLE_SHARE: Final = 0.2
"""Of a tick, below which the reactor's thread was idle."""
WHOLE_EVERY_MS: Final = 3_600_000
"""From one look at everything to the next; it waits for an idle tick."""
PATIENCE_MS: Final = 86_400_000
"""How long it waits."""


class Collector(Protocol):
    """The interpreter's, as the module `gc` is one."""

    def get_count(self) -> tuple[int, int, int]: ...
    def collect(self) -> int: ...
    def freeze(self) -> None: ...
    def unfreeze(self) -> None: ...


class Switch(Protocol):
    """Whether the interpreter begins any by itself, as the module `gc` has it."""

    def isenabled(self) -> bool: ...
    def enable(self) -> None: ...
    def disable(self) -> None: ...


@contextmanager
def held_off(switch: Switch) -> Iterator[None]:
    """Begin none meanwhile.  All that an import makes stays: looks at it are 5 % of a start."""
    was_on = switch.isenabled()
    switch.disable()
    try:
        yield
    finally:
        if was_on:
            switch.enable()


class Collections:
    """Those of one process, at its ticks; ``cpu_ns``: CPU time of the reactor's thread."""

    def __init__(self, collector: Collector, cpu_ns: Callable[[], int], now_ms: int) -> None:
        self._collector = collector
        self._cpu_ns = cpu_ns
        self._last_ms = now_ms
        self._last_cpu_ns = cpu_ns()
        self._due_cpu_ns = self._last_cpu_ns + DUE_CPU_MS * 1_000_000
        self._due_ms = now_ms + DUE_MS
        self._whole_due_ms = now_ms + WHOLE_EVERY_MS

    def look(self, now_ms: int) -> None:
        """Deal with what has come since (at each tick)."""
        collector = self._collector
        cpu_ns = self._cpu_ns()
        busy_ms = (cpu_ns - self._last_cpu_ns) / 1e6
        is_idle = busy_ms < (now_ms - self._last_ms) * IDLE_SHARE
        self._last_ms, self._last_cpu_ns = now_ms, cpu_ns
        overdue_ms = now_ms - self._whole_due_ms
        count = collector.get_count()[0]
        if overdue_ms >= 0 and (is_idle or overdue_ms >= PATIENCE_MS):
            self._whole_due_ms = now_ms + WHOLE_EVERY_MS
            collector.unfreeze()
        elif not is_idle or count > VISITED_OBJECTS_MAX:
            # Unvisited, until everything is.
            collector.freeze()
            self._begin_anew(now_ms)
            return
        elif count < DUE_OBJECTS and cpu_ns < self._due_cpu_ns and now_ms < self._due_ms:
            return
        collector.collect()
        collector.freeze()
        self._last_cpu_ns = self._cpu_ns()
        self._begin_anew(now_ms)

    def _begin_anew(self, now_ms: int) -> None:
        """All that there is has been frozen."""
        self._due_ms = now_ms + DUE_MS
        self._due_cpu_ns = self._last_cpu_ns + DUE_CPU_MS * 1_000_000
