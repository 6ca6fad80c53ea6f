"""Logs brought into line, flow held back, members changed: thesis 3.5, 4, 7 and 10.2.1."""

from __future__ import annotations

import pytest

from etcdtw.raft.confchange import (
    ADD_LEARNER_NODE,
    ADD_NODE,
    REMOVE_NODE,
    TRANSITION_JOINT_EXPLICIT,
    ConfChange,
)
from etcdtw.raft.entry import ENTRY_CONF_CHANGE_V2, ConfState, Entry, Snapshot
from etcdtw.raft.errors import (
    ConfChangeError,
    ProposalDroppedError,
    SnapshotUnavailableError,
)
from etcdtw.raft.message import (
    MSG_APP,
    MSG_APP_RESP,
    MSG_HEARTBEAT,
    MSG_PROP,
    MSG_SNAP,
    Message,
)
from etcdtw.raft.progress import PROGRESS_PROBE, PROGRESS_REPLICATE, PROGRESS_SNAPSHOT
from etcdtw.raft.state import ROLE_FOLLOWER
from tests.raft.raft_network import Network


def led_network(voters: int = 3, **options: int) -> Network:
    network = Network(voters, **options)
    network.elect(1)
    return network


def test_thesis_3_5_what_is_proposed_reaches_everyone_in_order() -> None:
    network = led_network(learners=1)
    for i in range(5):
        network.node(1).propose_batch([b"%d" % i, b"%d+" % i])
    network.settle()
    expected = [b"%d%s" % (i, plus) for i in range(5) for plus in (b"", b"+")]
    assert [network.data(member_id) for member_id in (1, 2, 3, 4)] == [expected] * 4


def test_thesis_10_2_1_a_leader_sends_before_its_own_disk_is_done() -> None:
    network = led_network()
    network.node(1).propose(b"a")
    network.collect(1)
    assert [m.type for m in network.wire] == [MSG_APP, MSG_APP]
    assert network.members[1].appends


def test_thesis_10_2_1_two_followers_commit_what_the_leader_has_not_written() -> None:
    network = led_network()
    node = network.node(1)
    node.propose(b"a")
    commit_index = node.commit_index
    network.collect(1)
    while network.wire:
        network.deliver()
    for member_id in (2, 3):
        network.collect(member_id)
        network.write(member_id)
    while network.wire:
        network.deliver()
    assert node.commit_index == commit_index + 1
    network.collect(1)
    assert network.members[1].applies == []  # its own machine waits for its own disk
    network.settle()
    assert network.data(1) == [b"a"]


def test_a_learner_does_not_count_for_the_commit_index() -> None:
    network = led_network(2, learners=2)
    network.cut = {2}
    node = network.node(1)
    commit_index = node.commit_index
    node.propose(b"a")
    network.settle()
    assert node.commit_index == commit_index


def test_thesis_3_6_2_an_entry_of_an_old_term_waits_for_one_of_the_new() -> None:
    network = led_network()
    network.cut = {2, 3}
    network.node(1).propose(b"old")
    network.settle()
    network.cut = {1, 2, 3}
    network.tick(25, 1)  # steps down
    network.cut = {3}
    network.node(2).tick()
    for _ in range(12):
        network.node(2).tick()
    network.node(1).forget_leader()
    network.node(2).forget_leader()
    network.wire.clear()
    network.node(1).campaign()
    network.settle()
    assert network.node(1).is_leader
    assert network.data(2) == [b"old"]


def test_a_follower_that_was_away_gets_what_it_missed() -> None:
    network = led_network()
    network.cut = {3}
    for i in range(20):
        network.node(1).propose(b"%d" % i)
    network.settle()
    network.cut = set()
    network.tick(2)
    assert network.data(3) == [b"%d" % i for i in range(20)]


def test_thesis_3_5_an_uncommitted_tail_is_overwritten() -> None:
    network = led_network()
    network.cut = {1}
    network.node(1).propose_batch([b"lost", b"lost too"])
    network.settle()
    network.tick(40)
    new_leader = network.leader()
    assert new_leader in (2, 3)
    network.node(new_leader).propose(b"kept")
    network.settle()
    network.cut = set()
    network.tick(25)
    assert network.data(1) == [b"kept"]


def test_an_old_append_below_the_commit_index_is_answered_with_it() -> None:
    network = led_network()
    node = network.node(2)
    node.step(Message(MSG_APP, from_id=1, to=2, term=node.term, index=0, log_term=0))
    network.collect(2)
    for response in network.members[2].write_one():
        network.wire.append(response)
    assert (network.wire[0].type, network.wire[0].index) == (MSG_APP_RESP, node.commit_index)


