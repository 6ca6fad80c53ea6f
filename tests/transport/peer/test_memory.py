"""The in-memory network: Raft members over it, and what its hooks do."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from etcdtw.raft.confchange import bootstrap_log, decode_conf_change
from etcdtw.raft.config import Config
from etcdtw.raft.entry import ENTRY_NORMAL, ConfState, Snapshot
from etcdtw.raft.errors import PeerNotFoundError, ProposalDroppedError
from etcdtw.raft.memory_storage import MemoryStorage
from etcdtw.raft.message import MSG_SNAP, Message
from etcdtw.raft.raw_node import RawNode
from etcdtw.transport.peer.memory import MemoryNetwork, MemoryTransport
from etcdtw.transport.peer.seams import PeerTransport
from tests.support.peer_messages import same
from tests.transport.peer.peer_rig import ONE, THREE, TWO, NotingReceiver, append, heartbeat, settle

IDS = (ONE, TWO, THREE)


class Cluster:
    """Three members that only take notes."""

    def __init__(self, directory: Path | None = None) -> None:
        self.clock = Clock()
        self.network = MemoryNetwork(self.clock)
        self.receivers = {i: NotingReceiver(directory) for i in IDS}
        self.transports = {i: self.network.join(i, self.receivers[i]) for i in IDS}
        for i in IDS:
            for other in IDS:
                self.transports[i].set_peer(other, [])


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


def test_it_is_a_peer_transport(cluster: Cluster) -> None:
    transport: PeerTransport = cluster.transports[ONE]
    assert transport.connected_since_ms(TWO) == 0
    assert transport.connected_since_ms(ONE) is None


def test_messages_arrive_as_copies_at_the_next_turn(cluster: Cluster) -> None:
    m = append(TWO, ONE, 5)
    cluster.transports[ONE].send([m, heartbeat(THREE, ONE)])
    assert cluster.receivers[TWO].messages == []
    settle(cluster.clock)
    (got,) = cluster.receivers[TWO].messages
    assert same([got]) == same([m])
    assert got.entries[0] is not m.entries[0]
    assert len(cluster.receivers[THREE].messages) == 1


def test_fate_drops_delays_and_doubles(cluster: Cluster) -> None:
    def fate(m: Message) -> Sequence[float]:
        return [(), (2.0,), (0.5, 1.0)][m.commit]

    cluster.network.fate = fate
    cluster.transports[ONE].send([heartbeat(TWO, ONE, commit=i) for i in range(3)])
    seen = []
    for _ in range(5):
        cluster.clock.advance(0.5)
        seen.append([m.commit for m in cluster.receivers[TWO].messages])
    assert seen == [[2], [2, 2], [2, 2], [2, 2, 1], [2, 2, 1]]


def test_a_partition_cuts_both_ways_and_heals(cluster: Cluster) -> None:
    cluster.transports[ONE].send([heartbeat(TWO, ONE)])
    cluster.network.partition([ONE], [TWO, THREE])
    cluster.transports[ONE].send([heartbeat(TWO, ONE)])
    cluster.transports[TWO].send([heartbeat(ONE, TWO), heartbeat(THREE, TWO)])
    cluster.clock.advance(1.0)
    assert [len(cluster.receivers[i].messages) for i in IDS] == [0, 0, 1]
    assert cluster.receivers[ONE].unreachable == [TWO]
    assert cluster.receivers[TWO].unreachable == [ONE]
    assert cluster.transports[ONE].connected_since_ms(TWO) is None
    assert cluster.transports[TWO].connected_since_ms(THREE) == 0
    cluster.network.heal()
    assert cluster.transports[ONE].connected_since_ms(TWO) == 1000
    cluster.transports[ONE].send([heartbeat(TWO, ONE)])
    settle(cluster.clock)
    assert len(cluster.receivers[TWO].messages) == 1


def test_one_direction_can_be_cut(cluster: Cluster) -> None:
    cluster.network.cut(ONE, TWO)
    cluster.transports[ONE].send([heartbeat(TWO, ONE)])
    cluster.transports[TWO].send([heartbeat(ONE, TWO)])
    settle(cluster.clock)
    assert [len(cluster.receivers[i].messages) for i in (ONE, TWO)] == [1, 0]
    assert cluster.transports[TWO].connected_since_ms(ONE) is None
    cluster.network.mend(ONE, TWO)
    assert cluster.transports[TWO].connected_since_ms(ONE) == 0


def test_whoever_stopped_or_was_removed_is_not_heard(cluster: Cluster) -> None:
    cluster.transports[ONE].send([heartbeat(THREE, ONE)])
    cluster.transports[THREE].stop()
    cluster.transports[THREE].send([heartbeat(ONE, THREE)])
    cluster.receivers[TWO].removed_ids.add(ONE)
    cluster.transports[ONE].send([heartbeat(TWO, ONE)])
    cluster.transports[ONE].remove_peer(THREE)
    cluster.transports[ONE].send([heartbeat(THREE, ONE)])
    settle(cluster.clock)
    assert [receiver.messages for receiver in cluster.receivers.values()] == [[], [], []]
    assert cluster.transports[ONE].connected_since_ms(THREE) is None


@pytest.mark.parametrize("fails", ["", "cut", "fate", "removed"])
def test_a_snapshot_is_handed_over_as_a_copy(cluster: Cluster, tmp_path: Path, fails: str) -> None:
    (tmp_path / "source").write_bytes(b"database")
    m = Message(MSG_SNAP, to=TWO, from_id=ONE, term=2, snapshot=Snapshot(7, 2, ConfState((ONE,))))
    if fails == "cut":
        cluster.network.cut(ONE, TWO)
    elif fails == "fate":
        cluster.network.fate = lambda m: ()
    elif fails == "removed":
        cluster.receivers[TWO].removed_ids.add(ONE)
    ended: list[bool] = []
    cluster.transports[ONE].send_snapshot(m, str(tmp_path / "source"), 8, ended.append)
    assert ended == []
    settle(cluster.clock)
    assert ended == [not fails]
    assert cluster.receivers[ONE].snapshots == [(TWO, not fails)]
    assert [Path(path).read_bytes() for _, path in cluster.receivers[TWO].installed] == (
        [] if fails else [b"database"]
    )


class RaftMember:
    """A Raft core on the network; its state machine is the list of what it applied."""

    def __init__(self, network: MemoryNetwork, member_id: int, storage: MemoryStorage) -> None:
        self.node = RawNode(
            Config(
                id=member_id,
                election_ticks=10,
                heartbeat_ticks=1,
                storage=storage,
                random=random.Random(member_id),
                async_storage_writes=False,
            )
        )
        self.storage = storage
        self.applied: list[bytes] = []
        self.notes = NotingReceiver()
        self.transport: MemoryTransport = network.join(member_id, self)
        for other in IDS:
            self.transport.set_peer(other, [])
        self.is_removed = self.notes.is_removed
        self.removed = self.notes.removed
        self.report_snapshot = self.notes.report_snapshot
        self.snapshot_path = self.notes.snapshot_path
        self.snapshot_received = self.notes.snapshot_received

    def receive(self, m: Message) -> None:
        try:
            self.node.step(m)
        except (PeerNotFoundError, ProposalDroppedError):
            return
        self.turn()

    def report_unreachable(self, member_id: int) -> None:
        self.node.report_unreachable(member_id)

    def turn(self) -> None:
        while self.node.has_ready():
            ready = self.node.ready()
            if ready.hard_state is not None:
                self.storage.set_hard_state(ready.hard_state)
            self.storage.append(ready.entries)
            self.transport.send(ready.messages)
            for entry in ready.committed_entries:
                if entry.type != ENTRY_NORMAL:
                    self.node.apply_conf_change(decode_conf_change(entry))
                elif entry.data:
                    self.applied.append(entry.data)
            self.node.advance()


def run(seed: int) -> tuple[list[bytes], int]:
    """Elect, propose and disturb; returns what was applied everywhere, and in which term."""
    clock = Clock()
    chance = random.Random(seed)

    def fate(m: Message) -> Sequence[float]:
        kind = chance.randrange(10)
        delay_s = chance.randrange(50) / 1000
        return () if kind == 0 else (delay_s, delay_s * 2) if kind == 1 else (delay_s,)

    network = MemoryNetwork(clock, fate)
    hard_state, entries = bootstrap_log([(i, b"") for i in IDS])
    members = []
    for i in IDS:
        storage = MemoryStorage()
        storage.append(entries)
        storage.set_hard_state(hard_state)
        members.append(RaftMember(network, i, storage))
    for step in range(240):
        clock.advance(0.1)
        for member in members:
            member.node.tick()
            member.turn()
        if step == 80:
            network.partition([IDS[seed % 3]], [i for i in IDS if i != IDS[seed % 3]])
        if step == 120:
            network.heal()
        for member in members:
            if member.node.is_leader and step < 200:
                member.node.propose(b"%d" % step)
                member.turn()
    assert members[0].applied == members[1].applied == members[2].applied
    return members[0].applied, members[0].node.term


def test_raft_agrees_over_a_bad_network_and_runs_repeat() -> None:
    first = run(1)
    assert len(first[0]) > 80
    assert run(1) == first
