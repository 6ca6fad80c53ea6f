"""Leases: keys that go when their owner does.

All leases of a client are kept alive on one stream.  A lease counts as lost from the moment
when its server may have ended it: its time runs from when the client asked, not from the answer.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from etcdtw.client.calls import Calls, Messages
from etcdtw.client.channel import Metadata
from etcdtw.client.network import retry_rules
from etcdtw.client.network.retrying import RetryingChannel
from etcdtw.client.watch import NEEDS_LEADER
from etcdtw.grpc.call import NOT_FOUND, RESOURCE_EXHAUSTED, StatusError
from etcdtw.wire import etcdserverpb as pb

KEPT_LEASES_MAX: Final = 100_000
ASKS_PER_TTL: Final = 3
REOPEN_S: Final = 0.5
"""Between two streams: as etcd's own clients."""
EXPIRED: Final = "etcdserver: requested lease not found"
NO_ANSWER: Final = "no server has renewed the lease in time"
REVOKED: Final = "the lease was revoked"

KeepAlives = Messages[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]

log: Final = Logger()


class LeaseLostError(Exception):
    """The lease is gone, or may be; the text says why."""


class Lease:
    """A lease that was granted.  Not renewed unless `keep_alive` was called."""

    def __init__(self, leases: Leases, lease_id: int, ttl_s: int, asked_s: float) -> None:
        self.id = lease_id
        self.ttl_s = ttl_s
        """As the server granted it: it may be more than was asked for."""
        self.ends_s = asked_s + ttl_s
        """On the client's clock; later only when a server has renewed it."""
        self.lost_why = ""
        """Why it is gone; empty: it is not."""
        self._leases = leases
        self._waiters: list[Deferred[str]] = []

    @property
    def is_lost(self) -> bool:
        return bool(self.lost_why)

    def keep_alive(self) -> Lease:
        """Renew it from now on, until it is revoked or lost; return it."""
        self._leases.keeper.add(self)
        return self

    def when_lost(self) -> Deferred[str]:
        """Fire with the reason when it is gone; known only of one that is kept alive.

        Any number of such Deferreds; cancelling one ends nothing else.
        """
        waiter: Deferred[str] = Deferred(self._wait_no_more)
        if self.is_lost:
            waiter.callback(self.lost_why)
        else:
            self._waiters.append(waiter)
        return waiter

    def _wait_no_more(self, waiter: Deferred[str]) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)

    def check(self) -> None:
        """Raise `LeaseLostError` when it is gone."""
        if self.is_lost:
            raise LeaseLostError(self.lost_why)

    def revoke(self, *, timeout_ms: int | None = None) -> Deferred[None]:
        """End it, and delete its keys.  One that is gone already has been."""
        self._leases.keeper.remove(self)
        self.lose(REVOKED)
        revoked = self._leases.revoke(self.id, timeout_ms=timeout_ms)
        return revoked.addErrback(_gone_is_gone).addCallback(lambda _: None)

    def lose(self, why: str) -> None:
        """Note that it is gone."""
        if not self.is_lost:
            self.lost_why = why
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                waiter.callback(why)


def _gone_is_gone(reason: Failure) -> None:
    reason.trap(StatusError)
    error = reason.value
    if not isinstance(error, StatusError) or error.code != NOT_FOUND:
        reason.raiseException()


class Leases:
    """The leases of a client."""

    def __init__(self, channel: RetryingChannel) -> None:
        self.channel = channel
        self._calls = Calls(channel)
        self.keeper = LeaseKeeper(channel)

    def grant(
        self, ttl_s: int, *, lease_id: int = 0, timeout_ms: int | None = None
    ) -> Deferred[Lease]:
        """Return a new lease.  ``lease_id`` 0: the server chooses."""
        asked_s = self.channel.clock.seconds()
        request = pb.LeaseGrantRequest(TTL=ttl_s, ID=lease_id)
        granted = self._calls.lease_grant(request, timeout_ms=timeout_ms)
        return granted.addCallback(lambda answer: Lease(self, answer.ID, answer.TTL, asked_s))

    def adopt(self, lease_id: int, ttl_s: int) -> Lease:
        """Return a lease that somebody else was granted, as if it were granted now."""
        return Lease(self, lease_id, ttl_s, self.channel.clock.seconds())

    def revoke(
        self, lease_id: int, *, timeout_ms: int | None = None
    ) -> Deferred[pb.LeaseRevokeResponse]:
        """End a lease, and delete its keys."""
        return self._calls.lease_revoke(pb.LeaseRevokeRequest(ID=lease_id), timeout_ms=timeout_ms)

    def time_to_live(
        self, lease_id: int, *, keys: bool = False, timeout_ms: int | None = None
    ) -> Deferred[pb.LeaseTimeToLiveResponse]:
        """Return what is left of a lease, with ``keys`` its keys, too.  TTL -1: there is none."""
        request = pb.LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        return self._calls.lease_time_to_live(request, timeout_ms=timeout_ms)

    def list(self, *, timeout_ms: int | None = None) -> Deferred[pb.LeaseLeasesResponse]:
        """Return the ids of all leases."""
        return self._calls.lease_leases(pb.LeaseLeasesRequest(), timeout_ms=timeout_ms)

    def renew(self, lease_id: int, *, timeout_ms: int | None = None) -> Deferred[int]:
        """Renew a lease once; return its time to live.  Fails with `LeaseLostError`."""
        return Deferred.fromCoroutine(self._renew(lease_id, timeout_ms))

    async def _renew(self, lease_id: int, timeout_ms: int | None) -> int:
        await self.channel.prepare()
        request = pb.LeaseKeepAliveRequest(ID=lease_id)
        stream = self._calls.lease_keep_alive(request, timeout_ms=timeout_ms)
        try:
            answer = await stream.receive()
        finally:
            stream.cancel()
        if answer is None or answer.TTL <= 0:
            raise LeaseLostError(EXPIRED)
        return answer.TTL

    def close(self) -> None:
        """Renew nothing more."""
        self.keeper.close()


