"""The checker of histories finds what is wrong with them, and nothing in a right one."""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.revision_order import (
    CompareFailed,
    LogEntry,
    Operation,
    Read,
    RevisionOrderChecker,
    Write,
)

NEVER: Final = float("inf")


def put(call_s: float, return_s: float, key: bytes, value: bytes, revision: int) -> Write:
    return Write(call_s, return_s, [(key, value)], revision)


def unknown(call_s: float, key: bytes, value: bytes) -> Write:
    return Write(call_s, NEVER, [(key, value)], 0)


def log(*changes: tuple[bytes, bytes | None]) -> list[LogEntry]:
    return [LogEntry(i, [change]) for i, change in enumerate(changes, 2)]


def problems(operations: list[Operation], entries: list[LogEntry]) -> list[str]:
    return RevisionOrderChecker().check(operations, entries)


def test_a_right_history_has_no_problem() -> None:
    history: list[Operation] = [
        put(0, 1, b"a", b"1", 2),
        put(0, 2, b"b", b"2", 3),
        Read(1.5, 3, b"a", b"1", 2, 3),
        Write(3, 4, [(b"a", b"3")], 4, expected=[(b"a", b"1")]),
        CompareFailed(4.5, 5, [(b"a", b"1")], 4),
        Write(6, 7, [(b"a", None)], 5),
        Read(8, 9, b"a", None, 0, 5),
        Read(8, 9, b"a", b"1", 2, 2, is_linearizable=False),
    ]
    assert problems(history, log((b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"a", None))) == []


def test_a_write_of_unknown_outcome_may_stand_in_the_log_or_not() -> None:
    for entries in ([], log((b"a", b"2")), log((b"a", b"2"), (b"a", b"1"))):
        assert problems([unknown(0, b"a", b"1"), unknown(0, b"a", b"2")], entries) == []


def test_a_write_of_unknown_outcome_may_come_in_a_later_stretch_and_only_once() -> None:
    checker = RevisionOrderChecker()
    assert (
        checker.check([unknown(0, b"a", b"1"), put(0, 1, b"b", b"2", 2)], log((b"b", b"2"))) == []
    )
    assert checker.check([], [LogEntry(3, [(b"a", b"1")])]) == []
    assert checker.resolved == 1
    assert "INVENTED" in checker.check([], [LogEntry(4, [(b"a", b"1")])])[0]


def test_a_delete_of_unknown_outcome_explains_one_delete() -> None:
    history: list[Operation] = [put(0, 1, b"a", b"1", 2), Write(2, NEVER, [(b"a", None)], 0)]
    assert problems(history, log((b"a", b"1"), (b"a", None))) == []
    assert "INVENTED" in problems(history[:1], log((b"a", b"1"), (b"a", None)))[0]


@pytest.mark.parametrize(
    ("history", "entries", "mark"),
    [
        ([put(0, 1, b"a", b"1", 2)], [], "LOST"),
        ([put(0, 1, b"a", b"1", 2)], log((b"a", b"2")), "WRONG"),
        ([put(0, 1, b"a", b"1", 2), put(0, 1, b"a", b"1", 2)], log((b"a", b"1")), "TWO"),
        ([], log((b"a", b"1")), "INVENTED"),
        ([unknown(0, b"a", b"1")], log((b"a", b"1"), (b"a", b"1")), "INVENTED"),
        (
            [Write(0, NEVER, [(b"a", b"1"), (b"b", b"2")], 0)],
            log((b"a", b"1")),
            "TORN",
        ),
        (
            [put(0, 1, b"a", b"1", 3), put(2, 3, b"b", b"2", 2)],
            log((b"b", b"2"), (b"a", b"1")),
            "STALE",
        ),
        (
            [put(0, 1, b"a", b"1", 2), put(0, 1, b"a", b"2", 3), Read(2, 3, b"a", b"1", 2, 2)],
            log((b"a", b"1"), (b"a", b"2")),
            "STALE",
        ),
        (
            [Read(0, 1, b"b", None, 0, 3), put(2, 3, b"a", b"1", 2), put(0, 4, b"b", b"2", 3)],
            log((b"a", b"1"), (b"b", b"2")),
            "STALE",
        ),
        (
            [put(0, 1, b"b", b"1", 3), unknown(2, b"a", b"2")],
            log((b"a", b"2"), (b"b", b"1")),
            "STALE",
        ),
        (
            [put(0, 1, b"a", b"1", 2), Read(0, 3, b"a", None, 0, 2)],
            log((b"a", b"1")),
            "WRONG",
        ),
        (
            [put(0, 1, b"a", b"1", 2), Read(2, 3, b"a", b"1", 2, 3)],
            log((b"a", b"1")),
            "FUTURE",
        ),
        (
            [
                put(0, 1, b"a", b"1", 2),
                Write(0, 1, [(b"a", b"2")], 3, expected=[(b"a", b"0")]),
            ],
            log((b"a", b"1"), (b"a", b"2")),
            "COMPARE",
        ),
        (
            [put(0, 1, b"a", b"1", 2), CompareFailed(2, 3, [(b"a", b"1")], 2)],
            log((b"a", b"1")),
            "COMPARE",
        ),
        ([], [LogEntry(3, [])], "the log goes"),
    ],
)
def test_each_fault_is_found(history: list[Operation], entries: list[LogEntry], mark: str) -> None:
    found = problems(history, entries)
    assert any(mark in text for text in found), found


def test_what_was_told_in_one_stretch_binds_the_next() -> None:
    checker = RevisionOrderChecker()
    checker.check([put(0, 1, b"a", b"1", 2)], log((b"a", b"1")))
    assert "STALE" in checker.check([Read(2, 3, b"a", None, 0, 1)], [])[0]


def test_forgetting_keeps_the_state_at_and_above_the_revision() -> None:
    checker = RevisionOrderChecker()
    checker.check(
        [put(i, i + 0.5, b"a", b"%d" % i, i) for i in (2, 3, 4)],
        log(*((b"a", b"%d" % i) for i in (2, 3, 4))),
    )
    checker.forget_below(3)
    assert checker.value_at(b"a", 2) == (None, 0)
    assert checker.value_at(b"a", 3) == (b"3", 3)
    assert checker.value_at(b"a", 4) == (b"4", 4)
