"""One connection to a server: octets between a transport and the cores.

Counts as open when the server has spoken HTTP/2; asks for a sign of life while calls wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.client.network.bounds import NetworkBounds
from etcdtw.grpc.call import UNAVAILABLE
from etcdtw.grpc.client import CallClient, ClientCall, Ended, Metadata
from etcdtw.http2.connection import Connection
from etcdtw.transport.sockets import tune_socket

_KEEPALIVE_PING: Final = b"etcdtw-k"
CLOSING: Final = "grpc: the client connection is closing"
SILENT: Final = "the server gave no sign of life"


@implementer(IPushProducer)
class ServerConnection(Protocol):
    """What a `Line` dials.

    ``on_open`` is called once the server has sent its settings; ``on_room`` when calls may begin
    that could not before, or no more may; ``on_lost`` once, with the reason, also when it never
    was open.
    """

    def __init__(
        self,
        clock: IReactorTime,
        bounds: NetworkBounds,
        *,
        scheme: bytes = b"http",
        authority: bytes = b"localhost",
        on_open: Callable[[ServerConnection], None],
        on_room: Callable[[], None],
        on_lost: Callable[[ServerConnection, str], None],
    ) -> None:
        self._clock = clock
        self._bounds = bounds
        self._on_open = on_open
        self._on_room = on_room
        self._on_lost = on_lost
        self._core = Connection(client=True, limits=bounds.limits)
        self._calls = CallClient(
            self._core,
            on_output=self._flush,
            scheme=scheme,
            authority=authority,
            message_size_max=bounds.message_size_max,
        )
        self.untaken = 0
        """Octets of messages that nobody has received yet."""
        self.was_open = False
        self._is_receiving = False
        self._is_congested = False
        self._was_full = False
        self._why = ""  # of its end, when we know better than the transport
        self._heard_s = 0.0
        self._asked_s: float | None = None  # for a sign of life
        self._watchdog: IDelayedCall | None = None
        self._linger: IDelayedCall | None = None

    @property
    def _wire(self) -> Any:
        return self.transport

    @property
    def has_room(self) -> bool:
        """Whether a call may begin."""
        core = self._core
        has_room = core.has_room and core.queued_octets <= self._bounds.unsent_size_max
        if not has_room:
            self._was_full = True
        return has_room

    @property
    def is_going_away(self) -> bool:
        return self._calls.is_going_away

    @property
    def open_calls(self) -> int:
        return self._calls.open_calls

    # -- calls; both raise `StreamLimitError` without `has_room`

    def unary(
        self,
        path: str,
        message: bytes,
        done: Callable[[bytes | None, int, str], None],
        metadata: Metadata,
        timeout_ms: int | None,
    ) -> ClientCall:
        """See `CallClient.unary`."""
        if not self._calls.open_calls:
            self._heard_s = self._clock.seconds()
        return self._calls.unary(path, message, done, metadata=metadata, timeout_ms=timeout_ms)

    def open(
        self,
        path: str,
        on_message: Callable[[bytes], None],
        on_end: Ended,
        metadata: Metadata,
        timeout_ms: int | None,
    ) -> ClientCall:
        """See `CallClient.open`."""
        if not self._calls.open_calls:
            self._heard_s = self._clock.seconds()
        return self._calls.open(path, on_message, on_end, metadata=metadata, timeout_ms=timeout_ms)

    # -- the transport

    def connectionMade(self) -> None:
        tune_socket(self.transport)
        self._wire.registerProducer(self, True)
        self._heard_s = self._clock.seconds()
        self._core.begin()
        self._flush()
        self._watchdog = self._clock.callLater(
            self._bounds.keepalive_ms / 1_000, self._look_for_life
        )

    def dataReceived(self, data: bytes) -> None:
        self._heard_s = now_s = self._clock.seconds()
        self._asked_s = None
        core = self._core
        was_going = self._calls.is_going_away
        self._is_receiving = True
        try:
            self._calls.receive(data, int(now_s * 1_000))
        finally:
            self._is_receiving = False
        self._flush()
        if core.is_closed:
            self._why = self._why or self._farewell()
            self.close()
        if not self.was_open and core.is_settled and not core.is_closed:
            self.was_open = True
            self._on_open(self)
        elif self._calls.is_going_away and not was_going:
            self._on_room()
        else:
            self._look_for_room()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._core.discard()
        for timer in (self._watchdog, self._linger):
            if timer is not None and timer.active():
                timer.cancel()
        why = self._why or reason.getErrorMessage()
        self._calls.connection_lost(f"error reading from server: {why}")
        self._on_lost(self, why)

    def pauseProducing(self) -> None:
        self._is_congested = True
        self._core.pause()

    def resumeProducing(self) -> None:
        self._is_congested = False
        self._core.resume()
        self._flush()
        self._look_for_room()

    def stopProducing(self) -> None:
        """The transport is gone: `connectionLost` follows."""

    def close(self, why: str = "", code: int = UNAVAILABLE) -> None:
        """Say goodbye and hang up; calls under way end with ``code`` and ``why``."""
        self._why = self._why or why
        self._core.close()
        self._calls.connection_lost(self._why, code)
        if self.transport is None or self._linger is not None:
            return
        self._is_congested = False
        self._flush()
        self._linger = self._clock.callLater(self._bounds.close_timeout_ms / 1_000, self._abort)
        self._wire.unregisterProducer()
        self._wire.loseConnection()

    def _look_for_room(self) -> None:
        """Tell of room where there was none."""
        if self._was_full:
            self._was_full = False
            if self.has_room:
                self._on_room()

    def _abort(self) -> None:
        self._wire.abortConnection()

    def _flush(self) -> None:
        """Write what there is; while octets come in, once behind all of them."""
        if self._is_receiving or self._is_congested or not self._core.has_output:
            return
        self._wire.write(self._core.take_output())

    def _farewell(self) -> str:
        if not self._calls.is_going_away:
            return "the server does not speak HTTP/2 as we do"
        return f"the server said goodbye: {self._calls.farewell}"

    # -- signs of life

    def _look_for_life(self) -> None:
        bounds = self._bounds
        now_s = self._clock.seconds()
        wait_s = bounds.keepalive_ms / 1_000
        if not self._calls.open_calls:
            self._asked_s = None
        elif self._asked_s is not None:
            wait_s = self._asked_s + bounds.keepalive_timeout_ms / 1_000 - now_s
            if wait_s <= 0:
                self._why = SILENT
                self._abort()
                return
        elif now_s - self._heard_s >= wait_s:
            self._asked_s = now_s
            self._core.ping(_KEEPALIVE_PING)
            self._flush()
            wait_s = bounds.keepalive_timeout_ms / 1_000
        else:
            wait_s -= now_s - self._heard_s
        self._watchdog = self._clock.callLater(wait_s, self._look_for_life)
