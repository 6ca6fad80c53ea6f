"""Who leads, and who may not: thesis sections 3.4, 3.6, 3.10, 4.2.3, 6.2 and 9.6."""

from __future__ import annotations

from random import Random

import pytest

from etcdtw.raft.confchange import ADD_NODE, REMOVE_NODE, ConfChange, decode_conf_change
from etcdtw.raft.config import READ_ONLY_LEASE_BASED, READ_ONLY_SAFE, Config
from etcdtw.raft.entry import ENTRY_NORMAL, ConfState, Entry, HardState, Snapshot
from etcdtw.raft.errors import (
    InvariantError,
    LocalMessageError,
    PeerNotFoundError,
    ProposalDroppedError,
)
from etcdtw.raft.memory_storage import MemoryStorage
from etcdtw.raft.message import (
    CONTEXT_TRANSFER,
    LOCAL_TYPES,
    MSG_APP,
    MSG_APP_RESP,
    MSG_HEARTBEAT,
    MSG_PRE_VOTE,
    MSG_PRE_VOTE_RESP,
    MSG_PROP,
    MSG_SNAP,
    MSG_TIMEOUT_NOW,
    MSG_VOTE,
    MSG_VOTE_RESP,
    Message,
)
from etcdtw.raft.raw_node import RawNode
from etcdtw.raft.state import ROLE_CANDIDATE, ROLE_FOLLOWER, ROLE_LEADER, ROLE_PRE_CANDIDATE
from tests.raft.raft_network import Network


def sent_by(network: Network, member_id: int) -> list[Message]:
    """Let a member write what it has to and return what it then sends."""
    member = network.members[member_id]
    before = len(network.wire)
    network.collect(member_id)
    while member.appends:
        network.write(member_id)
    sent = network.wire[before:]
    del network.wire[before:]
    return sent


def test_thesis_3_4_timeouts_are_spread_over_one_election_timeout() -> None:
    network = Network(1)
    node = network.node(1)
    drawn = set()
    for _ in range(400):
        node._state.role = ROLE_CANDIDATE
        node.step(Message(MSG_HEARTBEAT, from_id=2, term=node.term, to=1))
        drawn.add(node._state.randomized_election_ticks)
    assert drawn == set(range(10, 20))


def test_thesis_3_4_a_follower_without_a_leader_campaigns() -> None:
    network = Network(3)
    network.tick(20, 1)
    assert network.leader() == 1
    assert [network.node(i).lead for i in (1, 2, 3)] == [1, 1, 1]


def test_thesis_3_4_one_vote_a_term_even_across_a_restart() -> None:
    network = Network(3, pre_vote=False)
    network.node(1).step(Message(MSG_VOTE, from_id=2, to=1, term=5, index=1, log_term=1))
    (granted,) = sent_by(network, 1)
    assert (granted.to, granted.type, granted.reject) == (2, MSG_VOTE_RESP, False)
    network.members[1].crash()
    network.node(1).step(Message(MSG_VOTE, from_id=3, to=1, term=5, index=1, log_term=1))
    (refused,) = sent_by(network, 1)
    assert (refused.to, refused.reject) == (3, True)
    network.node(1).step(Message(MSG_VOTE, from_id=2, to=1, term=5, index=1, log_term=1))
    (again,) = sent_by(network, 1)
    assert (again.to, again.reject) == (2, False)


def test_a_vote_leaves_only_after_it_is_durable() -> None:
    network = Network(3)
    network.node(1).step(Message(MSG_VOTE, from_id=2, to=1, term=5, index=1, log_term=1))
    network.collect(1)
    assert network.wire == []
    network.write(1)
    assert network.members[1].storage.hard_state == HardState(5, 2, 1)
    assert [m.type for m in network.wire] == [MSG_VOTE_RESP]


def test_a_rejection_waits_for_the_disk_too() -> None:
    network = Network(3)
    network.node(1).step(Message(MSG_VOTE, from_id=2, to=1, term=5, index=0, log_term=0))
    network.collect(1)
    assert network.wire == []
    network.write(1)
    assert network.wire[0].reject


def test_thesis_3_6_1_no_vote_for_a_log_that_is_behind() -> None:
    network = Network(3)
    network.elect(1)
    network.node(1).propose(b"a")
    network.settle()
    network.tick(20)  # whoever may, follows
    node = network.node(2)
    for index, log_term in ((2, 2), (9, 1)):
        node.step(
            Message(
                MSG_VOTE,
                from_id=3,
                to=2,
                term=node.term + 1,
                index=index,
                log_term=log_term,
                context=CONTEXT_TRANSFER,
            )
        )
        assert sent_by(network, 2)[-1].reject


