"""How often one may be wrong about a password: by address, and by address and user together.

Only failures count, and only those of the same address, so that a stranger's guesses lock nobody
out who comes from elsewhere.  A bucket that leaks: so many at once, then so many a second.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

ADDRESS_FAILURES_MAX: Final = 200
ADDRESS_FAILURES_PER_S: Final = 20.0
PAIR_FAILURES_MAX: Final = 50
PAIR_FAILURES_PER_S: Final = 5.0
KEPT_MAX: Final = 10_000
"""Addresses, and pairs, that are remembered; past it the one that failed longest ago is not."""


class Buckets:
    """Failures by a key: so many at once, each leaking away, of so many keys."""

    def __init__(self, failures_max: int, per_s: float, kept_max: int) -> None:
        self._failures_max = failures_max
        self._per_s = per_s
        self._kept_max = kept_max
        self._found: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def is_full(self, key: str, now_s: float) -> bool:
        """Whether one more would be too many.  ``now_s``: by a clock that goes forward."""
        return self._level(key, now_s) >= self._failures_max

    def add(self, key: str, now_s: float) -> None:
        """Count one."""
        self._found[key] = (self._level(key, now_s) + 1, now_s)
        self._found.move_to_end(key)
        if len(self._found) > self._kept_max:
            self._found.popitem(last=False)

    def _level(self, key: str, now_s: float) -> float:
        level, since_s = self._found.get(key, (0.0, now_s))
        return max(0.0, level - (now_s - since_s) * self._per_s)


class Attempts:
    """Failed attempts to authenticate, on one member."""

    def __init__(self, kept_max: int = KEPT_MAX) -> None:
        self._addresses = Buckets(ADDRESS_FAILURES_MAX, ADDRESS_FAILURES_PER_S, kept_max)
        self._pairs = Buckets(PAIR_FAILURES_MAX, PAIR_FAILURES_PER_S, kept_max)

    def may_try(self, address: str, user: str, now_s: float) -> bool:
        """Whether a password is looked at now."""
        return not (
            self._addresses.is_full(address, now_s)
            or self._pairs.is_full(f"{address} {user}", now_s)
        )

    def failed(self, address: str, user: str, now_s: float) -> None:
        """Somebody was wrong."""
        self._addresses.add(address, now_s)
        self._pairs.add(f"{address} {user}", now_s)
