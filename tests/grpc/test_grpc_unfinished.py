"""Requests that never come to their end: how much of them is held, and when it is let go."""

from __future__ import annotations

import pytest

from etcdtw.grpc.call import RESOURCE_EXHAUSTED, KeepsOctets
from etcdtw.grpc.intake import FIELD_OVERHEAD, HEAVY_OCTETS_MIN, Intake
from etcdtw.grpc.message import CHUNK_OVERHEAD, PREFIX
from etcdtw.grpc.plain import PLAIN_BODY_SIZE_MAX
from etcdtw.grpc.stats import ServerStats
from tests.grpc.grpc_rig import PlainRig, ServerRig, request_fields

PIECE = PREFIX.pack(0, 1000) + bytes(500)
KEPT = Intake(request_fields()).octets
HELD = len(PIECE) + CHUNK_OVERHEAD + KEPT
PLAIN_KEPT = Intake(request_fields(content_type=b"text/plain")).octets
PLAIN_HELD = 1000 + CHUNK_OVERHEAD + PLAIN_KEPT


def held(rig: ServerRig) -> int:
    return rig.stats.unfinished_octets


def begin_three(rig: ServerRig) -> list[int]:
    streams = [rig.begin("Unary") for _ in range(3)]
    for stream_id in streams:
        rig.data(stream_id, PIECE)
    return streams


def test_unfinished_requests_are_counted_until_they_are_whole() -> None:
    rig = ServerRig()
    streams = begin_three(rig)
    assert held(rig) == 3 * HELD
    for stream_id in streams:
        rig.data(stream_id, bytes(500), True)
        assert rig.answers[stream_id].status[0] == 0
    assert held(rig) == 0


def test_unfinished_requests_of_a_lost_connection_are_let_go() -> None:
    rig = ServerRig()
    begin_three(rig)
    rig.server.connection_lost()
    assert held(rig) == 0


def test_unfinished_request_that_is_reset_is_let_go() -> None:
    rig = ServerRig()
    streams = begin_three(rig)
    rig.client.reset(streams[0], 8)
    rig.pump()
    assert held(rig) == 2 * HELD


@pytest.mark.parametrize("bound", ["unfinished_connection_max", "unfinished_max"])
def test_request_that_is_one_octet_too_much_is_refused(bound: str) -> None:
    rig = ServerRig(stats=ServerStats(**{bound: 3 * HELD}))
    streams = begin_three(rig)
    rig.data(streams[2], b"\0")
    assert rig.answers[streams[2]].status[0] == RESOURCE_EXHAUSTED
    assert held(rig) == 2 * HELD
    rig.data(streams[0], bytes(500), True)
    assert rig.answers[streams[0]].status[0] == 0


def test_whole_message_that_waits_for_the_end_of_its_stream_is_counted() -> None:
    rig = ServerRig()
    stream_id = rig.begin("Server")
    rig.data(stream_id, PIECE + bytes(500))
    kept = KEPT + len("Server") - len("Unary")
    assert held(rig) == 1000 + kept
    rig.data(stream_id, b"", True)
    assert held(rig) == kept


def test_unfinished_requests_that_are_not_grpc_are_counted_until_they_end() -> None:
    rig = PlainRig()
    answered, cancelled, too_large, lost = [rig.begin_plain(1000) for _ in range(4)]
    assert held(rig) == 4 * PLAIN_HELD
    rig.data(answered, b"", True)
    assert held(rig) == 4 * PLAIN_HELD
    rig.plain[0].respond(200, (), b"")
    rig.client.reset(cancelled, 8)
    rig.data(too_large, bytes(PLAIN_BODY_SIZE_MAX))
    assert held(rig) == PLAIN_HELD
    assert lost not in (answered, cancelled, too_large)
    rig.server.connection_lost()
    assert held(rig) == 0


@pytest.mark.parametrize("bound", ["unfinished_connection_max", "unfinished_max"])
def test_a_request_that_is_not_grpc_is_refused_when_too_much_is_held(bound: str) -> None:
    rig = PlainRig(ServerStats(**{bound: 2 * PLAIN_HELD}))
    first = rig.begin_plain(1000)
    second = rig.begin_plain(1000)
    assert not rig.answers[second].is_ended
    rig.data(second, b"x")
    assert rig.answers[second].head == {b":status": b"413"}
    assert held(rig) == PLAIN_HELD
    rig.data(first, b"", True)
    assert len(rig.plain) == 1


def heavy_fields(size: int) -> tuple[bytes, bytes]:
    return b"x-heavy", bytes(size).replace(b"\0", b"h")


@pytest.mark.parametrize("bound", ["unfinished_connection_max", "unfinished_max"])
def test_header_fields_of_open_calls_are_bounded_and_light_calls_go_on(bound: str) -> None:
    heavy = heavy_fields(HEAVY_OCTETS_MIN)
    one = HEAVY_OCTETS_MIN + len(heavy[0]) + FIELD_OVERHEAD
    room = 2 * (one + Intake(request_fields("Wait")).octets)
    rig = ServerRig(stats=ServerStats(**{bound: room}))
    waiting = [rig.begin("Wait", heavy) for _ in range(2)] + [rig.begin("Bidi", heavy)]
    for stream_id in waiting[:2]:
        rig.data(stream_id, PREFIX.pack(0, 0), True)
    rig.pump()
    assert [rig.answers[stream_id].is_ended for stream_id in waiting] == [False, False, True]
    assert rig.answers[waiting[2]].status[0] == RESOURCE_EXHAUSTED
    light = rig.begin("Bidi")
    rig.pump()
    assert not rig.answers[light].is_ended
    assert rig.request("Wait", b"", heavy).status[0] == RESOURCE_EXHAUSTED
    assert rig.request("Unary", b"x").status[0] == 0
    rig.server.connection_lost()
    assert held(rig) == 0


def test_what_a_stream_keeps_counts_until_it_ends() -> None:
    kept = Intake(request_fields("Bidi")).octets
    rig = ServerRig(stats=ServerStats(unfinished_connection_max=kept + 100))
    stream_id = rig.begin("Bidi")
    rig.pump()
    call = rig.calls[0]
    assert isinstance(call, KeepsOctets)
    assert call.keep(100)
    assert held(rig) == kept + 100
    rig.data(stream_id, PREFIX.pack(0, 0))
    assert held(rig) == kept + 100
    assert not call.keep(101)
    assert call.keep(50)
    assert held(rig) == kept + 50
    call.finish()
    assert held(rig) == 0
    assert call.keep(1)
    assert held(rig) == 0
