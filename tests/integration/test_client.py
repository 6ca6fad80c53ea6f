"""The client over the network, against members of ours and real ones."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final

import pytest
from pytest_twisted import blockon, ensureDeferred
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as LateError
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from etcdtw.client import txn
from etcdtw.client.client import Client
from etcdtw.client.locks import LockedError
from etcdtw.client.watch import CompactedError, WatchRefusedError
from etcdtw.grpc.call import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    PERMISSION_DENIED,
    UNAVAILABLE,
    StatusError,
)
from tests.support.cluster_processes import Cluster
from tests.support.cluster_programs import with_programs
from tests.support.judges import judge_program
from tests.support.processes import PROGRAMS, RunningMember

pytestmark = pytest.mark.integration

WITHIN_S: Final = 60.0
SLOW_PROGRAMS: Final = [with_programs(program) for program in PROGRAMS]
reactor: Final[Any] = installed_reactor

Story = Callable[[Client], Coroutine[Any, Any, Any]]


async def told(servers: str | list[str], story: Story, **more: Any) -> Any:
    """Run ``story`` with a client, and leave nothing behind."""

    async def whole() -> Any:
        async with Client(reactor, servers, **more) as client:
            return await story(client)

    return await Deferred.fromCoroutine(whole()).addTimeout(WITHIN_S, reactor)


def sleep(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)


async def error_of(call: Awaitable[Any]) -> Any:
    try:
        found = await call
    except Exception as error:
        return error
    raise AssertionError(f"no error, but {found!r}")


@ensureDeferred
async def test_keys_and_transactions(member: RunningMember) -> None:
    async def story(client: Client) -> None:
        first = (await client.put("kv/a", "1")).header.revision
        put = await client.put("kv/a", b"2", prev_kv=True)
        assert put.prev_kv.value == b"1"
        assert (await client.get("kv/a", revision=first)).kvs[0].value == b"1"
        taken = await (
            client.txn()
            .when(txn.value("kv/a").equals("2"), txn.version("kv/none").equals(0))
            .then(txn.put("kv/b", "3"), txn.get("kv/", prefix=True))
            .otherwise(txn.delete("kv/", prefix=True))
            .commit()
        )
        assert taken.succeeded
        assert [kv.key for kv in taken.responses[1].response_range.kvs] == [b"kv/a", b"kv/b"]
        nested = txn.Txn().when(txn.mod_revision("kv/b").is_greater(first)).then(txn.get("kv/b"))
        other = await (
            client.txn()
            .when(txn.create_revision("kv/a").differs(first))
            .otherwise(txn.nested(nested))
            .commit()
        )
        assert not other.succeeded
        assert other.responses[0].response_txn.succeeded
        assert (await client.delete("kv/", prefix=True)).deleted == 2

    await told(member.client_url, story)


@ensureDeferred
async def test_a_range_comes_in_parts(member: RunningMember) -> None:
    async def story(client: Client) -> list[bytes]:
        keys = [b"parts/%03d" % number for number in range(200)]
        await gatherResults([client.put(key, bytes(10_000)) for key in keys])
        parts = client.range_stream("parts/", prefix=True)
        return [kv.key async for part in parts for kv in part.range_response.kvs]

    assert await told(member.client_url, story) == [b"parts/%03d" % number for number in range(200)]


@ensureDeferred
async def test_a_watch_brings_what_was_and_what_comes(member: RunningMember) -> None:
    async def story(client: Client) -> None:
        first = (await client.put("w/a", "1")).header.revision
        watch = client.watch("w/", prefix=True, start_revision=first)
        assert (await anext(watch)).kv.value == b"1"
        await client.put("w/b", "2")
        await client.delete("w/a")
        assert (await anext(watch)).kv.key == b"w/b"
        assert (await anext(watch)).type == 1
        waiting = watch.receive()
        watch.cancel()
        assert await waiting is None
        now = client.watch("w/", prefix=True)
        await now.start()
        await client.put("w/c", "3")
        assert (await anext(now)).kv.key == b"w/c"
        now.request_progress()
        progress = await now.receive()
        assert progress is not None
        assert not progress.events
        now.cancel()
        last = (await client.put("w/a", "4")).header.revision
        await client.compact(last)
        error = await error_of(anext(client.watch("w/a", start_revision=first)))
        assert isinstance(error, CompactedError)
        assert error.compact_revision == last

    await told(member.client_url, story)


@ensureDeferred
async def test_a_slow_reader_of_a_watch_holds_up_nobody(member: RunningMember) -> None:
    count, value = 300, bytes(50_000)

    async def story(client: Client) -> None:
        slow = client.watch("slow/", prefix=True)
        await slow.start()
        for number in range(count):
            await client.put(f"slow/{number % 10}", value)
        assert (await client.get("slow/1", count_only=True)).count == 1
        seen = [(await anext(slow)).kv.mod_revision for _ in range(count)]
        assert seen == list(range(seen[0], seen[0] + count))
        slow.cancel()

    await told(member.client_url, story)


@ensureDeferred
async def test_a_lease_lives_as_long_as_it_is_kept_alive(member: RunningMember) -> None:
    async def story(client: Client) -> None:
        kept = (await client.leases.grant(2)).keep_alive()
        left = await client.leases.grant(2)
        await client.put("lease/kept", "1", lease=kept.id)
        await client.put("lease/left", "1", lease=left.id)
        await sleep(4.5)
        assert not kept.is_lost
        found = await client.get("lease/", prefix=True)
        assert [kv.key for kv in found.kvs] == [b"lease/kept"]
        assert (await client.leases.time_to_live(kept.id, keys=True)).keys == [b"lease/kept"]
        lost = kept.when_lost()
        await client.leases.revoke(kept.id)
        assert "not found" in await lost
        assert (await client.get("lease/", prefix=True)).count == 0

    await told(member.client_url, story)


@ensureDeferred
async def test_a_lock_lets_one_in_at_a_time_with_growing_tokens(member: RunningMember) -> None:
    async def story(client: Client) -> None:
        tokens: list[int] = []
        inside = 0

        async def user() -> None:
            nonlocal inside
            async with client.lock("lock/a") as lock:
                inside += 1
                assert inside == 1
                tokens.append(lock.token)
                held = await client.txn().when(lock.is_held_compare()).commit()
                assert held.succeeded
                inside -= 1

        await gatherResults([Deferred.fromCoroutine(user()) for _ in range(8)])
        assert tokens == sorted(tokens)
        assert len(tokens) == 8
        assert (await client.get("lock/a/", prefix=True)).count == 0

    await told(member.client_url, story)


@ensureDeferred
async def test_a_lock_whose_lease_is_revoked_is_lost(member: RunningMember) -> None:
    async def story(client: Client) -> None:
        lock = client.lock("lock/b", ttl_s=2)
        await lock.acquire()
        other = client.lock("lock/b")
        assert isinstance(await error_of(other.try_acquire()), LockedError)
        assert isinstance(await error_of(other.acquire(timeout_ms=200)), LateError)
        waiting = other.acquire()
        lost = lock.when_lost()
        lease_id = (await client.get(lock.key)).kvs[0].lease
        await client.leases.revoke(lease_id)
        assert await waiting > 0
        assert await lost
        assert not lock.is_held
        await other.release()
        await lock.release()

    await told(member.client_url, story)


@ensureDeferred
async def test_a_lock_excludes_those_of_etcdctl(member: RunningMember) -> None:
    async def story(client: Client) -> None:
        lock = client.lock("lock/c")
        await lock.acquire()
        etcdctl = str(judge_program("etcdctl"))
        command = [etcdctl, "--endpoints", member.endpoint, "lock", "lock/c"]
        holder = subprocess.Popen([*command, "sleep", "1"], stdout=subprocess.PIPE)
        try:
            while (await client.get("lock/c/", prefix=True)).count < 2:
                await sleep(0.05)
            await lock.release()
            other = client.lock("lock/c")
            await sleep(0.3)
            assert isinstance(await error_of(other.try_acquire()), LockedError)
            await other.acquire()
            assert holder.wait(5) == 0
            await other.release()
        finally:
            holder.kill()
            holder.communicate()

    await told(member.client_url, story)


@ensureDeferred
async def test_an_election_has_one_leader_and_observers_hear_of_each(member: RunningMember) -> None:
    async def story(client: Client) -> None:
        heard: list[bytes] = []

        async def observer() -> None:
            async for leader in client.election("election").observe():
                heard.append(leader.value)
                if leader.value == b"second":
                    return

        observing = Deferred.fromCoroutine(observer())
        first, second = client.election("election"), client.election("election")
        token = await first.campaign("first")
        candidate = second.campaign("second")
        while not heard:
            await sleep(0.02)
        await first.proclaim("still first")
        found = await first.leader()
        assert found is not None
        assert found.value == b"still first"
        while len(heard) < 2:
            await sleep(0.02)
        assert not candidate.called
        await first.resign()
        assert await candidate > token
        await observing
        assert heard == [b"first", b"still first", b"second"]
        await second.resign()
        assert await first.leader() is None

    await told(member.client_url, story)


@ensureDeferred
async def test_members_and_maintenance(member: RunningMember) -> None:
    async def story(client: Client) -> None:
        assert [found.name for found in (await client.members.list()).members] == ["m1"]
        status = await client.only(member.endpoint).maintenance.status()
        assert status.leader == status.header.member_id
        assert (await client.maintenance.hash_kv()).hash
        assert not (await client.maintenance.alarms()).alarms
        await client.maintenance.defragment()
        octets = b"".join([part.blob async for part in client.maintenance.snapshot()])
        assert hashlib.sha256(octets[:-32]).digest() == octets[-32:]
        error = await error_of(client.get("k", timeout_ms=0))
        assert isinstance(error, StatusError)
        assert error.code == DEADLINE_EXCEEDED

    await told(member.client_url, story)


SCRIPT: Final = """
import sys
from etcdtw.client import txn
from etcdtw.client.blocking import BlockingClient