def test_thesis_7_a_follower_too_far_behind_gets_a_snapshot() -> None:
    network = led_network()
    network.cut = {3}
    for i in range(10):
        network.node(1).propose(b"%d" % i)
        network.settle()
    network.members[1].compact()
    network.cut = set()
    network.tick(3)
    assert network.members[3].applied == network.members[1].applied
    assert network.node(1).progress()[3].state == PROGRESS_REPLICATE
    network.node(1).propose(b"after")
    network.settle()
    assert network.data(3)[-1] == b"after"


def test_a_lost_snapshot_is_sent_again_once_it_is_reported() -> None:
    network = led_network()
    network.cut = {3}
    network.node(1).propose(b"a")
    network.settle()
    network.members[1].compact()
    network.cut = set()
    leader = network.node(1)
    leader.tick()
    network.collect(1)
    while not any(m.type == MSG_SNAP for m in network.wire):
        for member_id in (1, 2, 3):
            network.collect(member_id)
            while network.members[member_id].appends:
                network.write(member_id)
        if not any(m.type == MSG_SNAP for m in network.wire):
            network.deliver()
    network.wire.clear()
    assert leader.progress()[3].state == PROGRESS_SNAPSHOT
    leader.report_snapshot(3, ok=False)
    assert leader.progress()[3].state == PROGRESS_PROBE
    assert leader.progress()[3].match_index + 1 == leader.progress()[3].next_index
    leader.report_snapshot(3, ok=False)  # there is none under way: nothing happens
    network.tick(3)
    assert network.data(3) == [b"a"]


def test_a_snapshot_that_cannot_be_made_now_is_sent_later() -> None:
    network = led_network()
    network.cut = {3}
    network.node(1).propose(b"a")
    network.settle()
    member = network.members[1]
    member.compact()
    take = member.storage.take_snapshot

    def unavailable() -> Snapshot:
        raise SnapshotUnavailableError

    member.storage.take_snapshot = unavailable
    network.cut = set()
    network.tick(3)
    assert network.data(3) == []
    member.storage.take_snapshot = take
    network.tick(3)
    assert network.data(3) == [b"a"]


def snapshot_message(network: Network, snapshot: Snapshot) -> Message:
    node = network.node(2)
    return Message(MSG_SNAP, from_id=1, to=2, term=node.term, snapshot=snapshot)


def test_a_snapshot_that_is_old_or_of_strangers_is_ignored() -> None:
    network = led_network()
    node = network.node(2)
    members = ConfState(voters=(1, 2, 3))
    for snapshot in (
        Snapshot(node.commit_index, node.term, members),
        Snapshot(99, node.term, ConfState(voters=(1, 3))),
    ):
        node.step(snapshot_message(network, snapshot))
        ready = node.ready()
        assert ready.snapshot is None
        (m,) = ready.messages[-1].responses
        assert (m.type, m.index) == (MSG_APP_RESP, node.commit_index)


def test_a_snapshot_of_what_the_log_holds_only_moves_the_commit_index() -> None:
    network = led_network()
    node = network.node(2)
    last_index = node.last_index
    node.step(
        Message(
            MSG_APP,
            from_id=1,
            to=2,
            term=node.term,
            index=last_index,
            log_term=node.term,
            entries=[Entry(node.term, last_index + 1), Entry(node.term, last_index + 2)],
        )
    )
    snapshot = Snapshot(last_index + 1, node.term, ConfState(voters=(1, 2, 3)))
    node.step(snapshot_message(network, snapshot))
    assert (node.commit_index, node.last_index) == (last_index + 1, last_index + 2)
    assert node.ready().snapshot is None


def test_an_installed_snapshot_counts_even_if_the_term_has_moved_on() -> None:
    network = led_network()
    member = network.members[2]
    node = member.node
    text = b"30,2,6161"
    state = ConfState(voters=(1, 2, 3))
    node.step(snapshot_message(network, Snapshot(30, node.term, state, text)))
    network.collect(2)
    network.wire.clear()
    node.step(Message(MSG_HEARTBEAT, from_id=3, to=2, term=node.term + 1))
    network.write(2)
    assert (node.applied_index, member.storage.first_index()) == (30, 31)
    assert node._state.log.unstable.snapshot is None


def test_etcd_14633_a_full_window_does_not_stall_a_follower_for_ever() -> None:
    network = led_network(max_inflight_messages=2)
    network.cut = {3}
    for i in range(6):
        network.node(1).propose(b"%d" % i)
        network.settle()
    assert network.node(1).progress()[3].inflights.is_full()
    network.cut = set()
    network.tick(2)
    assert network.data(3) == [b"%d" % i for i in range(6)]


