"""A connection of HTTP/1.x, cell by cell of `docs/machines/http1-connection.md`."""

from __future__ import annotations

from typing import Any, cast

import pytest
from twisted.logger import capturedLogs

from etcdtw.http1.reader import HEAD_SIZE_MAX
from etcdtw.transport.client.http1 import (
    BODY_SIZE_MAX,
    EVENTS_MAX,
    IDLE_S,
    LINGER_S,
    REQUEST_HEADER_S,
    Http1Channel,
)
from etcdtw.transport.client.http1_site import HttpSite
from etcdtw.transport.client.seams import HttpRequest, TakenLine
from etcdtw.transport.rounds import Rounds
from tests.transport.client.port_rig import SocketLike
from tests.transport.test_rounds import Iterations

GET = b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
EXPECTING = b"POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
UNREAD = b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n"


class HalfClosing(SocketLike):
    """A transport that can end one direction, as a socket can."""

    is_half_closed = False

    def loseWriteConnection(self) -> None:
        self.is_half_closed = True


class PlainSocket:
    """Takes ``room`` octets at once; none: it is full."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.sent = b""

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.sent += taken
        return len(taken)


class Taker:
    """A successor that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[object] = []
        self.line: TakenLine | None = None

    def began(self, line: TakenLine) -> None:
        self.line = line
        self.told.append("began")

    def received(self, data: bytes) -> None:
        self.told.append(data)

    def clogged(self) -> None:
        self.told.append("clogged")

    def drained(self) -> None:
        self.told.append("drained")

    def lost(self) -> None:
        self.told.append("lost")


