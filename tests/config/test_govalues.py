"""Values as Go reads and prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.config.govalues import (
    ValueTextError,
    duration_text,
    parse_duration_ns,
    parse_integer,
)


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("0", 0),
        ("-0", 0),
        ("1ns", 1),
        ("1us", 1_000),
        ("1µs", 1_000),
        ("1μs", 1_000),
        ("1ms", 1_000_000),
        ("5s", 5_000_000_000),
        ("1m30s", 90_000_000_000),
        ("2h", 7_200_000_000_000),
        ("1.5h", 5_400_000_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("-1m", -60_000_000_000),
        ("+1s", 1_000_000_000),
    ],
)
def test_durations_are_read(text: str, expected_ns: int) -> None:
    assert parse_duration_ns(text) == expected_ns


@pytest.mark.parametrize(
    "text", ["", "5", "s", ".s", "1x", "1h1", "1 s", "--1s", "1d", "1e3s", "9999999999h", "-"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueTextError):
        parse_duration_ns(text)


@pytest.mark.parametrize(
    ("duration_ns", "expected"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_500, "1.5µs"),
        (100_000_000, "100ms"),
        (1_500_000_000, "1.5s"),
        (90_000_000_000, "1m30s"),
        (7_200_000_000_000, "2h0m0s"),
        (-5_000_000_000, "-5s"),
    ],
)
def test_durations_are_printed_as_go_does(duration_ns: int, expected: str) -> None:
    assert duration_text(duration_ns) == expected


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_printed_duration_is_read_back(duration_ns: int) -> None:
    assert parse_duration_ns(duration_text(duration_ns)) == duration_ns


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("10", 10), ("-3", -3), ("+3", 3), ("0x1F", 31), ("0b11", 3), ("0o17", 15),
     ("017", 15), ("1_000", 1000)],
)  # fmt: skip
def test_integers_are_read_in_gos_bases(text: str, expected: int) -> None:
    assert parse_integer(text, -100, 10_000) == expected


@pytest.mark.parametrize("text", ["", "x", "1.0", " 1", "1 ", "08", "1__0", "_1", "0x", "--1"])
def test_what_is_no_integer_is_refused(text: str) -> None:
    with pytest.raises(ValueTextError, match="parse error"):
        parse_integer(text, -10, 10)


def test_integer_out_of_range_is_another_error() -> None:
    assert parse_integer("10", 0, 10) == 10
    with pytest.raises(ValueTextError, match="value out of range"):
        parse_integer("11", 0, 10)
    with pytest.raises(ValueTextError, match="parse error"):
        parse_integer("-1", 0, 10)
