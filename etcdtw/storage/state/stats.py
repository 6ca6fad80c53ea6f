"""What the state's writer did since the start, as it reports it; plain numbers to be scraped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from etcdtw.wire.histogram import Histogram, exponential_bounds


class StateStats:
    """Fed with the writer's answers; the bounds are etcd's."""

    def __init__(self, reads: Callable[[], list[int]]) -> None:
        """``reads``: which transactions are read, in all processes."""
        self._reads = reads
        self.commit_s = Histogram(exponential_bounds(0.001, 14))
        self.compacted_rows_total = 0
        self.compacted_unix_s = 0.0
        """When the last compaction since the start ended; 0 before the first."""
        self.compaction_step_ms = Histogram(exponential_bounds(1, 13))
        self.compaction_ms = Histogram(exponential_bounds(100, 14))

    def open_reads(self) -> int:
        """Return how many read transactions there are."""
        return len(self._reads())

    def oldest_read(self) -> int | None:
        """Return the oldest transaction that is read; None: there is none."""
        return min(self._reads(), default=None)

    def committed(self, answer: tuple[Any, ...]) -> None:
        """Take ``("committed", number, seconds)``."""
        self.commit_s.observe(answer[2])

    def stepped(self, answer: tuple[Any, ...]) -> None:
        """Take ``("compaction_step", rows deleted, seconds)``."""
        self.compacted_rows_total += answer[1]
        self.compaction_step_ms.observe(answer[2] * 1000)

    def compacted(self, answer: tuple[Any, ...]) -> None:
        """Take ``("compacted", revision, seconds, unix time)``."""
        self.compaction_ms.observe(answer[2] * 1000)
        self.compacted_unix_s = answer[3]
