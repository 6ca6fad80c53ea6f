"""Calls within a member: how they end, what they hold and who hears when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from etcdtw.client.loopback_ledger import LARGEST_AT_ONCE, LOOK_S, Held
from etcdtw.grpc.call import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    UNIMPLEMENTED,
    HasClient,
    KeepsOctets,
    Metadata,
    Method,
    RepliesInParts,
    SendsInParts,
    SendsMany,
    StatusError,
)
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from tests.client.loopback_rig import PREFIX, LoopbackRig, outcome

GONE = (CANCELLED, "context canceled")
TOO_MANY_CALLS = (RESOURCE_EXHAUSTED, "etcdtw: too many calls at once")
TOO_MUCH_UNTAKEN = (RESOURCE_EXHAUSTED, "etcdtw: too many octets of answers that are not taken")


@pytest.fixture
def rig() -> LoopbackRig:
    return LoopbackRig()


# Unary calls.


def test_what_is_answered_at_once_is_there_at_once(rig: LoopbackRig) -> None:
    assert outcome(rig.unary("Echo", b"abc")) == b"abc"
    counts = rig.counts("Echo")
    assert (counts.started, counts.received, counts.sent, counts.handled[OK]) == (1, 1, 1, 1)
    assert (counts.received_octets, counts.sent_octets) == (3, 3)
    assert rig.is_empty


def test_calls_are_measured_where_somebody_asks_how_long_they_take(rig: LoopbackRig) -> None:
    rig.stats.measure(lambda: int(rig.clock.seconds() * 1000))
    answer = rig.unary("Wait")
    rig.clock.advance(0.25)
    rig.calls[0].reply(b"")
    rig.turn()
    assert outcome(answer) == b""
    found = rig.stats.handling_s(PREFIX + "Wait")
    assert found is not None
    assert (found.count, found.total) == (1, 0.25)


def test_an_answer_is_heard_in_an_iteration_of_its_own(rig: LoopbackRig) -> None:
    answer = rig.unary("Wait")
    rig.calls[0].reply(b"abc")
    rig.calls[0].reply(b"twice")
    assert not answer.called
    rig.turn()
    assert outcome(answer) == b"abc"
    assert rig.heard == []
    assert rig.is_empty


def test_a_failed_call_fails_with_its_status(rig: LoopbackRig) -> None:
    assert outcome(rig.unary("Raise")) == (9, "no")
    answer = rig.unary("Wait")
    rig.calls[0].fail(5, "not here")
    rig.turn()
    assert outcome(answer) == (5, "not here")
    assert rig.counts("Raise").handled[9] == rig.counts("Wait").handled[5] == 1
    assert rig.is_empty


def test_a_defect_costs_its_call_and_no_other(rig: LoopbackRig) -> None:
    with capturedLogs() as logged:
        assert outcome(rig.unary("Crash")) == (INTERNAL, "the call failed unexpectedly")
    assert "a call failed unexpectedly" in logged[0]["log_format"]
    assert outcome(rig.unary("Echo", b"a")) == b"a"
    assert rig.is_empty


def test_a_path_without_a_method_is_told_as_over_the_network(rig: LoopbackRig) -> None:
    assert outcome(rig.channel.unary("/test.Echo/None", b"")) == (
        UNIMPLEMENTED,
        "unknown method None for service test.Echo",
    )
    assert outcome(rig.stream("None").receive()) == (
        UNIMPLEMENTED,
        "unknown method None for service test.Echo",
    )
    assert rig.is_empty


def test_a_method_is_asked_in_its_own_kind(rig: LoopbackRig) -> None:
    expected = (INTERNAL, "etcdtw: the method is of another kind")
    assert outcome(rig.unary("Both")) == expected
    assert outcome(rig.stream("Echo").receive()) == expected
    assert outcome(rig.channel.unary_in_parts(PREFIX + "One", b"").receive()) == expected


def test_the_screen_is_asked_for_each_call_with_its_metadata(rig: LoopbackRig) -> None:
    def screen(method: Method, metadata: Metadata) -> tuple[str, Method]:
        value = metadata(b"who") or b"nobody"
        if value == b"stranger":
            raise StatusError(7, "denied")
        return value.decode(), method

    rig.methods.screen = screen
    assert outcome(rig.unary("Echo", metadata=((b"who", b"stranger"),))) == (7, "denied")
    assert outcome(rig.unary("Echo", metadata=((b"who", b"me"), (b"who", b"x")))) == b""
    assert outcome(rig.unary("Echo")) == b""
    assert rig.stats.started_by_label() == {(0, "me"): 1, (0, "nobody"): 1}
    rig.unary("Wait", metadata=((b"who", b"me"),))
    assert rig.calls[0].metadata(b"who") == b"me"
    assert rig.calls[0].metadata(b"other") is None


def test_a_call_says_for_whom_it_is_made(rig: LoopbackRig) -> None:
    rig.unary("Wait")
    assert rig.calls[0].caller is NOBODY_KNOWN
    channel = rig.loopback.connect(Caller("192.0.2.1", "jo"))
    channel.stream(PREFIX + "Both", ((b"token", b"t"),))
    channel.unary(PREFIX + "Wait", b"")
    found = [(one.caller.address, one.caller.common_name, one.caller.token) for one in rig.calls]
    assert found[1:] == [("192.0.2.1", "jo", b"t"), ("192.0.2.1", "jo", None)]
    channel.close()
    assert rig.calls[1].caller is NOBODY_KNOWN


def test_a_request_may_be_as_large_as_over_the_network() -> None:
    rig = LoopbackRig(message_size_max=3)
    assert outcome(rig.unary("Echo", b"abc")) == b"abc"
    refusal = (RESOURCE_EXHAUSTED, "grpc: received message larger than max (4 vs. 3)")
    assert outcome(rig.unary("Echo", b"abcd")) == refusal
    stream = rig.stream()
    stream.send(b"abc")
    stream.send(b"abcd")
    assert outcome(stream.receive()) == refusal
    assert rig.heard == [b"abc", "end"]
    assert rig.is_empty


def test_who_cancels_ends_the_call(rig: LoopbackRig) -> None:
    answer = rig.unary("Wait")
    call = rig.calls[0]
    assert call.is_open
    assert call.client is not None
    failed: list[object] = []
    answer.addErrback(lambda failure: failed.append(failure.check(CancelledError)))
    answer.cancel()
    assert failed == [CancelledError]
    assert not call.is_open
    assert call.client is None
    call.reply(b"late")
    rig.turn()
    assert rig.heard == ["end"]
    assert rig.counts("Wait").handled[CANCELLED] == 1
    assert rig.is_empty


def test_an_answer_may_be_cancelled_before_it_is_heard(rig: LoopbackRig) -> None:
    answer = rig.unary("Wait")
    answer.addErrback(lambda failure: failure.trap(CancelledError) and None)
    rig.calls[0].reply(b"abc")
    answer.cancel()
    rig.turn()
    assert rig.heard == []
    assert rig.counts("Wait").handled[OK] == 1
    assert rig.is_empty


def test_a_deadline_ends_a_call(rig: LoopbackRig) -> None:
    late = (DEADLINE_EXCEEDED, "context deadline exceeded")
    assert outcome(rig.unary("Echo", timeout_ms=0)) == late
    assert outcome(rig.unary("Echo", timeout_ms=1)) == b""
    answer = rig.unary("Wait", timeout_ms=1_500)
    stream = rig.stream(timeout_ms=1_500)
    assert rig.calls[0].deadline_ms == rig.calls[1].deadline_ms == 1_001_500
    rig.clock.advance(1.49)
    assert rig.heard == []
    rig.clock.advance(0.01)
    rig.turn()
    assert outcome(answer) == outcome(stream.receive()) == late
    assert rig.heard == ["end", "end"]
    assert rig.counts("Wait").handled[DEADLINE_EXCEEDED] == 1
    assert rig.is_empty


def test_an_answer_in_parts_is_joined_for_who_wants_it_whole(rig: LoopbackRig) -> None:
    answer = rig.unary("Wait")
    call = rig.calls[0]
    call.begin_reply(4)
    call.continue_reply(b"ab")
    assert call.queued == 0
    assert call.client is not None
    assert call.client.unread == 2
    call.continue_reply(b"cd")
    call.end_reply()
    rig.turn()
    assert outcome(answer) == b"abcd"
    assert (rig.counts("Wait").sent, rig.counts("Wait").sent_octets) == (1, 4)
    assert rig.is_empty


def test_an_answer_in_parts_may_be_taken_part_by_part(rig: LoopbackRig) -> None:
    parts = rig.channel.unary_in_parts(PREFIX + "Wait", b"")
    call = rig.calls[0]
    first = parts.receive()
    call.begin_reply(4)
    call.continue_reply(b"ab")
    call.continue_reply(b"cd")
    assert call.queued == 4
    rig.turn()
    assert outcome(first) == b"ab"
    assert call.queued == 2
    call.end_reply()
    assert outcome(parts.receive()) == b"cd"
    assert outcome(parts.receive()) is None
    rig.turn()
    assert rig.is_empty


def test_a_short_answer_is_one_part(rig: LoopbackRig) -> None:
    parts = rig.channel.unary_in_parts(PREFIX + "Echo", b"ab")
    assert outcome(parts.receive()) == b"ab"
    rig.turn()
    assert rig.is_empty


# Streams.


def test_a_call_offers_what_those_of_the_network_do(rig: LoopbackRig) -> None:
    rig.unary("Wait")
    rig.stream()
    unary, stream = rig.calls
    assert isinstance(unary, RepliesInParts)
    assert isinstance(stream, SendsMany)
    assert isinstance(rig.calls[1], SendsInParts)
    assert isinstance(rig.calls[1], KeepsOctets)
    assert isinstance(rig.calls[1], HasClient)


def test_messages_go_both_ways(rig: LoopbackRig) -> None:
    stream = rig.stream()
    stream.send(b"1")
    stream.half_close()
    stream.half_close()
    stream.send(b"2")
    assert rig.heard == [b"1", "half-close"]
    rig.calls[0].send(b"a")
    rig.calls[0].send(b"")
    rig.calls[0].finish()
    assert [outcome(stream.receive()) for _ in range(2)] == [b"a", b""]
    end = stream.receive()
    assert end.called
    assert outcome(end) is None
    rig.turn()
    counts = rig.counts("Both")
    assert (counts.received, counts.sent, counts.handled[OK]) == (1, 2, 1)
    assert rig.is_empty


def test_a_status_follows_the_messages_before_it(rig: LoopbackRig) -> None:
    stream = rig.stream()
    first = stream.receive()
    rig.calls[0].send(b"a")
    rig.calls[0].fail(11, "compacted")
    assert not first.called
    rig.turn()
    assert outcome(first) == b"a"
    assert outcome(stream.receive()) == (11, "compacted")
    assert outcome(stream.receive()) == (11, "compacted")
    assert "end" not in rig.heard
    rig.turn()
    assert rig.is_empty


def test_a_refusal_to_open_is_what_receiving_tells(rig: LoopbackRig) -> None:
    assert outcome(rig.stream("Refuse").receive()) == (9, "no")
    assert rig.is_empty


@pytest.mark.parametrize("messages", [[], [b"1"], [b"1", b"2"]])
def test_a_stream_of_the_server_s_is_served_when_its_one_request_is_whole(
    rig: LoopbackRig, messages: list[bytes]
) -> None:
    stream = rig.stream("One")
    for message in messages:
        stream.send(message)
    assert b"1" not in rig.heard
    stream.half_close()
    if len(messages) == 1:
        assert rig.heard == [b"1", "half-close"]
        rig.calls[0].finish()
    else:
        assert rig.heard == ["end"]
        code, text = outcome(stream.receive())
        assert code == INTERNAL
        assert str(text).startswith("cardinality violation: received ")
    assert rig.is_empty


def test_what_is_not_taken_is_queued_and_its_end_is_told(rig: LoopbackRig) -> None:
    stream = rig.stream()
    call = rig.calls[0]
    call.send(b"abc")
    call.send_all([b"d", b"e"])
    call.send_parts([b"f", b"gh"])
    assert call.queued == 8
    assert [outcome(stream.receive()) for _ in range(3)] == [b"abc", b"d", b"e"]
    assert call.queued == 3
    rig.turn()
    assert rig.heard == []
    assert outcome(stream.receive()) == b"fgh"
    assert rig.heard == [], "not in the middle of what the caller does"
    rig.turn()
    assert rig.heard == ["drain"]
    stream.cancel()
    assert rig.is_empty


def test_a_wait_may_be_given_up_without_loss(rig: LoopbackRig) -> None:
    stream = rig.stream()
    wait = stream.receive()
    wait.addErrback(lambda failure: failure.trap(CancelledError) and None)
    rig.calls[0].send(b"a")
    wait.cancel()
    rig.turn()
    assert outcome(stream.receive()) == b"a"


def test_who_cancels_a_stream_forgets_what_was_not_taken(rig: LoopbackRig) -> None:
    stream = rig.stream()
    rig.calls[0].send(b"abc")
    stream.cancel()
    assert rig.heard == ["end"]
    assert outcome(stream.receive()) == GONE
    stream.cancel()
    assert rig.heard == ["end"]
    assert rig.is_empty
    ended = rig.stream()
    rig.calls[1].send(b"abc")
    rig.calls[1].finish()
    ended.cancel()
    assert outcome(ended.receive()) == GONE
    assert rig.is_empty


def test_cancelling_ends_the_wait_for_a_message(rig: LoopbackRig) -> None:
    stream = rig.stream()
    wait = stream.receive()
    stream.cancel()
    rig.turn()
    assert outcome(wait) == GONE


# Bounds.


def test_the_calls_of_a_channel_are_bounded() -> None:
    rig = LoopbackRig(calls_max=2)
    waiting = [rig.unary("Wait"), rig.unary("Wait")]
    assert outcome(rig.unary("Echo")) == outcome(rig.stream().receive()) == TOO_MANY_CALLS
    assert rig.counts("Echo").started == 0
    rig.calls[0].reply(b"")
    assert outcome(rig.unary("Echo")) == b""
    other = rig.loopback.connect()
    assert outcome(other.unary(PREFIX + "Echo", b"")) == b""
    rig.calls[1].reply(b"")
    rig.turn()
    assert [outcome(one) for one in waiting] == [b"", b""]


def test_the_calls_of_all_channels_are_bounded() -> None:
    rig = LoopbackRig(calls_total_max=1, calls_few=0)
    stream = rig.stream()
    other = rig.loopback.connect()
    assert outcome(other.unary(PREFIX + "Echo", b"")) == TOO_MANY_CALLS
    rig.calls[0].send(b"a")
    rig.calls[0].finish()
    # What its caller has not taken holds the place.
    assert outcome(other.unary(PREFIX + "Echo", b"")) == TOO_MANY_CALLS
    assert outcome(stream.receive()) == b"a"
    assert outcome(other.unary(PREFIX + "Echo", b"")) == b""


def test_a_channel_has_its_few_calls_however_many_the_others_have() -> None:
    rig = LoopbackRig(calls_total_max=1, calls_few=2)
    for _ in range(2):
        rig.stream()
    assert outcome(rig.unary("Echo")) == TOO_MANY_CALLS
    other = rig.loopback.connect()
    for _ in range(2):
        other.stream(PREFIX + "Both")
    assert outcome(other.unary(PREFIX + "Echo", b"")) == TOO_MANY_CALLS


def test_a_stream_that_is_not_read_ends_at_the_bound_of_its_channel() -> None:
    rig = LoopbackRig(untaken_size_max=10)
    stream, other = rig.stream(), rig.stream()
    first, second = rig.calls
    first.send(b"123456")
    second.send(b"7890")
    second.send(b"")
    assert second.is_open
    second.send(b"x")
    assert not second.is_open
    assert rig.heard == [], "its service is about to say more"
    rig.turn()
    assert rig.heard == ["end"]
    assert outcome(other.receive()) == TOO_MUCH_UNTAKEN
    assert rig.counts("Both").handled[RESOURCE_EXHAUSTED] == 1
    assert outcome(stream.receive()) == b"123456"


def test_a_call_is_spent_when_it_has_ended_well_and_all_was_taken(rig: LoopbackRig) -> None:
    stream, failing = rig.stream(), rig.stream()
    call, other = rig.calls
    call.send(b"a")
    call.finish()
    assert not stream.is_spent
    assert outcome(stream.receive()) == b"a"
    assert stream.is_spent
    assert outcome(stream.receive()) is None
    assert not failing.is_spent
    other.fail(9, "no")
    assert not failing.is_spent
    assert not rig.stream("Refuse").is_spent
    rig.turn()
    assert outcome(failing.receive()) == (9, "no")


def test_one_message_may_be_larger_than_what_may_wait() -> None:
    rig = LoopbackRig(untaken_size_max=10)
    stream = rig.stream()
    rig.calls[0].send(bytes(11))
    assert rig.calls[0].is_open
    rig.calls[0].send(b"")
    assert outcome(stream.receive()) == TOO_MUCH_UNTAKEN


def test_beyond_the_bound_of_all_who_holds_most_is_ended() -> None:
    rig = LoopbackRig(untaken_total_size_max=10)
    streams = [rig.stream(), rig.stream(), rig.stream()]
    rig.calls[0].send(b"1")
    rig.calls[1].send(b"123456")
    rig.calls[2].send(b"123")
    assert all(call.is_open for call in rig.calls)
    rig.calls[2].send(b"4")
    assert [call.is_open for call in rig.calls] == [True, False, True]
    assert outcome(streams[1].receive()) == TOO_MUCH_UNTAKEN
    rig.channel.close()
    rig.turn()
    assert rig.is_empty


class CountedCalls(set[Held]):
    """Calls that count how often all of them are looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Held]:
        self.looks += 1
        return super().__iter__()


