"""What the connections of HTTP/1.x of one listener share: routes, dates, and turns for bodies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IReactorTime

from etcdtw.grpc.plain import BodySizeMax, reads_no_body
from etcdtw.grpc.stats import ServerStats
from etcdtw.http1.answers import HeadWriter, date_text
from etcdtw.transport.client.seams import Routes

BODIES_AT_ONCE: Final = 16
"""Bodies that are read on in one iteration of the reactor: a millisecond of it."""


class BodyTurns:
    """Bodies that come at once are read on in turn.

    Otherwise all of them would be, within one iteration of the reactor: 20 ms for 400 of them,
    in pieces that are each short.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._line: deque[Callable[[], None]] = deque()

    def wait(self, read_on: Callable[[], None]) -> None:
        """Call ``read_on`` when it has its turn, in the next iteration at the earliest."""
        if not self._line:
            self._clock.callLater(0, self._next)
        self._line.append(read_on)

    def _next(self) -> None:
        for _ in range(min(BODIES_AT_ONCE, len(self._line))):
            self._line.popleft()()
        if self._line:
            self._clock.callLater(0, self._next)


class HttpSite:
    """The HTTP routes of one listener, and what its connections of HTTP/1.x share.

    ``body_size_max``: which requests have bodies that a route reads; they count in ``stats``.
    ``unix_s``: the wall clock, for dates.
    """

    def __init__(
        self,
        routes: Routes,
        clock: IReactorTime,
        *,
        body_size_max: BodySizeMax = reads_no_body,
        stats: ServerStats | None = None,
        unix_s: Callable[[], float],
    ) -> None:
        self.routes = routes
        self.clock = clock
        self.body_size_max = body_size_max
        self.stats = stats or ServerStats()
        self.body_turns = BodyTurns(clock)
        self.heads = HeadWriter()
        self._unix_s = unix_s
        self._date_s = -1
        self._date = b""

    def date(self) -> bytes:
        """Return what the time is, for heads."""
        now_s = int(self._unix_s())
        if now_s != self._date_s:
            self._date_s = now_s
            self._date = date_text(time.gmtime(now_s))
        return self._date
