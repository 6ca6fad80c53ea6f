"""Linearizable reads: thesis section 6.4, and the ways etcd has got them wrong."""

from __future__ import annotations

import pytest

from etcdtw.raft.confchange import REMOVE_NODE, ConfChange
from etcdtw.raft.config import READ_ONLY_LEASE_BASED
from etcdtw.raft.message import MSG_HEARTBEAT, MSG_HEARTBEAT_RESP, Message
from etcdtw.raft.read_only import PENDING_READS_MAX, ReadOnly
from tests.raft.raft_network import Network


def led_network(voters: int = 3, **options: int) -> Network:
    network = Network(voters, **options)
    network.elect(1)
    return network


def contexts(network: Network, member_id: int) -> list[bytes]:
    return [read.context for read in network.members[member_id].reads]


def test_thesis_6_4_a_quorum_confirms_the_leader_before_a_read() -> None:
    network = led_network()
    node = network.node(1)
    node.read_index(b"one")
    network.collect(1)
    assert contexts(network, 1) == []
    network.settle()
    assert contexts(network, 1) == [b"one"]
    assert network.members[1].reads[0].index == node.commit_index


def test_a_follower_asks_its_leader_and_gets_its_own_context_back() -> None:
    network = led_network()
    network.node(2).read_index(b"from two")
    network.settle()
    assert contexts(network, 2) == [b"from two"]
    assert contexts(network, 1) == []


def test_without_a_leader_a_read_is_not_answered() -> None:
    network = Network(3)
    network.node(2).read_index(b"lost")
    network.node(2).campaign()
    network.node(2).read_index(b"lost too")
    network.settle()
    assert contexts(network, 2) == []


def test_a_leader_cut_off_confirms_nothing() -> None:
    network = led_network()
    network.cut = {1}
    network.node(1).read_index(b"stale")
    network.settle()
    network.tick(30)
    assert contexts(network, 1) == []


def test_etcd_20418_an_answer_to_an_older_heartbeat_confirms_no_newer_read() -> None:
    network = led_network()
    node = network.node(1)
    node.read_index(b"one")
    network.collect(1)
    old = [m for m in network.wire if m.type == MSG_HEARTBEAT]
    network.wire.clear()
    node.read_index(b"two")
    for m in old:
        response = Message(
            MSG_HEARTBEAT_RESP, from_id=m.to, to=1, term=node.term, context=m.context
        )
        node.step(response)
    network.members[1].collect()
    assert contexts(network, 1) == [b"one"]


def test_etcd_20418_confirmations_of_an_older_term_are_dropped() -> None:
    network = led_network()
    node = network.node(1)
    node.read_index(b"one")
    network.collect(1)
    late = [
        Message(MSG_HEARTBEAT_RESP, from_id=m.to, to=1, term=m.term, context=m.context)
        for m in network.wire
        if m.type == MSG_HEARTBEAT
    ]
    network.wire.clear()
    network.node(2).forget_leader()
    network.node(3).forget_leader()
    network.elect(2)
    network.node(1).forget_leader()
    network.node(3).forget_leader()
    network.elect(1)  # the same member leads again, in a later term
    node.read_index(b"two")
    network.collect(1)
    network.wire.clear()
    for m in late:
        node.step(m)
    network.members[1].collect()
    assert contexts(network, 1) == []


def test_numbers_of_reads_go_on_across_terms() -> None:
    network = led_network()
    node = network.node(1)
    node.read_index(b"one")
    network.settle()
    number = node._state.read_only.number
    network.node(2).forget_leader()
    network.node(3).forget_leader()
    network.elect(2)
    assert number > 0
    assert node._state.read_only.number == number


def test_a_read_whose_heartbeats_were_lost_is_confirmed_by_the_next_ones() -> None:
    network = led_network()
    network.node(1).read_index(b"one")
    network.collect(1)
    network.wire.clear()
    network.tick(1)
    assert contexts(network, 1) == [b"one"]


def test_one_round_confirms_all_reads_that_wait() -> None:
    network = led_network()
    node = network.node(1)
    for context in (b"one", b"two", b"three"):
        node.read_index(context)
    network.settle()
    assert contexts(network, 1) == [b"one", b"two", b"three"]


def test_a_context_that_the_leader_never_made_confirms_nothing() -> None:
    reads = ReadOnly()
    reads.add(1, 0, b"a", 5)
    for context in (b"", b"short", (2).to_bytes(8, "little"), b"x" * 9):
        reads.acknowledge(2, context)
    assert reads.acks == {1: 1}
    reads.acknowledge(2, reads.heartbeat_context())
    assert reads.acks == {1: 1, 2: 1}
    assert [read.context for read in reads.release(1)] == [b"a"]
    assert reads.heartbeat_context() == b""


def test_etcd_7331_reads_wait_until_the_leader_has_committed_in_its_term() -> None:
    network = Network(3)
    node = network.node(1)
    node.campaign()
    while not node.is_leader:
        for member_id in (1, 2, 3):
            network.collect(member_id)
            while network.members[member_id].appends:
                network.write(member_id)
        if network.wire:
            network.deliver()
    assert not node.has_committed_in_term()
    node.read_index(b"early")
    network.collect(1)
    assert not any(m.context for m in network.wire)
    network.settle()
    assert contexts(network, 1) == [b"early"]
    assert network.members[1].reads[0].index == node.commit_index


@pytest.mark.parametrize("count", [PENDING_READS_MAX, PENDING_READS_MAX + 1])
def test_reads_that_wait_have_a_bound(count: int) -> None:
    network = led_network()
    for i in range(count):
        network.node(1).read_index(b"%d" % i)
    network.settle()
    assert len(contexts(network, 1)) == PENDING_READS_MAX


def test_lease_based_reads_ask_nobody_and_keep_the_leader_known() -> None:
    network = led_network(read_only_option=READ_ONLY_LEASE_BASED)
    network.node(1).read_index(b"at once")
    network.members[1].collect()
    assert contexts(network, 1) == [b"at once"]
    network.node(2).forget_leader()
    assert network.node(2).lead == 1


def test_a_late_answer_to_an_older_heartbeat_takes_no_confirmation_back() -> None:
    reads = ReadOnly()
    reads.add(1, 0, b"a", 5)
    first = reads.heartbeat_context()
    reads.add(1, 0, b"b", 5)
    reads.acknowledge(2, reads.heartbeat_context())
    reads.acknowledge(2, first)
    assert reads.acks[2] == 2


def test_a_read_is_confirmed_when_the_missing_voter_is_removed() -> None:
    network = led_network(2)
    node = network.node(1)
    node.read_index(b"one")
    network.collect(1)
    network.wire.clear()
    assert contexts(network, 1) == []
    node.apply_conf_change(ConfChange(((REMOVE_NODE, 2),)))
    network.members[1].collect()
    assert contexts(network, 1) == [b"one"]
