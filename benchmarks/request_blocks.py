"""Header blocks of gRPC requests, compressed as grpc-go compresses them (RFC 7541).

The first request of a connection puts its fields into the dynamic table, later ones refer to
them.  With a new ``grpc-timeout`` in each request the table shifts with every request and evicts
in a cycle, which `TimeoutBlocks` follows exactly; caching such blocks on the server is useless.
"""

from __future__ import annotations

from typing import Final

from tests.support import wire_frames as wire

STATIC_ENTRIES: Final = 61
TABLE_OCTETS_MAX: Final = 4096
ENTRY_OVERHEAD: Final = 32
TIMEOUT_NAME: Final = b"grpc-timeout"
TIMEOUT_LENGTH: Final = 8  # all values have one length, so the cycle of evictions is one for all

# Name indexes of the static table for the fields that have one there.
_STATIC_NAMES: Final = {b":path": 4, b":authority": 1, b"content-type": 31, b"user-agent": 58}


def _indexed_literal(name: bytes, value: bytes, name_index: int) -> bytes:
    if not name_index:
        return wire.literal(name, value, 0x40)
    return wire.hpack_integer(name_index, 6, 0x40) + wire.hpack_integer(len(value), 7) + value


class PlainBlocks:
    """The blocks of a connection on which every request has the same fields."""

    def __init__(self, path: str, authority: str, scheme: str, token: str = "") -> None:
        fields = wire.grpc_fields(path, authority, scheme)
        fields += [(b"token", token.encode())] if token else []
        start = b"\x83" + (b"\x86" if scheme == "http" else b"\x87")
        varying = fields[2:]
        self.first = start + b"".join(
            _indexed_literal(name, value, _STATIC_NAMES.get(name, 0)) for name, value in varying
        )
        newest = STATIC_ENTRIES + 1
        self.later = start + b"".join(
            wire.hpack_integer(newest + len(varying) - 1 - i, 7, 0x80) for i in range(len(varying))
        )


class TimeoutBlocks:
    """What stands before the timeout's value in the nth block of a connection.

    Shared by all connections, as each goes through the same sequence; grows as it is asked.
    """

    def __init__(self, path: str, authority: str, scheme: str) -> None:
        self._start = b"\x83" + (b"\x86" if scheme == "http" else b"\x87")
        self._fields = wire.grpc_fields(path, authority, scheme)[2:]
        self._entries: list[bytes] = []  # names, newest first
        self._size = 0
        self._sizes: list[int] = []
        self._blocks: list[bytes] = []

    def before_value(self, n: int) -> bytes:
        """Return the nth block (from 0) up to the octets of the timeout's value."""
        while len(self._blocks) <= n:
            self._blocks.append(self._next())
        return self._blocks[n]

    def _next(self) -> bytes:
        parts = [self._start]
        for name, value in self._fields:
            if name in self._entries:
                index = STATIC_ENTRIES + 1 + self._entries.index(name)
                parts.append(wire.hpack_integer(index, 7, 0x80))
            else:
                parts.append(_indexed_literal(name, value, _STATIC_NAMES.get(name, 0)))
                self._insert(name, len(value))
        name_index = 0
        if TIMEOUT_NAME in self._entries:
            name_index = STATIC_ENTRIES + 1 + self._entries.index(TIMEOUT_NAME)
        parts.append(_indexed_literal(TIMEOUT_NAME, b"0" * TIMEOUT_LENGTH, name_index))
        self._insert(TIMEOUT_NAME, TIMEOUT_LENGTH)
        return b"".join(parts)[:-TIMEOUT_LENGTH]

    def _insert(self, name: bytes, value_length: int) -> None:
        size = len(name) + value_length + ENTRY_OVERHEAD
        self._entries.insert(0, name)
        self._sizes.insert(0, size)
        self._size += size
        while self._size > TABLE_OCTETS_MAX:
            self._size -= self._sizes.pop()
            self._entries.pop()


def timeout_values(count: int) -> list[bytes]:
    """Return ``count`` different timeouts of about 5 s in microseconds, `TIMEOUT_LENGTH` long."""
    return [b"%du" % (4_900_000 + i) for i in range(count)]
