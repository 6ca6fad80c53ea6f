"""Metrics of parts of etcd that this program does not have: nothing happens there, so all are 0.

They are shown because panels and alerts that name them would find nothing, and say no more.
"""

from __future__ import annotations

from typing import Final

from etcdtw.server.metrics.table import COUNTER, GAUGE, HISTOGRAM, Series
from etcdtw.wire.histogram import exponential_bounds

_MILLISECOND_ON: Final = exponential_bounds(0.001, 14)
_ONE: Final[tuple[tuple[str, ...], ...]] = ((),)
_B_TREE: Final = "Always 0: LMDB has no such step."
_INDEX: Final = "Always 0: no index is kept in memory that would have to be compacted."
_SNAP: Final = "Always 0: Raft's snapshots are no files here."
_V2: Final = "Always 0: there is no v2 store."
_PROXY: Final = "Always 0: this is no proxy."

ABSENT: Final[tuple[tuple[Series, tuple[tuple[str, ...], ...]], ...]] = (
    *(
        (Series(name, HISTOGRAM, text, bounds=bounds), _ONE)
        for name, text, bounds in (
            (
                "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
                _B_TREE,
                _MILLISECOND_ON,
            ),
            ("etcd_debugging_disk_backend_commit_spill_duration_seconds", _B_TREE, _MILLISECOND_ON),
            (
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                _INDEX,
                exponential_bounds(0.5, 14),
            ),
            ("etcd_debugging_snap_save_marshalling_duration_seconds", _SNAP, _MILLISECOND_ON),
            ("etcd_debugging_snap_save_total_duration_seconds", _SNAP, _MILLISECOND_ON),
            ("etcd_snap_fsync_duration_seconds", _SNAP, _MILLISECOND_ON),
        )
    ),
    (Series("etcd_debugging_store_expires_total", COUNTER, _V2), _ONE),
    (
        Series("etcd_debugging_store_reads_total", COUNTER, _V2, ("action",)),
        (("getRecursive",),),
    ),
    (Series("etcd_debugging_store_watch_requests_total", COUNTER, _V2), _ONE),
    (Series("etcd_debugging_store_watchers", GAUGE, _V2), _ONE),
    (
        Series("etcd_debugging_store_writes_total", COUNTER, _V2, ("action",)),
        (("create",), ("set",)),
    ),
    (Series("etcd_grpc_proxy_cache_hits_total", GAUGE, _PROXY), _ONE),
    (Series("etcd_grpc_proxy_cache_keys_total", GAUGE, _PROXY), _ONE),
    (Series("etcd_grpc_proxy_cache_misses_total", GAUGE, _PROXY), _ONE),
    (Series("etcd_grpc_proxy_events_coalescing_total", COUNTER, _PROXY), _ONE),
    (Series("etcd_grpc_proxy_watchers_coalescing_total", GAUGE, _PROXY), _ONE),
)
"""Each with the label values that etcd shows."""
