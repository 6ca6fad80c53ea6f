"""Streams over the network: pulled, bounded, cancelled on both sides."""

from __future__ import annotations

from dataclasses import replace

from etcdtw.client.channel import NotTakenError
from etcdtw.client.network.bounds import CLIENT_LIMITS
from etcdtw.client.network.calls import TOO_MUCH_UNTAKEN
from etcdtw.grpc.call import CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNAVAILABLE
from etcdtw.http2 import frames
from etcdtw.http2.errors import REFUSED_STREAM
from etcdtw.http2.limits import Limits
from tests.client.network.network_rig import DOWN, UP, NetworkRig, result_of


def test_messages_go_both_ways_in_order() -> None:
    rig = NetworkRig()
    stream = rig.stream()
    stream.send(b"a")
    stream.send(b"b")
    rig.pump()
    stream.send(b"c")
    stream.half_close()
    stream.send(b"too late")
    rig.pump()
    server = rig.servers[0]
    assert server.seen == [b"a", b"b", b"c", b"half-closed"]
    first = stream.receive()
    for message in (b"1", b"2"):
        server.calls[0].send(message)
    server.calls[0].finish()
    rig.pump()
    assert [result_of(first), result_of(stream.receive()), result_of(stream.receive())] == [
        b"1",
        b"2",
        None,
    ]
    assert rig.channel.calls == 0


def test_an_error_comes_behind_the_messages_before_it() -> None:
    rig = NetworkRig()
    stream = rig.stream()
    rig.pump()
    call = rig.servers[0].calls[0]
    call.send(b"1")
    call.fail(UNAVAILABLE, "etcdserver: no leader")
    rig.pump()
    assert result_of(stream.receive()) == b"1"
    assert result_of(stream.receive()).message == "etcdserver: no leader"


def test_cancelling_what_waits_for_a_message_loses_none() -> None:
    rig = NetworkRig()
    stream = rig.stream()
    rig.pump()
    stream.receive().addErrback(lambda _: None).cancel()
    rig.servers[0].calls[0].send(b"1")
    rig.pump()
    assert result_of(stream.receive()) == b"1"


def test_cancelling_ends_a_stream_on_both_sides() -> None:
    rig = NetworkRig()
    stream = rig.stream()
    rig.pump()
    waiting = stream.receive()
    stream.cancel()
    rig.pump()
    assert result_of(waiting).code == CANCELLED
    assert rig.servers[0].ended == 1
    stream.cancel()


def test_a_server_is_stopped_by_what_is_not_taken() -> None:
    window = 65_536
    rig = NetworkRig(limits=_limits(window))
    stream = rig.stream()
    rig.pump()
    call = rig.servers[0].calls[0]
    message = bytes(10_000)
    for _ in range(50):
        call.send(message)
    rig.pump()
    assert call.queued > 350_000
    assert rig.channel.lines[0].connection is not None
    assert rig.channel.lines[0].connection.untaken <= 2 * window
    taken = 0
    while taken < 50:
        waiting = stream.receive()
        rig.pump()
        assert result_of(waiting) == message
        taken += 1
    assert call.queued == 0
    assert rig.channel.lines[0].connection.untaken == 0


def test_a_message_larger_than_the_window_arrives() -> None:
    rig = NetworkRig(limits=_limits(65_536))
    stream = rig.stream()
    rig.pump()
    call = rig.servers[0].calls[0]
    for size in (10, 500_000, 10):
        call.send(bytes(size))
    rig.pump()
    sizes = []
    for _ in range(3):
        waiting = stream.receive()
        rig.pump()
        sizes.append(len(result_of(waiting)))
    assert sizes == [10, 500_000, 10]


def test_a_stream_that_brings_too_much_unread_is_ended() -> None:
    rig = NetworkRig(untaken_size_max=1_000)
    first, second = rig.stream(), rig.stream()
    rig.pump()
    for call in rig.servers[0].calls:
        call.send(bytes(500))
    rig.pump()
    rig.servers[0].calls[1].send(b"x")
    rig.pump()
    error = result_of(second.receive())
    assert (error.code, error.message) == (RESOURCE_EXHAUSTED, TOO_MUCH_UNTAKEN)
    assert len(result_of(first.receive())) == 500


def test_what_is_sent_before_there_is_a_server_is_sent_then() -> None:
    rig = NetworkRig()
    rig.servers[0].mode = DOWN
    stream = rig.stream()
    stream.send(b"a")
    stream.half_close()
    rig.servers[0].mode = UP
    rig.advance(1.0)
    assert rig.servers[0].seen == [b"a", b"half-closed"]


def test_a_stream_that_is_refused_begins_anew_with_all_that_was_sent() -> None:
    rig = NetworkRig()
    rig.settle()
    link = rig.servers[0].link
    link.is_mute = True
    stream = rig.stream()
    stream.send(b"a")
    link.wire.written = b""
    link.is_mute = False
    link.protocol.dataReceived(frames.encode_reset(3, REFUSED_STREAM))
    stream.send(b"b")
    rig.pump()
    assert rig.servers[0].seen == [b"a", b"b"]


def test_a_stream_whose_server_takes_nothing_is_ended() -> None:
    rig = NetworkRig(queued_size_max=200_000)
    rig.settle()
    rig.servers[0].link.is_mute = True
    stream = rig.stream()
    for _ in range(2):
        stream.send(bytes(100_000))
    assert not stream.receive().addErrback(lambda _: None).called
    for _ in range(2):
        stream.send(bytes(100_000))
    rig = NetworkRig(queued_size_max=10)
    rig.servers[0].mode = DOWN
    stream = rig.stream()
    stream.send(bytes(10))
    stream.send(b"x")
    error = result_of(stream.receive())
    assert isinstance(error, NotTakenError)
    assert error.code == RESOURCE_EXHAUSTED


def test_a_streams_time_limit_ends_it() -> None:
    rig = NetworkRig()
    stream = rig.stream(timeout_ms=500)
    rig.advance(0.6)
    assert result_of(stream.receive()).code == DEADLINE_EXCEEDED
    assert rig.servers[0].ended == 1


def _limits(window: int) -> Limits:
    return replace(CLIENT_LIMITS, stream_window=window)


def test_a_stream_that_has_sent_too_much_to_keep_is_not_begun_anew() -> None:
    rig = NetworkRig(queued_size_max=100)
    rig.settle()
    link = rig.servers[0].link
    link.is_mute = True
    stream = rig.stream()
    for _ in range(2):
        stream.send(bytes(60))
    link.protocol.dataReceived(frames.encode_reset(3, REFUSED_STREAM))
    error = result_of(stream.receive())
    assert isinstance(error, NotTakenError)
    assert error.code == UNAVAILABLE


def test_a_request_that_is_too_large_ends_its_stream() -> None:
    rig = NetworkRig(request_size_max=10)
    stream = rig.stream()
    stream.send(bytes(10))
    stream.send(bytes(11))
    stream.send(b"more")
    assert result_of(stream.receive()).code == RESOURCE_EXHAUSTED


def test_messages_that_are_left_are_forgotten_with_their_stream() -> None:
    rig = NetworkRig()
    stream = rig.stream()
    rig.pump()
    connection = rig.channel.lines[0].connection
    assert connection is not None
    call = rig.servers[0].calls[0]
    call.send(bytes(100))
    call.finish()
    rig.pump()
    assert connection.untaken == 100
    stream.cancel()
    assert connection.untaken == 0
