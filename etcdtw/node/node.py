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
from etcdtw.apply.errors import (
    RequestTimeoutError,
    RequestTooLargeError,
    StoppedError,
    TooManyRequestsError,
)
from etcdtw.grpc.call import Call
from etcdtw.lease.expiry import ExpiryScan
from etcdtw.mvcc.applied import Applied
from etcdtw.node.auto_compaction import AutoCompaction
from etcdtw.node.reads import ReadDone, Reads
from etcdtw.node.requests import PREFIX_SIZE, Done, RequestIds, Waiter, tag
from etcdtw.node.slowness import Slowness
from etcdtw.node.turn import Parts, Turn
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import ResponseHeaders, encode_varint

APPLY_GAP_MAX: Final = 5000
"""Entries committed and not yet applied past which proposals are refused (etcd's number)."""
LATE_HEARTBEATS: Final = 2
"""Heartbeats due at one tick from which on the leader is late (etcd warns at twice too)."""
PROPOSALS_MAX: Final = 65_536
"""Proposals waiting for their outcome past which new ones are refused."""


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """What of the configuration the node itself uses."""

    cluster_id: int
    member_id: int
    heartbeat_ms: int = 100
    election_ticks: int = 10
    request_bytes_max: int = 1_572_864
    snapshot_count: int = 10_000
    catchup_entries: int = 5_000
    warning_apply_s: float = 0.1
    warning_request_s: float = 0.3

    @property
    def request_timeout_ms(self) -> int:
        """etcd's: five seconds and two elections."""
        return 5_000 + 2 * self.heartbeat_ms * self.election_ticks


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
    """One member's consensus and state.  Services call `propose`, `read` and `header`."""

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
        self._reads = Reads(config.request_timeout_ms)
        self._waiters: dict[bytes, Waiter] = {}
        self._proposals: list[bytes] = []
        self.slowness = Slowness(config.warning_apply_s, config.warning_request_s)
        self._turn = Turn(self, parts, self._waiters, self._reads)
        self._wakeup: IDelayedCall | None = None
        self._ticking: IDelayedCall | None = None
        self._last_tick_ms = 0
        self._expiry = ExpiryScan(parts.lessor)
        self._own_call: Call = NoCall()
        self._headers = ResponseHeaders(config.cluster_id, config.member_id, parts.raw.term)
        self.is_stopping = False
        self._is_starting = False
        self.proposals_failed_total = 0
        self.leader_changes_total = 0
        self.leases_expired_total = 0
        self.late_heartbeats_total = 0
        """Ticks at which a leader was more than one heartbeat late."""
        self._known_leader_id = 0
        self.on_lead: Callable[[], None] = _nothing
        self.auto_compaction: AutoCompaction | None = None
        self.on_tick: list[Callable[[int], None]] = []
        """Called at each tick with the time in ms."""

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

    @property
    def proposals_pending(self) -> int:
        return len(self._waiters)

    @property
    def reads(self) -> Reads:
        return self._reads

    @property
    def now_ms(self) -> int:
        return int(self.clock.seconds() * 1000)

    def header(self, revision: int) -> bytes:
        """Return the header field of a response: tag, length and ``ResponseHeader``."""
        return self._headers.encode(revision)

    def term_changed(self) -> None:
        """Raft has another term; headers name it from now on."""
        self._headers.set_term(self._raw.term)

    # The doors for services.

    def propose(self, field: int, message: bytes, parsed: Any, call: Call, done: Done) -> None:
        """Put a request into the log; ``done(call, applied)`` is called with its outcome.

        ``message`` is the encoded request of InternalRaftRequest's ``field``, ``parsed`` the same
        request as a message.  Refusals come through ``done`` too, in ``applied.error``.
        """
        size = len(message)
        if size + PREFIX_SIZE + 8 > self.config.request_bytes_max:
            self._refuse(call, done, RequestTooLargeError())
            return
        if (
            self.is_stopping
            or len(self._waiters) >= PROPOSALS_MAX
            or self._raw.commit_index - self._turn.applied_index > APPLY_GAP_MAX
        ):
            self._refuse(call, done, StoppedError() if self.is_stopping else TooManyRequestsError())
            return
        prefix = self._ids.next_prefix()
        length = _SHORT_LENGTHS[size] if size < 128 else encode_varint(size)
        data = b"".join((prefix, tag(field), length, message))
        if self._wakeup is None:
            self.wake()
        self._waiters[prefix] = Waiter(data, field, parsed, call, done, self._turn.now_ms)
        self._proposals.append(data)

    def read(self, call: Call, done: ReadDone) -> None:
        """Call ``done(call, None)`` once a read of local state is linearizable."""
        if self.is_stopping:
            done(call, StoppedError())
            return
        if self._wakeup is None:
            self.wake()
        self._reads.ask(call, done, self._turn.now_ms)

    def wake(self) -> None:
        """Ask for a turn at the end of this reactor iteration."""
        if self._wakeup is None and not self.is_stopping:
            self._wakeup = self.clock.callLater(0, self._run)
            # What is asked until then began now, not when the last turn ran.
            self._turn.now_ms = self.now_ms

    def take_proposals(self) -> list[bytes]:
        """Return what was proposed since the last turn (the turn's side of `propose`)."""
        proposals = self._proposals
        self._proposals = []
        return proposals

    def drop_proposals(self, proposals: list[bytes], error: Exception) -> None:
        """Raft refused these: tell their waiters."""
        self.proposals_failed_total += len(proposals)
        for data in proposals:
            waiter = self._waiters.pop(data[:PREFIX_SIZE], None)
            if waiter is not None:
                self._refuse(waiter.call, waiter.done, error)

    def _refuse(self, call: Call, done: Done, error: Exception) -> None:
        done(call, Applied(self.store.revision, b"", error))

    def _run(self) -> None:
        self._wakeup = None
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
        due = max(1, (now_ms - self._last_tick_ms) // self.config.heartbeat_ms)
        self.late_heartbeats_total += due > LATE_HEARTBEATS and self.is_leader
        for _ in range(min(due, self.config.election_ticks - 1)):
            self._raw.tick()
        self._last_tick_ms = now_ms
        self._expire(now_ms)
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
        if leader_id == 0:
            self.log.info("no leader is known at term {term}", term=self.term)
            return
        self.leader_changes_total += 1
        self.log.info("leader is {leader} at term {term}", leader=f"{leader_id:x}", term=self.term)

    def lead(self) -> None:
        """This member leads and has applied an entry of its own term."""
        self.lessor.promote(self.config.heartbeat_ms * self.config.election_ticks)
        self.on_lead()

    def _expire(self, now_ms: int) -> None:
        before_ms = now_ms - self.config.request_timeout_ms
        overdue = []
        for prefix, waiter in self._waiters.items():
            if waiter.started_ms > before_ms:
                break  # a dict keeps the order of insertion: the rest is younger
            overdue.append(prefix)
        self.proposals_failed_total += len(overdue)
        for prefix in overdue:
            waiter = self._waiters.pop(prefix)
            self._refuse(waiter.call, waiter.done, RequestTimeoutError())
        self._reads.expire(now_ms)

    def _scan_leases(self, now_ms: int) -> None:
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
        self.propose(field, request.SerializeToString(), request, self._own_call, _ignore)

    def _compact_history(self, now_ms: int) -> None:
        if self.auto_compaction is not None and self.is_leader:
            revision = self.auto_compaction.due(now_ms, self.store.revision)
            if revision is not None:
                self.log.info("compacting the history up to {revision}", revision=revision)
                self.propose_own(FIELD_COMPACTION, pb.CompactionRequest(revision=revision))

    def _compact_log(self) -> None:
        keep_from = self._state.applied_durable - self.config.catchup_entries
        if keep_from - self.parts.log.first_index() >= self.config.snapshot_count:
            self.parts.log.compact(keep_from)

    # The end.

    def stop(self) -> None:
        """Stop ticking and fail what still waits.  The log and the state are closed by others."""
        self._turn.finish_long()
        self.is_stopping = True
        for delayed in (self._wakeup, self._ticking):
            if delayed is not None and delayed.active():
                delayed.cancel()
        self._wakeup = self._ticking = None
        waiters = list(self._waiters.values())
        self._waiters.clear()
        for waiter in waiters:
            self._refuse(waiter.call, waiter.done, StoppedError())
        self._reads.fail_all(StoppedError())
        self.parts.flusher.flush()


def _nothing() -> None:
    """Nobody wants to know that this member leads."""


def _ignore(call: Call, applied: Applied) -> None:
    """Nobody waits for this outcome."""


_SHORT_LENGTHS: Final = tuple(bytes((size,)) for size in range(128))