def test_thesis_9_6_a_pre_vote_changes_neither_term_nor_vote() -> None:
    network = Network(3)
    node = network.node(1)
    node.step(Message(MSG_PRE_VOTE, from_id=2, to=1, term=7, index=1, log_term=1))
    (granted,) = sent_by(network, 1)
    assert (granted.type, granted.term, granted.reject) == (MSG_PRE_VOTE_RESP, 7, False)
    assert (node.term, node.vote) == (1, 0)


def test_a_pre_vote_of_an_older_term_is_refused_aloud() -> None:
    network = Network(3)
    node = network.node(1)
    node.step(Message(MSG_HEARTBEAT, from_id=3, to=1, term=4))
    sent_by(network, 1)
    node.step(Message(MSG_PRE_VOTE, from_id=2, to=1, term=3, index=9, log_term=3))
    (refused,) = sent_by(network, 1)
    assert (refused.type, refused.term, refused.reject) == (MSG_PRE_VOTE_RESP, 4, True)


def test_a_lost_pre_vote_stays_in_its_own_term() -> None:
    network = Network(3)
    node = network.node(1)
    node.campaign()
    assert node.role == ROLE_PRE_CANDIDATE
    for member_id in (2, 3):
        node.step(Message(MSG_PRE_VOTE_RESP, from_id=member_id, to=1, term=1, reject=True))
    assert (node.role, node.term) == (ROLE_FOLLOWER, 1)


def test_answers_to_the_pre_vote_do_not_count_in_the_election() -> None:
    network = Network(3)
    node = network.node(1)
    node.campaign()
    network.collect(1)
    network.write(1)
    node.step(Message(MSG_PRE_VOTE_RESP, from_id=2, to=1, term=2))
    assert (node.role, node.term) == (ROLE_CANDIDATE, 2)
    node.step(Message(MSG_PRE_VOTE_RESP, from_id=3, to=1, term=2))
    assert node.role == ROLE_CANDIDATE


def test_thesis_4_2_3_a_voter_that_hears_its_leader_ignores_campaigns() -> None:
    network = Network(3)
    network.elect(1)
    node = network.node(2)
    term = node.term
    for kind in (MSG_VOTE, MSG_PRE_VOTE):
        node.step(Message(kind, from_id=3, to=2, term=term + 1, index=9, log_term=9))
        assert node.term == term
        assert not node.has_ready()
    node.step(
        Message(
            MSG_VOTE,
            from_id=3,
            to=2,
            term=term + 1,
            index=9,
            log_term=9,
            context=CONTEXT_TRANSFER,
        )
    )
    assert node.vote == 3


def test_thesis_6_2_a_leader_without_a_quorum_steps_down() -> None:
    network = Network(3)
    network.elect(1)
    network.cut = {1}
    network.tick(21, 1)
    assert network.node(1).role != ROLE_LEADER
    assert network.node(1).lead == 0


def test_a_member_that_was_alone_does_not_disturb_the_others() -> None:
    network = Network(3)
    network.elect(1)
    term = network.node(1).term
    network.cut = {3}
    network.tick(100)
    network.cut = set()
    network.tick(30)
    assert (network.leader(), network.node(3).lead) == (1, 1)
    assert {network.node(i).term for i in (1, 2, 3)} == {term}


def test_a_member_ahead_in_term_is_let_back_in_by_its_answer() -> None:
    network = Network(3)
    network.elect(1)
    node = network.node(3)
    node.step(
        Message(MSG_VOTE, from_id=2, to=3, term=9, index=0, log_term=0, context=CONTEXT_TRANSFER)
    )
    sent_by(network, 3)
    node.step(Message(MSG_HEARTBEAT, from_id=1, to=3, term=2))
    (answer,) = sent_by(network, 3)
    assert (answer.type, answer.term) == (MSG_APP_RESP, 9)
    network.node(1).step(answer)
    assert (network.node(1).role, network.node(1).term) == (ROLE_FOLLOWER, 9)


def test_without_pre_vote_and_quorum_check_an_old_term_gets_no_answer() -> None:
    network = Network(3, pre_vote=False, check_quorum=False)
    node = network.node(3)
    node.step(Message(MSG_HEARTBEAT, from_id=1, to=3, term=9))
    sent_by(network, 3)
    node.step(Message(MSG_HEARTBEAT, from_id=2, to=3, term=8))
    assert not node.has_ready()


