"""Locks that exclude those of etcd's own clients: the keys are those of its `concurrency` package.

Whoever waits has put a key of its own, and holds the lock when no key of an earlier revision is
left.  The revision that made the key is the fencing token: it grows from holder to holder, so
that what the lock protects can refuse one who holds it no longer.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from etcdtw.client import txn
from etcdtw.client.keys import Key, octets
from etcdtw.client.kv import KeyValues
from etcdtw.client.lease import NO_ANSWER, Lease, LeaseLostError, Leases
from etcdtw.client.network.retrying import RetryingChannel
from etcdtw.client.watch import CompactedError, Watch, watch_request
from etcdtw.grpc.call import UNAVAILABLE, StatusError
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import mvccpb

TTL_S: Final = 60  # as etcd's sessions
REPEAT_WAIT_S: Final = 0.1
"""Between two questions while nobody answers; they end with the lease."""

Answer = TypeVar("Answer")

FREE: Final = 0
WANTED: Final = 1
HELD: Final = 2


class LockedError(Exception):
    """Somebody else holds the lock."""


class Place:
    """A key of ours in the line of those who want one thing; what locks and elections share.

    Every change is guarded by the key's own revision, so that it may be made twice.
    """

    def __init__(
        self, channel: RetryingChannel, kv: KeyValues, prefix: bytes, lease: Lease
    ) -> None:
        self._channel = channel
        self._kv = kv
        self.prefix = prefix
        self.lease = lease
        self.key = b"%s%x" % (prefix, lease.id)
        self.revision = 0
        """That made the key; 0: we do not stand in line."""

    async def enter(self, value: bytes) -> mvccpb.KeyValue | None:
        """Get in line; return the key of who is first."""
        first = txn.get(self.prefix, prefix=True, sort="create", limit=1)
        answer = await self.repeat(
            self._kv.txn()
            .when(txn.create_revision(self.key).equals(0))
            .then(txn.put(self.key, value, lease=self.lease.id), first)
            .otherwise(txn.get(self.key), first)
        )
        if answer.succeeded:
            self.revision = answer.header.revision
        else:
            own = answer.responses[0].response_range.kvs[0]
            self.revision = own.create_revision
        found = answer.responses[1].response_range.kvs
        return found[0] if found else None

    async def wait_for_turn(self) -> None:
        """Wait until nobody stands before us.  Raises `LeaseLostError` when our key is gone."""
        while True:
            self.lease.check()
            before = await self._insist(self._last_before)
            if not before.kvs:
                break
            await self._wait_for_deletion(before.kvs[0].key, before.header.revision + 1)
        # Those before us may have gone because all leases have: is ours still there?
        own = await self._insist(lambda: self._kv.get(self.key))
        if not own.kvs or own.kvs[0].create_revision != self.revision:
            self.revision = 0
            raise LeaseLostError("our key is gone: its lease has ended")
        self.lease.check()

    async def leave(self) -> None:
        """Delete our key, if it is still ours."""
        revision, self.revision = self.revision, 0
        if revision:
            await self.repeat(
                self._kv.txn()
                .when(txn.create_revision(self.key).equals(revision))
                .then(txn.delete(self.key))
            )

    async def repeat(self, transaction: txn.Txn) -> pb.TxnResponse:
        """Commit what may be done twice, again while its outcome is not known."""
        return await self._insist(transaction.commit)

    async def _insist(self, ask: Callable[[], Deferred[Answer]]) -> Answer:
        """Ask until somebody answers, or the lease has ended meanwhile."""
        while True:
            try:
                return await ask()
            except StatusError as error:
                if error.code != UNAVAILABLE:
                    raise
                self.lease.check()
                if self._channel.clock.seconds() >= self.lease.ends_s:
                    raise LeaseLostError(NO_ANSWER) from error
                await deferLater(self._channel.clock, REPEAT_WAIT_S)

    def _last_before(self) -> Deferred[pb.RangeResponse]:
        """Return who stands right before us."""
        return self._kv.get(
            self.prefix,
            prefix=True,
            sort="create",
            descending=True,
            limit=1,
            max_create_revision=self.revision - 1,
        )

    async def _wait_for_deletion(self, key: bytes, revision: int) -> None:
        """Wait until ``key`` is deleted, or look again: nobody knows what happened to it."""
        watch = Watch(self._channel, watch_request(key, start_revision=revision, no_puts=True))
        lost = self.lease.when_lost()
        lost.addCallbacks(lambda _: watch.cancel(), lambda _: None)
        try:
            await watch.receive()
        except CompactedError:
            return
        except StatusError as error:
            if error.code != UNAVAILABLE:
                raise
        finally:
            lost.cancel()
            watch.cancel()


class Contender:
    """Who wants one thing, in the line of those who do; what locks and elections begin and end by.

    Without ``lease`` there is one of its own, of ``ttl_s``, which is kept alive and revoked at the
    end.
    """

    def __init__(
        self,
        channel: RetryingChannel,
        leases: Leases,
        name: Key,
        *,
        ttl_s: int = TTL_S,
        lease: Lease | None = None,
    ) -> None:
        self._channel = channel
        self._kv = KeyValues(channel)
        self._leases = leases
        self._prefix = octets(name) + b"/"
        self._ttl_s = ttl_s
        self._given = lease
        self._place: Place | None = None

    def _within(self, timeout_ms: int | None, work: Coroutine[Any, Any, int]) -> Deferred[int]:
        outcome = Deferred.fromCoroutine(work)
        if timeout_ms is not None:
            outcome.addTimeout(timeout_ms / 1_000, self._channel.clock)
        return outcome

    async def _find_place(self) -> Place:
        """Have a lease, and a place that is not entered yet."""
        lease = self._given
        if lease is None:
            lease = (await self._leases.grant(self._ttl_s)).keep_alive()
        self._place = Place(self._channel, self._kv, self._prefix, lease)
        return self._place

    async def _leave_place(self) -> None:
        place, self._place = self._place, None
        if place is None:
            return
        try:
            if not place.lease.is_lost:
                await place.leave()
        finally:
            if place.lease is not self._given:
                await place.lease.revoke()

    async def _have_left(self, leaving: Deferred[None], error: BaseException) -> None:
        """Nobody may be kept waiting for us, whatever it was."""
        leaving.addErrback(lambda _: None)
        if not isinstance(error, CancelledError):
            await leaving


class Lock(Contender):
    """A lock on ``name``.  ``async with`` takes and releases it.

    It is lost when its lease is (`when_lost`): whoever must not go on then passes `token`
    to what the lock protects, or adds `is_held_compare` to transactions.
    """

    _state = FREE

    @property
    def is_held(self) -> bool:
        """Whether we hold it, as far as can be known here."""
        return self._state == HELD and self._place is not None and not self._place.lease.is_lost

    @property
    def token(self) -> int:
        """The fencing token, while the lock is ours."""
        assert self._place is not None and self._place.revision, "not acquired"
        return self._place.revision

    @property
    def key(self) -> bytes:
        """Our key, while we hold it or wait for it."""
        assert self._place is not None, "not acquired"
        return self._place.key

    def is_held_compare(self) -> pb.Compare:
        """What holds in a transaction exactly while the lock is ours."""
        return txn.create_revision(self.key).equals(self.token)

    def when_lost(self) -> Deferred[str]:
        """Fire with the reason when the lock is lost; released ones are not."""
        assert self._place is not None, "not acquired"
        return self._place.lease.when_lost()

    def acquire(self, *, timeout_ms: int | None = None) -> Deferred[int]:
        """Wait for the lock; return the fencing token.  Cancelling it leaves the line.

        Fails with `LeaseLostError`, `StatusError`, or after ``timeout_ms`` with Twisted's
        `TimeoutError`.
        """
        return self._within(timeout_ms, self._acquire(waits=True))

    def try_acquire(self) -> Deferred[int]:
        """Take the lock if it is free; return the fencing token.  Fails with `LockedError`."""
        return Deferred.fromCoroutine(self._acquire(waits=False))

    def release(self) -> Deferred[None]:
        """Give it to the next one."""
        return Deferred.fromCoroutine(self._release())

    async def __aenter__(self) -> Lock:
        await self.acquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.release()

    async def _acquire(self, waits: bool) -> int:
        assert self._state == FREE, "acquired already, or waited for"
        self._state = WANTED
        try:
            place = await self._find_place()
            first = await place.enter(b"")
            if first is not None and first.create_revision != place.revision:
                if not waits:
                    raise LockedError(f"{first.key!r} stands before us")
                await place.wait_for_turn()
        except BaseException as error:
            await self._have_left(self.release(), error)
            raise
        self._state = HELD
        return place.revision

    async def _release(self) -> None:
        self._state = FREE
        await self._leave_place()