def test_all_calls_are_not_looked_at_for_each_that_is_ended() -> None:
    count = 2 * LARGEST_AT_ONCE
    rig = LoopbackRig(untaken_total_size_max=count)
    for _ in range(count):
        rig.stream()
    ledger = rig.loopback.ledger
    ledger.calls = calls = CountedCalls(ledger.calls)
    for call in (*rig.calls, *rig.calls):
        call.send(b"1")
        assert ledger.untaken <= count
    ended = sum(not call.is_open for call in rig.calls)
    assert ended >= LARGEST_AT_ONCE
    assert calls.looks <= 2
    rig.clock.advance(2 * LOOK_S)
    for call in rig.calls:
        call.send(b"1")
    assert 2 <= calls.looks <= 3, "what was found is too old"
    assert ledger.untaken <= count


def test_what_is_kept_for_calls_counts_as_unfinished_requests_do(rig: LoopbackRig) -> None:
    rig.stream(metadata=((b"a", b"1"),))
    call = rig.calls[0]
    fixed = rig.stats.unfinished_octets
    assert fixed > 2
    rig.stats.unfinished_connection_max = fixed + 10
    assert call.keep(10)
    assert not call.keep(11)
    assert call.keep(3)
    assert rig.stats.unfinished_octets == fixed + 3
    call.finish()
    assert rig.stats.unfinished_octets == 0


