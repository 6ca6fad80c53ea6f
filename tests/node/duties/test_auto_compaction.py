"""Auto-compaction: what is kept, and when the next one comes."""

from __future__ import annotations

from etcdtw.node.duties.auto_compaction import (
    HOUR_MS,
    REVISION_INTERVAL_MS,
    PeriodicCompaction,
    RevisionCompaction,
)


def run(mode: PeriodicCompaction | RevisionCompaction, until_ms: int) -> list[tuple[int, int]]:
    """Let one revision be written each second; return (ms, revision) of each compaction."""
    found = []
    for now_ms in range(0, until_ms + 1, 1000):
        target = mode.due(now_ms, 1 + now_ms // 1000)
        if target is not None:
            found.append((now_ms, target))
    return found


def test_periodic_compacts_first_after_one_period_and_then_every_period() -> None:
    found = run(PeriodicCompaction(600_000), 1_800_000)
    # At 600 s the oldest sample is the empty store's: there is nothing to compact yet.
    assert found == [(1_200_000, 601), (1_800_000, 1201)]


def test_a_long_period_is_compacted_every_hour_and_kept_whole() -> None:
    found = run(PeriodicCompaction(3 * HOUR_MS), 5 * HOUR_MS)
    assert found == [(4 * HOUR_MS, 3601), (5 * HOUR_MS, 7201)]


def test_a_period_without_writes_compacts_nothing_twice() -> None:
    mode = PeriodicCompaction(60_000)
    found = [mode.due(now_ms, 50) for now_ms in range(0, 600_000, 1000)]
    assert [target for target in found if target is not None] == [50]


def test_revision_mode_keeps_the_last_revisions_and_looks_every_five_minutes() -> None:
    found = run(RevisionCompaction(100), 2 * REVISION_INTERVAL_MS)
    assert found == [(300_000, 201), (600_000, 501)]


def test_revision_mode_leaves_a_short_history_alone() -> None:
    assert run(RevisionCompaction(10_000), 2 * REVISION_INTERVAL_MS) == []
