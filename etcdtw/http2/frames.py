"""Frame layout: constants and the octets of the frames we write.

    frame := length:u24 type:u8 flags:u8 stream_id:u32 payload     (top bit of stream_id reserved)

Source: RFC 9113 sections 4 and 6.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

FLAG_ACK: Final = 0x1
FLAG_END_STREAM: Final = 0x1
FLAG_END_HEADERS: Final = 0x4
FLAG_PADDED: Final = 0x8
FLAG_PRIORITY: Final = 0x20

HEADER_SIZE: Final = 9
HEADER: Final = Struct(">IBI")
"""(length << 8 | type, flags, stream_id): one unpack a frame."""
U32: Final = Struct(">I")
PAIR: Final = Struct(">II")
SETTING: Final = Struct(">HI")

STREAM_ID_MASK: Final = 0x7FFFFFFF

SETTINGS_HEADER_TABLE_SIZE: Final = 0x1
SETTINGS_ENABLE_PUSH: Final = 0x2
SETTINGS_MAX_CONCURRENT_STREAMS: Final = 0x3
SETTINGS_INITIAL_WINDOW_SIZE: Final = 0x4
SETTINGS_MAX_FRAME_SIZE: Final = 0x5
SETTINGS_MAX_HEADER_LIST_SIZE: Final = 0x6


def head_and_data(size: int) -> Struct:
    """Return the layout of a HEADERS frame, its block of ``size``, and a DATA frame's header."""
    return Struct(f">IBI{size}sIBI")


def encode_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return one whole frame."""
    return HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def encode_settings(settings: tuple[tuple[int, int], ...]) -> bytes:
    """Return a SETTINGS frame; ``settings`` holds (identifier, value)."""
    payload = b"".join([SETTING.pack(identifier, value) for identifier, value in settings])
    return encode_frame(SETTINGS, 0, 0, payload)


SETTINGS_ACK: Final = encode_frame(SETTINGS, FLAG_ACK, 0)


def encode_reset(stream_id: int, error_code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return encode_frame(RST_STREAM, 0, stream_id, U32.pack(error_code))


def encode_window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return encode_frame(WINDOW_UPDATE, 0, stream_id, U32.pack(increment))


def encode_ping(opaque: bytes, ack: bool = False) -> bytes:
    """Return a PING frame; ``opaque`` is 8 octets."""
    return encode_frame(PING, FLAG_ACK if ack else 0, 0, opaque)


def encode_goaway(last_stream_id: int, error_code: int, debug: bytes = b"") -> bytes:
    """Return a GOAWAY frame."""
    return encode_frame(GOAWAY, 0, 0, PAIR.pack(last_stream_id, error_code) + debug)


def encode_headers(stream_id: int, block: bytes, end_stream: bool, size_max: int) -> bytes:
    """Return HEADERS, and CONTINUATION frames when ``block`` is over ``size_max`` octets."""
    end_flag = FLAG_END_STREAM if end_stream else 0
    if len(block) <= size_max:
        return encode_frame(HEADERS, FLAG_END_HEADERS | end_flag, stream_id, block)
    pieces = [encode_frame(HEADERS, end_flag, stream_id, block[:size_max])]
    for start in range(size_max, len(block), size_max):
        end = start + size_max
        flags = FLAG_END_HEADERS if end >= len(block) else 0
        pieces.append(encode_frame(CONTINUATION, flags, stream_id, block[start:end]))
    return b"".join(pieces)
