"""Calls within a member: to its own services, through the same screen, checks and counters.

Nothing is framed, and nothing waits for a socket.  As over the network a caller is one client
beside the others: the read queue gives each its turn, and who takes nothing holds nobody up.
"""

from __future__ import annotations

from typing import Final, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from etcdtw.client.channel import Metadata
from etcdtw.client.loopback_call import LATE, LoopbackCall, QueuedCall, WholeCall
from etcdtw.client.loopback_ledger import Ledger, Line, LoopbackBounds
from etcdtw.grpc.call import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNARY,
    UNIMPLEMENTED,
    Method,
    MethodTable,
    StatusError,
)
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.grpc.intake import FIELD_OVERHEAD, HEAVY_OCTETS_MIN, unknown_method_text
from etcdtw.grpc.server_call import TOO_MUCH_UNFINISHED
from etcdtw.grpc.stats import MethodStats, ServerStats

CLOSED: Final = "grpc: the client connection is closing"
ANOTHER_KIND: Final = "etcdtw: the method is of another kind"

Kind = TypeVar("Kind", bound=LoopbackCall)


class Loopback:
    """The way to the services of one member from inside; callers `connect`.

    ``clock`` measures deadlines; what it calls later are pieces of work.
    """

    def __init__(
        self,
        methods: MethodTable,
        stats: ServerStats,
        clock: IReactorTime,
        bounds: LoopbackBounds | None = None,
    ) -> None:
        self.methods = methods
        self.ledger = Ledger(stats, clock, bounds or LoopbackBounds())

    def connect(self, caller: Caller = NOBODY_KNOWN) -> LoopbackChannel:
        """Return a channel, to be closed by who asked for it.

        ``caller``: for whom it calls; a token among the metadata of a call is that call's.
        """
        return LoopbackChannel(self.methods, Line(self.ledger, caller))


class LoopbackStream:
    """Implements `client.channel.Stream` for a call within the member."""

    def __init__(self, call: QueuedCall) -> None:
        self._call = call
        self.send = call.deliver
        self.half_close = call.half_close
        self.receive = call.receive
        self.cancel = call.cancel

    @property
    def is_spent(self) -> bool:
        """Whether it has ended well and all of it was taken: what `receive` would say."""
        return self._call.is_spent


class RefusedStream:
    """A stream that was over before it began."""

    is_spent: Final = False

    def __init__(self, error: StatusError) -> None:
        self._error = error

    def send(self, message: bytes) -> None:
        """Nobody is there."""

    def half_close(self) -> None:
        """Nobody is there."""

    def cancel(self) -> None:
        """It has ended."""

    def receive(self) -> Deferred[bytes | None]:
        return fail(self._error)


class LoopbackChannel:
    """One caller's calls; implements `client.channel.Channel`.

    ``hold`` counts what is kept for calls that are not begun yet, see `Line`.

    Whoever serves several parties within the member opens one for each: the read queue lets
    channels take turns, and bounds hold for each.
    """

    def __init__(self, methods: MethodTable, line: Line) -> None:
        self._methods = methods
        self._line = line
        self.hold = line.hold
        self._is_closed = False

    def unary(
        self,
        path: str,
        message: bytes,
        metadata: Metadata = (),
        timeout_ms: int | None = None,
    ) -> Deferred[bytes]:
        """See `client.channel.Channel`."""
        try:
            call, method = self._begin(WholeCall, path, True, metadata, timeout_ms)
        except StatusError as error:
            return fail(error)
        self._serve(call, method, message)
        return call.result()

    def unary_in_parts(
        self,
        path: str,
        message: bytes,
        metadata: Metadata = (),
        timeout_ms: int | None = None,
    ) -> LoopbackStream | RefusedStream:
        """As `unary`; the answer, joined, is what the stream returns until its end.

        A large one comes in parts, as they are taken: nobody holds all of it.
        """
        try:
            call, method = self._begin(QueuedCall, path, True, metadata, timeout_ms)
        except StatusError as error:
            return RefusedStream(error)
        self._serve(call, method, message)
        return LoopbackStream(call)

    def stream(
        self, path: str, metadata: Metadata = (), timeout_ms: int | None = None
    ) -> LoopbackStream | RefusedStream:
        """See `client.channel.Channel`."""
        try:
            call, method = self._begin(QueuedCall, path, False, metadata, timeout_ms)
        except StatusError as error:
            return RefusedStream(error)
        opened = method.opened
        assert opened is not None, "a method that streams"
        call.run(lambda: opened(call))
        return LoopbackStream(call)

    def close(self) -> None:
        """End all calls: their callers hear `CLOSED`, and so do later ones."""
        self._is_closed = True
        for call in list(self._line.calls):
            assert isinstance(call, LoopbackCall)
            call.close(StatusError(CANCELLED, CLOSED))

    def _begin(
        self,
        kind: type[Kind],
        path: str,
        is_unary: bool,
        metadata: Metadata,
        timeout_ms: int | None,
    ) -> tuple[Kind, Method]:
        """Return an open call, and the method that its screen chose.  Raises `StatusError`."""
        if self._is_closed:
            raise StatusError(CANCELLED, CLOSED)
        if timeout_ms is not None and timeout_ms <= 0:
            raise StatusError(DEADLINE_EXCEEDED, LATE)
        octets = path.encode()
        method = self._methods.find(octets)
        if method is None:
            raise StatusError(UNIMPLEMENTED, unknown_method_text(octets, self._methods))
        if (method.kind == UNARY) is not is_unary:
            raise StatusError(INTERNAL, ANOTHER_KIND)
        values = dict(reversed(metadata))  # the first value of a repeated key counts
        label, method = self._methods.screen(method, values.get)
        stats: MethodStats = self._line.ledger.stats.of(method, label)
        kept = sum([len(key) + len(value) + FIELD_OVERHEAD for key, value in metadata])
        if kept >= HEAVY_OCTETS_MIN and not self._line.hold(0):
            raise StatusError(RESOURCE_EXHAUSTED, TOO_MUCH_UNFINISHED)
        return kind(self._line, method, stats, values, kept, timeout_ms), method

    def _serve(self, call: LoopbackCall, method: Method, message: bytes) -> None:
        unary = method.unary
        assert unary is not None, "a unary method"

        def serve() -> None:
            call.received(message)
            reply = unary(call, message)
            if reply is not None:
                call.reply(reply)

        call.run(serve)
