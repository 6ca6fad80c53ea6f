"""A Lease service over a node whose proposals and reads wait until the test answers them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.task import Clock

from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.store import Store
from etcdtw.rpc.lease.service import LeaseService
from tests.support.fake_facade import FakeFacade
from tests.support.model_backend import ModelBackend
from tests.support.watch_rig import encode_header


class LeaseRig(FakeFacade):
    """A node whose proposals and reads wait until the test answers them."""

    leader_id: int
    lessor: Lessor

    def __init__(self) -> None:
        self.clock: Any = Clock()
        self.leader_id = self.member_id = 2
        self.lessor = Lessor(2)
        self.lessor.promote(0)
        self.storage = self.backend = ModelBackend()
        self.store = Store(self.backend, self.lessor.exists)
        self.store.revision = 5
        self.proposals: list[tuple[int, bytes, Any, Any, Callable[[Any, Any], None]]] = []
        self.reads: list[tuple[Any, Callable[[Any, Exception | None], None]]] = []
        self.confirms_at_once = False
        self.service = LeaseService(self, Random(1).getrandbits, 1.0)

    @property
    def now_ms(self) -> int:
        return int(self.clock.seconds() * 1000)

    def current_lessor(self) -> Lessor:
        self.lessor.advance(self.now_ms)
        return self.lessor

    def header(self, revision: int) -> bytes:
        return encode_header(revision)

    def propose(
        self, field: int, message: bytes, parsed: Any, call: Any, done: Callable[[Any, Any], None]
    ) -> None:
        self.proposals.append((field, message, parsed, call, done))

    def read(self, call: Any, done: Callable[[Any, Exception | None], None]) -> None:
        if self.confirms_at_once:
            done(call, None)
        else:
            self.reads.append((call, done))

    def linearize(self, done: Callable[[Exception | None], None]) -> None:
        self.read(None, lambda _, error: done(error))

    def settle(self, outcome: Applied) -> tuple[int, bytes]:
        """Apply the oldest proposal with this outcome; return its field and octets."""
        field, message, _, call, done = self.proposals.pop(0)
        done(call, outcome)
        return field, message

    def confirm(self, error: Exception | None = None) -> None:
        """Answer the oldest read."""
        call, done = self.reads.pop(0)
        done(call, error)
