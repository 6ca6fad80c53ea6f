"""The way to one server: dialled, kept, dialled again after a wait that grows.

Its picture: `docs/machines/client-line.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from etcdtw.client.network.bounds import NetworkBounds
from etcdtw.client.network.connection import CLOSING, ServerConnection
from etcdtw.client.network.target import Target
from etcdtw.grpc.call import CANCELLED

IDLE: Final = 0
DIALLING: Final = 1
READY: Final = 2
WAITING: Final = 3
CLOSED: Final = 4

_GROWTH: Final = 1.6
_JITTER: Final = 0.2


class LineUser(Protocol):
    """Who has a line."""

    def line_changed(self, line: Line) -> None:
        """It is ready, has room again, or has failed."""
        ...


class Line:
    """Keeps a connection to ``target`` from the first `connect` on.

    ``random`` gives numbers from 0 to 1: clients that lost the same server return apart.
    """

    def __init__(
        self,
        target: Target,
        clock: IReactorTime,
        bounds: NetworkBounds,
        random: Callable[[], float],
        user: LineUser,
    ) -> None:
        self.target = target
        self.state = IDLE
        self.connection: ServerConnection | None = None
        """The one that takes calls; while `READY`."""
        self.why = ""
        """Why the last try failed."""
        self._clock = clock
        self._bounds = bounds
        self._random = random
        self._user = user
        self._tries = 0
        self._opened_s = 0.0
        self._dial: Deferred[IProtocol] | None = None
        self._opening: ServerConnection | None = None
        self._timer: IDelayedCall | None = None
        self._alive: set[ServerConnection] = set()
        self._closed: list[Deferred[None]] = []

    def connect(self) -> None:
        """Dial, unless that has been done."""
        if self.state == IDLE:
            self._begin()

    def close(self) -> Deferred[None]:
        """Hang up for good; fires when no connection is left."""
        self.state = CLOSED
        self.connection = None
        self._stop_timer()
        gone: Deferred[None] = Deferred()
        self._closed.append(gone)
        if self._dial is not None:
            self._dial.cancel()
        for connection in list(self._alive):
            connection.close(CLOSING, CANCELLED)
        self._tell_closed()
        return gone

    def _begin(self) -> None:
        self.state = DIALLING
        self._timer = self._clock.callLater(self._bounds.dial_timeout_ms / 1_000, self._too_late)
        factory = Factory.forProtocol(self._build)
        factory.noisy = False
        dial = maybeDeferred(self.target.endpoint.connect, factory)
        self._dial = dial
        dial.addCallbacks(self._dialled, self._failed, errbackArgs=(dial,))

    def _build(self) -> ServerConnection:
        self._opening = ServerConnection(
            self._clock,
            self._bounds,
            scheme=self.target.scheme,
            authority=self.target.authority,
            on_open=self._opened,
            on_room=self._room_changed,
            on_lost=self._lost,
        )
        return self._opening

    def _dialled(self, protocol: IProtocol) -> None:
        """There is a connection; what counts is that its server speaks."""
        self._dial = None
        connection = cast(ServerConnection, protocol)
        self._alive.add(connection)
        is_wanted = connection is self._opening or connection is self.connection
        if not is_wanted or self.state == CLOSED:
            connection.close(CLOSING)

    def _failed(self, reason: Failure, dial: Deferred[IProtocol]) -> None:
        if dial is self._dial:
            self._dial = None
            if self.state == DIALLING:
                self._wait(reason.getErrorMessage() or repr(reason.value))
        self._tell_closed()

    def _too_late(self) -> None:
        self._timer = None
        dial, opening = self._dial, self._opening
        self._dial = None
        self._wait(f"no answer within {self._bounds.dial_timeout_ms} ms")
        if dial is not None:
            dial.cancel()
        if opening is not None:
            opening.close()

    def _opened(self, connection: ServerConnection) -> None:
        if connection is not self._opening or self.state != DIALLING:
            connection.close()
            return
        self._stop_timer()
        self._opening = None
        self._opened_s = self._clock.seconds()
        self.state = READY
        self.why = ""
        self.connection = connection
        self._user.line_changed(self)

    def _room_changed(self) -> None:
        connection = self.connection
        if connection is not None and connection.is_going_away:
            self._renew("the server takes no more calls")  # those under way go on
        else:
            self._user.line_changed(self)

    def _lost(self, connection: ServerConnection, why: str) -> None:
        self._alive.discard(connection)
        if self.state == CLOSED:
            self._tell_closed()
        elif connection is self.connection:
            self._renew(why)
        elif connection is self._opening and self.state == DIALLING:
            self._wait(why)

    def _renew(self, why: str) -> None:
        """The connection takes no more calls: dial at once, if it was good for a while."""
        self.connection = None
        lived_ms = (self._clock.seconds() - self._opened_s) * 1_000
        if lived_ms < self._bounds.backoff_max_ms:
            self._wait(why)
            return
        self._tries = 0
        self.why = why
        self._begin()
        self._user.line_changed(self)

    def _wait(self, why: str) -> None:
        """Dial again later."""
        self._stop_timer()
        self._opening = None
        self.why = why
        self.state = WAITING
        bounds = self._bounds
        wait_ms = min(bounds.backoff_min_ms * _GROWTH**self._tries, bounds.backoff_max_ms)
        if wait_ms < bounds.backoff_max_ms:
            self._tries += 1
        wait_ms *= 1 + _JITTER * (2 * self._random() - 1)
        self._timer = self._clock.callLater(wait_ms / 1_000, self._wait_is_over)
        self._user.line_changed(self)

    def _wait_is_over(self) -> None:
        self._timer = None
        self._begin()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _tell_closed(self) -> None:
        if self.state == CLOSED and self._dial is None and not self._alive:
            closed, self._closed = self._closed, []
            for gone in closed:
                gone.callback(None)
