"""HTTP/1.1 as octets, as far as members speak it with each other: both ends, no sockets.

Heads and chunk lines are bounded before they are kept; bodies are handed on in pieces as they
come.  Strict where leniency lets two ends see different messages (RFC 9112 section 6.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from etcdtw.http2.sniffing import SPEAKS_TLS, TLS_HANDSHAKE

HEAD_SIZE_MAX: Final = 16 * 1024
HEADERS_MAX: Final = 100
CHUNK_LINE_SIZE_MAX: Final = 256
INTERIM_RESPONSES_MAX: Final = 8

REASONS: Final = {
    100: "Continue",
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    410: "Gone",
    412: "Precondition Failed",
    413: "Request Entity Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

LAST_CHUNK: Final = b"0\r\n\r\n"

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_DIGITS: Final = re.compile(r"[0-9]{1,19}\Z")
_HEX: Final = re.compile(rb"[0-9A-Fa-f]{1,16}\Z")
_BAD_IN_VALUE: Final = re.compile(r"[\x00\r\n]")

# What a reader is in the middle of.
_HEAD: Final = 0
_LENGTH: Final = 1
_UNTIL_CLOSE: Final = 2
_CHUNK_LINE: Final = 3
_CHUNK: Final = 4
_CHUNK_END: Final = 5
_TRAILERS: Final = 6
_END: Final = 7


class HttpError(Exception):
    """Octets that are no HTTP/1.1 message, or one that is too large; ``status`` answers it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Head:
    """The start line and the headers of a request or a response.

    ``headers`` has its names in lower case; values of a name that came twice are joined by
    commas.  ``method`` and ``target`` belong to requests, ``status`` to responses.
    """

    __slots__ = ("headers", "keeps_alive", "method", "status", "target")

    def __init__(self, headers: dict[str, str], keeps_alive: bool) -> None:
        self.headers = headers
        self.keeps_alive = keeps_alive
        self.method = ""
        self.target = ""
        self.status = 0

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


class HttpReader:
    """Takes the octets of one connection, gives heads and pieces of bodies.

    ``is_server``: requests come in, otherwise responses.
    """

    __slots__ = ("_data", "_interim_count", "_is_server", "_left", "_scanned", "_state")

    def __init__(self, is_server: bool) -> None:
        self._is_server = is_server
        self._data = bytearray()
        self._scanned = 0  # of `_data`: holds no end of a head
        self._state = _HEAD
        self._left = 0
        self._interim_count = 0

    @property
    def unread(self) -> int:
        """Octets that came and were not read."""
        return len(self._data)

    def feed(self, data: bytes) -> None:
        """Take octets; `next_event` reads them."""
        self._data += data

    def next_event(self) -> Head | bytes | None:
        """Return a `Head`, a piece of its body, ``b""`` at its end; None: more must come.

        Raises `HttpError`; the connection is of no use after that.
        """
        while True:
            if self._state == _HEAD:
                head = self._read_head()
                if head is None or head.status == 0 or head.status >= 200:
                    return head
            elif self._state in (_LENGTH, _CHUNK, _UNTIL_CLOSE):
                return self._read_body()
            elif self._state == _END:
                self._state = _HEAD
                return b""
            elif not self._read_framing():
                return None

    def ended(self) -> bool:
        """The other side closed: tell whether a body that ends so is now complete."""
        return self._state == _UNTIL_CLOSE and not self._data

    def _read_body(self) -> bytes | None:
        if not self._data:
            return None
        if self._state == _UNTIL_CLOSE:
            piece = bytes(self._data)
        else:
            piece = bytes(self._data[: self._left])
            self._left -= len(piece)
            if not self._left:
                self._state = _END if self._state == _LENGTH else _CHUNK_END
        del self._data[: len(piece)]
        return piece

    def _read_framing(self) -> bool:
        """Read what stands around chunks; returns False when more must come."""
        if self._state == _CHUNK_END and not b"\r\n".startswith(self._data[:2]):
            raise HttpError(400, "chunk longer than its size")
        size_max = HEAD_SIZE_MAX if self._state == _TRAILERS else CHUNK_LINE_SIZE_MAX
        end = self._data.find(b"\r\n", 0, size_max + 2)
        if end < 0:
            if len(self._data) > size_max:
                raise HttpError(400, "chunked body without an end of line")
            return False
        line = bytes(self._data[:end])
        del self._data[: end + 2]
        if self._state == _CHUNK_LINE:
            size = line.partition(b";")[0].strip(b" \t")
            if not _HEX.match(size):
                raise HttpError(400, "chunk without a size")
            self._left = int(size, 16)
            self._state = _CHUNK if self._left else _TRAILERS
            if not self._left:
                self._scanned = 0
        elif self._state == _CHUNK_END:
            self._state = _CHUNK_LINE
        elif line:
            # Trailers are passed over; together they are bounded like a head.
            self._scanned += len(line) + 2
            if self._scanned > HEAD_SIZE_MAX:
                raise HttpError(431, "trailers too large")
        else:
            self._scanned = 0
            self._state = _END
        return True

    def _read_head(self) -> Head | None:
        data = self._data
        if self._is_server:
            while data[:2] == b"\r\n":  # RFC 9112 section 2.2
                del data[:2]
                self._scanned = 0
            if data and data[0] == TLS_HANDSHAKE:
                raise HttpError(400, SPEAKS_TLS)
        end = data.find(b"\r\n\r\n", max(0, self._scanned - 3), HEAD_SIZE_MAX + 4)
        if end < 0:
            if len(data) > HEAD_SIZE_MAX:
                raise HttpError(431, "header too large")
            self._scanned = len(data)
            return None
        lines = bytes(data[:end]).decode("latin-1").split("\r\n")
        del data[: end + 4]
        self._scanned = 0
        headers = _parse_headers(lines[1:])
        head = (_parse_request if self._is_server else _parse_response)(lines[0], headers)
        if not self._is_server and 100 <= head.status < 200:
            self._interim_count += 1
            if head.status == 101 or self._interim_count > INTERIM_RESPONSES_MAX:
                raise HttpError(400, f"status {head.status} was not asked for")
            return head
        self._interim_count = 0
        self._begin_body(head)
        return head

    def _begin_body(self, head: Head) -> None:
        coding = head.headers.get("transfer-encoding")
        length = head.headers.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked":
                raise HttpError(501, f"transfer coding {coding!r} is not known here")
            if length is not None:
                raise HttpError(400, "both a length and a transfer coding")
        elif length is not None and not _DIGITS.match(length):
            raise HttpError(400, "bad Content-Length")
        if head.status in (204, 304):
            self._state = _END
        elif coding is not None:
            self._state = _CHUNK_LINE
        elif length is not None:
            self._left = int(length)
            self._state = _LENGTH if self._left else _END
        elif self._is_server:
            self._state = _END
        else:
            head.keeps_alive = False
            self._state = _UNTIL_CLOSE


