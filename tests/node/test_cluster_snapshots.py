"""A member of a cluster that is left behind, and the snapshots that bring it back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from etcdtw.apply.applier import FIELD_DELETE_RANGE
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.node.duties.snapshots import REFUSAL_REST_S, SHORT_LOG_KEPT_MS
from etcdtw.node.node import Node
from etcdtw.raft.entry import Entry
from etcdtw.raft.message import MSG_APP, MSG_APP_RESP, MSG_SNAP, Message
from etcdtw.transport.peer.memory import deliver_at_once
from etcdtw.transport.peer.seams import PeerTransport
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import plain
from tests.support.cluster_rig import ClusterRig, OpenCall, RigMember, others
from tests.support.model_state import ModelSnapshots
from tests.support.watch_rig import Client


@pytest.fixture
def compacting(tmp_path: Path) -> ClusterRig:
    return ClusterRig(tmp_path, 3, snapshot_count=10, catchup_entries=5, log_kept_octets_max=0)


def lag(rig: ClusterRig, puts: int = 40) -> Node:
    """Take a follower away and let the others leave it behind their log; return the leader."""
    leader = rig.leader()
    lagging = others(rig, leader)[-1].member_id
    rig.crash(lagging)
    for i in range(puts):
        rig.must_put(leader, b"k%03d" % i)
    rig.run(0.3)
    assert rig.parts_of(leader).log.first_index() > 20, "the log was not compacted"
    rig.start(lagging)
    return leader


def left_behind(rig: ClusterRig) -> RigMember:
    """Return the member that `lag` took away."""
    return next(member for member in rig.members.values() if member.up.applied_index < 20)


def files_of(rig: ClusterRig, node: Node) -> ModelSnapshots:
    """Return the model behind a node's snapshot files, which fails and waits as it is told."""
    return cast(ModelSnapshots, rig.parts_of(node).snapshot_files)


class SlowTransport:
    """Takes snapshots and does not get them out."""

    def __init__(self) -> None:
        self.sent: list[Callable[[bool], None]] = []
        """Each tells how it went with one."""

    def send_snapshot(self, m: Message, path: str, size: int, done: Callable[[bool], None]) -> None:
        self.sent.append(done)


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
    files = files_of(compacting, lagging)
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
    files = files_of(compacting, waiting)
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


def test_a_snapshot_that_comes_amid_a_long_entry_leaves_nothing_of_it(tmp_path: Path) -> None:
    rig = ClusterRig(
        tmp_path,
        3,
        snapshot_count=10,
        catchup_entries=5,
        log_kept_octets_max=0,
        bounds=WorkBounds(long_keys_min=5, step_keys_max=1),
        long_work_s=0.0,
    )
    leader = rig.leader()
    waiting = others(rig, leader)[-1]
    member = rig.members[waiting.member_id]
    for i in range(20):
        rig.must_put(leader, b"long%02d" % i)
    rig.converge()
    member.state.is_full = files_of(rig, waiting).holds = True
    delete = pb.DeleteRangeRequest(key=b"long", range_end=b"lonh")
    octets = delete.SerializeToString()
    leader.propose(FIELD_DELETE_RANGE, octets, plain(delete), OpenCall(), lambda *_: None)
    rig.run(0.3)
    cut_off(rig, waiting)
    rig.until(lambda: waiting.snapshots.installing == 1)
    member.state.is_full = False
    before = waiting.store.revision
    for _ in range(4):
        waiting.wakeup.run_now()
    assert waiting.store.revision == before, "the long entry is not under way"
    assert member.state.get(b"long00") is None, "the long entry is not under way"
    files_of(rig, waiting).release()
    rig.until(lambda: waiting.snapshots.installed_total == 1)
    leader = rig.leader()
    absent = pb.DeleteRangeRequest(key=b"absent").SerializeToString()
    leader.propose(
        FIELD_DELETE_RANGE,
        absent,
        pb.DeleteRangeRequest(key=b"absent"),
        OpenCall(),
        lambda *_: None,
    )
    rig.must_put(leader, b"after")
    rig.converge()


