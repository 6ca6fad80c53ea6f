"""Frames by hand, and a server that has its preface behind it."""

from __future__ import annotations

from etcdtw.http2 import frames
from etcdtw.http2.connection import Connection
from etcdtw.http2.frames import encode_frame, encode_settings
from etcdtw.http2.hpack import encode_block
from etcdtw.http2.limits import Limits

FIELDS = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/p")]
BLOCK = encode_block(FIELDS)
HEAD = encode_block([(b":status", b"200")])
TRAILERS = encode_block([(b"grpc-status", b"0")])
END = frames.FLAG_END_STREAM
WHOLE = frames.FLAG_END_HEADERS


def headers(stream_id: int, block: bytes = BLOCK, flags: int = WHOLE) -> bytes:
    return encode_frame(frames.HEADERS, flags, stream_id, block)


def data(stream_id: int, body: bytes = b"", flags: int = END) -> bytes:
    return encode_frame(frames.DATA, flags, stream_id, body)


def frame(kind: int, stream_id: int, payload: bytes, flags: int = 0) -> bytes:
    return encode_frame(kind, flags, stream_id, payload)


def new_server(limits: Limits | None = None) -> Connection:
    """A server that has read its client's preface, with nothing left to write."""
    server = Connection(limits=limits or Limits())
    server.begin()
    assert server.receive(frames.PREFACE + encode_settings(()), 0) == []
    server.take_output()
    return server


def written(connection: Connection) -> list[tuple[int, int, int, bytes]]:
    """The frames in the output: (type, flags, stream_id, payload)."""
    octets = connection.take_output()
    found = []
    while octets:
        word, flags, stream_id = frames.HEADER.unpack_from(octets)
        found.append((word & 0xFF, flags, stream_id, octets[9 : 9 + (word >> 8)]))
        octets = octets[9 + (word >> 8) :]
    return found
