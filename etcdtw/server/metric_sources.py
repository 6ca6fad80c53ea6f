"""Where each metric's number is read: etcd's name -> the plain number of a core.

Everything here runs when somebody scrapes, nothing on the path of a request.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Mapping
from typing import Final

from etcdtw.apply.alarms import NAMES as ALARM_NAMES
from etcdtw.cluster.ids import id_text
from etcdtw.gateway.health import HealthCounts
from etcdtw.grpc.call import UNARY
from etcdtw.grpc.stats import ServerStats
from etcdtw.node.node import Node
from etcdtw.rpc.screening import UNKNOWN_VERSION
from etcdtw.server.metrics import Source

OPEN_FILES: Final = "/proc/self/fd"


def member_sources(
    node: Node,
    server_version: str,
    quota_bytes: int,
    calls: ServerStats,
    health: HealthCounts,
) -> Mapping[str, Source]:
    """Return the sources of one member's own metrics."""
    return {
        **_node_sources(node, server_version, quota_bytes),
        **_store_sources(node),
        **_lease_sources(node),
        **call_sources(calls),
        "etcd_server_health_success": lambda: health.successes,
        "etcd_server_health_failures": lambda: health.failures,
        "etcd_server_healthcheck": lambda: {**health.last},
        "etcd_server_healthchecks_total": lambda: {**health.checks},
        "os_fd_limit": lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "os_fd_used": lambda: len(os.listdir(OPEN_FILES)),
    }


def _node_sources(node: Node, server_version: str, quota_bytes: int) -> dict[str, Source]:
    def alarms() -> dict[tuple[str, ...], int]:
        return {
            (id_text(member_id), ALARM_NAMES[alarm]): 1 for member_id, alarm in node.alarms.active()
        }

    return {
        "etcd_cluster_version": lambda: {(_line(node.members.cluster_version),): 1},
        "etcd_server_id": lambda: {(id_text(node.member_id),): 1},
        "etcd_server_version": lambda: {(server_version,): 1},
        "etcd_server_go_version": lambda: {(f"python{platform.python_version()}",): 1},
        "etcd_server_has_leader": lambda: int(node.leader_id != 0),
        "etcd_server_is_leader": lambda: int(node.is_leader),
        "etcd_server_is_learner": lambda: 0,
        "etcd_server_leader_changes_seen_total": lambda: node.leader_changes_total,
        "etcd_server_proposals_applied_total": lambda: node.applied_index,
        "etcd_server_proposals_committed_total": lambda: node.commit_index,
        "etcd_server_proposals_failed_total": lambda: node.proposals_failed_total,
        "etcd_server_proposals_pending": lambda: node.proposals_pending,
        "etcd_server_quota_backend_bytes": lambda: quota_bytes,
        "etcd_server_read_indexes_failed_total": lambda: node.reads.failed_total,
        "etcd_server_slow_read_indexes_total": lambda: node.reads.slow_total,
        "etcd_debugging_server_alarms": alarms,
    }


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
        "etcd_mvcc_db_total_size_in_bytes": lambda: state.size_allocated,
        "etcd_mvcc_db_total_size_in_use_in_bytes": lambda: state.size_in_use,
    }


def _lease_sources(node: Node) -> dict[str, Source]:
    lessor = node.lessor
    return {
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

    return {
        "etcd_network_client_grpc_received_bytes_total": lambda: sum(
            stats.received_octets for stats in calls.methods()
        ),
        "etcd_network_client_grpc_sent_bytes_total": lambda: sum(
            stats.sent_octets for stats in calls.methods()
        ),
        "etcd_server_client_requests_total": requests,
    }
