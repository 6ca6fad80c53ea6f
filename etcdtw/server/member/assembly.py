"""A member's parts put together: from open data to a node, from a node to its services.

Builds only; nothing is started here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

from twisted.internet.interfaces import IReactorInThreads

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.applier import Applier
from etcdtw.apply.members import Members, stored_conf_state
from etcdtw.client.loopback import Loopback
from etcdtw.cluster.line import Line
from etcdtw.config.config import PERIODIC_MODE, REVISION_MODE, Config
from etcdtw.config.feature_gates import FeatureGates
from etcdtw.grpc.call import MethodTable
from etcdtw.grpc.stats import ServerStats
from etcdtw.lease.lease import NEVER_MS
from etcdtw.lease.lessor import CHECKPOINT_INTERVAL_MS, Lessor
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.watch.hub import WatchHub
from etcdtw.node.build import build_node
from etcdtw.node.config import NodeConfig
from etcdtw.node.duties.corruption import CheckIntervals
from etcdtw.node.duties.history.auto_compaction import (
    AutoCompaction,
    PeriodicCompaction,
    RevisionCompaction,
)
from etcdtw.node.duties.quota import QuotaRules
from etcdtw.node.intake.requests import RequestIds
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.node import Node
from etcdtw.node.parts import Parts
from etcdtw.node.standing import Standing
from etcdtw.raft.config import Config as RaftConfig
from etcdtw.raft.raw_node import RawNode
from etcdtw.rpc.auth.admission import Admission
from etcdtw.rpc.cluster.service import ClusterService
from etcdtw.rpc.concurrency.contender import Arena
from etcdtw.rpc.concurrency.election import ElectionService
from etcdtw.rpc.concurrency.lock import LockService
from etcdtw.rpc.kv.read_queue import ReadQueue
from etcdtw.rpc.kv.service import KvService
from etcdtw.rpc.lease.for_peers import LeasesForPeers
from etcdtw.rpc.lease.service import LeaseService
from etcdtw.rpc.maintenance.downgrade import DowngradeService
from etcdtw.rpc.maintenance.health import HealthService
from etcdtw.rpc.maintenance.service import MaintenanceService
from etcdtw.rpc.maintenance.snapshot import SnapshotService
from etcdtw.rpc.screening import Screening
from etcdtw.rpc.tracing.methods import traced
from etcdtw.rpc.tracing.seams import Tracer
from etcdtw.rpc.watch import WatchService
from etcdtw.server.member.leader_line import LeaderLine
from etcdtw.server.member.opened import OpenData, OpenMember, Services
from etcdtw.server.member.runtime import Runtime
from etcdtw.server.member.users import Users, open_users
from etcdtw.server.process.services import EXIT_REMOVED, leave_with_status
from etcdtw.server.start.bootstrap import Identity
from etcdtw.server.start.data import Data
from etcdtw.storage.disk.room import DiskRoom, RealDisk, RoomFound
from etcdtw.transport.peer.client import Dial
from etcdtw.wire.encode import ResponseHeaders

COMMITTED_SIZE_PER_READY_MAX = 1024 * 1024
"""Octets of entries applied before the turn looks up again."""


def open_member(
    runtime: Runtime,
    config: Config,
    opened: OpenData,
    dial: Dial,
    fail_stop: Callable[[str], None],
    tracer: Tracer | None = None,
) -> OpenMember:
    """Return the member on ``opened``; ``fail_stop`` ends the process, with a reason.

    ``tracer`` None: calls are not traced, and nothing stands between them and their services.
    """
    data = opened.data
    in_thread = cast(IReactorInThreads, runtime.reactor).callInThread
    room = DiskRoom(data.places(), RealDisk(), in_thread)
    node, line, users = _node(runtime, config, opened, dial, room.look, fail_stop)
    services = _services(runtime, config, node, line, users)
    if tracer is not None:
        services = replace(services, methods=traced(services.methods, tracer, runtime.now_ms))
    return OpenMember(data=data, room=room, node=node, line=line, services=services)


def _node(
    runtime: Runtime,
    config: Config,
    opened: OpenData,
    dial: Dial,
    look_at_disks: Callable[[int], RoomFound],
    fail_stop: Callable[[str], None],
) -> tuple[Node, LeaderLine, Users]:
    """Return the node on ``opened``, its line to the leader, and who may do what."""
    data, clock = opened.data, runtime.clock
    own_config = node_config(config, data.identity)
    wakeup = Wakeup(clock.callLater, clock.seconds)
    raw = _raw(config, data, runtime.randomness)
    headers = ResponseHeaders(own_config.cluster_id, own_config.member_id, raw.term)
    state = data.state
    lessor = Lessor(
        lease_ttl_min_s(config.election_timeout_ms),
        checkpoint_interval_ms=checkpoint_interval_ms(config.feature_gates),
    )
    store = Store(state, lessor.exists)
    store.restore(state.revision)
    members = Members(state, config.max_learners, Line(data.line))
    alarms = Alarms(state)
    users = open_users(runtime, config, state, wakeup.time_ms)
    entries = users.entries(store, own_config.cluster_id, lambda: members.cluster_version)
    applier = Applier(state, store, lessor, members, alarms, entries, users.authorization)
    applier.restore()
    standing = Standing(own_config.cluster_id, own_config.member_id, raw, members, alarms)
    line = LeaderLine(standing, members, wakeup, dial, clock, own_config.request_timeout_ms)
    parts = Parts(
        wakeup=wakeup,
        headers=headers,
        raw=raw,
        log=data.log,
        state=state,
        store=store,
        lessor=lessor,
        hub=WatchHub(
            store,
            state,
            headers.encode,
            runtime.randomness.random,
            wakeup.wake,
            progress_interval_ms=int(config.watch_progress_notify_interval_s * 1000),
            response_size_max=config.max_request_bytes + 512 * 1024,
        ),
        applier=applier,
        members=members,
        alarms=alarms,
        standing=standing,
        damage=state.damage,
        flusher=runtime.flusher,
        pieces=runtime.pieces,
        ids=RequestIds(data.identity.member_id, runtime.unix_ms()),
        snapshot_files=opened.snapshot_files,
        snapshot_folder=data.snapshot_folder,
        fail_stop=fail_stop,
        look_at_disks=look_at_disks,
        # With a status of its own (etcd's is 0), so that a supervisor does not start it again.
        on_removed=partial(leave_with_status, runtime.reactor, EXIT_REMOVED),
        ask_versions=line.ask_versions,
        ask_hashes=line.ask_hashes,
        check_intervals=check_intervals(config),
        auto_compaction=auto_compaction(config),
        quota=quota_rules(config),
        ask_programs=line.ask_programs,
        identify=users.guard,
        unix_ms=runtime.unix_ms,
    )
    return build_node(clock, own_config, parts), line, users


def _raw(config: Config, data: Data, randomness: random.Random) -> RawNode:
    return RawNode(
        RaftConfig(
            id=data.identity.member_id,
            election_ticks=config.election_timeout_ticks,
            heartbeat_ticks=1,
            storage=data.log,
            random=randomness,
            applied=data.state.applied_index,
            # The log may be compacted past the entries that made the configuration.
            conf_state=stored_conf_state(data.state),
            max_committed_size_per_ready=COMMITTED_SIZE_PER_READY_MAX,
            pre_vote=config.pre_vote,
        )
    )


def check_intervals(config: Config) -> CheckIntervals:
    """Return how often members are compared."""
    compactions_s = config.compact_hash_check_time_s
    return CheckIntervals(
        compactions_ms=int(compactions_s * 1000) if config.feature_gates["CompactHashCheck"] else 0,
        cut_ms=int(config.corrupt_check_time_s * 1000),
    )


def node_config(config: Config, identity: Identity) -> NodeConfig:
    """Return what of the configuration the node itself uses."""
    return NodeConfig(
        cluster_id=identity.cluster_id,
        member_id=identity.member_id,
        heartbeat_ms=config.heartbeat_interval_ms,
        election_ticks=config.election_timeout_ticks,
        request_bytes_max=config.max_request_bytes,
        snapshot_count=config.snapshot_count,
        catchup_entries=config.snapshot_catchup_entries,
        max_learners=config.max_learners,
        warning_apply_s=config.warning_apply_duration_s,
        warning_request_s=config.warning_unary_request_duration_s,
        tells_all_requests=config.logging.level == "debug",
        prefers_revokes=config.feature_gates["PriorityRequest"],
        downgrade_check_ms=int(config.downgrade_check_time_s * 1000),
    )


def auto_compaction(config: Config) -> AutoCompaction | None:
    """Return what the flags ask for, None for nothing."""
    if config.auto_compaction_mode == REVISION_MODE and config.auto_compaction_revisions:
        return RevisionCompaction(config.auto_compaction_revisions)
    if config.auto_compaction_mode == PERIODIC_MODE and config.auto_compaction_period_s:
        return PeriodicCompaction(int(config.auto_compaction_period_s * 1000))
    return None


def quota_rules(config: Config) -> QuotaRules:
    """Return how much space there is, and what is done about it unasked."""
    return QuotaRules(
        limit_bytes=config.quota_backend_bytes,
        counts_allocated=config.quota.counts_allocated,
        disarms=config.quota.auto_disarm,
        compact_after_ms=int(config.quota.auto_compaction_s * 1000),
    )


def lease_ttl_min_s(election_timeout_ms: int) -> int:
    """Return the shortest lease: one and a half election timeouts, in whole seconds up."""
    return -(-election_timeout_ms * 3 // 2000)


def checkpoint_interval_ms(gates: FeatureGates) -> int:
    """Return how often what is left of a lease is replicated; without the gate never."""
    return CHECKPOINT_INTERVAL_MS if gates["LeaseCheckpoint"] else NEVER_MS


def _services(
    runtime: Runtime, config: Config, node: Node, line: LeaderLine, users: Users
) -> Services:
    """Return every RPC that this member answers; ``line``: the way to the leader."""
    guard = users.guard
    methods = MethodTable(Screening(node, Admission(node, guard)))
    store = node.store
    quota = node.duties.quota
    election_timeout_s = config.election_timeout_ms / 1000
    reads = ReadQueue(
        node.clock,
        activity=lambda: store.revision + store.ranges_total,
        is_turn_due=lambda: node.wakeup.is_awake,
    )
    KvService(
        node,
        quota=quota,
        txn_ops_max=config.max_txn_ops,
        request_bytes_max=config.max_request_bytes,
        durations=node.durations,
        request_stats=node.request_stats,
        reads=reads,
        check_read=guard,
    ).register(methods)
    WatchService(node, election_timeout_s, guard, users.watch_rights(node, config)).register(
        methods
    )
    users.service(node).register(methods)
    leases = LeaseService(
        node,
        runtime.randomness.getrandbits,
        election_timeout_s,
        quota=quota,
        line=line,
        reads=reads,
        guard=guard,
    )
    leases.register(methods)
    cluster = ClusterService(
        node,
        unix_s=runtime.unix_s,
        is_strict=config.strict_reconfig_check,
        line=line,
        guard=guard,
    )
    cluster.register(methods)
    maintenance = MaintenanceService(node, config.quota_backend_bytes or 0, guard)
    maintenance.register(methods)
    snapshots = SnapshotService(node, runtime.offload)
    snapshots.register(methods)
    DowngradeService(node).register(methods)
    health = HealthService()
    health.register(methods)
    if config.feature_gates["StopGRPCServiceOnDefrag"]:
        maintenance.on_defragment = health.set_serving
    # Counted apart: what a lock asks of its own member is no client's call.
    arena = Arena(Loopback(methods, ServerStats(), runtime.clock), runtime.clock)
    LockService(arena).register(methods)
    ElectionService(arena, node, election_timeout_s).register(methods)
    return Services(
        methods=methods,
        maintenance=maintenance,
        snapshots=snapshots,
        cluster=cluster,
        leases_for_peers=LeasesForPeers(node, leases.looks),
        guard=guard,
    )
