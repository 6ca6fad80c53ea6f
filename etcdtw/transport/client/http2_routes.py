"""Lets HTTP/2 requests that are not gRPC reach the same routes as HTTP/1.x.

twisted.web writes its answer into a channel in memory; when it is whole it goes back over
the stream.  An answer with a producer goes out as it is written; the producer is paused while
its client does not read.
"""

from __future__ import annotations

from io import BytesIO
from typing import Final

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IPushProducer, ITCPTransport
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.http_headers import Headers

from etcdtw.grpc.plain import PlainRequest
from etcdtw.transport.client.http1 import BoundedRequest, HttpSite

# RFC 9113 section 8.2.2: these have no meaning here and must not be sent.
PIECES_QUEUED_MAX: Final = 65_536
"""Octets of an answer that wait for its client; with more its producer is paused."""
_CONNECTION_FIELDS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)


class StreamChannel:
    """What a twisted.web request takes for its connection: collects the answer."""

    def __init__(
        self,
        site: HttpSite,
        transport: ITCPTransport,
        plain: PlainRequest,
        addresses: tuple[IAddress, IAddress] | None = None,
    ) -> None:
        """``addresses``: of the peer and our own, if they are known; asking costs."""
        self._addresses = addresses
        self.site = site
        self.factory = site
        self.transport = transport  # requests look for it
        self._plain = plain
        self._status = 500
        self._fields: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._is_done = False
        self._producer: IPushProducer | None = None

    def render(self) -> None:
        """Let the site answer the request."""
        plain = self._plain
        request = self.site.requestFactory(self, queued=False)
        method = plain.intake.value(b":method") or b"GET"
        path = plain.intake.value(b":path") or b"/"
        host = plain.intake.value(b":authority")
        for name, value in plain.fields:
            if not name.startswith(b":"):
                request.requestHeaders.addRawHeader(name, value)
        if host is not None and not request.requestHeaders.hasHeader(b"host"):
            request.requestHeaders.addRawHeader(b"host", host)
        request.content = BytesIO(plain.body)  # bounded and counted as it came
        request.parseCookies()
        plain.on_end = lambda: self._gone(request)
        request.requestReceived(method, path, b"HTTP/2")

    def admit(self, request: BoundedRequest) -> None:
        """Answer at once: the connection's octets took turns before."""
        request.answer()

    def let_go(self) -> None:
        self._plain.let_go()

    def writeHeaders(  # noqa: N802
        self, version: bytes, code: bytes, reason: bytes, headers: Headers
    ) -> None:
        self._status = int(code)
        self._fields = [
            (name.lower(), value)
            for name, values in headers.getAllRawHeaders()
            for value in values
            if name.lower() not in _CONNECTION_FIELDS
        ]

        if self._producer is not None:
            self._plain.begin(self._status, tuple(self._fields))

    def write(self, data: bytes) -> None:
        if self._is_done:
            return
        if self._producer is None:
            self._body.append(data)
            return
        self._plain.send(data)
        if self._plain.queued > PIECES_QUEUED_MAX:
            self._producer.pauseProducing()

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def requestDone(self, request: Request) -> None:  # noqa: N802
        self._is_done = True
        if self._end_streaming():
            self._plain.finish()
        else:
            self._plain.respond(self._status, tuple(self._fields), b"".join(self._body))

    def loseConnection(self) -> None:
        """The request gave up: answer with what there is."""
        if not self._is_done:
            self._is_done = True
            if self._end_streaming():
                self._plain.break_off()
            else:
                self._plain.respond(413, (), b"")

    def isSecure(self) -> bool:  # noqa: N802
        return hasattr(self.transport, "getPeerCertificate")

    def getPeer(self) -> IAddress:
        return self._addresses[0] if self._addresses else self.transport.getPeer()

    def getHost(self) -> IAddress:
        return self._addresses[1] if self._addresses else self.transport.getHost()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """Before anything is written: the answer goes out piece by piece."""
        assert streaming, "a producer that pushes"
        self._producer = producer
        self._plain.on_drain = producer.resumeProducing

    def unregisterProducer(self) -> None:
        """The answer's last piece was written."""
        self._plain.on_drain = None

    def _end_streaming(self) -> bool:
        """Forget the producer, which knows this channel; return whether there was one."""
        producer, self._producer = self._producer, None
        return producer is not None

    def _gone(self, request: Request) -> None:
        self._is_done = True
        self._end_streaming()
        request.connectionLost(Failure(ConnectionDone()))
