"""Clusters of three and five members in one process, on a test clock and a network that is cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.apply.applier import FIELD_LEASE_GRANT
from etcdtw.apply.errors import (
    ConnectionLostTimeoutError,
    LeaderFailTimeoutError,
    RequestTimeoutError,
)
from etcdtw.cluster.errors import (
    MemberIdExistsError,
    MemberIdNotFoundError,
    MemberIdRemovedError,
    PeerUrlExistsError,
    TooManyLearnersError,
)
from etcdtw.cluster.member import encode_member
from etcdtw.mvcc.applied import Applied
from etcdtw.node.duties.stalls import STATE_HANG_MS, STATE_STALL_MS
from etcdtw.node.node import Node
from etcdtw.raft.confchange import ADD_NODE
from etcdtw.raft.entry import Entry
from etcdtw.raft.message import (
    MSG_APP,
    MSG_HEARTBEAT_RESP,
    MSG_PROP,
    MSG_READ_INDEX,
    Message,
)
from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_rig import ELECTION_S, ClusterRig, OpenCall, described, others


@pytest.fixture
def three(tmp_path: Path) -> ClusterRig:
    return ClusterRig(tmp_path, 3)


@pytest.fixture
def five(tmp_path: Path) -> ClusterRig:
    return ClusterRig(tmp_path, 5)


# Elections.


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_new_cluster_elects_one_leader_that_all_know(tmp_path: Path, count: int) -> None:
    rig = ClusterRig(tmp_path, count)
    leader = rig.leader()
    rig.run(0.5)
    assert {node.leader_id for node in rig.nodes} == {leader.member_id}
    assert len({node.term for node in rig.nodes}) == 1


def test_the_death_of_the_leader_costs_less_than_two_election_timeouts(three: ClusterRig) -> None:
    old = three.leader()
    three.must_put(old, b"before")
    died_s = three.clock.seconds()
    three.crash(old.member_id)
    new = three.leader()
    assert new.member_id != old.member_id
    assert three.clock.seconds() - died_s <= 2.5 * ELECTION_S
    assert new.store.get_body(b"before")
    three.must_put(new, b"after")
    three.start(old.member_id)
    three.converge()


def test_a_minority_elects_nobody_and_disturbs_nobody_when_it_comes_back(five: ClusterRig) -> None:
    leader = five.leader()
    term = leader.term
    followers = [node.member_id for node in others(five, leader)]
    minority, majority = followers[:2], [*followers[2:], leader.member_id]
    five.network.partition(minority, majority)
    five.run(5 * ELECTION_S)
    assert leader.is_leader and leader.term == term
    assert not any(five.members[i].up.is_leader for i in minority)
    five.must_put(leader, b"k")
    five.network.heal()
    five.converge()
    assert leader.is_leader and leader.term == term, "pre-vote keeps the term"


def test_a_leader_cut_off_steps_down_and_its_proposals_fail_or_vanish(five: ClusterRig) -> None:
    old = five.leader()
    five.run(3 * ELECTION_S)
    majority = [node.member_id for node in others(five, old)][:3]
    minority = [i for i in five.members if i not in majority]
    five.network.partition(minority, majority)
    lost = five.put(old, b"lost")
    new = five.leader(among=majority)
    five.must_put(new, b"kept")
    five.run(8.0)
    assert not old.is_leader
    assert isinstance(lost[0].error, RequestTimeoutError)
    five.network.heal()
    five.converge()
    for node in five.nodes:
        assert not node.store.get_body(b"lost")
        assert node.store.get_body(b"kept")


def test_leadership_is_handed_over_on_request(three: ClusterRig) -> None:
    old = three.leader()
    target = others(three, old)[0].member_id
    outcome: list[Exception | None] = []
    old.transfers.start(target, OpenCall(), lambda call, error: outcome.append(error))
    three.until(lambda: outcome, ELECTION_S)
    assert outcome == [None]
    three.until(lambda: three.members[target].up.is_leader, ELECTION_S)
    three.must_put(old, b"k")


# Proposals and reads on any member.


def test_puts_and_reads_work_on_every_member(three: ClusterRig) -> None:
    three.leader()
    revisions = [three.must_put(node, b"k%d" % node.member_id) for node in three.nodes]
    assert revisions == [2, 3, 4]
    for node in three.nodes:
        outcome = three.read(node)
        three.run(0.3)
        assert outcome == [None]
        assert node.store.revision == 4, "everything that was answered before is there"
    three.converge()


def test_proposals_without_a_leader_wait_for_one(three: ClusterRig) -> None:
    leader = three.leader()
    follower, other = others(three, leader)
    three.crash(leader.member_id)
    three.crash(other.member_id)
    three.until(lambda: follower.leader_id == 0)
    outcome = three.put(follower, b"k")
    reading = three.read(follower)
    three.run(2.0)
    assert not outcome and not reading
    three.start(other.member_id)
    three.until(lambda: outcome and reading)
    assert outcome[0].error is None
    assert reading == [None]


def test_a_proposal_lost_with_its_leader_is_said_to_be(three: ClusterRig) -> None:
    leader = three.leader()
    follower, _ = others(three, leader)
    three.run(2.0)
    three.network.cut(follower.member_id, leader.member_id)
    outcome = three.put(follower, b"k")  # is lost on its way
    three.run(0.05)
    three.crash(leader.member_id)
    three.network.heal()
    three.until(lambda: outcome)
    assert type(outcome[0].error) is LeaderFailTimeoutError


def test_a_proposal_of_one_who_reaches_nobody_is_said_to_be_so(three: ClusterRig) -> None:
    leader = three.leader()
    follower, _ = others(three, leader)
    three.run(10.0)
    three.network.cut(follower.member_id, leader.member_id)
    outcome = three.put(follower, b"k")
    three.until(lambda: outcome)
    assert type(outcome[0].error) is ConnectionLostTimeoutError


def test_a_deposed_leader_serves_no_read(five: ClusterRig) -> None:
    old = five.leader()
    five.run(3 * ELECTION_S)
    majority = [node.member_id for node in others(five, old)][:3]
    five.network.partition([i for i in five.members if i not in majority], majority)
    outcome = five.read(old)
    new = five.leader(among=majority)
    five.must_put(new, b"newer")
    assert not outcome
    five.network.heal()
    five.until(lambda: outcome)
    # It may read now, as a follower: then it has what the new leader has answered.
    assert outcome == [None] and old.store.revision == new.store.revision


def test_etcd_20418_late_confirmations_of_an_old_round_confirm_no_newer_read(
    three: ClusterRig,
) -> None:
    old = three.leader()
    held: list[Message] = []

    def fate(m: Message) -> list[float]:
        if m.to == old.member_id and m.type == MSG_HEARTBEAT_RESP:
            held.append(m)
            return [30.0]  # arrives when another leads
        return [0.0]

    three.network.fate = fate
    early = three.read(old)
    three.run(0.6)
    assert held and not early
    followers = [node.member_id for node in others(three, old)]
    three.network.partition([old.member_id], followers)
    new = three.leader(among=followers)
    three.must_put(new, b"newer")
    late = three.read(old)
    three.network.fate = lambda m: [0.0]
    for m in held:
        old.peers.receive(m)
    three.run(0.3)
    assert not late and not early, "answered by confirmations for an earlier question"


def test_a_leader_that_has_not_committed_in_its_term_serves_no_read(three: ClusterRig) -> None:
    old = three.leader()
    three.must_put(old, b"k")
    for node in three.nodes:
        three.members[node.member_id].log.holds = node is not old
    three.crash(old.member_id)
    # The votes wait for the disks, and the first entry of the term as well.
    for member in three.members.values():
        member.log.holds = False
        member.log.release()
    new = three.leader()
    outcome = three.read(new)
    three.until(lambda: outcome, ELECTION_S)
    assert new.store.get_body(b"k")


# Persistence.


def test_nothing_is_acknowledged_that_a_majority_has_not_written(three: ClusterRig) -> None:
    leader = three.leader()
    for node in others(three, leader):
        three.members[node.member_id].log.holds = True
    outcome = three.put(leader, b"k")
    three.run(0.5)
    assert not outcome
    released = others(three, leader)[0].member_id
    three.members[released].log.holds = False
    three.members[released].log.release()
    three.until(lambda: outcome)
    assert outcome[0].error is None


def test_an_acknowledged_put_survives_the_crash_of_all(three: ClusterRig) -> None:
    leader = three.leader()
    revisions = [three.must_put(leader, b"k%d" % i) for i in range(20)]
    for i in list(three.members):
        three.crash(i)
    for i in three.members:
        three.start(i)
    three.leader()
    three.converge()
    assert {node.store.revision for node in three.nodes} == {revisions[-1]}


# Membership.


def test_a_member_is_added_and_follows(three: ClusterRig) -> None:
    three.must_put(three.leader(), b"k")
    three.add(4)
    three.converge()
    assert len(three.leader().members.voters()) == 4


def test_a_learner_follows_and_is_promoted(three: ClusterRig) -> None:
    three.add(4, is_learner=True)
    three.must_put(three.leader(), b"k")
    three.converge()
    learner = three.members[4].up
    assert [m.member_id for m in learner.members.all() if m.is_learner] == [4]
    assert three.promote(4) is None
    three.converge()
    assert not any(m.is_learner for m in learner.members.all())
    assert sorted(three.parts_of(three.leader()).raw.configuration.voters) == [1, 2, 3, 4]


def test_a_learner_does_not_count_and_does_not_campaign(three: ClusterRig) -> None:
    three.add(4, is_learner=True)
    leader = three.leader()
    for node in others(three, leader):
        if node.member_id != 4:
            three.crash(node.member_id)
    outcome = three.put(leader, b"k")
    three.run(3 * ELECTION_S)
    assert not outcome
    assert not three.members[4].up.is_leader


def test_a_removed_follower_is_told_and_its_id_never_comes_back(three: ClusterRig) -> None:
    leader = three.leader()
    gone = others(three, leader)[0].member_id
    assert three.remove(gone) is None
    three.run(1.0)
    three.crash(gone)
    del three.members[gone]
    assert sorted(three.parts_of(leader).raw.configuration.voters) == sorted(three.members)
    again = three.change(ADD_NODE, gone, encode_member(described(gone)))
    assert type(again) is MemberIdRemovedError
    three.must_put(leader, b"k")
    three.converge()


def test_a_removed_leader_steps_down(three: ClusterRig) -> None:
    old = three.leader()
    assert three.remove(old.member_id) is None
    three.run(1.0)
    three.crash(old.member_id)
    del three.members[old.member_id]
    new = three.leader()
    three.must_put(new, b"k")
    three.converge()


def test_changes_that_do_not_fit_are_refused_on_every_member_alike(three: ClusterRig) -> None:
    three.leader()
    assert type(three.change(ADD_NODE, 2, encode_member(described(2)))) is MemberIdExistsError
    assert type(three.remove(77)) is MemberIdNotFoundError
    taken = described(4).with_peer_urls(described(1).peer_urls)
    assert type(three.change(ADD_NODE, 4, encode_member(taken))) is PeerUrlExistsError
    three.add(4, is_learner=True)
    learner = encode_member(described(5, is_learner=True))
    assert type(three.change(3, 5, learner)) is TooManyLearnersError
    three.converge()
    assert len({len(node.members.all()) for node in three.nodes}) == 1


def test_a_member_moves_to_other_urls(three: ClusterRig) -> None:
    moved = described(2).with_peer_urls(("http://127.0.0.1:9999",))
    assert three.update(moved) is None
    three.converge()
    assert {node.members.member(2).peer_urls for node in three.nodes} == {moved.peer_urls}  # type: ignore[union-attr]


def test_a_cluster_of_one_grows_to_three_and_shrinks_to_one(tmp_path: Path) -> None:
    rig = ClusterRig(tmp_path, 1)
    rig.must_put(rig.leader(), b"k")
    rig.add(2)
    rig.add(3)
    rig.converge()
    for gone in (1, 2):
        assert rig.remove(gone) is None
        rig.run(1.0)
        rig.crash(gone)
        del rig.members[gone]
    rig.must_put(rig.leader(), b"last")
    assert rig.members[3].up.is_leader


# Leases.


def test_only_the_leader_lets_leases_end_and_a_new_one_gives_them_time(three: ClusterRig) -> None:
    leader = three.leader()
    grant = pb.LeaseGrantRequest(ID=7, TTL=5)
    outcome: list[object] = []
    leader.propose(
        FIELD_LEASE_GRANT,
        grant.SerializeToString(),
        grant,
        OpenCall(),
        lambda call, applied: outcome.append(applied),
    )
    three.until(lambda: outcome)
    three.run(3.0)
    three.crash(leader.member_id)
    new = three.leader()
    three.run(3.0)
    assert new.lessor.exists(7), "a new leader begins anew"
    three.run(5.0)
    assert not any(node.lessor.exists(7) for node in three.nodes)


def grant_lease(rig: ClusterRig, node: Node, lease_id: int, ttl_s: int) -> None:
    grant = pb.LeaseGrantRequest(ID=lease_id, TTL=ttl_s)
    outcome: list[Applied] = []
    octets = grant.SerializeToString()
    node.propose(FIELD_LEASE_GRANT, octets, grant, OpenCall(), lambda _, a: outcome.append(a))
    rig.until(lambda: outcome)


def test_etcd_15247_a_leader_that_stood_still_ends_no_lease(three: ClusterRig) -> None:
    leader = three.leader()
    grant_lease(three, leader, 7, 3)
    three.run(1.0)
    three.stall(2.5)  # all of them: nobody else could be elected meanwhile
    three.clock.advance(2.6)
    three.run(1.0)
    assert leader.is_leader and leader.lessor.exists(7), "its client could not renew it"
    three.run(6.0)
    assert not leader.lessor.exists(7)


def test_etcd_13527_a_leader_whose_disk_stands_still_steps_down(three: ClusterRig) -> None:
    old = three.leader()
    three.members[old.member_id].log.holds = True
    outcome = three.put(old, b"k")
    three.until(lambda: not old.is_leader, 3 * ELECTION_S)
    assert old.stalls.step_downs_total == 1
    new = three.leader(among=[node.member_id for node in others(three, old)])
    three.must_put(new, b"after")
    three.members[old.member_id].log.holds = False
    three.members[old.member_id].log.release()
    three.until(lambda: outcome)
    three.converge()


def test_a_leader_whose_state_takes_nothing_more_steps_down_once(three: ClusterRig) -> None:
    old = three.leader()
    state = three.members[old.member_id].state
    state.is_full = state.is_committing = True
    three.run(STATE_STALL_MS / 1000 - 1)
    assert old.is_leader
    new = three.until(lambda: next((n for n in others(three, old) if n.is_leader), None))
    three.must_put(new, b"k")
    three.run(5.0)
    assert old.stalls.step_downs_total == 1
    state.is_full = state.is_committing = False
    three.converge()


def test_a_state_that_hangs_for_a_minute_ends_its_process(three: ClusterRig) -> None:
    three.leader()
    three.converge()
    member = three.members[1]
    member.state.is_committing = True
    three.run(STATE_HANG_MS / 1000 - 1)
    assert member.stops == []
    three.run(1.5)
    assert "has committed nothing for 60" in member.stops[0]


def test_time_that_a_process_stood_still_is_no_hang_of_its_state(three: ClusterRig) -> None:
    three.leader()
    three.converge()
    member = three.members[1]
    member.state.is_committing = True
    three.run(1.0)
    three.stall(100.0)
    three.clock.advance(100.1)
    three.run(1.0)
    assert member.stops == []


@pytest.mark.parametrize("kind", [MSG_PROP, MSG_READ_INDEX, MSG_APP])
def test_a_message_that_no_member_can_mean_ends_no_process(three: ClusterRig, kind: int) -> None:
    leader = three.leader()
    three.must_put(leader, b"k")
    three.converge()
    sender, taker = leader, others(three, leader)[0]
    m = Message(kind)
    if kind == MSG_APP:
        m.index, m.term, m.log_term = three.parts_of(taker).raw.last_index, leader.term, leader.term
        m.entries = [Entry(m.term, m.index + 1), Entry(m.term, m.index + 3)]  # a gap
    else:
        sender, taker = taker, sender
    m.from_id, m.to = sender.member_id, taker.member_id
    three.network.transports[sender.member_id].send([m])
    three.run(0.1)
    three.must_put(leader, b"l")
    three.converge()


def test_etcd_15247_a_leader_deposed_at_a_tick_revokes_nothing_in_it(three: ClusterRig) -> None:
    leader = three.leader()
    for lease_id in range(1, 41):  # one ends at each tick
        grant_lease(three, leader, lease_id, 4)
        three.run(0.1)
    three.network.partition([leader.member_id], [n.member_id for n in others(three, leader)])
    deposed = False
    while not deposed:
        # The tick that deposes it shall be one that scans.
        leader.duties.lease_expiry._scan._next_scan_ms = 0
        three.run(0.05)
        deposed = not leader.is_leader
    assert leader.duties.lease_expiry.expired_total > 0
    assert not leader.inbox.has_proposals


def test_a_new_leader_ends_no_lease_before_it_has_applied_what_earlier_ones_left(
    three: ClusterRig,
) -> None:
    old = three.leader()
    states = [three.members[node.member_id].state for node in others(three, old)]
    for state in states:
        state.is_full = True
    for i in range(3):
        three.must_put(old, b"k%d" % i)
    three.run(0.3)
    three.crash(old.member_id)
    new = three.until(lambda: next((node for node in three.nodes if node.is_leader), None))
    three.run(0.3)
    assert new.applied_index < new.commit_index
    assert not new.lessor.is_primary
    for state in states:
        state.is_full = False
    three.until(lambda: new.lessor.is_primary)
    assert three.parts_of(new).log.term(new.applied_index) == new.term


def test_a_proposal_that_timed_out_without_a_leader_is_never_proposed(three: ClusterRig) -> None:
    lone = three.leader()
    apart = others(three, lone)
    three.network.partition([lone.member_id], [n.member_id for n in apart])
    three.until(lambda: lone.leader_id == 0)
    outcome = three.put(lone, b"late")
    three.run(8.0)
    assert outcome[0].error is not None
    assert not lone.inbox.has_proposals
    three.network.heal()
    three.must_put(three.leader(), b"after")
    three.converge()
    assert all(m.state.get(b"late") is None for m in three.members.values())


def test_a_leader_that_stood_still_renews_nothing_before_it_has_proved_that_it_leads(
    three: ClusterRig,
) -> None:
    leader = three.leader()
    grant_lease(three, leader, 7, 30)
    assert leader.current_lessor().is_primary
    three.stall(2.0)
    three.clock.advance(1.5)
    assert not leader.current_lessor().is_primary, "asked before any tick"
    three.run(3.0)
    assert leader.is_leader == leader.current_lessor().is_primary


# Floods of loss.


@pytest.mark.parametrize("seed", range(6))
def test_lost_doubled_and_late_messages_lose_nothing(tmp_path: Path, seed: int) -> None:
    rig = ClusterRig(
        tmp_path, 3, snapshot_count=20, catchup_entries=5, log_kept_octets_max=0, seed=seed
    )

    def fate(m: Message) -> list[float]:
        roll = rig.random.random()
        if roll < 0.05:
            return []
        if roll < 0.10 and m.type != MSG_PROP:  # Raft has no defence: etcd's streams never double
            return [0.0, rig.random.random() * 0.3]
        return [rig.random.random() * 0.02 if m.type == MSG_APP else 0.0]

    rig.leader()
    rig.network.fate = fate
    outcomes: dict[bytes, list[Applied]] = {}
    for i in range(120):
        node = rig.random.choice(rig.nodes)
        key = b"k%d" % i
        outcomes[key] = rig.put(node, key)
        rig.run(0.05)
        if rig.random.random() < 0.02:
            victim = rig.random.choice(list(rig.members))
            rig.crash(victim)
            rig.start(victim)
    rig.network.fate = lambda m: [0.0]
    rig.run(3.0)
    rig.leader()
    rig.converge()
    acknowledged = {key: o[0].revision for key, o in outcomes.items() if o and not o[0].error}
    assert len(acknowledged) > 60
    for node in rig.nodes:
        for key, revision in acknowledged.items():
            found = pb.RangeResponse.FromString(node.store.get_body(key))
            assert found.kvs[0].mod_revision == revision