def test_thesis_3_10_leadership_moves_once_the_target_has_the_whole_log() -> None:
    network = Network(3)
    network.elect(1)
    node = network.node(1)
    node.propose(b"a")
    node.transfer_leader(2)
    assert node.transfer_target == 2
    with pytest.raises(ProposalDroppedError):
        node.propose(b"b")
    network.settle()
    assert network.leader() == 2
    assert network.data(2) == [b"a"]


def test_a_follower_passes_the_wish_for_a_transfer_on() -> None:
    network = Network(3)
    network.elect(1)
    network.node(2).transfer_leader(3)
    network.settle()
    assert network.leader() == 3


def test_a_transfer_is_given_up_after_one_election_timeout() -> None:
    network = Network(3)
    network.elect(1)
    network.cut = {2}
    node = network.node(1)
    node.propose(b"a")
    node.transfer_leader(2)
    network.tick(10, 1)
    assert node.transfer_target == 0
    node.propose(b"b")


def test_a_transfer_goes_neither_to_a_learner_nor_to_oneself_nor_to_a_stranger() -> None:
    network = Network(2, learners=1)
    network.elect(1)
    for member_id in (1, 3, 77):
        network.node(1).transfer_leader(member_id)
        assert network.node(1).transfer_target == 0


def test_a_transfer_ends_when_its_target_leaves() -> None:
    network = Network(3)
    network.elect(1)
    network.cut = {3}
    node = network.node(1)
    node.propose_conf_change(ConfChange(((REMOVE_NODE, 3),)))
    node.transfer_leader(3)
    network.settle()
    assert node.transfer_target == 0
    assert node.configuration.voters == {1, 2}


def test_a_learner_does_not_campaign_even_when_told_to() -> None:
    network = Network(1, learners=1)
    node = network.node(2)
    network.tick(50, 2)
    node.step(Message(MSG_TIMEOUT_NOW, from_id=1, to=2, term=1))
    assert (node.role, node.term) == (ROLE_FOLLOWER, 1)


def test_nobody_campaigns_over_a_committed_conf_change_that_is_not_applied() -> None:
    network = Network(1)
    network.elect(1)
    member = network.members[1]
    member.node.propose_conf_change(ConfChange(((ADD_NODE, 2),)))
    network.collect(1)
    network.write(1)
    network.collect(1)
    network.write(1)
    member.crash()  # committed and on disk; the state machine has not seen it
    assert member.node.commit_index > member.node.applied_index
    member.node.campaign()
    assert member.node.role == ROLE_FOLLOWER
    network.settle()
    assert member.node.configuration.voters == {1, 2}
    member.node.campaign()
    assert member.node.role == ROLE_PRE_CANDIDATE


def test_etcd_17813_local_messages_are_not_taken_from_peers() -> None:
    network = Network(2)
    for kind in sorted(LOCAL_TYPES):
        with pytest.raises(LocalMessageError):
            network.node(1).step(Message(kind, from_id=2, to=1))


def test_responses_of_strangers_are_refused_but_an_own_late_one_is_ignored() -> None:
    network = Network(2, spares=1)
    with pytest.raises(PeerNotFoundError, match="peer not found"):
        network.node(1).step(Message(MSG_APP_RESP, from_id=9, to=1, term=1))
    network.node(3).step(Message(MSG_APP_RESP, from_id=3, to=3, term=0))
    assert not network.node(3).has_ready()


def test_forgetting_the_leader_grants_a_pre_vote_at_once() -> None:
    network = Network(3)
    network.elect(1)
    node = network.node(2)
    node.forget_leader()
    assert node.lead == 0
    term = node.term + 1
    node.step(Message(MSG_PRE_VOTE, from_id=3, to=2, term=term, index=9, log_term=term))
    assert not sent_by(network, 2)[-1].reject


def test_proposals_find_the_leader_or_are_dropped() -> None:
    network = Network(3)
    with pytest.raises(ProposalDroppedError):
        network.node(2).propose(b"nobody leads")
    network.node(2).campaign()
    with pytest.raises(ProposalDroppedError):
        network.node(2).propose(b"a candidate does not either")
    network.settle()
    network.node(3).propose_batch([b"a", b"b"])
    network.settle()
    assert network.data(1) == [b"a", b"b"]


def test_forwarding_of_proposals_can_be_switched_off() -> None:
    network = Network(3, no_forwarding=True)
    network.elect(1)
    with pytest.raises(ProposalDroppedError):
        network.node(2).propose(b"a")


