"""A WebSocket's messages become requests of a stream, and its answers messages."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any, cast

import pytest

from etcdtw.gateway.pages import Posted
from etcdtw.gateway.socket_stream import WAITING_SIZE_MAX, SocketStream
from etcdtw.gateway.websocket import CLOSE, PONG
from etcdtw.transport.client.seams import TakenLine
from tests.gateway.json_rig import JsonRig
from tests.support.websocket_client import masked


def of(octets: bytes) -> str:
    return b64encode(octets).decode()


class LineLike:
    """What a connection that was taken over is told."""

    def __init__(self) -> None:
        self.octets = b""
        self.pauses = 0
        self.is_paused = False
        self.is_ended = False

    def write(self, data: bytes) -> None:
        self.octets += data

    def pause(self) -> None:
        self.pauses += 1
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def end(self) -> None:
        self.is_ended = True

    def frames(self) -> list[tuple[int, bytes]]:
        """Take kinds and payloads of the frames so far; parts of a message are joined."""
        found: list[tuple[int, bytes]] = []
        octets, self.octets = self.octets, b""
        whole = True
        while octets:
            size = octets[1]
            at = 2
            if size == 126:
                size, at = int.from_bytes(octets[2:4], "big"), 4
            elif size == 127:
                size, at = int.from_bytes(octets[2:10], "big"), 10
            payload = octets[at : at + size]
            if whole:
                found.append((octets[0] & 0x0F, payload))
            else:
                found[-1] = found[-1][0], found[-1][1] + payload
            whole = bool(octets[0] & 0x80)
            octets = octets[at + size :]
        return found


class SocketRig(JsonRig):
    def open(self, path: str, **fields: str) -> tuple[Any, LineLike]:
        given = {name.replace("_", "-").encode(): v.encode() for name, v in fields.items()}
        opened = self.gateway.upgrade(path.encode(), Posted({}, given.get, b"", self.connection))
        assert opened is not None
        line = LineLike()
        opened.began(cast(TakenLine, line))
        return opened, line

    def send(self, opened: Any, *messages: Any) -> None:
        for message in messages:
            octets = message if isinstance(message, bytes) else json.dumps(message).encode()
            opened.received(masked(0x81, octets))
        self.run(0.3)


@pytest.fixture
def rig() -> SocketRig:
    rig = SocketRig()
    rig.start()
    return rig


def told(line: LineLike) -> list[Any]:
    return [json.loads(payload) for kind, payload in line.frames() if kind != CLOSE]


def create(key: bytes, **more: Any) -> dict[str, Any]:
    return {"create_request": {"key": of(key), **more}}


def test_a_watch_over_a_websocket(rig: SocketRig) -> None:
    opened, line = rig.open("/v3/watch")
    rig.send(opened, create(b"k"), create(b"l", watch_id=7))
    assert [one["result"]["created"] for one in told(line)] == [True, True]
    rig.told("/v3/kv/put", {"key": of(b"k"), "value": of(b"1")})
    rig.run(0.2)
    (event,) = told(line)
    assert event["result"]["events"][0]["kv"]["value"] == of(b"1")
    rig.send(opened, {"cancel_request": {"watch_id": "7"}})
    assert told(line)[0]["result"]["canceled"] is True
    opened.lost()
    rig.run()
    assert rig.is_idle


def test_several_values_in_one_message_are_requests_each(rig: SocketRig) -> None:
    opened, line = rig.open("/v3/lease/keepalive")
    rig.send(opened, b' {"ID":1}{"ID":2} ')
    assert [one["result"]["ID"] for one in told(line)] == ["1", "2"]


def test_behind_a_message_that_cannot_be_read_nothing_is_sent(rig: SocketRig) -> None:
    opened, line = rig.open("/v3/lease/keepalive")
    rig.send(opened, b"{bad", {"ID": 1})
    assert line.is_ended
    assert [kind for kind, _ in line.frames()] == [CLOSE]
    assert rig.is_idle


def test_a_stream_that_ends_ends_the_websocket(rig: SocketRig) -> None:
    opened, line = rig.open("/v3/lease/keepalive")
    opened.received(masked(0x88, b"\x03\xe8"))
    rig.run(0.1)
    assert line.frames() == [(CLOSE, b"\x03\xe8")]
    assert line.is_ended
    opened.received(masked(0x81, b"{}"))
    opened.lost()
    assert rig.is_idle


def test_pings_are_answered_while_there_is_room(rig: SocketRig) -> None:
    opened, line = rig.open("/v3/watch")
    opened.received(masked(0x89, b"?"))
    rig.run(0.1)
    assert line.frames() == [(PONG, b"?")]
    opened.clogged()
    opened.received(masked(0x89, b"?"))
    rig.run(0.1)
    assert line.frames() == []
    opened.lost()


def test_what_is_no_frame_closes_the_websocket(rig: SocketRig) -> None:
    opened, line = rig.open("/v3/watch")
    opened.received(b"\x81\x01x")
    rig.run(0.1)
    assert line.frames() == [(CLOSE, b"\x03\xea")]
    assert line.is_ended
    assert rig.is_idle


def test_who_does_not_read_is_told_nothing_more(rig: SocketRig) -> None:
    opened, line = rig.open("/v3/watch")
    rig.send(opened, create(b"k"))
    told(line)
    opened.clogged()
    for _ in range(3):
        rig.told("/v3/kv/put", {"key": of(b"k")})
    rig.run(0.2)
    assert len(told(line)) <= 1, "what was asked for before"
    opened.drained()
    rig.run(0.2)
    assert told(line)[-1]["result"]["events"][-1]["kv"]["version"] == "3"
    opened.lost()


def test_a_large_answer_goes_out_in_pieces(rig: SocketRig) -> None:
    rig.told("/v3/kv/put", {"key": of(b"k"), "value": of(bytes(100_000))})
    opened, line = rig.open("/v3/watch")
    rig.send(opened, create(b"k", start_revision=1))
    rig.run(1)
    found = told(line)
    assert len(found[-1]["result"]["events"][0]["kv"]["value"]) > 100_000
    opened.lost()


def test_who_sends_faster_than_it_is_read_is_paused(rig: SocketRig) -> None:
    opened, line = rig.open("/v3/watch")
    assert isinstance(opened, SocketStream)
    many = masked(0x81, b'{"cancel_request":{"watch_id":5}}' + b" " * 1_000)
    for _ in range(2 * WAITING_SIZE_MAX // len(many)):
        opened.received(many)
    assert line.pauses
    rig.run(1)
    assert not line.is_paused
    opened.lost()
    rig.run()
    assert rig.is_idle


def test_what_waits_for_its_rest_counts_as_unfinished(rig: SocketRig) -> None:
    opened, _ = rig.open("/v3/watch")
    half = masked(0x81, bytes(100_000))[:50_000]
    opened.received(half)
    rig.run(0.1)
    assert rig.stats.unfinished_octets == len(half)
    opened.lost()
    assert rig.stats.unfinished_octets == 0
    assert rig.is_idle


def test_who_holds_too_much_is_cut_off(rig: SocketRig) -> None:
    opened, line = rig.open("/v3/watch")
    rig.stats.unfinished_max = 1_000
    opened.received(masked(0x81, bytes(2_000))[:1_000])
    rig.run(0.1)
    assert line.frames() == []
    opened.received(b"x")
    assert line.frames() == [(CLOSE, b"\x03\xf5")]
    rig.run(0.1)
    assert rig.stats.unfinished_octets == 0
    assert rig.is_idle


def test_a_path_that_is_none_says_so(rig: SocketRig) -> None:
    _, line = rig.open("/v3/nope")
    assert told(line) == [{"code": 5, "message": "Not Found"}]
    assert line.is_ended
    assert (
        rig.gateway.upgrade(b"/health", Posted({}, lambda name: None, b"", rig.connection)) is None
    )


def test_methods_that_are_no_streams_answer_nothing(rig: SocketRig) -> None:
    opened, line = rig.open("/v3/kv/range")
    rig.send(opened, {"key": of(b"k")})
    assert line.frames() == []
    opened.lost()
    assert rig.is_idle
