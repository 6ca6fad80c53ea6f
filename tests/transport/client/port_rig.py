"""A client port in memory: fake clock, string transports, clients that are http2 cores."""

from __future__ import annotations

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from etcdtw.grpc.call import Call, MethodTable
from etcdtw.grpc.client import CallClient
from etcdtw.grpc.stats import ServerStats
from etcdtw.http2.connection import Connection
from etcdtw.http2.limits import Limits
from etcdtw.transport.client.grpc_channel import KeepAlive
from etcdtw.transport.client.inflation import inflate_in_turns
from etcdtw.transport.client.places import ClientPlaces
from etcdtw.transport.client.port import ClientConnection, ClientPort, PortBounds, UnreadTotal
from etcdtw.transport.flusher import Flusher
from etcdtw.transport.rounds import Rounds
from etcdtw.wire.pieces import UNMEASURED
from tests.transport.echo_server import Echo, build_site

PEER = IPv4Address("TCP", "127.0.0.1", 4000)


class SocketLike(StringTransport):
    """A transport that counts writes and calls its producer back as a socket would.

    Beyond ``room`` octets written since the last `read` it pauses its producer.
    """

    def __init__(self, room: int = 1 << 30) -> None:
        super().__init__(peerAddress=PEER)
        self.writes = 0
        self.room = room

    def write(self, data: bytes) -> None:
        super().write(data)
        self.writes += 1
        if self.producer is not None and self.io is not None and len(self.value()) > self.room:
            self.producer.pauseProducing()

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def read(self) -> bytes:
        """The client reads all there is."""
        data: bytes = self.value()
        self.clear()
        if self.producer is not None:
            self.producer.resumeProducing()
        return data


class PortRig:
    """A `ClientPort` serving `Echo`; ``held`` are the calls of /test.Echo/Hold."""

    def __init__(
        self,
        *,
        bounds: PortBounds | None = None,
        unread: UnreadTotal | None = None,
        places: ClientPlaces | None = None,
        stats: ServerStats | None = None,
        is_tls: bool = False,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_000.0)
        self.flusher = Flusher(self.clock)
        self.stats = stats or ServerStats()
        inflate_in_turns(self.clock, self.stats.inflations, UNMEASURED)
        self.held: list[Call] = []
        self.methods: MethodTable = Echo(self.clock).methods()
        self.methods.add_unary("/test.Echo/Hold", lambda call, message: self.held.append(call))
        self.methods.add_bidi_stream("/test.Echo/Open", self.held.append)
        self.methods.add_unary("/test.Echo/Crash", self._crash)
        self.port = ClientPort(
            self.clock,
            self.methods,
            self.stats,
            self.flusher,
            site=build_site(self.clock, self.stats),
            bounds=bounds,
            keepalive=KeepAlive(60_000, 20_000),
            unread=unread,
            places=places,
            rounds=Rounds(self.clock, seconds=lambda: 0.0),
            is_tls=is_tls,
        )

    def connect(self, room: int = 1 << 30, window: int = Limits().stream_window) -> Peer:
        protocol = self.port.buildProtocol(PEER)
        assert protocol is not None
        return Peer(self, protocol, SocketLike(room), window)

    def _crash(self, call: Call, message: bytes) -> bytes:
        raise ZeroDivisionError("a defect")


class Peer:
    """One connection as seen from its client."""

    def __init__(
        self,
        rig: PortRig,
        protocol: ClientConnection,
        transport: SocketLike,
        window: int = Limits().stream_window,
    ) -> None:
        self.rig = rig
        self.protocol = protocol
        self.transport = transport
        protocol.makeConnection(transport)
        limits = Limits(
            stream_window=window, connection_window=max(window, Limits().connection_window)
        )
        self.http2 = Connection(client=True, limits=limits)
        self.grpc = CallClient(self.http2, on_output=lambda: None)
        self.results: list[tuple[bytes | None, int, str]] = []

    @property
    def is_dropped(self) -> bool:
        return self.transport.disconnected

    def begin(self) -> None:
        """Send the preface and settle."""
        self.http2.begin()
        self.exchange()

    def send(self) -> None:
        """Carry what the client has to the server, if anything."""
        if self.http2.has_output:
            self.protocol.dataReceived(self.http2.take_output())

    def exchange(self) -> None:
        """Carry octets both ways; the server writes at the next turn of the clock."""
        for _ in range(6):
            self.send()
            self.rig.clock.advance(0)
            self.grpc.receive(self.transport.read(), 0)

    def call(self, name: str, message: bytes = b"", timeout_ms: int | None = None) -> None:
        self.grpc.unary(
            f"/test.Echo/{name}",
            message,
            lambda *result: self.results.append(result),
            timeout_ms=timeout_ms,
        )

    def lose(self) -> None:
        """The client hangs up."""
        self.transport.producer = None
        self.protocol.connectionLost(Failure(ConnectionDone()))
