"""A deadline that moves with every request, on a timer that is not moved as often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

NEVER_S: Final = float("inf")
LOOK_S: Final = 60.0
"""How often the timer looks while there is no deadline."""


class Deadline:
    """Calls ``passed`` once when it has passed; `set` it again, or `stop`."""

    def __init__(self, clock: IReactorTime, passed: Callable[[], None]) -> None:
        self._clock = clock
        self._passed: Callable[[], None] | None = passed
        self._at_s = NEVER_S
        self._timer: IDelayedCall | None = None

    def set(self, seconds: float) -> None:
        """Allow so much time from now on."""
        self._at_s = self._clock.seconds() + seconds
        timer = self._timer
        if timer is None:
            self._timer = self._clock.callLater(seconds, self._look)
        elif timer.getTime() > self._at_s:
            timer.reset(seconds)

    def lift(self) -> None:
        """Allow any time."""
        self._at_s = NEVER_S

    def stop(self) -> None:
        """Forget it, and who is told: no circle is left for the collector."""
        self._passed = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        left_s = min(self._at_s - self._clock.seconds(), LOOK_S)
        if left_s > 0:
            self._timer = self._clock.callLater(left_s, self._look)
        elif self._passed is not None:
            self._passed()
