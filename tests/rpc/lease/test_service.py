"""The Lease service's unary calls over a node that the test drives."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest

from etcdtw.grpc.call import BIDI_STREAM, NOT_FOUND, UNARY, UNAVAILABLE, MethodTable, StatusError
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.lease.arming import Listing
from etcdtw.lease.by_id import ById
from etcdtw.lease.errors import LeaseNotFoundError
from etcdtw.lease.lease import Lease
from etcdtw.lease.lessor import LOOKS_MAX
from etcdtw.mvcc.applied import Applied
from etcdtw.rpc.kv.read_queue import PAUSE_S, ReadQueue
from etcdtw.rpc.lease.listing import STEP_LEASES, LeaseLists
from etcdtw.rpc.lease.listing_check import STEP_LEASES as CHECKED_LEASES
from etcdtw.rpc.lease.listing_check import LeaseCheck
from etcdtw.rpc.lease.service import LeaseService
from etcdtw.wire import etcdserverpb as pb
from tests.support.guard_rig import ANN, ROOT, GuardRig
from tests.support.lease_rig import LeaseRig
from tests.support.recorded_call import RecordedCall


@pytest.fixture
def rig() -> LeaseRig:
    return LeaseRig()


def test_all_five_methods_are_registered(rig: LeaseRig) -> None:
    methods = MethodTable()
    rig.service.register(methods)
    names = ["Grant", "KeepAlive", "Leases", "Revoke", "TimeToLive"]
    assert methods.paths() == ["/etcdserverpb.Lease/Lease" + name for name in names]
    kinds = [methods.find(path.encode()) for path in methods.paths()]
    assert [method.kind for method in kinds if method is not None] == [
        UNARY,
        BIDI_STREAM,
        UNARY,
        UNARY,
        UNARY,
    ]


# Grant and revoke.


class FullQuota:
    is_tight = True

    def __init__(self) -> None:
        self.costs: list[int] = []

    def admit(self, cost: int) -> bool:
        self.costs.append(cost)
        return False

    def hold(self, cost: int, done: Any) -> Any:
        raise AssertionError("not admitted")


def test_what_is_proposed_holds_no_octets_that_members_read_differently(rig: LeaseRig) -> None:
    rig.service.grant(RecordedCall(), b"\x0a\x00\x08\x0a\x10\x07")
    rig.service.revoke(RecordedCall(), b"\x0a\x00\x08\x07")
    assert [message for _, message, *_ in rig.proposals] == [
        pb.LeaseGrantRequest(TTL=10, ID=7).SerializeToString(),
        pb.LeaseRevokeRequest(ID=7).SerializeToString(),
    ]


def test_a_grant_that_the_quota_refuses_is_not_proposed_and_a_revoke_is(rig: LeaseRig) -> None:
    quota = FullQuota()
    service = LeaseService(rig, Random(1).getrandbits, 1.0, quota=quota)
    call = RecordedCall()
    service.grant(call, pb.LeaseGrantRequest(TTL=10).SerializeToString())
    assert call.status == (8, "etcdserver: mvcc: database space exceeded")
    assert (quota.costs, rig.proposals) == ([64], [])
    service.revoke(RecordedCall(), pb.LeaseRevokeRequest(ID=1).SerializeToString())
    assert len(rig.proposals) == 1


def test_a_grant_proposes_the_request_and_answers_what_apply_made_of_it(rig: LeaseRig) -> None:
    call = RecordedCall()
    message = pb.LeaseGrantRequest(TTL=60, ID=-7).SerializeToString()
    rig.service.grant(call, message)
    body = pb.LeaseGrantResponse(ID=-7, TTL=60).SerializeToString()
    assert rig.settle(Applied(9, body, None)) == (8, message)
    reply = pb.LeaseGrantResponse.FromString(call.replies[0])
    assert (reply.ID, reply.TTL, reply.error) == (-7, 60, "")
    assert (reply.header.revision, reply.header.member_id) == (9, 2)


def test_a_grant_without_an_id_proposes_a_positive_one(rig: LeaseRig) -> None:
    for _ in range(100):
        rig.service.grant(RecordedCall(), pb.LeaseGrantRequest(TTL=60).SerializeToString())
    requests = [pb.LeaseGrantRequest.FromString(p[1]) for p in rig.proposals]
    assert all(0 < request.ID < 2**63 and request.TTL == 60 for request in requests)
    assert len({request.ID for request in requests}) == 100
    assert [p[2].ID for p in rig.proposals] == [request.ID for request in requests]


def test_a_chosen_id_is_not_in_use() -> None:
    rig = LeaseRig()
    rig.lessor.grant(11, 60)
    drawn = [0, 11, 12]
    rig.service = LeaseService(rig, lambda bits: drawn.pop(0), 1.0)
    rig.service.grant(RecordedCall(), b"")
    assert rig.proposals[0][2].ID == 12


def test_a_revoke_is_proposed_and_its_error_is_the_calls(rig: LeaseRig) -> None:
    call, other = RecordedCall(), RecordedCall()
    message = pb.LeaseRevokeRequest(ID=3).SerializeToString()
    rig.service.revoke(call, message)
    rig.service.revoke(other, message)
    assert rig.settle(Applied(6, b"", None)) == (9, message)
    rig.settle(Applied(6, b"", LeaseNotFoundError(3)))
    assert pb.LeaseRevokeResponse.FromString(call.replies[0]).header.revision == 6
    assert other.status == (NOT_FOUND, "etcdserver: requested lease not found")


@pytest.mark.parametrize("method", ["grant", "revoke", "time_to_live", "leases"])
def test_octets_that_are_no_request_are_refused(rig: LeaseRig, method: str) -> None:
    with pytest.raises(StatusError):
        getattr(rig.service, method)(RecordedCall(), b"\xff")


# Time to live.


def time_to_live(rig: LeaseRig, lease_id: int, keys: bool = False) -> Any:
    call = RecordedCall()
    request = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
    rig.service.time_to_live(call, request.SerializeToString())
    rig.confirm()
    return pb.LeaseTimeToLiveResponse.FromString(call.replies[0])


def test_time_to_live_tells_whole_seconds_left_and_what_was_granted(rig: LeaseRig) -> None:
    rig.lessor.grant(3, 60)
    rig.lessor.advance(10_500)
    reply = time_to_live(rig, 3)
    assert (reply.ID, reply.TTL, reply.grantedTTL) == (3, 49, 60)
    assert reply.header.revision == 5
    assert not reply.keys


def test_time_to_live_lists_the_attached_keys_on_demand(rig: LeaseRig) -> None:
    rig.lessor.grant(3, 60)
    for key in (b"b", b"a"):
        rig.backend.attach(3, key)
    assert list(time_to_live(rig, 3, keys=True).keys) == [b"a", b"b"]


def test_time_to_live_of_an_unknown_lease_is_minus_one_and_no_error(rig: LeaseRig) -> None:
    reply = time_to_live(rig, 4, keys=True)
    assert (reply.ID, reply.TTL, reply.grantedTTL) == (4, -1, 0)


def test_time_to_live_fails_with_its_read_or_without_the_lead(rig: LeaseRig) -> None:
    request = pb.LeaseTimeToLiveRequest(ID=3).SerializeToString()
    calls = [RecordedCall(), RecordedCall()]
    for call in calls:
        rig.service.time_to_live(call, request)
    rig.confirm(StatusError(UNAVAILABLE, "etcdserver: request timed out"))
    rig.lessor.demote()
    rig.confirm()
    assert [call.status for call in calls] == [
        (UNAVAILABLE, "etcdserver: request timed out"),
        (UNAVAILABLE, "etcdserver: leader changed"),
    ]


def test_leases_are_listed_by_expiry(rig: LeaseRig) -> None:
    for lease_id, ttl_s in ((1, 30), (-2, 10), (3, 20)):
        rig.lessor.grant(lease_id, ttl_s)
    reply = pb.LeaseLeasesResponse.FromString(rig.service.leases(RecordedCall(), b"") or b"")
    assert [lease.ID for lease in reply.leases] == [-2, 3, 1]
    assert reply.header.revision == 5


def test_very_many_leases_are_listed_in_pieces_and_one_list_serves_those_that_waited(
    rig: LeaseRig,
) -> None:
    count = 2 * LOOKS_MAX + 1
    for lease_id in range(1, count + 1):
        rig.lessor.grant(lease_id, 100 + count - lease_id)
    calls = [RecordedCall() for _ in range(3)]
    assert rig.service.leases(calls[0], b"") is None
    assert rig.service.leases(calls[1], b"") is None
    gone = RecordedCall()
    assert rig.service.leases(gone, b"") is None
    gone.fail(1, "cancelled")
    rig.clock.advance(0)
    assert rig.service.leases(calls[2], b"") is None
    turns = 0
    while not all(call.replies for call in calls):
        rig.clock.advance(0)
        turns += 1
        assert turns < 100
    for call in calls:
        found = pb.LeaseLeasesResponse.FromString(call.replies[0])
        assert [lease.ID for lease in found.leases] == list(range(count, 0, -1))
        assert found.header.revision == 5
    assert gone.replies == []


def test_a_list_is_made_in_line_with_long_reads_and_answers_one_call_at_a_time(
    rig: LeaseRig,
) -> None:
    for lease_id in range(1, 2 * STEP_LEASES + 2):
        rig.lessor.grant(lease_id, 100)
    queue = ReadQueue(rig.clock, share_s=0, activity=itertools.count().__next__)
    service = LeaseService(rig, Random(1).getrandbits, 1.0, reads=queue)
    first, *others = calls = [RecordedCall() for _ in range(4)]
    assert [service.leases(call, b"") for call in calls] == [None] * 4
    answered = []
    for _ in range(40):
        rig.clock.advance(PAUSE_S)
        answered.append(sum([bool(call.replies) for call in calls]))
    assert [answered.count(n) > 0 for n in range(5)] == [True] * 5
    assert first.replies[0] == others[-1].replies[0]
    assert not rig.clock.getDelayedCalls()


def test_those_who_wait_for_a_list_that_breaks_are_told(rig: LeaseRig) -> None:
    for lease_id in range(1, 2 * STEP_LEASES + 2):
        rig.lessor.grant(lease_id, 100)
    calls = [RecordedCall() for _ in range(2)]
    assert [rig.service.leases(call, b"") for call in calls] == [None] * 2
    leases: ById[Lease] = ById()
    leases[1] = Lease(1, 1, 0)
    rig.service._lists._listing = Listing(leases.moment(), lambda lease: 1 // 0)
    later = RecordedCall()
    assert rig.service.leases(later, b"") is None
    rig.clock.advance(0)
    assert [call.status for call in (*calls, later)] == [(13, "the read failed unexpectedly")] * 3


# Users.


def rig_of_users() -> tuple[LeaseRig, GuardRig]:
    """Return a service that asks, over a backend where ``ann`` may have ``k``."""
    rig = LeaseRig()
    users = GuardRig(rig.backend)
    users.permit(b"k")
    rig.service = LeaseService(
        rig, Random(1).getrandbits, 1.0, reads=ReadQueue(rig.clock), guard=users.guard
    )
    for lease_id in (7, 8):
        rig.lessor.grant(lease_id, 100)
    rig.backend.attach(7, b"k")
    rig.backend.attach(8, b"other")
    return rig, users


def call_of(caller: Caller) -> RecordedCall:
    call = RecordedCall()
    call.caller = caller
    return call


EMPTY = (3, "etcdserver: user name is empty")
DENIED = (7, "etcdserver: permission denied")


def test_a_lease_is_granted_to_any_user() -> None:
    rig, _ = rig_of_users()
    for caller, status in ((NOBODY_KNOWN, EMPTY), (ANN, None)):
        call = call_of(caller)
        rig.service.grant(call, pb.LeaseGrantRequest(TTL=10).SerializeToString())
        assert call.status == status


def test_the_keys_of_a_lease_are_told_to_who_may_read_them_when_they_are_sent() -> None:
    rig, users = rig_of_users()

    def ask(caller: Caller, lease_id: int, *, keys: bool) -> RecordedCall:
        call = call_of(caller)
        request = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        rig.service.time_to_live(call, request.SerializeToString())
        return call

    calls = [ask(ANN, 7, keys=True), ask(ANN, 8, keys=True), ask(ANN, 8, keys=False)]
    for _ in calls:
        rig.confirm()
    assert [call.status for call in calls] == [(0, ""), DENIED, (0, "")]
    call = ask(ANN, 7, keys=True)
    users.auth.delete_role("r")
    rig.confirm()
    assert call.status == DENIED


def test_the_list_of_leases_is_for_who_may_read_all_their_keys() -> None:
    rig, users = rig_of_users()

    def ask(caller: Caller) -> RecordedCall:
        call = call_of(caller)
        answer = rig.service.leases(call, b"")
        if answer is not None:
            call.reply(answer)
        rig.clock.advance(0)
        return call

    assert ask(NOBODY_KNOWN).status == EMPTY
    assert ask(ANN).status == DENIED
    assert ask(ROOT).status == (0, "")
    users.permit(b"other")
    call = ask(ANN)
    listed = pb.LeaseLeasesResponse.FromString(call.replies[0])
    assert {status.ID for status in listed.leases} == {7, 8}


def test_a_lease_is_renewed_by_who_may_write_its_keys() -> None:
    rig, _ = rig_of_users()
    call = call_of(ANN)
    rig.service.keep_alive(call)
    call.receive(pb.LeaseKeepAliveRequest(ID=7).SerializeToString())
    assert call.is_open
    assert len(call.sent) == 1
    call.receive(pb.LeaseKeepAliveRequest(ID=8).SerializeToString())
    assert call.status == DENIED
    call = call_of(NOBODY_KNOWN)
    rig.service.keep_alive(call)
    call.receive(pb.LeaseKeepAliveRequest(ID=9).SerializeToString())
    assert call.status == EMPTY


def test_very_many_leases_are_looked_at_step_by_step_and_under_one_revision() -> None:
    rig, users = rig_of_users()
    users.permit(b"other")
    for lease_id in range(100, 100 + 3 * CHECKED_LEASES):
        rig.lessor.grant(lease_id, 100)
    lists = LeaseLists(rig, ReadQueue(rig.clock), lambda: b"")
    call = call_of(ANN)
    check = LeaseCheck(rig, users.guard, call, lists)
    steps = 1
    while check.step():
        steps += 1
    assert steps > 3
    assert call.status == (0, "")
    call = call_of(ANN)
    check = LeaseCheck(rig, users.guard, call, lists)
    while check.step():
        users.auth.add_user("another", b"", no_password=True)
        users.auth.delete_user("another")
    assert call.status == (3, "etcdserver: revision of auth store is old")
    gone = call_of(ANN)
    gone.fail(1, "canceled")
    assert not LeaseCheck(rig, users.guard, gone, lists).step()
