"""How long entries, requests and reads took, under etcd's names; plain numbers to be scraped.

Counted by the slice: what was applied, or read, together took the same part of its time each.
So a request costs a few additions, the sums are exact, and the buckets nearly so.
Source: etcd 3.7.3's ``etcd_server_{apply,request,range}_duration_seconds``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from etcdtw.apply import auth_entries as auth
from etcdtw.apply.applier import (
    FIELD_ALARM,
    FIELD_CLUSTER_VERSION_SET,
    FIELD_COMPACTION,
    FIELD_DELETE_RANGE,
    FIELD_DOWNGRADE_INFO_SET,
    FIELD_LEASE_CHECKPOINT,
    FIELD_LEASE_GRANT,
    FIELD_LEASE_REVOKE,
    FIELD_MEMBER_ATTR_SET,
    FIELD_PUT,
    FIELD_TXN,
)
from etcdtw.node.intake.requests import Waiter
from etcdtw.wire.histogram import Histogram, exponential_bounds

APPLY_BOUNDS_S: Final = exponential_bounds(0.0001, 20)
REQUEST_BOUNDS_S: Final = exponential_bounds(0.001, 14)
LOCAL_RANGES_MAX: Final = 64
"""Ranges that are added up before they are counted."""
TRUE: Final = "true"
FALSE: Final = "false"
VERSION: Final = "v3"
UNKNOWN: Final = "unknown"
RANGE: Final = 3
"""Of InternalRaftRequest; no entry of ours has it."""
READONLY_TXN: Final = 0
RANGE_FAILED: Final = -1
TYPES: Final = {
    RANGE: "Range",
    READONLY_TXN: "ReadonlyTxn",
    FIELD_PUT: "Put",
    FIELD_DELETE_RANGE: "DeleteRange",
    FIELD_TXN: "Txn",
    FIELD_COMPACTION: "Compaction",
    FIELD_LEASE_GRANT: "LeaseGrant",
    FIELD_LEASE_REVOKE: "LeaseRevoke",
    FIELD_ALARM: "Alarm",
    FIELD_LEASE_CHECKPOINT: "LeaseCheckpoint",
    FIELD_CLUSTER_VERSION_SET: "ClusterVersionSet",
    FIELD_MEMBER_ATTR_SET: "ClusterMemberAttrSet",
    FIELD_DOWNGRADE_INFO_SET: "DowngradeInfoSet",
    auth.FIELD_AUTH_ENABLE: "AuthEnable",
    auth.FIELD_AUTH_DISABLE: "AuthDisable",
    auth.FIELD_AUTHENTICATE: "Authenticate",
    auth.FIELD_USER_ADD: "AuthUserAdd",
    auth.FIELD_USER_DELETE: "AuthUserDelete",
    auth.FIELD_USER_CHANGE_PASSWORD: "AuthUserChangePassword",
    auth.FIELD_USER_GRANT_ROLE: "AuthUserGrantRole",
    auth.FIELD_USER_REVOKE_ROLE: "AuthUserRevokeRole",
    auth.FIELD_ROLE_ADD: "AuthRoleAdd",
    auth.FIELD_ROLE_DELETE: "AuthRoleDelete",
    auth.FIELD_ROLE_GRANT_PERMISSION: "AuthRoleGrantPermission",
    auth.FIELD_ROLE_REVOKE_PERMISSION: "AuthRoleRevokePermission",
}
"""etcd's words for fields of InternalRaftRequest."""


