"""A whole node in memory: a log whose durability the test decides, a fake clock, real cores."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from twisted.internet.task import Clock

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.applier import FIELD_PUT, Applier
from etcdtw.apply.members import Members
from etcdtw.apply.permissions import Permissions
from etcdtw.auth.store import AuthStore
from etcdtw.cluster.member import Member, encode_member
from etcdtw.grpc.call import Call
from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.store import WORK_BOUNDS, Store
from etcdtw.mvcc.watch.hub import WatchHub
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.node.build import build_node
from etcdtw.node.config import NodeConfig
from etcdtw.node.intake.inbox import Identify
from etcdtw.node.intake.requests import RequestIds
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.parts import Parts
from etcdtw.node.standing import Standing
from etcdtw.raft.confchange import (
    ADD_LEARNER_NODE,
    ConfChange,
    bootstrap_log,
    encode_conf_change,
)
from etcdtw.raft.config import Config
from etcdtw.raft.entry import ENTRY_CONF_CHANGE, Entry, HardState, Snapshot
from etcdtw.raft.memory_storage import MemoryStorage
from etcdtw.raft.raw_node import RawNode
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import ResponseHeaders
from etcdtw.wire.pieces import Pieces
from etcdtw.wire.requests import plain
from tests.support.auth_rig import LateHashes, auth_entries
from tests.support.model_state import ModelSnapshots, State
from tests.support.recorded_call import RecordedCall

MEMBER_ID = 0x1234
CONFIG = NodeConfig(cluster_id=1, member_id=MEMBER_ID)


class MemoryLog(MemoryStorage):
    """A `LogStore` in memory.  With ``holds`` set nothing is durable before `release`."""

    def __init__(self) -> None:
        super().__init__()
        self.holds = False
        self.held: list[Callable[[], None]] = []
        """What is at the disk: calls that make it durable and tell of it."""
        self.appends = 0
        self.appended: list[int] = []
        """The indexes of all entries that it was given, at the disk or not."""
        self.marks = 0
        """How often it was compacted."""
        self.installs = 0

    def append(  # type: ignore[override]
        self, hard_state: HardState | None, entries: Sequence[Entry], done: Callable[[], None]
    ) -> None:
        self.appends += bool(entries)
        self.appended += [entry.index for entry in entries]
        written = list(entries)

        def write() -> None:
            if hard_state is not None:
                self.set_hard_state(hard_state)
            if written:
                MemoryStorage.append(self, written)
            done()

        self._hold(write)

    def _hold(self, write: Callable[[], None]) -> None:
        self.held.append(write)
        if not self.holds:
            self.release()

    def release(self) -> None:
        """Make everything held durable, in order."""
        while self.held:
            self.held.pop(0)()

    def put_snapshot(self, snapshot: Snapshot, done: Callable[[], None]) -> None:
        self.marks += 1

        def write() -> None:
            self._snapshot = snapshot
            done()

        self._hold(write)

    def install_snapshot(
        self, hard_state: HardState, snapshot: Snapshot, done: Callable[[], None]
    ) -> None:
        self.installs += 1

        def write() -> None:
            self.set_hard_state(hard_state)
            self.apply_snapshot(snapshot)
            done()

        self._hold(write)

    def compact(self, index: int) -> None:
        def forget() -> None:
            if index >= self.first_index():
                MemoryStorage.compact(self, index)

        self._hold(forget)


class NoFlusher:
    """Counts the turns' flushes."""

    def __init__(self) -> None:
        self.flushes = 0
        self.on_flush: Callable[[], None] = lambda: None

    def hold(self) -> None:
        pass

    def flush(self) -> None:
        self.flushes += 1
        self.on_flush()


