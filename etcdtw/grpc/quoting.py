"""How Go prints a quoted string (``%q``): error texts carry it, and clients compare texts."""

from __future__ import annotations

from typing import Final

_ESCAPES: Final = {
    0x07: "\\a",
    0x08: "\\b",
    0x09: "\\t",
    0x0A: "\\n",
    0x0B: "\\v",
    0x0C: "\\f",
    0x0D: "\\r",
    0x22: '\\"',
    0x5C: "\\\\",
}


def quote_go(value: bytes) -> str:
    """Return ``value`` as Go's ``strconv.Quote`` writes it.

    Octets that are no UTF-8 become ``\\xNN``; unprintable characters ``\\uNNNN``.
    """
    parts = ['"']
    for char in value.decode("utf-8", "surrogateescape"):
        point = ord(char)
        if point in _ESCAPES:
            parts.append(_ESCAPES[point])
        elif 0xDC80 <= point <= 0xDCFF:  # an octet that surrogateescape carried through
            parts.append(f"\\x{point - 0xDC00:02x}")
        elif char.isprintable():
            parts.append(char)
        elif point < 0x80:
            parts.append(f"\\x{point:02x}")
        elif point < 0x10000:
            parts.append(f"\\u{point:04x}")
        else:
            parts.append(f"\\U{point:08x}")
    parts.append('"')
    return "".join(parts)
