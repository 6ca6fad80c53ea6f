"""etcd's Lease service: grants and revokes by consensus, renewals by the leader's lessor.

Source: etcd v3 api, Lease.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from etcdtw.apply.applier import FIELD_LEASE_GRANT, FIELD_LEASE_REVOKE
from etcdtw.apply.errors import NoSpaceError
from etcdtw.grpc.call import UNAVAILABLE, Call, MethodTable
from etcdtw.lease.lessor import NO_LEASE
from etcdtw.mvcc.cost import LEASE_GRANT_COST
from etcdtw.node.facade import Facade
from etcdtw.node.intake.requests import Done
from etcdtw.rpc.answers import answer_applied
from etcdtw.rpc.decode import decode, decode_entry
from etcdtw.rpc.errors import fail
from etcdtw.rpc.guard import Guard
from etcdtw.rpc.kv.read_queue import ReadQueue
from etcdtw.rpc.kv.service import Quota
from etcdtw.rpc.leader_line import LeaderLine
from etcdtw.rpc.leader_loss import LeaderLoss
from etcdtw.rpc.lease.for_peers import Found, LeaseWithKeys, ask_time_to_live, encode_lease
from etcdtw.rpc.lease.keep_alive import KeepAliveStream
from etcdtw.rpc.lease.key_looks import KeyLook, KeyLooks
from etcdtw.rpc.lease.listing import LeaseLists
from etcdtw.rpc.lease.listing_check import LeaseCheck
from etcdtw.wire import etcdserverpb as pb

LEADER_CHANGED: Final = "etcdserver: leader changed"


class LeaseService:
    """Answers the five RPCs.  ``random_bits``: as `random.Random.getrandbits`.

    ``quota`` None: nothing is refused for its size.  ``line`` None: there is no other member.
    ``guard`` None: everybody may do everything.
    """

    def __init__(
        self,
        node: Facade,
        random_bits: Callable[[int], int],
        election_timeout_s: float,
        *,
        quota: Quota | None = None,
        line: LeaderLine | None = None,
        reads: ReadQueue | None = None,
        guard: Guard | None = None,
    ) -> None:
        self._node = node
        self._answer: Done = partial(answer_applied, node)
        self._guard = guard
        self._quota = quota
        self._line = line
        self._random_bits = random_bits
        self._leader_loss = LeaderLoss(node, election_timeout_s)
        reads = self._reads = reads or ReadQueue(node.clock)
        self._lists = LeaseLists(node, reads, self._header)
        self.looks = KeyLooks(reads, node.storage)

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
        request, message = decode_entry(pb.LeaseGrantRequest, message)
        if self._quota is not None and not self._quota.admit(LEASE_GRANT_COST):
            fail(call, NoSpaceError())
            return
        if self._guard is not None:
            refusal = self._guard.user_refusal(call.caller)
            if refusal is not None:
                fail(call, refusal)
                return
        if request.ID == NO_LEASE:
            request.ID = self._unused_id()
            message = request.SerializeToString()
        done = self._answer
        if self._quota is not None:
            done = self._quota.hold(LEASE_GRANT_COST, done)
        self._node.propose(FIELD_LEASE_GRANT, message, request, call, done)

    def revoke(self, call: Call, message: bytes) -> None:
        """Propose to end a lease and delete its keys."""
        request, message = decode_entry(pb.LeaseRevokeRequest, message)
        self._node.propose(FIELD_LEASE_REVOKE, message, request, call, self._answer)

    def time_to_live(self, call: Call, message: bytes) -> None:
        """Return what is left of a lease; an unknown one has TTL -1."""
        request = decode(pb.LeaseTimeToLiveRequest, message)

        def found(error: Exception | None, lease: bytes | None) -> None:
            if error is not None:
                fail(call, error)
                return
            if lease is None:
                lease = pb.LeaseTimeToLiveResponse(ID=request.ID, TTL=-1).SerializeToString()
            call.reply(self._header() + lease)

        def confirmed(call: Call, error: Exception | None) -> None:
            lessor = self._node.lessor
            if error is not None:
                fail(call, error)
            elif lessor.is_primary:
                if request.keys:
                    self._tell_with_keys(call, request.ID, found)
                else:
                    lessor.advance(self._node.now_ms)
                    found(None, encode_lease(lessor, request.ID))
            elif self._line is not None:
                told = self._once_checked(call, request.ID, found) if request.keys else found
                ask_time_to_live(self._line, request.ID, request.keys, told)
            else:
                call.fail(UNAVAILABLE, LEADER_CHANGED)

        self._node.read(call, confirmed)

    def _tell_with_keys(self, call: Call, lease_id: int, found: Found) -> None:
        """Say what this member knows of a lease, as its leader, to who may read all its keys."""
        check = None if self._guard is None else self._guard.listing_check(call.caller)
        if isinstance(check, Exception):
            found(check, None)
            return
        if not self._node.lessor.exists(lease_id):
            found(None, None)
            return

        def looked(error: Exception | None, answer: bytes | None) -> None:
            if answer is None:
                found(error, None)
            else:
                call.reply(answer)

        LeaseWithKeys(self._node, self.looks, lease_id, looked, check, header=self._header).look(
            call
        )

    def _once_checked(self, call: Call, lease_id: int, found: Found) -> Found:
        """Return what passes the leader's answer on to who may read all the lease's keys.

        Then, and not before: nobody may have lost the right to see them meanwhile.
        """

        def told(error: Exception | None, lease: bytes | None) -> None:
            check = None if self._guard is None else self._guard.listing_check(call.caller)
            if error is not None or check is None:
                found(error, lease)
            elif isinstance(check, Exception):
                found(check, None)
            else:
                look = KeyLook(
                    self.looks, lease_id, check, lambda refusal, look: found(refusal, lease)
                )
                look.begin(call)

        return told

    def _header(self) -> bytes:
        return self._node.header(self._node.store.revision)

    def leases(self, call: Call, message: bytes) -> bytes | None:
        """Return the ids of the leases this member knows, the next to expire first."""
        decode(pb.LeaseLeasesRequest, message)
        guard = self._guard
        if guard is not None and guard.switch.is_on:
            refusal = guard.user_refusal(call.caller)
            if refusal is not None:
                fail(call, refusal)
                return None
            if guard.admin_refusal(call.caller) is not None:
                self._reads.take(
                    call, len(message), lambda: LeaseCheck(self._node, guard, call, self._lists)
                )
                return None
        return self._lists.answer(call)

    def keep_alive(self, call: Call) -> None:
        """Serve one stream of renewals."""
        KeepAliveStream(call, self._node, self._leader_loss, self._line, self._guard, self.looks)

    def _unused_id(self) -> int:
        while True:
            lease_id = self._random_bits(63)
            if lease_id != NO_LEASE and not self._node.lessor.exists(lease_id):
                return lease_id
