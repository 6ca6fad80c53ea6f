"""HTTP/2 requests that are not gRPC, from a client's frames to the routes and back."""

from __future__ import annotations

import gc

import pytest
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from etcdtw.http2.errors import PROTOCOL_ERROR
from etcdtw.http2.events import RESET
from tests.transport.client.port_rig import PEER, PortRig


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


class Slow(Resource):
    """Answers when told to; ``gone`` counts clients that did not wait."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []
        self.gone = 0

    def render_GET(self, request: Request) -> int:
        self.requests.append(request)
        request.notifyFinish().addErrback(self._lost)
        return NOT_DONE_YET

    def _lost(self, failure: Failure) -> None:
        self.gone += 1


def test_an_http_2_route_may_answer_later_and_hears_of_lost_clients(rig: PortRig) -> None:
    slow = Slow()
    assert rig.port.site is not None
    rig.port.site.resource.putChild(b"slow", slow)
    peer = rig.connect()
    peer.begin()
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/slow"))
    for _ in range(3):
        peer.http2.send_headers(peer.http2.open_stream(), (*fields, (b"host", b"b")), True)
    peer.send()
    rig.clock.pump([0.0, 0.0])  # one page in each iteration
    first, second, third = slow.requests
    assert first.getRequestHostname() == b"b"
    assert not first.isSecure()
    assert first.getClientAddress() == PEER
    first.write(b"a")
    first.channel.writeSequence([b"b", b"c"])
    first.finish()
    rig.clock.advance(0)
    events = peer.http2.receive(peer.transport.read(), 0)
    assert [event[2] for event in events[1:]] == [b"abc"]
    second.channel.loseConnection()
    second.channel.loseConnection()
    rig.clock.advance(0)
    events = peer.http2.receive(peer.transport.read(), 0)
    assert dict(events[0][2].fields)[b":status"] == b"413"
    with pytest.raises(AssertionError):
        third.channel.registerProducer(None, False)
    third.channel.unregisterProducer()
    peer.lose()
    assert slow.gone == 1


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
    for _ in range(110):
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
