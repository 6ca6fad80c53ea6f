"""Numbers as Go's client writes them on the page of metrics, letter by letter.

Not by prometheus_client: that writes ``1.0`` for ``1``, and is a fortieth of a start to import.
"""

from __future__ import annotations

from decimal import Decimal
from math import inf, isnan
from typing import Final

PLAIN_BELOW: Final = 1_000_000
"""From here on Go writes an exponent, and below `PLAIN_EXPONENT_MIN`."""
PLAIN_EXPONENT_MIN: Final = -4


def go_number(value: int | float) -> str:
    """Return ``value`` as Go's ``strconv.FormatFloat(value, 'g', -1, 64)`` does."""
    if type(value) is int and -PLAIN_BELOW < value < PLAIN_BELOW:
        return str(value)  # nearly all are counts that are small
    value = float(value)
    if isnan(value):
        return "NaN"
    if value in (inf, -inf):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return repr(value).removesuffix(".0")
    sign, numbers, _ = shortest = Decimal(repr(value)).normalize().as_tuple()
    digits = "".join(map(str, numbers))
    point = len(digits) + int(shortest.exponent)  # digits before it
    exponent = point - 1
    if exponent < PLAIN_EXPONENT_MIN or abs(value) >= PLAIN_BELOW:
        fraction = f".{digits[1:]}" if len(digits) > 1 else ""
        text = f"{digits[0]}{fraction}e{exponent:+03d}"
    elif point <= 0:
        text = f"0.{'0' * -point}{digits}"
    elif point >= len(digits):
        text = digits + "0" * (point - len(digits))
    else:
        text = f"{digits[:point]}.{digits[point:]}"
    return f"-{text}" if sign else text
