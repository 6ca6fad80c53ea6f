"""What runs a member: its reactor and clocks, and the turns that its connections take."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.threads import deferToThreadPool

from etcdtw.server.process.piece_report import measured_pieces
from etcdtw.transport.flusher import Flusher
from etcdtw.transport.rounds import Rounds
from etcdtw.wire.pieces import Pieces

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """There before anything of a member is taken or opened."""

    reactor: Any
    clock: IReactorTime
    unix_ms: Callable[[], int]
    """The wall clock."""
    randomness: random.Random
    pieces: Pieces
    rounds: Rounds
    flusher: Flusher

    def now_ms(self) -> int:
        """Return the time by which deadlines are told."""
        return int(self.clock.seconds() * 1000)

    def now(self) -> datetime:
        """Return the time of day, for certificates."""
        return datetime.fromtimestamp(self.unix_ms() / 1000, UTC)

    def unix_s(self) -> int:
        return self.unix_ms() // 1000

    def unix_ns(self) -> int:
        return self.unix_ms() * 1_000_000

    def offload(self, function: Callable[[], _T], /) -> Deferred[_T]:
        """Run what may block in a thread; give its result."""
        pool = self.reactor.getThreadPool()
        return deferToThreadPool(self.reactor, pool, function)


def build_runtime(reactor: Any, unix_ms: Callable[[], int]) -> Runtime:
    """Return a runtime on ``reactor``; nothing runs yet."""
    pieces = measured_pieces()
    rounds = Rounds(reactor, pieces)
    return Runtime(
        reactor=reactor,
        clock=reactor,
        unix_ms=unix_ms,
        randomness=random.Random(),
        pieces=pieces,
        rounds=rounds,
        flusher=Flusher(reactor, pieces, rounds.renew),
    )
