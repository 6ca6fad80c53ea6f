"""Reads that take long, a share of each iteration of the reactor, one client after another.

A client is a connection.  Whoever asks for much waits behind itself: each client's reads are
worked on a few at a time, each client with work gets one piece in its turn, and what finds no
place is refused.  Reads that look small are made at once until an iteration's worth of them is
spent; the rest of that iteration's wait here, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from etcdtw.apply.errors import TooManyRequestsError
from etcdtw.grpc.call import INTERNAL, Call, Client, HasClient, StatusError
from etcdtw.rpc.errors import fail

log = Logger()

SHARE_S: Final = 0.001
"""Of one iteration, for all reads that wait; passed by at most one piece."""
PAUSE_S: Final = 0.001
"""Between two shares while others are served: what they ask takes several iterations."""
ACTIVE_S: Final = 0.05
"""So long others count as being served after it was seen."""
LIGHT_S: Final = 0.002
"""Of one iteration, for reads that are made at once; passed by at most one of them."""
RUNNING_MAX: Final = 4  # reads of one client that are worked on
WAITING_MAX: Final = 1_024  # reads of one client that are not begun
WAITING_TOTAL_MAX: Final = 16_384
WAITING_OCTETS_MAX: Final = 16 << 20  # of one client's requests
WAITING_OCTETS_TOTAL_MAX: Final = 64 << 20
UNREAD_OCTETS_MAX: Final = 4 << 20  # that a client has not taken: with more it gets no new answer
WAIT_S: Final = 0.01  # until those that could not go on are looked at again

DEFECT: Final = StatusError(INTERNAL, "the read failed unexpectedly")


class ReadTask(Protocol):
    """One read under way."""

    @property
    def is_blocked(self) -> bool:
        """Whether it has to wait: for room, or for its client.  Not when its call has ended."""
        ...

    def step(self) -> bool:
        """Do a piece, about a millisecond of work; return whether there is more."""
        ...

    def start(self) -> None:
        """It has a place among those that are worked on: called once, before anything else."""
        ...

    def give_up(self, error: Exception) -> None:
        """End with ``error``: there is no place for it."""
        ...


Begin = Callable[[], "ReadTask | None"]
"""Begins a read; returns None when it is answered by that."""


class _Client:
    """The reads of one connection."""

    def __init__(self, key: object, client: Client | None) -> None:
        self.key = key
        self._client = client
        self.running: deque[ReadTask] = deque()
        self.waiting: deque[tuple[int, Begin, Call]] = deque()
        self.octets = 0

    @property
    def may_begin(self) -> bool:
        """Whether one that waits has its turn."""
        if not self.waiting or len(self.running) >= RUNNING_MAX:
            return False
        client = self._client
        return client is None or client.unread <= UNREAD_OCTETS_MAX


def _nothing() -> int:
    return 0


def _never() -> bool:
    return False


class ReadQueue:
    """All reads of a member that are not made at once.  ``share_s`` 0: one piece an iteration.

    ``clock`` measures what it calls as pieces of work (`node.loop.measured_clock`).
    """

    def __init__(
        self,
        clock: IReactorTime,
        share_s: float = SHARE_S,
        activity: Callable[[], int] = _nothing,
        is_turn_due: Callable[[], bool] = _never,
        *,
        waiting_max: int = WAITING_TOTAL_MAX,
        waiting_octets_max: int = WAITING_OCTETS_TOTAL_MAX,
    ) -> None:
        """``activity``: any number that changes when others are served; ``is_turn_due``: whether
        the node has something to do in this iteration, too; the rest: of all clients together."""
        self._clock = clock
        self._activity = activity
        self._is_turn_due = is_turn_due
        self._has_given_way = False
        self._seen_activity = 0
        self._active_until_s = 0.0
        self._share_s = share_s
        self._clients: dict[object, _Client] = {}
        self._ring: deque[_Client] = deque()  # the same
        self._later: IDelayedCall | None = None
        self._is_due = False
        self._light_s = 0.0
        self._count = 0
        self._count_max = waiting_max
        self._octets = 0
        self._octets_max = waiting_octets_max
        self.refused_total = 0

    @property
    def is_light_spent(self) -> bool:
        """Whether this iteration has made enough reads at once."""
        return self._light_s >= LIGHT_S

    def spend(self, seconds: float) -> None:
        """Count what a read took that was made at once."""
        self._light_s += seconds
        if self._light_s >= LIGHT_S:
            self._look_soon()

    def take(self, call: Call, size: int, begin: Begin) -> None:
        """Begin a read now, or when others have had their turn; ``size`` as for `add`."""
        if self.is_light_spent:
            if not self.add(call, size, begin):
                fail(call, TooManyRequestsError())
            return
        clock = self._clock
        started_s = clock.seconds()
        task = begin()
        self.spend(clock.seconds() - started_s)
        if task is not None and not self.go_on(call, task):
            task.give_up(TooManyRequestsError())

    def add(self, call: Call, size: int, begin: Begin) -> bool:
        """Let ``begin`` be called when it is the client's turn; False: there is no place.

        ``size``: octets of the request.
        """
        owner = call.client if isinstance(call, HasClient) else None
        key = call if owner is None else owner
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = _Client(key, owner)
            self._ring.append(client)
        if (
            len(client.waiting) >= WAITING_MAX
            or client.octets + size > WAITING_OCTETS_MAX
            or self._count >= self._count_max
            or self._octets + size > self._octets_max
        ):
            self.refused_total += 1
            return False
        client.waiting.append((size, begin, call))
        client.octets += size
        self._octets += size
        self._count += 1
        self._look_soon()
        return True

    def go_on(self, call: Call, task: ReadTask) -> bool:
        """Take a read that has begun; False: there is no place."""
        return self.add(call, 0, lambda: task)

    def work_on(self, task: ReadTask) -> None:
        """Take what is done for several clients at once: it stands in line as one of them.

        There is always a place: whoever asks sees to it that these are few.
        """
        client = self._clients[task] = _Client(task, None)
        task.start()
        client.running.append(task)
        self._ring.append(client)
        self._look_soon()

    def wake(self) -> None:
        """Something that was blocked may go on."""
        if self._ring:
            self._look_soon()

    def _look_soon(self, delay_s: float = 0) -> None:
        if not self._is_due:
            self._is_due = True
            self._clock.callLater(delay_s, self._work)

    def _pause_s(self) -> float:
        """Return how long the reactor is left to others: not at all when there were none lately."""
        now_s = self._clock.seconds()
        activity = self._activity()
        if activity != self._seen_activity:
            self._seen_activity = activity
            self._active_until_s = now_s + ACTIVE_S
        return PAUSE_S if now_s < self._active_until_s else 0

    def _look_later(self) -> None:
        self._later = None
        self._look_soon()

    def _work(self) -> None:
        """Do this iteration's share; in every other one only if the node has nothing to do.

        Who puts something then waits for one share at the most: the one before its own turn.
        """
        self._light_s = 0.0
        clock = self._clock
        if self._ring and not self._has_given_way and self._is_turn_due():
            self._has_given_way = True
            clock.callLater(0, self._work)
            return
        self._has_given_way = self._is_due = False
        until_s = clock.seconds() + self._share_s
        ring = self._ring
        blocked = 0
        try:
            while blocked < len(ring):
                client = ring.popleft()
                has_moved = True
                try:
                    has_moved = self._step(client)
                finally:
                    if client.running or client.waiting:
                        ring.append(client)
                    else:
                        del self._clients[client.key]
                blocked = 0 if has_moved else blocked + 1
                if has_moved and clock.seconds() >= until_s:
                    break
        finally:
            if blocked < len(ring):
                self._look_soon(self._pause_s())
            elif ring and self._later is None:
                self._later = clock.callLater(WAIT_S, self._look_later)

    def _step(self, client: _Client) -> bool:
        """Do one piece for ``client``; return whether there was any that could be done."""
        running = client.running
        if client.may_begin:
            size, begin, call = client.waiting.popleft()
            client.octets -= size
            self._octets -= size
            self._count -= 1
            try:
                begun = begin()
            except Exception:
                log.failure("a read failed unexpectedly")
                fail(call, DEFECT)
                return True
            if begun is not None:
                begun.start()
                running.append(begun)
            return True
        for _ in range(len(running)):
            task = running.popleft()
            if task.is_blocked:
                running.append(task)
                continue
            try:
                has_more = task.step()
            except Exception:
                # A defect of ours, or a damaged state: what it holds is let go.
                log.failure("a read failed unexpectedly")
                task.give_up(DEFECT)
                return True
            if has_more:
                running.append(task)
            return True
        return False
