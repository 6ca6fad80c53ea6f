"""Locks and elections, on a member in memory."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred, TimeoutError, gatherResults
from twisted.internet.task import deferLater

from etcdtw.client.channel import NotTakenError
from etcdtw.client.elections import Election, NotLeaderError
from etcdtw.client.keys import Key
from etcdtw.client.kv import KeyValues
from etcdtw.client.lease import LeaseLostError, Leases
from etcdtw.client.locks import Lock, LockedError
from etcdtw.client.network.retrying import RetryingChannel
from etcdtw.grpc.call import UNAVAILABLE, StatusError
from tests.client.member_rig import MemberRig


class LosesAnswers:
    """A channel on which the next answers of one method are lost."""

    def __init__(self, channel: Any, losses: int, method: str = "/Txn") -> None:
        self._channel = channel
        self._method = method
        self.losses = losses

    def unary(self, path: str, *more: Any) -> Deferred[bytes]:
        answered: Deferred[bytes] = self._channel.unary(path, *more)
        if path.endswith(self._method) and self.losses:
            self.losses -= 1
            answered.addCallback(self._lose)
        return answered

    def stream(self, *more: Any) -> Any:
        return self._channel.stream(*more)

    def _lose(self, _: bytes) -> bytes:
        kind = StatusError if self._method == "/Txn" else NotTakenError
        raise kind(UNAVAILABLE, "error reading from server: EOF")


class LockRig(MemberRig):
    """Many clients of one member."""

    def __init__(self) -> None:
        super().__init__()
        self.start()
        self.seconds = self.node.clock
        self.channel = self.connect()
        self.kv = KeyValues(self.channel)
        self.leases = Leases(self.channel)

    def connect(self) -> RetryingChannel:
        return RetryingChannel(
            self.loopback.connect(),  # type: ignore[arg-type]
            self.seconds,
            random=lambda: 0.5,
        )

    def lock(self, name: Key = "l", **more: Any) -> Lock:
        channel = self.connect()
        return Lock(channel, Leases(channel), name, **more)

    def election(self, name: Key = "e", **more: Any) -> Election:
        channel = self.connect()
        return Election(channel, Leases(channel), name, **more)

    def sleep(self, seconds: float) -> Deferred[None]:
        return deferLater(self.seconds, seconds)

    async def line(self, name: bytes) -> list[bytes]:
        """Return the keys of those who stand in line."""
        found = await self.kv.get(name + b"/", prefix=True, sort="create")
        return [kv.key for kv in found.kvs]


@pytest.fixture
def rig() -> LockRig:
    return LockRig()


def test_who_comes_first_is_let_in_first(rig: LockRig) -> None:
    async def story() -> None:
        tokens: list[int] = []
        inside: list[int] = []

        async def user(number: int) -> None:
            async with rig.lock() as lock:
                inside.append(number)
                assert inside == [number]
                tokens.append(lock.token)
                await rig.sleep(0.2)
                inside.clear()

        await gatherResults([Deferred.fromCoroutine(user(number)) for number in range(4)])
        assert tokens == sorted(set(tokens))
        assert await rig.line(b"l") == []

    rig.do(story())


def test_the_keys_are_those_of_etcds_clients(rig: LockRig) -> None:
    async def story() -> None:
        lease = await rig.leases.grant(60)
        lock = rig.lock("name", lease=lease)
        token = await lock.acquire()
        found = (await rig.kv.get("name/", prefix=True)).kvs
        assert [(kv.key, kv.value, kv.lease, kv.create_revision) for kv in found] == [
            (b"name/%x" % lease.id, b"", lease.id, token)
        ]
        await lock.release()
        assert not lease.is_lost  # it was not the lock's own
        assert (await rig.leases.time_to_live(lease.id)).TTL > 0

    rig.do(story())


def test_a_lock_that_is_taken_is_not_waited_for_unless_asked(rig: LockRig) -> None:
    async def story() -> None:
        first, second = rig.lock(), rig.lock()
        await first.acquire()
        with pytest.raises(LockedError):
            await second.try_acquire()
        assert len(await rig.line(b"l")) == 1
        with pytest.raises(TimeoutError):
            await second.acquire(timeout_ms=500)
        await rig.sleep(0.5)
        assert len(await rig.line(b"l")) == 1
        await first.release()
        assert await second.try_acquire() > 0
        await second.release()

    rig.do(story())


def test_a_lease_that_ends_lets_the_next_one_in(rig: LockRig) -> None:
    async def story() -> None:
        first, second = rig.lock(), rig.lock()
        await first.acquire()
        waiting = second.acquire()
        lease_id = (await rig.kv.get(first.key)).kvs[0].lease
        await rig.leases.revoke(lease_id)
        assert await waiting > 0
        assert not (await rig.kv.txn().when(first.is_held_compare()).commit()).succeeded
        assert (await rig.kv.txn().when(second.is_held_compare()).commit()).succeeded
        await second.release()

    rig.do(story())


def test_who_lost_the_lease_while_waiting_is_told(rig: LockRig) -> None:
    async def story() -> None:
        first, second = rig.lock(), rig.lock()
        await first.acquire()
        waiting = second.acquire()
        await rig.sleep(0.2)
        own = (await rig.kv.get(second.key)).kvs[0].lease
        await rig.leases.revoke(own)
        await first.release()
        with pytest.raises(LeaseLostError):
            await waiting
        assert not second.is_held

    rig.do(story())


def test_waiting_outlives_compaction(rig: LockRig) -> None:
    async def story() -> None:
        first, second = rig.lock(), rig.lock()
        await first.acquire()
        waiting = second.acquire()
        for number in range(5):
            revision = (await rig.kv.put("other", str(number))).header.revision
        await rig.kv.compact(revision)
        await first.release()
        assert await waiting > 0
        await second.release()

    rig.do(story())


def test_one_who_stops_waiting_leaves_the_line(rig: LockRig) -> None:
    async def story() -> None:
        first, second, third = rig.lock(), rig.lock(), rig.lock()
        await first.acquire()
        waiting = second.acquire()
        last = third.acquire()
        await rig.sleep(0.2)
        assert len(await rig.line(b"l")) == 3
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        await rig.sleep(0.3)
        assert len(await rig.line(b"l")) == 2
        await first.release()
        assert await last > 0
        await third.release()

    rig.do(story())


def test_an_election_has_one_leader_at_a_time(rig: LockRig) -> None:
    async def story() -> None:
        first, second = rig.election(), rig.election()
        assert await first.leader() is None
        token = await first.campaign("one")
        assert (await rig.kv.txn().when(first.is_leader_compare()).commit()).succeeded
        waiting = second.campaign("two")
        await first.proclaim("still one")
        found = await second.leader()
        assert found is not None
        assert (found.value, found.create_revision) == (b"still one", token)
        await first.resign()
        assert await waiting > token
        with pytest.raises(NotLeaderError):
            await first.proclaim("one again")
        await second.resign()

    rig.do(story())


def test_a_leader_whose_key_is_gone_cannot_speak(rig: LockRig) -> None:
    async def story() -> None:
        election = rig.election()
        await election.campaign("one")
        await rig.kv.delete("e/", prefix=True)
        with pytest.raises(NotLeaderError):
            await election.proclaim("two")
        await election.resign()

    rig.do(story())


def test_observers_hear_of_each_leader(rig: LockRig) -> None:
    async def story() -> None:
        heard: list[bytes] = []

        async def observe() -> None:
            async for kv in rig.election().observe():
                heard.append(kv.value)
                if kv.value == b"two":
                    return

        observing = Deferred.fromCoroutine(observe())
        await rig.sleep(0.2)
        first, second = rig.election(), rig.election()
        await first.campaign("one")
        await rig.sleep(0.2)
        await first.proclaim("uno")
        waiting = second.campaign("two")
        await first.resign()
        await waiting
        await observing
        assert heard == [b"one", b"uno", b"two"]
        await second.resign()

    rig.do(story())


def test_a_campaign_with_a_lease_that_leads_says_the_new_value(rig: LockRig) -> None:
    async def story() -> None:
        lease = await rig.leases.grant(60)
        first, again = rig.election(lease=lease), rig.election(lease=lease)
        token = await first.campaign("one")
        assert await again.campaign("two") == token
        found = await first.leader()
        assert found is not None
        assert found.value == b"two"
        await again.resign()
        assert await rig.line(b"e") == []

    rig.do(story())


def test_what_is_not_known_to_be_done_is_done_again(rig: LockRig) -> None:
    """A lock's changes are guarded, so that they may be made twice."""

    async def story() -> None:
        lost = LosesAnswers(rig.loopback.connect(), 2)
        channel = RetryingChannel(lost, rig.seconds, random=lambda: 0.5)  # type: ignore[arg-type]
        lock = Lock(channel, Leases(channel), "l")
        token = await lock.acquire()
        found = (await rig.kv.get("l/", prefix=True)).kvs
        assert [(kv.create_revision, kv.version) for kv in found] == [(token, 1)]
        lost.losses = 2
        await lock.release()
        assert await rig.line(b"l") == []

    rig.do(story())


