"""Every metric that a member shows: name, type, labels and buckets as etcd has them.

Dashboards and alerts know these names; several gauges end in ``_total`` and several counters
do not, and that stays so.  What only etcd's own engine has is not in the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from etcdtw.wire.histogram import exponential_bounds
from etcdtw.wire.pieces import PIECE_BOUNDS_S

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"


@dataclass(frozen=True)
class Series:
    """One metric.  ``bounds``: upper bounds of a histogram's buckets."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


def _snapshot_rows(way: str, label: str, what: str) -> tuple[Series, ...]:
    prefix = f"etcd_network_snapshot_{way}"
    labels = (label,)
    return (
        Series(f"{prefix}_failures", COUNTER, f"{what} that failed.", labels),
        Series(f"{prefix}_inflights_total", GAUGE, f"{what} under way.", labels),
        Series(f"{prefix}_success", COUNTER, f"{what} that arrived.", labels),
        Series(
            f"{prefix}_total_duration_seconds",
            HISTOGRAM,
            f"{what}: time of those that arrived.",
            labels,
            exponential_bounds(0.1, 10),
        ),
    )


_ROWS: Final = (
    Series(
        "etcd_cluster_version",
        GAUGE,
        "Always 1; the label is the version of the cluster.",
        labels=("cluster_version",),
    ),
    Series("etcd_debugging_auth_revision", GAUGE, "Revision of users and roles."),
    Series("etcd_debugging_lease_granted_total", COUNTER, "Leases granted."),
    Series("etcd_debugging_lease_renewed_total", COUNTER, "Leases renewed while this member led."),
    Series("etcd_debugging_lease_revoked_total", COUNTER, "Leases revoked."),
    Series(
        "etcd_debugging_lease_ttl_total",
        HISTOGRAM,
        "Granted TTLs in seconds.",
        bounds=exponential_bounds(1, 24),
    ),
    Series(
        "etcd_debugging_mvcc_compact_revision",
        GAUGE,
        "Revision of the last compaction, -1 before the first.",
    ),
    Series("etcd_debugging_mvcc_current_revision", GAUGE, "Revision of the store."),
    Series(
        "etcd_debugging_mvcc_db_compaction_keys_total",
        COUNTER,
        "Stored revisions that compactions deleted.",
    ),
    Series(
        "etcd_debugging_mvcc_db_compaction_last",
        GAUGE,
        "Unix time of the last compaction since the start.",
    ),
    Series(
        "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
        HISTOGRAM,
        "Time that one batch of a compaction held the writer.",
        bounds=exponential_bounds(1, 13),
    ),
    Series(
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
        HISTOGRAM,
        "Time that a compaction took.",
        bounds=exponential_bounds(100, 14),
    ),
    Series("etcd_debugging_mvcc_events_total", COUNTER, "Events sent to watchers."),
    Series("etcd_debugging_mvcc_keys_total", GAUGE, "Live keys."),
    Series("etcd_debugging_mvcc_pending_events_total", GAUGE, "Events that wait to be sent."),
    Series(
        "etcd_debugging_mvcc_slow_watcher_total", GAUGE, "Watchers that are behind the present."
    ),
    Series("etcd_debugging_mvcc_total_put_size_in_bytes", GAUGE, "Octets put since the start."),
    Series("etcd_debugging_mvcc_watch_stream_total", GAUGE, "Open watch streams."),
    Series("etcd_debugging_mvcc_watcher_total", GAUGE, "Watchers."),
    Series(
        "etcd_debugging_server_alarms",
        GAUGE,
        "1 for each raised alarm.",
        labels=("server_id", "alarm_type"),
    ),
    Series(
        "etcd_debugging_server_lease_expired_total",
        COUNTER,
        "Leases that expired while this member led.",
    ),
    Series(
        "etcd_disk_backend_commit_duration_seconds",
        HISTOGRAM,
        "Time of a commit of the state.",
        bounds=exponential_bounds(0.001, 14),
    ),
    Series(
        "etcd_debugging_disk_backend_commit_write_duration_seconds",
        HISTOGRAM,
        "Time of a commit of the state: all of it is writing here.",
        bounds=exponential_bounds(0.001, 14),
    ),
    Series(
        "etcd_disk_backend_defrag_duration_seconds",
        HISTOGRAM,
        "Time of a defragmentation.",
        bounds=exponential_bounds(0.1, 13),
    ),
    Series(
        "etcd_disk_backend_snapshot_duration_seconds",
        HISTOGRAM,
        "Time of streaming a snapshot.",
        bounds=exponential_bounds(0.01, 17),
    ),
    Series("etcd_disk_defrag_inflight", GAUGE, "1 while a defragmentation runs."),
    Series(
        "etcd_disk_wal_fsync_duration_seconds",
        HISTOGRAM,
        "Time of a durable commit of the log.",
        bounds=exponential_bounds(0.001, 14),
    ),
    Series("etcd_disk_wal_write_bytes_total", GAUGE, "Octets written to the log."),
    Series(
        "etcd_disk_wal_write_duration_seconds",
        HISTOGRAM,
        "Time of writing to the log.",
        bounds=exponential_bounds(0.001, 14),
    ),
    Series("etcd_mvcc_db_open_read_transactions", GAUGE, "Read transactions open on the state."),
    Series("etcd_mvcc_db_total_size_in_bytes", GAUGE, "Octets of the state's file."),
    Series(
        "etcd_mvcc_db_total_size_in_use_in_bytes",
        GAUGE,
        "Octets of the state's file that are in use.",
    ),
    Series("etcd_mvcc_delete_total", COUNTER, "Deletes."),
    Series(
        "etcd_mvcc_hash_duration_seconds",
        HISTOGRAM,
        "Time of a Hash.",
        bounds=exponential_bounds(0.01, 15),
    ),
    Series(
        "etcd_mvcc_hash_rev_duration_seconds",
        HISTOGRAM,
        "Time of a HashKV.",
        bounds=exponential_bounds(0.01, 15),
    ),
    Series("etcd_mvcc_put_total", COUNTER, "Puts."),
    Series("etcd_mvcc_range_total", COUNTER, "Ranges."),
    Series("etcd_mvcc_txn_total", COUNTER, "Transactions of more than one operation."),
    Series(
        "etcd_network_active_peers",
        GAUGE,
        "1 while messages flow to and from a peer.",
        labels=("Local", "Remote"),
    ),
    Series(
        "etcd_network_client_grpc_received_bytes_total", COUNTER, "Octets of messages from clients."
    ),
    Series("etcd_network_client_grpc_sent_bytes_total", COUNTER, "Octets of messages to clients."),
    Series(
        "etcd_network_disconnected_peers_total",
        COUNTER,
        "How often messages ceased to flow to or from a peer.",
        labels=("Local", "Remote"),
    ),
    Series(
        "etcd_network_known_peers",
        GAUGE,
        "1 for each member, 0 for those that were removed.",
        labels=("Local", "Remote"),
    ),
    Series(
        "etcd_network_peer_received_bytes_total",
        COUNTER,
        "Octets of messages and snapshots from a peer.",
        labels=("From",),
    ),
    Series(
        "etcd_network_peer_received_failures_total",
        COUNTER,
        "Messages of a peer that were not taken.",
        labels=("From",),
    ),
    Series(
        "etcd_network_peer_round_trip_time_seconds",
        HISTOGRAM,
        "Time of a probe of a peer.",
        labels=("To",),
        bounds=exponential_bounds(0.0001, 16),
    ),
    Series(
        "etcd_network_peer_sent_bytes_total",
        COUNTER,
        "Octets of messages and snapshots to a peer.",
        labels=("To",),
    ),
    Series(
        "etcd_network_peer_sent_failures_total",
        COUNTER,
        "Messages to a peer that were dropped or not taken.",
        labels=("To",),
    ),
    Series(
        "etcd_network_server_stream_failures_total",
        COUNTER,
        "Streams that failed on this server.",
        labels=("Type", "API"),
    ),
    *_snapshot_rows("receive", "From", "Snapshots from a peer"),
    *_snapshot_rows("send", "To", "Snapshots to a peer"),
    Series(
        "etcd_server_apply_duration_seconds",
        HISTOGRAM,
        "Time of applying an entry.",
        labels=("version", "op", "success"),
        bounds=exponential_bounds(0.0001, 20),
    ),
    Series(
        "etcd_server_client_requests_total",
        COUNTER,
        "Requests by the client API version they name.",
        labels=("type", "client_api_version"),
    ),
    Series(
        "etcd_server_feature_enabled",
        GAUGE,
        "Whether a feature gate is open.",
        labels=("name", "stage"),
    ),
    Series(
        "etcd_server_go_version",
        GAUGE,
        "Always 1; the label is the version of the runtime.",
        labels=("server_go_version",),
    ),
    Series("etcd_server_has_leader", GAUGE, "1 while a leader is known."),
    Series("etcd_server_health_failures", COUNTER, "Calls of /health that said no."),
    Series("etcd_server_health_success", COUNTER, "Calls of /health that said yes."),
    Series("etcd_server_healthcheck", GAUGE, "Last result of each check.", labels=("type", "name")),
    Series(
        "etcd_server_healthchecks_total",
        COUNTER,
        "Results of each check.",
        labels=("type", "name", "status"),
    ),
    Series(
        "etcd_server_heartbeat_send_failures_total",
        COUNTER,
        "Heartbeats that the leader sent late.",
    ),
    Series(
        "etcd_server_id", GAUGE, "Always 1; the label is this member's id.", labels=("server_id",)
    ),
    Series("etcd_server_is_leader", GAUGE, "1 while this member leads."),
    Series("etcd_server_is_learner", GAUGE, "1 while this member is a learner."),
    Series("etcd_server_leader_changes_seen_total", COUNTER, "Changes of the leader."),
    Series(
        "etcd_server_learner_promote_failures",
        COUNTER,
        "Promotions of learners that failed.",
        labels=("Reason",),
    ),
    Series("etcd_server_learner_promote_successes", COUNTER, "Promotions of learners."),
    Series("etcd_server_proposals_applied_total", GAUGE, "Index of the last applied entry."),
    Series("etcd_server_proposals_committed_total", GAUGE, "Index of the last committed entry."),
    Series("etcd_server_proposals_failed_total", COUNTER, "Proposals that failed."),
    Series("etcd_server_proposals_pending", GAUGE, "Proposals under way."),
    Series("etcd_server_quota_backend_bytes", GAUGE, "Octets that the data may use."),
    Series(
        "etcd_server_range_duration_seconds",
        HISTOGRAM,
        "Time of a range.",
        labels=("success",),
        bounds=exponential_bounds(0.0001, 20),
    ),
    Series(
        "etcd_server_read_indexes_failed_total", COUNTER, "Linearizable reads whose barrier failed."
    ),
    Series(
        "etcd_server_request_duration_seconds",
        HISTOGRAM,
        "Time of a request.",
        labels=("type", "success"),
        bounds=exponential_bounds(0.001, 14),
    ),
    Series(
        "etcd_server_slow_apply_total", COUNTER, "Applies slower than --warning-apply-duration."
    ),
    Series(
        "etcd_server_slow_read_indexes_total", COUNTER, "Linearizable reads whose barrier was slow."
    ),
    Series(
        "etcd_server_snapshot_apply_in_progress_total",
        GAUGE,
        "1 while a received snapshot is put in place.",
    ),
    Series(
        "etcd_server_version",
        GAUGE,
        "Always 1; the label is the version of the server.",
        labels=("server_version",),
    ),
    Series(
        "etcd_snap_db_fsync_duration_seconds",
        HISTOGRAM,
        "Time of making a received snapshot durable.",
        bounds=exponential_bounds(0.001, 14),
    ),
    Series(
        "etcd_snap_db_save_total_duration_seconds",
        HISTOGRAM,
        "Time of receiving a snapshot onto the disk.",
        bounds=exponential_bounds(0.1, 10),
    ),
    Series(
        "etcdtw_corruption_checks_total",
        COUNTER,
        "Comparisons of the members' keys, by what came of them (etcdtw's own).",
        labels=("check", "result"),
    ),
    Series(
        "etcdtw_disk_free_bytes",
        GAUGE,
        "Free space on the disks of the log and the state (etcdtw's own).",
        labels=("place",),
    ),
    Series(
        "etcdtw_disk_reserve_bytes",
        GAUGE,
        "What is allocated for the log and the state to grow into (etcdtw's own).",
        labels=("place",),
    ),
    Series(
        "etcdtw_disk_short",
        GAUGE,
        "Whether a disk has too little room for this member to take part (etcdtw's own).",
        labels=("place",),
    ),
    Series(
        "etcdtw_state_damaged",
        GAUGE,
        "Whether this member is out of service, as its state is damaged (etcdtw's own).",
    ),
    Series(
        "etcdtw_state_damaged_rows_total",
        COUNTER,
        "Damaged rows of the state that were read or swept (etcdtw's own).",
    ),
    Series(
        "etcdtw_state_mended_rows_total",
        COUNTER,
        "Damaged rows of the state that were made anew from a key's history (etcdtw's own).",
    ),
    Series(
        "etcdtw_state_sweeps_total",
        COUNTER,
        "Sweeps over the whole state that came to their end (etcdtw's own).",
    ),
    Series(
        "etcdtw_disk_shortages_total",
        COUNTER,
        "How often this member ran short of disk space (etcdtw's own).",
    ),
    Series(
        "etcdtw_piece_cpu_seconds",
        HISTOGRAM,
        "CPU time of pieces of work on the reactor's thread, by kind (etcdtw's own).",
        labels=("kind",),
        bounds=PIECE_BOUNDS_S,
    ),
    Series(
        "etcdtw_piece_cpu_seconds_max",
        GAUGE,
        "CPU time of the longest piece of each kind since the start (etcdtw's own).",
        labels=("kind",),
    ),
    Series(
        "etcdtw_piece_wall_seconds",
        HISTOGRAM,
        "Time that passed during pieces of work on the reactor's thread (etcdtw's own).",
        labels=("kind",),
        bounds=PIECE_BOUNDS_S,
    ),
    Series(
        "etcdtw_quota_alarms_cleared_total",
        COUNTER,
        "How often this member ended its NOSPACE alarm, as there was room (etcdtw's own).",
    ),
    Series(
        "etcdtw_quota_alarms_raised_total",
        COUNTER,
        "How often this member raised NOSPACE for its quota (etcdtw's own).",
    ),
    Series(
        "etcdtw_quota_compactions_total",
        COUNTER,
        "Compactions of old history that this member made for the quota (etcdtw's own).",
    ),
    Series(
        "etcdtw_snapshots_refused_for_room_total",
        COUNTER,
        "Snapshots from a peer that the free space did not admit (etcdtw's own).",
    ),
    Series(
        "etcdtw_tls_certificate_expiry_seconds",
        GAUGE,
        "Unix time at which the certificates of a file end (etcdtw's own).",
        labels=("file",),
    ),
    Series("os_fd_limit", GAUGE, "File descriptors that the process may have."),
    Series("os_fd_used", GAUGE, "File descriptors that the process has."),
)

