"""Elections among clients, with the keys of etcd's `concurrency` package.

A leader is who stands first in line (see `locks.Place`); the value of its key is what it says of
itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from etcdtw.client import txn
from etcdtw.client.keys import Key, octets
from etcdtw.client.locks import REPEAT_WAIT_S, Contender, Place
from etcdtw.client.watch import RESUMES_MAX, CompactedError, Watch, watch_request
from etcdtw.grpc.call import UNAVAILABLE, StatusError
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import mvccpb

_PUT = 0


class NotLeaderError(Exception):
    """We do not lead, or no longer."""


class Election(Contender):
    """An election on ``name``.

    A campaign's own lease (see `Contender`) is revoked when we resign.
    """

    _is_wanted = False

    @property
    def token(self) -> int:
        """The fencing token of our leadership."""
        return self._ours.revision

    @property
    def key(self) -> bytes:
        """Our key."""
        return self._ours.key

    @property
    def _ours(self) -> Place:
        if self._place is None or not self._place.revision:
            raise NotLeaderError("we have not campaigned")
        return self._place

    def is_leader_compare(self) -> pb.Compare:
        """What holds in a transaction exactly while our key stands."""
        return txn.create_revision(self.key).equals(self.token)

    def when_lost(self) -> Deferred[str]:
        """Fire with the reason when our lease is lost."""
        return self._ours.lease.when_lost()

    def campaign(self, value: Key, *, timeout_ms: int | None = None) -> Deferred[int]:
        """Wait until we lead; return the fencing token.  Fails as `Lock.acquire`."""
        return self._within(timeout_ms, self._campaign(octets(value)))

    def proclaim(self, value: Key) -> Deferred[None]:
        """Say something else of ourselves.  Fails with `NotLeaderError`."""
        return Deferred.fromCoroutine(self._proclaim(octets(value)))

    def resign(self) -> Deferred[None]:
        """Let somebody else lead."""
        return Deferred.fromCoroutine(self._resign())

    def leader(self, *, timeout_ms: int | None = None) -> Deferred[mvccpb.KeyValue | None]:
        """Return the leader's key; None: there is none."""
        found = self._kv.get(
            self._prefix, prefix=True, sort="create", limit=1, timeout_ms=timeout_ms
        )
        return found.addCallback(lambda answer: answer.kvs[0] if answer.kvs else None)

    async def observe(self) -> AsyncIterator[mvccpb.KeyValue]:
        """Yield the leader's key, and again whenever it changes or says something else.

        The last word of each leader comes; earlier ones may be left out.
        """
        while True:
            found = await self._first_in_line()
            revision = found.header.revision
            if found.kvs:
                yield found.kvs[0]
                async for key in self._words_of(found.kvs[0].key, revision + 1):
                    yield key
            else:
                await self._first_put(revision + 1)

    async def _first_in_line(self) -> pb.RangeResponse:
        for _ in range(RESUMES_MAX):
            try:
                return await self._kv.get(self._prefix, prefix=True, sort="create", limit=1)
            except StatusError as error:
                if error.code != UNAVAILABLE:
                    raise
                await deferLater(self._channel.clock, REPEAT_WAIT_S)
        return await self._kv.get(self._prefix, prefix=True, sort="create", limit=1)

    async def _words_of(self, key: bytes, revision: int) -> AsyncIterator[mvccpb.KeyValue]:
        watch = Watch(self._channel, watch_request(key, start_revision=revision))
        try:
            async for event in watch:
                if event.type != _PUT:
                    return
                yield event.kv
        except CompactedError:
            return  # looked up anew
        finally:
            watch.cancel()

    async def _first_put(self, revision: int) -> None:
        request = watch_request(self._prefix, prefix=True, start_revision=revision, no_deletes=True)
        watch = Watch(self._channel, request)
        try:
            await watch.receive()
        except CompactedError:
            return
        finally:
            watch.cancel()

    async def _campaign(self, value: bytes) -> int:
        assert not self._is_wanted, "campaigning already"
        self._is_wanted = True
        try:
            place = await self._find_place()
            first = await place.enter(value)
            if first is not None and first.key == place.key and first.value != value:
                await self._proclaim(value)
            if first is not None and first.create_revision != place.revision:
                await place.wait_for_turn()
        except BaseException as error:
            await self._have_left(self.resign(), error)
            raise
        return place.revision

    async def _proclaim(self, value: bytes) -> None:
        place = self._ours
        answer = await place.repeat(
            self._kv.txn()
            .when(txn.create_revision(place.key).equals(place.revision))
            .then(txn.put(place.key, value, lease=place.lease.id))
        )
        if not answer.succeeded:
            place.revision = 0
            raise NotLeaderError("our key is gone: its lease has ended")

    async def _resign(self) -> None:
        self._is_wanted = False
        await self._leave_place()
