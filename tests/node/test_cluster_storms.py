"""Clusters in which everything happens at once: long entries, snapshots, partitions, crashes.

Seeded; what it finds is written down as a test of its own in the files beside this one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from etcdtw.apply.applier import FIELD_DELETE_RANGE, FIELD_PUT
from etcdtw.apply.errors import RequestTimeoutError, StoppedError
from etcdtw.cluster.member import encode_member, encode_promotion
from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.node.config import NodeConfig
from etcdtw.node.node import Node
from etcdtw.raft.confchange import ADD_LEARNER_NODE, ADD_NODE, REMOVE_NODE
from etcdtw.raft.message import MSG_PROP, Message
from etcdtw.transport.peer.memory import Order, keep_order
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.mvccpb import KeyValue
from etcdtw.wire.requests import plain
from tests.support.cluster_rig import TICK_S, ClusterRig, OpenCall, RigMember, described
from tests.support.model_state import ModelSnapshots, State
from tests.support.watch_rig import Client

STEPS = 1500
KEYS = 30
TIMEOUT_S = NodeConfig(cluster_id=1, member_id=1).request_timeout_ms / 1000


class Storm:
    """Random requests to a cluster of three to which random things happen.

    ``changes_members``: others come as learners, are promoted, and anybody may be removed.
    """

    def __init__(self, folder: Path, seed: int, *, changes_members: bool = False) -> None:
        self.changes_members = changes_members
        self.newest_id = 3
        self.member_changes = 0
        self.rig = ClusterRig(
            folder,
            3,
            snapshot_count=8,
            catchup_entries=5,
            log_kept_octets_max=0,
            seed=seed,
            bounds=WorkBounds(long_keys_min=6, step_keys_max=1),
            long_work_s=0.0,
            log_kept_ms=500,  # or few snapshots would be sent in so short a time
        )
        self.random = self.rig.random
        self.rig.network.fate = self._fate
        self.outcomes: list[tuple[Any, list[Applied]]] = []
        self.snapshots = 0
        self.long_entries = 0
        self.watches: list[tuple[Node, Client, int]] = []
        """Of all keys ``k..``: by whom, from which revision on."""
        self.watched = 0
        self.acknowledged = 0  # the highest revision that anybody was told of
        self.asked = 0
        self.reads = 0
        self.late_reads = 0
        self.stopped_at: list[Node] = []
        """Who answered reads with that it stops."""
        self.unread: dict[int, Node] = {}
        """Of whom reads were asked that have no answer yet."""

    def _fate(self, m: Message) -> list[float]:
        roll = self.random.random()
        if roll < 0.03:
            return []
        if roll < 0.06 and m.type != MSG_PROP:  # etcd's streams never double a proposal
            return [0.0, self.random.random() * 0.2]
        return [self.random.random() * 0.02]

    def propose(self, node: Node, field: int, request: Any) -> None:
        outcome: list[Applied] = []

        def done(call: Call, applied: Applied) -> None:
            outcome.append(applied)
            if applied.error is None:
                self.acknowledged = max(self.acknowledged, applied.revision)

        node.propose(field, request.SerializeToString(), plain(request), OpenCall(), done)
        self.outcomes.append((request, outcome))

    def read(self, node: Node) -> None:
        """Whoever may read sees everything that was acknowledged before it asked."""
        acknowledged = self.acknowledged

        def done(call: Call, error: Exception | None) -> None:
            del self.unread[number]
            if error is None:
                assert node.store.revision >= acknowledged
                self.reads += 1
            elif isinstance(error, RequestTimeoutError):
                waited_s = self.rig.clock.seconds() - asked_s
                assert waited_s > TIMEOUT_S - TICK_S, waited_s
                self.late_reads += 1
            else:
                # Whoever stops tells those that wait, and is gone.
                assert isinstance(error, StoppedError), error
                self.stopped_at.append(node)

        number = self.asked = self.asked + 1
        asked_s = self.rig.clock.seconds()
        self.unread[number] = node
        node.read(OpenCall(), done)

    def step(self, number: int) -> None:
        rig, random = self.rig, self.random
        if self.changes_members:
            self._bury_the_removed()
        node = random.choice(rig.nodes)
        self.read(random.choice(rig.nodes))
        self._watch_or_read_on()
        roll = random.random()
        if roll < 0.7:
            for _ in range(random.randrange(4)):
                key = b"k%02d" % random.randrange(KEYS)
                self.propose(node, FIELD_PUT, pb.PutRequest(key=key, value=b"%d" % number))
        elif roll < 0.8:
            first, last = sorted(random.sample(range(KEYS + 1), 2))
            request = pb.DeleteRangeRequest(key=b"k%02d" % first, range_end=b"k%02d" % last)
            self.propose(node, FIELD_DELETE_RANGE, request)
        elif roll < 0.84:
            apart = random.choice(list(rig.members))
            rig.network.partition([apart], [i for i in rig.members if i != apart])
        elif roll < 0.86:
            rig.network.heal()
        elif roll < 0.90:
            self._crash_or_start()
        elif roll < 0.93 and self.changes_members:
            self._change_members()
        else:
            self._hold_or_release(random.choice(list(rig.members)))
        rig.run(random.choice((0.0, 0.01, 0.05, 0.3)))

    def _watch_or_read_on(self) -> None:
        random = self.random
        if random.random() < 0.03:
            self._watch(random.choice(self.rig.nodes))
        elif self.watches and random.random() < 0.1:
            _, client, _ = random.choice(self.watches)
            if client.is_slow:
                client.unblock()
            else:
                client.block()

    def _watch(self, node: Node) -> None:
        """Watch from the past, from now on, or from a revision to come."""
        newest = node.store.revision
        start = self.random.choice((0, self.random.randint(1, newest), newest + 3))
        client = Client(node.hub, node.now_ms)
        client.create(b"k", b"l", start_revision=start)
        self.watches.append((node, client, start or newest + 1))
        self.watches = [watch for watch in self.watches if watch[0] in self.rig.nodes]

    def _crash_or_start(self) -> None:
        rig = self.rig
        down = [i for i, member in rig.members.items() if member.node is None]
        if down:
            rig.start(down[0])
            return
        # The model's state is what it was told, also half of an entry: none of those may end.
        ready = [node for node in rig.nodes if not node.snapshots.installing]
        if len(ready) == len(rig.members):
            rig.crash(self.random.choice(ready).member_id)

    def _change_members(self) -> None:
        rig, random = self.rig, self.random
        leader = next((node for node in rig.nodes if node.is_leader), None)
        if leader is None or leader.conf_changes.waiting:
            return
        present = leader.members.all()
        learners = [one.member_id for one in present if one.is_learner]
        if learners and random.random() < 0.6:
            self._change(leader, ADD_NODE, learners[0], encode_promotion(learners[0]))
        elif len(present) < 5 and not learners:
            self.newest_id += 1
            member_id = self.newest_id
            joining = encode_member(described(member_id, is_learner=True))
            self._change(leader, ADD_LEARNER_NODE, member_id, joining)
            rig.members[member_id] = RigMember(rig, member_id)
            rig.start(member_id)
        elif len(present) > 3:
            self._change(leader, REMOVE_NODE, random.choice(present).member_id, b"")

    def _change(self, leader: Node, kind: int, member_id: int, context: bytes) -> None:
        def done(call: Call, error: Exception | None) -> None:
            self.member_changes += error is None

        leader.conf_changes.propose(kind, member_id, context, OpenCall(), done)

    def _bury_the_removed(self) -> None:
        """Take those away that anybody knows to be removed, or never to have come."""
        rig = self.rig
        known = max(rig.nodes, key=lambda node: node.applied_index).members
        for member_id in [i for i in rig.members if known.is_removed(i)]:
            member = rig.members.pop(member_id)
            if member.node is not None:
                member.crash()

    def _hold_or_release(self, member_id: int) -> None:
        member = self.rig.members[member_id]
        if member.node is None:
            return
        files = cast(ModelSnapshots, member.parts.snapshot_files)
        roll = self.random.randrange(8)  # half of them end what was begun
        if roll == 0:
            files.holds = True
        elif roll == 3:
            member.log.holds = True
        elif roll == 1:
            files.holds_adoption = True
        elif roll == 2:
            member.state.is_full = not member.state.is_full
        else:
            self._release(member_id)

    def _release(self, member_id: int) -> None:
        member = self.rig.members[member_id]
        member.state.is_full = member.log.holds = False
        member.log.release()
        if member.node is not None:
            files = cast(ModelSnapshots, member.parts.snapshot_files)
            files.release()
            files.holds_adoption = False
            if files.is_adopting:
                files.release_adoption()

    def end(self) -> None:
        """Let the weather clear; everybody holds the same and everything acknowledged."""
        rig = self.rig
        rig.network.heal()
        rig.network.fate = lambda m: [0.0]
        self._bury_the_removed()
        for member_id, member in rig.members.items():
            if member.node is None:
                rig.start(member_id)
            self._release(member_id)
        rig.until(lambda: all(outcome for _, outcome in self.outcomes), 20.0)
        for _, client, _ in self.watches:
            client.unblock()
        rig.until(lambda: not self.unread, 20.0)
        rig.must_put(self._leader(), b"last")
        members = {one.member_id for one in self._leader().members.all()}
        for member_id in [i for i in rig.members if i not in members]:
            rig.members.pop(member_id).crash()  # it was never added, or is removed by now
        rig.converge()
        assert not set(self.stopped_at) & set(rig.nodes)
        assert self.reads + self.late_reads + len(self.stopped_at) == self.asked
        self.snapshots = sum(node.snapshots.installed_total for node in rig.nodes)
        state = rig.parts_of(rig.nodes[0]).state
        assert isinstance(state, State)
        places: dict[int, list[tuple[int, bool, bytes, bytes]]] = {}
        for (main, sub), (is_tombstone, key, record) in sorted(state.revisions.items()):
            places.setdefault(main, []).append((sub, is_tombstone, key, record))
        for main, changes in places.items():
            assert [sub for sub, *_ in changes] == list(range(len(changes))), main
        for node, client, start in self.watches:
            if node in rig.nodes:
                self._check_watch(client, start, places)
        for request, outcome in self.outcomes:
            applied = outcome[0]
            if applied.error is None:
                self._check(request, applied, places.get(applied.revision, []))

    def _check_watch(
        self,
        client: Client,
        start: int,
        places: dict[int, list[tuple[int, bool, bytes, bytes]]],
    ) -> None:
        """Every event once, in order, whatever happened to the member."""
        told = [
            (event.kv.mod_revision, event.type == event.DELETE, event.kv.key)
            for response in client.take()
            for event in response.events
        ]
        assert told == [
            (main, is_tombstone, key)
            for main, changes in places.items()
            for _, is_tombstone, key, _ in changes
            if main >= start and key.startswith(b"k")
        ]
        self.watched += len(told)

    def _leader(self) -> Node:
        """Return the leader that those who are members follow."""
        found: Node = self.rig.until(
            lambda: next((n for n in self.rig.nodes if n.is_leader and n.lessor.is_primary), None)
        )
        return found

    def _check(
        self, request: Any, applied: Applied, changes: list[tuple[int, bool, bytes, bytes]]
    ) -> None:
        if isinstance(request, pb.PutRequest):
            ((_, is_tombstone, key, record),) = changes
            kv = KeyValue.FromString(record)
            assert (is_tombstone, key, kv.value) == (False, request.key, request.value)
            return
        deleted = pb.DeleteRangeResponse.FromString(applied.body).deleted
        if deleted:
            keys = [key for _, _, key, _ in changes]
            assert all(is_tombstone for _, is_tombstone, _, _ in changes)
            assert len(keys) == deleted
            assert keys == sorted(keys)
            self.long_entries += deleted > 5


def backwards(messages: list[Message]) -> list[Message]:
    """Send a batch as etcd 3.7.0 and 3.7.1 do."""
    return messages[::-1]


def weather(folder: Path, seed: int, changes_members: bool, order: Order = keep_order) -> Storm:
    """Let one storm pass, with everything that it checks at its end."""
    storm = Storm(folder, seed, changes_members=changes_members)
    storm.rig.network.order = order
    storm.rig.leader()
    for number in range(STEPS):
        storm.step(number)
    storm.end()
    return storm


@pytest.mark.parametrize("changes_members", [False, True])
def test_nothing_acknowledged_is_lost_or_bent_in_a_storm(
    tmp_path_factory: pytest.TempPathFactory, changes_members: bool
) -> None:
    storms = [weather(tmp_path_factory.mktemp("s"), seed, changes_members) for seed in range(3)]
    assert sum(storm.snapshots for storm in storms) > 1
    assert sum(storm.long_entries for storm in storms) > 10
    assert sum(storm.watched for storm in storms) > STEPS
    assert all(storm.reads > STEPS // 8 for storm in storms)
    assert any(storm.member_changes > 5 for storm in storms) == changes_members


def test_nothing_acknowledged_is_lost_or_bent_while_batches_are_sent_backwards(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    storms = [weather(tmp_path_factory.mktemp("s"), seed, False, backwards) for seed in (7, 8)]
    assert all(storm.reads > STEPS // 8 for storm in storms)


def test_a_leader_that_sends_batches_backwards_stays_leader(tmp_path: Path) -> None:
    rig = ClusterRig(tmp_path, 3)
    leader = rig.leader()
    rig.network.order = backwards
    term = leader.term
    for i in range(100):
        rig.must_put(leader, b"k%d" % i)
        rig.must_put(rig.nodes[i % 3], b"f%d" % i)
    rig.run(5.0)
    rig.converge()
    assert (leader.is_leader, leader.term) == (True, term)


@pytest.mark.long
def test_nothing_acknowledged_is_lost_or_bent_in_many_storms(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    for seed in range(1000, 1200):
        for changes_members in (False, True):
            weather(tmp_path_factory.mktemp("s"), seed, changes_members)