def test_an_unreachable_follower_is_probed() -> None:
    network = led_network()
    network.node(1).report_unreachable(3)
    assert network.node(1).progress()[3].state == PROGRESS_PROBE
    network.tick(1)
    assert network.node(1).progress()[3].state == PROGRESS_REPLICATE


def test_uncommitted_proposals_have_a_bound_but_one_always_passes() -> None:
    network = led_network(max_uncommitted_size=10)
    node = network.node(1)
    network.cut = {2, 3}
    node.propose(b"x" * 100)
    with pytest.raises(ProposalDroppedError):
        node.propose(b"y")
    with pytest.raises(ProposalDroppedError):
        node.propose_conf_change(ConfChange(((ADD_NODE, 4),)))
    node.propose(b"")  # empty ones pass whatever is waiting
    network.settle()
    network.cut = set()
    network.tick(2)
    node.propose(b"z" * 10)
    with pytest.raises(ProposalDroppedError):
        node.propose(b"z")
    network.settle()
    assert network.data(3) == [b"x" * 100, b"z" * 10]


def test_a_refused_conf_change_leaves_the_next_one_possible() -> None:
    network = led_network(max_uncommitted_size=10)
    node = network.node(1)
    node.propose(b"x" * 10)
    change = ConfChange(((ADD_LEARNER_NODE, 4),))
    with pytest.raises(ProposalDroppedError):
        node.propose_conf_change(change)
    network.settle()
    node.propose_conf_change(change)
    network.settle()
    assert node.configuration.learners == {4}


def test_thesis_4_1_one_change_at_a_time() -> None:
    network = led_network()
    node = network.node(1)
    node.propose_conf_change(ConfChange(((REMOVE_NODE, 3),)))
    node.propose_conf_change(ConfChange(((REMOVE_NODE, 2),)))  # becomes an empty entry
    network.settle()
    assert node.configuration.voters == {1, 2}


def test_a_malformed_conf_change_becomes_an_empty_entry() -> None:
    network = led_network()
    node = network.node(1)
    entry = Entry(0, 0, ENTRY_CONF_CHANGE_V2, b"\xff")
    node.step(Message(MSG_PROP, from_id=2, to=1, entries=[entry]))
    network.settle()
    assert network.members[2].applied[-1][2] == b""
    assert entry.type == ENTRY_CONF_CHANGE_V2  # the caller's own list is left alone


def test_thesis_4_3_a_joint_configuration_needs_both_majorities() -> None:
    network = led_network(3, spares=2)
    node = network.node(1)
    changes = ((ADD_NODE, 4), (ADD_NODE, 5), (REMOVE_NODE, 2), (REMOVE_NODE, 3))
    node.propose_conf_change(ConfChange(changes, TRANSITION_JOINT_EXPLICIT))
    network.settle()
    assert node.configuration.is_joint()
    commit_index = node.commit_index
    network.cut = {2, 3}  # the old majority is gone, the new one is there
    node.propose(b"a")
    network.settle()
    assert node.commit_index == commit_index
    network.cut = set()
    network.tick(2)
    assert node.commit_index > commit_index
    node.propose_conf_change(ConfChange())
    network.settle()
    assert not node.configuration.is_joint()
    assert node.configuration.voters == {1, 4, 5}


def test_an_automatic_joint_configuration_leaves_itself_even_after_a_transfer() -> None:
    network = led_network(3, spares=2)
    node = network.node(1)
    node.propose_conf_change(ConfChange(((ADD_NODE, 4), (ADD_NODE, 5))))
    network.collect(1)
    node.transfer_leader(2)  # proposals are refused meanwhile, this one too
    network.settle()
    assert node.configuration.is_joint()
    network.tick(12)  # the target had a conf change to apply first; the transfer is given up
    node.propose(b"a")
    network.settle()
    assert not node.configuration.is_joint()
    assert node.configuration.voters == {1, 2, 3, 4, 5}


def test_a_change_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    network = led_network()
    with pytest.raises(ConfChangeError, match="non-joint"):
        network.node(1).apply_conf_change(ConfChange())
    assert network.node(1).configuration.voters == {1, 2, 3}


def test_thesis_4_2_2_a_removed_leader_steps_down() -> None:
    network = led_network()
    network.node(1).propose_conf_change(ConfChange(((REMOVE_NODE, 1),)))
    network.settle()
    assert network.node(1).role == ROLE_FOLLOWER
    network.tick(30)
    assert network.leader() in (2, 3)


