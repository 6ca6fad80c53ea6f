"""Which header fields HTTP/2 admits: octets of names and values, pseudo-fields, body length.

Knows no stream and no frame.  Source: RFC 9113 sections 8.1.1, 8.2 and 8.3.
"""

from __future__ import annotations

import re
from typing import Final

from etcdtw.http2.events import Field

NO_LENGTH: Final = -1
"""The message is well formed and announces no content-length."""
MALFORMED: Final = -2

# 8.2.1: a token (RFC 9110 5.6.2) without upper case, as Go's HTTP/2 demands as well; a colon only
# in front, where 8.3 leaves these names.
_NAME: Final = re.compile(rb":(?:method|scheme|authority|path|status)|[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE_FORBIDDEN: Final = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z")
_LENGTH_DIGITS_MAX: Final = 18

_METHOD: Final = 1
_SCHEME: Final = 2
_AUTHORITY: Final = 4
_PATH: Final = 8
_STATUS: Final = 16
_CONNECTION: Final = 32
_TE: Final = 64
_LENGTH: Final = 128
_RULES: Final[dict[bytes, int]] = {
    b":method": _METHOD,
    b":scheme": _SCHEME,
    b":authority": _AUTHORITY,
    b":path": _PATH,
    b":status": _STATUS,
    b"connection": _CONNECTION,
    b"proxy-connection": _CONNECTION,
    b"keep-alive": _CONNECTION,
    b"transfer-encoding": _CONNECTION,
    b"upgrade": _CONNECTION,
    b"te": _TE,
    b"content-length": _LENGTH,
}
_NORMAL: Final = _METHOD | _SCHEME | _PATH
_PSEUDO_MAX: Final = _STATUS


def is_name(name: bytes) -> bool:
    """Tell whether ``name`` may stand in a header block."""
    return name in _RULES or _NAME.fullmatch(name) is not None


def is_value(value: bytes) -> bool:
    """Tell whether ``value`` holds no NUL, CR, LF and no blank at its ends."""
    return value.isalnum() or _VALUE_FORBIDDEN.search(value) is None


def are_clean(fields: list[Field]) -> bool:
    """Tell whether all names and values are admissible octets."""
    return all(is_name(name) and is_value(value) for name, value in fields)


def _check(fields: tuple[Field, ...], allowed: int) -> tuple[int, int]:
    """Return (pseudo-fields seen as a bit set, content-length); (0, MALFORMED) on a breach."""
    seen = 0
    length = NO_LENGTH
    ordinary = False
    for name, value in fields:
        rule: int = _RULES.get(name, 0)
        if not rule:
            ordinary = True
        elif rule <= _PSEUDO_MAX:
            if ordinary or rule & seen or not rule & allowed:
                return 0, MALFORMED
            seen |= rule
        elif rule == _TE:
            ordinary = True
            if value != b"trailers":
                return 0, MALFORMED
        elif rule == _LENGTH:
            ordinary = True
            if not value.isdigit() or len(value) > _LENGTH_DIGITS_MAX:
                return 0, MALFORMED
            if length not in (NO_LENGTH, int(value)):
                return 0, MALFORMED
            length = int(value)
        else:
            return 0, MALFORMED
    return seen, length


def check_request(fields: tuple[Field, ...]) -> int:
    """Return the announced content-length, `NO_LENGTH`, or `MALFORMED`."""
    seen, length = _check(fields, _NORMAL | _AUTHORITY)
    if seen & ~_AUTHORITY == _NORMAL:
        method = b""
        for name, value in fields[:4]:
            if name == b":method":
                method = value
        # What a path may be is for whoever knows the protocol above: gRPC answers any.
        return MALFORMED if method == b"CONNECT" or not method else length
    # CONNECT names a host and nothing else (8.5).
    if seen == _METHOD | _AUTHORITY and (b":method", b"CONNECT") in fields:
        return length
    return MALFORMED


def check_response(fields: tuple[Field, ...]) -> tuple[int, int]:
    """Return (status, content-length as in `check_request`); status 0 when malformed."""
    seen, length = _check(fields, _STATUS)
    if seen != _STATUS:
        return 0, MALFORMED
    status = fields[0][1]
    if len(status) != 3 or not status.isdigit() or status < b"100":
        return 0, MALFORMED
    return int(status), length


def check_trailers(fields: tuple[Field, ...]) -> bool:
    """Tell whether ``fields`` may be trailers: no pseudo-field, nothing of the connection."""
    return _check(fields, 0)[1] != MALFORMED
