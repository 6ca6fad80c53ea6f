"""etcd's Lock service.

Source: etcd v3lock; clientv3 ``concurrency``, Mutex.
"""

from __future__ import annotations

from typing import Final

from etcdtw.grpc.call import UNKNOWN, Call, MethodTable, StatusError
from etcdtw.rpc.concurrency.contender import (
    SESSION_EXPIRED,
    Arena,
    Contender,
    created_at,
    oldest_request,
    own_key,
    put_op,
    range_op,
)
from etcdtw.rpc.decode import decode
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import v3lockpb

PREFIX: Final = "/v3lockpb.Lock/"


class LockService:
    """Answers Lock and Unlock."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    def register(self, methods: MethodTable) -> None:
        """Add this service's methods."""
        methods.add_unary(PREFIX + "Lock", self.lock)
        methods.add_unary(PREFIX + "Unlock", self.unlock)

    def lock(self, call: Call, message: bytes) -> None:
        """Answer when the caller's session holds the lock.

        Who holds it already is told so at once; who goes while it waits leaves no key behind.
        """
        request = decode(v3lockpb.LockRequest, message)

        async def locked(contender: Contender) -> None:
            found = await _lock(contender, request.name + b"/", request.lease)
            call.reply(found.SerializeToString())

        self._arena.wait(call, locked)

    def unlock(self, call: Call, message: bytes) -> None:
        """Delete the key, whoever's it is; one that is not there is no error."""
        request = decode(v3lockpb.UnlockRequest, message)

        async def unlocked(contender: Contender) -> None:
            deleted = await contender.calls.delete_range(pb.DeleteRangeRequest(key=request.key))
            call.reply(v3lockpb.UnlockResponse(header=deleted.header).SerializeToString())

        self._arena.serve(call, unlocked)


async def _lock(contender: Contender, prefix: bytes, lease_id: int) -> v3lockpb.LockResponse:
    lease_id = await contender.session(lease_id)
    key = own_key(prefix, lease_id)
    contender.claim(key)
    owner = range_op(oldest_request(prefix))
    asked = await contender.calls.txn(
        pb.TxnRequest(
            compare=[created_at(key, 0)],
            success=[put_op(key, b"", lease_id), owner],
            failure=[range_op(pb.RangeRequest(key=key)), owner],
        )
    )
    own_revision = asked.header.revision
    if not asked.succeeded:
        own_revision = asked.responses[0].response_range.kvs[0].create_revision
    owners = asked.responses[1].response_range.kvs
    if not contender.is_wanted:
        if asked.succeeded:
            await contender.take_back(key, own_revision)
        raise StatusError(UNKNOWN, SESSION_EXPIRED)
    if not owners or owners[0].create_revision == own_revision:
        return v3lockpb.LockResponse(header=asked.header, key=key)
    try:
        await contender.wait_deletes(prefix, own_revision - 1)
        found = await contender.read(pb.RangeRequest(key=key))
        if not contender.is_wanted:
            raise StatusError(UNKNOWN, SESSION_EXPIRED)
    except StatusError:
        await contender.take_back(key, own_revision)
        raise
    # Its turn has come, but its session may be over: then the key went with the lease.
    if not found.kvs or found.kvs[0].create_revision != own_revision:
        raise StatusError(UNKNOWN, SESSION_EXPIRED)
    return v3lockpb.LockResponse(header=found.header, key=key)
