"""A member of one in memory, called from inside over its real services, screen included."""

from __future__ import annotations

import itertools
from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from etcdtw.client.calls import Calls
from etcdtw.client.loopback import Loopback
from etcdtw.grpc.call import MethodTable
from etcdtw.grpc.stats import ServerStats
from etcdtw.rpc.kv.read_queue import ReadQueue
from etcdtw.rpc.kv.service import KvService
from etcdtw.rpc.lease.service import LeaseService
from etcdtw.rpc.screening import Screening
from etcdtw.rpc.watch import WatchService
from tests.client.loopback_rig import outcome
from tests.support.node_rig import NodeRig

T = TypeVar("T")


class NoLine:
    """There is no other leader to ask."""

    def ask_leader(self, path: str, body: bytes, answered: Any) -> None:
        raise AssertionError("this member leads")


class MemberRig(NodeRig):
    """A member of one with its services."""

    def __init__(self) -> None:
        super().__init__()
        node = self.node
        self.methods = MethodTable()
        self.methods.screen = Screening(node)
        queue = ReadQueue(self.clock)
        KvService(node, reads=queue).register(self.methods)
        WatchService(node, 1.0).register(self.methods)
        ids = itertools.count(1)
        LeaseService(node, lambda bits: next(ids), 1.0, line=NoLine(), reads=queue).register(
            self.methods
        )
        self.stats = ServerStats()
        self.loopback = Loopback(self.methods, self.stats, node.clock)
        self.calls = Calls(self.loopback.connect())

    def wait(self, answer: Deferred[T], seconds: float = 2.0) -> T:
        """Let time pass until there is an answer."""
        while not answer.called:
            assert seconds > 0, "no answer"
            self.run(0.1)
            seconds -= 0.1
        return outcome(answer)  # type: ignore[no-any-return]

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.wait(Deferred.fromCoroutine(work), 10.0)
