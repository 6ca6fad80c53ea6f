"""Work on all leases of a member, in steps: their deadlines after a promotion, their order.

A member may hold very many leases, and nobody is served while one step lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from heapq import merge

from etcdtw.lease.lease import Lease


class Arming:
    """The deadlines of ``leases`` after a promotion: those with the shortest TTL first.

    When very many would be due within a second of each other they are spread to three quarters
    of ``expiries_per_s_max``; none is shortened.
    """

    def __init__(self, leases: list[Lease], start_ms: int, expiries_per_s_max: int) -> None:
        self._leases = leases
        self._start_ms = start_ms
        self._is_many = len(leases) >= expiries_per_s_max
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
        for position, lease in enumerate(self._leases):
            by_ttl.setdefault(lease.recorded_ttl_s, []).append(lease)
            if position % 4 == 3:
                yield None
        self._leases = []
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
    """``leases`` in the order of their deadlines, those at the beginning of it."""

    def __init__(self, leases: list[Lease], deadline_ms: Callable[[Lease], int]) -> None:
        self._unsorted = leases
        self._deadline_ms = deadline_ms
        self._runs: list[list[tuple[int, int, Lease]]] = []
        self._merged: Generator[tuple[int, int, Lease], None, None] | None = None
        self._position = 0
        self.leases: list[Lease] = []
        """Complete when `is_done`."""
        self.is_done = False

    def step(self, count: int) -> None:
        """Sort or merge about ``count`` leases."""
        if self._merged is None:
            some = self._unsorted[self._position : self._position + count]
            run = [
                (self._deadline_ms(lease), number, lease)
                for number, lease in enumerate(some, self._position)
            ]
            run.sort()
            self._runs.append(run)
            self._position += count
            if self._position < len(self._unsorted):
                return
            if len(self._runs) == 1:
                self.leases = [lease for _, _, lease in run]
                self.is_done = True
            else:
                self._merged = (one for one in merge(*self._runs))
            return
        for _ in range(count):
            try:
                self.leases.append(next(self._merged)[2])
            except StopIteration:
                self.is_done = True
                return

    def statuses(self) -> bytes:
        """Return them as fields of a LeaseLeasesResponse."""
        return b"".join([lease.status for lease in self.leases])
