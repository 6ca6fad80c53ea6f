"""What the writer tells of itself, in etcd's units."""

from __future__ import annotations

from etcdtw.storage.state.stats import StateStats


def test_each_answer_of_the_writer_is_counted_where_etcd_counts_it() -> None:
    stats = StateStats(lambda: 3)
    assert (stats.open_reads(), stats.compacted_unix_s) == (3, 0.0)
    stats.committed(("committed", 1, 0.25))
    stats.stepped(("compaction_step", 10, 0.002))
    stats.stepped(("compaction_step", 5, 0.004))
    stats.compacted(("compacted", 7, 1.5, 1_700_000_000.0))
    assert (stats.commit_s.count, stats.commit_s.total) == (1, 0.25)
    assert stats.compacted_rows_total == 15
    assert (stats.compaction_step_ms.count, stats.compaction_step_ms.total) == (2, 6.0)
    assert (stats.compaction_ms.count, stats.compaction_ms.total) == (1, 1_500.0)
    assert stats.compacted_unix_s == 1_700_000_000.0


def test_a_finished_compaction_is_told_with_the_rows_that_it_deleted() -> None:
    stats = StateStats(lambda: 0)
    told: list[tuple[int, float, int]] = []
    stats.on_compacted = lambda *what: told.append(what)
    for revision, rows in ((7, 15), (9, 4)):
        stats.stepped(("compaction_step", rows, 0.002))
        stats.compacted(("compacted", revision, 1.5, 1_700_000_000.0))
    assert told == [(7, 1.5, 15), (9, 1.5, 4)]
