"""Calls over the network, with servers in memory."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError

from etcdtw.client.channel import NotTakenError
from etcdtw.client.network.channel import TOO_MANY_CALLS
from etcdtw.client.network.connection import SILENT
from etcdtw.grpc.call import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    FAILED_PRECONDITION,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
)
from etcdtw.http2 import frames
from etcdtw.http2.errors import REFUSED_STREAM
from tests.client.network.network_rig import DOWN, HANGS, MUTE, UP, NetworkRig, result_of


def test_a_call_reaches_its_server_and_brings_the_answer() -> None:
    rig = NetworkRig()
    assert result_of(rig.unary("Echo", b"hi")) == b"s0:hi"
    assert rig.channel.calls == 0


def test_nothing_is_dialled_before_the_first_call() -> None:
    rig = NetworkRig(2)
    assert [server.dials for server in rig.servers] == [0, 0]
    rig.unary("Echo")
    assert [server.dials for server in rig.servers] == [1, 1]


def test_an_error_of_the_server_is_told_as_it_is() -> None:
    error = result_of(NetworkRig().unary("Echo", b"raise"))
    assert (error.code, error.message) == (FAILED_PRECONDITION, "no")
    assert not isinstance(error, NotTakenError)


def test_calls_go_round_the_servers_that_are_up() -> None:
    rig = NetworkRig(3)
    rig.servers[1].mode = DOWN
    rig.settle()
    answers = [result_of(rig.unary("Echo")) for _ in range(4)]
    assert sorted(answers) == [b"s0:", b"s0:", b"s2:", b"s2:"]


def test_a_call_waits_for_a_server_that_comes_back() -> None:
    rig = NetworkRig()
    rig.servers[0].mode = DOWN
    answer = rig.unary("Echo", b"x")
    rig.advance(1.0)
    assert not answer.called
    rig.servers[0].mode = UP
    rig.advance(1.0)
    assert result_of(answer) == b"s0:x"


def test_a_call_that_no_server_is_found_for_says_why_of_each() -> None:
    rig = NetworkRig(2, connection_wait_ms=3_000, dial_timeout_ms=1_000)
    rig.servers[0].mode = DOWN
    rig.servers[1].mode = HANGS
    answer = rig.unary("Echo")
    rig.advance(2.9)
    assert not answer.called
    rig.advance(0.2)
    error = result_of(answer)
    assert isinstance(error, NotTakenError)
    assert error.code == UNAVAILABLE
    assert "s0: Connection was refused" in error.message
    assert "s1: no answer within 1000 ms" in error.message
    assert rig.channel.calls == 0


def test_a_call_that_finds_no_room_says_so() -> None:
    rig = NetworkRig(streams_max=1, connection_wait_ms=100)
    rig.settle()
    rig.unary("Wait")
    answer = rig.unary("Wait")
    rig.advance(0.2)
    error = result_of(answer)
    assert isinstance(error, NotTakenError)
    assert "s0: it has no room for another call" in error.message


def test_many_servers_are_not_all_named() -> None:
    rig = NetworkRig(7, connection_wait_ms=100)
    for server in rig.servers:
        server.mode = DOWN
    answer = rig.unary("Echo")
    rig.advance(0.2)
    message = result_of(answer).message
    assert "s4: " in message
    assert "s5" not in message
    assert message.endswith("and 2 more")


def test_a_server_that_accepts_and_says_nothing_is_left() -> None:
    rig = NetworkRig(dial_timeout_ms=1_000)
    rig.servers[0].mode = MUTE
    answer = rig.unary("Echo", b"x")
    rig.servers[0].mode = UP
    rig.advance(1.5)
    assert result_of(answer) == b"s0:x"
    assert rig.servers[0].open_links == 1


def test_a_call_whose_connection_is_lost_is_not_made_again() -> None:
    rig = NetworkRig()
    answer = rig.unary("Wait", b"x")
    rig.servers[0].link.lose()
    rig.advance(1.0)
    error = result_of(answer)
    assert error.code == UNAVAILABLE
    assert not isinstance(error, NotTakenError)
    assert rig.servers[0].seen == [b"x"]


def test_a_call_that_its_server_refuses_is_made_elsewhere() -> None:
    rig = NetworkRig(2)
    rig.settle()
    rig.servers[0].link.is_mute = rig.servers[1].link.is_mute = True
    answer = rig.unary("Echo", b"x")
    asked = next(
        link for server in rig.servers for link in server.links if link.protocol.open_calls
    )
    for server in rig.servers:
        server.link.is_mute = False
    stream_id = 3 if asked.http2._last_peer_id == 1 else 1
    asked.protocol.dataReceived(frames.encode_reset(stream_id, REFUSED_STREAM))
    rig.pump()
    assert result_of(answer).endswith(b":x")
    assert sum(server.seen.count(b"x") for server in rig.servers) == 1


def test_a_call_beyond_a_goaway_is_made_again_on_another_connection() -> None:
    rig = NetworkRig()
    rig.settle()
    link = rig.servers[0].link
    link.is_mute = True
    answer = rig.unary("Echo", b"x")
    link.protocol.dataReceived(frames.encode_goaway(1, 0, b"bye"))
    rig.advance(1.0)
    assert result_of(answer) == b"s0:x"
    assert rig.servers[0].dials == 2


def test_calls_under_way_end_on_a_connection_that_goes_away() -> None:
    rig = NetworkRig(backoff_max_ms=100)
    rig.settle()
    rig.clock.advance(1)
    answer = rig.unary("Wait", b"x")
    old = rig.servers[0].link
    old.core.drain()
    rig.pump()
    assert result_of(rig.unary("Echo", b"y")) == b"s0:y"
    assert rig.servers[0].dials == 2
    rig.servers[0].calls[0].reply(b"late")
    rig.pump()
    assert result_of(answer) == b"late"
    assert old.is_gone


def test_a_call_that_is_refused_again_and_again_is_given_up() -> None:
    rig = NetworkRig(refusals_max=2)
    rig.settle()
    link = rig.servers[0].link
    link.is_mute = True
    answer = rig.unary("Echo", b"x")
    for stream_id in (3, 5, 7):
        assert not answer.called
        link.protocol.dataReceived(frames.encode_reset(stream_id, REFUSED_STREAM))
    error = result_of(answer)
    assert isinstance(error, NotTakenError)
    assert error.code == UNAVAILABLE


def test_calls_beyond_a_servers_streams_wait_for_their_turn() -> None:
    rig = NetworkRig(streams_max=2)
    rig.settle()
    answers = [rig.unary("Wait", b"%d" % number) for number in range(3)]
    server = rig.servers[0]
    assert server.seen == [b"0", b"1"]
    server.calls[0].reply(b"done")
    rig.pump()
    assert server.seen == [b"0", b"1", b"2"]
    assert [answer.called for answer in answers] == [True, False, False]


def test_calls_wait_while_too_much_is_not_sent() -> None:
    rig = NetworkRig(unsent_size_max=100_000)
    rig.settle()
    link = rig.servers[0].link
    link.wire.producer.pauseProducing()
    rig.unary("Wait", bytes(99_995))  # and its prefix
    rig.unary("Wait", b"last")
    answer = rig.unary("Echo", b"x")
    assert link.protocol.open_calls == 2
    link.wire.producer.resumeProducing()
    rig.pump()
    assert result_of(answer) == b"s0:x"


def test_a_call_that_takes_too_long_ends_here_and_there() -> None:
    rig = NetworkRig()
    answer = rig.unary("Wait", timeout_ms=500)
    rig.advance(0.45)
    assert not answer.called
    rig.advance(0.1)
    error = result_of(answer)
    assert error.code == DEADLINE_EXCEEDED
    assert rig.servers[0].ended == 1


def test_a_time_limit_counts_while_a_call_waits() -> None:
    rig = NetworkRig()
    rig.servers[0].mode = DOWN
    answer = rig.unary("Echo", timeout_ms=500)
    rig.advance(0.6)
    error = result_of(answer)
    assert isinstance(error, NotTakenError)
    assert error.code == DEADLINE_EXCEEDED


def test_cancelling_ends_a_call_here_and_there() -> None:
    rig = NetworkRig()
    answer = rig.unary("Wait")
    answer.cancel()
    rig.pump()
    assert isinstance(result_of(answer), CancelledError)
    assert rig.servers[0].ended == 1
    assert rig.channel.calls == 0


def test_a_cancelled_call_that_waited_is_never_made() -> None:
    rig = NetworkRig()
    rig.servers[0].mode = DOWN
    answer = rig.unary("Echo", b"x")
    answer.cancel()
    assert isinstance(result_of(answer), CancelledError)
    rig.servers[0].mode = UP
    rig.advance(1.0)
    assert result_of(rig.unary("Echo", b"y")) == b"s0:y"
    assert rig.servers[0].seen == [b"y"]


def test_one_call_too_many_is_refused() -> None:
    rig = NetworkRig(calls_max=2)
    for _ in range(2):
        rig.unary("Wait")
    error = result_of(rig.unary("Wait"))
    assert isinstance(error, NotTakenError)
    assert (error.code, error.message) == (RESOURCE_EXHAUSTED, TOO_MANY_CALLS)
    refused = result_of(rig.stream().receive())
    assert refused.code == RESOURCE_EXHAUSTED
    assert rig.channel.calls == 2


def test_a_request_of_the_largest_size_is_sent_and_one_octet_more_is_not() -> None:
    rig = NetworkRig(request_size_max=100)
    assert result_of(rig.unary("Echo", b"x" * 100)) == b"s0:" + b"x" * 100
    error = result_of(rig.unary("Echo", b"x" * 101))
    assert error.code == RESOURCE_EXHAUSTED
    assert error.message == "trying to send message larger than max (101 vs. 100)"


def test_an_answer_that_is_too_large_ends_the_call() -> None:
    rig = NetworkRig(message_size_max=10)
    assert result_of(rig.unary("Echo", b"x" * 7)) == b"s0:" + b"x" * 7
    error = result_of(rig.unary("Echo", b"x" * 8))
    assert error.code == RESOURCE_EXHAUSTED


def test_a_silent_server_is_asked_for_a_sign_of_life_and_then_left() -> None:
    rig = NetworkRig(keepalive_ms=10_000, keepalive_timeout_ms=5_000)
    answer = rig.unary("Wait")
    link = rig.servers[0].link
    rig.advance(30.0)
    assert not answer.called  # it answers pings
    link.is_mute = True
    rig.advance(26.0)
    error = result_of(answer)
    assert error.code == UNAVAILABLE
    assert SILENT in error.message


def test_a_connection_without_calls_is_left_in_peace() -> None:
    rig = NetworkRig(keepalive_ms=10_000, keepalive_timeout_ms=5_000)
    rig.settle()
    rig.servers[0].link.is_mute = True
    rig.advance(60.0)
    assert rig.servers[0].open_links == 1
    assert rig.servers[0].link.wire.written == b""


def test_closing_ends_all_calls_and_connections() -> None:
    rig = NetworkRig(2)
    rig.settle()
    under_way = rig.unary("Wait")
    stream = rig.stream()
    closed = rig.channel.close()
    rig.pump()
    assert closed.called
    assert result_of(under_way).code == CANCELLED
    assert result_of(stream.receive()).code == CANCELLED
    assert result_of(rig.unary("Echo")).code == CANCELLED
    assert [server.open_links for server in rig.servers] == [0, 0]
    assert rig.clock.getDelayedCalls() == []


@pytest.mark.parametrize("mode", [DOWN, HANGS, MUTE])
def test_closing_stops_dialling(mode: str) -> None:
    rig = NetworkRig()
    rig.servers[0].mode = mode
    waiting = rig.unary("Echo")
    closed = rig.channel.close()
    rig.pump()
    assert closed.called
    assert result_of(waiting).code == CANCELLED
    assert rig.clock.getDelayedCalls() == []
