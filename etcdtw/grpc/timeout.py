"""The ``grpc-timeout`` field: at most eight digits and a unit.

Source: gRPC over HTTP/2, "Timeout"; the error texts are grpc-go's.
"""

from __future__ import annotations

from typing import Final

from etcdtw.grpc.quoting import quote_go

TIMEOUT_DIGITS_MAX: Final = 8

_NS_PER_MS: Final = 1_000_000
_NS_OF_UNIT: Final = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}
# Smallest unit first: a sender keeps as much precision as fits.
_MS_PER_UNIT: Final = ((b"m", 1), (b"S", 1_000), (b"M", 60_000), (b"H", 3_600_000))


class TimeoutFormatError(ValueError):
    """A ``grpc-timeout`` that is none; the text says why."""


def parse_timeout(value: bytes) -> int:
    """Return the timeout in whole milliseconds, rounded up: a call is never ended early.

    Raises `TimeoutFormatError`.
    """
    if len(value) < 2:
        raise TimeoutFormatError(f"transport: timeout string is too short: {quote_go(value)}")
    if len(value) > TIMEOUT_DIGITS_MAX + 1:
        raise TimeoutFormatError(f"transport: timeout string is too long: {quote_go(value)}")
    unit_ns = _NS_OF_UNIT.get(value[-1:])
    if unit_ns is None:
        raise TimeoutFormatError(f"transport: timeout unit is not recognized: {quote_go(value)}")
    digits = value[:-1]
    if not digits.isdigit():
        raise TimeoutFormatError(f"strconv.ParseInt: parsing {quote_go(digits)}: invalid syntax")
    return -(-int(digits) * unit_ns // _NS_PER_MS)


def format_timeout(timeout_ms: int) -> bytes:
    """Return ``timeout_ms`` as a field value, rounded up to a unit that fits eight digits."""
    amount = max(timeout_ms, 0)
    for unit, unit_ms in _MS_PER_UNIT:
        count = -(-amount // unit_ms)
        if count < 10**TIMEOUT_DIGITS_MAX:
            return b"%d%s" % (count, unit)
    return b"99999999H"
