"""A node from its parts: each collaborator is given those that were built before it."""

from __future__ import annotations

from functools import partial
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from etcdtw.node.config import NodeConfig
from etcdtw.node.duties.cluster_version import ClusterVersion
from etcdtw.node.duties.compaction import LogCompaction
from etcdtw.node.duties.conf_changes import ConfChanges
from etcdtw.node.duties.corruption import CorruptionChecks
from etcdtw.node.duties.damage import DamageDuty
from etcdtw.node.duties.history.compaction import HistoryCompaction
from etcdtw.node.duties.history.quota_compaction import QuotaCompaction
from etcdtw.node.duties.key_hashes import KeyHashes
from etcdtw.node.duties.lag import LogMarks
from etcdtw.node.duties.leader_transfer import LeaderTransfers
from etcdtw.node.duties.lease_expiry import LeaseExpiry
from etcdtw.node.duties.quota import SpaceQuota
from etcdtw.node.duties.snapshots import Snapshots
from etcdtw.node.duties.space import SpaceDuty
from etcdtw.node.duties.stalls import Stalls
from etcdtw.node.intake.durations import Durations
from etcdtw.node.intake.inbox import Inbox
from etcdtw.node.intake.stepping import Stepper
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.loop.caches import Caches
from etcdtw.node.loop.leadership import Leadership
from etcdtw.node.loop.loop import Loop
from etcdtw.node.loop.measured_clock import MeasuredClock
from etcdtw.node.loop.peers import Peers
from etcdtw.node.loop.request_stats import RequestStats
from etcdtw.node.loop.slowness import Slowness
from etcdtw.node.loop.ticks import Ticks
from etcdtw.node.loop.turn import Turn
from etcdtw.node.node import Duties, Node
from etcdtw.node.own_proposals import OwnProposals
from etcdtw.node.parts import Parts

_log: Final = Logger(namespace="etcdtw.node.duties.quota")


def build_node(clock: IReactorTime, config: NodeConfig, parts: Parts) -> Node:
    """Return a node; nothing is started."""
    raw, wakeup, standing = parts.raw, parts.wakeup, parts.standing
    durations, slowness = Durations(), Slowness(config.warning_apply_s)
    request_stats = _request_stats(clock, config, parts)
    stepper = Stepper(raw, wakeup, parts.pieces, parts.fail_stop)
    snapshots = Snapshots(
        clock,
        raw,
        stepper,
        parts.log,
        Caches(parts.state, parts.store, parts.applier, parts.hub),
        parts.snapshot_files,
        parts.snapshot_folder,
        max_learners=config.max_learners,
        log_kept_ms=config.log_kept_ms,
    )
    peers = Peers(standing, parts.members, stepper, snapshots, parts.on_removed)
    inbox = _inbox(config, parts, wakeup, peers, durations, request_stats)
    own = OwnProposals(inbox, parts.ids)
    duties = _duties(clock, config, parts, snapshots, stepper, peers, inbox, own)
    leadership = Leadership(
        standing,
        parts.lessor,
        inbox,
        wakeup,
        (partial(parts.lessor.promote, config.election_timeout_ms), duties.cluster_version.lead),
    )
    turn = Turn(
        raw=raw,
        log=parts.log,
        state=parts.state,
        store=parts.store,
        lessor=parts.lessor,
        hub=parts.hub,
        applier=parts.applier,
        members=parts.members,
        headers=parts.headers,
        flusher=parts.flusher,
        pieces=parts.pieces,
        peers=peers,
        installs=snapshots,
        inbox=inbox,
        wakeup=wakeup,
        conf_changes=duties.conf_changes,
        leadership=leadership,
        slowness=slowness,
        request_stats=request_stats,
        durations=durations,
        seconds=clock.seconds,
        long_work_s=config.long_work_s,
    )
    stalls = _stalls(config, parts, inbox, turn)
    return Node(
        MeasuredClock(clock, parts.pieces),
        config,
        parts,
        inbox=inbox,
        own=own,
        peers=peers,
        duties=duties,
        leadership=leadership,
        slowness=slowness,
        request_stats=request_stats,
        durations=durations,
        turn=turn,
        stalls=stalls,
        ticks=_ticks(clock, config, parts, inbox, stalls, duties),
        loop=Loop(raw, standing, wakeup, turn, parts.fail_stop),
    )


def _request_stats(clock: IReactorTime, config: NodeConfig, parts: Parts) -> RequestStats:
    return RequestStats(
        config.warning_request_s,
        clock.seconds,
        parts.unix_ms,
        tells_all=config.tells_all_requests,
    )


