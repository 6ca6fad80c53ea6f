"""A member of a cluster that is left behind, and the snapshots that bring it back."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from etcdtw.node.node import Node
from etcdtw.node.snapshots import REFUSAL_REST_S
from etcdtw.raft.message import MSG_SNAP, Message
from tests.support.cluster_rig import ClusterRig, RigMember, others
from tests.support.model_state import ModelSnapshots
from tests.support.watch_rig import Client


@pytest.fixture
def compacting(tmp_path: Path) -> ClusterRig:
    return ClusterRig(tmp_path, 3, snapshot_count=10, catchup_entries=5)


def lag(rig: ClusterRig, puts: int = 40) -> Node:
    """Take a follower away and let the others leave it behind their log; return the leader."""
    leader = rig.leader()
    lagging = others(rig, leader)[-1].member_id
    rig.crash(lagging)
    for i in range(puts):
        rig.must_put(leader, b"k%03d" % i)
    rig.run(0.3)
    assert leader.parts.log.first_index() > 20, "the log was not compacted"
    rig.start(lagging)
    return leader


def left_behind(rig: ClusterRig) -> RigMember:
    """Return the member that `lag` took away."""
    return next(member for member in rig.members.values() if member.up.applied_index < 20)


def files_of(node: Node) -> ModelSnapshots:
    """Return the model behind a node's snapshot files, which fails and waits as it is told."""
    return cast(ModelSnapshots, node.parts.snapshot_files)


def cut_off(rig: ClusterRig, node: Node, puts: int = 40) -> None:
    """Keep a member apart from the others until they have left it behind their log."""
    majority = [i for i in rig.members if i != node.member_id]
    rig.network.partition([node.member_id], majority)
    for i in range(puts):
        rig.must_put(rig.leader(majority), b"k%03d" % i)
    rig.run(0.3)
    rig.network.heal()


def test_a_member_left_behind_the_log_gets_a_snapshot(compacting: ClusterRig) -> None:
    leader = lag(compacting)
    lagging = left_behind(compacting).up
    files = files_of(lagging)
    files.holds = True
    compacting.until(lambda: lagging.snapshots.installing == 1)
    files.release()
    compacting.converge()
    assert lagging.snapshots.installing == 0
    assert leader.snapshots.sent_total == 1
    assert [n.snapshots.installed_total for n in others(compacting, leader)].count(1) == 1


def test_etcd_18055_two_snapshots_in_a_row_are_installed(compacting: ClusterRig) -> None:
    for _ in range(3):
        lag(compacting)
        compacting.converge()


def test_a_snapshot_is_installed_while_apply_waits_for_a_full_state(
    compacting: ClusterRig,
) -> None:
    leader = compacting.leader()
    waiting = others(compacting, leader)[-1]
    member = compacting.members[waiting.member_id]
    files = files_of(waiting)
    applied = waiting.applied_index
    member.state.is_full = files.holds_adoption = True
    for i in range(8):
        compacting.must_put(leader, b"a%d" % i)
    compacting.run(0.3)
    assert (waiting.applied_index, waiting.commit_index) == (applied, leader.commit_index)
    cut_off(compacting, waiting)
    compacting.until(lambda: files.is_adopting)
    leader = compacting.leader()
    # What waited is in the snapshot; ticks and heartbeats go on, and nothing is applied below it.
    member.state.is_full = False
    compacting.run(2.0)
    assert (waiting.applied_index, waiting.leader_id) == (applied, leader.member_id)
    files.release_adoption()
    compacting.converge()
    assert waiting.snapshots.installed_total == 1
    compacting.must_put(leader, b"after")
    compacting.converge()


def test_a_snapshot_that_is_refused_is_not_sent_again_at_once(compacting: ClusterRig) -> None:
    leader = lag(compacting)
    lagging = left_behind(compacting).up
    files = files_of(lagging)
    files.refusal = "users and roles are switched on"
    compacting.run(12 * REFUSAL_REST_S)
    assert 6 <= files.asked <= 12
    assert lagging.snapshots.installing == 0
    compacting.must_put(leader, b"served without it")
    files.refusal = ""
    compacting.run(2 * REFUSAL_REST_S)
    compacting.converge()


def test_a_leader_compacts_its_log_although_a_follower_refuses_every_snapshot(
    compacting: ClusterRig,
) -> None:
    leader = lag(compacting)
    files = files_of(left_behind(compacting).up)
    files.refusal = "no space left on device"
    began = leader.parts.log.first_index()
    for i in range(60):
        compacting.must_put(leader, b"more%d" % i)
        compacting.run(0.5)
    assert files.asked >= 3
    assert leader.parts.log.first_index() > began
    files.refusal = ""
    compacting.run(2 * REFUSAL_REST_S)
    compacting.converge()


def test_what_comes_behind_a_snapshot_waits_for_it(compacting: ClusterRig) -> None:
    leader = lag(compacting)
    for i in range(30):
        compacting.put(leader, b"more%d" % i)
        compacting.run(0.02)
    compacting.converge()


def test_a_snapshot_that_is_lost_is_sent_again(compacting: ClusterRig) -> None:
    lost: list[Message] = []

    def fate(m: Message) -> list[float]:
        if m.type == MSG_SNAP and len(lost) < 2:
            lost.append(m)
            return []
        return [0.0]

    compacting.network.fate = fate
    lag(compacting)
    compacting.converge()
    assert len(lost) == 2


def test_a_crash_right_behind_a_snapshot_loses_nothing(compacting: ClusterRig) -> None:
    leader = lag(compacting)
    lagging = left_behind(compacting)
    compacting.until(lambda: lagging.up.snapshots.installed_total == 1)
    compacting.crash(lagging.member_id)
    compacting.start(lagging.member_id)
    compacting.must_put(leader, b"after")
    compacting.converge()


def test_etcd_15271_watchers_go_on_where_they_were_when_a_snapshot_comes(
    compacting: ClusterRig,
) -> None:
    leader = compacting.leader()
    watching = others(compacting, leader)[-1]
    client = Client(watching.hub, watching.now_ms)
    client.create(b"k", b"l")
    compacting.must_put(leader, b"k-first")
    compacting.converge()
    cut_off(compacting, watching)
    compacting.converge()
    compacting.run(0.5)
    assert watching.snapshots.installed_total == 1
    revisions = [e.kv.mod_revision for response in client.take() for e in response.events]
    assert revisions == list(range(2, 2 + 41)), "every event once, in order"


def test_a_new_member_joins_a_compacted_cluster_by_a_snapshot(compacting: ClusterRig) -> None:
    leader = compacting.leader()
    for i in range(40):
        compacting.must_put(leader, b"k%d" % i)
    compacting.run(0.3)
    compacting.add(4, is_learner=True)
    compacting.converge()
    assert compacting.members[4].up.snapshots.installed_total == 1
    assert compacting.promote(4) is None
    compacting.converge()
