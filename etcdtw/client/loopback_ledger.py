"""What the calls within one member hold together, and when their callers hear of them.

Callers are told in iterations of their own, a share of each: a service answers in the middle of
the node's turn, and what a caller does with an answer has no place there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import nlargest
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from etcdtw.grpc.call import RESOURCE_EXHAUSTED, StatusError
from etcdtw.grpc.caller import Caller
from etcdtw.grpc.message import MESSAGE_SIZE_MAX
from etcdtw.grpc.stats import ServerStats

log: Final = Logger("etcdtw.client.loopback_ledger")

SHARE_S: Final = 0.002
"""Of one iteration, for callers that hear of something; passed by at most one of them."""
LARGEST_AT_ONCE: Final = 64
"""Calls that are found at one look, among all of them, when too much is held."""
LOOK_S: Final = 0.1
"""How long what was found at a look is good for."""
TOO_MANY_CALLS: Final = "etcdtw: too many calls at once"


@dataclass(frozen=True, kw_only=True)
class LoopbackBounds:
    """What callers within a member are granted.  Sizes in octets.

    ``untaken``: messages of streams that callers leave where they are.
    """

    message_size_max: int = MESSAGE_SIZE_MAX
    calls_max: int = 1_000  # of one channel
    calls_total_max: int = 10_000
    calls_few: int = 8  # of one channel, however many the others have
    untaken_size_max: int = 32 * 1024 * 1024  # of one channel
    untaken_total_size_max: int = 512 * 1024 * 1024


class Held(Protocol):
    """A call, as the ledger sees it."""

    @property
    def untaken(self) -> int: ...

    def overrun(self) -> None:
        """End it: it holds too much."""
        ...


class Ledger:
    """All calls within one member."""

    def __init__(self, stats: ServerStats, clock: IReactorTime, bounds: LoopbackBounds) -> None:
        self.stats = stats
        self.clock = clock
        self.bounds = bounds
        self.calls: set[Held] = set()
        """Those that are not over: neither for their service nor for their caller."""
        self.untaken = 0
        self._due: deque[Callable[[], None]] = deque()
        self._is_due = False
        self._largest: deque[tuple[int, Held]] = deque()  # as they were at `_looked_s`
        self._looked_s = 0.0

    def later(self, told: Callable[[], None]) -> None:
        """Call ``told`` in another iteration, after those before it."""
        self._due.append(told)
        if not self._is_due:
            self._is_due = True
            self.clock.callLater(0, self._deliver)

    def _deliver(self) -> None:
        self._is_due = False
        due = self._due
        seconds = self.clock.seconds
        until_s = seconds() + SHARE_S
        for _ in range(len(due)):
            told = due.popleft()
            try:
                told()
            except Exception:
                log.failure("a call within the member failed unexpectedly")
            if seconds() >= until_s:
                break
        if due and not self._is_due:
            self._is_due = True
            self.clock.callLater(0, self._deliver)

    def bound(self) -> None:
        """End those that hold most until the others are within the bound.

        All calls are looked at for `LARGEST_AT_ONCE` of them that end, and not for each: with
        10,000 that look takes a millisecond.
        """
        while self.untaken > self.bounds.untaken_total_size_max:
            self._next_largest().overrun()

    def _next_largest(self) -> Held:
        """Return a call that holds as much as any did at the last look."""
        now_s = self.clock.seconds()
        if now_s > self._looked_s + LOOK_S:
            self._largest.clear()
        while self._largest:
            noted, call = self._largest.popleft()
            if call in self.calls and call.untaken >= noted:
                return call
        self._looked_s = now_s
        largest = nlargest(LARGEST_AT_ONCE, self.calls, key=_untaken_of)
        self._largest.extend((call.untaken, call) for call in largest)
        return self._largest.popleft()[1]


def _untaken_of(call: Held) -> int:
    return call.untaken


class Line:
    """The calls of one caller; implements `grpc.call.Client`."""

    def __init__(self, ledger: Ledger, caller: Caller) -> None:
        self.ledger = ledger
        self.caller = caller
        self.calls: set[Held] = set()
        self.unread = 0
        """Octets of answers that the caller has not taken."""
        self._unfinished = 0

    def enter(self, call: Held) -> None:
        """Count ``call``.  Raises `StatusError` when there are too many."""
        ledger = self.ledger
        bounds = ledger.bounds
        own = len(self.calls)
        is_full = len(ledger.calls) >= bounds.calls_total_max and own >= bounds.calls_few
        if is_full or own >= bounds.calls_max:
            raise StatusError(RESOURCE_EXHAUSTED, TOO_MANY_CALLS)
        self.calls.add(call)
        ledger.calls.add(call)

    def leave(self, call: Held) -> None:
        """``call`` is over."""
        self.calls.discard(call)
        self.ledger.calls.discard(call)

    def owe(self, octets: int) -> None:
        """Count ``octets`` more (or less) that wait for the caller."""
        self.unread += octets
        self.ledger.untaken += octets

    def hold(self, octets: int) -> bool:
        """Count ``octets`` more (or less) that are kept for calls; False: that is too much."""
        stats = self.ledger.stats
        self._unfinished += octets
        stats.unfinished_octets += octets
        return (
            self._unfinished <= stats.unfinished_connection_max
            and stats.unfinished_octets <= stats.unfinished_max
        )