class Kept:
    """A lease in the keeper."""

    __slots__ = ("asked_s", "is_answered", "lease", "timer")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.asked_s = 0.0
        self.is_answered = True
        self.timer: IDelayedCall | None = None


class LeaseKeeper:
    """Renews leases: each three times in its time to live, all on one stream.

    A stream that leaves a question unanswered until the next one is due is given up: the next
    stream goes to another server.
    """

    def __init__(self, channel: RetryingChannel, kept_max: int = KEPT_LEASES_MAX) -> None:
        self._channel = channel
        self._kept_max = kept_max
        self._clock = channel.clock
        self._calls = Calls(channel)
        self._kept: dict[int, Kept] = {}
        self._stream: KeepAlives | None = None
        self._is_opening = False
        self._reopening: IDelayedCall | None = None

    def add(self, lease: Lease) -> None:
        """Renew ``lease`` from now on.  Raises `StatusError` when there are too many."""
        if lease.id in self._kept or lease.is_lost:
            return
        if len(self._kept) >= self._kept_max:
            raise StatusError(RESOURCE_EXHAUSTED, "etcdtw: too many leases are kept alive")
        kept = self._kept[lease.id] = Kept(lease)
        self._ask(kept)

    def remove(self, lease: Lease) -> None:
        """Renew ``lease`` no longer."""
        kept = self._kept.pop(lease.id, None)
        if kept is not None and kept.timer is not None and kept.timer.active():
            kept.timer.cancel()
        if not self._kept:
            self._drop()
            if self._reopening is not None:
                self._reopening.cancel()
                self._reopening = None

    def close(self) -> None:
        """Renew nothing more; the leases end by themselves."""
        for kept in list(self._kept.values()):
            self.remove(kept.lease)

    def _ask(self, kept: Kept) -> None:
        """Ask for one lease, and come back when it is due again."""
        lease = kept.lease
        now_s = self._clock.seconds()
        if now_s >= lease.ends_s:
            self._lose(kept, NO_ANSWER)
            return
        if not kept.is_answered and self._stream is not None:
            self._drop()
        kept.asked_s = now_s
        kept.is_answered = False
        wait_s = min(lease.ttl_s / ASKS_PER_TTL, lease.ends_s - now_s)
        kept.timer = self._clock.callLater(wait_s, self._ask, kept)
        if self._stream is not None:
            self._stream.send(pb.LeaseKeepAliveRequest(ID=lease.id))
        elif self._reopening is None:
            self._open()

    def _lose(self, kept: Kept, why: str) -> None:
        self.remove(kept.lease)
        kept.lease.lose(why)

    def _open(self) -> None:
        if not self._is_opening:
            self._is_opening = True
            self._channel.prepare().addCallbacks(self._begin, self._not_prepared)

    def _not_prepared(self, _: Failure) -> None:
        self._is_opening = False
        self._reopen()

    def _begin(self, _: None) -> None:
        """Open a stream, and ask for what is due on it."""
        self._is_opening = False
        if not self._kept:
            return
        shown = self._channel.token
        stream = self._stream = self._calls.lease_keep_alive(metadata=NEEDS_LEADER)
        for kept in self._kept.values():
            if not kept.is_answered:
                stream.send(pb.LeaseKeepAliveRequest(ID=kept.lease.id))
        reading = ensureDeferred(self._read(stream, shown))
        reading.addErrback(lambda reason: log.failure("keep-alives failed", reason))

    async def _read(self, stream: KeepAlives, shown: Metadata) -> None:
        """Take a stream's answers to its end, and open another one, unless that was done."""
        is_refused = False
        try:
            async for answer in stream:
                self._answered(answer)
        except StatusError as error:
            is_refused = retry_rules.is_token_refused(error)
        if self._stream is not stream:
            return
        self._stream = None
        if is_refused:  # renewed once for each stream, and those are `REOPEN_S` apart
            self._channel.renew(shown).addErrback(lambda _: None)
        self._reopen()

    def _reopen(self) -> None:
        if self._kept and self._reopening is None:
            self._reopening = self._clock.callLater(REOPEN_S, self._reopen_now)

    def _reopen_now(self) -> None:
        self._reopening = None
        if self._stream is None and any(not kept.is_answered for kept in self._kept.values()):
            self._open()

    def _answered(self, answer: pb.LeaseKeepAliveResponse) -> None:
        kept = self._kept.get(answer.ID)
        if kept is None:
            return
        if answer.TTL <= 0:
            self._lose(kept, EXPIRED)
            return
        kept.is_answered = True
        kept.lease.ttl_s = answer.TTL
        kept.lease.ends_s = kept.asked_s + answer.TTL

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
