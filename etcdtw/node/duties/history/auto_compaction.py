"""When history is compacted by itself: etcd's two modes, as decisions over time.

Pure: told the time and the revision, says which revision to compact at.

    periodic   keeps at least a period; compacts every period, or every hour if it is longer
    revision   keeps the last N revisions; looks every five minutes

Every member looks, whether it leads or not, so that one that begins to lead goes on where the one
before left off.  What was compacted counts only when that is known.

Source: etcd's --auto-compaction-mode and --auto-compaction-retention, of 3.7.3.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from etcdtw.config.govalues import duration_text

NS_PER_MS: Final = 1_000_000
HOUR_MS: Final = 3_600_000
LOOKS_PER_INTERVAL: Final = 10
REVISION_INTERVAL_MS: Final = 300_000


class AutoCompaction(Protocol):
    """Asked now and then by every member's node."""

    @property
    def mode(self) -> str:
        """What etcd calls it in its log."""
        ...

    @property
    def facts(self) -> dict[str, object]:
        """What etcd's log says beside, under its names."""
        ...

    def due(self, now_ms: int, revision: int, *, is_leader: bool) -> int | None:
        """Return the revision to compact at now, None for nothing."""
        ...

    def compacted(self, now_ms: int, revision: int) -> None:
        """What `due` said was compacted, or had been before."""
        ...


class PeriodicCompaction:
    """Remembers revisions of the last period; their number is bounded by looks a period."""

    mode = "periodic"

    def __init__(self, period_ms: int) -> None:
        self.facts: dict[str, object] = {"compact-period": duration_text(period_ms * NS_PER_MS)}
        interval_ms = min(period_ms, HOUR_MS)
        self._interval_ms = interval_ms
        self._look_ms = max(interval_ms // LOOKS_PER_INTERVAL, 1)
        self._revisions: deque[int] = deque(maxlen=period_ms // self._look_ms + 1)
        self._due_ms: int | None = None
        self._compacted_ms = 0
        self._wait_ms = period_ms  # before the first; then it is the interval
        self._done = 0

    def due(self, now_ms: int, revision: int, *, is_leader: bool) -> int | None:
        if self._due_ms is None:
            self._compacted_ms = self._due_ms = now_ms
        if now_ms < self._due_ms:
            return None
        target = self._target(now_ms) if is_leader else None
        self._due_ms = now_ms + self._look_ms
        self._revisions.append(revision)
        return target

    def _target(self, now_ms: int) -> int | None:
        if now_ms - self._compacted_ms < self._wait_ms or not self._revisions:
            return None
        target = self._revisions[0]
        if target == self._done:
            return None
        self._wait_ms = self._interval_ms
        return target

    def compacted(self, now_ms: int, revision: int) -> None:
        self._compacted_ms = now_ms
        self._done = revision


class RevisionCompaction:
    """Keeps a fixed number of revisions."""

    mode = "revision"

    def __init__(self, keep: int) -> None:
        self.facts: dict[str, object] = {"revision-compaction-retention": keep}
        self._keep = keep
        self._due_ms: int | None = None
        self._done = 0

    def due(self, now_ms: int, revision: int, *, is_leader: bool) -> int | None:
        if self._due_ms is None:
            self._due_ms = now_ms + REVISION_INTERVAL_MS
        if now_ms < self._due_ms:
            return None
        self._due_ms = now_ms + REVISION_INTERVAL_MS
        target = revision - self._keep
        return target if is_leader and target > 0 and target != self._done else None

    def compacted(self, now_ms: int, revision: int) -> None:
        self._done = revision
