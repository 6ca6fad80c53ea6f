"""Durable rows and the overlay's changes as one: no more of it than was asked for."""

from __future__ import annotations

from etcdtw.storage.overlay import merge_rows
from etcdtw.storage.state_codec import encode_frame

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
