"""Numbers as Go's client writes them on the page of metrics, letter by letter."""

from __future__ import annotations

from math import inf, isnan
from typing import Final

PLAIN_BELOW: Final = 1_000_000
"""From here on Go writes an exponent."""


def go_number(value: int | float) -> str:
    """Return ``value`` as Go's ``strconv.FormatFloat(value, 'g', -1, 64)`` does."""
    if type(value) is int and -PLAIN_BELOW < value < PLAIN_BELOW:
        return str(value)  # nearly all are counts that are small
    # Not before it is needed: a fortieth of a start.
    from prometheus_client.utils import floatToGoString

    value = float(value)
    if isnan(value) or value in (inf, -inf):
        text: str = floatToGoString(value)
        return text
    # It knows no exponents of what is less than 0, and writes ``1.0`` for ``1``.
    shown: str = floatToGoString(abs(value)).removesuffix(".0")
    return f"-{shown}" if str(value).startswith("-") else shown
