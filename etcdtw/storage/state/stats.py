"""What the state's writer did since the start, as it reports it; plain numbers to be scraped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from etcdtw.wire.histogram import Histogram, exponential_bounds


class StateStats:
    """Fed with the writer's answers; the bounds are etcd's."""

    def __init__(self, open_reads: Callable[[], int]) -> None:
        """``open_reads``: how many read transactions there are, in all processes."""
        self.open_reads = open_reads
        self._compacted_rows = 0  # of the compaction that is under way
        self.on_compacted: Callable[[int, float, int], None] | None = None
        """Told of each compaction that has ended: its revision, seconds, rows deleted."""
        self.commit_s = Histogram(exponential_bounds(0.001, 14))
        self.compacted_rows_total = 0
        self.compacted_unix_s = 0.0
        """When the last compaction since the start ended; 0 before the first."""
        self.compaction_step_ms = Histogram(exponential_bounds(1, 13))
        self.compaction_ms = Histogram(exponential_bounds(100, 14))

    def committed(self, answer: tuple[Any, ...]) -> None:
        """Take ``("committed", number, seconds)``."""
        self.commit_s.observe(answer[2])

    def stepped(self, answer: tuple[Any, ...]) -> None:
        """Take ``("compaction_step", rows deleted, seconds)``."""
        self.compacted_rows_total += answer[1]
        self._compacted_rows += answer[1]
        self.compaction_step_ms.observe(answer[2] * 1000)

    def compacted(self, answer: tuple[Any, ...]) -> None:
        """Take ``("compacted", revision, seconds, unix time)``."""
        self.compaction_ms.observe(answer[2] * 1000)
        self.compacted_unix_s = answer[3]
        rows, self._compacted_rows = self._compacted_rows, 0
        if self.on_compacted is not None:
            self.on_compacted(answer[1], answer[2], rows)
