"""Numbers as `strconv.FormatFloat(value, 'g', -1, 64)` wrote them."""

from __future__ import annotations

import re
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.server.metrics.numbers import go_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (-0.0, "-0"),
        (1, "1"),
        (True, "1"),
        (-3, "-3"),
        (7.0, "7"),
        (0.1, "0.1"),
        (0.0001, "0.0001"),
        (0.00012345, "0.00012345"),
        (0.00001, "1e-05"),
        (1.5, "1.5"),
        (100.0025, "100.0025"),
        (999_999, "999999"),
        (999_999.5, "999999.5"),
        (1_000_000, "1e+06"),
        (-1_000_000, "-1e+06"),
        (1_234_567, "1.234567e+06"),
        (1_234_567.25, "1.23456725e+06"),
        (1_700_000_000.12, "1.70000000012e+09"),
        (2**64 - 1, "1.8446744073709552e+19"),
        (1e100, "1e+100"),
        (5e-324, "5e-324"),
        (inf, "+Inf"),
        (-inf, "-Inf"),
        (nan, "NaN"),
    ],
)
def test_a_number_is_written_as_by_go(value: float, text: str) -> None:
    assert go_number(value) == text


@given(st.floats(allow_nan=False))
def test_a_number_is_read_back_as_it_was(value: float) -> None:
    text = go_number(value)
    assert float(text) == value
    assert re.fullmatch(r"-?\d+(\.\d*[1-9])?(e[+-]\d{2,})?|[+-]Inf", text)
