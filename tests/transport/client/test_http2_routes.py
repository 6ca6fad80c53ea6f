"""HTTP/2 requests that are not gRPC, from a client's frames to the routes and back."""

from __future__ import annotations

import gc

import pytest

from etcdtw.http2.errors import PROTOCOL_ERROR
from etcdtw.http2.events import RESET
from tests.transport.client.port_rig import PortRig
from tests.transport.echo_server import Health


@pytest.fixture
def rig() -> PortRig:
    return PortRig()


def test_http_2_without_grpc_reaches_the_same_routes(rig: PortRig) -> None:
    peer = rig.connect()
    peer.begin()
    stream_id = peer.http2.open_stream()
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/health"))
    peer.http2.send_headers(stream_id, (*fields, (b":authority", b"a")), True)
    peer.send()
    rig.clock.advance(0)
    events = peer.http2.receive(peer.transport.read(), 0)
    head = dict(events[0][2].fields)
    assert head[b":status"] == b"200"
    assert head[b"content-type"] == b"application/json"
    assert b"server" not in head
    assert events[1][2] == b'{"health":"true","reason":""}'


@pytest.mark.parametrize("name", [b"a(b", b"a/b", b'a"b', b"a,b", b"a[b", b"a@b"])
def test_an_http_2_request_with_a_name_that_is_no_token_costs_its_stream(
    rig: PortRig, name: bytes
) -> None:
    peer = rig.connect()
    peer.begin()
    stream_id = peer.http2.open_stream()
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/health"))
    peer.http2.send_headers(stream_id, (*fields, (name, b"1")), True)
    peer.send()
    rig.clock.advance(0)
    events = peer.http2.receive(peer.transport.read(), 0)
    assert events == [(RESET, stream_id, PROTOCOL_ERROR)]
    peer.call("Unary", b"x")
    peer.exchange()
    assert peer.results == [(b"x", 0, "")]


def test_an_http_2_body_reaches_the_routes(rig: PortRig) -> None:
    peer = rig.connect()
    peer.begin()
    stream_id = peer.http2.open_stream()
    fields = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/health"))
    peer.http2.send_headers(stream_id, fields)
    peer.http2.send_data(stream_id, b"some ")
    peer.http2.send_data(stream_id, b"body", True)
    peer.send()
    rig.clock.advance(0)
    events = peer.http2.receive(peer.transport.read(), 0)
    assert b"".join(event[2] for event in events[1:]) == b"some body"


def test_an_http_2_route_may_answer_later_and_hears_of_lost_clients(rig: PortRig) -> None:
    assert rig.port.site is not None
    health = rig.port.site.routes
    assert isinstance(health, Health)
    peer = rig.connect()
    peer.begin()
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/slow?a=b"))
    for _ in range(3):
        peer.http2.send_headers(peer.http2.open_stream(), (*fields, (b"host", b"b")), True)
    peer.send()
    rig.clock.pump([0.0, 0.0])  # one page in each iteration
    first, second, third = health.held
    assert (first.host, first.path, first.query) == (b"b", b"/slow", b"a=b")
    assert (first.header(b"Host"), first.header(b"x")) == (b"b", None)
    assert not first.is_secure
    first.begin(200, ((b"X-A", b"1"),))
    first.send(b"a")
    first.send(b"bc")
    first.finish()
    rig.clock.advance(0)
    events = peer.http2.receive(peer.transport.read(), 0)
    assert dict(events[0][2].fields)[b"x-a"] == b"1"
    assert b"".join(event[2] for event in events[1:]) == b"abc"
    second.respond(413, (), b"")
    second.respond(200, (), b"once is enough")
    rig.clock.advance(0)
    events = peer.http2.receive(peer.transport.read(), 0)
    assert dict(events[0][2].fields)[b":status"] == b"413"
    gone: list[bool] = []
    third.on_end = lambda: gone.append(True)
    peer.lose()
    assert gone == [True]


def test_who_reads_no_pages_is_given_no_more_of_them_and_goes_on_when_it_reads(
    rig: PortRig,
) -> None:
    """Pages that nobody reads would fill our memory, and their client would be dropped."""
    peer = rig.connect(room=1)
    peer.begin()
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/health"))
    for _ in range(100):
        peer.http2.send_headers(peer.http2.open_stream(), (*fields, (b":authority", b"a")), True)
    peer.send()
    rig.clock.pump([0.0] * 100)
    channel = peer.protocol.channel
    assert channel is not None
    assert channel.server.pages <= 3
    # One read more may come; then the socket is left alone.
    peer.call("Unary", b"x")
    peer.send()
    assert peer.transport.producerState == "paused"
    assert peer.results == []
    answered = 0
    for _ in range(210):  # heads and bodies come apart where so little is taken
        octets = peer.transport.read()
        answered += octets.count(b'{"health":"true"')
        peer.grpc.receive(octets, 0)
        rig.clock.advance(0)
    assert answered == 100
    assert peer.results == [(b"x", 0, "")]
    assert peer.transport.producerState == "producing"
    assert not peer.is_dropped


def test_who_goes_with_pages_unread_leaves_nothing_behind(rig: PortRig) -> None:
    peer = rig.connect(room=1)
    peer.begin()
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/health"))
    for _ in range(100):
        peer.http2.send_headers(peer.http2.open_stream(), (*fields, (b":authority", b"a")), True)
    peer.send()
    rig.clock.pump([0.0] * 10)
    assert rig.stats.unread_octets
    peer.lose()
    rig.clock.pump([0.0] * 10)
    assert rig.stats.unread_octets == 0
    assert rig.port.rounds.waiting == 0


def test_pages_leave_nothing_to_the_garbage_collector(rig: PortRig) -> None:
    peer, other = rig.connect(), rig.connect()
    peer.begin()
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/health"))

    def ask() -> None:
        peer.http2.send_headers(peer.http2.open_stream(), (*fields, (b":authority", b"a")), True)
        peer.exchange()
        other.protocol.dataReceived(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        other.transport.read()

    ask()
    earlier: list[object] = []
    earlier.append(earlier)
    gc.collect()
    gc.disable()
    gc.freeze()  # a cycle of an earlier test may be let go by whatever holds it only now
    try:
        del earlier
        for _ in range(10):
            ask()
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        gc.enable()


def test_a_client_that_goes_amid_its_body_leaves_nothing_to_the_garbage_collector(
    rig: PortRig,
) -> None:
    def begin_and_go() -> None:
        peer = rig.connect()
        peer.protocol.dataReceived(b"POST /health HTTP/1.1\r\nHost: a\r\n")
        peer.protocol.dataReceived(b"Content-Length: 9\r\n\r\n{")
        peer.lose()

    begin_and_go()
    gc.collect()
    gc.disable()
    gc.freeze()
    try:
        for _ in range(3):
            begin_and_go()
        assert gc.collect() == 0
    finally:
        gc.unfreeze()
        gc.enable()
