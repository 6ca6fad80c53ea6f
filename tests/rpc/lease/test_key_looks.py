"""Leases with very many keys: renewed, shown and listed in steps, at one moment."""

from __future__ import annotations

import itertools
from random import Random
from typing import Any

import pytest

from etcdtw.grpc.caller import Caller
from etcdtw.rpc.kv.read_queue import PAUSE_S, ReadQueue
from etcdtw.rpc.lease.for_peers import LeasesForPeers
from etcdtw.rpc.lease.key_looks import FEW_KEYS, LOOKS_MAX, STEP_KEYS
from etcdtw.rpc.lease.service import LeaseService
from etcdtw.wire import etcdserverpb as pb
from tests.support.guard_rig import ANN, ROOT, GuardRig
from tests.support.lease_rig import LeaseRig
from tests.support.recorded_call import RecordedCall

LEASE = 7
MANY = 3 * STEP_KEYS + 1
DENIED = (7, "etcdserver: permission denied")
OLD = (3, "etcdserver: revision of auth store is old")


class LooksRig(LeaseRig):
    """``ann`` may have ``k*``; a lease with very many of these keys."""

    def __init__(self, keys: int = MANY) -> None:
        super().__init__()
        self.users = GuardRig(self.backend)
        self.users.permit(b"k", b"l")
        self.queue = ReadQueue(self.clock, share_s=0, activity=itertools.count().__next__)
        self.service = LeaseService(
            self, Random(1).getrandbits, 1.0, reads=self.queue, guard=self.users.guard
        )
        self.lessor.grant(LEASE, 100)
        self.keys = [b"k%06d" % number for number in range(keys)]
        for key in self.keys:
            self.backend.attach(LEASE, key)
        self.confirms_at_once = True

    def ask(self, caller: Caller = ANN, *, keys: bool = True) -> RecordedCall:
        call = RecordedCall()
        call.caller = caller
        request = pb.LeaseTimeToLiveRequest(ID=LEASE, keys=keys)
        self.service.time_to_live(call, request.SerializeToString())
        return call

    def renew(self, caller: Caller = ANN) -> RecordedCall:
        call = RecordedCall()
        call.caller = caller
        self.service.keep_alive(call)
        call.receive(pb.LeaseKeepAliveRequest(ID=LEASE).SerializeToString())
        return call

    def step(self) -> None:
        self.clock.advance(PAUSE_S)

    def run(self) -> int:
        """Do all that waits; return how many steps that took."""
        for steps in itertools.count():
            if not self.clock.getDelayedCalls():
                return steps
            assert steps < 10_000
            self.step()
        raise AssertionError("unreachable")


def told(call: RecordedCall) -> Any:
    assert call.status == (0, "")
    return pb.LeaseTimeToLiveResponse.FromString(call.replies[0])


@pytest.fixture
def rig() -> LooksRig:
    return LooksRig()


def test_few_keys_are_told_at_once_and_in_order() -> None:
    rig = LooksRig(FEW_KEYS)
    assert list(told(rig.ask()).keys) == rig.keys
    assert len(rig.renew().sent) == 1
    assert not rig.clock.getDelayedCalls()
    rig.backend.attach(LEASE, b"k")
    assert rig.ask().replies == []
    assert len(rig.renew().sent) == 1, "what is remembered is not looked at again"


def test_one_key_more_waits_in_line() -> None:
    rig = LooksRig(FEW_KEYS + 1)
    call, stream = rig.ask(), rig.renew()
    assert (call.replies, stream.sent) == ([], [])
    rig.run()
    assert list(told(call).keys) == rig.keys
    assert len(stream.sent) == 1


@pytest.mark.parametrize("caller", [ANN, ROOT])
def test_very_many_keys_are_told_in_steps(rig: LooksRig, caller: Caller) -> None:
    call = rig.ask(caller)
    assert call.status is None
    assert rig.run() > 6
    reply = told(call)
    assert sorted(reply.keys) == rig.keys
    assert (reply.ID, reply.TTL, reply.grantedTTL, reply.header.revision) == (LEASE, 99, 100, 5)


def test_the_keys_told_are_those_of_the_moment_that_the_header_names(rig: LooksRig) -> None:
    call = rig.ask()
    for number in range(2):
        rig.step()
        rig.backend.detach(LEASE, rig.keys[number])
        rig.backend.attach(LEASE, b"kx%d" % number)
        rig.store.revision += 1
    while rig.backend._walks.by_lease:
        rig.step()
    revision = rig.store.revision
    rig.store.revision += 1
    rig.backend.detach(LEASE, rig.keys[5])
    rig.backend.attach(LEASE, b"ky")
    rig.run()
    reply = told(call)
    assert sorted(reply.keys) == sorted([*rig.keys[2:], b"kx0", b"kx1"])
    assert reply.header.revision == revision


def test_one_foreign_key_is_found_wherever_and_whenever_it_comes(rig: LooksRig) -> None:
    rig.backend.attach(LEASE, b"z")
    call, stream = rig.ask(), rig.renew()
    rig.run()
    assert (call.status, stream.status) == (DENIED, DENIED)
    rig.backend.detach(LEASE, b"z")
    call, stream = rig.ask(), rig.renew()
    rig.step()
    rig.step()
    rig.backend.attach(LEASE, b"a")
    rig.run()
    assert (call.status, stream.status) == (DENIED, DENIED)
    assert not rig.backend._walks.by_lease
    assert rig.service.looks.count == 0