def hold_an_adoption(rig: ClusterRig) -> Node:
    """Return a member that is amid an adoption which waits; the others go on."""
    waiting = others(rig, rig.leader())[-1]
    files_of(rig, waiting).holds_adoption = True
    cut_off(rig, waiting)
    rig.until(lambda: files_of(rig, waiting).is_adopting)
    return waiting


def test_what_waited_for_a_snapshot_is_written_before_what_came_later(
    compacting: ClusterRig,
) -> None:
    waiting = hold_an_adoption(compacting)
    leader = compacting.leader()
    raw = compacting.parts_of(waiting).raw
    log = compacting.members[waiting.member_id].log
    log.appended.clear()
    first = raw.installing_index + 1
    for index in (first, first + 1):
        entry = Entry(leader.term, index)
        m = Message(MSG_APP, to=waiting.member_id, from_id=leader.member_id, term=leader.term)
        m.index, m.log_term, m.entries = index - 1, leader.term, [entry]
        waiting.peers.receive(m)
        if index == first:
            waiting.wakeup.run_now()
            assert not log.appended, "it waits for the snapshot"
    files_of(compacting, waiting).release_adoption()
    assert log.appended == [first, first + 1]


def test_what_comes_right_behind_a_snapshot_is_written_before_it_is_acknowledged(
    compacting: ClusterRig,
) -> None:
    leader = compacting.leader()
    waiting = others(compacting, leader)[-1]
    member = compacting.members[waiting.member_id]
    files_of(compacting, waiting).holds = files_of(compacting, waiting).holds_adoption = True
    cut_off(compacting, waiting)
    compacting.until(lambda: waiting.snapshots.installing == 1)
    files_of(compacting, waiting).release()  # Raft has heard of it, and no turn has run since
    index = compacting.parts_of(waiting).raw.installing_index
    m = Message(MSG_APP, to=waiting.member_id, from_id=leader.member_id, term=leader.term)
    m.index, m.log_term = index, leader.term
    m.entries = [Entry(leader.term, index + 1), Entry(leader.term, index + 2)]
    m.commit = index + 1
    waiting.peers.receive(m)
    acknowledged: list[int] = []

    def fate(m: Message) -> list[float]:
        if m.type == MSG_APP_RESP and m.from_id == waiting.member_id and not m.reject:
            acknowledged.append(m.index)
        return []

    compacting.network.fate = fate
    compacting.run()
    assert not acknowledged
    assert member.log.initial_state()[0].commit == index, "more than a crash would leave"
    files_of(compacting, waiting).release_adoption()
    compacting.run()
    assert max(acknowledged) == index + 2
    assert member.log.last_index() == index + 2


def test_the_log_is_left_alone_while_a_snapshot_takes_its_place(compacting: ClusterRig) -> None:
    leader = compacting.leader()
    waiting = others(compacting, leader)[-1]
    log = compacting.members[waiting.member_id].log
    slow = SlowTransport()
    waiting.snapshots.send(Message(type=MSG_SNAP, to=99), cast(PeerTransport, slow))
    for i in range(40):
        compacting.must_put(leader, b"a%03d" % i)
    compacting.converge()
    cut_off(compacting, waiting)
    log.holds = True
    compacting.until(lambda: log.installs)
    marks = log.marks
    for tell in slow.sent:
        tell(False)  # nothing else keeps it from compacting its log now
    compacting.run(0.5)
    assert log.marks == marks
    log.holds = False
    log.release()
    compacting.converge()


def test_a_snapshot_that_is_refused_is_not_sent_again_at_once(compacting: ClusterRig) -> None:
    leader = lag(compacting)
    lagging = left_behind(compacting).up
    files = files_of(compacting, lagging)
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
    files = files_of(compacting, left_behind(compacting).up)
    files.refusal = "no space left on device"
    began = compacting.parts_of(leader).log.first_index()
    for i in range(60):
        compacting.must_put(leader, b"more%d" % i)
        compacting.run(0.5)
    assert files.asked >= 3
    assert compacting.parts_of(leader).log.first_index() > began
    files.refusal = ""
    compacting.run(2 * REFUSAL_REST_S)
    compacting.converge()