class NodeRig:
    """One started voter.  `run` lets everything due happen."""

    def __init__(
        self,
        log: MemoryLog | None = None,
        state: State | None = None,
        *,
        bounds: WorkBounds = WORK_BOUNDS,
        config: NodeConfig = CONFIG,
        identify: Identify | None = None,
        permissions: Permissions | None = None,
        auth: AuthStore | None = None,
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1_000)
        self.waited_s = 0.0  # of the clock's time: others had the core
        self.log = log or new_log()
        self.state = state or State()
        self.flusher = NoFlusher()
        self.outcomes: list[Applied] = []
        self.reads: list[Exception | None] = []
        self.stops: list[str] = []
        self.hashes = LateHashes()
        lessor = Lessor(2)
        store = Store(self.state, lessor.exists, bounds)
        members = Members(self.state, 1)
        alarms = Alarms(self.state)
        raw = RawNode(
            Config(
                id=MEMBER_ID,
                election_ticks=10,
                heartbeat_ticks=1,
                storage=self.log,
                random=random.Random(7),
            )
        )
        wakeup = Wakeup(self.clock.callLater, self.clock.seconds)
        hub = WatchHub(store, self.state, lambda revision: b"", lambda: 0.5, lambda: None)
        parts = self.parts = Parts(
            wakeup=wakeup,
            headers=ResponseHeaders(config.cluster_id, MEMBER_ID, raw.term),
            raw=raw,
            log=self.log,
            state=self.state,
            store=store,
            lessor=lessor,
            hub=hub,
            applier=Applier(
                self.state,
                store,
                lessor,
                members,
                alarms,
                auth_entries(self.state, store, self.hashes, auth),
                permissions,
            ),
            members=members,
            alarms=alarms,
            standing=Standing(config.cluster_id, MEMBER_ID, raw, members, alarms),
            flusher=self.flusher,
            pieces=Pieces(self._cpu_ns, lambda: round(self.clock.seconds() * 1e9)),
            ids=RequestIds(MEMBER_ID, 1_000_000),
            snapshot_files=ModelSnapshots(self.state),
            snapshot_folder=Path("unused"),
            identify=identify,
            fail_stop=self.stops.append,
        )
        self.node = build_node(self.clock, config, parts)
        self.inbox = self.node.inbox
        self.call: Call = RecordedCall()  # a client's

    def _cpu_ns(self) -> int:
        return round((self.clock.seconds() - self.waited_s) * 1e9)

    def start(self) -> NodeRig:
        """Start and lead."""
        self.node.start()
        self.run()
        return self

    def run(self, seconds: float = 0.0) -> None:
        self.clock.pump([0.0] * 4)
        while seconds > 0:
            self.clock.advance(min(0.1, seconds))
            seconds -= 0.1

    def put(self, key: bytes, value: bytes = b"v") -> None:
        request = pb.PutRequest(key=key, value=value)
        self.propose(FIELD_PUT, request)

    def propose(self, field: int, request: pb.PutRequest | pb.LeaseGrantRequest) -> None:
        message = request.SerializeToString()
        self.node.propose(field, message, plain(request), self.call, self._done)

    def read(self) -> None:
        self.node.read(self.call, lambda call, error: self.reads.append(error))

    def _done(self, call: Call, applied: Applied) -> None:
        self.outcomes.append(applied)


def new_log() -> MemoryLog:
    """Return the log of a cluster of one that was never started."""
    log = MemoryLog()
    member = Member(member_id=MEMBER_ID, peer_urls=("http://localhost:2380",))
    hard_state, entries = bootstrap_log([(MEMBER_ID, encode_member(member))])
    log.set_hard_state(hard_state)
    MemoryStorage.append(log, entries)
    return log


def log_with_a_learner() -> MemoryLog:
    """Return the log of such a cluster that has added learner 5 as well."""
    learner = Member(member_id=5, peer_urls=("http://h:5",), is_learner=True)
    change = ConfChange(((ADD_LEARNER_NODE, 5),), 0, encode_member(learner), ENTRY_CONF_CHANGE)
    log = new_log()
    MemoryStorage.append(log, [Entry(1, 2, ENTRY_CONF_CHANGE, encode_conf_change(change))])
    log.set_hard_state(HardState(1, 0, 2))
    return log
