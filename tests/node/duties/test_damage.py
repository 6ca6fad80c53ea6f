"""A member whose state is proved damaged is out of service, and its cluster is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from etcdtw.node.node import Node
from tests.support.cluster_rig import ClusterRig
from tests.support.model_state import State

WHY = "the row b'k' of the table `key` is damaged"


@pytest.fixture
def rig(tmp_path: Path) -> ClusterRig:
    rig = ClusterRig(tmp_path, 3)
    rig.must_put(rig.leader(), b"before")
    rig.run(0.5)
    return rig


def others(rig: ClusterRig, node: Node) -> list[int]:
    return [one for one in rig.members if one != node.member_id]


def test_a_damaged_leader_hands_over_and_the_cluster_goes_on(rig: ClusterRig) -> None:
    old = rig.leader()
    rig.members[old.member_id].damage.prove(WHY)
    assert old.is_quarantined
    assert old.duties.damage.trouble() == f"the state is damaged: {WHY}"
    rig.run(1.0)
    new = rig.leader(others(rig, old))
    assert not old.is_leader
    rig.must_put(new, b"after")
    rig.run(0.5)
    assert old.commit_index == new.commit_index
    assert old.applied_index < new.applied_index
    assert rig.members[old.member_id].stops == []


def test_a_damaged_member_never_campaigns(rig: ClusterRig) -> None:
    damaged = next(node for node in rig.nodes if not node.is_leader)
    rig.members[damaged.member_id].damage.prove(WHY)
    term = damaged.term
    for one in others(rig, damaged):
        rig.crash(one)
    rig.run(10.0)
    assert damaged.term == term
    assert not damaged.is_leader
    assert rig.members[damaged.member_id].stops == []


def test_its_vote_and_its_log_still_count(rig: ClusterRig) -> None:
    damaged = next(node for node in rig.nodes if not node.is_leader)
    rig.members[damaged.member_id].damage.prove(WHY)
    old = rig.leader()
    rig.crash(old.member_id)
    leader = rig.leader()
    assert leader.member_id not in (old.member_id, damaged.member_id)
    rig.must_put(leader, b"with the damaged one")
    assert leader.match_index(damaged.member_id) == leader.commit_index


def test_another_state_brings_it_back(rig: ClusterRig) -> None:
    damaged = next(node for node in rig.nodes if not node.is_leader)
    damage = rig.members[damaged.member_id].damage
    damage.prove(WHY)
    rig.must_put(rig.leader(), b"meanwhile")
    rig.run(0.5)
    damage.forget()
    rig.run(0.5)
    assert not damaged.is_quarantined
    assert damaged.applied_index == rig.leader().applied_index
    rig.crash(rig.leader().member_id)
    rig.run(5.0)
    rig.must_put(rig.leader(), b"after")


class UnreadableState(State):
    """Its rows cannot be read any more, once the test says who is to be told."""

    def __init__(self) -> None:
        super().__init__()
        self.prove: Callable[[str], None] | None = None

    def get(self, key: bytes) -> bytes | None:
        if self.prove is None:
            return super().get(key)
        self.prove(WHY)
        raise ValueError(WHY)


def test_what_fails_amid_a_turn_ends_no_member_that_is_damaged(tmp_path: Path) -> None:
    states: list[UnreadableState] = []

    def new_state() -> UnreadableState:
        states.append(UnreadableState())
        return states[-1]

    rig = ClusterRig(tmp_path, 3, new_state=new_state)
    rig.must_put(rig.leader(), b"first")
    rig.run(0.5)
    damaged = next(node for node in rig.nodes if not node.is_leader)
    member = rig.members[damaged.member_id]
    states[damaged.member_id - 1].prove = member.damage.prove
    rig.must_put(rig.leader(), b"before")
    rig.run(1.0)
    assert damaged.is_quarantined
    assert member.stops == []
    leader = rig.leader()
    rig.must_put(leader, b"later")
    rig.run(0.5)
    assert leader.match_index(damaged.member_id) == leader.commit_index