def test_a_renewal_waits_for_its_look_and_those_behind_it_wait_too(rig: LooksRig) -> None:
    stream = rig.renew()
    stream.receive(pb.LeaseKeepAliveRequest(ID=99).SerializeToString())
    assert stream.sent == []
    assert rig.run() > 3
    answers = [pb.LeaseKeepAliveResponse.FromString(one) for one in stream.sent]
    assert [(one.ID, one.TTL) for one in answers] == [(LEASE, 100), (99, 0)]
    # It is remembered.
    stream.receive(pb.LeaseKeepAliveRequest(ID=LEASE).SerializeToString())
    assert len(stream.sent) == 3
    assert not rig.clock.getDelayedCalls()


def test_a_stream_that_is_half_closed_during_its_look_is_answered_and_ends(rig: LooksRig) -> None:
    stream = rig.renew()
    stream.half_close()
    rig.run()
    assert len(stream.sent) == 1
    assert stream.status == (0, "")


def test_a_change_of_users_and_roles_meanwhile_ends_all_looks(rig: LooksRig) -> None:
    rig.lessor.grant(LEASE + 1, 100)
    listing = RecordedCall()
    listing.caller = ANN
    assert rig.service.leases(listing, b"") is None
    call, stream = rig.ask(), rig.renew()
    rig.step()
    rig.step()
    rig.users.auth.add_user("another", b"", no_password=True)
    rig.run()
    assert [one.status for one in (listing, call, stream)] == [OLD] * 3
    assert not rig.backend._walks.by_lease


def test_a_list_of_leases_looks_at_very_many_keys_in_steps(rig: LooksRig) -> None:
    call = RecordedCall()
    call.caller = ANN
    assert rig.service.leases(call, b"") is None
    assert rig.run() > 3
    listed = pb.LeaseLeasesResponse.FromString(call.replies[0])
    assert [one.ID for one in listed.leases] == [LEASE]
    rig.backend.attach(LEASE, b"z")
    call = RecordedCall()
    call.caller = ANN
    assert rig.service.leases(call, b"") is None
    rig.run()
    assert call.status == DENIED


def test_who_goes_away_leaves_nothing_behind(rig: LooksRig) -> None:
    call, stream = rig.ask(), rig.renew()
    listing = RecordedCall()
    listing.caller = ANN
    rig.service.leases(listing, b"")
    rig.step()
    rig.step()
    for one in (call, stream, listing):
        one.cancel()
    rig.run()
    assert (call.replies, stream.sent, listing.replies) == ([], [], [])
    assert not rig.backend._walks.by_lease
    assert rig.service.looks.count == 0


def test_so_many_looks_are_under_way_and_no_more(rig: LooksRig) -> None:
    calls = [rig.ask() for _ in range(LOOKS_MAX + 3)]
    most = 0
    while rig.clock.getDelayedCalls():
        rig.step()
        most = max(most, rig.service.looks.count)
        assert len(rig.backend._walks.by_lease.get(LEASE, ())) <= LOOKS_MAX
    assert most == LOOKS_MAX
    assert [call.status for call in calls] == [(0, "")] * len(calls)


def test_who_asks_for_too_many_looks_is_refused(rig: LooksRig) -> None:
    request = pb.LeaseTimeToLiveRequest(ID=LEASE, keys=True).SerializeToString()
    queue = ReadQueue(rig.clock, share_s=0, waiting_max=2)
    service = LeaseService(rig, Random(1).getrandbits, 1.0, reads=queue, guard=rig.users.guard)
    calls = [RecordedCall() for _ in range(3)]
    for call in calls:
        call.caller = ANN
        service.time_to_live(call, request)
    assert calls[2].status == (2, "etcdserver: too many requests")
    rig.run()
    assert [call.status for call in calls[:2]] == [(0, "")] * 2


def test_a_state_that_is_replaced_is_read_again(rig: LooksRig) -> None:
    call = rig.ask()
    rig.step()
    rig.step()
    rig.backend._walks.void(LEASE)
    rig.backend.leases[LEASE] = {b"k", *rig.keys[:-1]}
    rig.run()
    assert sorted(told(call).keys) == [b"k", *rig.keys[:-1]]


def test_a_lease_that_ends_meanwhile_is_unknown(rig: LooksRig) -> None:
    call = rig.ask()
    rig.step()
    rig.lessor.revoke(LEASE)
    rig.run()
    assert (told(call).TTL, list(told(call).keys)) == (-1, [])


def test_a_leader_that_is_deposed_meanwhile_says_so(rig: LooksRig) -> None:
    call = rig.ask()
    rig.step()
    rig.lessor.demote()
    rig.run()
    assert call.status == (14, "etcdserver: leader changed")


def test_a_peer_is_told_in_steps_too(rig: LooksRig) -> None:
    answers: list[tuple[Exception | None, bytes | None]] = []
    peers = LeasesForPeers(rig, rig.service.looks)
    peers.time_to_live(LEASE, True, lambda error, lease: answers.append((error, lease)))
    peers.time_to_live(LEASE, False, lambda error, lease: answers.append((error, lease)))
    peers.time_to_live(99, True, lambda error, lease: answers.append((error, lease)))
    assert answers[1] == (None, None)
    assert rig.run() > 6
    (_, without), _, (error, whole) = answers
    reply = pb.LeaseTimeToLiveResponse.FromString(whole or b"")
    assert (error, reply.ID, sorted(reply.keys)) == (None, LEASE, rig.keys)
    assert not pb.LeaseTimeToLiveResponse.FromString(without or b"").keys
