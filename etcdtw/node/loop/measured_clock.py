"""The reactor's time, whose delayed calls are pieces of work that are measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

from etcdtw.wire.pieces import SLICE, Pieces


@implementer(IReactorTime)
class MeasuredClock:
    """What services get as their clock: parts of long answers, time-outs and the like."""

    def __init__(self, clock: IReactorTime, pieces: Pieces) -> None:
        self._clock = clock
        self._pieces = pieces
        self.seconds = clock.seconds
        self.getDelayedCalls = clock.getDelayedCalls

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kw: object
    ) -> IDelayedCall:
        """Call it later, as one piece."""
        return self._clock.callLater(delay, self._run, callable, *args, **kw)

    def _run(self, function: Callable[..., Any], *args: object, **kw: object) -> None:
        piece = self._pieces.begin()
        try:
            function(*args, **kw)
        finally:
            self._pieces.end(piece, SLICE)
