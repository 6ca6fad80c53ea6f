"""A channel over several servers: calls go round those that can be reached.

A call waits while none can, within bounds; one that its server has not looked at is made again.
Nothing else is: who knows what a call does, makes it again (`client/retrying.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.interfaces import IReactorTime

from etcdtw.client.channel import Metadata, NotTakenError
from etcdtw.client.network.bounds import NetworkBounds
from etcdtw.client.network.calls import NetworkCall, NetworkStream, WholeCall
from etcdtw.client.network.connection import CLOSING, ServerConnection
from etcdtw.client.network.line import READY, Line
from etcdtw.client.network.target import Target
from etcdtw.grpc.call import CANCELLED, RESOURCE_EXHAUSTED, UNAVAILABLE, StatusError

SERVERS_SHOWN_MAX: Final = 5
TOO_MANY_CALLS: Final = "etcdtw: too many calls at once"


class NetworkChannel:
    """Implements `client.channel.Channel`.  To be closed by who made it.

    Dials when it is first used.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        clock: IReactorTime,
        *,
        random: Callable[[], float],
        bounds: NetworkBounds | None = None,
    ) -> None:
        assert targets, "no server to call"
        self.clock = clock
        self.bounds = bounds or NetworkBounds()
        self.lines = [Line(target, clock, self.bounds, random, self) for target in targets]
        self.calls = 0
        """Under way or waiting."""
        self._turn = int(random() * len(self.lines)) % len(self.lines)
        self._waiting: deque[NetworkCall] = deque()
        self._given_up = 0  # of those, they have ended
        self._is_dialled = False
        self._is_closed = False

    # -- implements Channel

    def unary(
        self,
        path: str,
        message: bytes,
        metadata: Metadata = (),
        timeout_ms: int | None = None,
    ) -> Deferred[bytes]:
        """See `client.channel.Channel`."""
        if len(message) > self.bounds.request_size_max:
            return fail(self.too_large(len(message)))
        call = WholeCall(self, path, message, metadata, timeout_ms)
        error = self._begin(call)
        return call.result if error is None else fail(error)

    def stream(
        self, path: str, metadata: Metadata = (), timeout_ms: int | None = None
    ) -> NetworkStream:
        """See `client.channel.Channel`."""
        call = NetworkStream(self, path, metadata, timeout_ms)
        error = self._begin(call)
        if error is not None:
            call.refuse(error)
        return call

    def close(self) -> Deferred[None]:
        """End all calls and hang up; fires when no connection is left."""
        self._is_closed = True
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            call.break_off(StatusError(CANCELLED, CLOSING))
        return gatherResults([line.close() for line in self.lines]).addCallback(lambda _: None)

    # -- what calls use

    def too_large(self, size: int) -> StatusError:
        """Return the error of a request of ``size`` octets."""
        size_max = self.bounds.request_size_max
        return StatusError(
            RESOURCE_EXHAUSTED,
            f"trying to send message larger than max ({size} vs. {size_max})",
        )

    def again(self, call: NetworkCall) -> bool:
        """Make a call anew that no server has looked at; False: it cannot be."""
        if self._is_closed:
            return False
        self._place(call)
        return True

    def left(self) -> None:
        """A call is over."""
        self.calls -= 1

    def gave_up(self) -> None:
        """A call that waits is over."""
        self._given_up += 1
        if self._given_up > 64 and self._given_up * 2 > len(self._waiting):
            self._waiting = deque(call for call in self._waiting if call.is_waiting)
            self._given_up = 0

    def unreachable(self) -> NotTakenError:
        """Return the error of a call that no server could be found for."""
        shown = [f"{line.target.name}: {_why_not(line)}" for line in self.lines[:SERVERS_SHOWN_MAX]]
        if len(self.lines) > SERVERS_SHOWN_MAX:
            shown.append(f"and {len(self.lines) - SERVERS_SHOWN_MAX} more")
        return NotTakenError(UNAVAILABLE, f"no server takes the call: {'; '.join(shown)}")

    def line_changed(self, line: Line) -> None:
        """See `LineUser`."""
        if line.state == READY:
            self._serve()

    # -- which server

    def _begin(self, call: NetworkCall) -> StatusError | None:
        if self._is_closed:
            return StatusError(CANCELLED, CLOSING)
        if self.calls >= self.bounds.calls_max:
            return NotTakenError(RESOURCE_EXHAUSTED, TOO_MANY_CALLS)
        self.calls += 1
        call.set_deadline()
        self._place(call)
        return None

    def _place(self, call: NetworkCall) -> None:
        if not self._waiting:
            connection = self._pick()
            if connection is not None:
                call.begin(connection)
                return
        if not self._is_dialled:
            self._is_dialled = True
            for line in self.lines:
                line.connect()
        self._waiting.append(call)
        call.wait()
        self._serve()

    def _pick(self) -> ServerConnection | None:
        """Return a connection with room, the next one in turn."""
        lines = self.lines
        for _ in range(len(lines)):
            self._turn += 1
            if self._turn >= len(lines):
                self._turn = 0
            connection = lines[self._turn].connection
            if connection is not None and connection.has_room:
                return connection
        return None

    def _serve(self) -> None:
        """Begin what waits, as far as there is room."""
        while self._waiting:
            connection = self._pick()
            if connection is None:
                return
            call = self._waiting.popleft()
            if call.is_waiting:
                call.begin(connection)
            else:
                self._given_up -= 1


def _why_not(line: Line) -> str:
    if line.state == READY:
        return "it has no room for another call"
    return line.why or "no answer yet"
