"""One call of these services, and what it asks of its own member as its caller.

A contender's key is ``<name>/<lease id in hex>`` with the lease attached; who has the oldest key
(by create_revision) below ``<name>/`` holds the lock, or leads.

Source: etcd's clientv3 ``concurrency`` package, layout of keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from etcdtw.client.calls import Calls
from etcdtw.client.loopback import Loopback
from etcdtw.grpc.call import INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, UNKNOWN, Call, StatusError
from etcdtw.wire import etcdserverpb as pb

SESSION_TTL_S: Final = 60
"""Of the lease that is granted to who brings none; nobody renews it."""
CONTENDERS_MAX: Final = 20_000
"""Of those that may wait."""
CONTENDERS_FEW: Final = 100
"""Of one address, however many the others have."""
TRIES_MAX: Final = 5
"""Of a read, or of the removal of a key, while there is no leader."""
PAUSE_S: Final = 0.2
"""Before the second try; twice as long before each one after it."""

TOO_MANY: Final = "etcdtw: too many locks and elections at once"
LOST_WATCHER: Final = "lost watcher waiting for delete"
SESSION_EXPIRED: Final = "mutex: session is expired"
DEFECT: Final = "the call failed unexpectedly"

log = Logger()


class Claim:
    """Who asked last for a key, of the calls that are under way here."""

    __slots__ = ("calls", "newest")

    def __init__(self) -> None:
        self.calls = 0
        self.newest: Contender | None = None


def _nobody_left() -> None:
    """Nobody is counted."""


class Arena:
    """What the calls of both services share."""

    def __init__(self, loopback: Loopback, clock: IReactorTime) -> None:
        """``loopback``: the way to this member's own services; its counters are no clients'."""
        self.loopback = loopback
        self.clock = clock
        self.contenders = 0
        self._by_address: Counter[str] = Counter()
        self.claims: dict[bytes, Claim] = {}

    def wait(self, call: Call, work: Work) -> None:
        """As `serve`, for ``work`` that goes on until others are done; these are bounded."""
        address = call.caller.address
        by_address = self._by_address
        if self.contenders >= CONTENDERS_MAX and by_address[address] >= CONTENDERS_FEW:
            raise StatusError(RESOURCE_EXHAUSTED, TOO_MANY)
        self.contenders += 1
        by_address[address] += 1

        def left() -> None:
            self.contenders -= 1
            by_address[address] -= 1
            if not by_address[address]:
                del by_address[address]

        self.serve(call, work, left)

    def serve(self, call: Call, work: Work, left: Callable[[], None] = _nobody_left) -> None:
        """Let ``work`` answer ``call``; its failure is the call's.

        As with etcd, whatever a contender's own calls end with is UNKNOWN for its caller.
        """
        contender = Contender(self, call)

        def ended(failure: Failure | None) -> None:
            left()
            contender.close()
            if failure is None:
                return
            if isinstance(failure.value, StatusError):
                call.fail(UNKNOWN, failure.value.message)
            else:
                log.failure("a lock or an election failed unexpectedly", failure)
                call.fail(INTERNAL, DEFECT)

        Deferred.fromCoroutine(work(contender)).addCallbacks(ended, ended)


class Contender:
    """Asks in the name of one call until that ends, and then takes back what it left."""

    def __init__(self, arena: Arena, call: Call) -> None:
        self.call = call
        self._arena = arena
        self._channel = arena.loopback.connect(call.caller)
        self.calls = Calls(self._channel)
        self._cancel_watch: Callable[[], None] | None = None
        self._claimed: bytes | None = None
        call.on_end = self.end_watch

    def close(self) -> None:
        """Nothing is asked any more."""
        self._disclaim()
        self._channel.close()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for the answer."""
        return self.call.is_open

    # Reads and writes.

    async def session(self, lease_id: int) -> int:
        """Return the lease to use: the caller's, or one that is granted now."""
        if lease_id:
            return lease_id
        granted = await self.calls.lease_grant(pb.LeaseGrantRequest(TTL=SESSION_TTL_S))
        return int(granted.ID)

    async def read(self, request: pb.RangeRequest) -> pb.RangeResponse:
        """As Range; asked again while there is no leader: whoever waits does not care."""
        pause_s = PAUSE_S
        for _ in range(TRIES_MAX - 1):
            try:
                return await self.calls.range(request)
            except StatusError as error:
                if error.code != UNAVAILABLE or not self.is_wanted:
                    raise
            await deferLater(self._arena.clock, pause_s)
            pause_s *= 2
        return await self.calls.range(request)

    async def oldest(self, prefix: bytes) -> pb.RangeResponse:
        """Return the first key by create_revision below ``prefix``."""
        return await self.read(oldest_request(prefix))

    # Waiting.

    async def wait_deletes(self, prefix: bytes, create_revision_max: int) -> bool:
        """Return when no key below ``prefix`` was created at ``create_revision_max`` or before;
        whether there was one.

        Fails when its call ends.
        """
        newest = pb.RangeRequest(
            key=prefix,
            range_end=prefix_end(prefix),
            limit=1,
            sort_order=pb.RangeRequest.DESCEND,
            sort_target=pb.RangeRequest.CREATE,
            max_create_revision=create_revision_max,
        )
        has_waited = False
        while True:
            found = await self.read(newest)
            if not found.kvs:
                return has_waited
            has_waited = True
            await self._wait_delete(found.kvs[0].key, found.header.revision)

    async def _wait_delete(self, key: bytes, revision: int) -> None:
        """Return when ``key`` was deleted at ``revision`` or later, or that is no longer told."""
        watched = pb.WatchCreateRequest(
            key=key, start_revision=revision, filters=[pb.WatchCreateRequest.NOPUT]
        )
        async for response in self.watch(watched):
            if response.compact_revision or response.events:
                self.end_watch()
                return
        raise StatusError(UNKNOWN, LOST_WATCHER)

    async def watch(self, watched: pb.WatchCreateRequest) -> AsyncIterator[pb.WatchResponse]:
        """Yield what one watch is told; the one before is ended.

        The last response of one that is compacted says so; one that is cancelled otherwise
        fails.
        """
        if not self.is_wanted:
            raise StatusError(UNKNOWN, LOST_WATCHER)
        self.end_watch()
        responses = self.calls.watch(pb.WatchRequest(create_request=watched))
        self._cancel_watch = responses.cancel
        async for response in responses:
            if response.canceled and not response.compact_revision:
                self.end_watch()
                raise StatusError(UNKNOWN, response.cancel_reason)
            yield response

    def end_watch(self) -> None:
        """Its place is free before the next thing is asked."""
        cancel, self._cancel_watch = self._cancel_watch, None
        if cancel is not None:
            cancel()

    # The contender's own key.

    def claim(self, key: bytes) -> None:
        """It asks for ``key``; those before it, with the same lease, take back nothing now."""
        claim = self._arena.claims.setdefault(key, Claim())
        claim.calls += 1
        claim.newest = self
        self._claimed = key

    def _disclaim(self) -> None:
        key, self._claimed = self._claimed, None
        if key is not None:
            claim = self._arena.claims[key]
            claim.calls -= 1
            if not claim.calls:
                del self._arena.claims[key]

    async def take_back(self, key: bytes, create_revision: int) -> None:
        """Delete its key, unless another call of the same session has it now."""
        request = resign_request(key, create_revision)
        pause_s = PAUSE_S
        for _ in range(TRIES_MAX):
            if self._arena.claims[key].newest is not self:
                return
            try:
                await self.calls.txn(request)
                return
            except StatusError as error:
                if error.code != UNAVAILABLE:
                    return  # the lease takes it along
            await deferLater(self._arena.clock, pause_s)
            pause_s *= 2


