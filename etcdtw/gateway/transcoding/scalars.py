"""Values of JSON as octets of protobuf: what Go's protojson takes for a number or for base64."""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from typing import Final

from etcdtw.gateway.transcoding.tables import BYTES, ENUM, INT32, INT64, UINT32, Field
from etcdtw.wire.encode import encode_varint

_NUMBER: Final = re.compile(r"(-?)(?:0|([1-9][0-9]*))(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_DIGITS_MAX: Final = 20
"""Of a 64-bit number and its sign."""
_EXPONENT_DIGITS_MAX: Final = 11
_INT32_MAX: Final = (1 << 31) - 1
_URL_SAFE: Final = str.maketrans("-_", "+/")
_RANGES: Final = {
    ENUM: (-(1 << 31), _INT32_MAX),
    INT32: (-(1 << 31), _INT32_MAX),
    INT64: (-(1 << 63), (1 << 63) - 1),
    UINT32: (0, (1 << 32) - 1),
}
_UINT64: Final = (0, (1 << 64) - 1)


def whole_number(text: str) -> int | None:
    """Return the number that ``text`` writes; None when it is no whole one, or far too large.

    ``1e2`` and ``1.0`` are whole.
    """
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    sign, whole, fraction, exponent = found.groups()
    whole, fraction = whole or "", (fraction or "").rstrip("0")
    if not whole and not fraction:
        return 0
    if exponent is None:
        shift = 0
    elif len(exponent) > _EXPONENT_DIGITS_MAX:
        return None
    else:
        shift = int(exponent)
    if shift >= 0:
        if len(fraction) > shift or len(whole) + shift > _DIGITS_MAX:
            return None
        digits = whole + fraction + "0" * (shift - len(fraction))
    else:
        kept = len(whole) + shift
        if fraction or kept <= 0 or whole[kept:].strip("0"):
            return None
        digits = whole[:kept]
    return int(sign + digits)


def within_range(field: Field, number: int) -> bool:
    """Whether a field of numbers can hold it."""
    least, greatest = _RANGES.get(field.kind, _UINT64)
    return least <= number <= greatest


def number_octets(field: Field, text: str, *, is_quoted: bool) -> bytes | None:
    """Return the varint that ``text`` means for ``field``; None: nothing that it takes.

    An enum takes no number in quotes.
    """
    if is_quoted and field.kind == ENUM:
        return None
    number = whole_number(text)
    if number is None or not within_range(field, number):
        return None
    return encode_varint(number)


def decode_base64(text: str) -> bytes | None:
    """Return what ``text`` means: base64 of either alphabet, with its padding or without any.

    Line breaks are skipped, as Go does.
    """
    if "-" in text or "_" in text:
        if "+" in text or "/" in text:
            return None
        text = text.translate(_URL_SAFE)
    is_bare = len(text) % 4 != 0
    if "\n" in text or "\r" in text:
        text = text.replace("\n", "").replace("\r", "")
    if is_bare:
        if "=" in text:
            return None
        text += "=" * (-len(text) % 4)
    try:
        return a2b_base64(text, strict_mode=True)
    except (Error, ValueError):
        return None


def is_default(field: Field, octets: bytes) -> bool:
    """Whether a value goes without saying, as proto3 has it."""
    return not field.is_shown_empty and octets == (b"\0" if field.kind < BYTES else b"")