@pytest.mark.parametrize("over", [0, 1])
def test_large_metadata_are_refused_while_too_much_is_held(rig: LoopbackRig, over: int) -> None:
    rig.stats.unfinished_max = 100
    rig.stats.unfinished_octets = 100 + over
    heavy = ((b"a", bytes(8_192)),)
    expected: Any = (RESOURCE_EXHAUSTED, "too many octets of unfinished requests") if over else b""
    assert outcome(rig.unary("Echo", metadata=heavy)) == expected
    assert outcome(rig.unary("Echo")) == b""


def test_a_closed_channel_ends_its_calls_and_takes_no_more(rig: LoopbackRig) -> None:
    closed = (CANCELLED, "grpc: the client connection is closing")
    answer, stream = rig.unary("Wait"), rig.stream()
    other = rig.loopback.connect().unary(PREFIX + "Wait", b"")
    ended = rig.stream()
    rig.calls[3].send(b"not taken")
    rig.calls[3].finish()
    rig.channel.close()
    rig.turn()
    assert outcome(answer) == outcome(stream.receive()) == outcome(ended.receive()) == closed
    assert outcome(rig.unary("Echo")) == outcome(rig.stream().receive()) == closed
    assert rig.heard == ["end", "end"]
    rig.calls[2].reply(b"of another channel")
    rig.turn()
    assert outcome(other) == b"of another channel"
    assert rig.is_empty


