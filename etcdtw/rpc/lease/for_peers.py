"""Renewals and times to live of leases for members that do not lead: both ends of the question.

Only the leader's lessor knows how much of a lease is left, so a follower asks it, over the
peers' HTTP.  Source: etcd's peer contract, section 3 (``/leases``, ``/leases/internal``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from etcdtw.apply.errors import (
    LeaderChangedError,
    NoLeaderError,
    RequestTimeoutError,
)
from etcdtw.lease.lessor import RENEW_CHECKPOINTED, RENEW_EXPIRED, Lessor
from etcdtw.mvcc.backend import Backend
from etcdtw.node.facade import Facade
from etcdtw.rpc.leader_line import LeaderLine
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import leasepb

PATH_RENEW: Final = "/leases"
PATH_TIME_TO_LIVE: Final = "/leases/internal"
OK: Final = 200
NOT_FOUND: Final = 404

Renewed = Callable[["Exception | None", int], None]
"""An error, or the TTL in seconds; 0: there is no such lease."""
Found = Callable[["Exception | None", "pb.LeaseTimeToLiveResponse | None"], None]
"""An error, or the answer without its header; None: there is no such lease."""


class LeasesForPeers:
    """The leader's end: answers from this member's lessor."""

    def __init__(self, node: Facade) -> None:
        self._node = node

    def renew(self, lease_id: int, renewed: Renewed) -> None:
        """Renew a lease once everything committed is applied, as the primary lessor."""
        lessor = self._node.current_lessor()
        ttl_s = lessor.renew(lease_id) if lessor.is_primary else None
        if ttl_s is not None and ttl_s > 0:
            renewed(None, ttl_s)
            return

        def confirmed(error: Exception | None) -> None:
            if error is not None:
                renewed(RequestTimeoutError(), 0)
            elif not lessor.is_primary:
                renewed(LeaderChangedError(), 0)
            else:
                lessor.advance(self._node.now_ms)
                again_s = lessor.renew(lease_id)
                if again_s == RENEW_CHECKPOINTED:
                    again_s = lessor.remaining_ttl_s(lease_id)
                renewed(None, 0 if again_s is None or again_s == RENEW_EXPIRED else again_s)

        self._node.linearize(confirmed)

    def time_to_live(self, lease_id: int, wants_keys: bool, found: Found) -> None:
        """Say what is left of a lease, once everything committed is applied."""

        def confirmed(error: Exception | None) -> None:
            lessor = self._node.lessor
            if error is not None:
                found(RequestTimeoutError(), None)
            elif not lessor.is_primary:
                found(LeaderChangedError(), None)
            else:
                lessor.advance(self._node.now_ms)
                found(None, describe_lease(lessor, self._node.storage, lease_id, wants_keys))

        self._node.linearize(confirmed)


def describe_lease(
    lessor: Lessor, backend: Backend, lease_id: int, wants_keys: bool
) -> pb.LeaseTimeToLiveResponse | None:
    """Return what a primary lessor knows of a lease, without a header; None: nothing."""
    lease = lessor.lookup(lease_id)
    if lease is None:
        return None
    response = pb.LeaseTimeToLiveResponse(
        ID=lease_id, TTL=lessor.remaining_ttl_s(lease_id), grantedTTL=lease.ttl_s
    )
    if wants_keys:
        response.keys.extend(backend.attached(lease_id))
    return response


def ask_to_renew(line: LeaderLine, lease_id: int, renewed: Renewed) -> None:
    """The follower's end of a renewal."""

    def answered(status: int, body: bytes) -> None:
        if status == NOT_FOUND:
            renewed(None, 0)
            return
        try:
            response = pb.LeaseKeepAliveResponse.FromString(body)
        except DecodeError:
            status = 0
        if status != OK:
            renewed(NoLeaderError() if status == 0 else RequestTimeoutError(), 0)
        else:
            renewed(None, response.TTL)

    request = pb.LeaseKeepAliveRequest(ID=lease_id)
    line.ask_leader(PATH_RENEW, request.SerializeToString(), answered)


def ask_time_to_live(line: LeaderLine, lease_id: int, wants_keys: bool, found: Found) -> None:
    """The follower's end of a time to live."""

    def answered(status: int, body: bytes) -> None:
        if status == NOT_FOUND:
            found(None, None)
            return
        try:
            response = leasepb.LeaseInternalResponse.FromString(body).LeaseTimeToLiveResponse
        except DecodeError:
            status = 0
        if status != OK:
            found(NoLeaderError() if status == 0 else RequestTimeoutError(), None)
        else:
            response.ClearField("header")
            found(None, response if response.TTL != -1 else None)

    asked = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=wants_keys)
    request = leasepb.LeaseInternalRequest(LeaseTimeToLiveRequest=asked)
    line.ask_leader(PATH_TIME_TO_LIVE, request.SerializeToString(), answered)