SERIES: Final = {series.name: series for series in _ROWS}

_UNARY: Final = "unary"
_SERVER: Final = "server_stream"
_BIDI: Final = "bidi_stream"
_KINDS: Final = {
    "etcdserverpb.KV/RangeStream": _SERVER,
    "etcdserverpb.Watch/Watch": _BIDI,
    "etcdserverpb.Lease/LeaseKeepAlive": _BIDI,
    "etcdserverpb.Maintenance/Snapshot": _SERVER,
    "v3electionpb.Election/Observe": _SERVER,
    "grpc.health.v1.Health/Watch": _SERVER,
}
_METHODS: Final = {
    "etcdserverpb.KV": "Range RangeStream Put DeleteRange Txn Compact",
    "etcdserverpb.Watch": "Watch",
    "etcdserverpb.Lease": "LeaseGrant LeaseRevoke LeaseKeepAlive LeaseTimeToLive LeaseLeases",
    "etcdserverpb.Cluster": "MemberAdd MemberRemove MemberUpdate MemberList MemberPromote",
    "etcdserverpb.Maintenance": (
        "Alarm Status Defragment Hash HashKV Snapshot MoveLeader Downgrade"
    ),
    "etcdserverpb.Auth": (
        "AuthEnable AuthDisable AuthStatus Authenticate UserAdd UserGet UserList UserDelete "
        "UserChangePassword UserGrantRole UserRevokeRole RoleAdd RoleGet RoleList RoleDelete "
        "RoleGrantPermission RoleRevokePermission"
    ),
    "v3lockpb.Lock": "Lock Unlock",
    "v3electionpb.Election": "Campaign Proclaim Leader Observe Resign",
    "grpc.health.v1.Health": "Check List Watch",
}
GRPC_METHODS: Final = tuple(
    (_KINDS.get(f"{service}/{method}", _UNARY), service, method)
    for service, methods in _METHODS.items()
    for method in methods.split()
)
"""(grpc_type, grpc_service, grpc_method) of every call there is; all are shown from the start,
since dashboards subtract them from one another."""
