"""The client for scripts, in a thread of its own, with a member in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as installed_reactor
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread

from etcdtw.client import txn
from etcdtw.client.blocking import BlockingClient
from etcdtw.client.locks import LockedError
from tests.client.member_rig import MemberRig
from tests.client.network.network_rig import FakeServer

TURN_S: Final = 0.001
reactor: Final[Any] = installed_reactor


async def beside_a_member(script: Callable[[BlockingClient], Any]) -> Any:
    """Run ``script`` in a thread, while the reactor here carries octets to a member and back."""
    rig = MemberRig()
    rig.start()
    server = FakeServer("m")
    server.methods = rig.methods

    def turn() -> None:
        rig.run(0.02)
        for link in server.links:
            while link.carry():
                pass

    def whole() -> Any:
        with BlockingClient([server]) as client:
            return script(client)

    turning = LoopingCall(turn)
    turning.start(TURN_S).addErrback(lambda reason: reason.printTraceback())
    try:
        return await deferToThread(whole)
    finally:
        turning.stop()


@ensureDeferred
async def test_calls_wait_for_their_answers() -> None:
    def script(client: BlockingClient) -> None:
        revision = client.put("k", "1").header.revision
        assert client.get("k").kvs[0].mod_revision == revision
        taken = client.commit(client.txn().when(txn.value("k").equals("1")).then(txn.get("k")))
        assert taken.succeeded
        assert client.delete("k").deleted == 1

    await beside_a_member(script)


@ensureDeferred
async def test_events_and_parts_come_one_by_one() -> None:
    def script(client: BlockingClient) -> None:
        with client.watch("k", prefix=True) as events:
            client.put("k1", "1")
            client.put("k2", "2")
            found = iter(events)
            assert [next(found).kv.key for _ in range(2)] == [b"k1", b"k2"]
        assert list(events) == []
        parts = client.range_stream("k", prefix=True)
        assert [kv.key for part in parts for kv in part.range_response.kvs] == [b"k1", b"k2"]

    await beside_a_member(script)


@ensureDeferred
async def test_locks_leases_and_elections() -> None:
    def script(client: BlockingClient) -> None:
        with client.lock("l") as lock:
            assert lock.is_held
            other = client.lock("l")
            with pytest.raises(LockedError):
                other.try_acquire()
            first = lock.token
        assert other.acquire(timeout_ms=10_000) > first
        other.release()
        lease = client.lease(60, keep_alive=True)
        client.put("leased", "1", lease=lease.id)
        client.revoke(lease)
        assert client.get("leased").count == 0
        election = client.election("e")
        assert client.wait(lambda: election.campaign("me")) > 0
        client.wait(election.resign)

    await beside_a_member(script)


def test_the_thread_of_the_reactor_cannot_wait_for_itself() -> None:
    with pytest.raises(RuntimeError, match="the reactor runs in this thread"):
        BlockingClient("127.0.0.1:2379")
