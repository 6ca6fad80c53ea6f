"""The sliding window of append messages sent to one follower and not yet acknowledged.

Knows no message and no term; it holds the last index of each message and its octets.
"""

from __future__ import annotations

from collections import deque


class Inflights:
    """At most ``count_max`` messages; with ``size_max`` > 0 also a bound on their octets.

    The octet bound is checked after the fact: the message that crosses it is in flight.
    """

    def __init__(self, count_max: int, size_max: int = 0) -> None:
        self.count_max = count_max
        self.size_max = size_max
        self._size = 0
        self._window: deque[tuple[int, int]] = deque()  # (last index, octets), ascending

    def __len__(self) -> int:
        return len(self._window)

    def is_full(self) -> bool:
        return len(self._window) >= self.count_max or 0 < self.size_max <= self._size

    def add(self, last_index: int, size: int) -> None:
        """Record a message that ends at ``last_index``; the window must not be full."""
        assert not self.is_full(), "an append was sent into a full window"
        self._window.append((last_index, size))
        self._size += size

    def free_to(self, index: int) -> None:
        """Forget every message whose last index is at or before ``index``."""
        window = self._window
        while window and window[0][0] <= index:
            self._size -= window.popleft()[1]

    def reset(self) -> None:
        self._window.clear()
        self._size = 0
