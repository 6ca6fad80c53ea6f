"""Token buckets: how much a peer may cost us for nothing.

Time is an argument; a clock that stands still refills nothing.
"""

from __future__ import annotations

from typing import Final

_SCALE: Final = 1_000
"""A token is this many parts, so that whole numbers carry a refill per millisecond."""


class TokenBucket:
    """Holds ``burst`` tokens at most and gains ``per_s`` of them a second."""

    def __init__(self, burst: int, per_s: int) -> None:
        self._full = burst * _SCALE
        self._level = self._full
        self._per_ms = per_s
        self._last_ms: int | None = None

    def take(self, now_ms: int, earned: int = 0) -> bool:
        """Take one token; False when there is none.  ``earned`` tokens are put in first."""
        last_ms = self._last_ms
        gain = earned * _SCALE
        if last_ms is None:
            self._last_ms = now_ms
        elif now_ms > last_ms:
            gain += (now_ms - last_ms) * self._per_ms
            self._last_ms = now_ms
        level = min(self._full, self._level + gain)
        if level < _SCALE:
            self._level = level
            return False
        self._level = level - _SCALE
        return True
