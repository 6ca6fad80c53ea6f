"""The log and its unstable tail, alone and against a plain list."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdtw.raft.entry import Entry, Snapshot
from etcdtw.raft.errors import InvariantError
from etcdtw.raft.log import ENTRY_OVERHEAD, NO_LIMIT, RaftLog, limit_size
from etcdtw.raft.memory_storage import MemoryStorage
from etcdtw.raft.storage import CompactedError, UnavailableError
from etcdtw.raft.unstable import KEPT_ENTRIES_MAX, KEPT_SIZE_MAX, Unstable


def entries_of(first: int, *terms: int, size: int = 0) -> list[Entry]:
    return [Entry(term, first + i, 0, b"x" * size) for i, term in enumerate(terms)]


def log_of(*terms: int, stored: int = 0) -> RaftLog:
    """Return a log with ``terms`` from index 1, the first ``stored`` of them on disk."""
    storage = MemoryStorage()
    entries = entries_of(1, *terms)
    storage.append(entries[:stored])
    log = RaftLog(storage, NO_LIMIT)
    log.append(entries[stored:])
    return log


def terms_of(log: RaftLog) -> list[int]:
    return [log.term(index) for index in range(1, log.last_index() + 1)]


def test_terms_come_from_disk_and_tail_alike() -> None:
    log = log_of(1, 1, 2, 3, stored=2)
    assert terms_of(log) == [1, 1, 2, 3]
    with pytest.raises(UnavailableError):
        log.term(5)


def test_a_slice_joins_disk_and_tail() -> None:
    log = log_of(1, 1, 2, 3, stored=2)
    assert [entry.index for entry in log.slice(2, 5, NO_LIMIT)] == [2, 3, 4]
    assert [entry.index for entry in log.slice(1, 3, NO_LIMIT)] == [1, 2]
    assert log.slice(3, 3, NO_LIMIT) == []


def test_a_slice_is_cut_at_the_size_but_never_empty() -> None:
    entries = entries_of(1, 1, 1, 1, size=10)
    one = 10 + ENTRY_OVERHEAD
    assert limit_size(entries, 0) == entries[:1]
    assert limit_size(entries, 2 * one - 1) == entries[:1]
    assert limit_size(entries, 2 * one) == entries[:2]
    assert limit_size(entries, 3 * one) == entries
    log = log_of(1, 1, 1, stored=2)
    assert len(log.slice(1, 4, 1)) == 1
    assert len(log.slice(2, 4, ENTRY_OVERHEAD)) == 1


def test_what_is_compacted_cannot_be_read() -> None:
    storage = MemoryStorage()
    storage.append(entries_of(1, 1, 1, 2))
    storage.compact(2)
    log = RaftLog(storage, NO_LIMIT)
    assert (log.first_index(), log.term(2)) == (3, 1)
    with pytest.raises(CompactedError):
        log.term(1)
    with pytest.raises(CompactedError):
        log.slice(2, 4, NO_LIMIT)


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [
        (3, 3, [1, 2, 3]),  # nothing new
        (4, 4, None),  # the position behind it is missing
        (3, 2, None),  # another term stands there
        (2, 2, [1, 2, 4, 4]),  # a conflict at 3
        (3, 3, [1, 2, 3, 4]),  # plainly more
    ],
)
def test_thesis_3_5_an_append_must_follow_on(
    index: int, term: int, expected: list[int] | None
) -> None:
    log = log_of(1, 2, 3)
    new_terms = (expected or [])[index:]
    last_index = log.append_after(index, term, 0, entries_of(index + 1, *new_terms))
    if expected is None:
        assert last_index is None
        assert terms_of(log) == [1, 2, 3]
    else:
        assert last_index == len(expected)
        assert terms_of(log) == expected


def test_thesis_3_5_entries_that_agree_are_kept_even_behind_the_append() -> None:
    log = log_of(1, 1, 1)
    assert log.append_after(0, 0, 0, entries_of(1, 1, 1)) == 2
    assert terms_of(log) == [1, 1, 1]  # an old, short message cuts nothing off


def test_a_follower_commits_no_further_than_what_it_knows_to_agree() -> None:
    log = log_of(1, 1, 1)
    log.append_after(1, 1, 3, entries_of(2, 1))
    assert log.commit_index == 2


def test_a_committed_entry_is_never_replaced() -> None:
    log = log_of(1, 1)
    log.commit_to(2)
    with pytest.raises(InvariantError):
        log.append_after(1, 1, 0, entries_of(2, 2))


def test_the_commit_index_neither_falls_nor_passes_the_end() -> None:
    log = log_of(1, 1)
    log.commit_to(2)
    log.commit_to(1)
    assert log.commit_index == 2
    with pytest.raises(InvariantError):
        log.commit_to(3)


def test_the_applied_index_stays_between_itself_and_the_commit_index() -> None:
    log = log_of(1, 1, 1)
    log.commit_to(2)
    log.applied_to(1, 0)
    for index in (0, 3):
        with pytest.raises(InvariantError):
            log.applied_to(index, 0)


def test_thesis_3_6_2_only_an_entry_of_this_term_is_committed_by_counting() -> None:
    log = log_of(1, 2, 2)
    assert not log.maybe_commit(1, 2)  # figure 3.7: replicated widely, yet of an old term
    assert log.maybe_commit(2, 2)
    assert log.commit_index == 2


@pytest.mark.parametrize(
    ("last_index", "last_term", "expected"),
    [(3, 3, True), (4, 3, True), (1, 4, True), (2, 3, False), (9, 2, False)],
)
def test_thesis_3_6_1_up_to_date_compares_term_then_index(
    last_index: int, last_term: int, expected: bool
) -> None:
    assert log_of(1, 2, 3).is_up_to_date(last_index, last_term) is expected


def test_find_conflict_by_term_skips_whole_terms() -> None:
    log = log_of(1, 1, 4, 4, 4, 6)
    assert log.find_conflict_by_term(6, 5) == (5, 4)
    assert log.find_conflict_by_term(5, 3) == (2, 1)
    assert log.find_conflict_by_term(2, 0) == (0, 0)
    assert log.find_conflict_by_term(9, 5) == (9, 0)


def test_find_conflict_by_term_stops_at_the_compacted_part() -> None:
    storage = MemoryStorage()
    storage.append(entries_of(1, 5, 5, 5, 6))
    storage.compact(2)
    log = RaftLog(storage, NO_LIMIT)
    assert log.find_conflict_by_term(4, 3) == (1, 0)


def test_only_durable_entries_are_applied_in_asynchronous_mode() -> None:
    log = log_of(1, 1, 1)
    log.commit_to(3)
    assert not log.has_committed_entries(apply_unstable=False)
    assert len(log.committed_entries(apply_unstable=True)) == 3
    log.unstable.stable_to(2, 1)
    assert [entry.index for entry in log.committed_entries(apply_unstable=False)] == [1, 2]


def test_applying_pauses_at_its_size_and_goes_on_when_it_is_given_back() -> None:
    storage = MemoryStorage()
    storage.append(entries_of(1, 1, 1, 1, size=76))
    log = RaftLog(storage, 150)
    log.commit_to(3)
    first = log.committed_entries(apply_unstable=False)
    assert [entry.index for entry in first] == [1]
    log.accept_applying(first, apply_unstable=False)
    assert log.committed_entries(apply_unstable=False) == []
    log.applied_to(1, 100)
    assert [entry.index for entry in log.committed_entries(apply_unstable=False)] == [2]


def test_a_pending_snapshot_holds_back_what_follows_it() -> None:
    log = log_of(1, 1)
    log.restore(Snapshot(9, 3))
    log.append_after(9, 3, 10, entries_of(10, 3))
    log.unstable.stable_to(10, 3)
    assert (log.first_index(), log.last_index(), log.last_term()) == (10, 10, 3)
    assert log.snapshot().index == 9
    assert not log.has_committed_entries(apply_unstable=False)
    log.unstable.stable_snapshot_to(9)
    log.applied_to(9, 0)
    assert [entry.index for entry in log.committed_entries(apply_unstable=False)] == [10]


def test_etcd_raft_aba_a_write_of_replaced_entries_makes_nothing_durable() -> None:
    unstable = Unstable(0)
    unstable.append(entries_of(1, 1, 1))
    unstable.accept_in_progress()
    unstable.append(entries_of(2, 2))
    assert not unstable.stable_to(2, 1)
    assert unstable.stable_index == 0
    assert unstable.stable_to(1, 1)
    assert [entry.term for entry in unstable.next_entries()] == [2]
    assert not unstable.stable_to(3, 2)  # there is no such entry
    assert not unstable.stable_to(1, 1)  # no news


def test_entries_stay_in_memory_until_durable_and_handed_out() -> None:
    unstable = Unstable(0)
    unstable.append(entries_of(1, 1, 1, 2))
    unstable.release_to(2)
    assert unstable.offset == 1
    unstable.stable_to(3, 2)
    assert unstable.offset == 3
    assert unstable.term(2) == 1  # the one just before the tail is remembered
    unstable.release_to(3)
    assert unstable.entries == []
    assert (unstable.last_index(), unstable.term(3)) == (3, 2)


def test_a_cut_before_the_tail_begins_it_anew() -> None:
    storage = MemoryStorage()
    storage.append(entries_of(1, 1, 1, 1))
    log = RaftLog(storage, NO_LIMIT)
    assert log.append_after(1, 1, 0, entries_of(2, 2, 2)) == 3
    assert terms_of(log) == [1, 2, 2]
    assert log.unstable.stable_index == 1


def test_the_kept_tail_has_a_bound_in_entries() -> None:
    most = KEPT_ENTRIES_MAX
    unstable = Unstable(0)
    unstable.append(entries_of(1, *[1] * most))
    unstable.stable_to(most, 1)
    assert len(unstable.entries) == most
    unstable.append(entries_of(most + 1, 1))
    unstable.stable_to(most + 1, 1)
    assert len(unstable.entries) == most // 2
    assert unstable.last_index() == most + 1


def test_the_kept_tail_has_a_bound_in_octets_but_keeps_what_is_not_durable() -> None:
    half = KEPT_SIZE_MAX // 2
    unstable = Unstable(0)
    unstable.append(entries_of(1, 1, 1, size=half))
    unstable.stable_to(2, 1)
    assert len(unstable.entries) == 2
    unstable.append(entries_of(3, 1, 1, size=half))
    unstable.stable_to(3, 1)
    assert unstable.offset > 1
    assert unstable.term(4) == 1


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4), st.integers(0, 9)), max_size=30))
def test_the_log_reads_like_a_plain_list(steps: list[tuple[int, int, int]]) -> None:
    storage = MemoryStorage()
    log = RaftLog(storage, NO_LIMIT)
    model: list[int] = []  # terms from index 1
    term = 1
    for kind, count, back in steps:
        if kind == 0:  # a new leader replaces some of the uncommitted tail
            term += 1
            keep = max(log.commit_index, len(model) - back)
            previous = model[keep - 1] if keep else 0
            assert log.append_after(keep, previous, 0, entries_of(keep + 1, *[term] * count))
            model = model[:keep] + [term] * count
        elif kind == 1:
            log.append(entries_of(len(model) + 1, *[term] * count))
            model += [term] * count
        elif kind == 2:
            entries = log.unstable.next_entries()
            log.unstable.accept_in_progress()
            storage.append(entries)
            log.unstable.stable_to(log.last_index(), log.last_term())
        elif kind == 3:
            log.commit_to(min(len(model), log.commit_index + count))
        else:
            applied = log.committed_entries(apply_unstable=False)
            if applied:
                log.accept_applying(applied, apply_unstable=False)
                log.applied_to(applied[-1].index, 0)
        assert terms_of(log) == model
        assert [entry.term for entry in log.slice(1, len(model) + 1, NO_LIMIT)] == model


def test_memory_storage_forgets_what_is_compacted_and_keeps_its_last_term() -> None:
    storage = MemoryStorage()
    storage.append([])
    storage.append(entries_of(1, 1, 2, 3))
    storage.compact(2)
    assert (storage.first_index(), storage.last_index(), storage.term(2)) == (3, 3, 2)
    for low, high, error in ((2, 4, CompactedError), (3, 5, UnavailableError)):
        with pytest.raises(error):
            storage.entries(low, high)
    with pytest.raises(CompactedError):
        storage.term(1)
    with pytest.raises(UnavailableError):
        storage.term(4)
    with pytest.raises(CompactedError):
        storage.compact(2)


def test_memory_storage_keeps_the_part_of_an_append_behind_its_compaction() -> None:
    storage = MemoryStorage()
    storage.append(entries_of(1, 1, 1, 1))
    storage.compact(2)
    storage.append(entries_of(2, 1, 1, 1))
    assert storage.last_index() == 4
    storage.append(entries_of(1, 1, 1))
    assert storage.last_index() == 4


def test_memory_storage_takes_only_newer_snapshots() -> None:
    storage = MemoryStorage()
    storage.append(entries_of(1, 1, 2, 3))
    made = storage.create_snapshot(2, Snapshot().conf_state, b"state")
    assert (made.index, made.term, storage.snapshot().data) == (2, 2, b"state")
    with pytest.raises(CompactedError):
        storage.create_snapshot(2, Snapshot().conf_state, b"")
    with pytest.raises(CompactedError):
        storage.apply_snapshot(Snapshot(2, 2))
    storage.apply_snapshot(Snapshot(7, 4))
    assert (storage.first_index(), storage.last_index(), storage.term(7)) == (8, 7, 4)