def test_what_comes_behind_a_snapshot_waits_for_it(compacting: ClusterRig) -> None:
    leader = lag(compacting)
    for i in range(30):
        compacting.put(leader, b"more%d" % i)
        compacting.run(0.02)
    compacting.converge()


def test_a_short_log_is_not_kept_for_long_for_a_snapshot_that_does_not_get_out(
    compacting: ClusterRig,
) -> None:
    leader = compacting.leader()
    receiver = others(compacting, leader)[0]
    transport = SlowTransport()
    m = Message(MSG_SNAP, to=receiver.member_id, from_id=leader.member_id)
    leader.snapshots.send(m, cast(PeerTransport, transport))
    compacting.until(lambda: transport.sent)
    now_ms = int(compacting.network.clock.seconds() * 1000)

    def keeps(ms: int, *, is_short: bool) -> bool:
        return leader.snapshots.keeps_log(now_ms + ms, is_short=is_short)

    assert keeps(SHORT_LOG_KEPT_MS // 2, is_short=True)
    assert keeps(2 * SHORT_LOG_KEPT_MS, is_short=False)
    assert not keeps(2 * SHORT_LOG_KEPT_MS, is_short=True)


def test_a_snapshot_that_is_lost_is_sent_again(compacting: ClusterRig) -> None:
    lost: list[Message] = []

    def fate(m: Message) -> list[float]:
        if m.type == MSG_SNAP and len(lost) < 2:
            lost.append(m)
            return []
        return [0.0]

    compacting.network.fate = fate
    lag(compacting)
    compacting.run(2 * REFUSAL_REST_S)
    compacting.converge()
    assert len(lost) == 2


def test_a_state_is_not_exported_again_and_again_for_a_peer_that_gets_no_snapshot(
    compacting: ClusterRig,
) -> None:
    compacting.network.fate = lambda m: [] if m.type == MSG_SNAP else [0.0]
    leader = lag(compacting)
    files = files_of(compacting, leader)
    files.exports = 0
    compacting.run(2 * REFUSAL_REST_S - 1.0)
    assert files.exports == 2
    compacting.must_put(leader, b"served without it")
    compacting.network.fate = deliver_at_once
    compacting.run(REFUSAL_REST_S)
    compacting.converge()
    assert files.exports == 3


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


@pytest.mark.parametrize("is_new", [False, True])
def test_etcd_38_sends_snapshots_whose_message_names_no_members(
    compacting: ClusterRig, is_new: bool
) -> None:
    """Its file names them, as that of every etcd from 3.6 on; up to 3.7 the message does, too."""
    stripped: list[int] = []

    def without_members(m: Message) -> list[float]:
        if m.snapshot is not None:
            assert m.snapshot.data, "ours names them, for members up to 3.5"
            m.snapshot.data = b""
            stripped.append(m.to)
        return [0.0]

    compacting.network.fate = without_members
    if is_new:
        leader = compacting.leader()
        for i in range(40):
            compacting.must_put(leader, b"k%d" % i)
        compacting.run(0.3)
        compacting.add(4, is_learner=True)
        member_id = 4
    else:
        leader = lag(compacting)
        member_id = left_behind(compacting).member_id
    compacting.converge()
    assert stripped == [member_id]
    told = compacting.members[member_id].up.members
    assert told.all() == leader.members.all()
    compacting.must_put(compacting.leader(), b"after")
    compacting.converge()


def test_a_leader_without_room_for_a_file_brings_a_member_back_all_the_same(
    compacting: ClusterRig,
) -> None:
    leader = compacting.leader()
    files_of(compacting, leader).is_disk_full = True
    assert lag(compacting) is leader
    compacting.converge()
    assert (files_of(compacting, leader).streamed, leader.snapshots.sent_total) == (1, 1)
    assert list(compacting.members[leader.member_id].folder.iterdir()) == []
