"""Leases by id are as a dict has them, without what a dict does at once."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.lease.by_id import SHARDS, ById
from etcdtw.lease.moment import Moment

IDS_COUNT = 20 * SHARDS


def filled(count: int) -> ById[int]:
    table: ById[int] = ById()
    for i in range(count):
        table[i] = -i
    return table


@given(st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers()), max_size=60))
def test_it_holds_what_a_dict_holds(steps: list[tuple[bool, int, int]]) -> None:
    table: ById[int] = ById()
    plain: dict[int, int] = {}
    for is_set, key, value in steps:
        if is_set:
            table[key] = plain[key] = value
        else:
            assert table.pop(key) == plain.pop(key, None)
        assert len(table) == len(plain)
        assert [table.get(i) for i in range(-3, 4)] == [plain.get(i) for i in range(-3, 4)]
        assert [i in table for i in range(-3, 4)] == [i in plain for i in range(-3, 4)]
        assert sorted(rest(table.moment())) == sorted(plain.values())
    with pytest.raises(KeyError):
        table[4]


def rest(moment: Moment[int]) -> list[int]:
    found: list[int] = []
    while not moment.is_done:
        found += moment.take()
    return found


@pytest.mark.parametrize("step", [1, SHARDS, 1 << 40])
def test_no_choice_of_ids_fills_one_dict(step: int) -> None:
    table: ById[int] = ById()
    for i in range(IDS_COUNT):
        table[i * step] = i
    moment = table.moment()
    pieces = []
    while not moment.is_done:
        pieces.append(len(moment.take()))
    assert len(pieces) == SHARDS
    assert sum(pieces) == moment.count == IDS_COUNT
    assert max(pieces) < 4 * IDS_COUNT // SHARDS


@pytest.mark.parametrize("taken", [0, 1, SHARDS // 2, SHARDS])
def test_a_moment_stays_as_it_was(taken: int) -> None:
    table = filled(IDS_COUNT)
    moment = table.moment()
    found: list[int] = []
    for _ in range(taken):
        found += moment.take()
    for i in range(IDS_COUNT):
        if i % 2:
            table.pop(i)
        else:
            table[i] = 1
        table[IDS_COUNT + i] = 2
    assert sorted(found + rest(moment), reverse=True) == [-i for i in range(IDS_COUNT)]
    assert sorted(set(rest(table.moment()))) == [1, 2]


def test_nothing_is_kept_for_moments_that_nobody_takes_from() -> None:
    table = filled(IDS_COUNT)
    for _ in range(10):
        table.moment()
        assert len(table._moments) <= 2
    gc.collect()
    table[0] = 1
    assert not table._moments


def test_it_is_freed_in_pieces() -> None:
    table = filled(IDS_COUNT)
    left = IDS_COUNT
    pieces = 0
    is_done = False
    while not is_done:
        before = left
        is_done = table.bury(100)
        left = sum(map(len, table._shards))
        assert before - left <= 100
        pieces += 1
    assert not left
    assert pieces == IDS_COUNT // 100 + 1


def test_what_is_still_taken_is_not_freed_before() -> None:
    table = filled(IDS_COUNT)
    moment = table.moment()
    assert table.bury(100)
    del table
    assert sum(rest(moment)) == -sum(range(IDS_COUNT))
