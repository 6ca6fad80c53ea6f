"""etcd's Lease service: grants and revokes by consensus, renewals by the leader's lessor.

Source: etcd v3 api, Lease.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from google.protobuf.message import Message
from twisted.internet.interfaces import IReactorTime

from etcdtw.apply.applier import FIELD_LEASE_GRANT, FIELD_LEASE_REVOKE
from etcdtw.apply.errors import NoSpaceError
from etcdtw.grpc.call import UNAVAILABLE, Call, MethodTable
from etcdtw.lease.lessor import NO_LEASE, Lessor
from etcdtw.mvcc.cost import LEASE_GRANT_COST
from etcdtw.rpc.decode import decode
from etcdtw.rpc.errors import fail
from etcdtw.rpc.keep_alive import KeepAliveStream
from etcdtw.rpc.leader_loss import LeaderLoss
from etcdtw.wire import etcdserverpb as pb

LEADER_CHANGED: Final = "etcdserver: leader changed"


class Applied(Protocol):
    """What became of a proposal; as `node.node.Node` tells it."""

    @property
    def revision(self) -> int: ...
    @property
    def body(self) -> bytes: ...
    @property
    def error(self) -> Exception | None: ...


class AttachedKeys(Protocol):
    """The part of `mvcc.backend.Backend` that leases need."""

    def attached(self, lease_id: int) -> list[bytes]: ...


class LeaseStore(Protocol):
    """The part of the store that leases need."""

    @property
    def revision(self) -> int: ...


class LeaseNode(Protocol):
    """The part of `node.node.Node` that leases need."""

    @property
    def lessor(self) -> Lessor: ...
    @property
    def store(self) -> LeaseStore: ...
    @property
    def leader_id(self) -> int: ...
    @property
    def clock(self) -> IReactorTime: ...
    @property
    def now_ms(self) -> int: ...
    def header(self, revision: int) -> bytes: ...
    def read(self, call: Call, done: Callable[[Call, Exception | None], None]) -> None: ...
    def propose(
        self,
        field: int,
        message: bytes,
        parsed: Message,
        call: Call,
        done: Callable[[Call, Applied], None],
    ) -> None: ...


class Quota(Protocol):
    """Decides whether the state may grow.  A refusal raises the NOSPACE alarm elsewhere."""

    def admit(self, cost: int) -> bool: ...


class LeaseService:
    """Answers the five RPCs.  ``random_bits``: as `random.Random.getrandbits`.

    ``quota`` None: nothing is refused for its size.
    """

    def __init__(
        self,
        node: LeaseNode,
        backend: AttachedKeys,
        random_bits: Callable[[int], int],
        election_timeout_s: float,
        *,
        quota: Quota | None = None,
    ) -> None:
        self._node = node
        self._quota = quota
        self._backend = backend
        self._random_bits = random_bits
        self._leader_loss = LeaderLoss(node, election_timeout_s)

    def register(self, methods: MethodTable) -> None:
        """Add this service's methods."""
        prefix = "/etcdserverpb.Lease/"
        methods.add_unary(prefix + "LeaseGrant", self.grant)
        methods.add_unary(prefix + "LeaseRevoke", self.revoke)
        methods.add_unary(prefix + "LeaseTimeToLive", self.time_to_live)
        methods.add_unary(prefix + "LeaseLeases", self.leases)
        methods.add_bidi_stream(prefix + "LeaseKeepAlive", self.keep_alive)

    def grant(self, call: Call, message: bytes) -> None:
        """Propose a lease; id 0 asks for an unused positive one."""
        request = decode(pb.LeaseGrantRequest, message)
        if self._quota is not None and not self._quota.admit(LEASE_GRANT_COST):
            fail(call, NoSpaceError())
            return
        if request.ID == NO_LEASE:
            request.ID = self._unused_id()
            message = request.SerializeToString()
        self._node.propose(FIELD_LEASE_GRANT, message, request, call, self._answer)

    def revoke(self, call: Call, message: bytes) -> None:
        """Propose to end a lease and delete its keys."""
        request = decode(pb.LeaseRevokeRequest, message)
        self._node.propose(FIELD_LEASE_REVOKE, message, request, call, self._answer)

    def time_to_live(self, call: Call, message: bytes) -> None:
        """Return what is left of a lease; an unknown one has TTL -1."""
        request = decode(pb.LeaseTimeToLiveRequest, message)

        def confirmed(call: Call, error: Exception | None) -> None:
            if error is not None:
                fail(call, error)
            elif not self._node.lessor.is_primary:
                call.fail(UNAVAILABLE, LEADER_CHANGED)
            else:
                self._node.lessor.advance(self._node.now_ms)
                call.reply(self._time_to_live(request.ID, request.keys))

        self._node.read(call, confirmed)

    def leases(self, call: Call, message: bytes) -> bytes:
        """Return the ids of the leases this member knows, the next to expire first."""
        decode(pb.LeaseLeasesRequest, message)
        node = self._node
        statuses = [lease.status for lease in node.lessor.leases()]
        return b"".join((node.header(node.store.revision), *statuses))

    def keep_alive(self, call: Call) -> None:
        """Serve one stream of renewals."""
        KeepAliveStream(call, self._node, self._leader_loss)

    def _unused_id(self) -> int:
        while True:
            lease_id = self._random_bits(63)
            if lease_id != NO_LEASE and not self._node.lessor.exists(lease_id):
                return lease_id

    def _answer(self, call: Call, applied: Applied) -> None:
        if applied.error is not None:
            fail(call, applied.error)
        else:
            call.reply(self._node.header(applied.revision) + applied.body)

    def _time_to_live(self, lease_id: int, wants_keys: bool) -> bytes:
        node = self._node
        response = pb.LeaseTimeToLiveResponse(ID=lease_id, TTL=-1)
        lease = node.lessor.lookup(lease_id)
        if lease is not None:
            response.TTL = node.lessor.remaining_ttl_s(lease_id)
            response.grantedTTL = lease.ttl_s
            if wants_keys:
                response.keys.extend(self._backend.attached(lease_id))
        body: bytes = response.SerializeToString()
        return node.header(node.store.revision) + body
