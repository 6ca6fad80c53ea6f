"""Values as Go's flag package reads them, with its error texts.

Durations are whole nanoseconds here, as in Go and in etcd's configuration file.
"""

from __future__ import annotations

import re
from typing import Final

NS_PER_S: Final = 1_000_000_000
_TRUE: Final = ("1", "t", "T", "true", "TRUE", "True")
_FALSE: Final = ("0", "f", "F", "false", "FALSE", "False")
_UNITS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,  # U+00B5, the micro sign
    "μs": 1_000,  # U+03BC, the Greek letter
    "ms": 1_000_000,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
}
_DURATION_PART: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]+)")
_INTEGER: Final = re.compile(
    r"[+-]?(0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO]?(_?[0-7])+|0|[1-9](_?[0-9])*)\Z"
)
PARSE_ERROR: Final = "parse error"
RANGE_ERROR: Final = "value out of range"


class ValueTextError(ValueError):
    """The text is not a value of this kind; the message is what Go says."""


def parse_bool(text: str) -> bool:
    """Parse a boolean: ``1``, ``t``, ``true``, ``0``, ``f``, ``false`` and their capitals."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueTextError(PARSE_ERROR)


def parse_integer(text: str, low: int, high: int) -> int:
    """Parse an integer as Go does with base 0 (``0x``, ``0o``, ``0b``, ``1_000``)."""
    if _INTEGER.match(text) is None or (low == 0 and text[:1] in "+-"):
        raise ValueTextError(PARSE_ERROR)
    digits = text.replace("_", "")
    sign = -1 if digits[0] == "-" else 1
    digits = digits.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        digits = "0o" + digits[1:]  # Go reads a leading zero as octal
    value = sign * int(digits, 0)
    if not low <= value <= high:
        raise ValueTextError(RANGE_ERROR)
    return value


def parse_duration_ns(text: str) -> int:
    """Parse ``1m30s``, ``-1.5h``, ``0``: whole nanoseconds.  A unit is required but for 0."""
    sign, rest = 1, text
    if rest[:1] in ("+", "-"):
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0
    total_ns, position = 0, 0
    while position < len(rest):
        part = _DURATION_PART.match(rest, position)
        if part is None or part.group(2) not in _UNITS_NS:
            raise ValueTextError(PARSE_ERROR)
        whole, _, fraction = part.group(1).partition(".")
        unit_ns = _UNITS_NS[part.group(2)]
        total_ns += int(whole or "0") * unit_ns
        if fraction:
            total_ns += int(fraction) * unit_ns // 10 ** len(fraction)
        position = part.end()
    if position == 0:
        raise ValueTextError(PARSE_ERROR)
    if total_ns >= 2**63:
        raise ValueTextError(PARSE_ERROR)
    return sign * total_ns


def duration_text(duration_ns: int) -> str:
    """Return a duration as Go prints it: ``1m30s``, ``100ms``, ``0s``."""
    if duration_ns == 0:
        return "0s"
    sign, rest = ("-", -duration_ns) if duration_ns < 0 else ("", duration_ns)
    if rest < NS_PER_S:
        for unit in ("ms", "µs", "ns"):
            if rest >= _UNITS_NS[unit]:
                return f"{sign}{_decimal(rest, _UNITS_NS[unit])}{unit}"
    hours, rest = divmod(rest, _UNITS_NS["h"])
    minutes, rest = divmod(rest, _UNITS_NS["m"])
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return f"{sign}{text}{_decimal(rest, NS_PER_S)}s"


def _decimal(value: int, unit: int) -> str:
    whole, fraction = divmod(value, unit)
    if fraction == 0:
        return str(whole)
    return f"{whole}.{str(fraction).zfill(len(str(unit)) - 1).rstrip('0')}"
