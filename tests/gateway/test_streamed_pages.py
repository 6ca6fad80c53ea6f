"""Pages that take a body and pages that stream: HTTP/1.1 and HTTP/2 on a client port in memory."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from etcdtw.gateway.pages import ITERATION_SIZE, Answer, Pages, Streamed
from etcdtw.grpc.stats import ServerStats
from etcdtw.http2 import events
from etcdtw.http2.connection import Connection
from etcdtw.http2.limits import Limits
from etcdtw.transport.client.http2_routes import PIECES_QUEUED_MAX
from tests.client.loopback_rig import LoopbackRig
from tests.gateway.page_rig import BODY_SIZE_MAX, PART_SIZE, PageSet, build_port
from tests.transport.client.port_rig import PEER, SocketLike


class PageRig:
    """A port with a `PageSet`."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000)
        self.stats = ServerStats()
        self.set = PageSet(self.clock)
        self.port = build_port(self.clock, self.stats, self.set.pages)

    def connect(self, room: int = 1 << 30) -> Http1:
        return Http1(self, room)


class Http1:
    """A connection of HTTP/1.1."""

    def __init__(self, rig: PageRig, room: int = 1 << 30) -> None:
        self.rig = rig
        self.transport = SocketLike(room)
        protocol = rig.port.buildProtocol(PEER)
        assert protocol is not None
        self.protocol = protocol
        protocol.makeConnection(self.transport)

    def ask(self, verb: str, target: str, body: bytes = b"", *fields: str) -> None:
        lines = [f"{verb} {target} HTTP/1.1", "Host: a", *fields]
        if body or verb == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self.protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        self.rig.clock.advance(0)

    @property
    def status(self) -> int:
        return int(self.transport.value().split(b" ", 2)[1])

    @property
    def head(self) -> bytes:
        return bytes(self.transport.value().partition(b"\r\n\r\n")[0])

    @property
    def body(self) -> bytes:
        return bytes(self.transport.value().partition(b"\r\n\r\n")[2])

    def leave(self) -> None:
        if self.transport.producer is not None:
            self.transport.producer.stopProducing()
        self.protocol.connectionLost(Failure(ConnectionDone()))


