"""A small gRPC client over a raw socket: many calls on the wire at once, little work for each.

An oracle of its own: HTTP/2 frames by hand, header blocks decoded by the `hpack` library, no
code of etcdtw's.  Not for large requests: it trusts that a request fits the server's windows
(64 KiB) unless the server opens them, and waits for them otherwise.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import unquote

import hpack

from tests.support import wire_frames as wire

RECEIVE_OCTETS: Final = 1 << 18
WINDOW_REFILL_OCTETS: Final = 1 << 29
CACHED_BLOCKS_MAX: Final = 256


class ConnectionFailedError(Exception):
    """The server closed the connection, reset it, sent GOAWAY, or did not answer in time."""


class WireStream:
    """One call: what was received on it so far."""

    __slots__ = ("buffer", "code", "encoding", "is_ended", "messages", "stream_id", "text")

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id
        self.buffer = bytearray()
        self.messages: list[bytes] = []
        self.code: int | None = None  # grpc-status, once the trailers are here
        self.text = ""
        self.encoding = ""
        self.is_ended = False

    def take_messages(self) -> list[bytes]:
        """Return the messages that arrived since the last time, oldest first."""
        messages, self.messages = self.messages, []
        return messages


class WireClient:
    """One connection to one member.  Not safe for threads.

    ``token``: shown with every call.
    """

    def __init__(
        self,
        endpoint: str,
        timeout_s: float = 20.0,
        tls: ssl.SSLContext | None = None,
        token: str = "",
    ) -> None:
        host, _, port = endpoint.rpartition(":")
        self.endpoint = endpoint
        self.timeout_s = timeout_s
        self._token = token
        self._scheme = "http" if tls is None else "https"
        plain = socket.create_connection((host, int(port)), timeout=timeout_s)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket: socket.socket = plain
        if tls is not None:
            self._socket = tls.wrap_socket(plain, server_hostname=host)
        self._decoder = hpack.Decoder()
        self._block_cache: dict[bytes, list[tuple[str, str]]] = {}
        self._request_blocks: dict[tuple[str, bool], bytes] = {}
        self._next_stream_id = 1
        self._streams: dict[int, WireStream] = {}
        self._rest = b""
        self._block = b""  # of a HEADERS frame whose CONTINUATION is awaited
        self._received_octets = 0
        self._connection_window = wire.WINDOW_DEFAULT
        self._initial_window = wire.WINDOW_DEFAULT
        self._large_stream_id = 0  # the one request that is sent piece by piece
        self._large_window = 0
        self._socket.sendall(
            wire.PREFACE
            + wire.settings({wire.SETTINGS_INITIAL_WINDOW_SIZE: wire.WINDOW_MAX})
            + wire.window_update(0, wire.WINDOW_MAX - wire.WINDOW_DEFAULT)
        )

    def close(self) -> None:
        self._socket.close()

    # -- sending -------------------------------------------------------------------------------

    def begin(
        self, calls: Sequence[tuple[str, bytes]], compressed: Sequence[bool] = ()
    ) -> list[WireStream]:
        """Send unary calls ``(path, message)`` at once; `finish` waits for them.

        ``compressed`` says of each whether it is sent in gzip's form.
        """
        parts = []
        streams = []
        for i, (path, message) in enumerate(calls):
            stream = self._new_stream()
            streams.append(stream)
            is_compressed = bool(compressed) and compressed[i]
            parts.append(self._headers(stream.stream_id, path, is_compressed))
            octets = wire.grpc_message(message, is_compressed)
            if self._fits(octets):
                parts.append(wire.data_frames(stream.stream_id, octets, end=True))
                continue
            self._socket.sendall(b"".join(parts))
            parts = []
            self._send_within_windows(stream, octets, end=True)
        self._socket.sendall(b"".join(parts))
        return streams

    def finish(self, streams: Sequence[WireStream]) -> None:
        """Read until each of ``streams`` has ended."""
        deadline = time.monotonic() + self.timeout_s
        for stream in streams:
            while not stream.is_ended:
                self.receive(deadline)
            del self._streams[stream.stream_id]

    def call(self, path: str, message: bytes) -> WireStream:
        """Make one unary call and wait for its end."""
        streams = self.begin([(path, message)])
        self.finish(streams)
        return streams[0]

    def open(self, path: str) -> WireStream:
        """Begin a streaming call; more is sent by `send`."""
        stream = self._new_stream()
        self._socket.sendall(self._headers(stream.stream_id, path))
        return stream

    def send(self, stream: WireStream, message: bytes) -> None:
        octets = wire.grpc_message(message)
        assert self._fits(octets), "streams carry small messages only"
        self._socket.sendall(wire.data_frames(stream.stream_id, octets, end=False))

    def reset(self, stream: WireStream) -> None:
        """Give the call up (RST_STREAM with CANCEL)."""
        self._socket.sendall(wire.frame(wire.RST_STREAM, 0, stream.stream_id, b"\0\0\0\x08"))
        self._streams.pop(stream.stream_id, None)

    def _new_stream(self) -> WireStream:
        stream = WireStream(self._next_stream_id)
        self._streams[stream.stream_id] = stream
        self._next_stream_id += 2
        return stream

    def _headers(self, stream_id: int, path: str, is_compressed: bool = False) -> bytes:
        block = self._request_blocks.get((path, is_compressed))
        if block is None:
            fields = wire.grpc_fields(path, self.endpoint, self._scheme)
            fields += [(b"grpc-encoding", b"gzip")] if is_compressed else []
            fields += [(b"token", self._token.encode())] if self._token else []
            block = wire.header_block(fields)
            self._request_blocks[path, is_compressed] = block
        return wire.frame(wire.HEADERS, wire.END_HEADERS, stream_id, block)

    def _fits(self, octets: bytes) -> bool:
        """Say whether ``octets`` may be sent at once, and if so count them as sent."""
        if len(octets) > min(self._connection_window, self._initial_window):
            return False
        self._connection_window -= len(octets)
        return True

    def _send_within_windows(self, stream: WireStream, octets: bytes, *, end: bool) -> None:
        deadline = time.monotonic() + self.timeout_s
        sent = 0
        self._large_window = self._initial_window
        self._large_stream_id = stream.stream_id
        while sent < len(octets) and not stream.is_ended:
            size = min(self._connection_window, self._large_window, wire.FRAME_SIZE)
            if size <= 0:
                self.receive(deadline)
                continue
            piece = octets[sent : sent + size]
            sent += len(piece)
            self._connection_window -= len(piece)
            self._large_window -= len(piece)
            flags = wire.END_STREAM if end and sent == len(octets) else 0
            self._socket.sendall(wire.frame(wire.DATA, flags, stream.stream_id, piece))

    # -- receiving -----------------------------------------------------------------------------

    def receive(self, deadline: float) -> None:
        """Read once from the socket; raises `ConnectionFailedError` at ``deadline`` or its end."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise ConnectionFailedError(f"{self.endpoint}: no answer in {self.timeout_s} s")
        self._socket.settimeout(left_s)
        try:
            data = self._socket.recv(RECEIVE_OCTETS)
        except TimeoutError:
            raise ConnectionFailedError(f"{self.endpoint}: no answer in time") from None
        except OSError as error:
            raise ConnectionFailedError(f"{self.endpoint}: {error}") from error
        if not data:
            raise ConnectionFailedError(f"{self.endpoint}: closed by the server")
        self._take(self._rest + data if self._rest else data)

    def poll(self, wait_s: float) -> bool:
        """Read what is there within ``wait_s`` seconds; says whether anything was."""
        self._socket.settimeout(max(wait_s, 0.000001))
        try:
            data = self._socket.recv(RECEIVE_OCTETS)
        except (TimeoutError, BlockingIOError):
            return False
        if not data:
            raise ConnectionFailedError(f"{self.endpoint}: closed by the server")
        self._take(self._rest + data if self._rest else data)
        return True

    def _take(self, data: bytes) -> None:
        position = 0
        end = len(data)
        while end - position >= 9:
            word, flags, stream_id = wire.FRAME_HEAD.unpack_from(data, position)
            stop = position + 9 + (word >> 8)
            if stop > end:
                break
            self._take_frame(word & 0xFF, flags, stream_id, data[position + 9 : stop])
            position = stop
        self._rest = data[position:]

    def _take_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if kind == wire.DATA:
            self._take_data(flags, stream_id, payload)
        elif kind in (wire.HEADERS, wire.CONTINUATION):
            self._take_headers(flags, stream_id, payload)
        elif kind == wire.SETTINGS and not flags & wire.ACK:
            window = wire.parse_settings(payload).get(wire.SETTINGS_INITIAL_WINDOW_SIZE)
            if window is not None:
                self._large_window += window - self._initial_window
                self._initial_window = window
            self._socket.sendall(wire.frame(wire.SETTINGS, wire.ACK, 0))
        elif kind == wire.PING and not flags & wire.ACK:
            self._socket.sendall(wire.frame(wire.PING, wire.ACK, 0, payload))
        elif kind == wire.WINDOW_UPDATE:
            self._take_window_update(stream_id, int.from_bytes(payload, "big"))
        elif kind == wire.RST_STREAM:
            stream = self._streams.get(stream_id)
            if stream is not None and not stream.is_ended:
                stream.is_ended = True
                stream.text = f"stream reset by the server: {int.from_bytes(payload, 'big')}"
        elif kind == wire.GOAWAY:
            raise ConnectionFailedError(f"{self.endpoint}: GOAWAY {payload!r}")

    def _take_window_update(self, stream_id: int, increment: int) -> None:
        if stream_id == 0:
            self._connection_window += increment
        elif stream_id == self._large_stream_id:
            self._large_window += increment

    def _take_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._received_octets += len(payload)
        if self._received_octets > WINDOW_REFILL_OCTETS:
            self._socket.sendall(wire.window_update(0, self._received_octets))
            self._received_octets = 0
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        buffer = stream.buffer
        buffer += payload
        while len(buffer) >= 5:
            stop = 5 + int.from_bytes(buffer[1:5], "big")
            if len(buffer) < stop:
                break
            octets = bytes(buffer[5:stop])
            stream.messages.append(gzip.decompress(octets) if buffer[0] else octets)
            del buffer[:stop]
        if flags & wire.END_STREAM:
            stream.is_ended = True

    def _take_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        self._block += payload
        if not flags & wire.END_HEADERS:
            return
        block, self._block = self._block, b""
        fields = self._decode(block)
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        for name, value in fields:
            if name == "grpc-status":
                stream.code = int(value)
                stream.is_ended = True
            elif name == "grpc-encoding":
                stream.encoding = value
            elif name == "grpc-message":
                stream.text = unquote(value)

    def _decode(self, block: bytes) -> list[tuple[str, str]]:
        """Return the fields of ``block``; those that leave the table as it is are decoded once."""
        fields = self._block_cache.get(block)
        if fields is None:
            decoded: list[Any] = list(self._decoder.decode(block))
            fields = [(str(field[0]), str(field[1])) for field in decoded]
            if wire.changes_table(block):  # which the cached ones may refer to
                self._block_cache.clear()
            elif len(self._block_cache) < CACHED_BLOCKS_MAX:
                self._block_cache[block] = fields
        return fields
