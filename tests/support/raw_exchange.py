"""One exchange on a connection of its own, with octets of the test's choosing: over HTTP/2 (a
gRPC call or anything else) and over HTTP/1.1.  Tells what came back, fields in their order.

An oracle of its own, as `tests.support.wire_client`, for what well-behaved clients never send.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import hpack

from tests.support import wire_frames as wire

Fields = list[tuple[str, str]]
TIMEOUT_S: Final = 10.0
RECEIVE_OCTETS: Final = 1 << 16


@dataclass(slots=True)
class Exchange:
    """What came back: the header fields, the body, the trailers, and how it ended."""

    head: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    end: str = ""  # "ended", "reset CODE", "goaway CODE" or "closed"

    @property
    def fields(self) -> dict[str, str]:
        """Head and trailers together."""
        return dict(self.head + self.trailers)


def http2_exchange(
    endpoint: str, fields: Sequence[tuple[bytes, bytes]], *pieces: bytes, ends: bool = True
) -> Exchange:
    """Send one request whose body are ``pieces``, a DATA frame each, and read to its end."""
    host, _, port = endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as plain:
        plain.sendall(
            wire.PREFACE
            + wire.settings({wire.SETTINGS_INITIAL_WINDOW_SIZE: wire.WINDOW_MAX})
            + wire.window_update(0, wire.WINDOW_MAX - wire.WINDOW_DEFAULT)
        )
        head_flags = wire.END_HEADERS | (wire.END_STREAM if ends and not pieces else 0)
        plain.sendall(wire.frame(wire.HEADERS, head_flags, 1, wire.header_block(fields)))
        for i, piece in enumerate(pieces, 1):
            flags = wire.END_STREAM if ends and i == len(pieces) else 0
            plain.sendall(wire.frame(wire.DATA, flags, 1, piece))
        return _Reading(plain).run()


class _Reading:
    """Reads the frames of stream 1."""

    def __init__(self, plain: socket.socket) -> None:
        self._socket = plain
        self._decoder = hpack.Decoder()
        self._block = b""
        self._exchange = Exchange()

    def run(self) -> Exchange:
        rest = b""
        while not self._exchange.end:
            try:
                data = self._socket.recv(RECEIVE_OCTETS)
            except OSError as error:
                data = b""
                if isinstance(error, TimeoutError):
                    self._exchange.end = "no answer"
                    break
            if not data:
                self._exchange.end = "closed"
                break
            rest += data
            while len(rest) >= 9 and len(rest) >= (stop := 9 + int.from_bytes(rest[:3], "big")):
                if not self._exchange.end:
                    self._take(rest[3], rest[4], rest[9:stop])
                rest = rest[stop:]
        return self._exchange

    def _take(self, kind: int, flags: int, payload: bytes) -> None:
        exchange = self._exchange
        if kind in (wire.HEADERS, wire.CONTINUATION):
            self._block += payload
            if flags & wire.END_HEADERS:
                decoded = self._decoder.decode(self._block)
                found = [(str(item[0]), str(item[1])) for item in decoded]
                self._block = b""
                if exchange.head:
                    exchange.trailers = found
                else:
                    exchange.head = found
            if flags & wire.END_STREAM:
                exchange.end = "ended"
        elif kind == wire.DATA:
            exchange.body += payload
            if flags & wire.END_STREAM:
                exchange.end = "ended"
        elif kind == wire.RST_STREAM:
            exchange.end = f"reset {int.from_bytes(payload, 'big')}"
        elif kind == wire.GOAWAY:
            exchange.end = f"goaway {int.from_bytes(payload[4:8], 'big')}"
        elif kind == wire.SETTINGS and not flags & wire.ACK:
            self._socket.sendall(wire.frame(wire.SETTINGS, wire.ACK, 0))


def http1_exchange(endpoint: str, request: bytes) -> Exchange:
    """Send ``request`` and read until the server closes: it should ask for that."""
    host, _, port = endpoint.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as plain:
        plain.sendall(request)
        octets = b""
        end = "closed"
        while True:
            try:
                data = plain.recv(RECEIVE_OCTETS)
            except TimeoutError:
                end = "no answer"
                break
            except OSError:
                break
            if not data:
                break
            octets += data
    head, _, body = octets.partition(b"\r\n\r\n")
    status, _, lines = head.decode("latin-1").partition("\r\n")
    found: Fields = [(":status", status)]
    for line in lines.split("\r\n") if lines else []:
        name, _, value = line.partition(": ")
        found.append((name, value))
    return Exchange(found, body, [], end)
