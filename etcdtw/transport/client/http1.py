"""HTTP/1.x on the client port: twisted.web with bounds on time and memory.

A body that no route reads is counted against its bound, and dropped.  One that is read counts
as an unfinished request, as those of gRPC do, until it is answered.

Knows no routes; the gateway gives the resource.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final, Protocol, cast

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from etcdtw.grpc.message import CHUNK_OVERHEAD
from etcdtw.grpc.plain import BodySizeMax, reads_no_body
from etcdtw.grpc.stats import ServerStats
from etcdtw.transport.rounds import Rounds

BODY_SIZE_MAX: Final = 2 * 1024 * 1024
"""Octets of a body that no route reads."""
HEAD_PIECE_SIZE: Final = 2_048
"""Octets of heads that are looked at at once."""
BODY_PIECE_SIZE: Final = 65_536
RECEIVED_SIZE_MAX: Final = 65_536
"""Octets of requests that wait for those before them; one more, and no more are read."""
BODY_TURN_SIZE: Final = 16_384
"""Octets at once from which on a body takes turns with others."""
BODIES_AT_ONCE: Final = 16
"""Bodies that are read on in one iteration of the reactor: a millisecond of it."""
REQUEST_HEADER_S: Final = 10.0
"""From the first octet of a request to the end of its header."""
IDLE_S: Final = 60.0
"""Without an octet between or within requests."""


class RequestChannel(Protocol):
    """What carries requests: an HTTP/1.x connection, or a stream of HTTP/2."""

    def admit(self, request: BoundedRequest) -> None:
        """``request`` is whole: answer it when it may be."""
        ...

    def let_go(self) -> None:
        """The request's body is not needed any more."""
        ...


class TakenLine:
    """A connection that is another protocol's now, for its `Successor`."""

    def __init__(self, transport: ITCPTransport) -> None:
        self._transport = transport
        self.write = transport.write
        self.end = transport.loseConnection

    def pause(self) -> None:
        """Take nothing more from the client for now."""
        cast(IPushProducer, self._transport).pauseProducing()

    def resume(self) -> None:
        """Go on taking."""
        cast(IPushProducer, self._transport).resumeProducing()


class Successor(Protocol):
    """What speaks on a connection behind the last request of HTTP."""

    def began(self, line: TakenLine) -> None:
        """The client was told so."""
        ...

    def received(self, data: bytes) -> None:
        """Octets have come."""
        ...

    def clogged(self) -> None:
        """The client does not read: it is to be told nothing more."""
        ...

    def drained(self) -> None:
        """It reads again."""
        ...

    def lost(self) -> None:
        """The connection is gone."""
        ...


class BoundedRequest(Request):
    """A request whose body is kept up to what its route reads, or counted up to `BODY_SIZE_MAX`."""

    is_refused = False
    _line = (b"", b"", b"")
    _body_size = 0
    _kept_size_max = 0
    _stats: ServerStats
    _held = 0  # octets that count as unfinished

    def setHeader(self, name: bytes, value: bytes) -> None:  # noqa: N802
        # etcd does not say what it is made with.
        if name != b"Server":
            super().setHeader(name, value)

    def gotLength(self, length: int | None) -> None:  # noqa: N802
        self.content = BytesIO()
        channel = cast(Any, self.channel)
        self._stats = channel.site.stats
        self._kept_size_max = channel.site.body_size_max(*channel.request_line)
        if length is not None and length > (self._kept_size_max or BODY_SIZE_MAX):
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:  # noqa: N802
        self._body_size += len(data)
        if self.is_refused:
            return
        if self._body_size > (self._kept_size_max or BODY_SIZE_MAX):
            self._refuse()
        elif self._kept_size_max:
            super().handleContentChunk(data)
            if not self._hold(len(data) + CHUNK_OVERHEAD):
                self._refuse()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:  # noqa: N802
        if not self.is_refused:
            self._line = command, path, version
            cast(RequestChannel, self.channel).admit(self)

    def answer(self) -> None:
        """Let the site answer."""
        if self.channel is not None:
            super().requestReceived(*self._line)

    def let_go(self) -> None:
        """The body is not needed any more; it counts no longer."""
        self._release()
        self.content = BytesIO()
        if self.channel is not None:
            cast(RequestChannel, self.channel).let_go()

    def finish(self) -> None:
        self._release()
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        self._release()
        super().connectionLost(reason)

    def _hold(self, octets: int) -> bool:
        """Count what is kept; False: all together hold too much.

        A connection has one body at a time, far below what one of gRPC's may hold.
        """
        stats = self._stats
        self._held += octets
        stats.unfinished_octets += octets
        return stats.unfinished_octets <= stats.unfinished_max

    def _release(self) -> None:
        if self._held:
            self._stats.unfinished_octets -= self._held
            self._held = 0

    def _refuse(self) -> None:
        if not self.is_refused:
            self.is_refused = True
            self._release()
            self.content = BytesIO()
            self.channel.write(
                b"HTTP/1.1 413 Request Entity Too Large\r\n"
                b"Connection: close\r\nContent-Length: 0\r\n\r\n"
            )
            self.channel.loseConnection()


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


