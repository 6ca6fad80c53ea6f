"""Garbage collections of everything: rarely, and when nobody waits for this member.

A collection takes as long as there are objects to visit, and a member may hold millions.  So what
has survived one, or has come in a busy tick, is frozen: the next one visits only what came since.
What is frozen and becomes garbage is freed all the same, unless it is a circle; those are looked
for once an hour, in some 0.1 s for a million objects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

COLLECTOR_THRESHOLDS: Final = (20_000, 1, 1 << 30)
"""Requests in flight are many short-lived objects without cycles; with Python's own thresholds
looking for cycles among them takes a seventh of the reactor's time, with 20,000 and 10 a fiftieth
(measured; not again with these).  20,000 objects of 400 waiting txns take 19 ms.  The last
threshold leaves full collections to `FullCollections`."""
DUE_COLLECTIONS: Final = 1
"""Collections of the middle generation after which what has survived them is dealt with."""
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


class FullCollections:
    """The full collections of one process; ``cpu_ns``: CPU time of the reactor's thread."""

    def __init__(self, collector: Collector, cpu_ns: Callable[[], int], now_ms: int) -> None:
        self._collector = collector
        self._cpu_ns = cpu_ns
        self._last_ms = now_ms
        self._last_cpu_ns = cpu_ns()
        self._whole_due_ms = now_ms + WHOLE_EVERY_MS

    def look(self, now_ms: int) -> None:
        """Deal with what has come since (at each tick)."""
        collector = self._collector
        cpu_ns = self._cpu_ns()
        busy_ms = (cpu_ns - self._last_cpu_ns) / 1e6
        is_idle = busy_ms < (now_ms - self._last_ms) * IDLE_SHARE
        self._last_ms, self._last_cpu_ns = now_ms, cpu_ns
        overdue_ms = now_ms - self._whole_due_ms
        if overdue_ms >= 0 and (is_idle or overdue_ms >= PATIENCE_MS):
            self._whole_due_ms = now_ms + WHOLE_EVERY_MS
            collector.unfreeze()
        elif not is_idle:
            # Unvisited, until everything is.  The interpreter counts what comes less what goes, so
            # its next collection might else visit any number of objects.
            collector.freeze()
            return
        elif collector.get_count()[2] < DUE_COLLECTIONS:
            return
        collector.collect()
        collector.freeze()
        self._last_cpu_ns = self._cpu_ns()