class Http2:
    """A connection of HTTP/2 whose client lets ``window`` octets come of each stream."""

    def __init__(self, rig: PageRig, window: int = 65_535, room: int = 1 << 30) -> None:
        self.rig = rig
        self.transport = SocketLike(room)
        protocol = rig.port.buildProtocol(PEER)
        assert protocol is not None
        self.protocol = protocol
        protocol.makeConnection(self.transport)
        self.core = Connection(client=True, limits=Limits(stream_window=window))
        self.core.begin()
        self.heads: dict[int, dict[bytes, bytes]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.exchange()

    def ask(
        self, verb: bytes, target: bytes, body: bytes | None = None, *, reads: bool = True
    ) -> int:
        stream_id = self.core.open_stream()
        fields = ((b":method", verb), (b":scheme", b"http"), (b":path", target))
        whole = body is None
        self.core.send_headers(stream_id, (*fields, (b":authority", b"a"), (b"x-a", b"1")), whole)
        if body is not None:
            self.core.send_data(stream_id, body, True)
        if reads:
            self.exchange()
        else:
            self.protocol.dataReceived(self.core.take_output())
            self.rig.clock.advance(0)
        return stream_id

    def exchange(self, rounds: int = 8) -> None:
        for _ in range(rounds):
            if self.core.has_output:
                self.protocol.dataReceived(self.core.take_output())
            self.rig.clock.advance(0)
            for event in self.core.receive(self.transport.read(), 0):
                self._note(event)

    def _note(self, event: events.Event) -> None:
        if event[0] == events.HEADERS:
            self.heads[event[1]] = dict(event[2].fields)
        elif event[0] == events.DATA:
            self.bodies[event[1]] = self.bodies.get(event[1], b"") + event[2]
        elif event[0] == events.RESET:
            self.resets[event[1]] = event[2]
        if event[0] in (events.HEADERS, events.DATA) and event[3]:
            self.ended.add(event[1])

    def status(self, stream_id: int) -> int:
        return int(self.heads[stream_id][b":status"])

    def leave(self) -> None:
        self.transport.producer = None
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.rig.clock.advance(0)


@pytest.fixture
def rig() -> PageRig:
    return PageRig()


# Bodies.


def test_a_body_reaches_its_page_over_http_1_1(rig: PageRig) -> None:
    client = rig.connect()
    client.ask("POST", "/echo?a=b", b"some body", "X-A: 1")
    assert (client.status, client.body) == (200, b"some body")
    posted = rig.set.posted[0]
    assert posted.arguments == {b"a": [b"b"]}
    assert posted.header(b"x-a") == b"1"
    assert posted.header(b"x-b") is None
    assert rig.stats.unfinished_octets == 0


def test_a_body_reaches_its_page_over_http_2(rig: PageRig) -> None:
    client = Http2(rig)
    stream_id = client.ask(b"POST", b"/echo?a=b", b"some body")
    assert (client.status(stream_id), client.bodies[stream_id]) == (200, b"some body")
    posted = rig.set.posted[0]
    assert posted.arguments == {b"a": [b"b"]}
    assert posted.header(b"X-A") == b"1"
    assert rig.stats.unfinished_octets == 0


@pytest.mark.parametrize(
    ("verb", "target", "allow"),
    [
        ("GET", "/echo", "POST"),
        ("PUT", "/echo", "POST"),
        ("PUT", "/both", "GET, POST"),
        ("POST", "/stream", "GET"),
    ],
)
def test_other_verbs_are_not_allowed(rig: PageRig, verb: str, target: str, allow: str) -> None:
    client = rig.connect()
    client.ask(verb, target)
    assert (client.status, client.body) == (405, b"Method Not Allowed\n")
    assert f"Allow: {allow}\r\n".encode() in client.head + b"\r\n"
    http2 = Http2(rig)
    stream_id = http2.ask(verb.encode(), target.encode())
    assert http2.status(stream_id) == 405
    assert http2.heads[stream_id][b"allow"] == allow.encode()
    assert rig.set.posted == []


def test_a_path_may_be_asked_by_both_verbs(rig: PageRig) -> None:
    client = rig.connect()
    client.ask("GET", "/both")
    assert client.body == b"got"
    other = rig.connect()
    other.ask("POST", "/both", b"0123456789")
    assert other.body == b"0123456789"


@pytest.mark.parametrize("over", [0, 1])
def test_a_body_is_bounded_by_its_page_over_http_1_1(rig: PageRig, over: int) -> None:
    client = rig.connect()
    client.ask("POST", "/echo", bytes(BODY_SIZE_MAX + over))
    assert client.status == (413 if over else 200)
    chunked = rig.connect()
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    size = BODY_SIZE_MAX + over
    chunked.protocol.dataReceived(head + b"%x\r\n" % size + bytes(size) + b"\r\n0\r\n\r\n")
    assert chunked.status == (413 if over else 200)
    assert chunked.transport.disconnecting is bool(over)
    assert len(rig.set.posted) == 2 * (1 - over)
    assert rig.stats.unfinished_octets == 0


@pytest.mark.parametrize("over", [0, 1])
def test_a_body_is_bounded_by_its_page_over_http_2(rig: PageRig, over: int) -> None:
    client = Http2(rig)
    stream_id = client.ask(b"POST", b"/echo", bytes(BODY_SIZE_MAX + over))
    assert client.status(stream_id) == (413 if over else 200)
    assert rig.stats.unfinished_octets == 0


def test_what_is_kept_of_bodies_counts_as_unfinished_requests_do(rig: PageRig) -> None:
    first = rig.connect()
    head = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
    first.protocol.dataReceived(head + bytes(400))
    held = rig.stats.unfinished_octets
    assert 400 < held < 600
    rig.stats.unfinished_max = held + held
    second = rig.connect()
    second.protocol.dataReceived(head + bytes(400))
    assert second.transport.value() == b"", "at the bound"
    third = rig.connect()
    third.protocol.dataReceived(head + b"x")
    assert third.status == 413
    assert third.transport.disconnecting
    assert rig.stats.unfinished_octets == 2 * held
    second.leave()
    third.leave()
    assert rig.stats.unfinished_octets == held
    rig.stats.unfinished_max = 10_000
    first.protocol.dataReceived(bytes(600))
    assert first.status == 200
    assert rig.stats.unfinished_octets == 0


def test_a_body_counts_until_it_is_answered(rig: PageRig) -> None:
    client, http2 = rig.connect(), Http2(rig)
    client.ask("POST", "/later", bytes(1_000))
    assert 1_000 < rig.stats.unfinished_octets < 1_200
    http2.ask(b"POST", b"/later", bytes(1_000))
    assert rig.stats.unfinished_octets > 2_000
    for answer in rig.set.waiting:
        answer.callback(Answer(200, b""))
    assert rig.stats.unfinished_octets == 0


def test_a_body_that_is_let_go_counts_no_longer(rig: PageRig) -> None:
    client, http2 = rig.connect(), Http2(rig)
    client.ask("POST", "/later", bytes(1_000))
    stream_id = http2.ask(b"POST", b"/later", bytes(1_000))
    for posted in rig.set.posted:
        assert posted.body == bytes(1_000)
        posted.let_go()
    assert rig.stats.unfinished_octets < 1_000, "heads"
    for answer in rig.set.waiting:
        answer.callback(Answer(200, b"done"))
    http2.exchange()
    assert client.body == http2.bodies[stream_id] == b"done"
    assert rig.stats.unfinished_octets == 0


def test_a_body_to_a_page_that_takes_none_is_not_kept(rig: PageRig) -> None:
    client = rig.connect()
    client.protocol.dataReceived(
        b"GET /both HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + bytes(100_000)
    )
    assert rig.stats.unfinished_octets == 0
    client.protocol.dataReceived(bytes(100_000))
    assert client.body == b"got"


# Streams.


def test_an_answer_is_streamed_in_chunks_over_http_1_1(rig: PageRig) -> None:
    client = rig.connect()
    client.ask("GET", "/stream")
    source = rig.set.sources[0]
    assert client.status == 200, "the head does not wait for the first part"
    assert b"Transfer-Encoding: chunked" in client.head
    assert b"Content-Type: application/json" in client.head
    source.give(b"one")
    assert client.body == b"3\r\none\r\n"
    source.give(b"", b"two", None)
    assert client.body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    assert source.cancels == 1
    client.transport.clear()
    client.ask("GET", "/both")
    assert client.body == b"got"


def test_an_answer_is_streamed_in_data_frames_over_http_2(rig: PageRig) -> None:
    client = Http2(rig)
    stream_id = client.ask(b"GET", b"/stream")
    source = rig.set.sources[0]
    head = client.heads[stream_id]
    assert (head[b":status"], head[b"content-type"]) == (b"200", b"application/json")
    assert b"transfer-encoding" not in head
    source.give(b"one")
    client.exchange()
    assert client.bodies[stream_id] == b"one"
    assert stream_id not in client.ended
    source.give(b"", b"two", None)
    client.exchange()
    assert client.bodies[stream_id] == b"onetwo"
    assert stream_id in client.ended
    assert source.cancels == 1
    assert rig.stats.unread_octets == rig.stats.unfinished_octets == 0


def test_an_answer_that_fails_is_seen_not_to_be_whole(rig: PageRig) -> None:
    client, http2 = rig.connect(), Http2(rig)
    client.ask("GET", "/stream")
    stream_id = http2.ask(b"GET", b"/stream")
    with capturedLogs() as logged:
        for source in rig.set.sources:
            source.give(b"one", RuntimeError("compacted"))
    http2.exchange()
    assert client.body == b"3\r\none\r\n"
    assert client.transport.disconnecting
    assert http2.resets == {stream_id: 2}
    assert [event["error"] for event in logged] == ["compacted", "compacted"]
    assert [source.cancels for source in rig.set.sources] == [1, 1]


def test_a_client_of_http_1_1_that_does_not_read_is_given_no_more(rig: PageRig) -> None:
    client = rig.connect(room=2 * PART_SIZE + 1_000)
    client.ask("GET", "/flood")
    source = rig.set.sources[0]
    assert source.taken == 3, "the last was one too many"
    rig.clock.advance(5)
    assert source.taken == 3
    client.transport.read()
    rig.clock.advance(0)
    assert source.taken == 6


@pytest.mark.parametrize("window", [65_535, 1 << 20])
def test_a_client_of_http_2_that_does_not_read_is_given_no_more(rig: PageRig, window: int) -> None:
    client = Http2(rig, window)
    client.ask(b"GET", b"/flood", reads=False)
    source = rig.set.sources[0]
    given = source.taken * PART_SIZE
    assert window < given <= window + PIECES_QUEUED_MAX + PART_SIZE
    rig.clock.advance(5)
    assert source.taken * PART_SIZE == given
    client.exchange()
    assert source.taken * PART_SIZE > given


def test_a_socket_that_takes_no_more_pauses_a_stream_of_http_2(rig: PageRig) -> None:
    client = Http2(rig, 1 << 20, room=3 * PART_SIZE)
    client.ask(b"GET", b"/flood", reads=False)
    source = rig.set.sources[0]
    taken = source.taken
    assert taken * PART_SIZE < 1 << 20
    rig.clock.advance(5)
    assert source.taken == taken
    client.exchange()
    assert source.taken > taken


def test_one_iteration_writes_so_much_and_no_more(rig: PageRig) -> None:
    client = rig.connect()
    client.protocol.dataReceived(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
    source = rig.set.sources[0]
    part = bytes(ITERATION_SIZE // 4)
    source.give(*[part] * 9)
    assert len(source.parts) == 5
    step(rig.clock)
    assert len(source.parts) == 1
    step(rig.clock)
    assert len(source.parts) == 0


def step(clock: Clock) -> None:
    """Let the oldest call that is due be made, and nothing that it asks for."""
    call = clock.calls.pop(0)
    call.called = 1
    call.func(*call.args, **call.kw)


def test_a_client_that_leaves_ends_its_streams(rig: PageRig) -> None:
    client, http2 = rig.connect(), Http2(rig)
    client.ask("GET", "/stream")
    first = http2.ask(b"GET", b"/stream")
    http2.ask(b"GET", b"/stream")
    client.leave()
    assert [source.cancels for source in rig.set.sources] == [1, 0, 0]
    http2.core.reset(first, 8)
    http2.exchange()
    assert [source.cancels for source in rig.set.sources] == [1, 1, 0]
    http2.leave()
    assert [source.cancels for source in rig.set.sources] == [1, 1, 1]
    for source in rig.set.sources:
        source.give(b"late", None)
    assert rig.stats.unread_octets == rig.stats.unfinished_octets == 0
    assert rig.set.sources[0].cancels == 1


def test_a_flood_ends_with_its_client(rig: PageRig) -> None:
    client, http2 = rig.connect(room=PART_SIZE), Http2(rig)
    client.ask("GET", "/flood")
    http2.ask(b"GET", b"/flood", reads=False)
    client.leave()
    http2.leave()
    taken = [source.taken for source in rig.set.sources]
    rig.clock.advance(5)
    assert [source.taken for source in rig.set.sources] == taken
    assert [source.cancels for source in rig.set.sources] == [1, 1]
    assert rig.stats.unread_octets == 0


def test_a_page_may_hand_on_a_stream_of_the_member_itself() -> None:
    member = LoopbackRig()
    page = Pages({b"/events": lambda arguments: Streamed(200, member.stream())}, clock=member.clock)
    rig = PageRig()
    rig.port = build_port(rig.clock, rig.stats, page)
    client = rig.connect()
    client.ask("GET", "/events")
    member.calls[0].send(b"one")
    member.turn()
    assert client.body == b"3\r\none\r\n"
    client.leave()
    member.turn()
    assert member.heard == ["drain", "end"]
    assert member.is_empty
