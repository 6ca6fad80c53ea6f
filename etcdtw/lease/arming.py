"""Work on all leases of a member, in steps: their deadlines after a promotion, their order.

A member may hold very many leases, and nobody is served while one step lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from heapq import merge
from itertools import islice
from typing import Final

from etcdtw.lease.lease import Lease
from etcdtw.lease.moment import Moment

PLACE_BITS: Final = 40
"""Of a number that is sorted: the place in the list; above them are id and deadline."""
ID_BITS: Final = 64
ID_MASK: Final = (1 << ID_BITS) - 1
PLACE_MASK: Final = (1 << PLACE_BITS) - 1


class Arming:
    """The deadlines of ``leases`` after a promotion: those with the shortest TTL first.

    When very many would be due within a second of each other they are spread to three quarters
    of ``expiries_per_s_max``; none is shortened.
    """

    def __init__(self, leases: Moment[Lease], start_ms: int, expiries_per_s_max: int) -> None:
        self._leases = leases
        self._start_ms = start_ms
        self._is_many = leases.count >= expiries_per_s_max
        self._spread_per_s = max(expiries_per_s_max * 3 // 4, 1)
        self._steps = self._run()
        self.is_done = False

    def step(self, count: int) -> list[tuple[Lease, int]]:
        """Look at about ``count`` leases; return those that came out, with their deadlines."""
        found: list[tuple[Lease, int]] = []
        try:
            for _ in range(count):
                one = next(self._steps)
                if one is not None:
                    found.append(one)
        except StopIteration:
            self.is_done = True
        return found

    def _run(self) -> Generator[tuple[Lease, int] | None, None, None]:
        by_ttl: dict[int, list[Lease]] = {}
        while not self._leases.is_done:
            for position, lease in enumerate(self._leases.take()):
                by_ttl.setdefault(lease.recorded_ttl_s, []).append(lease)
                if position % 4 == 3:
                    yield None
        base_ms = -1000
        position = 0
        for ttl_s in sorted(by_ttl):
            for lease in by_ttl[ttl_s]:
                deadline_ms = self._start_ms + ttl_s * 1000
                # The window of those that would be due together starts at its first; one that
                # the spreading has overtaken joins it.
                if deadline_ms - base_ms >= 1000 * (1 + position // self._spread_per_s):
                    base_ms = deadline_ms
                    position = 0
                if self._is_many:
                    late_ms = base_ms + position * 1000 // self._spread_per_s
                    deadline_ms = max(deadline_ms, late_ms)
                position += 1
                yield lease, deadline_ms


class Listing:
    """``leases`` in the order of their deadlines, those at the beginning of it, and of their ids.

    Lets go of what it needs no more in each step: at the end that would take as long as many
    steps.  Sorts plain numbers, a deadline, an id and a place each: tuples would be visited by
    each garbage collection meanwhile.
    """

    def __init__(self, leases: Moment[Lease], deadline_ms: Callable[[Lease], int]) -> None:
        self._moment = leases
        self._leases: list[Lease | None] = []  # as they were taken; None: returned since
        self._sorted = 0
        self._deadline_ms = deadline_ms
        self._runs: list[list[int]] = []
        self._merged: Iterator[int] | None = None
        self.is_done = False

    def step(self, count: int) -> list[Lease]:
        """Sort about ``count`` leases, or return as many that come next; none follow `is_done`."""
        if self._merged is not None:
            found = self._take(islice(self._merged, count))
            self.is_done = len(found) < count
            return found
        moment, leases, first = self._moment, self._leases, self._sorted
        while len(leases) - first < count and not moment.is_done:
            leases += moment.take()
        deadline_ms = self._deadline_ms
        run = [
            (deadline_ms(lease) << ID_BITS | lease.lease_id & ID_MASK) << PLACE_BITS | place
            for place, lease in enumerate(leases[first : first + count], first)
            if lease is not None
        ]
        self._sorted += len(run)
        run.sort(reverse=True)
        self._runs.append(run)
        if moment.is_done and self._sorted == len(leases):
            self._merged = merge(*[_taken_from_the_end(run) for run in self._runs])
            if len(self._runs) == 1:
                return self.step(count + 1)
        return []

    def _take(self, numbers: Iterable[int]) -> list[Lease]:
        leases = self._leases
        found: list[Lease] = []
        for number in numbers:
            place = number & PLACE_MASK
            lease = leases[place]
            assert lease is not None, "each is listed once"
            found.append(lease)
            leases[place] = None
        return found


def _taken_from_the_end(run: list[int]) -> Generator[int, None, None]:
    while run:
        yield run.pop()