class Rig:
    """A connection whose requests wait for the test."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.clock = Iterations()
        self.clock.advance(1_000)
        self.held: list[HttpRequest] = []
        self.unix_s = 0.0
        self.site = HttpSite(
            self, self.clock, body_size_max=self.body_size_max, unix_s=lambda: self.unix_s
        )
        self.transport = SocketLike(room)
        rounds = Rounds(self.clock, seconds=lambda: 0.0)
        self.channel = Http1Channel(self.site, self.transport, rounds)

    @staticmethod
    def body_size_max(verb: bytes, target: bytes) -> int:
        return 0 if target == b"/unread" else BODY_SIZE_MAX

    def serve(self, request: HttpRequest) -> None:
        if request.path == b"/crash":
            raise ZeroDivisionError("a defect")
        self.held.append(request)

    def send(self, octets: bytes) -> None:
        self.channel.receive(octets)

    def answer(self, body: bytes = b"ok") -> None:
        self.held.pop(0).respond(200, ((b"X", b"y"),), body)

    @property
    def said(self) -> bytes:
        """What was written since this was last asked."""
        octets: bytes = self.transport.value()
        self.transport.clear()
        return octets


@pytest.fixture
def rig() -> Rig:
    return Rig()


# Reading and answering.


def test_a_request_is_answered_with_its_date(rig: Rig) -> None:
    rig.send(GET)
    (request,) = rig.held
    assert (request.verb, request.path, request.query) == (b"GET", b"/a", b"b")
    assert (request.host, request.header(b"Host"), request.header(b"x")) == (b"h", b"h", None)
    rig.answer()
    assert rig.said == (
        b"HTTP/1.1 200 OK\r\nX: y\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"Content-Length: 2\r\n\r\nok"
    )
    rig.unix_s = 60.5
    rig.send(GET)
    rig.answer()
    assert b"Date: Thu, 01 Jan 1970 00:01:00 GMT\r\n" in rig.said


def test_the_next_request_waits_for_the_answer_before(rig: Rig) -> None:
    rig.send(GET + POST + GET)
    assert len(rig.held) == 1
    rig.answer()
    (request,) = rig.held
    assert request.body == b"abc"
    rig.answer()
    rig.answer()
    assert rig.said.count(b"HTTP/1.1 200") == 3
    assert not rig.transport.disconnecting


def test_an_answer_goes_out_once(rig: Rig) -> None:
    rig.send(GET)
    request = rig.held[0]
    for _ in range(2):
        request.respond(200, (), b"x")
        request.finish()
        request.send(b"y")
    assert rig.said.count(b"HTTP/1.1") == 1
    assert not request.is_full
    assert not request.is_secure


def test_an_answer_in_pieces_is_chunked(rig: Rig) -> None:
    rig.send(GET)
    request = rig.held.pop()
    request.begin(200, ())
    request.send(b"abc")
    request.send(b"")
    request.finish()
    head, _, body = rig.said.partition(b"\r\n\r\n")
    assert head.endswith(b"\r\nTransfer-Encoding: chunked")
    assert body == b"3\r\nabc\r\n0\r\n\r\n"
    rig.send(GET)
    assert rig.held


def test_an_answer_in_pieces_to_http_1_0_ends_with_the_connection(rig: Rig) -> None:
    rig.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    request = rig.held.pop()
    request.begin(200, ())
    request.send(b"abc")
    request.finish()
    said = rig.said
    assert said.startswith(b"HTTP/1.0 200 OK\r\n")
    assert said.endswith(b"\r\n\r\nabc")
    assert b"Connection" not in said
    assert rig.transport.disconnecting


def test_http_1_0_is_kept_alive_where_it_asks_for_it(rig: Rig) -> None:
    rig.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    rig.answer()
    assert b"Content-Length: 2\r\nConnection: keep-alive\r\n\r\nok" in rig.said
    rig.send(b"GET / HTTP/1.0\r\n\r\n")
    rig.answer()
    assert b"Connection" not in rig.said
    assert rig.transport.disconnecting


def test_head_is_answered_without_a_body(rig: Rig) -> None:
    for body, line in ((b"abc", b"Content-Length: 3\r\n\r\n"), (b"", b"GMT\r\n\r\n")):
        rig.send(GET.replace(b"GET", b"HEAD"))
        rig.answer(body)
        assert rig.said.endswith(line)
    rig.send(GET.replace(b"GET", b"HEAD"))
    rig.held[0].begin(200, ())
    rig.held[0].send(b"abc")
    rig.held[0].finish()
    assert rig.said.endswith(b"Transfer-Encoding: chunked\r\n\r\n")


def test_a_client_that_wants_it_is_told_that_the_connection_closes(rig: Rig) -> None:
    rig.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + GET)
    rig.answer()
    assert b"\r\nConnection: close\r\n\r\nok" in rig.said
    assert rig.transport.disconnecting
    assert rig.held == []


def test_options_of_the_whole_server_are_answered_here(rig: Rig) -> None:
    rig.send(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
    assert rig.said.endswith(b"GMT\r\nContent-Length: 0\r\n\r\n")
    rig.answer()
    rig.send(b"GET * HTTP/1.1\r\nHost: h\r\n\r\n")
    assert rig.held[0].path == b"*"
    rig.answer()
    assert b"Connection: close" in rig.said


# Bodies.


def test_a_client_that_asks_first_is_told_to_send(rig: Rig) -> None:
    rig.send(EXPECTING)
    assert (rig.said, rig.held) == (CONTINUE, [])
    rig.send(b"abc")
    assert rig.held[0].body == b"abc"


def test_a_client_that_asks_first_is_answered_where_nobody_reads(rig: Rig) -> None:
    rig.send(UNREAD + b"Expect: 100-continue\r\n\r\n")
    rig.answer()
    said = rig.said
    assert said.startswith(b"HTTP/1.1 200")
    assert b"Connection: close" in said
    assert rig.transport.disconnecting


def test_other_expectations_fail(rig: Rig) -> None:
    rig.send(EXPECTING.replace(b"100-continue", b"200-ok"))
    assert rig.said == (
        b"HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    )


def test_a_body_that_breaks_off_is_answered_as_far_as_it_came(rig: Rig) -> None:
    rig.send(CHUNKED + b"3\r\nabc\r\nx\r\n" + GET)
    (request,) = rig.held
    assert (request.body, request.broken) == (b"abc", "invalid byte in chunk length")
    rig.answer()
    assert b"Connection: close" in rig.said
    assert rig.transport.disconnecting
    assert rig.held == []


def test_the_bodies_of_a_connection_do_not_add_up(rig: Rig) -> None:
    size = BODY_SIZE_MAX // 2
    for _ in range(3):
        for path in (b"/unread", b"/p"):
            line = b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % (path, size)
            rig.send(line + bytes(size))
            rig.answer()
            assert rig.said.startswith(b"HTTP/1.1 200")


def test_very_many_small_chunks_take_turns(rig: Rig) -> None:
    rig.channel._rounds = Rounds(rig.clock, seconds=iter(range(10_000)).__next__)
    rig.send(CHUNKED + b"1\r\nx\r\n" * (3 * EVENTS_MAX) + b"0\r\n\r\n")
    iterations = 0
    while not rig.held:
        iterations += 1
        rig.clock.iterate()
    assert iterations >= 2
    assert rig.held[0].body == b"x" * (3 * EVENTS_MAX)


def test_large_heads_that_are_not_whole_count_as_unfinished_requests(rig: Rig) -> None:
    stats = rig.site.stats
    rig.send(GET[:-2] + b"X: " + b"y" * 3_000)
    assert stats.unfinished_octets == 0, "a small one"
    rig.send(b"y" * 7_000)
    assert 10_000 < stats.unfinished_octets < 10_100
    rig.send(b"y" * 100)
    assert 10_100 < stats.unfinished_octets < 10_200
    rig.send(b"\r\n\r\n")
    assert (len(rig.held), stats.unfinished_octets) == (1, 0)
    rig.answer()
    stats.unfinished_max = 9_000
    assert rig.said
    rig.send(GET[:-2] + b"X: " + b"y" * 9_000)
    assert rig.said.startswith(b"HTTP/1.1 413 ")
    assert stats.unfinished_octets == 0


def test_a_body_is_held_until_it_is_let_go(rig: Rig) -> None:
    rig.send(POST)
    assert rig.site.stats.unfinished_octets > 3
    rig.held[0].let_go()
    assert rig.held[0].body == b""
    assert rig.site.stats.unfinished_octets == 0


# What is refused, and how it ends.


@pytest.mark.parametrize(
    ("octets", "line"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request: missing required Host header"),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", b"505 HTTP Version Not Supported: unsupported"),
        (b"GET / HTTP/1.1\r\nX: " + bytes(HEAD_SIZE_MAX), b"431 Request Header Fields Too Large"),
    ],
)
def test_what_is_no_request_is_refused_in_gos_words(rig: Rig, octets: bytes, line: bytes) -> None:
    rig.send(octets)
    said = rig.said
    assert said.startswith(b"HTTP/1.1 " + line)
    assert line in said.partition(b"\r\n\r\n")[2]
    assert rig.transport.disconnecting
    rig.send(GET)
    assert (rig.held, rig.said) == ([], b"")


def test_who_is_refused_may_go_on_sending_for_a_while() -> None:
    rig = Rig()
    rig.channel.transport = transport = HalfClosing()
    transport.registerProducer(rig.channel, False)
    rig.channel._socket = plain = cast(Any, PlainSocket())
    rig.send(b"x\r\n\r\n")
    assert plain.sent.startswith(b"HTTP/1.1 400 ")
    assert (transport.is_half_closed, transport.disconnecting) == (True, False)
    rig.send(bytes(100_000))
    rig.clock.advance(LINGER_S)
    assert transport.disconnected


def test_a_defect_costs_one_connection(rig: Rig) -> None:
    with capturedLogs() as logged:
        rig.send(b"GET /crash HTTP/1.1\r\nHost: h\r\n\r\n")
    assert rig.transport.disconnected
    assert len(logged) == 1


def test_a_client_that_leaves_is_told_to_who_answers(rig: Rig) -> None:
    rig.send(POST)
    gone: list[bool] = []
    request = rig.held[0]
    request.on_end = lambda: gone.append(True)
    rig.channel.lost()
    assert gone == [True]
    request.respond(200, (), b"late")
    request.begin(200, ())
    request.let_go()
    assert rig.said == b""
    assert rig.site.stats.unfinished_octets == 0
    assert rig.clock.getDelayedCalls() == []


def test_draining_lets_the_answer_end(rig: Rig) -> None:
    idle = Rig()
    idle.channel.drain()
    assert idle.transport.disconnecting
    rig.send(GET[:10])
    rig.channel.drain()
    assert rig.transport.disconnecting
    busy = Rig()
    busy.send(GET)
    busy.channel.drain()
    assert busy.channel.is_busy
    assert not busy.transport.disconnecting
    busy.answer()
    assert busy.transport.disconnecting


# Time.


def test_a_head_has_its_time_from_its_first_octet(rig: Rig) -> None:
    rig.clock.advance(IDLE_S - 1)
    rig.send(GET[:5])
    rig.clock.advance(REQUEST_HEADER_S - 1)
    rig.send(GET[5:9])
    rig.clock.advance(0.9)
    was_dropped = rig.transport.disconnected
    rig.clock.advance(0.2)
    assert (was_dropped, rig.transport.disconnected) == (False, True)


def test_a_body_has_time_as_long_as_octets_come(rig: Rig) -> None:
    rig.send(POST[:-3])
    for _ in range(2):
        rig.clock.advance(IDLE_S - 1)
        rig.send(b"x")
    assert not rig.transport.disconnecting
    rig.clock.advance(IDLE_S)
    assert rig.transport.disconnecting


def test_an_answer_may_take_its_time(rig: Rig) -> None:
    rig.send(GET)
    for _ in range(5):
        rig.clock.advance(IDLE_S)
    assert not rig.transport.disconnecting
    rig.answer()
    rig.clock.advance(IDLE_S - 1)
    was_closed = rig.transport.disconnecting
    rig.clock.advance(1)
    assert (was_closed, rig.transport.disconnecting) == (False, True)


def test_who_does_not_read_is_dropped_behind_the_last_answer() -> None:
    rig = Rig(room=10)
    rig.send(GET)
    rig.answer()
    rig.clock.advance(IDLE_S)
    assert (rig.transport.disconnecting, rig.transport.disconnected) == (True, False)
    rig.clock.advance(IDLE_S)
    assert rig.transport.disconnected


# Clients that do not read.


def test_a_client_that_does_not_read_is_asked_nothing_more() -> None:
    rig = Rig(room=10)
    rig.send(GET + GET)
    rig.answer()
    assert rig.held == []
    rig.transport.read()
    assert len(rig.held) == 1


@pytest.mark.parametrize("room", [0, 10])
def test_what_a_socket_does_not_take_is_the_transports(rig: Rig, room: int) -> None:
    rig.channel._socket = plain = cast(Any, PlainSocket(room))
    rig.send(GET)
    request = rig.held.pop()
    request.begin(200, ())
    assert request.is_full
    request.send(b"abc")
    assert plain.sent + rig.said == (
        b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
    )
    rig.channel.resumeProducing()
    assert not request.is_full


def test_a_stream_is_told_when_its_client_reads_on() -> None:
    rig = Rig(room=10)
    rig.send(GET)
    request = rig.held.pop()
    drained: list[bool] = []
    request.on_drain = lambda: drained.append(True)
    request.begin(200, ())
    assert request.is_full
    rig.transport.read()
    assert (request.is_full, drained) == (False, [True])


# Another protocol.


def test_a_connection_is_given_away_behind_its_last_answer(rig: Rig) -> None:
    taker = Taker()
    rig.send(GET + b"rest")
    assert rig.held[0].take_over(taker, b"HTTP/1.1 101 x\r\n\r\n")
    assert rig.said == b"HTTP/1.1 101 x\r\n\r\n"
    rig.send(b"more")
    told_early = list(taker.told)
    rig.clock.iterate()
    assert (told_early, taker.told) == ([], ["began", b"restmore"])
    rig.send(GET)
    assert taker.told[2:] == [GET]
    assert taker.line is not None
    taker.line.write(b"x")
    assert rig.said == b"x"
    taker.line.pause()
    assert rig.transport.producerState == "paused"
    taker.line.resume()
    rig.channel.pauseProducing()
    rig.channel.resumeProducing()
    assert taker.told[3:] == ["clogged", "drained"]
    rig.clock.advance(10 * IDLE_S)
    was_closed = rig.transport.disconnecting
    taker.line.end()
    assert (was_closed, rig.transport.disconnecting) == (False, True)
    rig.channel.lost()
    assert taker.told[5:] == ["lost"]


def test_a_client_that_goes_before_it_is_given_away_is_nobodys(rig: Rig) -> None:
    taker = Taker()
    rig.send(GET)
    rig.held[0].take_over(taker, b"")
    rig.channel.lost()
    rig.clock.iterate()
    assert taker.told == []