# Who hears when.


class StepClock(Clock):
    """Runs what was due when an iteration began, and no more."""

    def step(self) -> None:
        for call in self.calls:
            if call.getTime() <= self.seconds():
                self.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)
                return


def test_callers_hear_a_share_in_each_iteration() -> None:
    clock = StepClock()
    rig = LoopbackRig(clock)
    heard: list[bytes] = []

    def slow(answer: bytes) -> None:
        heard.append(answer)
        clock.rightNow += 0.0015

    for _ in range(5):
        rig.unary("Wait").addCallback(slow)
    for call in rig.calls:
        call.reply(b"")
    counts = []
    for _ in range(3):
        clock.step()
        counts.append(len(heard))
    assert counts == [2, 4, 5]
    assert rig.is_empty


def test_what_fails_in_a_service_that_may_go_on_costs_its_call_only(rig: LoopbackRig) -> None:
    stream = rig.stream()

    def drained() -> None:
        raise ZeroDivisionError("a defect")

    rig.calls[0].on_drain = drained
    rig.calls[0].send(b"a")
    assert outcome(stream.receive()) == b"a"
    with capturedLogs():
        rig.turn()
    assert outcome(stream.receive()) == (INTERNAL, "the call failed unexpectedly")
    assert rig.heard == ["end"]
    assert rig.is_empty
