"""Where each metric's number is read: etcd's name -> the plain number of a core.

Everything here runs when somebody scrapes, nothing on the path of a request.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Mapping
from typing import Final

from etcdtw.apply.alarms import alarm_name
from etcdtw.cluster.ids import id_text
from etcdtw.config.config import Config
from etcdtw.config.feature_gates import GATES, FeatureGates
from etcdtw.gateway.health import HealthCounts
from etcdtw.grpc.call import INTERNAL, RESOURCE_EXHAUSTED, UNARY
from etcdtw.grpc.stats import ServerStats
from etcdtw.lease.lessor import Lessor
from etcdtw.node.duties.lease_expiry import LeaseExpiry
from etcdtw.node.duties.space import SpaceDuty
from etcdtw.node.intake.durations import Durations
from etcdtw.node.node import Node
from etcdtw.rpc.cluster.service import ClusterService
from etcdtw.rpc.screening import UNKNOWN_VERSION
from etcdtw.server.doors.certificate_watch import CertificateWatch
from etcdtw.server.member.opened import OpenMember, Services
from etcdtw.server.metrics.metrics import Source
from etcdtw.server.metrics.peers import peer_sources
from etcdtw.storage.disk.room import DiskRoom
from etcdtw.storage.integrity.damage import StateDamage
from etcdtw.storage.log.journal_writer import JournalWriter
from etcdtw.storage.state.stats import StateStats
from etcdtw.transport.peer.network import PeerNetwork
from etcdtw.transport.peer_port.snapshot_in import SnapshotSaves
from etcdtw.wire.histogram import Histogram
from etcdtw.wire.pieces import Pieces

STREAM_APIS: Final = {
    "/etcdserverpb.Watch/Watch": "watch",
    "/etcdserverpb.Lease/LeaseKeepAlive": "lease-keepalive",
}
RECEIVE_FAILURES: Final = (INTERNAL, RESOURCE_EXHAUSTED)
"""How a stream ends that the client filled with nonsense or with too much.  There are no
failures to send: a client that does not read is waited for, one that is gone has ended."""
OPEN_FILES: Final = "/proc/self/fd"


def member_sources(
    member: OpenMember,
    config: Config,
    calls: ServerStats,
    health: HealthCounts,
    certificates: CertificateWatch,
    network: PeerNetwork,
    pieces: Pieces,
) -> Mapping[str, Source]:
    """Return the sources of all metrics of one member."""
    node, data, duties = member.node, member.data, member.node.duties
    return {
        **peer_sources(node, network),
        **_cluster_sources(member.services.cluster),
        **_node_sources(node, config.quota_backend_bytes or 0),
        **disk_sources(data.log_writer, data.state.stats),
        **_duration_sources(node.durations),
        **_snapshot_sources(data.saves),
        "etcd_mvcc_db_open_read_transactions": data.state.stats.open_reads,
        **_room_sources(member.room, duties.space),
        **_damage_sources(data.state.damage),
        "etcdtw_snapshots_refused_for_room_total": lambda: data.reception_room.refused_total,
        **_maintenance_sources(member.services),
        "etcd_debugging_auth_revision": lambda: member.services.guard.store.revision,
        "etcd_mvcc_hash_rev_duration_seconds": lambda: node.hashes.duration_s,
        "etcdtw_quota_alarms_cleared_total": lambda: duties.quota.cleared_total,
        "etcdtw_quota_alarms_raised_total": lambda: duties.quota.raised_total,
        "etcdtw_quota_compactions_total": lambda: duties.quota_compaction.done_total,
        "etcdtw_corruption_checks_total": lambda: {**duties.corruption.results},
        **_feature_sources(config.feature_gates),
        **piece_sources(pieces),
        **_store_sources(node),
        **_lease_sources(node.lessor, duties.lease_expiry),
        **call_sources(calls),
        "etcdtw_tls_certificate_expiry_seconds": lambda: {**certificates.readings()},
        "etcd_server_health_success": lambda: health.successes,
        "etcd_server_health_failures": lambda: health.failures,
        "etcd_server_healthcheck": lambda: {**health.last},
        "etcd_server_healthchecks_total": lambda: {**health.checks},
        "os_fd_limit": lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "os_fd_used": lambda: len(os.listdir(OPEN_FILES)),
    }


def _node_sources(node: Node, quota_bytes: int) -> dict[str, Source]:
    def alarms() -> dict[tuple[str, ...], int]:
        return {
            (id_text(member_id), alarm_name(alarm)): 1 for member_id, alarm in node.alarms.active()
        }

    return {
        "etcd_cluster_version": lambda: {(_line(node.members.cluster_version),): 1},
        "etcd_server_id": lambda: {(id_text(node.member_id),): 1},
        "etcd_server_version": lambda: {(node.members.server_version,): 1},
        "etcd_server_go_version": lambda: {(f"python{platform.python_version()}",): 1},
        "etcd_server_has_leader": lambda: int(node.leader_id != 0),
        "etcd_server_is_leader": lambda: int(node.is_leader),
        "etcd_server_is_learner": lambda: int(node.is_learner),
        "etcd_server_leader_changes_seen_total": lambda: node.leadership.changes_total,
        "etcd_server_proposals_applied_total": lambda: node.applied_index,
        "etcd_server_proposals_committed_total": lambda: node.commit_index,
        "etcd_server_proposals_failed_total": lambda: node.proposals_failed_total,
        "etcd_server_proposals_pending": lambda: node.proposals_pending,
        "etcd_server_quota_backend_bytes": lambda: quota_bytes,
        "etcd_server_read_indexes_failed_total": lambda: node.reads.failed_total,
        "etcd_server_slow_read_indexes_total": lambda: node.reads.slow_total,
        "etcd_server_slow_apply_total": lambda: node.slowness.slow_applies_total,
        "etcd_server_heartbeat_send_failures_total": lambda: node.ticks.late_heartbeats_total,
        "etcd_server_snapshot_apply_in_progress_total": lambda: node.snapshots.installing,
        "etcd_debugging_server_alarms": alarms,
    }


def disk_sources(log_writer: JournalWriter, stats: StateStats) -> dict[str, Source]:
    """Return the sources of what the two writers did."""
    return {
        "etcd_disk_wal_fsync_duration_seconds": lambda: log_writer.commit_s,
        # A write and its sync are one call here.
        "etcd_disk_wal_write_duration_seconds": lambda: log_writer.commit_s,
        "etcd_disk_wal_write_bytes_total": lambda: log_writer.octets_total,
        "etcd_disk_backend_commit_duration_seconds": lambda: stats.commit_s,
        "etcd_debugging_disk_backend_commit_write_duration_seconds": lambda: stats.commit_s,
        "etcd_debugging_mvcc_db_compaction_keys_total": lambda: stats.compacted_rows_total,
        "etcd_debugging_mvcc_db_compaction_last": lambda: stats.compacted_unix_s,
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds": (
            lambda: stats.compaction_step_ms
        ),
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds": (
            lambda: stats.compaction_ms
        ),
    }


def _damage_sources(damage: StateDamage) -> dict[str, Source]:
    return {
        "etcdtw_state_damaged": lambda: int(bool(damage.proved)),
        "etcdtw_state_damaged_rows_total": lambda: damage.rows_total,
        "etcdtw_state_mended_rows_total": lambda: damage.mended_total,
        "etcdtw_state_sweeps_total": lambda: damage.sweeps_total,
    }


def _duration_sources(durations: Durations) -> dict[str, Source]:
    def ranges() -> dict[tuple[str, ...], Histogram]:
        durations.settle()
        return {**durations.range_s}

    def requests() -> dict[tuple[str, ...], Histogram]:
        durations.settle()
        return durations.request_s

    return {
        "etcd_server_apply_duration_seconds": lambda: durations.apply_s,
        "etcd_server_range_duration_seconds": ranges,
        "etcd_server_request_duration_seconds": requests,
    }


def _snapshot_sources(saves: SnapshotSaves) -> dict[str, Source]:
    return {
        "etcd_snap_db_fsync_duration_seconds": lambda: saves.fsync_s,
        "etcd_snap_db_save_total_duration_seconds": lambda: saves.save_s,
    }


def _room_sources(room: DiskRoom, space: SpaceDuty) -> dict[str, Source]:
    return {
        "etcdtw_disk_free_bytes": lambda: {(one[0],): one[1] for one in room.facts()},
        "etcdtw_disk_reserve_bytes": lambda: {(one[0],): one[2] for one in room.facts()},
        "etcdtw_disk_short": lambda: {(one[0],): int(one[3]) for one in room.facts()},
        "etcdtw_disk_shortages_total": lambda: space.shortages_total,
    }


def piece_sources(pieces: Pieces) -> dict[str, Source]:
    """Return the sources of what the reactor was busy with; kinds that never came are left out."""

    def met(found: Mapping[str, Histogram]) -> dict[tuple[str, ...], Histogram]:
        return {(kind,): histogram for kind, histogram in found.items() if histogram.total}

    return {
        "etcdtw_piece_cpu_seconds": lambda: {**met(pieces.cpu_s)},
        "etcdtw_piece_cpu_seconds_max": lambda: {
            (kind,): ns / 1e9 for kind, ns in pieces.greatest_ns.items() if ns
        },
        "etcdtw_piece_wall_seconds": lambda: {**met(pieces.wall_s)},
    }


def _maintenance_sources(services: Services) -> dict[str, Source]:
    maintenance, snapshots = services.maintenance, services.snapshots
    return {
        "etcd_disk_backend_snapshot_duration_seconds": lambda: snapshots.snapshot_s,
        "etcd_mvcc_hash_duration_seconds": lambda: maintenance.hash_s,
        "etcd_disk_backend_defrag_duration_seconds": lambda: maintenance.defragment_s,
        "etcd_disk_defrag_inflight": lambda: maintenance.defragments_pending,
    }


def _cluster_sources(cluster: ClusterService) -> dict[str, Source]:
    def failures() -> dict[tuple[str, ...], int]:
        return {(reason,): count for reason, count in cluster.failed_promotions.items()}

    return {
        "etcd_server_learner_promote_successes": lambda: cluster.promotions_total,
        "etcd_server_learner_promote_failures": failures,
    }


def _feature_sources(gates: FeatureGates) -> dict[str, Source]:
    values: dict[tuple[str, ...], int] = {
        (name, GATES[name].stage): int(is_open) for name, is_open in gates.items()
    }
    return {"etcd_server_feature_enabled": lambda: values}


def _line(cluster_version: str) -> str:
    return cluster_version.rpartition(".")[0] or "not_decided"


def _store_sources(node: Node) -> dict[str, Source]:
    store, hub, state = node.store, node.hub, node.storage
    return {
        "etcd_debugging_mvcc_current_revision": lambda: store.revision,
        "etcd_debugging_mvcc_compact_revision": lambda: store.compact_revision,
        "etcd_debugging_mvcc_keys_total": lambda: state.count(b"\x00", None),
        "etcd_debugging_mvcc_events_total": lambda: hub.events_total,
        "etcd_debugging_mvcc_pending_events_total": lambda: hub.pending_events,
        "etcd_debugging_mvcc_slow_watcher_total": lambda: hub.slow_watchers,
        "etcd_debugging_mvcc_watch_stream_total": lambda: hub.streams,
        "etcd_debugging_mvcc_watcher_total": lambda: hub.watchers,
        "etcd_debugging_mvcc_total_put_size_in_bytes": lambda: store.put_octets_total,
        "etcd_mvcc_put_total": lambda: store.puts_total,
        "etcd_mvcc_delete_total": lambda: store.deletes_total,
        "etcd_mvcc_range_total": lambda: store.ranges_total,
        "etcd_mvcc_txn_total": lambda: store.txns_total,
        "etcd_mvcc_db_total_size_in_bytes": lambda: state.size_allocated,
        "etcd_mvcc_db_total_size_in_use_in_bytes": lambda: state.size_in_use,
    }


def _lease_sources(lessor: Lessor, expiry: LeaseExpiry) -> dict[str, Source]:
    return {
        "etcd_debugging_lease_ttl_total": lambda: lessor.granted_ttls_s,
        "etcd_debugging_server_lease_expired_total": lambda: expiry.expired_total,
        "etcd_debugging_lease_granted_total": lambda: lessor.granted_total,
        "etcd_debugging_lease_renewed_total": lambda: lessor.renewed_total,
        "etcd_debugging_lease_revoked_total": lambda: lessor.revoked_total,
    }


def call_sources(calls: ServerStats) -> dict[str, Source]:
    """Return the sources of what the gRPC servers counted."""

    def requests() -> dict[tuple[str, ...], int]:
        found: dict[tuple[str, ...], int] = {}
        for (kind, version), count in calls.started_by_label().items():
            key = ("unary" if kind == UNARY else "stream", version or UNKNOWN_VERSION)
            found[key] = found.get(key, 0) + count
        return found

    def failures() -> dict[tuple[str, ...], int]:
        counted = {stats.path: stats.handled for stats in calls.methods()}
        found: dict[tuple[str, ...], int] = {}
        for path, api in STREAM_APIS.items():
            handled = counted.get(path, ())
            failed = sum(count for code, count in enumerate(handled) if code in RECEIVE_FAILURES)
            found["receive", api] = failed
        return found

    return {
        "etcd_network_client_grpc_received_bytes_total": lambda: sum(
            stats.received_octets for stats in calls.methods()
        ),
        "etcd_network_client_grpc_sent_bytes_total": lambda: sum(
            stats.sent_octets for stats in calls.methods()
        ),
        "etcd_server_client_requests_total": requests,
        "etcd_network_server_stream_failures_total": failures,
    }
