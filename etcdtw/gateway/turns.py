"""Work of pages that is too long for one piece: jobs take turns, a share of each iteration.

A job is a generator that yields between steps of a millisecond or so; what it returns is its
result.  Each request has one at the most, so there are no more than requests.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from etcdtw.wire.pieces import SLICE, UNMEASURED, Pieces

SHARE_S: Final = 0.001
"""Of one iteration, for all jobs together; passed by one step at the most."""

T = TypeVar("T")
Job = Generator[None, None, T]


class Turns:
    """The jobs of one process.  ``seconds`` measures the share."""

    def __init__(
        self,
        clock: IReactorTime,
        pieces: Pieces = UNMEASURED,
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self._pieces = pieces
        self._seconds = seconds
        self._jobs: deque[tuple[Job[Any], Deferred[Any]]] = deque()
        self._is_scheduled = False

    @property
    def waiting(self) -> int:
        """How many jobs are not done."""
        return len(self._jobs)

    def run(self, job: Job[T]) -> Deferred[T]:
        """Return what ``job`` returns; cancelling it closes the job."""
        done: Deferred[T] = Deferred(lambda _: job.close())
        self._jobs.append((job, done))
        self._schedule()
        return done

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(0, self._round)

    def _round(self) -> None:
        self._is_scheduled = False
        piece = self._pieces.begin()
        try:
            self._serve()
        finally:
            self._pieces.end(piece, SLICE)
            if self._jobs:
                self._schedule()

    def _serve(self) -> None:
        until_s = self._seconds() + SHARE_S
        while self._jobs:
            job, done = self._jobs.popleft()
            try:
                if not done.called:
                    next(job)
                    self._jobs.append((job, done))
            except StopIteration as stopped:
                done.callback(stopped.value)
            except Exception as error:
                done.errback(error)
            if self._seconds() >= until_s:
                return


def whole(job: Job[T]) -> T:
    """Return what a short job returns, at once."""
    while True:
        try:
            next(job)
        except StopIteration as stopped:
            result: T = stopped.value
            return result
