"""Deadlines against a plain dict, and the bound on what a heap remembers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from etcdtw.lease.deadlines import STALE_ENTRIES_MIN, Deadlines


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


def test_stale_entries_are_bounded() -> None:
    deadlines = Deadlines()
    for i in range(10 * STALE_ENTRIES_MIN):
        deadlines.arm(1, 10**9 + i)
        assert deadlines.entries <= 2 + STALE_ENTRIES_MIN
    assert deadlines.next_due(10**9) is None
    assert deadlines.next_due(2 * 10**9) == 1
