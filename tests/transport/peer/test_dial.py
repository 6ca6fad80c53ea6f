"""The dialler's table in docs/machines/peer-stream.md: each state with each event."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from etcdtw.raft.message import Message
from etcdtw.rafthttp.http import encode_chunk
from etcdtw.rafthttp.stream import MESSAGE_HEARTBEAT
from etcdtw.transport.peer.client import UrlRing
from etcdtw.transport.peer.dial import (
    ATTACHED,
    DIALLING,
    OPENING,
    STATE_NAMES,
    STOPPED,
    WAITING,
    PeerTimes,
    StreamDialler,
)
from etcdtw.transport.peer.outlet import STREAM_MESSAGE
from etcdtw.transport.peer.seams import PeerStats
from tests.transport.peer.peer_rig import ONE, TWO, Silent, Wires, identity_of, settle

OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
URL = "http://two:1"


class Dialling:
    """One dialler whose peer does what the test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wires = Wires(self.clock)
        self.servers: list[Silent] = []
        self.told: list[str] = []
        self.dialler = StreamDialler(
            STREAM_MESSAGE,
            TWO,
            identity=identity_of(ONE),
            urls=UrlRing((URL,)),
            dial=self.wires.dial,
            clock=self.clock,
            times=PeerTimes(),
            stats=PeerStats(),
            owner=self,
        )

    def messages_received(self, messages: list[Message]) -> None:
        self.told.append("messages")

    def stream_attached(self, kind: str) -> None:
        self.told.append("attached")

    def stream_lost(self, kind: str) -> None:
        self.told.append("lost")

    def told_removed(self) -> None:
        self.told.append("removed")

    def serve(self) -> Silent:
        self.servers.append(Silent())
        return self.servers[-1]

    def answer(self, octets: bytes) -> None:
        transport = self.servers[-1].transport
        assert transport is not None
        transport.write(octets)
        self.clock.advance(0)

    def bring_to(self, state: int) -> None:
        if state == STOPPED:
            return
        if state in (OPENING, ATTACHED):
            self.wires.listeners[URL] = self.serve
        elif state == DIALLING:
            self.wires.listeners[URL] = "hangs"
        else:
            self.wires.listeners.pop(URL, None)
        self.dialler.start()
        self.clock.advance(0)
        if state == ATTACHED:
            self.answer(OK)
            self.told.clear()
        self.wires.listeners[URL] = "hangs"
        assert self.dialler.state == state


def broken(d: Dialling) -> None:
    d.dialler.connection_broken("gone")


EVENTS: dict[str, Callable[[Dialling], None]] = {
    "start": lambda d: d.dialler.start(),
    "stop": lambda d: d.dialler.stop(),
    "broken": broken,
}


@pytest.mark.parametrize(
    ("state", "event", "after", "told"),
    [
        (STOPPED, "start", DIALLING, []),
        (STOPPED, "stop", STOPPED, []),
        (STOPPED, "broken", STOPPED, []),
        (WAITING, "start", WAITING, []),
        (WAITING, "stop", STOPPED, []),
        (DIALLING, "start", DIALLING, []),
        (DIALLING, "stop", STOPPED, []),
        (OPENING, "start", OPENING, []),
        (OPENING, "stop", STOPPED, []),
        (OPENING, "broken", WAITING, []),
        (ATTACHED, "start", ATTACHED, []),
        (ATTACHED, "stop", STOPPED, []),
        (ATTACHED, "broken", WAITING, ["lost"]),
    ],
    ids=lambda value: str(value),
)
def test_each_cell(state: int, event: str, after: int, told: list[str]) -> None:
    d = Dialling()
    d.wires.listeners[URL] = "hangs"
    d.bring_to(state)
    EVENTS[event](d)
    assert STATE_NAMES[d.dialler.state] == STATE_NAMES[after]
    assert d.told == told
    if after == STOPPED:
        settle(d.clock)
        d.clock.advance(10.0)
        assert d.clock.getDelayedCalls() == []
        assert d.wires.open_ends() == []


def test_waiting_ends_with_the_next_dial() -> None:
    d = Dialling()
    d.bring_to(WAITING)
    d.clock.advance(0.09)
    assert d.dialler.state == WAITING
    d.clock.advance(0.011)
    assert d.dialler.state == DIALLING


@pytest.mark.parametrize("state", [DIALLING, OPENING])
def test_an_attempt_ends_after_the_dial_timeout(state: int) -> None:
    d = Dialling()
    d.bring_to(state)
    d.clock.advance(1.9)
    assert len(d.wires.dialled) == 1
    d.clock.advance(0.1)
    d.clock.advance(0)
    assert len(d.wires.dialled) == 2
    assert d.told == []


REMOVED = b"Content-Length: 15\r\n\r\nremoved member\n"


@pytest.mark.parametrize(
    ("octets", "after", "told"),
    [
        (OK, ATTACHED, ["attached"]),
        (b"HTTP/1.1 410 G\r\nX-Etcd-Cluster-ID: c1\r\n" + REMOVED, STOPPED, ["removed"]),
        (b"HTTP/1.1 410 Gone\r\n" + REMOVED, WAITING, []),  # of a proxy
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", WAITING, []),
        (b"HTTP/1.1 412 P\r\nContent-Length: 0\r\n\r\n", WAITING, []),
        (OK.replace(b"\r\n\r\n", b"\r\nX-Etcd-Cluster-ID: c2\r\n\r\n"), WAITING, []),
        (b"rubbish\r\n\r\n", WAITING, []),
    ],
)
def test_the_head_of_the_response_decides(octets: bytes, after: int, told: list[str]) -> None:
    d = Dialling()
    d.bring_to(OPENING)
    transport = d.servers[0].transport
    assert transport is not None
    transport.write(octets)
    d.clock.pump([0.0])
    assert STATE_NAMES[d.dialler.state] == STATE_NAMES[after]
    assert d.told == told


def test_silence_ends_a_stream_and_any_octet_prolongs_it() -> None:
    d = Dialling()
    d.bring_to(ATTACHED)
    for _ in range(5):
        d.clock.advance(4.9)
        d.answer(encode_chunk(MESSAGE_HEARTBEAT))
    assert d.told == []
    d.clock.advance(4.9)
    assert d.dialler.state == ATTACHED
    d.clock.advance(0.2)
    assert d.told == ["lost"]


def test_the_end_of_the_response_ends_the_stream() -> None:
    d = Dialling()
    d.bring_to(ATTACHED)
    d.answer(b"0\r\n\r\n")
    assert d.told == ["lost"]


def test_a_connection_that_comes_after_the_attempt_was_given_up_is_dropped() -> None:
    d = Dialling()
    d.bring_to(DIALLING)
    d.dialler.stop()
    d.dialler._failed(Failure(ConnectionError("late")))
    assert d.dialler.state == STOPPED


def test_the_request_says_who_asks_and_whom() -> None:
    d = Dialling()
    d.bring_to(OPENING)
    assert d.servers[0].received == (
        b"GET /raft/stream/message/a1 HTTP/1.1\r\nHost: two:1\r\nX-Server-From: a1\r\n"
        b"X-Server-Version: 3.5.1\r\nX-Min-Cluster-Version: 3.0.0\r\nX-Etcd-Cluster-ID: c1\r\n"
        b"X-PeerURLs: http://peer-a1:2380\r\nX-Raft-To: b2\r\n\r\n"
    )