def test_a_removed_leader_may_be_told_to_lead_on_but_takes_no_proposals() -> None:
    network = led_network(step_down_on_removal=False)
    node = network.node(1)
    node.propose_conf_change(ConfChange(((REMOVE_NODE, 1),)))
    network.settle()
    assert node.is_leader
    with pytest.raises(ProposalDroppedError):
        node.propose(b"a")


def test_removing_one_of_two_commits_what_the_other_has() -> None:
    network = led_network(2)
    node = network.node(1)
    node.propose_conf_change(ConfChange(((REMOVE_NODE, 2),)))
    network.collect(1)
    network.write(1)
    while network.wire:
        network.deliver()
    network.collect(2)
    network.write(2)
    network.cut = set()
    while network.wire:
        network.deliver()
    network.cut = {2}
    node.propose(b"a")
    network.settle()
    assert network.data(1)[-1] == b"a"


def test_advance_belongs_to_synchronous_storage_only() -> None:
    with pytest.raises(AssertionError, match="answer through messages"):
        Network(1).node(1).advance()


def follow(network: Network, term: int, *entries: Entry) -> Message:
    """Let member 2 take ``entries`` from the leader of ``term``; return what it asks to write."""
    member = network.members[2]
    first = entries[0].index
    member.node.step(
        Message(
            MSG_APP,
            from_id=1 if term % 2 else 3,
            to=2,
            term=term,
            index=first - 1,
            log_term=1,
            entries=list(entries),
        )
    )
    network.collect(2)
    return member.appends[-1]


def test_etcd_raft_aba_a_write_asked_for_in_an_older_term_acknowledges_nothing() -> None:
    network = Network(3)
    unstable = network.node(2)._state.log.unstable
    follow(network, 3, Entry(2, 2))
    follow(network, 4, Entry(4, 2))
    follow(network, 5, Entry(2, 2))  # the first entry again: its leader had kept it
    network.write(2)
    assert unstable.stable_index == 1  # the second write will yet overwrite what is on disk
    network.write(2)
    assert unstable.stable_index == 1
    network.write(2)
    assert unstable.stable_index == 2
    assert network.members[2].storage.term(2) == 2


def test_every_later_write_acknowledges_the_whole_log_so_far() -> None:
    network = Network(3)
    node = network.node(2)
    follow(network, 3, Entry(3, 2))
    node.step(Message(MSG_HEARTBEAT, from_id=3, to=2, term=4))
    network.collect(2)  # the new term alone has to be written, no entry
    network.write(2)
    assert node._state.log.unstable.stable_index == 1
    network.write(2)
    assert node._state.log.unstable.stable_index == 2


def test_a_new_leader_takes_no_conf_change_before_its_tail_is_applied() -> None:
    network = Network(1, spares=2)
    network.elect(1)
    node = network.node(1)
    node.propose(b"a")
    network.collect(1)
    network.write(1)
    network.members[1].crash()
    node = network.node(1)
    node.campaign()
    while not node.is_leader:
        network.collect(1)
        network.write(1)
    node.propose_conf_change(ConfChange(((ADD_NODE, 2),)))
    network.settle()
    assert node.configuration.voters == {1}
    node.propose_conf_change(ConfChange(((ADD_NODE, 2),)))
    network.settle()
    assert node.configuration.voters == {1, 2}


def test_a_follower_stays_in_snapshot_while_the_log_cannot_take_it_on() -> None:
    network = led_network()
    network.cut = {3}
    for i in range(10):
        network.node(1).propose(b"%d" % i)
        network.settle()
    member = network.members[1]
    member.compact()
    progress = member.node.progress()[3]
    progress.become_snapshot(member.applied_index)
    term = member.node.term
    too_early = member.storage.first_index() - 2
    member.node.step(Message(MSG_APP_RESP, from_id=3, to=1, term=term, index=too_early))
    assert progress.state == PROGRESS_SNAPSHOT
    assert not member.node.has_ready()
    member.node.step(Message(MSG_APP_RESP, from_id=3, to=1, term=term, index=too_early + 1))
    assert progress.state == PROGRESS_REPLICATE


def test_no_snapshot_is_made_for_a_member_that_is_not_there() -> None:
    network = led_network()
    network.cut = {3}
    network.node(1).propose(b"a")
    network.settle()
    network.tick(12, 1)
    network.members[1].compact()
    progress = network.node(1).progress()[3]
    assert not progress.recent_active
    network.node(1).report_unreachable(3)
    network.node(1).propose(b"b")
    assert progress.state == PROGRESS_PROBE
    network.collect(1)
    assert not any(m.type == MSG_SNAP for m in network.wire)
