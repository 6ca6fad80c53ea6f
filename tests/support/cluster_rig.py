"""A whole cluster in one process: real nodes and cores, a test clock, a network that can be cut.

Logs and states are in memory and outlive their node: `ClusterRig.crash` takes a member away as
a power failure would, `ClusterRig.start` brings it back from what was durable.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.applier import FIELD_PUT, Applier
from etcdtw.apply.members import Members, stored_conf_state
from etcdtw.cluster.member import Member, encode_member, encode_promotion
from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.store import WORK_BOUNDS, Store
from etcdtw.mvcc.watch.hub import WatchHub
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.node.build import build_node
from etcdtw.node.config import LOG_KEPT_MS, LOG_KEPT_OCTETS_MAX, NodeConfig
from etcdtw.node.duties.history.auto_compaction import AutoCompaction
from etcdtw.node.duties.history.quota_compaction import ProgramsTold
from etcdtw.node.duties.quota import NO_QUOTA, QuotaRules
from etcdtw.node.intake.requests import RequestIds
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.loop.long_apply import WORK_S
from etcdtw.node.no_call import NoCall
from etcdtw.node.node import Node
from etcdtw.node.parts import Parts
from etcdtw.node.standing import Standing
from etcdtw.raft.confchange import (
    ADD_LEARNER_NODE,
    ADD_NODE,
    REMOVE_NODE,
    UPDATE_NODE,
    bootstrap_log,
)
from etcdtw.raft.config import Config
from etcdtw.raft.entry import HardState
from etcdtw.raft.memory_storage import MemoryStorage
from etcdtw.raft.raw_node import RawNode
from etcdtw.storage.disk.room import ROOMY, RoomFound
from etcdtw.transport.peer.memory import MemoryNetwork
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import ResponseHeaders
from etcdtw.wire.requests import plain
from tests.support.auth_rig import auth_entries
from tests.support.model_state import ModelDamage, ModelSnapshots, State
from tests.support.node_rig import MemoryLog, NoFlusher

ELECTION_S = 1.0
TICK_S = 0.1


class RigMember:
    """One member: what is durable, and the node that runs on it (None: it is down)."""

    def __init__(self, rig: ClusterRig, member_id: int) -> None:
        self.rig = rig
        self.member_id = member_id
        self.log = rig.new_log()
        self.state = rig.new_state()
        self.node: Node | None = None
        self.damage = ModelDamage(self.state)
        self.stops: list[str] = []
        self.was_removed = False
        self.folder = rig.folder / f"{member_id:x}"
        self.folder.mkdir(exist_ok=True)
        rig.everybody.append(self)

    @property
    def up(self) -> Node:
        assert self.node is not None, f"member {self.member_id} is down"
        return self.node

    def start(self) -> None:
        rig = self.rig
        state = self.state
        lessor = Lessor(2)
        store = Store(state, lessor.exists, rig.bounds)
        store.restore(state.revision)
        members = Members(state, rig.max_learners)
        alarms = Alarms(state)
        applier = Applier(state, store, lessor, members, alarms, auth_entries(state, store))
        applier.restore()
        raw = RawNode(
            Config(
                id=self.member_id,
                election_ticks=10,
                heartbeat_ticks=1,
                storage=self.log,
                random=random.Random(rig.random.random()),
                applied=state.applied_index,
                conf_state=stored_conf_state(state),
                max_committed_size_per_ready=1 << 20,
            )
        )
        wakeup = Wakeup(rig.clock.callLater, rig.clock.seconds)
        headers = ResponseHeaders(1, self.member_id, raw.term)
        unix_ms = 1_000_000 + int(rig.clock.seconds() * 1000)
        parts = self.parts = Parts(
            wakeup=wakeup,
            headers=headers,
            raw=raw,
            log=self.log,
            state=state,
            store=store,
            lessor=lessor,
            hub=WatchHub(store, state, headers.encode, lambda: 0.5, wakeup.wake),
            applier=applier,
            members=members,
            alarms=alarms,
            standing=Standing(1, self.member_id, raw, members, alarms),
            damage=self.damage,
            flusher=NoFlusher(),
            ids=RequestIds(self.member_id, unix_ms),
            snapshot_files=ModelSnapshots(state),
            snapshot_folder=self.folder,
            fail_stop=self.stops.append,
            on_removed=self._removed,
            look_at_disks=lambda largest: rig.look_at_disks(self.member_id, largest),
            quota=rig.quota,
            auto_compaction=rig.auto_compaction(),
            ask_programs=rig.ask_programs,
        )
        config = NodeConfig(
            cluster_id=1,
            member_id=self.member_id,
            snapshot_count=rig.snapshot_count,
            catchup_entries=rig.catchup_entries,
            log_kept_octets_max=rig.log_kept_octets_max,
            log_kept_ms=rig.log_kept_ms,
            max_learners=rig.max_learners,
            long_work_s=rig.long_work_s,
        )
        node = self.node = build_node(rig.clock, config, parts)
        node.snapshots.prepare()
        remotes = {i: described(i).peer_urls for i in rig.members if i != self.member_id}
        node.peers.attach(rig.network.join(self.member_id, node.peers), remotes)
        node.start()

    def _removed(self) -> None:
        self.was_removed = True

    def crash(self) -> None:
        """The power fails: whatever was not durable is gone."""
        node = self.up
        node.peers.detach()
        node.stop()
        self.node = None
        self.log.held.clear()
        self.log.holds = False


class ClusterRig:
    """Members 1 to n of a new cluster, all started unless told otherwise."""

    def __init__(
        self,
        folder: Path,
        count: int,
        *,
        snapshot_count: int = 10_000,
        catchup_entries: int = 5_000,
        log_kept_octets_max: int = LOG_KEPT_OCTETS_MAX,
        max_learners: int = 1,
        seed: int = 1,
        bounds: WorkBounds = WORK_BOUNDS,
        long_work_s: float = WORK_S,
        log_kept_ms: int = LOG_KEPT_MS,
        quota: QuotaRules = NO_QUOTA,
        auto_compaction: Callable[[], AutoCompaction | None] = lambda: None,
        new_log: Callable[[], MemoryLog] = MemoryLog,
        new_state: Callable[[], State] = State,
    ) -> None:
        self.folder = folder
        self.new_log = new_log
        self.new_state = new_state
        self.random = random.Random(seed)
        self.clock = Clock()
        self.clock.advance(1_000)
        self.network = MemoryNetwork(self.clock)
        self.snapshot_count = snapshot_count
        self.catchup_entries = catchup_entries
        self.log_kept_octets_max = log_kept_octets_max
        self.max_learners = max_learners
        self.bounds = bounds
        self.long_work_s = long_work_s
        self.log_kept_ms = log_kept_ms
        self.quota = quota
        self.auto_compaction = auto_compaction
        self.members: dict[int, RigMember] = {}
        self.everybody: list[RigMember] = []
        """Those that have left, too."""
        founders = [(i, encode_member(described(i))) for i in range(1, count + 1)]
        hard_state, entries = bootstrap_log(founders)
        for member_id, _ in founders:
            member = self.members[member_id] = RigMember(self, member_id)
            member.log.set_hard_state(HardState(hard_state.term, 0, hard_state.commit))
            MemoryStorage.append(member.log, entries)
            member.start()

    def ask_programs(self, members: Sequence[Member], told: ProgramsTold) -> None:
        """Tell that all of ``members`` are etcdtw."""
        told(one.member_id for one in members)

    def look_at_disks(self, member_id: int, largest: int) -> RoomFound:
        """Return how much room a member has."""
        return ROOMY

    # Time.

    def run(self, seconds: float = 0.0) -> None:
        """Let everything due happen, and then ``seconds`` pass."""
        self._settle()
        while seconds > 1e-9:
            step = min(TICK_S / 2, seconds)
            self.clock.advance(step)
            self._settle()
            seconds -= step

    def _settle(self) -> None:
        for _ in range(64):
            due = [call for call in self.clock.calls if call.getTime() <= self.clock.seconds()]
            if not due:
                return
            self.clock.advance(0)

    def until(self, holds: Callable[[], Any], seconds: float = 10 * ELECTION_S) -> Any:
        """Run until ``holds()``; fail when it does not within ``seconds``."""
        left = seconds
        while not (found := holds()):
            assert left > 0, f"not within {seconds} s"
            self.run(TICK_S / 2)
            left -= TICK_S / 2
        return found

    def stall(self, seconds: float) -> None:
        """Schedule no member's ticks for ``seconds``, as a machine that stands still."""
        driven = [one for node in self.nodes for one in (node.ticks, node.wakeup)]
        for call in self.clock.calls:
            if getattr(call.func, "__self__", None) in driven:
                call.delay(seconds)

    # Members.

    @property
    def nodes(self) -> list[Node]:
        return [member.node for member in self.members.values() if member.node is not None]

    def parts_of(self, node: Node) -> Parts:
        """Return what a node of this rig was built from."""
        return self.members[node.member_id].parts

    def leader(self, among: Iterable[int] | None = None) -> Node:
        """Return the leader that a majority knows, once there is one."""

        def find() -> Node | None:
            nodes = [n for n in self.nodes if among is None or n.member_id in set(among)]
            for node in nodes:
                if node.is_leader and self.parts_of(node).raw.has_committed_in_term():
                    followers = [n for n in nodes if n.leader_id == node.member_id]
                    if len(followers) > len(node.members.voters()) // 2:
                        return node
            return None

        found: Node = self.until(find)
        return found

    def crash(self, member_id: int) -> None:
        self.members[member_id].crash()

    def start(self, member_id: int) -> None:
        self.members[member_id].start()

    def add(self, member_id: int, *, is_learner: bool = False) -> None:
        """Add a member through the leader and start it with an empty log."""
        kind = ADD_LEARNER_NODE if is_learner else ADD_NODE
        error = self.change(kind, member_id, encode_member(described(member_id, is_learner)))
        assert error is None, error
        member = self.members[member_id] = RigMember(self, member_id)
        member.start()

    def promote(self, member_id: int) -> Exception | None:
        return self.change(ADD_NODE, member_id, encode_promotion(member_id))

    def remove(self, member_id: int) -> Exception | None:
        return self.change(REMOVE_NODE, member_id, b"")

    def update(self, member: Member) -> Exception | None:
        return self.change(UPDATE_NODE, member.member_id, encode_member(member))

    def change(self, kind: int, member_id: int, context: bytes) -> Exception | None:
        """Ask the leader for a conf change; return its refusal, None when it is applied."""
        outcome: list[Exception | None] = []
        self.leader().conf_changes.propose(
            kind, member_id, context, OpenCall(), lambda call, error: outcome.append(error)
        )
        self.until(lambda: outcome)
        return outcome[0]

    # Requests.

    def put(self, node: Node, key: bytes, value: bytes = b"v") -> list[Applied]:
        """Put through ``node``; the list gets the outcome when there is one."""
        outcome: list[Applied] = []
        request = pb.PutRequest(key=key, value=value)
        node.propose(
            FIELD_PUT,
            request.SerializeToString(),
            plain(request),
            OpenCall(),
            lambda call, applied: outcome.append(applied),
        )
        return outcome

    def must_put(self, node: Node, key: bytes, value: bytes = b"v") -> int:
        """Put through ``node`` and return the revision."""
        outcome = self.put(node, key, value)
        self.until(lambda: outcome)
        assert outcome[0].error is None, outcome[0].error
        return outcome[0].revision

    def read(self, node: Node) -> list[Exception | None]:
        """Ask for a linearizable read at ``node``; the list gets its error, None: it may read."""
        outcome: list[Exception | None] = []
        node.read(OpenCall(), lambda call, error: outcome.append(error))
        return outcome

    def hashes(self) -> set[tuple[int, int, int]]:
        """Return (revision, compact revision, HashKV) of all members that are up."""
        found = set()
        for node in self.nodes:
            store = node.store
            value: list[Any] = []
            node.storage.hash_kv(store.revision, store.compact_revision, value.append)
            found.add((store.revision, store.compact_revision, value[0]))
        return found

    def converge(self) -> None:
        """Wait until all members that are up hold the same; fail if they differ then."""
        self.until(lambda: len({node.applied_index for node in self.nodes}) == 1)
        assert len(self.hashes()) == 1, self.hashes()
        stops = {one.member_id: one.stops for one in self.everybody if one.stops}
        assert not stops, stops


class OpenCall(NoCall):
    """A client that waits."""

    is_open = True


def described(member_id: int, is_learner: bool = False) -> Member:
    """Return what the cluster knows of a member before it has started."""
    return Member(
        member_id=member_id,
        peer_urls=(f"http://127.0.0.1:{2380 + member_id}",),
        is_learner=is_learner,
    )


def others(rig: ClusterRig, node: Node) -> list[Node]:
    """Return the members that are up, without ``node``."""
    return [other for other in rig.nodes if other is not node]
