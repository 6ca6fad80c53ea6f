"""The Raft reactor service of one member: proposals, reads and ticks around the turn.

Everything that happens outside only enqueues here and asks for a turn; `turn.Turn` does the
work, once for each reactor iteration.  Runs on the reactor's thread only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from etcdtw.apply.applier import (
    FIELD_COMPACTION,
    FIELD_LEASE_CHECKPOINT,
    FIELD_LEASE_REVOKE,
)
from etcdtw.apply.errors import StoppedError
from etcdtw.grpc.call import Call
from etcdtw.lease.expiry import ExpiryScan
from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.applied import Applied
from etcdtw.node.duties.auto_compaction import AutoCompaction
from etcdtw.node.duties.cluster_version import ClusterVersion
from etcdtw.node.duties.conf_changes import ConfChanges
from etcdtw.node.duties.corruption import CorruptionChecks
from etcdtw.node.duties.key_hashes import KeyHashes
from etcdtw.node.duties.leader_transfer import LeaderTransfers
from etcdtw.node.duties.snapshots import Snapshots
from etcdtw.node.duties.stalls import Stalls
from etcdtw.node.loop.inbox import (
    APPLY_GAP_MAX,
    PROPOSALS_MAX,
    QUEUED_OCTETS_MAX,
    Inbox,
    InboxBounds,
)
from etcdtw.node.loop.long_apply import WORK_S
from etcdtw.node.loop.peers import Peers
from etcdtw.node.loop.reads import Reads
from etcdtw.node.loop.requests import RequestIds
from etcdtw.node.loop.slowness import Slowness
from etcdtw.node.loop.turn import Parts, Turn
from etcdtw.raft.entry import Snapshot
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import ResponseHeaders

LATE_HEARTBEATS: Final = 2
"""Heartbeats due at one tick from which on the leader is late (etcd warns at twice too)."""


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """What of the configuration the node itself uses."""

    cluster_id: int
    member_id: int
    heartbeat_ms: int = 100
    election_ticks: int = 10
    request_bytes_max: int = 1_572_864
    max_learners: int = 1
    snapshot_count: int = 10_000
    catchup_entries: int = 5_000
    warning_apply_s: float = 0.1
    warning_request_s: float = 0.3
    proposals_max: int = PROPOSALS_MAX
    apply_gap_max: int = APPLY_GAP_MAX
    queued_octets_max: int = QUEUED_OCTETS_MAX
    long_work_s: float = WORK_S

    @property
    def election_timeout_ms(self) -> int:
        return self.heartbeat_ms * self.election_ticks

    @property
    def request_timeout_ms(self) -> int:
        """etcd's: five seconds and two elections."""
        return 5_000 + 2 * self.election_timeout_ms


