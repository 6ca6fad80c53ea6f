"""Garbage collections of everything: when nobody waits for this member, not when Python likes.

The interpreter's own collections of young objects are short; one of all objects takes as long as
there are objects.  What lived at the start is frozen and never visited (`server.member_services`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

COLLECTOR_THRESHOLDS: Final = (50_000, 20, 1 << 30)
"""Requests in flight are many short-lived objects without cycles; with Python's own thresholds
looking for cycles among them takes a seventh of the reactor's time (measured).  The last one
leaves full collections to `FullCollections`."""
DUE_COLLECTIONS: Final = 10
"""Collections of the middle generation after which one of everything is due."""
IDLE_SHARE: Final = 0.2
"""Of a tick, below which the reactor's thread was idle."""
PATIENCE_MS: Final = 60_000
"""How long a collection that is due waits for an idle tick."""
REST_FACTOR: Final = 1_000
"""After a collection there is none for so many times its duration."""


class FullCollections:
    """The full collections of one process.

    ``counts``, ``collect``: the interpreter's; ``cpu_ns``: CPU time of the reactor's thread.
    """

    def __init__(
        self,
        counts: Callable[[], tuple[int, int, int]],
        collect: Callable[[], object],
        cpu_ns: Callable[[], int],
    ) -> None:
        self._counts = counts
        self._collect = collect
        self._cpu_ns = cpu_ns
        self._last_ms = 0
        self._last_cpu_ns = cpu_ns()
        self._due_ms: int | None = None
        self._rests_until_ms = 0

    def look(self, now_ms: int) -> None:
        """Collect if it is due and nobody is kept waiting by it (at each tick)."""
        cpu_ns = self._cpu_ns()
        busy_ms = (cpu_ns - self._last_cpu_ns) / 1e6
        is_idle = busy_ms < (now_ms - self._last_ms) * IDLE_SHARE
        self._last_ms, self._last_cpu_ns = now_ms, cpu_ns
        if self._counts()[2] < DUE_COLLECTIONS or now_ms < self._rests_until_ms:
            return
        if self._due_ms is None:
            self._due_ms = now_ms
        if is_idle or now_ms - self._due_ms >= PATIENCE_MS:
            self._due_ms = None
            self._collect()
            self._last_cpu_ns = self._cpu_ns()
            took_ms = (self._last_cpu_ns - cpu_ns) / 1e6
            self._rests_until_ms = now_ms + int(took_ms * REST_FACTOR)
