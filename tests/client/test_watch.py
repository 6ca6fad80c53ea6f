"""Watches: in order, resumed, told of compaction, cancelled clean."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import ensureDeferred

from etcdtw.client.network.retry_rules import INVALID_TOKEN
from etcdtw.client.watch import (
    RESUMES_MAX,
    CompactedError,
    Watch,
    WatchRefusedError,
    watch_request,
)
from etcdtw.grpc.call import PERMISSION_DENIED, UNAUTHENTICATED, UNAVAILABLE, StatusError
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import mvccpb
from tests.client.network.network_rig import result_of
from tests.client.scripted_channel import ClientRig, ScriptedStream

LOST = StatusError(UNAVAILABLE, "error reading from server: EOF")


class WatchRig(ClientRig):
    """A watch on ``k``, and what its servers say."""

    def __init__(self, user: str | None = None, **options: Any) -> None:
        super().__init__(user=user)
        self.watch = Watch(self.channel, watch_request("k", **options))

    @property
    def stream(self) -> ScriptedStream:
        return self.streams[-1]

    @property
    def asked_revision(self) -> int:
        """Where the newest stream was asked to begin."""
        request = pb.WatchRequest.FromString(self.stream.sent[0])
        return request.create_request.start_revision

    def created(self, revision: int) -> None:
        self.stream.push(
            pb.WatchResponse(created=True, header=pb.ResponseHeader(revision=revision))
        )

    def events(self, *revisions: int, **more: Any) -> None:
        self.stream.push(response(*revisions, **more))


def response(*revisions: int, **more: Any) -> pb.WatchResponse:
    found = pb.WatchResponse(**more)
    for revision in revisions:
        found.events.append(mvccpb.Event(kv=mvccpb.KeyValue(key=b"k", mod_revision=revision)))
    found.header.revision = max(revisions, default=found.header.revision)
    return found


def revisions_of(found: pb.WatchResponse) -> list[int]:
    return [event.kv.mod_revision for event in found.events]


def test_a_watch_begins_when_it_is_made() -> None:
    rig = WatchRig(start_revision=5)
    assert rig.stream.path == "Watch"
    assert rig.asked_revision == 5
    assert rig.stream.metadata == ((b"hasleader", b"true"),)


def test_its_start_tells_where_it_begins() -> None:
    rig = WatchRig()
    started = rig.watch.start()
    assert not started.called
    rig.created(7)
    assert result_of(started) == 8


def test_events_come_as_they_are_taken() -> None:
    rig = WatchRig()
    rig.created(7)
    rig.events(8, 9)
    rig.events(10)

    async def take() -> list[int]:
        return [(await anext(rig.watch)).kv.mod_revision for _ in range(3)]

    assert result_of(ensureDeferred(take())) == [8, 9, 10]


def test_it_goes_on_behind_the_last_event_it_has_seen() -> None:
    rig = WatchRig()
    rig.created(7)
    rig.events(8, 9)
    assert revisions_of(result_of(rig.watch.receive())) == [8, 9]
    following = rig.watch.receive()
    rig.stream.end(LOST)
    rig.clock.advance(0.1)
    assert rig.asked_revision == 10
    rig.created(20)
    rig.events(12)
    assert revisions_of(result_of(following)) == [12]
    assert rig.watch.resumes == 1


def test_it_misses_nothing_when_its_server_is_lost_before_the_first_event() -> None:
    rig = WatchRig()
    following = rig.watch.receive()
    rig.created(7)
    rig.stream.end(LOST)
    rig.clock.advance(0.1)
    assert rig.asked_revision == 8
    assert not following.called


def test_it_goes_on_behind_what_it_was_told_of_progress() -> None:
    rig = WatchRig(progress_notify=True)
    rig.created(7)
    rig.stream.push(response(header=pb.ResponseHeader(revision=30)))
    assert revisions_of(result_of(rig.watch.receive())) == []
    assert rig.watch.next_revision == 31


def test_parts_of_a_response_come_as_one() -> None:
    rig = WatchRig(fragment=True)
    rig.created(7)
    following = rig.watch.receive()
    rig.events(8, fragment=True)
    rig.events(8, fragment=True)
    assert not following.called
    rig.events(8)
    assert revisions_of(result_of(following)) == [8, 8, 8]


def test_half_a_response_is_asked_for_again() -> None:
    rig = WatchRig(fragment=True)
    rig.created(7)
    following = rig.watch.receive()
    rig.events(8, fragment=True)
    rig.stream.end(LOST)
    rig.clock.advance(0.1)
    assert rig.asked_revision == 8
    rig.events(8, fragment=True)
    rig.events(8)
    assert revisions_of(result_of(following)) == [8, 8]


def test_compaction_is_told_with_its_revision() -> None:
    rig = WatchRig(start_revision=3)
    rig.created(100)
    rig.stream.push(pb.WatchResponse(canceled=True, compact_revision=50))
    error = result_of(rig.watch.receive())
    assert isinstance(error, CompactedError)
    assert error.compact_revision == 50
    assert result_of(rig.watch.receive()) is None


def test_a_refusal_is_told_with_its_reason() -> None:
    rig = WatchRig()
    rig.stream.push(pb.WatchResponse(created=True, canceled=True, cancel_reason="denied"))
    error = result_of(rig.watch.start())
    assert isinstance(error, WatchRefusedError)
    assert str(error) == "denied"


def test_an_error_that_is_no_loss_is_told() -> None:
    rig = WatchRig()
    error = StatusError(PERMISSION_DENIED, "etcdserver: permission denied")
    rig.stream.end(error)
    assert result_of(rig.watch.receive()) is error


@pytest.mark.parametrize("is_waiting", [False, True])
def test_a_cancelled_watch_has_no_more_and_its_server_hears_of_it(is_waiting: bool) -> None:
    rig = WatchRig()
    rig.created(7)
    following = rig.watch.receive() if is_waiting else None
    rig.watch.cancel()
    if following is None:
        following = rig.watch.receive()
    assert result_of(following) is None
    assert rig.stream.is_cancelled


def test_a_watch_that_is_cancelled_while_it_waits_to_go_on_ends() -> None:
    rig = WatchRig()
    following = rig.watch.receive()
    rig.stream.end(LOST)
    rig.watch.cancel()
    assert result_of(following) is None
    assert rig.clock.getDelayedCalls() == []
    assert len(rig.streams) == 1


def test_cancelling_what_waits_loses_no_event() -> None:
    rig = WatchRig()
    rig.created(7)
    rig.watch.receive().addErrback(lambda _: None).cancel()
    rig.events(8)
    assert revisions_of(result_of(rig.watch.receive())) == [8]


def test_a_watch_that_finds_no_server_gives_up_in_the_end() -> None:
    rig = WatchRig()
    following = rig.watch.receive()
    for _ in range(RESUMES_MAX):
        rig.stream.end(LOST)
        assert not following.called
        rig.clock.advance(3.0)
    rig.stream.end(LOST)
    assert result_of(following) is LOST


def test_a_refused_token_is_renewed_and_the_watch_made_again() -> None:
    rig = WatchRig(user="u")
    assert rig.streams == []
    rig.calls[0].answer(pb.AuthenticateResponse(token="t1"))
    started = rig.watch.start()
    reason = f"rpc error: code = Unauthenticated desc = {INVALID_TOKEN}"
    rig.stream.push(pb.WatchResponse(created=True, canceled=True, cancel_reason=reason))
    rig.calls[1].answer(pb.AuthenticateResponse(token="t2"))
    assert rig.stream.metadata[-1] == (b"token", b"t2")
    rig.created(7)
    assert result_of(started) == 8


def test_progress_is_asked_for_on_the_watchs_own_stream() -> None:
    rig = WatchRig()
    rig.watch.request_progress()
    assert pb.WatchRequest.FromString(rig.stream.sent[1]).HasField("progress_request")


def test_a_refused_token_of_the_stream_is_renewed_as_well() -> None:
    rig = WatchRig(user="u")
    rig.calls[0].answer(pb.AuthenticateResponse(token="t1"))
    started = rig.watch.start()
    refused = StatusError(UNAUTHENTICATED, INVALID_TOKEN)
    rig.stream.end(refused)
    rig.calls[1].answer(pb.AuthenticateResponse(token="t2"))
    assert rig.stream.metadata[-1] == (b"token", b"t2")
    rig.stream.end(refused)
    assert result_of(started) is refused


def test_a_stream_that_its_server_ends_is_opened_elsewhere() -> None:
    rig = WatchRig()
    rig.created(7)
    following = rig.watch.receive()
    rig.stream.end(None)
    rig.clock.advance(0.1)
    rig.events(8)
    assert revisions_of(result_of(following)) == [8]


def test_a_user_who_gets_no_token_hears_why() -> None:
    rig = WatchRig(user="u")
    error = StatusError(PERMISSION_DENIED, "no")
    rig.calls[0].fail(error)
    following = rig.watch.receive()
    rig.calls[1].fail(error)
    assert result_of(following) is error


def test_a_watch_that_was_cancelled_does_not_begin() -> None:
    rig = WatchRig(user="u")
    rig.watch.cancel()
    rig.watch.cancel()
    rig.calls[0].answer(pb.AuthenticateResponse(token="t1"))
    assert rig.streams == []
    rig.watch.request_progress()
    assert result_of(rig.watch.start()) == 0
