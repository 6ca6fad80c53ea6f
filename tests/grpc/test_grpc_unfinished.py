"""Requests that never come to their end: how much of them is held, and when it is let go."""

from __future__ import annotations

import pytest

from etcdtw.grpc.call import RESOURCE_EXHAUSTED
from etcdtw.grpc.message import CHUNK_OVERHEAD, PREFIX
from tests.grpc.grpc_rig import ServerRig

PIECE = PREFIX.pack(0, 1000) + bytes(500)
HELD = len(PIECE) + CHUNK_OVERHEAD


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
    rig = ServerRig()
    setattr(rig.stats, bound, 3 * HELD)
    streams = begin_three(rig)
    rig.data(streams[2], b"\0")
    assert rig.answers[streams[2]].status[0] == RESOURCE_EXHAUSTED
    assert held(rig) == 2 * HELD
    rig.data(streams[0], bytes(500), True)
    assert rig.answers[streams[0]].status[0] == 0


def test_whole_message_that_waits_for_the_end_of_its_stream_is_counted() -> None:
    rig = ServerRig()
    stream_id = rig.begin("Unary")
    rig.data(stream_id, PIECE + bytes(500))
    assert held(rig) == 1000
    rig.data(stream_id, b"", True)
    assert (rig.answers[stream_id].status[0], held(rig)) == (0, 0)
