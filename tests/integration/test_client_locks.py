"""Locks while members die and stop: no two holders at once whose leases live."""

from __future__ import annotations

from typing import Any, Final

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from etcdtw.client.client import Client
from etcdtw.client.lease import LeaseLostError
from etcdtw.client.locks import Lock
from etcdtw.client.network.bounds import NetworkBounds
from etcdtw.grpc.call import StatusError
from tests.support.cluster_processes import Cluster
from tests.support.cluster_programs import ETCD, ETCDTW

pytestmark = pytest.mark.integration

reactor: Final[Any] = installed_reactor
USERS: Final = 4
TTL_S: Final = 8
BOUNDS: Final = NetworkBounds(keepalive_ms=5_000, keepalive_timeout_ms=2_000)


class Doorkeeper:
    """Sees who is inside."""

    def __init__(self) -> None:
        self.inside: set[Lock] = set()
        self.tokens: list[int] = []
        self.overlaps = 0
        self.is_closing = False

    async def visit(self, client: Client) -> None:
        """Go in and out until it closes."""
        while not self.is_closing:
            lock = client.lock("door", ttl_s=TTL_S)
            try:
                token = await lock.acquire()
            except (StatusError, LeaseLostError):
                await sleep(0.1)
                continue
            self.overlaps += any(other.is_held for other in self.inside)
            self.inside.add(lock)
            self.tokens.append(token)
            await sleep(0.02)
            self.inside.discard(lock)
            try:
                await lock.release()
            except (StatusError, LeaseLostError):
                await sleep(0.1)


def sleep(seconds: float) -> Deferred[None]:
    return deferLater(reactor, seconds)


@pytest.mark.parametrize("program", [pytest.param(ETCD, marks=pytest.mark.long), ETCDTW])
@ensureDeferred
async def test_locks_exclude_one_another_while_members_die_and_stop(program: str) -> None:
    door = Doorkeeper()
    with Cluster([program] * 3) as cluster:
        urls = [member.client_url for member in cluster.all]
        clients = [Client(reactor, urls, bounds=BOUNDS) for _ in range(USERS)]
        visits = [Deferred.fromCoroutine(door.visit(client)) for client in clients]
        first, second, _ = cluster.all
        await sleep(1.0)
        first.kill()
        await sleep(2.0)
        await deferToThread(first.start)
        await sleep(1.0)
        second.pause()
        await sleep(10.0)
        second.resume()
        await sleep(2.0)
        door.is_closing = True
        await gatherResults(visits).addTimeout(60.0, reactor)
        await gatherResults([client.close() for client in clients])
    assert door.overlaps == 0
    assert door.tokens == sorted(set(door.tokens))
    assert len(door.tokens) > 50
