"""What of a member's configuration its node uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from etcdtw.node.intake.inbox import (
    APPLY_GAP_MAX,
    PROPOSALS_MAX,
    QUEUED_OCTETS_MAX,
    InboxBounds,
)
from etcdtw.node.loop.long_apply import WORK_S

LOG_KEPT_OCTETS_MAX: Final = 64 << 20
"""Of the newest entries, as `LogStore.appended_octets` counts: the most that stays for others."""
LOG_KEPT_MS: Final = 30_000
"""After a snapshot went out its receiver needs the entries behind it (etcd's number)."""


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
    log_kept_octets_max: int = LOG_KEPT_OCTETS_MAX
    log_kept_ms: int = LOG_KEPT_MS
    warning_apply_s: float = 0.1
    warning_request_s: float = 0.3
    tells_all_requests: bool = False
    """Log each of them, at debug level."""
    proposals_max: int = PROPOSALS_MAX
    apply_gap_max: int = APPLY_GAP_MAX
    prefers_revokes: bool = False
    """Take ends of leases while apply lags twice as much as others may let it."""
    downgrade_check_ms: int = 5_000
    """How often a leader looks whether a downgrade is done; 0: never."""
    queued_octets_max: int = QUEUED_OCTETS_MAX
    long_work_s: float = WORK_S

    @property
    def election_timeout_ms(self) -> int:
        return self.heartbeat_ms * self.election_ticks

    @property
    def request_timeout_ms(self) -> int:
        """etcd's: five seconds and two elections."""
        return 5_000 + 2 * self.election_timeout_ms

    @property
    def inbox_bounds(self) -> InboxBounds:
        return InboxBounds(
            self.request_bytes_max,
            self.request_timeout_ms,
            self.election_timeout_ms,
            self.proposals_max,
            self.apply_gap_max,
            self.apply_gap_max * (2 if self.prefers_revokes else 1),
            self.queued_octets_max,
        )