def _parse_request(line: str, headers: dict[str, str]) -> Head:
    words = line.split(" ")
    if len(words) != 3 or not _TOKEN.match(words[0]) or not words[1].isprintable():
        raise HttpError(400, "malformed request line")
    method, target, version = words
    head = Head(headers, _keeps_alive(version, headers))
    head.method = method
    if not target.startswith("/"):
        scheme, _, rest = target.partition("://")
        if scheme not in ("http", "https") or not rest:
            raise HttpError(400, "malformed request target")
        target = "/" + rest.partition("/")[2]
    head.target = target
    return head


def _parse_response(line: str, headers: dict[str, str]) -> Head:
    version, _, rest = line.partition(" ")
    code = rest[:3]
    if not _DIGITS.match(code) or not 100 <= int(code) <= 599 or rest[3:4].strip():
        raise HttpError(400, "malformed status line")
    head = Head(headers, _keeps_alive(version, headers))
    head.status = int(code)
    return head


def _keeps_alive(version: str, headers: dict[str, str]) -> bool:
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise HttpError(505, f"{version!r} is not HTTP/1.1")
    options = headers.get("connection", "").lower().replace(" ", "").split(",")
    return version == "HTTP/1.1" and "close" not in options


def _parse_headers(lines: list[str]) -> dict[str, str]:
    if len(lines) > HEADERS_MAX:
        raise HttpError(431, "too many headers")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        value = value.strip(" \t")
        if not colon or not _TOKEN.match(name) or _BAD_IN_VALUE.search(value):
            raise HttpError(400, "malformed header")
        name = name.lower()
        if name not in headers:
            headers[name] = value
        elif name != "content-length" or headers[name] != value:
            headers[name] += "," + value
    return headers


def encode_request(
    method: str, target: str, host: str, headers: Iterable[tuple[str, str]]
) -> bytes:
    """Return the head of a request."""
    return _encode_head(f"{method} {target} HTTP/1.1", [("Host", host), *headers])


def encode_response(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a response."""
    return _encode_head(f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", headers)


def encode_chunk(data: bytes) -> bytes:
    """Return ``data``, which must not be empty, as one chunk."""
    assert data, "an empty chunk ends the body"
    return b"%x\r\n%b\r\n" % (len(data), data)


def _encode_head(line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in headers)]
    assert not any(_BAD_IN_VALUE.search(one) for one in lines), "a header that ends early"
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
