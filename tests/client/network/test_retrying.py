"""Calls that are made again, and the tokens that they show."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from etcdtw.client.channel import NotTakenError
from etcdtw.client.network.retry_rules import AUTH_NOT_ENABLED, INVALID_TOKEN, OLD_AUTH_REVISION
from etcdtw.client.network.retrying import Credentials
from etcdtw.grpc.call import (
    DEADLINE_EXCEEDED,
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    UNAUTHENTICATED,
    UNAVAILABLE,
    StatusError,
)
from etcdtw.wire import etcdserverpb as pb
from tests.client.network.network_rig import has_come, result_of
from tests.client.scripted_channel import ClientRig

READ, WRITE = "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Put"
LOST = StatusError(UNAVAILABLE, "error reading from server: EOF")
REFUSED = StatusError(UNAUTHENTICATED, INVALID_TOKEN)


def answers(rig: ClientRig, token: str) -> None:
    """Answer the last call, which asks for a token."""
    assert rig.calls[-1].path == "Authenticate"
    rig.calls[-1].answer(pb.AuthenticateResponse(token=token))


def shown(rig: ClientRig) -> list[bytes]:
    return [value for _, value in rig.calls[-1].metadata]


def test_a_read_goes_on_until_somebody_answers() -> None:
    rig = ClientRig(servers=3)
    answer = rig.channel.unary(READ, b"x")
    for _ in range(4):
        rig.calls[-1].fail(LOST)
        rig.clock.advance(0.03)
    rig.calls[-1].answer(pb.RangeResponse(count=1))
    assert pb.RangeResponse.FromString(result_of(answer)).count == 1
    assert [call.message for call in rig.calls] == [b"x"] * 5


def test_a_read_is_tried_a_hundred_times() -> None:
    rig = ClientRig()
    answer = rig.channel.unary(READ, b"")
    for _ in range(100):
        assert not has_come(answer)
        rig.calls[-1].fail(LOST)
        rig.clock.advance(0.03)
    assert result_of(answer) is LOST
    assert len(rig.calls) == 100


def test_a_change_is_made_once() -> None:
    rig = ClientRig()
    answer = rig.channel.unary(WRITE, b"")
    rig.calls[0].fail(LOST)
    rig.clock.advance(10)
    assert result_of(answer) is LOST
    assert len(rig.calls) == 1


def test_all_attempts_share_one_time_limit() -> None:
    rig = ClientRig()
    answer = rig.channel.unary(READ, b"", timeout_ms=1_000)
    rig.clock.advance(0.9)
    rig.calls[0].fail(LOST)
    rig.clock.advance(0.025)
    assert rig.calls[1].timeout_ms == 75
    rig.clock.advance(0.06)
    rig.calls[1].fail(LOST)
    rig.clock.advance(0.025)
    error = result_of(answer)
    assert error.code == DEADLINE_EXCEEDED
    assert not isinstance(error, NotTakenError)
    assert len(rig.calls) == 2


def test_cancelling_ends_what_is_under_way() -> None:
    rig = ClientRig()
    answer = rig.channel.unary(READ, b"")
    rig.calls[0].fail(LOST)
    rig.clock.advance(0.03)
    answer.cancel()
    assert isinstance(result_of(answer), CancelledError)
    assert rig.calls[1].is_cancelled


def test_cancelling_ends_the_wait_for_another_attempt() -> None:
    rig = ClientRig()
    answer = rig.channel.unary(READ, b"")
    rig.calls[0].fail(LOST)
    answer.cancel()
    assert isinstance(result_of(answer), CancelledError)
    assert rig.clock.getDelayedCalls() == []


def test_the_first_call_fetches_a_token_and_all_show_it() -> None:
    rig = ClientRig(user="u")
    pending = [rig.channel.unary(READ, b""), rig.channel.unary(WRITE, b"")]
    assert [call.path for call in rig.calls] == ["Authenticate"]
    request = pb.AuthenticateRequest.FromString(rig.calls[0].message)
    assert (request.name, request.password) == ("u", "secret")
    answers(rig, "t1")
    assert [call.path for call in rig.calls[1:]] == ["Range", "Put"]
    assert shown(rig) == [b"t1"]
    assert not any(has_come(call) for call in pending)


def test_waiting_for_a_token_counts_against_the_calls_time() -> None:
    rig = ClientRig(user="u")
    late = rig.channel.unary(WRITE, b"", timeout_ms=500)
    patient = rig.channel.unary(WRITE, b"")
    rig.clock.advance(0.5)
    error = result_of(late)
    assert isinstance(error, NotTakenError)
    assert error.code == DEADLINE_EXCEEDED
    answers(rig, "t1")
    assert [call.path for call in rig.calls] == ["Authenticate", "Put"]
    assert not has_come(patient)
    assert rig.clock.getDelayedCalls() == []


def test_who_may_not_have_a_token_hears_why_and_the_next_call_tries_again() -> None:
    rig = ClientRig(user="u")
    error = StatusError(INVALID_ARGUMENT, "etcdserver: authentication failed")
    answer = rig.channel.unary(WRITE, b"")
    rig.calls[0].fail(error)
    assert result_of(answer) is error
    rig.channel.unary(WRITE, b"")
    answers(rig, "t1")
    assert shown(rig) == [b"t1"]


def test_a_user_is_no_hindrance_while_users_are_not_asked_for() -> None:
    rig = ClientRig(user="u")
    rig.channel.unary(WRITE, b"")
    rig.calls[0].fail(StatusError(FAILED_PRECONDITION, AUTH_NOT_ENABLED))
    assert rig.calls[1].path == "Put"
    assert shown(rig) == []


def test_a_refused_token_is_renewed_once_for_all_calls() -> None:
    rig = ClientRig(user="u")
    pending: list[Deferred[Any]] = [rig.channel.unary(WRITE, b"")]
    answers(rig, "t1")
    pending += [rig.channel.unary(READ, b""), rig.channel.unary(READ, b"")]
    first = rig.calls[1:4]
    first[0].fail(REFUSED)
    assert rig.calls[-1].path == "Authenticate"
    first[1].fail(REFUSED)
    late = rig.channel.unary(READ, b"new")
    answers(rig, "t2")
    first[2].fail(REFUSED)
    paths = [call.path for call in rig.calls]
    assert paths.count("Authenticate") == 2
    assert [call.metadata for call in rig.calls[-4:]] == [((b"token", b"t2"),)] * 4
    assert not has_come(late)


def test_a_token_that_is_refused_twice_is_told() -> None:
    rig = ClientRig(user="u")
    answer = rig.channel.unary(WRITE, b"")
    answers(rig, "t1")
    rig.calls[-1].fail(REFUSED)
    answers(rig, "t2")
    rig.calls[-1].fail(REFUSED)
    assert result_of(answer) is REFUSED


def test_users_may_change_five_times_while_a_call_is_made() -> None:
    rig = ClientRig(user="u")
    old = StatusError(INVALID_ARGUMENT, OLD_AUTH_REVISION)
    answer = rig.channel.unary(WRITE, b"")
    for number in range(6):
        answers(rig, f"t{number}")
        rig.calls[-1].fail(old)
    assert result_of(answer) is old


def test_without_a_user_a_call_is_made_again_when_users_have_changed() -> None:
    rig = ClientRig()
    answer = rig.channel.unary(WRITE, b"")
    rig.calls[-1].fail(StatusError(INVALID_ARGUMENT, OLD_AUTH_REVISION))
    rig.calls[-1].answer(pb.PutResponse())
    assert result_of(answer) == b""
    assert len(rig.calls) == 2


def test_without_a_user_a_refusal_is_told() -> None:
    rig = ClientRig()
    answer = rig.channel.unary(READ, b"")
    rig.calls[-1].fail(REFUSED)
    assert result_of(answer) is REFUSED


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Credentials("u", "secret"))