with BlockingClient(sys.argv[1]) as client:
    with client.watch("b/", prefix=True) as events:
        client.put("b/1", "x")
        client.put("b/2", "y")
        found = iter(events)
        assert [next(found).kv.key for _ in range(2)] == [b"b/1", b"b/2"]
    assert client.commit(client.txn().then(txn.get("b/1"))).succeeded
    with client.lock("b/lock") as lock:
        assert lock.is_held
    lease = client.lease(5, keep_alive=True)
    client.revoke(lease)
    assert client.delete("b/", prefix=True).deleted == 2
print("done")
"""


def test_a_script_needs_no_reactor(member: RunningMember) -> None:
    command = [sys.executable, "-W", "error", "-c", SCRIPT, member.endpoint]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


@pytest.fixture(params=PROGRAMS)
def guarded(request: pytest.FixtureRequest) -> Iterator[RunningMember]:
    """A member that asks for users: root and u, who may do all under u/."""
    with RunningMember(request.param) as member:

        async def story(client: Client) -> None:
            await client.users.add("root", "rootpw")
            await client.users.grant_role("root", "root")
            await client.users.add("u", "pw")
            await client.roles.add("r")
            await client.roles.grant("r", "readwrite", "u/", prefix=True)
            await client.users.grant_role("u", "r")
            await client.users.enable()

        blockon(Deferred.fromCoroutine(told(member.client_url, story)))
        yield member


@ensureDeferred
async def test_a_user_may_do_what_the_roles_allow(guarded: RunningMember) -> None:
    async def story(client: Client) -> None:
        await client.put("u/1", "x")
        error = await error_of(client.put("other", "x"))
        assert (error.code, error.message) == (
            PERMISSION_DENIED,
            "etcdserver: permission denied",
        )
        assert isinstance(await error_of(client.watch("other").start()), WatchRefusedError)

    await told(guarded.client_url, story, user="u", password="pw")


@ensureDeferred
async def test_a_bad_token_is_renewed_wherever_it_is_shown(
    guarded: RunningMember,
) -> None:
    async def story(client: Client) -> None:
        def spoil() -> None:
            client._channel._token = ((b"token", b"nonsense.1"),)

        await client.put("u/1", "x")
        spoil()
        answers = await gatherResults([client.get("u/1") for _ in range(20)])
        assert [answer.count for answer in answers] == [1] * 20
        spoil()
        await client.put("u/1", "y")
        spoil()
        watch = client.watch("u/1")
        assert await watch.start() > 0
        watch.cancel()
        spoil()
        assert [part async for part in client.range_stream("u/1")]
        lease = await client.leases.grant(2)
        spoil()
        lease.keep_alive()
        await sleep(3.5)
        assert not lease.is_lost
        await lease.revoke()

    await told(guarded.client_url, story, user="u", password="pw")


@pytest.mark.parametrize("program", SLOW_PROGRAMS)
@ensureDeferred
async def test_no_put_is_made_twice_and_no_event_missed_while_members_die(
    program: str,
) -> None:
    with Cluster([program] * 3) as cluster:
        urls = [member.client_url for member in cluster.all]
        acknowledged: list[int] = []
        is_over: list[bool] = []

        async def put_all(client: Client) -> None:
            number = 0
            while not is_over:
                number += 1
                try:
                    answer = await client.put(f"d/{number}", "x", timeout_ms=5_000)
                except StatusError as error:
                    # A member that dies cancels what it was asked; nobody knows if it was done.
                    if error.code not in (CANCELLED, UNAVAILABLE, DEADLINE_EXCEEDED):
                        raise
                else:
                    acknowledged.append(answer.header.revision)

        async def watch_all(client: Client) -> list[tuple[bytes, int, int]]:
            seen: list[tuple[bytes, int, int]] = []
            async for event in client.watch("d/", prefix=True):
                kv = event.kv
                if kv.key == b"d/end":
                    return seen
                seen.append((kv.key, kv.mod_revision, kv.version))
            raise AssertionError("the watch ended")

        async def story(client: Client) -> list[tuple[bytes, int, int]]:
            await client.put("before", "x")
            watching = Deferred.fromCoroutine(watch_all(client))
            putting = Deferred.fromCoroutine(put_all(client))
            for member in cluster.all[:2]:
                await sleep(1.0)
                member.kill()
                await sleep(3.0)
                await deferToThread(member.start)
            await sleep(1.0)
            is_over.append(True)
            await putting
            await client.put("d/end", "x")
            return await watching

        seen = await told(urls, story)
        assert len(acknowledged) > 20
        assert [version for _, _, version in seen] == [1] * len(seen)  # no put was made twice
        revisions = [revision for _, revision, _ in seen]
        assert revisions == sorted(set(revisions))
        assert set(acknowledged) <= set(revisions)


@pytest.mark.parametrize("program", SLOW_PROGRAMS)
@ensureDeferred
async def test_watches_leases_and_those_who_wait_outlive_a_restart(program: str) -> None:
    with RunningMember(program) as member:

        async def story(client: Client) -> None:
            watch = client.watch("k")
            await watch.start()
            lease = (await client.leases.grant(20)).keep_alive()
            first, second = client.lock("lock"), client.lock("lock")
            await first.acquire()
            waiting = second.acquire()
            while (await client.get("lock/", prefix=True)).count < 2:
                await sleep(0.05)
            member.kill()
            await sleep(6.0)  # longer than a call waits for a member
            await deferToThread(member.start)
            await client.put("k", "v")
            assert (await anext(watch)).kv.value == b"v"
            assert watch.resumes
            await first.release()
            assert await waiting > 0
            await second.release()
            assert not lease.is_lost

        await told(member.client_url, story)
