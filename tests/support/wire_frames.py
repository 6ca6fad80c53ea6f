"""HTTP/2 frames and gRPC messages built by hand, for clients that share no code with ours.

Header blocks are literals without indexing (RFC 7541 section 6.2.2), so that they leave the
compression table of the receiver as it was and can be built once.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_SIZE: Final = 16384  # RFC 9113: what every receiver takes without a setting
WINDOW_MAX: Final = 2**31 - 1
WINDOW_DEFAULT: Final = 65535

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 1
ACK: Final = 1
END_HEADERS: Final = 4
PADDED: Final = 8

SETTINGS_HEADER_TABLE_SIZE: Final = 1
SETTINGS_INITIAL_WINDOW_SIZE: Final = 4

FRAME_HEAD: Final = Struct(">IBI")  # length and type as one word, flags, stream id
_SETTING: Final = Struct(">HI")
_WORD: Final = Struct(">I")
_MESSAGE_HEAD: Final = Struct(">BI")


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return one frame; nothing is checked, so that wrong ones can be built too."""
    return FRAME_HEAD.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def settings(values: dict[int, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


def parse_settings(payload: bytes) -> dict[int, int]:
    """Return the values in the payload of a SETTINGS frame."""
    return dict(_SETTING.iter_unpack(payload))


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream_id, _WORD.pack(increment))


def hpack_integer(value: int, prefix_bits: int, first: int = 0) -> bytes:
    """Return an integer by RFC 7541 section 5.1, ``first`` holding the bits above the prefix."""
    limit = (1 << prefix_bits) - 1
    if value < limit:
        return bytes([first | value])
    octets = bytearray([first | limit])
    value -= limit
    while value >= 128:
        octets.append(value & 127 | 128)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def literal(name: bytes, value: bytes, first: int = 0x00) -> bytes:
    """Return one field as a literal with a literal name (0x40: to be indexed, 0x10: never)."""
    return b"".join(
        (bytes([first]), hpack_integer(len(name), 7), name, hpack_integer(len(value), 7), value)
    )


def header_block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a header block of literals without indexing."""
    return b"".join(literal(name, value) for name, value in fields)


def _skip_integer(block: bytes, position: int, prefix_bits: int) -> tuple[int, int]:
    limit = (1 << prefix_bits) - 1
    value = block[position] & limit
    position += 1
    if value == limit:
        shift = 0
        while True:
            octet = block[position]
            position += 1
            value += (octet & 127) << shift
            shift += 7
            if octet < 128:
                break
    return value, position


def changes_table(block: bytes) -> bool:
    """Say whether a (valid) header block changes the table of its receiver.

    One that does not means the same whenever it comes, as long as no other one changes the table.
    """
    position = 0
    while position < len(block):
        octet = block[position]
        if octet & 0x80:
            _, position = _skip_integer(block, position, 7)
            continue
        if octet & 0x60:  # a literal to be indexed, or a new size
            return True
        index, position = _skip_integer(block, position, 4)
        for _ in range(1 if index else 2):
            length, position = _skip_integer(block, position, 7)
            position += length
    return False


def grpc_fields(path: str, authority: str, scheme: str = "http") -> list[tuple[bytes, bytes]]:
    """Return the request fields that grpc-go sends, in its order."""
    return [
        (b":method", b"POST"),
        (b":scheme", scheme.encode()),
        (b":path", path.encode()),
        (b":authority", authority.encode()),
        (b"content-type", b"application/grpc"),
        (b"user-agent", b"etcdtw-tests/1.0"),
        (b"te", b"trailers"),
    ]


def grpc_message(message: bytes, is_compressed: bool = False) -> bytes:
    """Return ``message`` behind gRPC's length prefix, if wanted in gzip's form."""
    octets = gzip.compress(message) if is_compressed else message
    return _MESSAGE_HEAD.pack(is_compressed, len(octets)) + octets


def data_frames(stream_id: int, octets: bytes, *, end: bool) -> bytes:
    """Return ``octets`` as DATA frames of at most `FRAME_SIZE`, the last one ending the stream."""
    parts = []
    for start in range(0, max(len(octets), 1), FRAME_SIZE):
        piece = octets[start : start + FRAME_SIZE]
        is_last = start + FRAME_SIZE >= len(octets)
        parts.append(frame(DATA, END_STREAM if end and is_last else 0, stream_id, piece))
    return b"".join(parts)