def _stalls(config: NodeConfig, parts: Parts, inbox: Inbox, turn: Turn) -> Stalls:
    return Stalls(
        parts.standing,
        parts.raw,
        parts.state,
        parts.lessor,
        turn,
        parts.wakeup,
        linearize=inbox.linearize,
        fail_stop=parts.fail_stop,
        election_timeout_ms=config.election_timeout_ms,
    )


def _ticks(
    clock: IReactorTime,
    config: NodeConfig,
    parts: Parts,
    inbox: Inbox,
    stalls: Stalls,
    duties: Duties,
) -> Ticks:
    """Return what tells everybody the time, in this order."""
    log_compaction = LogCompaction(
        parts.raw,
        parts.log,
        parts.state,
        duties.snapshots,
        duties.space.marks,
        duties.space.wants_small_log,
        duties.space.wants_short_log,
        snapshot_count=config.snapshot_count,
        catchup_entries=config.catchup_entries,
        kept_octets_max=config.log_kept_octets_max,
    )
    return Ticks(
        clock,
        parts.raw,
        parts.standing,
        parts.wakeup,
        (
            stalls.look,
            inbox.expire,
            duties.lease_expiry.look,
            duties.history_compaction.look,
            duties.quota_compaction.look,
            duties.damage.look,
            parts.state.tick,
            log_compaction.look,
            duties.transfers.look,
            duties.cluster_version.look,
            duties.corruption.look,
            duties.quota.look,
            duties.space.look,
        ),
        parts.pieces,
        parts.fail_stop,
        heartbeat_ms=config.heartbeat_ms,
        election_ticks=config.election_ticks,
    )


def _inbox(
    config: NodeConfig,
    parts: Parts,
    wakeup: Wakeup,
    peers: Peers,
    durations: Durations,
    request_stats: RequestStats,
) -> Inbox:
    return Inbox(
        parts.raw,
        parts.store,
        parts.ids,
        config.inbox_bounds,
        wakeup,
        peers.is_connected,
        durations,
        identify=parts.identify,
        notes=request_stats,
    )


def _quota_compaction(parts: Parts, own: OwnProposals, quota: SpaceQuota) -> QuotaCompaction:
    return QuotaCompaction(
        parts.standing,
        parts.store,
        own,
        quota.is_nearly_used,
        parts.ask_programs,
        parts.quota.compact_after_ms,
    )


def _duties(
    clock: IReactorTime,
    config: NodeConfig,
    parts: Parts,
    snapshots: Snapshots,
    stepper: Stepper,
    peers: Peers,
    inbox: Inbox,
    own: OwnProposals,
) -> Duties:
    """Return what the turn or a service drives as well; of the rest only time knows."""
    wakeup, standing = parts.wakeup, parts.standing
    transfers = LeaderTransfers(
        standing, parts.raw, wakeup, peers.connected_since_ms, config.election_timeout_ms
    )
    quota = SpaceQuota(
        config.member_id, parts.alarms, own, parts.state, parts.quota, wakeup.time_ms, _log.warn
    )
    hashes = KeyHashes(parts.store, parts.state, clock.seconds)
    return Duties(
        snapshots=snapshots,
        conf_changes=ConfChanges(parts.raw, wakeup, parts.ids.next_id),
        transfers=transfers,
        hashes=hashes,
        cluster_version=ClusterVersion(
            standing,
            parts.members,
            own,
            wakeup.time_ms,
            parts.ask_versions,
            config.downgrade_check_ms,
        ),
        corruption=CorruptionChecks(
            standing,
            parts.alarms,
            parts.state,
            hashes,
            inbox,
            own,
            transfers,
            ask=parts.ask_hashes,
            intervals=parts.check_intervals,
            election_timeout_ms=config.election_timeout_ms,
        ),
        lease_expiry=LeaseExpiry(standing, parts.lessor, own),
        history_compaction=HistoryCompaction(
            standing, parts.store, own, parts.auto_compaction, wakeup.time_ms
        ),
        quota=quota,
        quota_compaction=_quota_compaction(parts, own, quota),
        damage=DamageDuty(standing, parts.raw, parts.damage, wakeup),
        space=SpaceDuty(
            standing=standing,
            raw=parts.raw,
            alarms=parts.alarms,
            storage=parts.state,
            stepper=stepper,
            inbox=inbox,
            own=own,
            wakeup=wakeup,
            quota=quota,
            look=parts.look_at_disks,
            marks=LogMarks(parts.log, config.log_kept_octets_max),
            connected_since_ms=peers.connected_since_ms,
        ),
    )