Work = Callable[[Contender], Coroutine[Deferred[Any], Any, None]]
"""What answers a call."""


def prefix_end(prefix: bytes) -> bytes:
    """Return the end of the range of keys that begin with ``prefix``, which ends in ``/``."""
    return prefix[:-1] + b"0"


def own_key(prefix: bytes, lease_id: int) -> bytes:
    """Return the key of the session with this lease; hex as Go's ``%x``, sign included."""
    return b"%b%b" % (prefix, format(lease_id, "x").encode())


def oldest_request(prefix: bytes) -> pb.RangeRequest:
    """Ask for the first key by create_revision below ``prefix``: the holder's."""
    return pb.RangeRequest(
        key=prefix,
        range_end=prefix_end(prefix),
        limit=1,
        sort_order=pb.RangeRequest.ASCEND,
        sort_target=pb.RangeRequest.CREATE,
    )


def created_at(key: bytes, revision: int) -> pb.Compare:
    """Return the claim that ``key`` was created at ``revision`` (0: that it is not there)."""
    return pb.Compare(
        key=key, result=pb.Compare.EQUAL, target=pb.Compare.CREATE, create_revision=revision
    )


def put_op(key: bytes, value: bytes, lease_id: int) -> pb.RequestOp:
    """Put, within a txn."""
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, lease=lease_id))


def range_op(request: pb.RangeRequest) -> pb.RequestOp:
    """Read, within a txn."""
    return pb.RequestOp(request_range=request)


def resign_request(key: bytes, create_revision: int) -> pb.TxnRequest:
    """Delete ``key`` if it is the one that was created then."""
    delete = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key))
    return pb.TxnRequest(compare=[created_at(key, create_revision)], success=[delete])
