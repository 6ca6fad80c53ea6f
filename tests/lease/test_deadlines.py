"""Deadlines against a plain dict, and the bound on what a heap remembers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from etcdtw.lease.deadlines import MOVED_MAX, STALE_ENTRIES_MIN, STALE_MET_MAX, Deadlines


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.integers(0, 20)), max_size=60))
def test_deadlines_are_as_a_dict_has_them(steps: list[tuple[int, int, int]]) -> None:
    deadlines = Deadlines()
    plain: dict[int, int] = {}
    for what, key, time_ms in steps:
        if what == 0:
            deadlines.arm(key, time_ms)
            plain[key] = time_ms
        elif what == 1:
            deadlines.disarm(key)
            plain.pop(key, None)
        else:
            due = sorted((due_ms, key) for key, due_ms in plain.items() if due_ms <= time_ms)
            found = deadlines.next_due(time_ms)
            assert found == (due[0][1] if due else None)
            if found is not None:
                del plain[found]
        assert len(deadlines) == len(plain)


def stale(count: int) -> Deadlines:
    """Deadlines of so many keys, each disarmed: what makes a new heap is behind them."""
    deadlines = Deadlines()
    for key in range(count):
        deadlines.arm(key, 1_000 + key)
    for key in range(count):
        deadlines._due_ms.pop(key)
    return deadlines


def test_stale_entries_are_bounded() -> None:
    deadlines = Deadlines()
    for i in range(10 * STALE_ENTRIES_MIN):
        deadlines.arm(1, 10**9 + i)
        assert deadlines.entries <= (2 + STALE_ENTRIES_MIN) * (MOVED_MAX + 1) // MOVED_MAX
    assert deadlines.next_due(10**9) is None
    assert next_of(deadlines, 2 * 10**9) == 1


def next_of(deadlines: Deadlines, now_ms: int) -> int | None:
    """Ask until the stale ones are dropped."""
    found = deadlines.next_due(now_ms)
    while found is None and deadlines.has_due(now_ms):
        found = deadlines.next_due(now_ms)
    return found


def test_a_new_heap_is_filled_a_few_entries_at_a_time() -> None:
    deadlines = stale(50_000)
    for key in range(100_000, 110_000):
        deadlines._due_ms[key] = 5_000_000
        deadlines._heap.append((5_000_000, key))  # the latest: still a heap
    deadlines.disarm(0)
    before = deadlines.entries
    calls = 0
    while deadlines._old:
        deadlines.disarm(0)
        calls += 1
        assert before - MOVED_MAX <= deadlines.entries <= before
        before = deadlines.entries
    assert calls == 60_000 // MOVED_MAX
    assert deadlines.entries == 10_000
    assert next_of(deadlines, 5_000_000) == 100_000


def test_what_is_due_is_found_while_it_is_moved() -> None:
    deadlines = stale(3 * STALE_ENTRIES_MIN)
    for key in range(100_000, 100_010):
        deadlines.arm(key, 1_000_000 - key)
    assert deadlines._old
    assert deadlines._heap
    found = [next_of(deadlines, 1_000_000) for _ in range(10)]
    assert found == list(range(100_009, 99_999, -1))
    assert next_of(deadlines, 1_000_000) is None


def test_one_question_drops_so_many_stale_entries_and_no_more() -> None:
    deadlines = stale(STALE_MET_MAX + 1)
    deadlines.arm(100_000, 1_000_000)
    assert deadlines.next_due(1_000_000) is None
    assert deadlines.has_due(1_000_000)
    assert deadlines.next_due(1_000_000) == 100_000
    deadlines = stale(STALE_MET_MAX)
    deadlines.arm(100_000, 1_000_000)
    assert deadlines.next_due(1_000_000) == 100_000