def test_who_waits_goes_on_while_no_member_answers(rig: LockRig) -> None:
    async def story() -> None:
        first = rig.lock()
        await first.acquire()
        lost = LosesAnswers(rig.loopback.connect(), 20, "/Range")
        channel = RetryingChannel(lost, rig.seconds, random=lambda: 0.5)  # type: ignore[arg-type]
        lock = Lock(channel, Leases(channel), "l")
        waiting = lock.acquire()
        while len(await rig.line(b"l")) < 2:
            await rig.sleep(0.1)
        await first.release()
        assert await waiting > 0
        assert lost.losses == 0
        await lock.release()

    rig.do(story())


def test_who_waits_gives_up_with_the_lease_when_no_member_answers(rig: LockRig) -> None:
    async def story() -> None:
        first = rig.lock()
        await first.acquire()
        lost = LosesAnswers(rig.loopback.connect(), 1_000_000, "/Range")
        channel = RetryingChannel(lost, rig.seconds, random=lambda: 0.5)  # type: ignore[arg-type]
        lease = await Leases(channel).grant(3)
        with pytest.raises(LeaseLostError):
            await Lock(channel, Leases(channel), "l", lease=lease).acquire()
        await first.release()

    rig.do(story())


def test_a_lock_can_be_taken_again_after_it_was_given_back(rig: LockRig) -> None:
    async def story() -> None:
        lock = rig.lock()
        first = await lock.acquire()
        with pytest.raises(AssertionError):
            await lock.acquire()
        await lock.release()
        await lock.release()
        assert await lock.acquire() > first
        assert await rig.line(b"l") == [lock.key]
        await lock.release()

    rig.do(story())


