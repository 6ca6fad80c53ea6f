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
from etcdtw.auth.key_check import KeyCheck
from etcdtw.grpc.call import Call
from etcdtw.lease.lessor import RENEW_CHECKPOINTED, RENEW_EXPIRED, Lessor
from etcdtw.node.facade import Facade
from etcdtw.rpc.leader_line import LeaderLine
from etcdtw.rpc.lease.key_looks import KeyLook, KeyLooks
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import leasepb

PATH_RENEW: Final = "/leases"
PATH_TIME_TO_LIVE: Final = "/leases/internal"
OK: Final = 200
NOT_FOUND: Final = 404

Renewed = Callable[["Exception | None", int], None]
"""An error, or the TTL in seconds; 0: there is no such lease."""
Found = Callable[["Exception | None", "bytes | None"], None]
"""An error, or the answer's octets without its header; None: there is no such lease."""


class LeasesForPeers:
    """The leader's end: answers from this member's lessor."""

    def __init__(self, node: Facade, looks: KeyLooks) -> None:
        self._node = node
        self._looks = looks

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
            elif wants_keys and lessor.exists(lease_id):
                LeaseWithKeys(self._node, self._looks, lease_id, found).look(None)
            else:
                lessor.advance(self._node.now_ms)
                found(None, encode_lease(lessor, lease_id))

        self._node.linearize(confirmed)


class LeaseWithKeys:
    """What a primary lessor knows of a lease, and its keys, at one moment.

    ``check``: as for `KeyLook`; ``header``: returns what is to stand before the answer, at the
    moment that it is about.
    """

    def __init__(
        self,
        node: Facade,
        looks: KeyLooks,
        lease_id: int,
        found: Found,
        check: KeyCheck | None = None,
        header: Callable[[], bytes] = bytes,
    ) -> None:
        self._node = node
        self._looks = looks
        self._lease_id = lease_id
        self._found = found
        self._check = check
        self._header = header
        self._lease: bytes | None = None
        self._error: Exception | None = None

    def look(self, call: Call | None) -> None:
        """Find it; ``call``: who waits for it, None: a peer."""
        look = KeyLook(
            self._looks,
            self._lease_id,
            self._check,
            self._looked,
            lists=True,
            told=self._describe,
        )
        look.begin(call)

    def _describe(self) -> None:
        lessor = self._node.lessor
        if lessor.is_primary:
            lessor.advance(self._node.now_ms)
            lease = encode_lease(lessor, self._lease_id)
            self._lease = None if lease is None else self._header() + lease
        else:
            self._error = LeaderChangedError()

    def _looked(self, error: Exception | None, look: KeyLook) -> None:
        error = error or self._error
        lease = self._lease
        if error is not None or lease is None:
            self._found(error, None)
        else:
            self._found(None, b"".join([lease, *look.parts]))


def encode_lease(lessor: Lessor, lease_id: int) -> bytes | None:
    """Return what a primary lessor knows of a lease, without header and keys; None: nothing."""
    lease = lessor.lookup(lease_id)
    if lease is None:
        return None
    response = pb.LeaseTimeToLiveResponse(
        ID=lease_id, TTL=lessor.remaining_ttl_s(lease_id), grantedTTL=lease.ttl_s
    )
    octets: bytes = response.SerializeToString()
    return octets


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
            found(None, response.SerializeToString() if response.TTL != -1 else None)

    asked = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=wants_keys)
    request = leasepb.LeaseInternalRequest(LeaseTimeToLiveRequest=asked)
    line.ask_leader(PATH_TIME_TO_LIVE, request.SerializeToString(), answered)
