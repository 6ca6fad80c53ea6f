"""Elections in etcd's layout: who leads, what it proclaims, who is told."""

from __future__ import annotations

import pytest

from etcdtw.grpc.call import UNKNOWN
from etcdtw.rpc.concurrency.election import OUTPUT_SIZE_MAX
from etcdtw.wire import v3electionpb as epb
from tests.rpc.concurrency.arena_rig import ArenaRig
from tests.support.recorded_call import RecordedCall

NOT_LEADER = (UNKNOWN, "election: not leader")
NO_LEADER = (UNKNOWN, "election: no leader")
MISSING = (UNKNOWN, '"leader" field must be provided')


@pytest.fixture
def rig() -> ArenaRig:
    rig = ArenaRig()
    rig.start()
    return rig


def elected(call: RecordedCall) -> epb.LeaderKey:
    assert call.status == (0, ""), call.status
    answer = epb.CampaignResponse.FromString(call.replies[0])
    assert answer.header.raft_term
    return answer.leader


def told(call: RecordedCall) -> list[tuple[bytes, bytes]]:
    """Return key and value of each leader that an observer has heard of."""
    found = [epb.LeaderResponse.FromString(one) for one in call.sent]
    return [(one.kv.key, one.kv.value) for one in found]


def test_the_first_candidate_leads(rig: ArenaRig) -> None:
    call = rig.elect("Campaign", name=b"e", lease=rig.lease(77), value=b"one")
    leader = elected(call)
    assert leader == epb.LeaderKey(name=b"e", key=b"e/4d", rev=2, lease=77)
    assert rig.stored() == {b"e/4d": b"one"}
    shown = epb.LeaderResponse.FromString(rig.elect("Leader", name=b"e").replies[0])
    assert (shown.kv.key, shown.kv.value, shown.kv.lease) == (b"e/4d", b"one", 77)
    assert rig.is_empty


def test_without_candidates_there_is_no_leader(rig: ArenaRig) -> None:
    assert rig.elect("Leader", name=b"e").status == NO_LEADER


def test_the_next_candidate_waits_until_the_leader_resigns(rig: ArenaRig) -> None:
    first = rig.elect("Campaign", name=b"e", lease=rig.lease(1), value=b"one")
    second = rig.elect("Campaign", name=b"e", lease=rig.lease(2), value=b"two")
    assert second.status is None
    assert rig.elect("Resign", leader=elected(first)).status == (0, "")
    assert elected(second).key == b"e/2"
    assert rig.elect("Resign", leader=elected(first)).status == (0, "")
    assert list(rig.stored()) == [b"e/2"]
    assert rig.is_empty


def test_a_candidate_whose_session_ended_does_not_lead(rig: ArenaRig) -> None:
    first = rig.elect("Campaign", name=b"e", lease=rig.lease(1))
    second = rig.elect("Campaign", name=b"e", lease=rig.lease(2))
    rig.revoke(2)
    rig.elect("Resign", leader=elected(first))
    assert second.status == NOT_LEADER


def test_who_campaigns_again_proclaims(rig: ArenaRig) -> None:
    lease = rig.lease(1)
    first = elected(rig.elect("Campaign", name=b"e", lease=lease, value=b"one"))
    again = elected(rig.elect("Campaign", name=b"e", lease=lease, value=b"two"))
    assert first.rev == again.rev
    assert rig.stored() == {b"e/1": b"two"}


def test_a_candidate_that_goes_leaves_no_key(rig: ArenaRig) -> None:
    rig.elect("Campaign", name=b"e", lease=rig.lease(1))
    second = rig.elect("Campaign", name=b"e", lease=rig.lease(2))
    second.cancel()
    rig.run(0.2)
    assert list(rig.stored()) == [b"e/1"]
    assert rig.is_empty


def test_only_the_leader_proclaims(rig: ArenaRig) -> None:
    leader = elected(rig.elect("Campaign", name=b"e", lease=rig.lease(1), value=b"one"))
    assert rig.elect("Proclaim", leader=leader, value=b"two").status == (0, "")
    assert rig.stored() == {b"e/1": b"two"}
    rig.elect("Resign", leader=leader)
    assert rig.elect("Proclaim", leader=leader, value=b"three").status == NOT_LEADER
    assert rig.stored() == {}


def test_a_leader_must_be_named(rig: ArenaRig) -> None:
    assert rig.elect("Proclaim", value=b"x").status == MISSING
    assert rig.elect("Resign").status == MISSING


def test_a_lease_that_is_not_there_is_unknown(rig: ArenaRig) -> None:
    call = rig.elect("Campaign", name=b"e", lease=5)
    assert call.status == (UNKNOWN, "etcdserver: requested lease not found")


# Observing.


def test_an_observer_hears_of_leaders_and_values(rig: ArenaRig) -> None:
    one = elected(rig.elect("Campaign", name=b"e", lease=rig.lease(1), value=b"a"))
    two = rig.elect("Campaign", name=b"e", lease=rig.lease(2), value=b"c")
    observer = rig.elect("Observe", name=b"e")
    rig.elect("Proclaim", leader=one, value=b"b")
    rig.elect("Resign", leader=one)
    assert told(observer) == [(b"e/1", b"a"), (b"e/1", b"b"), (b"e/2", b"c")]
    rig.elect("Resign", leader=elected(two))
    rig.elect("Campaign", name=b"e", lease=1, value=b"d")
    assert told(observer)[3:] == [(b"e/1", b"d")]
    observer.cancel()
    rig.run(0.2)
    assert rig.is_empty


def test_an_observer_waits_for_the_first_candidate(rig: ArenaRig) -> None:
    observer = rig.elect("Observe", name=b"e")
    assert told(observer) == []
    rig.elect("Campaign", name=b"e", lease=rig.lease(1), value=b"a")
    assert told(observer) == [(b"e/1", b"a")]


def test_an_observer_goes_on_across_compactions(rig: ArenaRig) -> None:
    leader = elected(rig.elect("Campaign", name=b"e", lease=rig.lease(1), value=b"a"))
    observer = rig.elect("Observe", name=b"e")
    rig.compact()
    rig.elect("Proclaim", leader=leader, value=b"b")
    rig.compact()
    rig.run(0.2)
    assert told(observer) == [(b"e/1", b"a"), (b"e/1", b"b")]


def test_an_observer_that_does_not_read_is_told_nothing_more(rig: ArenaRig) -> None:
    leader = elected(rig.elect("Campaign", name=b"e", lease=rig.lease(1), value=b"a"))
    observer = rig.elect("Observe", name=b"e")
    observer.is_slow = True
    value = bytes(OUTPUT_SIZE_MAX)
    for _ in range(4):
        rig.elect("Proclaim", leader=leader, value=value)
    assert len(observer.sent) == 2
    observer.drain()
    rig.run(0.5)
    assert len(observer.sent) == 5
    observer.cancel()
    rig.run(0.2)
    assert rig.is_empty


def test_an_observer_that_goes_while_it_does_not_read_is_forgotten(rig: ArenaRig) -> None:
    leader = elected(rig.elect("Campaign", name=b"e", lease=rig.lease(1), value=b"a"))
    observer = rig.elect("Observe", name=b"e")
    observer.is_slow = True
    rig.elect("Proclaim", leader=leader, value=bytes(OUTPUT_SIZE_MAX))
    rig.elect("Proclaim", leader=leader, value=b"c")
    observer.cancel()
    rig.run(0.2)
    assert rig.is_empty