class BoundedChannel(HTTPChannel):
    """An HTTP/1.x connection that must finish each request header in time.

    Its requests take turns with those of others (`rounds`), and the next one waits until the
    answers before are written: whoever sends many and reads nothing gets no more.
    """

    rounds: Rounds
    _waiting: BoundedRequest | None = None
    _is_in_line = False
    _is_clogged = False
    _header_deadline: IDelayedCall | None = None
    _is_in_body = False
    _is_feeding = False
    _is_reading_later = False
    _is_closing = False
    _is_over = False
    _successor: Successor | None = None  # who speaks here now

    def connectionMade(self) -> None:
        self._received = bytearray()
        super().connectionMade()

    def dataReceived(self, data: bytes) -> None:
        """Twisted.web takes time by the square of what it is given while it answers: so it gets
        little at once, and nothing before the request at hand is answered."""
        if self._successor is not None:
            self._successor.received(data)
            return
        self._received += data
        if not self._is_feeding:
            self._feed()
        if len(data) >= BODY_TURN_SIZE and self._is_in_body and not self._is_closing:
            self._read_in_turn()

    def _read_in_turn(self) -> None:
        if not self._is_reading_later:
            self._is_reading_later = True
            cast(IPushProducer, self.transport).pauseProducing()
            cast(Any, self).site.body_turns.wait(self._read_on)

    def _read_on(self) -> None:
        self._is_reading_later = False
        is_full = len(self._received) > RECEIVED_SIZE_MAX
        is_http = self._successor is None and not (self._is_closing or self._is_over)
        if is_http and not (is_full or self._is_clogged):
            cast(IPushProducer, self.transport).resumeProducing()

    def loseConnection(self) -> None:
        self._is_closing = True
        super().loseConnection()

    def _feed(self) -> None:
        received = self._received
        self._is_feeding = True
        while received and not self._handlingRequest and not self._is_over:
            size = BODY_PIECE_SIZE if self._is_in_body else HEAD_PIECE_SIZE
            piece = bytes(received[:size])
            del received[:size]
            if self._header_deadline is None and not self._is_in_body:
                self._header_deadline = self.callLater(REQUEST_HEADER_S, self._too_slow)
            super().dataReceived(piece)
            if self._dataBuffer and not self._handlingRequest:
                # What came behind a body whose request was answered at once.
                self.setLineMode(b"".join(self._dataBuffer))
                self._dataBuffer = []
        self._is_feeding = False
        self._bound_received()

    def setLineMode(self, extra: bytes = b"") -> None:  # noqa: N802
        """Look for a request next; ``extra`` came before what is kept here."""
        self.line_mode = 1
        self._received[:0] = extra

    def _bound_received(self) -> None:
        """Read nothing more while there is enough to do."""
        if len(self._received) > RECEIVED_SIZE_MAX and not self._is_over:
            cast(IPushProducer, self.transport).pauseProducing()

    @property
    def request_line(self) -> tuple[bytes, bytes]:
        """The verb and the target of the request whose header is being read."""
        return cast(Any, self)._command, cast(Any, self)._path

    def allHeadersReceived(self) -> None:  # noqa: N802
        self._is_in_body = True
        self._cancel_deadline()
        super().allHeadersReceived()

    def requestDone(self, request: Request) -> None:  # noqa: N802
        self._is_in_body = False
        super().requestDone(request)
        if not self._is_feeding:
            self._feed()
        else:
            self._bound_received()

    def take_over(self, successor: Successor, head: bytes) -> None:
        """Give the connection away; ``head`` is the last that is said in HTTP."""
        cast(ITCPTransport, self.transport).write(head)
        self.callLater(0, lambda: self._hand_over(successor))

    def _hand_over(self, successor: Successor) -> None:
        if self._is_over:
            return
        rest = b"".join(self._dataBuffer) + bytes(self._received)
        self._dataBuffer = []
        self._received.clear()
        self.setTimeout(None)
        self._successor = successor
        line = TakenLine(cast(ITCPTransport, self.transport))
        line.resume()
        successor.began(line)
        if rest:
            successor.received(rest)

    def connectionLost(self, reason: object = None) -> None:
        self._is_over = True
        if self._successor is not None:
            self._successor.lost()
        self._received.clear()
        self._cancel_deadline()
        self._waiting = None
        super().connectionLost(reason)
        # Twisted.web leaves circles of a request whose body did not end.
        self.requests = []
        self._transferDecoder = None

    def admit(self, request: BoundedRequest) -> None:
        self._waiting = request
        if not self._is_in_line:
            self.rounds.serve(self)

    def let_go(self) -> None:
        """Only its request holds the body."""

    def serve(self) -> bool:
        request = self._waiting
        if request is not None and self._is_clogged:
            self.setTimeout(IDLE_S)  # for the client to read on
        elif request is not None:
            self._waiting = None
            self.setTimeout(None)
            request.answer()
        return False

    def wait(self) -> None:
        """Twisted.web reads a little ahead, and then waits for the answer."""
        self._is_in_line = True

    def go_on(self) -> None:
        self._is_in_line = False
        if self._waiting is not None and not self._is_clogged:
            self.rounds.serve(self)

    def pauseProducing(self) -> None:
        self._is_clogged = True
        super().pauseProducing()
        if self._successor is not None:
            self._successor.clogged()

    def resumeProducing(self) -> None:
        self._is_clogged = False
        super().resumeProducing()
        if self._successor is not None:
            self._successor.drained()
        if self._waiting is not None and not self._is_in_line:
            self.rounds.serve(self)

    def _cancel_deadline(self) -> None:
        if self._header_deadline is not None:
            self._header_deadline.cancel()
            self._header_deadline = None

    def _too_slow(self) -> None:
        self._header_deadline = None
        cast(ITCPTransport, self.transport).abortConnection()


class HttpSite(Site):
    """The HTTP routes of one listener; writes no access log.

    ``body_size_max``: which requests have bodies that a route reads; they count in ``stats``.
    """

    protocol = BoundedChannel  # type: ignore[assignment]  # its proxy would choose by ALPN
    requestFactory = BoundedRequest  # noqa: N815

    def __init__(
        self,
        resource: IResource,
        clock: IReactorTime,
        idle_s: float = IDLE_S,
        *,
        body_size_max: BodySizeMax = reads_no_body,
        stats: ServerStats | None = None,
    ) -> None:
        self.body_size_max = body_size_max
        self.stats = stats or ServerStats()
        self.body_turns = BodyTurns(clock)
        super().__init__(resource, timeout=idle_s, reactor=clock, parsePOSTFormSubmission=False)

    def log(self, request: object) -> None:
        """Do nothing: health probes come every second."""
