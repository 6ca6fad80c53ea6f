"""The asking side of HTTP/1.1 between members: one connection, one request after the other.

Redirects are not followed, cookies not kept, responses not cached.  Whoever asks is a
`ResponseSink` and holds the deadlines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast
from typing import Protocol as Seam

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IReactorCore, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from etcdtw.cluster.urls import parse_url
from etcdtw.rafthttp.http import Head, HttpError, HttpReader, encode_request
from etcdtw.transport.dialled import TlsWrap, endpoint_of
from etcdtw.transport.peer.outlet import Wire
from etcdtw.transport.sockets import plain_socket, tune_socket

Dial = Callable[[str], IStreamClientEndpoint]
"""Returns the endpoint of a peer URL, TLS included.  Raises `ValueError` for what is no URL."""
HUNG_UP: Final = (
    "it hung up without an answer: it is only starting, or speaks TLS (then its URL is https://)"
)


def build_dial(
    reactor: IReactorCore,
    wrap_tls: TlsWrap | None,
    timeout_s: float,
    own_address: str | None = None,
) -> Dial:
    """Return the way to real sockets; without ``wrap_tls`` no ``https`` URL can be dialled.

    ``own_address``: the IP address to dial from; None: the kernel's choice.
    """

    def dial(text: str) -> IStreamClientEndpoint:
        url = parse_url(text)
        endpoint = endpoint_of(reactor, url, timeout_s, own_address)
        if not url.is_tls:
            return endpoint
        if wrap_tls is None:
            raise ValueError(f"{text} needs TLS: give --peer-cert-file or --peer-trusted-ca-file")
        return wrap_tls(endpoint, url.host)

    return dial


class UrlRing:
    """The URLs of one peer, shared by all that dial it; after a failure the next one is tried."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        assert urls, "a peer without a URL"
        self.urls = urls
        self._position = 0

    @property
    def current(self) -> str:
        return self.urls[self._position]

    def replace(self, urls: tuple[str, ...]) -> None:
        """Dial these from now on; connections that are open stay."""
        assert urls, "a peer without a URL"
        if urls != self.urls:
            self.urls = urls
            self._position = 0

    def rotate(self, failed: str) -> None:
        """Go on to the next URL, unless somebody has done so already."""
        if failed == self.current:
            self._position = (self._position + 1) % len(self.urls)


class ResponseSink(Seam):
    """Who asked.  After `connection_broken` nothing more is called."""

    def response_began(self, head: Head) -> None: ...
    def body_received(self, data: bytes) -> None: ...
    def response_ended(self, keeps_alive: bool) -> None: ...
    def connection_broken(self, why: str) -> None: ...


class PeerHttpClient(Protocol):
    """One connection to a peer."""

    def __init__(self, host: str, sink: ResponseSink) -> None:
        self._host = host
        self._sink: ResponseSink | None = sink
        self._reader = HttpReader(is_server=False)
        self._keeps_alive = True
        self._has_heard = False
        self._is_plain = False

    @property
    def wire(self) -> Wire:
        return cast(Wire, self.transport)

    def connectionMade(self) -> None:
        tune_socket(self.transport)
        self._is_plain = plain_socket(self.transport) is not None

    def request(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes | None = b""
    ) -> None:
        """Send a request; ``body`` None: it follows in chunks that the caller writes."""
        if body is None:
            headers = [*headers, ("Transfer-Encoding", "chunked")]
        elif body or method == "POST":
            headers = [*headers, ("Content-Length", str(len(body)))]
        self.wire.write(encode_request(method, target, self._host, headers) + (body or b""))

    def abort(self) -> None:
        """Drop the connection; nothing is told to the sink any more."""
        self._sink = None
        if self.transport is not None:
            self.wire.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        self._has_heard = True
        self._reader.feed(data)
        try:
            while self._sink is not None:
                event = self._reader.next_event()
                if event is None:
                    return
                self._tell(self._sink, event)
        except HttpError as error:
            self._break(f"the peer speaks no HTTP: {error}")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._sink is not None and self._reader.ended():
            self._keeps_alive = False
            self._sink.response_ended(False)
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.connection_broken(self._why_broken(reason))

    def _why_broken(self, reason: Failure) -> str:
        if self._is_plain and not self._has_heard and reason.check(ConnectionDone):
            return HUNG_UP
        return reason.getErrorMessage()

    def _tell(self, sink: ResponseSink, event: Head | bytes) -> None:
        if isinstance(event, Head):
            self._keeps_alive = event.keeps_alive
            sink.response_began(event)
        elif event:
            sink.body_received(event)
        else:
            sink.response_ended(self._keeps_alive)

    def _break(self, why: str) -> None:
        sink = self._sink
        self.abort()
        if sink is not None:
            sink.connection_broken(why)


class _OneConnection(Factory):
    """Builds the one protocol that it was made for."""

    noisy = False

    def __init__(self, protocol: PeerHttpClient) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: IAddress | None) -> PeerHttpClient:
        return self._protocol


def dial_peer(dial: Dial, url: str, sink: ResponseSink) -> Deferred[PeerHttpClient]:
    """Connect to ``url``.  May be cancelled; a failure says why, a bad URL included."""
    host = url.partition("://")[2]
    factory = _OneConnection(PeerHttpClient(host, sink))
    return maybeDeferred(lambda: cast(Deferred[PeerHttpClient], dial(url).connect(factory)))
