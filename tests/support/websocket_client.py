"""A WebSocket client over a plain socket: frames as RFC 6455 draws them."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

TIMEOUT_S = 10.0
MASK = b"\x37\xfa\x21\x3d"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def masked(first: int, payload: bytes, size: int | None = None) -> bytes:
    """Return a client's frame; ``size``: what it says, if that is another size."""
    said = len(payload) if size is None else size
    if said < 126:
        head = bytes((first, 0x80 | said))
    elif said < 1 << 16:
        head = bytes((first, 0xFE)) + struct.pack(">H", said)
    else:
        head = bytes((first, 0xFF)) + struct.pack(">Q", said)
    body = bytes(octet ^ MASK[position % 4] for position, octet in enumerate(payload))
    return head + MASK + body


class WebSocketClient:
    """One WebSocket; `head` is what the server said to the request for it."""

    def __init__(self, endpoint: str, path: str, **fields: str) -> None:
        host, _, port = endpoint.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        given = {
            "Host": endpoint,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": KEY.decode(),
            **{name.replace("_", "-"): value for name, value in fields.items()},
        }
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._octets = b""
        while b"\r\n\r\n" not in self._octets:
            self._receive()
        self.head, _, self._octets = self._octets.partition(b"\r\n\r\n")

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def send(self, message: Any) -> None:
        octets = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.socket.sendall(masked(0x81, octets))

    def frame(self) -> tuple[int, bytes] | None:
        """Return the first octet and the payload of the next frame; None: there are no more."""
        try:
            first, second = self._take(2)
            size = second & 0x7F
            if size == 126:
                size = struct.unpack(">H", self._take(2))[0]
            elif size == 127:
                size = struct.unpack(">Q", self._take(8))[0]
            return first, self._take(size)
        except ConnectionError:
            return None

    def message(self) -> Any:
        """Return the next message, parsed; None: there are no more."""
        parts = b""
        while (found := self.frame()) is not None:
            first, payload = found
            if first & 0x0F == 8:
                return None
            parts += payload
            if first & 0x80:
                return json.loads(parts)
        return None

    def close(self) -> None:
        self.socket.close()

    def _take(self, size: int) -> bytes:
        while len(self._octets) < size:
            self._receive()
        taken, self._octets = self._octets[:size], self._octets[size:]
        return taken

    def _receive(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("closed")
        self._octets += data
