"""A channel on a real socket pair: what the kernel takes, what waits, what breaks."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from twisted.internet.interfaces import ISystemHandle, ITCPTransport
from twisted.internet.testing import StringTransport
from zope.interface import directlyProvides, implementer

from etcdtw.transport.sockets import KEEP_ALIVE_S, plain_socket, tune_socket
from tests.transport.client.port_rig import PEER, Peer, PortRig, SocketLike

SMALL_BUFFER = 4_096


@implementer(ISystemHandle)
class OnSocket(SocketLike):
    """A transport with a socket of its own; what is written to it waits for `drained`."""

    def __init__(self, handle: socket.socket) -> None:
        super().__init__()
        self._handle = handle

    def getHandle(self) -> socket.socket:
        return self._handle

    def registerProducer(self, producer: object, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        self.is_push = streaming

    def drained(self) -> None:
        """The kernel took what was left."""
        data: bytes = self.value()
        self.clear()
        self._handle.setblocking(True)
        self._handle.sendall(data)
        self._handle.setblocking(False)
        self.producer.resumeProducing()  # type: ignore[union-attr]


class PairRig:
    """A connection over a socket pair with small buffers."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        self.rig = PortRig()
        protocol = self.rig.port.buildProtocol(PEER)
        assert protocol is not None
        self.transport = OnSocket(self.near)
        self.peer = Peer(self.rig, protocol, self.transport)
        self.peer.http2.begin()
        self.turn()

    def turn(self) -> None:
        for _ in range(3):
            self.peer.send()
            self.rig.clock.advance(0)
            self.peer.grpc.receive(self.read(), 0)

    def read(self) -> bytes:
        """The client reads what is there."""
        found = b""
        try:
            while data := self.far.recv(1 << 20):
                found += data
        except BlockingIOError:
            pass
        return found

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def pair() -> Iterator[PairRig]:
    rig = PairRig()
    yield rig
    rig.close()


def test_small_answers_go_straight_to_the_socket(pair: PairRig) -> None:
    assert not pair.transport.is_push
    pair.peer.call("Unary", b"x")
    pair.turn()
    assert pair.peer.results == [(b"x", 0, "")]
    assert pair.transport.writes == 0


def test_what_the_kernel_does_not_take_waits_in_order(pair: PairRig) -> None:
    pair.peer.call("Unary", b"x" * 60_000)
    pair.peer.send()
    pair.rig.clock.advance(0)
    assert pair.transport.writes == 1
    pair.peer.call("Unary", b"y")
    pair.peer.send()
    pair.rig.clock.advance(0)
    assert pair.transport.writes == 1
    pair.peer.grpc.receive(pair.read(), 0)
    assert pair.peer.results == []
    pair.far.setblocking(False)
    pair.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    pair.transport.drained()
    pair.turn()
    assert pair.peer.results == [(b"x" * 60_000, 0, ""), (b"y", 0, "")]
    pair.peer.call("Unary", b"z")
    pair.turn()
    assert pair.peer.results[-1] == (b"z", 0, "")
    assert pair.transport.writes == 1


def test_streams_wait_while_the_kernel_is_full(pair: PairRig) -> None:
    pair.peer.grpc.open("/test.Echo/Open", lambda message: None, lambda code, text: None)
    pair.turn()
    call = pair.rig.held[0]
    drained: list[bool] = []
    call.on_drain = lambda: drained.append(True)
    call.send(b"x" * 60_000)
    pair.rig.clock.advance(0)
    assert call.queued > 0
    call.send(b"y")
    pair.rig.clock.advance(0)
    pair.peer.grpc.receive(pair.read(), 0)
    pair.near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    pair.transport.drained()
    assert call.queued == 0
    assert drained == [True]


def test_a_broken_socket_is_left_to_the_transport(pair: PairRig) -> None:
    pair.far.close()
    pair.peer.call("Unary", b"x")
    pair.peer.send()
    pair.rig.clock.advance(0)
    assert pair.transport.writes == 1
    pair.peer.lose()
    pair.rig.clock.advance(0)


def test_a_closing_channel_writes_what_it_held(pair: PairRig) -> None:
    pair.peer.call("Unary", b"x" * 60_000)
    pair.peer.send()
    pair.rig.clock.advance(0)
    pair.peer.call("Unary", b"y")
    pair.peer.send()
    pair.rig.clock.advance(0)
    channel = pair.peer.protocol.channel
    assert channel is not None
    channel.close()
    channel.close()
    channel.flush_output()
    channel.drain()
    assert pair.transport.disconnecting
    assert pair.transport.writes == 2
    pair.peer.lose()
    assert pair.rig.clock.getDelayedCalls() == []


def test_accepted_tcp_sockets_are_tuned() -> None:
    with socket.socket() as handle:

        class Tcp(StringTransport):
            no_delay = keep_alive = False

            def getHandle(self) -> socket.socket:
                return handle

            def setTcpNoDelay(self, enabled: bool) -> None:
                self.no_delay = enabled

            def setTcpKeepAlive(self, enabled: bool) -> None:
                self.keep_alive = enabled

        tcp = Tcp()
        directlyProvides(tcp, ISystemHandle, ITCPTransport)
        tune_socket(tcp)
        assert tcp.no_delay
        assert tcp.keep_alive
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEP_ALIVE_S
        assert handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == KEEP_ALIVE_S


def test_a_tcp_transport_in_memory_is_tuned_as_far_as_it_goes() -> None:
    class Tcp(StringTransport):
        def setTcpNoDelay(self, enabled: bool) -> None:
            self.no_delay = enabled

        def setTcpKeepAlive(self, enabled: bool) -> None:
            self.keep_alive = enabled

    tcp = Tcp()
    directlyProvides(tcp, ITCPTransport)
    tune_socket(tcp)
    assert tcp.no_delay


def test_a_transport_without_a_socket_has_none() -> None:
    assert plain_socket(StringTransport()) is None
    tune_socket(None)
