"""A member in memory that serves locks and elections to recorded calls."""

from __future__ import annotations

from typing import Any

from etcdtw.client.loopback import Loopback
from etcdtw.grpc.call import StatusError
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.grpc.stats import ServerStats
from etcdtw.rpc.concurrency.contender import Arena
from etcdtw.rpc.concurrency.election import ElectionService
from etcdtw.rpc.concurrency.lock import LockService
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import v3electionpb, v3lockpb
from tests.client.member_rig import MemberRig
from tests.support.recorded_call import RecordedCall


class ArenaRig(MemberRig):
    """One member; callers lock and campaign."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ServerStats()
        self.arena = Arena(Loopback(self.methods, self.inner, self.clock), self.clock)
        LockService(self.arena).register(self.methods)
        ElectionService(self.arena, self.node, 1.0).register(self.methods)

    def ask(self, path: str, request: Any, caller: Caller = NOBODY_KNOWN) -> RecordedCall:
        call = RecordedCall()
        call.caller = caller
        method = self.methods.find(path.encode())
        assert method is not None
        try:
            if method.unary is not None:
                method.unary(call, request.SerializeToString())
            else:
                assert method.opened is not None
                method.opened(call)
                call.receive(request.SerializeToString())
        except StatusError as error:
            call.fail(error.code, error.message)
        self.run(0.2)
        return call

    def lock(self, name: bytes, lease: int = 0) -> RecordedCall:
        return self.ask("/v3lockpb.Lock/Lock", v3lockpb.LockRequest(name=name, lease=lease))

    def unlock(self, key: bytes) -> RecordedCall:
        return self.ask("/v3lockpb.Lock/Unlock", v3lockpb.UnlockRequest(key=key))

    def elect(self, method: str, /, **fields: Any) -> RecordedCall:
        kinds = {"Observe": "Leader"}
        request = getattr(v3electionpb, f"{kinds.get(method, method)}Request")
        return self.ask(f"/v3electionpb.Election/{method}", request(**fields))

    def lease(self, lease_id: int, ttl_s: int = 3_600) -> int:
        self.wait(self.calls.lease_grant(pb.LeaseGrantRequest(ID=lease_id, TTL=ttl_s)))
        return lease_id

    def revoke(self, lease_id: int) -> None:
        self.wait(self.calls.lease_revoke(pb.LeaseRevokeRequest(ID=lease_id)))
        self.run(0.2)

    def put(self, key: bytes, value: bytes = b"v", lease: int = 0) -> None:
        self.wait(self.calls.put(pb.PutRequest(key=key, value=value, lease=lease)))

    def delete(self, key: bytes) -> None:
        self.wait(self.calls.delete_range(pb.DeleteRangeRequest(key=key)))
        self.run(0.2)

    def compact(self) -> None:
        self.put(b"unrelated")
        revision = self.node.store.revision
        self.wait(self.calls.compact(pb.CompactionRequest(revision=revision)))

    def stored(self) -> dict[bytes, bytes]:
        request = pb.RangeRequest(key=b"\0", range_end=b"\0")
        return {one.key: one.value for one in self.wait(self.calls.range(request)).kvs}

    @property
    def is_empty(self) -> bool:
        """Whether nothing of any call is left in the arena."""
        ledger = self.arena.loopback.ledger
        return not (self.arena.contenders or self.arena.claims or ledger.calls)
