"""The node as a service: what its start and its stop wait for.  A node in memory, no sockets."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from etcdtw.node.duties.publication import Publication
from etcdtw.server.services.consensus import Consensus
from tests.support.node_rig import MEMBER_ID, NodeRig

NAME = "m1"
URLS = ("http://client:2379",)


class ConsensusRig(NodeRig):
    """A lone voter; its service is started by the test."""

    def __init__(self) -> None:
        super().__init__()
        node = self.node
        publication = Publication(node.standing, node.members, node.own, NAME, URLS)
        self.consensus = Consensus(node, self.clock, publication)

    def begin(self) -> Deferred[None]:
        return self.consensus.startService()


def test_a_start_is_over_when_the_cluster_knows_this_member_and_lets_it_read() -> None:
    rig = ConsensusRig()
    started: list[object] = []
    rig.begin().addCallback(started.append)
    rig.run()
    assert started == []
    rig.run(5.0)
    assert started == [None]
    member = rig.node.members.member(MEMBER_ID)
    assert member is not None
    assert (member.name, member.client_urls) == (NAME, URLS)


def test_a_stop_during_a_start_leaves_nothing_to_come() -> None:
    rig = ConsensusRig()
    started = rig.begin()
    stopped = rig.consensus.stopService()
    rig.run(10.0)
    assert stopped.called
    assert not started.called
    assert rig.node.is_stopping
    assert not [call for call in rig.clock.calls if "consensus" in repr(call.func)]