class NoCall:
    """The call of a proposal that the member makes for itself: nobody to answer."""

    is_open = False
    queued = 0
    deadline_ms: int | None = None

    def __init__(self) -> None:
        self.on_message: Callable[[bytes], None] | None = None
        self.on_half_close: Callable[[], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None

    def metadata(self, name: bytes) -> bytes | None:
        return None

    def reply(self, message: bytes) -> None:
        pass

    def send(self, message: bytes) -> None:
        pass

    def finish(self) -> None:
        pass

    def fail(self, code: int, message: str) -> None:
        pass


class Node:
    """One member's consensus and state.  Services call `propose`, `read` and `header`.

    Those are `Inbox.propose`, `Inbox.read` and `ResponseHeaders.encode`; see there.
    """

    log = Logger()

    def __init__(
        self, clock: IReactorTime, config: NodeConfig, parts: Parts, ids: RequestIds
    ) -> None:
        self.clock = clock
        self.config = config
        self.cluster_id = config.cluster_id
        self.member_id = config.member_id
        self.parts = parts
        self.store = parts.store
        self.lessor = parts.lessor
        self.hub = parts.hub
        self.members = parts.members
        self.alarms = parts.alarms
        self.storage = parts.state
        self._ids = ids
        self._raw = parts.raw
        self._state = parts.state
        self.inbox = inbox = Inbox(
            parts.raw,
            parts.store,
            ids,
            InboxBounds(
                config.request_bytes_max,
                config.request_timeout_ms,
                config.election_timeout_ms,
                config.proposals_max,
                config.apply_gap_max,
                config.queued_octets_max,
            ),
            self.wake,
        )
        self._headers = ResponseHeaders(config.cluster_id, config.member_id, parts.raw.term)
        # The doors for services; bound here, so that a request passes no frame of Python.
        self.propose = inbox.propose
        self.read = inbox.read
        self.header = self._headers.encode
        self.slowness = Slowness(config.warning_apply_s, config.warning_request_s)
        self.peers = Peers(self)
        self.snapshots = Snapshots(self, parts.snapshot_files, parts.snapshot_folder)
        self._turn = Turn(self, parts, inbox)
        self._wakeup: IDelayedCall | None = None
        self._ticking: IDelayedCall | None = None
        self._last_tick_ms = 0
        self._expiry = ExpiryScan(parts.lessor)
        self.own_call: Call = NoCall()
        """Asks for what the member itself wants to know."""
        self._is_starting = False
        self.leader_changes_total = 0
        self.leases_expired_total = 0
        self.late_heartbeats_total = 0
        """Ticks at which a leader was more than one heartbeat late."""
        self._known_leader_id = 0
        self.on_removed: Callable[[], None] = _nothing
        """Called once when the others say that this member was removed for good."""
        self.auto_compaction: AutoCompaction | None = None
        self.on_tick: list[Callable[[int], None]] = []
        """Called at each tick with the time in ms."""
        self.conf_changes = ConfChanges(self, parts.raw, ids.next_id)
        self.transfers = LeaderTransfers(self, parts.raw)
        self.stalls = Stalls(self)
        inbox.is_connected = self._is_connected
        self.cluster_version = ClusterVersion(self)
        self.hashes = KeyHashes(self)
        self.corruption = CorruptionChecks(self, self.own_call)

    # What services and metrics read.

    @property
    def term(self) -> int:
        return self._raw.term

    @property
    def leader_id(self) -> int:
        return self._raw.lead

    @property
    def is_leader(self) -> bool:
        return self._raw.lead == self.member_id

    @property
    def commit_index(self) -> int:
        return self._raw.commit_index

    @property
    def applied_index(self) -> int:
        return self._turn.applied_index

    def append_age_ms(self, now_ms: int) -> int:
        """How long the log's disk has been busy without finishing anything."""
        return self._turn.append_age_ms(now_ms)

    @property
    def proposals_pending(self) -> int:
        return len(self.inbox.waiters)

    @property
    def proposals_failed_total(self) -> int:
        return self.inbox.failed_total

    @property
    def reads(self) -> Reads:
        return self.inbox.reads

    @property
    def is_stopping(self) -> bool:
        return self.inbox.is_stopping

    @property
    def is_voter(self) -> bool:
        """Whether this member is known as a voter; once it is, it stays one."""
        member = self.members.member(self.member_id)
        return member is not None and not member.is_learner

    @property
    def is_learner(self) -> bool:
        member = self.members.member(self.member_id)
        return member is not None and member.is_learner

    @property
    def is_quarantined(self) -> bool:
        """Whether the cluster has found this member's keys to differ: it may tell nobody."""
        return self.member_id in self.alarms.corrupt_members

    def successor(self) -> int | None:
        """Return who should lead when this leader goes: the voter connected for longest.

        None: it does not lead, or nobody is there to.
        """
        if not self.is_leader:
            return None
        connected = [
            (since_ms, one.member_id)
            for one in self.members.voters()
            if one.member_id != self.member_id
            and (since_ms := self.connected_since(one.member_id)) is not None
        ]
        return min(connected)[1] if connected else None

    def match_index(self, member_id: int) -> int | None:
        """How much of the log a member holds, as the leader knows; None for a stranger."""
        progress = self._raw.progress().get(member_id)
        return None if progress is None else progress.match_index

    def connected_since(self, member_id: int) -> int | None:
        """When another member was connected to, in ms of this clock; None: it is not."""
        return self.peers.connected_since_ms(member_id)

    def _is_connected(self, since_ms: int) -> bool:
        """Whether the leader was reached since then; by a leader, a quorum."""
        if self.leader_id in (0, self.member_id):
            return self.leader_id == 0 or self.peers.is_connected_to_quorum(since_ms)
        connected_ms = self.connected_since(self.leader_id)
        return connected_ms is not None and connected_ms <= since_ms

    @property
    def now_ms(self) -> int:
        return int(self.clock.seconds() * 1000)

    def term_changed(self) -> None:
        """Raft has another term; headers name it from now on."""
        self._headers.set_term(self._raw.term)

    def wake(self) -> None:
        """Ask for a turn at the end of this reactor iteration."""
        inbox = self.inbox
        if not inbox.is_awake and not inbox.is_stopping:
            self._wakeup = self.clock.callLater(0, self._run)
            inbox.is_awake = True
            # What is asked until then began now, not when the last turn ran.
            inbox.now_ms = self.now_ms

    def _run(self) -> None:
        self._wakeup = None
        self.inbox.is_awake = False
        if self.is_stopping:
            return
        try:
            more = self._turn.run(self.now_ms)
        except Exception:
            # A broken invariant: what this member would say from here on may be wrong.
            self.log.failure("a turn failed")
            self.parts.fail_stop("a turn failed; report this with the lines above")
            return
        if self._is_starting and self._turn.applied_index >= self._raw.commit_index:
            self._is_starting = False
            if self._raw.configuration.voters == {self.member_id}:
                # A lone voter campaigns at once: there is nobody to wait for.
                self._raw.campaign()
                more = True
        if more:
            self.wake()

    # Time.

    def start(self) -> None:
        """Begin to tick and apply what the log has committed already."""
        self._last_tick_ms = self.now_ms
        self._is_starting = True
        self._schedule_tick()
        self.wake()

    def _schedule_tick(self) -> None:
        self._ticking = self.clock.callLater(self.config.heartbeat_ms / 1000, self._tick)

    def _tick(self) -> None:
        self._schedule_tick()
        try:
            self._look_around(self.now_ms)
        except Exception:
            # Without its ticks a member neither elects nor expires nor persists its state.
            self.log.failure("a tick failed")
            self.parts.fail_stop("a tick failed; report this with the lines above")
            return
        self.run_now()

    def _look_around(self, now_ms: int) -> None:
        """Do what time asks for: ticks of the core, time-outs, leases, compactions."""
        # A stall must not become a burst of ticks, nor no tick at all: at most one less than an
        # election, so that a stalled leader checks its quorum and a follower still listens first.
        late_ms = now_ms - self._last_tick_ms
        due = max(1, late_ms // self.config.heartbeat_ms)
        self.late_heartbeats_total += due > LATE_HEARTBEATS and self.is_leader
        for _ in range(min(due, self.config.election_ticks - 1)):
            self._raw.tick()
        self._last_tick_ms = now_ms
        self.stalls.look(now_ms, late_ms)
        self.inbox.expire(now_ms)
        self._scan_leases(now_ms)
        self._compact_history(now_ms)
        self._state.tick(now_ms)
        self._compact_log()
        for look in self.on_tick:
            look(now_ms)

    def run_now(self) -> None:
        """Run a turn without waiting for the end of the iteration; never from within one."""
        if self._wakeup is not None:
            self._wakeup.cancel()
        self._run()

    def leader_changed(self, leader_id: int) -> None:
        """Raft knows another leader, or none (0)."""
        if leader_id != self.member_id:
            self.lessor.demote()
        if leader_id == self._known_leader_id:
            return
        self._known_leader_id = leader_id
        self.inbox.leader_changed(leader_id, self.now_ms)
        if leader_id == 0:
            self.log.info("no leader is known at term {term}", term=self.term)
            return
        self.leader_changes_total += 1
        self.log.info("leader is {leader} at term {term}", leader=f"{leader_id:x}", term=self.term)

    def state_replaced(self, last_revision: int) -> None:
        """Log and state are those of a snapshot: whatever was kept beside them is read anew.

        ``last_revision``: the last one that watchers were told of.
        """
        self.store.restore(self._state.revision)
        self.parts.applier.restore()
        self.hub.store_replaced(last_revision)
        self.peers.follow_membership()

    def current_lessor(self) -> Lessor:
        """Return the lessor as of now: what it says before the next tick must hold, too.

        The last turn may be a heartbeat ago, and a TTL must not be short by that; or this
        process stood still since, and the lessor is not primary before that is looked into.
        """
        now_ms = self.now_ms
        self.stalls.stood_still(now_ms - self._last_tick_ms)
        self.lessor.advance(now_ms)
        return self.lessor

    def lead(self) -> None:
        """This member leads and has applied an entry of its own term."""
        self.lessor.promote(self.config.election_timeout_ms)
        self.cluster_version.lead()

    def _scan_leases(self, now_ms: int) -> None:
        if not self.is_leader:
            return  # perhaps deposed within this very tick, before the lessor hears of it
        expired, checkpoints = self._expiry.due(now_ms)
        self.leases_expired_total += len(expired)
        for lease_id in expired:
            self.propose_own(FIELD_LEASE_REVOKE, pb.LeaseRevokeRequest(ID=lease_id))
        if checkpoints:
            rows = [pb.LeaseCheckpoint(ID=i, remaining_TTL=left) for i, left in checkpoints]
            request = pb.LeaseCheckpointRequest(checkpoints=rows)
            self.propose_own(FIELD_LEASE_CHECKPOINT, request)

    def propose_own(self, field: int, request: Any) -> None:
        """Propose something of the member's own; a refusal is tried again when it is due again."""
        self.propose(field, request.SerializeToString(), request, self.own_call, _ignore)

    def propose_octets(self, make: Callable[[int], bytes]) -> None:
        """Put an entry of ``make(request id)`` into the log; nobody learns of its outcome."""
        if not self.is_stopping:
            self.inbox.add(make(self._ids.next_id()))

    def _compact_history(self, now_ms: int) -> None:
        if self.auto_compaction is not None and self.is_leader:
            revision = self.auto_compaction.due(now_ms, self.store.revision)
            if revision is not None:
                self.log.info("compacting the history up to {revision}", revision=revision)
                self.propose_own(FIELD_COMPACTION, pb.CompactionRequest(revision=revision))

    def _compact_log(self) -> None:
        log = self.parts.log
        durable_index = self._state.applied_durable
        keep_from = durable_index - self.config.catchup_entries
        if keep_from - log.first_index() < self.config.snapshot_count:
            return
        if self._raw.installing_index or self.snapshots.keeps_log(self._last_tick_ms):
            return  # a snapshot is taking the log's place, or its receiver needs the log
        # Whoever lags behind the log's new beginning is sent a snapshot: this mark says so.
        conf_state = self._raw.configuration.conf_state()
        log.put_snapshot(Snapshot(durable_index, log.term(durable_index), conf_state), lambda: None)
        log.compact(keep_from)

    # The end.

    def stop(self) -> None:
        """Stop ticking and fail what still waits.  The log and the state are closed by others."""
        self._turn.finish_long()
        self.inbox.is_stopping = True
        for delayed in (self._wakeup, self._ticking):
            if delayed is not None and delayed.active():
                delayed.cancel()
        self._wakeup = self._ticking = None
        self.inbox.fail_all()
        self.conf_changes.fail_all(StoppedError())
        self.transfers.fail_all(StoppedError())
        self.parts.flusher.flush()


def _nothing() -> None:
    """Nobody wants to know that this member was removed."""


def _ignore(call: Call, applied: Applied) -> None:
    """Nobody waits for this outcome."""