def config_of(**changes: object) -> Config:
    return Config(
        **{  # type: ignore[arg-type]
            "id": 1,
            "election_ticks": 10,
            "heartbeat_ticks": 1,
            "storage": MemoryStorage(),
            "random": Random(1),
            **changes,
        }
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 0),
        ("id", 2**64 - 1),
        ("id", 2**64 - 2),
        ("heartbeat_ticks", 0),
        ("election_ticks", 1),
        ("max_inflight_messages", 0),
        ("max_inflight_size", 10),
        ("max_committed_size_per_ready", 0),
    ],
)
def test_a_config_that_cannot_work_is_refused(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field if field != "id" else "member id"):
        config_of(**{field: value})


def test_lease_based_reads_need_the_quorum_check() -> None:
    with pytest.raises(ValueError, match="check_quorum"):
        config_of(read_only_option=READ_ONLY_LEASE_BASED, check_quorum=False)
    assert config_of().read_only_option == READ_ONLY_SAFE


def test_etcd_10219_a_member_whose_log_is_lost_does_not_start() -> None:
    storage = MemoryStorage()
    storage.apply_snapshot(Snapshot(2, 1, ConfState(voters=(1,))))
    storage.set_hard_state(HardState(3, 1, 9))
    with pytest.raises(InvariantError):
        RawNode(config_of(storage=storage))
    storage.set_hard_state(HardState(3, 1, 2))
    with pytest.raises(InvariantError):
        RawNode(config_of(storage=storage, applied=5))


@pytest.mark.parametrize("role", [ROLE_FOLLOWER, ROLE_CANDIDATE, ROLE_LEADER, ROLE_PRE_CANDIDATE])
@pytest.mark.parametrize("kind", range(24))
@pytest.mark.parametrize("later", [0, 1])
def test_every_role_takes_every_message(role: int, kind: int, later: int) -> None:
    network = Network(3, pre_vote=role == ROLE_PRE_CANDIDATE)
    node = network.node(1)
    if role == ROLE_LEADER:
        network.elect(1)
    elif role != ROLE_FOLLOWER:
        node.campaign()
    assert node.role == role
    term = node.term
    snapshot = Snapshot(50, term, ConfState(voters=(1, 2, 3)))
    m = Message(
        kind,
        from_id=2,
        to=1,
        term=0 if kind in LOCAL_TYPES or kind == MSG_PROP else term + later,
        log_term=1,
        index=1,
        entries=[Entry(1, 2, ENTRY_NORMAL, b"x")] if kind in (MSG_APP, MSG_PROP, 15, 16) else [],
        snapshot=snapshot if kind == 7 else None,
    )
    try:
        node.step(m)
    except (LocalMessageError, ProposalDroppedError):
        assert node.term == term
    raises_term = (
        later and kind not in LOCAL_TYPES and kind not in (MSG_PROP, 17, 18, MSG_TIMEOUT_NOW)
    )
    lease = node.lead and kind in (MSG_VOTE, MSG_PRE_VOTE) and role == ROLE_LEADER
    if raises_term and not lease:
        assert node.term == term + 1
        assert node.role in (ROLE_FOLLOWER, ROLE_CANDIDATE)
    leads = kind in (MSG_APP, 7, MSG_HEARTBEAT)
    if leads and (later or role != ROLE_LEADER):
        assert (node.role, node.lead) == (ROLE_FOLLOWER, 2)
    network.collect(1)
    assert node.commit_index <= node.last_index


def test_decode_of_an_applied_change_is_what_was_proposed() -> None:
    network = Network(1)
    network.elect(1)
    change = ConfChange(((ADD_NODE, 2),), context=b"about two")
    network.node(1).propose_conf_change(change)
    network.collect(1)
    (entry,) = network.members[1].appends[0].entries
    assert decode_conf_change(entry) == change


def test_a_refused_pre_vote_tells_of_a_later_term() -> None:
    network = Network(3)
    node = network.node(1)
    node.campaign()
    node.step(Message(MSG_PRE_VOTE_RESP, from_id=2, to=1, term=8, reject=True))
    assert (node.role, node.term) == (ROLE_FOLLOWER, 8)


def test_nobody_campaigns_while_its_snapshot_is_not_installed() -> None:
    network = Network(3)
    node = network.node(1)
    snapshot = Snapshot(50, 1, ConfState(voters=(1, 2, 3)))
    node.step(Message(MSG_SNAP, from_id=2, to=1, term=1, snapshot=snapshot))
    node.campaign()
    assert node.role == ROLE_FOLLOWER
