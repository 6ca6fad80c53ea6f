"""The Watch service: decoding, pauses, bounds, and the end of a stream."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from etcdtw.grpc.call import (
    BIDI_STREAM,
    INTERNAL,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    MethodTable,
)
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.rpc.guard import Guard
from etcdtw.rpc.watch import (
    LOOKS_MAX,
    OUTPUT_BYTES_MAX,
    REQUESTS_WHILE_PAUSED_MAX,
    WatchRights,
    WatchService,
)
from etcdtw.wire import etcdserverpb as pb
from tests.support.fake_facade import FakeFacade
from tests.support.guard_rig import ANN, ROOT, WRONG, GuardRig
from tests.support.recorded_call import BatchingCall, RecordedCall
from tests.support.watch_rig import WatchRig

ELECTION_TIMEOUT_S = 1.0


class ServiceRig(WatchRig, FakeFacade):
    """A Watch service over the hub of a `WatchRig`; it is the node as well."""

    store: Any

    def __init__(self, guard: Guard | None = None) -> None:
        super().__init__()
        self.clock: Any = Clock()
        self.leader_id = 2
        self.rights = WatchRights(self.clock)
        self.service = WatchService(self, ELECTION_TIMEOUT_S, guard, self.rights)

    def open(self, **metadata: str) -> RecordedCall:
        call = RecordedCall(**metadata)
        self.service.opened(call)
        return call


@pytest.fixture
def rig() -> ServiceRig:
    return ServiceRig()


def create(key: bytes = b"k", **options: Any) -> bytes:
    request = pb.WatchCreateRequest(key=key, **options)
    octets: bytes = pb.WatchRequest(create_request=request).SerializeToString()
    return octets


CANCEL = pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=0)).SerializeToString()
PROGRESS = pb.WatchRequest(progress_request=pb.WatchProgressRequest()).SerializeToString()


def responses(call: RecordedCall) -> list[Any]:
    return [pb.WatchResponse.FromString(octets) for octets in call.take()]


def test_the_method_is_registered_as_a_bidirectional_stream(rig: ServiceRig) -> None:
    methods = MethodTable()
    rig.service.register(methods)
    method = methods.find(b"/etcdserverpb.Watch/Watch")
    assert method is not None
    assert method.kind == BIDI_STREAM


def test_a_stream_creates_delivers_reports_progress_and_cancels(rig: ServiceRig) -> None:
    call = rig.open()
    call.receive(create())
    rig.put(b"k")
    call.receive(PROGRESS)
    call.receive(CANCEL)
    rig.put(b"k")
    seen = [(r.created, len(r.events), r.watch_id, r.canceled) for r in responses(call)]
    assert seen == [
        (True, 0, 0, False),
        (False, 1, 0, False),
        (False, 0, -1, False),
        (False, 0, 0, True),
    ]


def test_responses_for_one_stream_go_down_together_where_the_call_can(rig: ServiceRig) -> None:
    call = BatchingCall()
    rig.service.opened(call)
    for _ in range(3):
        call.receive(create())
    rig.put(b"k")
    assert call.batches == [1, 1, 1, 3]
    assert len(call.take()) == 6


class KeepingCall(RecordedCall):
    """A call that counts what is kept for it, up to a bound."""

    kept = 0

    def keep(self, octets: int) -> bool:
        self.kept = octets
        return octets <= 100


def test_keys_of_watchers_count_until_they_are_cancelled_and_end_a_stream_beyond_its_bound(
    rig: ServiceRig,
) -> None:
    call = KeepingCall()
    rig.service.opened(call)
    call.receive(create(b"k" * 40, range_end=b"l" * 50))
    assert call.kept == 90
    call.receive(CANCEL)
    assert call.kept == 0
    call.receive(create(b"k" * 100))
    assert call.is_open
    call.receive(create(b"k"))
    assert call.status is not None
    assert call.status[0] == RESOURCE_EXHAUSTED
    assert rig.hub.streams == 0


def test_an_empty_request_is_ignored(rig: ServiceRig) -> None:
    call = rig.open()
    call.receive(b"")
    assert call.is_open
    assert call.take() == []


def test_octets_that_are_no_request_end_the_stream_as_internal(rig: ServiceRig) -> None:
    call = rig.open()
    call.receive(create())
    call.receive(b"\xff")
    assert call.status is not None
    code, text = call.status
    assert code == INTERNAL
    assert text.startswith("grpc: failed to unmarshal the received message: ")
    assert rig.hub.streams == 0


def test_a_half_closed_stream_keeps_delivering(rig: ServiceRig) -> None:
    call = rig.open()
    call.receive(create())
    call.half_close()
    rig.put(b"k")
    assert call.is_open
    assert len(call.take()) == 2


def test_bug_18784_a_client_that_goes_away_leaves_nothing_behind(rig: ServiceRig) -> None:
    call = rig.open(hasleader="true")
    call.receive(create())
    call.receive(create(start_revision=1))
    call.cancel()
    assert (rig.hub.streams, rig.hub.watchers) == (0, 0)
    assert rig.clock.getDelayedCalls() == []


# Slow clients.


def test_a_stream_is_paused_above_the_mark_and_catches_up_when_drained(rig: ServiceRig) -> None:
    call = rig.open()
    call.receive(create())
    call.take()
    call.is_slow = True
    value = bytes(100_000)
    for _ in range(10):
        rig.put(b"k", value)
    assert OUTPUT_BYTES_MAX < call.queued < OUTPUT_BYTES_MAX + 110_000
    sent = [event.kv.mod_revision for r in responses(call) for event in r.events]
    call.drain()
    rig.settle()
    sent += [event.kv.mod_revision for r in responses(call) for event in r.events]
    assert sent == list(range(2, 12))


def test_a_client_that_never_reads_may_ask_a_bounded_number_of_times(rig: ServiceRig) -> None:
    call = rig.open()
    call.receive(create())
    call.is_slow = True
    rig.put(b"k", bytes(OUTPUT_BYTES_MAX))
    for _ in range(REQUESTS_WHILE_PAUSED_MAX):
        call.receive(PROGRESS)
    assert call.is_open
    call.receive(PROGRESS)
    assert call.status is not None
    assert call.status[0] == RESOURCE_EXHAUSTED
    assert "read the stream" in call.status[1]
    assert rig.hub.streams == 0


def test_reading_grants_the_requests_anew(rig: ServiceRig) -> None:
    call = rig.open()
    call.receive(create())
    for _ in range(2):
        call.is_slow = True
        rig.put(b"k", bytes(OUTPUT_BYTES_MAX))
        for _ in range(REQUESTS_WHILE_PAUSED_MAX // 2 + 1):
            call.receive(PROGRESS)
        call.drain()
    assert call.is_open


# Leaders.


def test_a_stream_that_asks_for_a_leader_is_refused_without_one(rig: ServiceRig) -> None:
    rig.leader_id = 0
    call = rig.open(hasleader="true")
    assert call.status == (UNAVAILABLE, "etcdserver: no leader")
    assert rig.hub.streams == 0


def test_without_the_metadata_a_stream_opens_and_stays(rig: ServiceRig) -> None:
    rig.leader_id = 0
    calls = [rig.open(), rig.open(hasleader="True")]
    rig.clock.advance(100)
    assert all(call.is_open for call in calls)


def test_a_stream_ends_after_three_election_timeouts_without_a_leader(rig: ServiceRig) -> None:
    calls = [rig.open(hasleader="true"), rig.open(hasleader="true")]
    calls[0].receive(create())
    rig.clock.advance(1)
    rig.leader_id = 0
    rig.clock.pump([1, 1])
    assert all(call.is_open for call in calls)
    rig.clock.advance(1)
    assert [call.status for call in calls] == [(UNAVAILABLE, "etcdserver: no leader")] * 2
    assert (rig.hub.streams, rig.hub.watchers) == (0, 0)
    assert rig.clock.getDelayedCalls() == []


def test_a_leader_that_returns_in_time_keeps_the_stream(rig: ServiceRig) -> None:
    call = rig.open(hasleader="true")
    for _ in range(3):
        rig.leader_id = 0
        rig.clock.pump([1, 1])
        rig.leader_id = 2
        rig.clock.advance(1)
    assert call.is_open


@pytest.mark.parametrize(
    ("caller", "text"),
    [
        (NOBODY_KNOWN, "code = InvalidArgument desc = etcdserver: user name is empty"),
        (WRONG, "code = Unauthenticated desc = etcdserver: invalid auth token"),
        (ANN, "code = PermissionDenied desc = etcdserver: permission denied"),
    ],
)
def test_a_watch_that_its_caller_may_not_have_is_refused_and_the_stream_goes_on(
    caller: Caller, text: str
) -> None:
    users = GuardRig()
    users.permit(b"k")
    rig = ServiceRig(users.guard)
    call = rig.open()
    call.caller = caller
    # One key does not open everything behind it (GHSA-xg4h-6gfc-h4m8).
    call.receive(create(b"k", range_end=b"\0"))
    (refused,) = responses(call)
    assert (refused.watch_id, refused.created, refused.canceled) == (-1, True, True)
    assert refused.cancel_reason == f"rpc error: {text}"
    call.receive(create(b"k", start_revision=-1))
    (negative,) = responses(call)
    assert "compacted" in negative.cancel_reason
    call.caller = ANN
    call.receive(create(b"k"))
    (made,) = responses(call)
    assert (made.created, made.canceled) == (True, False)


def rights_rig() -> tuple[ServiceRig, GuardRig]:
    """Return a service whose watches end with the right to them; ``ann`` may have k to n."""
    users = GuardRig()
    users.permit(b"k", b"n")
    rig = ServiceRig(users.guard)
    users.auth.on_change = rig.rights.changed
    return rig, users


def test_a_watch_ends_with_the_right_to_it_and_others_of_the_stream_go_on() -> None:
    rig, users = rights_rig()
    call = rig.open()
    call.caller = ANN
    for key, options in (
        (b"k", {}),
        (b"l", {}),
        (b"k", {"range_end": b"l"}),
        (b"m", {"range_end": b"n"}),
    ):
        call.receive(create(key, **options))
    assert [r.created for r in responses(call)] == [True] * 4
    users.permit(b"m", b"n")
    rig.clock.advance(0)
    assert responses(call) == []
    users.auth.revoke_permission("r", b"k", b"n")
    rig.clock.advance(0)
    told = responses(call)
    assert {r.watch_id for r in told} == {0, 1, 2}
    denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    assert {(r.created, r.canceled, r.cancel_reason) for r in told} == {(False, True, denied)}
    # A token that is over ends nothing, a user who is gone does.
    users.tokens.disabled()
    users.auth.add_role("another")
    rig.clock.advance(0)
    assert responses(call) == []
    users.auth.delete_user("ann")
    rig.clock.advance(0)
    assert [r.watch_id for r in responses(call)] == [3]


def test_who_came_before_users_were_asked_is_asked_when_they_are() -> None:
    rig, users = rights_rig()
    users.auth.disable()
    calls = [rig.open(), rig.open()]
    calls[1].caller = ROOT
    for call in calls:
        call.receive(create(b"z"))
        responses(call)
    rig.clock.advance(0)
    users.auth.enable()
    users.tokens.assigned("r.1", "root")
    rig.clock.advance(0)
    (told,) = responses(calls[0])
    assert told.cancel_reason.endswith("user name is empty")
    assert responses(calls[1]) == []


def test_very_many_watches_are_looked_at_step_by_step() -> None:
    rig, users = rights_rig()
    calls = [rig.open(), rig.open(), rig.open()]
    for call in calls:
        call.caller = ANN
        for _ in range(LOOKS_MAX):
            call.receive(create(b"k"))
        responses(call)
    users.auth.delete_user("ann")
    calls[2].cancel()
    counts = []
    while rig.clock.calls:
        rig.clock.calls.pop(0).func()  # one step, not those that it asks for as well
        counts.append(sum(len(responses(call)) for call in calls[:2]))
    assert sum(counts) == 2 * LOOKS_MAX
    assert max(counts) <= LOOKS_MAX
