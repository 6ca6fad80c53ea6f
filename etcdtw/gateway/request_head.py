"""What the head of a JSON request says to the call that is made of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from etcdtw.grpc.caller import AUTHORIZATION, TOKEN
from etcdtw.rpc.tracing.seams import CARRIED

TIMEOUT: Final = b"grpc-timeout"
METADATA_PREFIX: Final = b"grpc-metadata-"
PASSED_ON: Final = (TOKEN, AUTHORIZATION, b"hasleader", b"client-api-version", *CARRIED)
"""The metadata that a service of ours, or the tracer, looks at."""
TIMEOUT_MS_MAX: Final = 10**12
"""Thirty years."""

_TIMEOUT: Final = re.compile(rb"([+-]?[0-9]{1,18})([HMSmun])")
_NS_OF_UNIT: Final = {
    b"H": 3_600_000_000_000,
    b"M": 60_000_000_000,
    b"S": 1_000_000_000,
    b"m": 1_000_000,
    b"u": 1_000,
    b"n": 1,
}
_PASSED_ON: Final = tuple((METADATA_PREFIX + name, name) for name in PASSED_ON)
_PRINTABLE: Final = bytes(range(0x20, 0x7F))

Header = Callable[[bytes], "bytes | None"]


class HeadError(Exception):
    """The head cannot be understood; the text says why."""


def timeout_ms(header: Header) -> int | None:
    """Return how long the call may take, rounded up; None, as for 0: as long as it takes.

    Raises `HeadError`.
    """
    value = header(TIMEOUT)
    if not value:
        return None
    found = _TIMEOUT.fullmatch(value)
    if found is None:
        raise HeadError(f"invalid grpc-timeout: {value.decode('latin-1')}")
    if not int(found[1]):
        return None
    return min(-(-int(found[1]) * _NS_OF_UNIT[found[2]] // 1_000_000), TIMEOUT_MS_MAX)


def metadata(header: Header) -> list[tuple[bytes, bytes]]:
    """Return the call's metadata."""
    found: list[tuple[bytes, bytes]] = []
    authorization = header(AUTHORIZATION)
    if authorization is not None:
        found.append((AUTHORIZATION, authorization))
    for field, name in _PASSED_ON:
        value = header(field)
        if value is not None and not value.translate(None, _PRINTABLE):
            found.append((name, value))
    return found
