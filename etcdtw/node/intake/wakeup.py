"""Who asks for a turn, and when: at most one for each iteration of the reactor.

Made before everything that asks; turns begin with `start`, and what was asked before is not
forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Wakeup:
    """The turns of one member that were asked for.

    ``call_later``, ``seconds``: the reactor's.
    """

    def __init__(self, call_later: Callable[..., Any], seconds: Callable[[], float]) -> None:
        self._call_later = call_later
        self._seconds = seconds
        self._turn: Callable[[], None] | None = None
        self._delayed: Any = None
        self.is_awake = False
        """Whether a turn is asked for."""
        self.is_stopping = False
        self.now_ms = 0
        """When the present iteration began; requests count from it."""

    def time_ms(self) -> int:
        """Return the time of this very moment."""
        return int(self._seconds() * 1000)

    def wake(self) -> None:
        """Ask for a turn at the end of this reactor iteration."""
        if not self.is_awake and not self.is_stopping:
            self.is_awake = True
            # What is asked until then began now, not when the last turn ran.
            self.now_ms = self.time_ms()
            if self._turn is not None:
                self._delayed = self._call_later(0, self._run)

    def start(self, turn: Callable[[], None]) -> None:
        """Call ``turn`` when one is asked for, and once in any case."""
        self._turn = turn
        self.is_awake = False
        self.wake()

    def run_now(self) -> None:
        """Run a turn without waiting for the end of the iteration; never from within one."""
        if self._delayed is not None:
            self._delayed.cancel()
        self._run()

    def _run(self) -> None:
        self._delayed = None
        self.is_awake = False
        if self._turn is not None and not self.is_stopping:
            self._turn()

    def stop(self) -> None:
        """No turn any more."""
        self.is_stopping = True
        if self._delayed is not None:
            self._delayed.cancel()
            self._delayed = None
