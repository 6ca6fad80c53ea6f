"""What the leader's node proposes about leases at a tick: revokes and checkpoints.

Knows no consensus: it says what to propose, and bounds how much.
"""

from __future__ import annotations

from typing import Final

from etcdtw.lease.lessor import Lessor

SCAN_INTERVAL_MS: Final = 500
EXPIRIES_PER_SCAN_MAX: Final = 500
CHECKPOINTS_PER_SCAN_MAX: Final = 1000
"""They travel in one LeaseCheckpoint entry."""


class ExpiryScan:
    """Looks at a `Lessor` twice a second.  One per node."""

    def __init__(self, lessor: Lessor) -> None:
        self._lessor = lessor
        self._next_scan_ms = 0

    def due(self, now_ms: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Advance the lessor's time; return what to propose now.

        Returns the ids to revoke, each an entry of its own, and the (lease_id,
        remaining_ttl_s) pairs of one checkpoint entry.  Both are empty between scans and
        on a member that does not lead.
        """
        lessor = self._lessor
        lessor.advance(now_ms)
        if now_ms < self._next_scan_ms or not lessor.is_primary:
            return [], []
        expired = lessor.expired(EXPIRIES_PER_SCAN_MAX)
        checkpoints = lessor.due_checkpoints(CHECKPOINTS_PER_SCAN_MAX)
        is_limited = (
            len(expired) == EXPIRIES_PER_SCAN_MAX or len(checkpoints) == CHECKPOINTS_PER_SCAN_MAX
        )
        # Where only leases were met that had been renewed, the next tick goes on.
        if is_limited or not lessor.has_due:
            self._next_scan_ms = now_ms + SCAN_INTERVAL_MS
        return expired, checkpoints