class Durations:
    """The histograms of one member."""

    __slots__ = (
        "_applied", "_failed", "_local_count", "_local_s", "_requests", "_unanswered", "range_s",
        "ranges",
    )  # fmt: skip

    def __init__(self) -> None:
        # By field; labels are put together when somebody scrapes.
        self._applied: dict[int, Histogram] = {}
        self._failed: dict[int, Histogram] = {}
        self._requests: dict[int, Histogram] = {}
        self._unanswered: dict[int, Histogram] = {}
        self.range_s: dict[tuple[str, ...], Histogram] = {}
        """By success."""
        self.ranges = 0
        """Small linearizable ones; the service counts, `read` tells how long they took."""
        self._local_count = 0
        self._local_s = 0.0

    @property
    def apply_s(self) -> dict[tuple[str, ...], Histogram]:
        """By version, op and success."""
        return {
            (VERSION, TYPES.get(field, UNKNOWN), success): found
            for success, histograms in ((FALSE, self._failed), (TRUE, self._applied))
            for field, found in histograms.items()
        }

    @property
    def request_s(self) -> dict[tuple[str, ...], Histogram]:
        """By type and success."""
        return {
            (TYPES.get(field, UNKNOWN), success): found
            for success, histograms in ((FALSE, self._unanswered), (TRUE, self._requests))
            for field, found in histograms.items()
        }

    def applied(self, counts: dict[int, int], failed: dict[int, int], took_s: float) -> None:
        """Entries were applied together, by field; ``failed`` of them with an error."""
        mean_s = took_s / sum(counts.values())
        for field, count in counts.items():
            lost = 0
            if failed and field in failed:
                lost = failed[field]
                _of(self._failed, field, APPLY_BOUNDS_S).observe_many(mean_s, lost)
            if count > lost:
                _of(self._applied, field, APPLY_BOUNDS_S).observe_many(mean_s, count - lost)

    def answered(self, waiters: Sequence[Waiter], now_ms: int) -> None:
        """Requests of this member were applied; etcd takes one with an error for a success."""
        field, started_ms, count = waiters[0].field, waiters[0].started_ms, 0
        for waiter in waiters:
            if waiter.started_ms != started_ms or waiter.field != field:
                self._request(self._requests, field, now_ms - started_ms, count)
                field, started_ms, count = waiter.field, waiter.started_ms, 0
            count += 1
        self._request(self._requests, field, now_ms - started_ms, count)

    def unanswered(self, waiter: Waiter, now_ms: int) -> None:
        """A request was dropped, or waited for too long."""
        self._request(self._unanswered, waiter.field, now_ms - waiter.started_ms, 1)

    def _request(
        self, histograms: dict[int, Histogram], field: int, took_ms: int, count: int
    ) -> None:
        _of(histograms, field, REQUEST_BOUNDS_S).observe_many(max(0, took_ms) / 1000, count)

    def read(self, ranges: int, took_s: float, waited_s: float) -> None:
        """``ranges`` linearizable ones took ``took_s`` together, and had waited ``waited_s``."""
        self._range(TRUE).observe_many(took_s / ranges, ranges)
        whole_s = (waited_s + took_s) / ranges
        _of(self._requests, RANGE, REQUEST_BOUNDS_S).observe_many(whole_s, ranges)

    def read_locally(self, took_s: float) -> None:
        """A range was read that is answered by itself: a serializable one, or a large one."""
        self._local_s += took_s
        self._local_count += 1
        if self._local_count >= LOCAL_RANGES_MAX:
            self.settle()

    def read_apart(self, kind: int, took_s: float) -> None:
        """As `read_locally`, for a read of any kind: also a refused one, or a txn."""
        if kind == RANGE:
            self.read_locally(took_s)
        elif kind == RANGE_FAILED:
            self._range(FALSE).observe(took_s)
            _of(self._unanswered, RANGE, REQUEST_BOUNDS_S).observe(took_s)
        else:
            _of(self._requests, kind, REQUEST_BOUNDS_S).observe(took_s)

    def settle(self) -> None:
        """Count what was only added up."""
        count, self._local_count = self._local_count, 0
        took_s, self._local_s = self._local_s, 0.0
        if count:
            mean_s = took_s / count
            self._range(TRUE).observe_many(mean_s, count)
            _of(self._requests, RANGE, REQUEST_BOUNDS_S).observe_many(mean_s, count)

    def _range(self, success: str) -> Histogram:
        found = self.range_s.get((success,))
        if found is None:
            found = self.range_s[success,] = Histogram(APPLY_BOUNDS_S)
        return found


def _of(histograms: dict[int, Histogram], field: int, bounds: tuple[float, ...]) -> Histogram:
    found = histograms.get(field)
    if found is None:
        found = histograms[field] = Histogram(bounds)
    return found
