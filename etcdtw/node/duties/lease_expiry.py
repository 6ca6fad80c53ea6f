"""What a leader does about leases whose time is over, and about what is left of the others."""

from __future__ import annotations

from etcdtw.apply.applier import FIELD_LEASE_CHECKPOINT, FIELD_LEASE_REVOKE
from etcdtw.lease.expiry import ExpiryScan
from etcdtw.lease.lessor import Lessor
from etcdtw.node.own_proposals import OwnProposals
from etcdtw.node.standing import Standing
from etcdtw.wire import etcdserverpb as pb


class LeaseExpiry:
    """Proposes revokes and checkpoints of one member's leases."""

    def __init__(self, standing: Standing, lessor: Lessor, own: OwnProposals) -> None:
        self._standing = standing
        self._own = own
        self._scan = ExpiryScan(lessor)
        self.expired_total = 0

    def look(self, now_ms: int) -> None:
        """Propose what is due (at each tick)."""
        if not self._standing.is_leader:
            return  # perhaps deposed within this very tick, before the lessor hears of it
        expired, checkpoints = self._scan.due(now_ms)
        self.expired_total += len(expired)
        for lease_id in expired:
            self._own.propose(FIELD_LEASE_REVOKE, pb.LeaseRevokeRequest(ID=lease_id))
        if checkpoints:
            rows = [pb.LeaseCheckpoint(ID=i, remaining_TTL=left) for i, left in checkpoints]
            request = pb.LeaseCheckpointRequest(checkpoints=rows)
            self._own.propose(FIELD_LEASE_CHECKPOINT, request)
