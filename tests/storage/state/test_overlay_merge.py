"""Durable rows and the overlay's changes as one: no more of it than was asked for."""

from __future__ import annotations

import pytest

from etcdtw.storage.rows.codec import encode_frame
from etcdtw.storage.state.overlay import FRESH_MAX, Generation, changed_from, merge_rows

ROWS = [(b"a", encode_frame(b"old a")), (b"c", encode_frame(b"old c"))]
CHANGED: dict[bytes, bytes | None] = {b"d": b"new d", b"a": None, b"b": b"new b"}
ALL = [(b"b", encode_frame(b"new b")), ROWS[1], (b"d", encode_frame(b"new d"))]


def test_changes_cover_rows_in_key_order() -> None:
    assert merge_rows(ROWS, CHANGED, 0, 0) == ALL


def test_no_more_rows_than_the_limit_are_encoded() -> None:
    assert [merge_rows(ROWS, CHANGED, limit, 0) for limit in (1, 2, 3, 4)] == [
        ALL[:1],
        ALL[:2],
        ALL,
        ALL,
    ]


def test_the_row_that_reaches_the_octets_is_the_last() -> None:
    size = len(ALL[0][1])
    assert merge_rows(ROWS, CHANGED, 0, size) == ALL[:1]
    assert merge_rows(ROWS, CHANGED, 0, size + 1) == ALL[:2]


@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_a_step_takes_no_more_of_a_generation_than_its_limit(limit: int) -> None:
    older, newer = Generation(1), Generation(2)
    for i in range(2_000):
        key = b"%05d" % (i * 7 % 2_000)
        for generation in (older, newer) if i % 3 else (older,):
            generation.current[key] = b"%d" % generation.number
            generation.fresh.append(key)
    expected = {**older.current, **newer.current}
    found: dict[bytes, bytes | None] = {}
    position: bytes | None = b"00010"
    while position is not None:
        some, position = changed_from((older, newer), position, b"01990", limit)
        assert len(some) <= 2 * limit + FRESH_MAX
        found.update(some)
    assert found == {k: v for k, v in expected.items() if b"00010" <= k < b"01990"}
