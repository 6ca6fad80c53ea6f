"""etcd 3.7.0 and 3.7.1 send each batch of messages backwards: followers stay right, and calm."""

from __future__ import annotations

import pytest

from etcdtw.raft.message import MSG_APP, Message
from tests.raft.raft_network import Network

ROUNDS = 20
RESENT_MAX = 4.0  # times as many entries sent as with messages in order


class BackwardsNetwork(Network):
    """One whose leader, member 1, sends the messages of a batch in reverse order."""

    def __init__(self, voters: int) -> None:
        super().__init__(voters)
        self.is_reversed = True
        self.entries_sent = 0

    def collect(self, member_id: int) -> None:
        messages = self.members[member_id].collect()
        if member_id == 1:
            appends = [m for m in messages if m.type == MSG_APP]
            self.entries_sent += sum(len(m.entries) for m in appends)
            if self.is_reversed:
                messages.reverse()
        self.wire += messages


def commit(network: BackwardsNetwork, batch: int) -> None:
    """Have the leader make a message of each of ``batch`` proposals, as real etcd does."""
    for i in range(ROUNDS):
        for k in range(batch):
            network.node(1).propose(b"%d.%d" % (i, k))
        network.settle()


@pytest.mark.parametrize("batch", [1, 2, 5, 40])
@pytest.mark.parametrize("voters", [3, 5])
def test_followers_of_a_leader_that_sends_backwards_get_everything(voters: int, batch: int) -> None:
    network = BackwardsNetwork(voters)
    network.elect(1)
    term = network.node(1).term
    commit(network, batch)
    wanted = [b"%d.%d" % (i, k) for i in range(ROUNDS) for k in range(batch)]
    assert all(network.data(member_id) == wanted for member_id in network.members)
    assert network.node(1).term == term
    in_order = BackwardsNetwork(voters)
    in_order.is_reversed = False
    in_order.elect(1)
    commit(in_order, batch)
    assert network.entries_sent <= RESENT_MAX * in_order.entries_sent


def test_a_follower_that_was_away_catches_up_with_a_leader_that_sends_backwards() -> None:
    network = BackwardsNetwork(3)
    network.elect(1)
    network.cut.add(3)
    commit(network, 10)
    network.cut.clear()
    network.tick(3, 1)
    commit(network, 1)
    assert network.data(3) == network.data(1)
    assert len(network.data(1)) == 11 * ROUNDS


def test_everybody_may_send_backwards() -> None:
    network = BackwardsNetwork(3)
    network.elect(1)
    backwards: list[Message] = []
    for i in range(200):
        network.node(1 + i % 3).propose(b"%d" % i)
        if i % 7 == 6:
            for member_id in network.members:
                network.collect(member_id)
            backwards = network.wire[::-1]
            network.wire = backwards
            network.settle()
    network.settle()
    assert sorted(network.data(1), key=int) == [b"%d" % i for i in range(200)]
    assert network.data(2) == network.data(3) == network.data(1)
