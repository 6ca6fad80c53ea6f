"""Members with disks and a network between them, every step of which the test decides."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from etcdtw.raft.confchange import ConfChange, decode_conf_change
from etcdtw.raft.config import READ_ONLY_SAFE, Config
from etcdtw.raft.entry import ENTRY_NORMAL, ConfState, Entry, HardState, Snapshot
from etcdtw.raft.errors import ConfChangeError, PeerNotFoundError, ProposalDroppedError
from etcdtw.raft.log import NO_LIMIT
from etcdtw.raft.memory_storage import MemoryStorage
from etcdtw.raft.message import STORAGE_APPEND, STORAGE_APPLY, Message
from etcdtw.raft.raw_node import RawNode
from etcdtw.raft.ready import ReadState

Applied = tuple[int, int, bytes]  # index, term, data


class NetworkStorage(MemoryStorage):
    """Storage whose snapshot is made when it is asked for, as a member does that sends one."""

    def __init__(self) -> None:
        super().__init__()
        self.take_snapshot: Callable[[], Snapshot] | None = None

    def snapshot(self) -> Snapshot:
        return self.take_snapshot() if self.take_snapshot is not None else super().snapshot()


class NetworkMember:
    """One member: its core, its disk, its state machine (a list), and what is queued there."""

    def __init__(self, member_id: int, storage: NetworkStorage, seed: int, **options: int) -> None:
        self.id = member_id
        self.storage = storage
        self.options = options
        self.random = Random(seed)
        self.applied: list[Applied] = []
        # The configuration belongs to the state machine and restarts with it.
        self.conf_states: dict[int, ConfState] = {0: storage.initial_state()[1]}
        self.appends: list[Message] = []
        self.applies: list[Message] = []
        self.reads: list[ReadState] = []
        self.node = self._build(storage.last_index())
        storage.take_snapshot = self.snapshot

    def _build(self, applied: int) -> RawNode:
        options = self.options
        return RawNode(
            Config(
                id=self.id,
                election_ticks=10,
                heartbeat_ticks=1,
                storage=self.storage,
                random=self.random,
                applied=applied,
                conf_state=self.conf_state() if self.applied else None,
                max_size_per_message=options.get("max_size_per_message", NO_LIMIT),
                max_inflight_messages=options.get("max_inflight_messages", 16),
                max_uncommitted_size=options.get("max_uncommitted_size", NO_LIMIT),
                max_committed_size_per_ready=options.get("max_committed_size", NO_LIMIT),
                check_quorum=bool(options.get("check_quorum", True)),
                pre_vote=bool(options.get("pre_vote", True)),
                step_down_on_removal=bool(options.get("step_down_on_removal", True)),
                disable_proposal_forwarding=bool(options.get("no_forwarding", False)),
                read_only_option=options.get("read_only_option", READ_ONLY_SAFE),
            )
        )

    @property
    def applied_index(self) -> int:
        return self.applied[-1][0] if self.applied else 0

    def collect(self) -> list[Message]:
        """Take one Ready; queue the disk's part and return what goes to peers."""
        ready = self.node.ready()
        self.reads += ready.read_states
        to_peers = []
        for m in ready.messages:
            if m.to == STORAGE_APPEND:
                self.appends.append(m)
            elif m.to == STORAGE_APPLY:
                self.applies.append(m)
            else:
                to_peers.append(m)
        return to_peers

    def write_one(self) -> list[Message]:
        """Do the oldest append; return the responses it releases."""
        m = self.appends.pop(0)
        if m.snapshot is not None:
            self.storage.apply_snapshot(m.snapshot)
            self.applied = [_decoded(line) for line in m.snapshot.data.split(b"\n") if line]
            self.conf_states[m.snapshot.index] = m.snapshot.conf_state
        self.storage.append(m.entries)
        if m.term:
            self.storage.set_hard_state(HardState(m.term, m.vote, m.commit))
        return m.responses

    def apply_one(self) -> None:
        m = self.applies.pop(0)
        for entry in m.entries:
            self._apply(entry)
        for response in m.responses:
            self.node.step(response)

    def _apply(self, entry: Entry) -> None:
        if entry.index <= self.applied_index:
            return
        if entry.type != ENTRY_NORMAL:
            try:
                state = self.node.apply_conf_change(decode_conf_change(entry))
                self.conf_states[entry.index] = state
            except ConfChangeError:
                self.node.apply_conf_change(ConfChange(((0, 0),)))  # cancelled, everywhere alike
        self.applied.append((entry.index, entry.term, entry.data))

    def conf_state(self) -> ConfState:
        return self.conf_states[max([i for i in self.conf_states if i <= self.applied_index])]

    def snapshot(self) -> Snapshot:
        index, term, _ = self.applied[-1]
        data = b"\n".join([b"%d,%d,%s" % (i, t, d.hex().encode()) for i, t, d in self.applied])
        return Snapshot(index, term, self.conf_state(), data)

    def compact(self) -> None:
        """Forget the log up to what is applied."""
        if self.storage.first_index() <= self.applied_index <= self.node.applied_index:
            self.storage.compact(self.applied_index)

    def crash(self, lose_applied: int = 0) -> None:
        """Forget all that is not on disk, and up to ``lose_applied`` applied entries; restart."""
        self.appends = []
        self.applies = []
        self.reads = []
        floor = self.storage.first_index() - 1
        while lose_applied and self.applied and self.applied[-1][0] > floor:
            self.applied.pop()
            lose_applied -= 1
        self.node = self._build(self.applied_index)


