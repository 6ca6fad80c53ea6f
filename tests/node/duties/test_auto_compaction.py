"""Auto-compaction: what is kept, and when the next one comes."""

from __future__ import annotations

from etcdtw.node.duties.history.auto_compaction import (
    HOUR_MS,
    REVISION_INTERVAL_MS,
    AutoCompaction,
    PeriodicCompaction,
    RevisionCompaction,
)

MINUTE_MS = 60_000


def run(
    mode: AutoCompaction,
    first_ms: int,
    until_ms: int,
    *,
    is_leader: bool = True,
    fails: bool = False,
) -> list[tuple[int, int]]:
    """Let one revision be written each second; return (ms, revision) of each compaction."""
    found = []
    for now_ms in range(first_ms, until_ms + 1, 1000):
        target = mode.due(now_ms, 1 + now_ms // 1000, is_leader=is_leader)
        if target is not None:
            found.append((now_ms, target))
            if not fails:
                mode.compacted(now_ms, target)
    return found


def test_periodic_compacts_first_after_one_period_and_then_every_period() -> None:
    found = run(PeriodicCompaction(600_000), 0, 1_800_000)
    # As etcd: the oldest of eleven looks, the last of them a minute ago.
    assert found == [(600_000, 1), (1_200_000, 541), (1_800_000, 1141)]


def test_a_long_period_is_compacted_every_hour_and_kept_whole() -> None:
    found = run(PeriodicCompaction(3 * HOUR_MS), 0, 5 * HOUR_MS)
    assert found == [(3 * HOUR_MS, 1), (4 * HOUR_MS, 3241), (5 * HOUR_MS, 6841)]


def test_a_period_without_writes_compacts_nothing_twice() -> None:
    mode = PeriodicCompaction(60_000)
    found = []
    for now_ms in range(0, 600_000, 1000):
        target = mode.due(now_ms, 50, is_leader=True)
        if target is not None:
            mode.compacted(now_ms, target)
            found.append(target)
    assert found == [50]


def test_a_new_leader_compacts_at_its_next_look_what_it_has_seen_pass() -> None:
    mode = PeriodicCompaction(10 * MINUTE_MS)
    assert run(mode, 0, 25 * MINUTE_MS, is_leader=False) == []
    assert run(mode, 25 * MINUTE_MS + 1000, 30 * MINUTE_MS) == [(26 * MINUTE_MS, 15 * 60 + 1)]


def test_what_was_not_compacted_is_due_again_at_the_next_look() -> None:
    found = run(PeriodicCompaction(10 * MINUTE_MS), 0, 12 * MINUTE_MS, fails=True)
    assert found == [(10 * MINUTE_MS, 1), (11 * MINUTE_MS, 1), (12 * MINUTE_MS, 61)]


def test_revision_mode_keeps_the_last_revisions_and_looks_every_five_minutes() -> None:
    found = run(RevisionCompaction(100), 0, 2 * REVISION_INTERVAL_MS)
    assert found == [(300_000, 201), (600_000, 501)]


def test_revision_mode_leaves_a_short_history_alone() -> None:
    assert run(RevisionCompaction(10_000), 0, 2 * REVISION_INTERVAL_MS) == []


def test_revision_mode_goes_on_under_a_new_leader_and_compacts_nothing_twice() -> None:
    mode = RevisionCompaction(100)
    assert run(mode, 0, 2 * REVISION_INTERVAL_MS, is_leader=False) == []
    look_ms = 3 * REVISION_INTERVAL_MS
    assert mode.due(look_ms, 701, is_leader=True) == 601
    mode.compacted(look_ms, 601)
    assert mode.due(look_ms + REVISION_INTERVAL_MS, 701, is_leader=True) is None
