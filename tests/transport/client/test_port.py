"""The client port with fake sockets and a fake clock: first octets, limits, draining."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.interfaces import IHandshakeListener, IPushProducer
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer
from zope.interface.verify import verifyObject

from etcdtw.grpc.plain import reads_no_body
from etcdtw.http2 import frames
from etcdtw.http2.sniffing import (
    HTTP1,
    HTTP2,
    LINE_SIZE_MAX,
    PREFACE,
    SPEAKS_TLS,
    TLS,
    UNDECIDED,
    UNKNOWN,
    sniff,
)
from etcdtw.transport.client.grpc_channel import CLOSE_LINGER_S
from etcdtw.transport.client.http1 import (
    BODY_SIZE_MAX,
    BODY_TURN_SIZE,
    IDLE_S,
    REQUEST_HEADER_S,
)
from etcdtw.transport.client.places import ClientPlaces
from etcdtw.transport.client.port import SWEEP_S, PortBounds
from etcdtw.transport.flusher import Flusher
from tests.grpc.grpc_rig import request_fields
from tests.transport.client.port_rig import PEER, PortRig
from tests.transport.tls.tls_rig import log_lines

GET = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture
def rig() -> PortRig:
    return PortRig()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", UNDECIDED),
        (b"P", UNDECIDED),
        (b"PRI", UNDECIDED),
        (b"PRI ", HTTP2),
        (PREFACE, HTTP2),
        (b"PO", UNDECIDED),
        (b"POST ", HTTP1),
        (b"PRIMATES ", UNDECIDED),
        (b"PRIMATES / HTTP/1.1\r\n", HTTP1),
        (b"PRIMATES / HTTP/2.0\r\n", UNKNOWN),
        (b"PRIMATES /\n", UNKNOWN),
        (b"INVALID CONNECTION PREFACE\r\n\r\n", UNKNOWN),
        (b" / HTTP/1.1\r\n", UNKNOWN),
        (b"PRIMATES /" + b"x" * (LINE_SIZE_MAX - 11), UNDECIDED),
        (b"PRIMATES /" + b"x" * (LINE_SIZE_MAX - 10), UNKNOWN),
        (b"GET", UNDECIDED),
        (GET, HTTP1),
        (b"\r\nGET / HTTP/1.1", HTTP1),
        (b"\r", UNDECIDED),
        (b"\r\n", UNDECIDED),
        (b"\r\n\r\n", UNKNOWN),
        (b" ", UNKNOWN),
        (b"\x16\x03\x01", TLS),
        (b"\0\0\0\0", UNKNOWN),
        (b"SSH-2.0-OpenSSH", UNKNOWN),
        (b"A" * 16, UNDECIDED),
        (b"A" * 17, UNKNOWN),
        (b"\xff\xfe", UNKNOWN),
    ],
)
def test_the_first_octets_decide(data: bytes, kind: int) -> None:
    assert sniff(data) == kind


@given(st.binary(min_size=20, max_size=40).map(lambda data: data.replace(b" ", b"")))
def test_twenty_octets_without_a_space_always_decide(data: bytes) -> None:
    assert len(data) <= 17 or sniff(data) != UNDECIDED


def test_a_call_is_answered_with_one_write_at_the_end_of_the_turn(rig: PortRig) -> None:
    peer = rig.connect()
    peer.begin()
    writes = peer.transport.writes
    for i in range(10):
        peer.call("Unary", b"%d" % i)
    peer.send()
    assert peer.transport.value() == b""
    rig.clock.advance(0)
    assert peer.transport.writes == writes + 1
    peer.exchange()
    assert peer.results == [(b"%d" % i, 0, "") for i in range(10)]


def test_any_chunking_of_the_first_octets_is_understood(rig: PortRig) -> None:
    peer = rig.connect()
    peer.http2.begin()
    for octet in peer.http2.take_output():
        peer.protocol.dataReceived(bytes([octet]))
    peer.exchange()
    peer.call("Unary", b"x")
    peer.exchange()
    assert peer.results == [(b"x", 0, "")]
    peer = rig.connect()
    for octet in GET:
        peer.protocol.dataReceived(bytes([octet]))
    assert peer.transport.value().startswith(b"HTTP/1.1 200 ")


def test_http_1_1_reaches_the_routes_and_keeps_the_connection(rig: PortRig) -> None:
    peer = rig.connect()
    peer.protocol.dataReceived(GET + GET)
    assert peer.transport.value().count(b'{"health":"true","reason":""}') == 2
    assert b"Server:" not in peer.transport.value()
    assert not peer.transport.disconnecting
    peer.protocol.dataReceived(GET)
    assert peer.transport.value().count(b"HTTP/1.1 200") == 3


def test_http_1_0_is_answered_and_closed(rig: PortRig) -> None:
    peer = rig.connect()
    peer.protocol.dataReceived(b"GET /health HTTP/1.0\r\n\r\n")
    assert b"200 OK" in peer.transport.value()
    assert peer.transport.value().endswith(b'{"health":"true","reason":""}')
    assert peer.transport.disconnecting


@pytest.mark.parametrize("octets", [b"\x16\x03\x01\x02\0\x01\0", b"\0\1\2\3", b"hello world, 17\n"])
def test_tls_and_garbage_on_a_plain_port_are_closed(rig: PortRig, octets: bytes) -> None:
    peer = rig.connect()
    peer.protocol.dataReceived(octets)
    peer.protocol.dataReceived(b"more")
    assert peer.transport.value() == b""
    assert peer.transport.disconnecting
    assert rig.port.stats.garbage == 1
    rig.clock.advance(10.0)
    assert peer.is_dropped


def test_tls_on_a_plain_port_is_logged_with_the_cure(rig: PortRig) -> None:
    with log_lines() as lines:
        rig.connect().protocol.dataReceived(b"\x16\x03\x01\x02\0\x01\0")
    (line,) = lines
    assert line.startswith("rejected connection on client endpoint from ")
    assert line.endswith(SPEAKS_TLS)


def test_a_wrong_preface_is_refused_with_a_goaway(rig: PortRig) -> None:
    peer = rig.connect()
    peer.protocol.dataReceived(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")
    rig.clock.advance(0)
    assert b"not an HTTP/2 preface" in peer.transport.value()
    assert peer.transport.disconnecting
    peer.protocol.dataReceived(b"ignored")
    rig.clock.advance(CLOSE_LINGER_S)
    assert peer.is_dropped


def test_a_silent_client_is_dropped(rig: PortRig) -> None:
    silent, started = rig.connect(), rig.connect()
    started.protocol.dataReceived(b"PR")
    rig.clock.advance(9.9)
    was_dropped = silent.is_dropped
    assert not was_dropped
    rig.clock.advance(0.2)
    assert silent.is_dropped
    assert started.is_dropped
    assert rig.port.stats.silent == 2


def test_first_octets_are_waited_for_once_the_handshake_is_done() -> None:
    rig = PortRig(is_tls=True, bounds=PortBounds(first_octets_s=5.0))
    slow, done = rig.connect(), rig.connect()
    assert verifyObject(IHandshakeListener, done.protocol)
    done.protocol.handshakeCompleted()
    rig.clock.advance(4.9)
    was_dropped = done.is_dropped
    assert not was_dropped
    rig.clock.advance(0.2)
    assert done.is_dropped
    assert not slow.is_dropped  # the gate before the port limits the time of handshakes
    slow.lose()
    assert rig.port.stats.handshakes_failed == 1


def test_a_newcomer_beyond_the_cap_takes_the_place_of_the_one_silent_longest() -> None:
    rig = PortRig(places=ClientPlaces(2))
    first, second = rig.connect(), rig.connect()
    third = rig.connect()
    assert (first.is_dropped, second.is_dropped) == (True, False)
    assert rig.port.places.evicted == 1
    first.lose()
    second.begin()
    third.protocol.dataReceived(GET)
    assert rig.port.buildProtocol(PEER) is None
    assert rig.port.stats.refused == 1
    second.lose()
    assert rig.port.buildProtocol(PEER) is not None
    assert not third.is_dropped


def test_nothing_is_left_when_all_have_gone(rig: PortRig) -> None:
    peers = [rig.connect() for _ in range(3)]
    peers[0].begin()
    peers[1].protocol.dataReceived(GET)
    for peer in peers:
        peer.lose()
    assert rig.port.connection_count == 0
    assert rig.clock.getDelayedCalls() == []


def test_a_lost_connection_leaves_nothing_to_the_garbage_collector(rig: PortRig) -> None:
    peer = rig.connect()
    peer.begin()
    peer.call("Hold")
    peer.exchange()
    channel, protocol = peer.protocol.channel, weakref.ref(peer.protocol)
    gc.disable()
    try:
        peer.lose()
        rig.held.clear()
        del peer.protocol  # the client keeps itself alive
        assert protocol() is None
        # A compiled channel takes no weak references.
        assert sys.getrefcount(channel) == 2, "more than this test's own"
    finally:
        gc.enable()


def test_an_overdue_call_ends_within_two_sweeps(rig: PortRig) -> None:
    peer = rig.connect()
    peer.begin()
    peer.call("Hold", timeout_ms=100)
    peer.exchange()
    rig.clock.advance(0.1)
    rig.clock.advance(SWEEP_S)
    peer.exchange()
    assert peer.results == [(None, 4, "context deadline exceeded")]
    assert not rig.held[0].is_open


def test_a_lost_connection_ends_its_calls(rig: PortRig) -> None:
    peer = rig.connect()
    peer.begin()
    peer.call("Hold")
    peer.exchange()
    ended: list[bool] = []
    rig.held[0].on_end = lambda: ended.append(True)
    peer.lose()
    assert ended == [True]
    rig.held[0].reply(b"too late")
    rig.clock.advance(0)


def test_a_defect_in_a_handler_costs_one_connection(rig: PortRig) -> None:
    peer, other = rig.connect(), rig.connect()
    peer.begin()
    other.begin()
    failures: list[object] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        failures.append(event.get("log_failure"))

    globalLogPublisher.addObserver(observe)
    try:
        peer.call("Crash")
        peer.send()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert peer.is_dropped
    assert "a defect" in str(failures)
    other.call("Unary", b"x")
    other.exchange()
    assert other.results == [(b"x", 0, "")]


def test_a_silent_client_is_pinged_and_dropped_when_it_does_not_answer(rig: PortRig) -> None:
    answering, deaf = rig.connect(), rig.connect()
    answering.begin()
    deaf.begin()
    for _ in range(90 * 20):
        rig.clock.advance(SWEEP_S)
        answering.exchange()
    assert deaf.is_dropped
    assert not answering.is_dropped


def test_a_client_that_does_not_read_stops_being_written_to(rig: PortRig) -> None:
    peer = rig.connect(room=1_000)
    peer.begin()
    peer.call("Unary", b"x" * 2_000)
    peer.send()
    rig.clock.advance(0)
    size = len(peer.transport.value())
    peer.call("Unary", b"y" * 2_000)
    peer.send()
    rig.clock.advance(0)
    assert len(peer.transport.value()) == size
    peer.exchange()
    assert [len(response or b"") for response, _, _ in peer.results] == [2_000, 2_000]


def test_streams_of_a_client_that_does_not_read_are_told_to_wait(rig: PortRig) -> None:
    peer = rig.connect(room=1_000)
    peer.begin()
    got: list[bytes] = []
    peer.grpc.open("/test.Echo/Open", got.append, lambda code, text: None)
    peer.exchange()
    call = rig.held[0]
    drained: list[int] = []
    call.on_drain = lambda: drained.append(len(got))
    call.send(b"x" * 2_000)
    assert call.queued == 0
    rig.clock.advance(0)
    assert call.queued > 0
    call.send(b"y" * 500)
    rig.clock.advance(0)
    assert call.queued > 500
    assert drained == []
    peer.exchange()
    assert [len(message) for message in got] == [2_000, 500]
    assert call.queued == 0
    assert len(drained) == 1


def test_a_port_is_a_push_producer(rig: PortRig) -> None:
    peer = rig.connect()
    peer.begin()
    channel = peer.protocol.channel
    assert channel is not None
    assert verifyObject(IPushProducer, channel)
    channel.stopProducing()


def test_a_flood_of_resets_costs_its_own_connection_only(rig: PortRig) -> None:
    flood, other = rig.connect(), rig.connect()
    flood.begin()
    other.begin()
    for _ in range(1_500):
        if flood.http2.is_closed or flood.transport.disconnecting:
            break
        stream_id = flood.http2.open_stream()
        flood.http2.send_headers(stream_id, request_fields("Chat"))
        flood.http2.reset(stream_id, 8)
        flood.send()
        rig.clock.advance(0)
    assert flood.transport.disconnecting
    other.call("Unary", b"x")
    other.exchange()
    assert other.results == [(b"x", 0, "")]


def test_draining_lets_calls_end_and_refuses_new_connections(rig: PortRig) -> None:
    busy, idle, fresh, web = (rig.connect() for _ in range(4))
    busy.begin()
    idle.begin()
    web.protocol.dataReceived(GET)
    busy.call("Hold", b"")
    busy.exchange()
    finished: list[None] = []
    rig.port.drain(5.0).addCallback(finished.append)
    assert rig.port.buildProtocol(PEER) is None
    assert fresh.transport.disconnecting
    assert web.transport.disconnecting
    busy.exchange()
    idle.exchange()
    assert busy.grpc.is_going_away
    assert idle.transport.disconnecting
    was_closing = busy.transport.disconnecting
    assert not was_closing
    rig.held[0].reply(b"done")
    busy.exchange()
    assert busy.results == [(b"done", 0, "")]
    assert busy.transport.disconnecting
    for peer in (busy, idle, fresh, web):
        peer.lose()
    assert finished == [None]


def test_dropped_calls_end_and_new_ones_are_served(rig: PortRig) -> None:
    busy, undecided = rig.connect(), rig.connect()
    busy.begin()
    busy.call("Hold")
    busy.exchange()
    ended: list[bool] = []
    rig.held[0].on_end = lambda: ended.append(True)
    rig.port.drop_calls()
    assert (busy.is_dropped, undecided.is_dropped) == (True, False)
    busy.lose()
    assert (ended, rig.port.connection_count) == ([True], 1)
    undecided.begin()
    undecided.call("Unary", b"x")
    undecided.exchange()
    assert undecided.results == [(b"x", 0, "")]


def test_draining_ends_by_force_after_its_time(rig: PortRig) -> None:
    busy = rig.connect()
    busy.begin()
    busy.call("Hold")
    busy.exchange()
    finished: list[None] = []
    rig.port.drain(1.0).addCallback(finished.append)
    for _ in range(25):
        rig.clock.advance(0.05)
    assert busy.is_dropped
    busy.lose()
    assert finished == [None]


def test_draining_a_port_without_connections_is_done_at_once(rig: PortRig) -> None:
    finished: list[None] = []
    rig.port.drain(1.0).addCallback(finished.append)
    assert finished == [None]


def test_a_header_that_dribbles_is_dropped(rig: PortRig) -> None:
    peer = rig.connect()
    peer.protocol.dataReceived(b"GET / HTTP/1.1\r\n")
    for _ in range(int(REQUEST_HEADER_S)):
        peer.protocol.dataReceived(b"X-A: 1\r\n")
        rig.clock.advance(1.0)
    assert peer.is_dropped


def test_an_idle_http_1_connection_is_closed(rig: PortRig) -> None:
    peer = rig.connect()
    peer.protocol.dataReceived(GET)
    rig.clock.advance(IDLE_S + 1)
    assert peer.transport.disconnecting


def test_a_header_too_large_is_refused(rig: PortRig) -> None:
    peer = rig.connect()
    peer.protocol.dataReceived(b"GET / HTTP/1.1\r\n" + b"X-A: %s\r\n" % (b"a" * 8_000) * 9)
    assert peer.transport.value().startswith(b"HTTP/1.1 431 ")
    assert peer.transport.disconnecting


@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_http_1_body_too_large_is_refused(rig: PortRig, is_chunked: bool) -> None:
    peer = rig.connect()
    head = b"POST /health HTTP/1.1\r\nHost: a\r\n"
    body = bytes(BODY_SIZE_MAX + 1)
    if is_chunked:
        head += b"Transfer-Encoding: chunked\r\n\r\n"
        body = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    else:
        head += b"Content-Length: %d\r\n\r\n" % len(body)
    peer.protocol.dataReceived(head)
    for start in range(0, len(body), 65_536):
        peer.protocol.dataReceived(body[start : start + 65_536])
    assert peer.transport.value().startswith(b"HTTP/1.1 413 ")
    assert peer.transport.value().count(b"HTTP/1.1") == 1
    assert peer.transport.disconnecting


def test_the_largest_http_1_body_passes_in_memory(rig: PortRig) -> None:
    peer = rig.connect()
    body = b"x" * BODY_SIZE_MAX
    head = b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    peer.protocol.dataReceived(head + body)
    assert peer.transport.value().endswith(body)


def test_a_body_that_no_route_reads_is_counted_and_not_kept(rig: PortRig) -> None:
    assert rig.port.site is not None
    rig.port.site.body_size_max = reads_no_body
    peer = rig.connect()
    head = b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
    peer.protocol.dataReceived(head)
    tracemalloc.start()
    for _ in range(99):
        peer.protocol.dataReceived(bytes(10_000))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000
    peer.protocol.dataReceived(bytes(10_000))
    assert peer.transport.value().startswith(b"HTTP/1.1 200 OK")


def test_a_body_of_many_octets_is_read_on_when_it_has_its_turn(rig: PortRig) -> None:
    peer = rig.connect()
    head = b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
    peer.protocol.dataReceived(head + bytes(BODY_TURN_SIZE))
    assert peer.transport.producerState == "paused"
    rig.clock.advance(0)
    assert peer.transport.producerState == "producing"


def test_a_body_of_few_octets_is_read_on_at_once(rig: PortRig) -> None:
    peer = rig.connect()
    head = b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
    peer.protocol.dataReceived(head + b"x")
    assert peer.transport.producerState == "producing"


def test_a_ping_frame_flood_is_answered_by_a_goaway(rig: PortRig) -> None:
    peer = rig.connect()
    peer.begin()
    peer.protocol.dataReceived(frames.encode_ping(b"01234567") * 40)
    rig.clock.advance(0)
    assert b"too_many_pings" in peer.transport.value()
    assert peer.transport.disconnecting


class Counting:
    """A connection that counts its flushes."""

    def __init__(self) -> None:
        self.flushes = 0

    def flush_output(self) -> None:
        self.flushes += 1


def test_marks_outside_a_turn_schedule_one_flush(rig: PortRig) -> None:
    first, second = Counting(), Counting()
    rig.flusher.mark(first)
    rig.flusher.mark(second)
    assert len(rig.clock.getDelayedCalls()) == 1
    rig.clock.advance(0)
    assert (first.flushes, second.flushes) == (1, 1)
    assert rig.clock.getDelayedCalls() == []


def test_a_turn_holds_flushes_back_until_its_end(rig: PortRig) -> None:
    one = Counting()
    rig.flusher.mark(one)
    rig.flusher.hold()
    rig.flusher.mark(one)
    rig.clock.advance(0)
    assert one.flushes == 0
    rig.flusher.flush()
    assert one.flushes == 2


def test_output_made_by_a_flush_is_flushed_next(rig: PortRig) -> None:
    flusher = Flusher(rig.clock)

    class Chained(Counting):
        def flush_output(self) -> None:
            super().flush_output()
            if self.flushes < 3:
                flusher.mark(self)

    chained = Chained()
    flusher.hold()
    flusher.mark(chained)
    flusher.flush()
    assert chained.flushes == 1
    rig.clock.advance(0)
    rig.clock.advance(0)
    assert chained.flushes == 3


def test_a_call_knows_the_address_that_it_came_from(rig: PortRig) -> None:
    peer = rig.connect()
    peer.begin()
    peer.call("Hold")
    peer.exchange()
    assert rig.held[0].caller.address == "127.0.0.1"
    assert rig.held[0].caller.common_name == ""
