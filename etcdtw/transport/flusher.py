"""One write per connection and turn.

Whoever produces output marks its connection; at the end of the turn every marked connection
writes once.  Knows no sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime

from etcdtw.wire.pieces import BUDGET_S, FLUSH, UNMEASURED, Pieces

FLUSH_S: Final = BUDGET_S / 2
"""For how long connections write in one go; passed by at most one of them."""


class Flushable(Protocol):
    """A connection that holds output back until it is told to write."""

    def flush_output(self) -> None: ...


class Flusher:
    """The connections with output, in the order they got it.  One per process.

    A turn calls `hold` at its beginning and `flush` at its end.  Marks outside a turn
    schedule one flush for the next iteration of the reactor.

    ``on_flush`` is told of each flush: the reactor has come around since the connections read.
    """

    def __init__(
        self,
        clock: IReactorTime,
        pieces: Pieces = UNMEASURED,
        on_flush: Callable[[], None] | None = None,
    ) -> None:
        self._clock = clock
        self._pieces = pieces
        self._on_flush = on_flush
        self._dirty: list[Flushable] = []
        self._is_scheduled = False
        self._is_held = False

    def mark(self, connection: Flushable) -> None:
        """Note that ``connection`` has output.

        A connection marks itself once until it is flushed; a second mark costs an empty flush.
        """
        self._dirty.append(connection)
        if not self._is_scheduled and not self._is_held:
            self._is_scheduled = True
            self._clock.callLater(0, self._scheduled)

    def hold(self) -> None:
        """A turn begins that ends with `flush`: schedule nothing meanwhile."""
        self._is_held = True

    def flush(self) -> None:
        """Let every marked connection write, as long as there is time; the others soon.

        Marks made meanwhile wait for the next flush.
        """
        dirty, self._dirty = self._dirty, []
        if dirty:
            piece = self._pieces.begin()
            seconds = self._clock.seconds
            until_s = seconds() + FLUSH_S
            for position, connection in enumerate(dirty, 1):
                connection.flush_output()
                if seconds() >= until_s:
                    self._dirty[:0] = dirty[position:]
                    break
            self._pieces.end(piece, FLUSH)
            if self._on_flush is not None:
                self._on_flush()
        self._is_held = False
        if self._dirty and not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(0, self._scheduled)

    def _scheduled(self) -> None:
        self._is_scheduled = False
        if not self._is_held:
            self.flush()
