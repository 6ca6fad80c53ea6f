"""A histogram of plain ints, for cores that must not know a metrics library.

Whoever scrapes reads the three attributes; `observe` costs one bisection and two additions.
"""

from __future__ import annotations

from bisect import bisect_left


def exponential_bounds(start: float, count: int, factor: float = 2.0) -> tuple[float, ...]:
    """Return ``count`` upper bounds: start, start * factor, ..."""
    bounds = []
    for _ in range(count):
        bounds.append(start)
        start *= factor
    return tuple(bounds)


class Histogram:
    """Counts of observations by upper bound; the last count is of those above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """Sum of all observed values, in their unit."""

    def observe(self, value: float) -> None:
        """Count one value; a value equal to a bound belongs to it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_many(self, value: float, count: int) -> None:
        """Count ``count`` values that are alike."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)
