"""Linearizable reads on their way: batched, confirmed by a quorum, then applied far enough.

All reads of a turn share one ReadIndex round.  A read may be answered when a majority confirmed
our leadership after it was asked and everything up to the confirmed index is applied.

Source: Ongaro's thesis, section 6.4; etcd re-asks every 500 ms.  Each round has a context of
its own, never used again: an old confirmation says nothing about a newer read (etcd #20418).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from etcdtw.apply.errors import RequestTimeoutError
from etcdtw.grpc.call import Call
from etcdtw.node.no_call import NoCall

RETRY_MS: Final = 500
ROUNDS_MAX: Final = 64
"""Unconfirmed rounds kept; with one round a turn at most, and retries merging all of them."""

ReadDone = Callable[[Call, "Exception | None"], None]
Linearized = Callable[["Exception | None"], None]
"""The same, where there is no call."""
Read = tuple[Call, ReadDone, int]
"""Who asks, whom to tell, and when it was asked (ms)."""


class NotesReads(Protocol):
    """Looks at what is answered to reads that have waited for long."""

    def share(self, count: int) -> int:
        """Return how many of ``count`` of them are to be noted."""
        ...

    def note_read(self, call: Call, done: object, started_ms: int) -> Call:
        """Return the call to answer in the place of ``call``."""
        ...


class Reads:
    """The linearizable reads of one member.  Counts in ``stats`` style plain ints."""

    def __init__(
        self, timeout_ms: int, first_round: int = 1, notes: NotesReads | None = None
    ) -> None:
        """``first_round``: where this member's contexts begin; no other member's meet them."""
        self._notes = notes
        self._timeout_ms = timeout_ms
        # Here and in each round the oldest come first: `expire` counts on it.
        self._asked: list[Read] = []
        self._rounds: dict[bytes, tuple[int, list[Read]]] = {}
        self._confirmed: list[tuple[int, list[Read]]] = []
        self.ready: deque[Read] = deque()
        """Those that may be answered at once."""
        self._next_round = first_round
        self.slow_total = 0
        self.failed_total = 0

    @property
    def is_idle(self) -> bool:
        return not (self._asked or self._rounds or self._confirmed or self.ready)

    def ask(self, call: Call, done: ReadDone, now_ms: int) -> None:
        """Join the next round."""
        self._asked.append((call, done, now_ms))

    def next_round(self, now_ms: int) -> bytes | None:
        """Return the context of a new round if there is anything to confirm.

        Rounds without an answer for `RETRY_MS` are asked again under the new context.
        """
        late = [c for c, (asked_ms, _) in self._rounds.items() if now_ms - asked_ms >= RETRY_MS]
        if late:
            for context in late:
                self._asked += self._rounds.pop(context)[1]
                self.slow_total += 1
            self._asked.sort(key=_asked_at)
        if not self._asked or len(self._rounds) >= ROUNDS_MAX:
            return None
        context = self._next_round.to_bytes(8, "big")
        self._next_round += 1
        self._rounds[context] = (now_ms, self._asked)
        self._asked = []
        return context

    def ask_again(self) -> None:
        """Nobody will answer the open rounds: their reads join the next one.

        The leader has changed.  etcd fails such reads; asking the new leader is as right, since
        every round counts only what was confirmed after it began.
        """
        for _, reads in self._rounds.values():
            self._asked += reads
        self._asked.sort(key=_asked_at)
        self._rounds.clear()

    def confirm(self, context: bytes, index: int) -> None:
        """The round ``context`` may read at ``index``; an unknown round is too old to matter."""
        round_ = self._rounds.pop(context, None)
        if round_ is not None:
            self._confirmed.append((index, round_[1]))

    def gather(self, applied_index: int) -> None:
        """Add to `ready` the reads that may be answered now that ``applied_index`` is applied."""
        if not self._confirmed:
            return
        waiting: list[tuple[int, list[Read]]] = []
        for index, reads in self._confirmed:
            if index <= applied_index:
                self.ready += reads
            else:
                waiting.append((index, reads))
        self._confirmed = waiting

    def expire(self, now_ms: int) -> None:
        """Fail every read that has waited for the whole request timeout."""
        before_ms = now_ms - self._timeout_ms
        overdue: list[Read] = []
        self._asked = _keep(self._asked, before_ms, overdue)
        for context, (asked_ms, reads) in list(self._rounds.items()):
            kept = _keep(reads, before_ms, overdue)
            if kept:
                self._rounds[context] = (asked_ms, kept)
            else:
                del self._rounds[context]
        self._confirmed = [
            (index, kept)
            for index, reads in self._confirmed
            if (kept := _keep(reads, before_ms, overdue))
        ]
        self.failed_total += len(overdue)
        notes = self._notes
        noted = 0 if notes is None else notes.share(len(overdue))
        for number, (call, done, asked_ms) in enumerate(overdue):
            if notes is not None and number < noted:
                call = notes.note_read(call, done, asked_ms)
            done(call, RequestTimeoutError())

    def fail_all(self, error: Exception) -> None:
        """Fail everything that waits; the member stops."""
        reads = [*self.ready, *self._asked]
        self.ready.clear()
        for _, waiting in self._rounds.values():
            reads = reads + waiting
        for _, waiting in self._confirmed:
            reads = reads + waiting
        self._asked, self._rounds, self._confirmed = [], {}, []
        for call, done, _ in reads:
            done(call, error)


def oldest_client_ms(ready: Iterable[Read]) -> int | None:
    """Return when the oldest read of a client was asked; None: all are the member's own."""
    for call, _, asked_ms in ready:
        if not isinstance(call, NoCall):
            return asked_ms
    return None


def _asked_at(read: Read) -> int:
    return read[2]


def _keep(reads: list[Read], before_ms: int, overdue: list[Read]) -> list[Read]:
    if not reads or reads[0][2] > before_ms:
        return reads  # the oldest comes first; nothing here is overdue
    overdue += [read for read in reads if read[2] <= before_ms]
    return [read for read in reads if read[2] > before_ms]