def test_a_campaign_that_takes_too_long_leaves_the_line(rig: LockRig) -> None:
    async def story() -> None:
        first, second = rig.election(), rig.election()
        await first.campaign("one")
        with pytest.raises(TimeoutError):
            await second.campaign("two", timeout_ms=300)
        await rig.sleep(0.5)
        assert len(await rig.line(b"e")) == 1
        with pytest.raises(NotLeaderError):
            second.token  # noqa: B018 - raises
        lost = first.when_lost()
        await first.resign()
        await first.resign()
        assert await lost

    rig.do(story())


def test_an_observer_asks_until_a_member_answers(rig: LockRig) -> None:
    async def story() -> None:
        election = rig.election()
        await election.campaign("a")
        lost = LosesAnswers(rig.loopback.connect(), 20, "/Range")
        channel = RetryingChannel(lost, rig.seconds, random=lambda: 0.5)  # type: ignore[arg-type]
        async for kv in Election(channel, Leases(channel), "e").observe():
            assert kv.value == b"a"
            break
        assert lost.losses == 0
        await election.resign()

    rig.do(story())


def test_an_observer_outlives_compaction(rig: LockRig) -> None:
    async def story() -> None:
        heard: list[bytes] = []

        async def observe() -> None:
            async for kv in rig.election().observe():
                heard.append(kv.value)
                if kv.value == b"b":
                    return
                # While it looks away, what it would watch is forgotten.
                await election.proclaim("b")
                revision = (await rig.kv.put("other", "x")).header.revision
                await rig.kv.compact(revision)

        election = rig.election()
        await election.campaign("a")
        await observe()
        assert heard == [b"a", b"b"]
        await election.resign()

    rig.do(story())
