"""When history is compacted by itself: etcd's two modes, as decisions over time.

Pure: told the time and the revision, says which revision to compact at.

    periodic   keeps at least a period; compacts every period, or every hour if it is longer
    revision   keeps the last N revisions; looks every five minutes

Source: etcd's --auto-compaction-mode and --auto-compaction-retention.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

HOUR_MS: Final = 3_600_000
SAMPLES_PER_INTERVAL: Final = 10
REVISION_INTERVAL_MS: Final = 300_000


class AutoCompaction(Protocol):
    """Asked now and then by the leader's node."""

    def due(self, now_ms: int, revision: int) -> int | None:
        """Return the revision to compact at now, None for nothing."""
        ...


class PeriodicCompaction:
    """Remembers revisions of the last period; their number is bounded by samples a period."""

    def __init__(self, period_ms: int) -> None:
        self._period_ms = period_ms
        self._interval_ms = min(period_ms, HOUR_MS)
        self._sample_ms = max(self._interval_ms // SAMPLES_PER_INTERVAL, 1)
        self._samples: deque[tuple[int, int]] = deque()
        self._next_sample_ms: int | None = None
        self._next_compaction_ms = 0
        self._done = 0

    def due(self, now_ms: int, revision: int) -> int | None:
        if self._next_sample_ms is None:
            self._next_sample_ms = now_ms
            self._next_compaction_ms = now_ms + self._period_ms
        if now_ms < self._next_sample_ms:
            return None
        self._next_sample_ms = now_ms + self._sample_ms
        self._samples.append((now_ms, revision))
        if now_ms < self._next_compaction_ms:
            return None
        self._next_compaction_ms = now_ms + self._interval_ms
        target = 0
        while self._samples and self._samples[0][0] <= now_ms - self._period_ms:
            target = self._samples.popleft()[1]
        if target <= max(self._done, 1):
            return None
        self._done = target
        return target


class RevisionCompaction:
    """Keeps a fixed number of revisions."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._next_ms: int | None = None
        self._done = 0

    def due(self, now_ms: int, revision: int) -> int | None:
        if self._next_ms is None:
            self._next_ms = now_ms + REVISION_INTERVAL_MS
        if now_ms < self._next_ms:
            return None
        self._next_ms = now_ms + REVISION_INTERVAL_MS
        target = revision - self._keep
        if target <= max(self._done, 1):
            return None
        self._done = target
        return target
