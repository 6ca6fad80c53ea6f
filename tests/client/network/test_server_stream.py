"""Streams that one request asks for."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from etcdtw.client.admin import Maintenance
from etcdtw.client.kv import KeyValues, RangeParts
from etcdtw.client.network.retry_rules import INVALID_TOKEN
from etcdtw.client.network.server_stream import OPENINGS_MAX
from etcdtw.grpc.call import CANCELLED, PERMISSION_DENIED, UNAUTHENTICATED, UNAVAILABLE, StatusError
from etcdtw.wire import etcdserverpb as pb
from tests.client.network.network_rig import has_come, result_of
from tests.client.scripted_channel import ClientRig

LOST = StatusError(UNAVAILABLE, "error reading from server: EOF")
PART = pb.RangeStreamResponse(range_response=pb.RangeResponse(count=1))


def opened(rig: ClientRig) -> RangeParts:
    return KeyValues(rig.channel).range_stream("k")


def test_parts_come_to_the_end() -> None:
    rig = ClientRig()
    stream = opened(rig)
    first = stream.receive()
    assert rig.streams[0].is_half_closed
    rig.streams[0].push(PART)
    rig.streams[0].end(None)
    assert result_of(first) == PART
    assert result_of(stream.receive()) is None


def test_a_stream_that_is_lost_before_its_first_part_is_asked_for_elsewhere() -> None:
    rig = ClientRig(servers=3)
    first = opened(rig).receive()
    rig.streams[0].end(LOST)
    rig.clock.advance(0.03)
    rig.streams[1].push(PART)
    assert result_of(first) == PART


def test_a_stream_that_is_lost_later_is_told() -> None:
    rig = ClientRig()
    stream = opened(rig)
    first = stream.receive()
    rig.streams[0].push(PART)
    rig.streams[0].end(LOST)
    assert result_of(first) == PART
    assert result_of(stream.receive()) is LOST
    assert len(rig.streams) == 1


def test_it_is_asked_for_ten_times() -> None:
    rig = ClientRig()
    first = opened(rig).receive()
    for _ in range(OPENINGS_MAX):
        assert not has_come(first)
        rig.streams[-1].end(LOST)
        rig.clock.advance(0.03)
    assert result_of(first) is LOST
    assert len(rig.streams) == OPENINGS_MAX


def test_other_errors_are_told_at_once() -> None:
    rig = ClientRig()
    first = opened(rig).receive()
    error = StatusError(PERMISSION_DENIED, "")
    rig.streams[0].end(error)
    assert result_of(first) is error


def test_a_refused_token_is_renewed_once() -> None:
    rig = ClientRig(user="u")
    refused = StatusError(UNAUTHENTICATED, INVALID_TOKEN)
    first = opened(rig).receive()
    rig.calls[0].answer(pb.AuthenticateResponse(token="t1"))
    rig.streams[0].end(refused)
    rig.calls[1].answer(pb.AuthenticateResponse(token="t2"))
    assert rig.streams[1].metadata == ((b"token", b"t2"),)
    rig.streams[1].end(refused)
    assert result_of(first) is refused


def test_a_cancelled_stream_is_not_asked_for_again() -> None:
    rig = ClientRig()
    stream = opened(rig)
    first = stream.receive()
    stream.cancel()
    rig.clock.advance(1)
    assert result_of(first).code == CANCELLED
    assert rig.streams[0].is_cancelled
    assert len(rig.streams) == 1


def test_parts_can_be_iterated() -> None:
    rig = ClientRig()

    async def story() -> list[Any]:
        return [part async for part in Maintenance(rig.channel).snapshot()]

    told = Deferred.fromCoroutine(story())
    for blob in (b"a", b"b"):
        rig.streams[0].push(pb.SnapshotResponse(blob=blob))
    rig.streams[0].end(None)
    assert [part.blob for part in result_of(told)] == [b"a", b"b"]


def test_the_parts_of_a_range_can_be_iterated_and_left() -> None:
    rig = ClientRig()
    parts = opened(rig)

    async def story() -> list[Any]:
        found = []
        async for part in parts:
            found.append(part)
            parts.cancel()
        return found

    told = Deferred.fromCoroutine(story())
    rig.streams[0].push(PART)
    assert result_of(told) == [PART]
    assert rig.streams[0].is_cancelled