def _decoded(line: bytes) -> Applied:
    index, term, data = line.split(b",")
    return int(index), int(term), bytes.fromhex(data.decode())


class Network:
    """All members by id; messages wait in one list until they are delivered or dropped."""

    def __init__(
        self, voters: int, learners: int = 0, spares: int = 0, seed: int = 1, **options: int
    ) -> None:
        conf_state = ConfState(
            voters=tuple(range(1, voters + 1)),
            learners=tuple(range(voters + 1, voters + learners + 1)),
        )
        self.members: dict[int, NetworkMember] = {}
        self.wire: list[Message] = []
        self.cut: set[int] = set()  # members whose messages are lost, both ways
        for member_id in range(1, voters + learners + spares + 1):
            storage = NetworkStorage()
            if member_id <= voters + learners:
                storage.apply_snapshot(Snapshot(1, 1, conf_state, b"1,1,"))
                storage.set_hard_state(HardState(1, 0, 1))
            member = NetworkMember(member_id, storage, seed * 100 + member_id, **options)
            if member_id <= voters + learners:
                member.applied = [(1, 1, b"")]
                member.conf_states[1] = conf_state
            self.members[member_id] = member

    def node(self, member_id: int) -> RawNode:
        return self.members[member_id].node

    def collect(self, member_id: int) -> None:
        self.wire += self.members[member_id].collect()

    def write(self, member_id: int) -> None:
        """Do the oldest append of a member and pass on its responses."""
        for response in self.members[member_id].write_one():
            if response.to == member_id:
                self.members[member_id].node.step(response)
            else:
                self.wire.append(response)

    def deliver(self, position: int = 0) -> None:
        m = self.wire.pop(position)
        if m.from_id in self.cut or m.to in self.cut or m.to not in self.members:
            return
        try:
            self.node(m.to).step(m)
        except (PeerNotFoundError, ProposalDroppedError):
            return

    def settle(self) -> None:
        """Let everything happen that is under way, until nothing more does."""
        for _ in range(100_000):
            busy = False
            for member_id, member in self.members.items():
                if member.node.has_ready():
                    self.collect(member_id)
                    busy = True
                while member.appends:
                    self.write(member_id)
                    busy = True
                while member.applies:
                    member.apply_one()
                    busy = True
            while self.wire:
                self.deliver()
                busy = True
            if not busy:
                return
        raise AssertionError("the network does not settle")

    def elect(self, member_id: int) -> None:
        self.node(member_id).campaign()
        self.settle()
        assert self.node(member_id).is_leader

    def tick(self, count: int = 1, *members: int) -> None:
        for _ in range(count):
            for member_id in members or tuple(self.members):
                self.node(member_id).tick()
            self.settle()

    def leader(self) -> int:
        """Return the leader of the latest term, 0 if there is none."""
        leaders = [(m.node.term, i) for i, m in self.members.items() if m.node.is_leader]
        return max(leaders)[1] if leaders else 0

    def data(self, member_id: int) -> list[bytes]:
        return [data for _, _, data in self.members[member_id].applied if data]
