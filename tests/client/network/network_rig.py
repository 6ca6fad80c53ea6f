"""Servers in memory for a client over the network: cores without sockets, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.client.network.bounds import NetworkBounds
from etcdtw.client.network.channel import NetworkChannel
from etcdtw.client.network.connection import ServerConnection
from etcdtw.client.network.target import Target
from etcdtw.grpc.call import Call, MethodTable, StatusError
from etcdtw.grpc.server import CallServer
from etcdtw.grpc.stats import ServerStats
from etcdtw.http2.connection import Connection
from etcdtw.http2.limits import Limits

PREFIX = "/test.Svc/"
UP, DOWN, HANGS, MUTE = "up", "down", "hangs", "mute"


class Wire:
    """A transport whose octets the rig carries."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closing = False
        self.is_aborted = False
        self.producer: Any = None

    def write(self, data: bytes) -> None:
        self.written += data

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def loseConnection(self) -> None:
        self.is_closing = True

    def abortConnection(self) -> None:
        self.is_aborted = True


class Link:
    """One connection: the client's protocol, and the server's cores."""

    def __init__(self, server: FakeServer, protocol: ServerConnection) -> None:
        self.server = server
        self.protocol = protocol
        self.wire = Wire()
        self.is_mute = server.mode == MUTE
        self.is_gone = False
        self.http2 = Connection(limits=server.limits)
        self.http2.begin()
        self.core = CallServer(self.http2, server.methods, ServerStats(), on_output=lambda: None)
        protocol.makeConnection(self.wire)

    def carry(self) -> bool:
        """Carry what there is; return whether there was something."""
        if self.is_gone:
            return False
        found = bool(self.wire.written)
        octets, self.wire.written = self.wire.written, b""
        if not self.is_mute:
            if octets:
                self.core.receive(octets, 0)
            answer = self.core.take_output()
            if answer:
                found = True
                self.protocol.dataReceived(answer)
        if self.wire.is_aborted or (self.wire.is_closing and not self.wire.written):
            self.lose()
        return found

    def lose(self, reason: Exception | None = None) -> None:
        """The connection is gone for both sides."""
        if not self.is_gone:
            self.is_gone = True
            self.core.connection_lost()
            self.protocol.connectionLost(Failure(reason or ConnectionDone()))


@implementer(IStreamClientEndpoint)
class FakeServer:
    """Serves Echo, Wait and Both; ``seen`` are the messages that came."""

    def __init__(self, name: str, streams_max: int = 100) -> None:
        self.name = name
        self.mode = UP
        self.limits = Limits(max_concurrent_streams=streams_max)
        self.links: list[Link] = []
        self.dials = 0
        self.hanging: list[Deferred[IProtocol]] = []
        self.calls: list[Call] = []
        self.ended = 0
        self.seen: list[bytes] = []
        self.methods = MethodTable()
        self.methods.add_unary(PREFIX + "Echo", self._echo)
        self.methods.add_unary(PREFIX + "Wait", self._wait)
        self.methods.add_bidi_stream(PREFIX + "Both", self._both)

    @property
    def link(self) -> Link:
        """The newest connection."""
        return self.links[-1]

    @property
    def open_links(self) -> int:
        return sum(not link.is_gone for link in self.links)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        self.dials += 1
        if self.mode == DOWN:
            return fail(ConnectionRefusedError())
        if self.mode == HANGS:
            waiting: Deferred[IProtocol] = Deferred(lambda _: None)
            self.hanging.append(waiting)
            return waiting
        protocol: Any = protocolFactory.buildProtocol(None)  # type: ignore[arg-type]
        self.links.append(Link(self, protocol))
        return succeed(protocol)

    def _echo(self, call: Call, message: bytes) -> bytes:
        self.seen.append(message)
        if message == b"raise":
            raise StatusError(9, "no")
        return self.name.encode() + b":" + message

    def _wait(self, call: Call, message: bytes) -> None:
        self.seen.append(message)
        self._keep(call)

    def _both(self, call: Call) -> None:
        call.on_message = self.seen.append
        call.on_half_close = lambda: self.seen.append(b"half-closed")
        self._keep(call)

    def _keep(self, call: Call) -> None:
        self.calls.append(call)
        call.on_end = self._end

    def _end(self) -> None:
        self.ended += 1


class NetworkRig:
    """A `NetworkChannel` and its servers."""

    def __init__(
        self,
        count: int = 1,
        *,
        streams_max: int = 100,
        random: Callable[[], float] = lambda: 0.5,
        **bounds: Any,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_000)
        self.servers = [FakeServer(f"s{number}", streams_max) for number in range(count)]
        targets = [Target(server.name, server, b"http", b"localhost") for server in self.servers]
        self.channel = NetworkChannel(
            targets, self.clock, random=random, bounds=NetworkBounds(**bounds)
        )

    def pump(self) -> None:
        """Carry octets until there are none."""
        while any([link.carry() for server in self.servers for link in server.links]):
            pass

    def advance(self, seconds: float, step_s: float = 0.05) -> None:
        """Let time pass, and octets travel meanwhile."""
        for _ in range(round(seconds / step_s)):
            self.clock.advance(step_s)
            self.pump()

    def unary(self, name: str, message: bytes = b"", **more: Any) -> Deferred[bytes]:
        answered = self.channel.unary(PREFIX + name, message, **more)
        self.pump()
        return answered

    def stream(self, name: str = "Both", **more: Any) -> Any:
        return self.channel.stream(PREFIX + name, **more)

    def settle(self) -> None:
        """Connect to all servers that are up."""
        self.unary("Echo", b"settle")
        for server in self.servers:
            server.seen.clear()


def result_of(deferred: Deferred[Any]) -> Any:
    """Return what has come: a value, or an exception."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    assert found, "nothing has come"
    return found[0].value if isinstance(found[0], Failure) else found[0]


def has_come(deferred: Deferred[Any]) -> bool:
    """Whether it has come: a Deferred that waits for another one has been called, too."""
    return bool(deferred.called) and not deferred.paused
