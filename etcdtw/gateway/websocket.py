"""The server's side of a WebSocket: frames in, messages out.

Pure.  A message is bounded by what its frames say, before their octets come.

Source: RFC 6455, sections 4.2 and 5.
"""

from __future__ import annotations

from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Callable
from hashlib import sha1
from typing import Final

VERSION: Final = b"13"
BEARER: Final = b"Bearer"
"""The subprotocol whose second word is a token."""
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

NORMAL: Final = 1000
PROTOCOL_ERROR: Final = 1002
TOO_BIG: Final = 1009
TRY_LATER: Final = 1013

CONTROL_SIZE_MAX: Final = 125
_SIZE_16: Final = 126
_SIZE_64: Final = 127
_FINAL: Final = 0x80
_MASKED: Final = 0x80
_MASK_SIZE: Final = 4


class WebSocketError(Exception):
    """What came is no WebSocket's; ``code`` is for the closing frame."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


Header = Callable[[bytes], "bytes | None"]


def asks_for_websocket(header: Header) -> bool:
    """Whether a request of HTTP/1.1 wants to go on as a WebSocket."""
    upgrade = header(b"upgrade")
    if upgrade is None or b"websocket" not in _tokens(upgrade):
        return False
    return b"upgrade" in _tokens(header(b"connection") or b"")


def handshake(verb: bytes, header: Header) -> bytes | tuple[int, bytes]:
    """Return the head of the answer that goes on as a WebSocket, or (status, text)."""
    key = header(b"sec-websocket-key") or b""
    if verb != b"GET":
        return 405, b"Method Not Allowed\n"
    if header(b"sec-websocket-version") != VERSION or not is_key(key):
        return 400, b"Bad Request\n"
    lines = [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + accept_key(key),
    ]
    if (header(b"sec-websocket-protocol") or b"").startswith(BEARER):
        lines.append(b"Sec-WebSocket-Protocol: " + BEARER)
    return b"\r\n".join([*lines, b"", b""])


def is_key(key: bytes) -> bool:
    """Whether it is 16 octets in base64."""
    try:
        return len(a2b_base64(key, strict_mode=True)) == 16
    except Error:
        return False


def bearer_of(header: Header) -> bytes | None:
    """Return what ``Authorization`` would say; None: nothing.

    Browsers cannot send that field with a WebSocket: etcd takes it from the subprotocol, or from
    a cookie called ``token``.
    """
    for cookie in (header(b"cookie") or b"").split(b";"):
        name, _, value = cookie.strip().partition(b"=")
        if name == b"token":
            return b"Bearer " + value.strip(b'"')
    protocol = header(b"sec-websocket-protocol")
    if not protocol:
        return None
    _, found, token = protocol.partition(b"Bearer,")
    return b"Bearer " + token.strip(b" ") if found else b""


def _tokens(value: bytes) -> list[bytes]:
    return [token.strip().lower() for token in value.split(b",")]


def accept_key(key: bytes) -> bytes:
    """Return what proves that the request for a WebSocket was understood."""
    return b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def frame(kind: int, payload: bytes, is_last: bool = True) -> bytes:
    """Return a frame; a message is one, or several, of which all but the first continue it."""
    size = len(payload)
    first = kind | _FINAL if is_last else kind
    if size < _SIZE_16:
        head = bytes((first, size))
    elif size < 1 << 16:
        head = bytes((first, _SIZE_16)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, _SIZE_64)) + size.to_bytes(8, "big")
    return head + payload


def close_frame(code: int) -> bytes:
    """Return the frame that says good-bye."""
    return frame(CLOSE, code.to_bytes(2, "big"))


class FrameReader:
    """Reads what one client sends: `feed` it, take messages with `next`."""

    def __init__(self, message_size_max: int) -> None:
        self._message_size_max = message_size_max
        self._octets = bytearray()
        self._begun = bytearray()  # a message whose last frame has not come
        self._kind = CONTINUATION  # of the message that they belong to; this: there is none

    @property
    def size(self) -> int:
        """Octets of what is not whole, or not taken."""
        return len(self._octets) + len(self._begun)

    def feed(self, octets: bytes) -> None:
        """Take what has come."""
        self._octets += octets

    def clear(self) -> None:
        """Forget what has come."""
        self._octets.clear()
        self._begun.clear()

    def next(self) -> tuple[int, bytes] | None:
        """Return kind and octets of the next message; None: none is whole.

        Control frames come between the frames of others.  Raises `WebSocketError`.
        """
        while (found := self._frame()) is not None:
            is_last, kind, payload = found
            if kind >= CLOSE:
                return kind, payload
            self._begun += payload
            if kind != CONTINUATION:
                self._kind = kind
            if is_last:
                kind, self._kind = self._kind, CONTINUATION
                message = bytes(self._begun)
                self._begun.clear()
                return kind, message
        return None

    def _frame(self) -> tuple[bool, int, bytes] | None:
        """Take one frame if it is whole."""
        octets = self._octets
        if len(octets) < 2:
            return None
        kind = octets[0] & 0x0F
        is_last = bool(octets[0] & _FINAL)
        size = octets[1] & 0x7F
        at = 2
        if size >= _SIZE_16:
            at = 4 if size == _SIZE_16 else 10
            if kind >= CLOSE:
                raise WebSocketError(PROTOCOL_ERROR)
            if len(octets) < at:
                return None
            size = int.from_bytes(octets[2:at], "big")
        self._check(octets[0], octets[1], is_last, kind, size)
        end = at + _MASK_SIZE + size
        if len(octets) < end:
            return None
        mask = bytes(octets[at : at + _MASK_SIZE])
        payload = _unmasked(bytes(octets[at + _MASK_SIZE : end]), mask)
        del octets[:end]
        return is_last, kind, payload

    def _check(self, first: int, second: int, is_last: bool, kind: int, size: int) -> None:
        is_known = kind <= BINARY or CLOSE <= kind <= PONG
        if first & 0x70 or not second & _MASKED or not is_known:
            raise WebSocketError(PROTOCOL_ERROR)
        if kind >= CLOSE:
            if not is_last:
                raise WebSocketError(PROTOCOL_ERROR)
        elif (kind == CONTINUATION) is (self._kind == CONTINUATION):
            raise WebSocketError(PROTOCOL_ERROR)
        elif len(self._begun) + size > self._message_size_max:
            raise WebSocketError(TOO_BIG)


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    pad = (mask * (size // _MASK_SIZE + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
