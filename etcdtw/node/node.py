"""The Raft reactor service of one member, as others see it: proposals, reads, facts; start, stop.

Everything that happens outside only enqueues here and asks for a turn; `loop` does the work,
once for each reactor iteration, and `duties` what time asks for.  Runs on the reactor's thread
only.  Built by `node.build`; what services may use of it is `node.facade`.
"""

from __future__ import annotations

from dataclasses import dataclass

from twisted.internet.interfaces import IReactorTime

from etcdtw.apply.errors import StoppedError
from etcdtw.lease.lessor import Lessor
from etcdtw.node.config import NodeConfig
from etcdtw.node.duties.cluster_version import ClusterVersion
from etcdtw.node.duties.conf_changes import ConfChanges
from etcdtw.node.duties.corruption import CorruptionChecks
from etcdtw.node.duties.damage import DamageDuty
from etcdtw.node.duties.history.compaction import HistoryCompaction
from etcdtw.node.duties.history.quota_compaction import QuotaCompaction
from etcdtw.node.duties.key_hashes import KeyHashes
from etcdtw.node.duties.leader_transfer import LeaderTransfers
from etcdtw.node.duties.lease_expiry import LeaseExpiry
from etcdtw.node.duties.quota import SpaceQuota
from etcdtw.node.duties.snapshots import Snapshots
from etcdtw.node.duties.space import SpaceDuty
from etcdtw.node.duties.stalls import Stalls
from etcdtw.node.intake.durations import Durations
from etcdtw.node.intake.inbox import Inbox
from etcdtw.node.intake.reads import Reads
from etcdtw.node.loop.leadership import Leadership
from etcdtw.node.loop.loop import Loop
from etcdtw.node.loop.peers import Peers
from etcdtw.node.loop.request_stats import RequestStats
from etcdtw.node.loop.slowness import Slowness
from etcdtw.node.loop.ticks import Ticks
from etcdtw.node.loop.turn import Turn
from etcdtw.node.own_proposals import OwnProposals
from etcdtw.node.parts import Parts


@dataclass(frozen=True, kw_only=True)
class Duties:
    """The duties that somebody else asks something of, too."""

    snapshots: Snapshots
    conf_changes: ConfChanges
    transfers: LeaderTransfers
    hashes: KeyHashes
    cluster_version: ClusterVersion
    corruption: CorruptionChecks
    lease_expiry: LeaseExpiry
    history_compaction: HistoryCompaction
    quota: SpaceQuota
    quota_compaction: QuotaCompaction
    damage: DamageDuty
    space: SpaceDuty


class Node:
    """One member's consensus and state.  Services call `propose`, `read` and `header`.

    Those are `Inbox.propose`, `Inbox.read` and `ResponseHeaders.encode`; see there.
    """

    def __init__(
        self,
        clock: IReactorTime,
        config: NodeConfig,
        parts: Parts,
        *,
        inbox: Inbox,
        own: OwnProposals,
        peers: Peers,
        duties: Duties,
        leadership: Leadership,
        slowness: Slowness,
        request_stats: RequestStats,
        durations: Durations,
        turn: Turn,
        stalls: Stalls,
        ticks: Ticks,
        loop: Loop,
    ) -> None:
        self.clock = clock
        self.config = config
        self.cluster_id = config.cluster_id
        self.member_id = config.member_id
        self.store = parts.store
        self.lessor = parts.lessor
        self.hub = parts.hub
        self.members = parts.members
        self.alarms = parts.alarms
        self.storage = parts.state
        self.standing = parts.standing
        self.inbox = inbox
        self.own = own
        self.peers = peers
        self.snapshots = duties.snapshots
        self.conf_changes = duties.conf_changes
        self.transfers = duties.transfers
        self.hashes = duties.hashes
        self.duties = duties
        self.leadership = leadership
        self.slowness = slowness
        self.request_stats = request_stats
        self.durations = durations
        self.stalls = stalls
        self.ticks = ticks
        self._turn = turn
        self._loop = loop
        self._raw = parts.raw
        self._flusher = parts.flusher
        self.wakeup = parts.wakeup
        # The doors for services; bound here, so that a request passes no frame of Python.
        self.propose = inbox.propose
        self.read = inbox.read
        self.linearize = inbox.linearize
        self.header = parts.headers.encode
        self.raft_status = self._raw.status_record
        self.connected_since = peers.connected_since_ms
        self.match_index = parts.standing.match_index

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
        return len(self.inbox.waiters)

    @property
    def proposals_failed_total(self) -> int:
        return self.inbox.failed_total

    @property
    def reads(self) -> Reads:
        return self.inbox.reads

    @property
    def is_stopping(self) -> bool:
        return self.wakeup.is_stopping

    @property
    def is_voter(self) -> bool:
        return self.standing.is_voter

    @property
    def is_learner(self) -> bool:
        return self.standing.is_learner

    @property
    def is_quarantined(self) -> bool:
        return self.standing.is_quarantined

    @property
    def now_ms(self) -> int:
        return self.wakeup.time_ms()

    def current_lessor(self) -> Lessor:
        """Return the lessor as of now: what it says before the next tick must hold, too.

        The last turn may be a heartbeat ago, and a TTL must not be short by that; or this
        process stood still since, and the lessor is not primary before that is looked into.
        """
        now_ms = self.wakeup.time_ms()
        self.stalls.stood_still(now_ms)
        self.lessor.advance(now_ms)
        return self.lessor

    # Beginning and end.

    def start(self) -> None:
        """Begin to tick and apply what the log has committed already."""
        self.stalls.start(self.now_ms)
        self.ticks.start()
        self._loop.start()

    def stop(self) -> None:
        """Stop ticking and fail what still waits.  The log and the state are closed by others."""
        self._turn.finish_long()
        self.wakeup.stop()
        self.ticks.stop()
        self.inbox.fail_all()
        self.conf_changes.fail_all(StoppedError())
        self.transfers.fail_all(StoppedError())
        self._flusher.flush()
