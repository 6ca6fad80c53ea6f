"""Microseconds of CPU for one small unary exchange through the HTTP/2 core.

Server side only: HEADERS and DATA in, `reply` out, many exchanges in each buffer, as under load.
The client's octets are made beforehand with the `hpack` library, which compresses as real clients
do (incremental indexing, Huffman).  Run: ``python benchmarks/micro_http2.py``.
"""

from __future__ import annotations

import sys
import time

import hpack

from etcdtw.http2 import events, frames
from etcdtw.http2.connection import Connection
from etcdtw.http2.hpack import encode_block

EXCHANGES = 20_000
ROUNDS = 7
PER_BUFFER = (1, 10, 100)
BODY = b"\0\0\0\1\x0a" + b"k" * 261
ANSWER = b"\0\0\0\0\x1c" + b"r" * 28
HEAD = encode_block([(b":status", b"200"), (b"content-type", b"application/grpc")])
TRAILERS = encode_block([(b"grpc-status", b"0"), (b"grpc-message", b"")])
FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/etcdserverpb.KV/Put"),
    (b":authority", b"127.0.0.1:2379"),
    (b"content-type", b"application/grpc"),
    (b"user-agent", b"grpc-go/1.71.1"),
    (b"te", b"trailers"),
    (b"hasleader", b"true"),
    (b"client-api-version", b"3.6"),
]


def render(per_buffer: int, timeouts: bool) -> list[bytes]:
    """Return the client's buffers; with ``timeouts`` each block brings a new grpc-timeout."""
    encoder = hpack.Encoder()
    buffers = []
    pieces = [
        frames.PREFACE,
        frames.encode_settings(()),
        frames.encode_window_update(0, 2**30),  # so that no answer has to wait
    ]
    for i in range(EXCHANGES):
        stream_id = 2 * i + 1
        extra = [(b"grpc-timeout", b"%du" % (4_999_999 - 7 * i))] if timeouts else []
        block = encoder.encode(FIELDS + extra)
        pieces.append(frames.encode_headers(stream_id, block, False, frames.HEADER_SIZE * 1_000))
        pieces.append(frames.encode_frame(frames.DATA, frames.FLAG_END_STREAM, stream_id, BODY))
        if (i + 1) % per_buffer == 0:
            buffers.append(b"".join(pieces))
            pieces = []
    return buffers


def run(buffers: list[bytes]) -> float:
    """Return the microseconds of one exchange, all buffers through one connection."""
    server = Connection()
    server.begin()
    server.take_output()
    answered = 0
    began = time.process_time()
    for now_ms, buffer in enumerate(buffers):
        for event in server.receive(buffer, now_ms):
            if event[0] == events.REQUEST:
                server.reply(event[1], HEAD, ANSWER, TRAILERS)
                answered += 1
        server.take_output()
    spent = time.process_time() - began
    assert answered == EXCHANGES, answered
    return spent / EXCHANGES * 1e6


def run_stream() -> float:
    """Return the microseconds of one message sent on an open stream, 100 a buffer."""
    server = Connection()
    server.begin()
    window = frames.encode_window_update(0, 2**30) + frames.encode_settings(((4, 2**31 - 1),))
    server.receive(frames.PREFACE + frames.encode_settings(()) + window, 0)
    server.receive(frames.encode_headers(1, encode_block(FIELDS), False, 16_384), 0)
    server.send_headers(1, HEAD)
    began = time.process_time()
    for _ in range(EXCHANGES // 100):
        for _ in range(100):
            server.send_data(1, ANSWER)
        server.take_output()
    return (time.process_time() - began) / EXCHANGES * 1e6


def main() -> int:
    """Print the table."""
    print("exchange            per buffer   us (best of rounds)")
    for timeouts in (False, True):
        for per_buffer in PER_BUFFER:
            buffers = render(per_buffer, timeouts)
            best = min(run(buffers) for _ in range(ROUNDS))
            name = "new grpc-timeout" if timeouts else "same headers"
            print(f"{name:<20}{per_buffer:>10}   {best:.2f}")
    print(f"{'streamed message':<20}{100:>10}   {min(run_stream() for _ in range(ROUNDS)):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
