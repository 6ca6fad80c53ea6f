"""The heads of answers, as Go's server writes them, and what goes around a body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from etcdtw.http1.head import EXPECTATION_FAILED, NOT_IMPLEMENTED, VERSION_1_1

Fields = tuple[tuple[bytes, bytes], ...]

REMEMBERED_MAX: Final = 128
"""Beginnings of heads that are kept: a server says much the same again and again."""
REMEMBERED_SIZE_MAX: Final = 1_024
UNKNOWN_LENGTH: Final = -1
NO_LENGTH: Final = -2
"""Nothing is said about it: the answer to a HEAD that would have no body either."""

REASONS: Final[dict[int, bytes]] = {
    200: b"OK",
    307: b"Temporary Redirect",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    409: b"Conflict",
    412: b"Precondition Failed",
    413: b"Request Entity Too Large",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
_ERROR_FIELDS: Final = b"\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"


def reason(status: int) -> bytes:
    """Return what stands behind a status."""
    return REASONS.get(status) or b"status code %d" % status


class HeadWriter:
    """Writes heads; remembers how those begin that come often."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun: dict[tuple[int, int, Fields], bytes] = {}

    def head(
        self,
        version: int,
        status: int,
        fields: Fields,
        date: bytes,
        length: int,
        *,
        closes: bool,
    ) -> bytes:
        """Return a head.

        ``length`` of the body: `UNKNOWN_LENGTH`: it comes in chunks, or to a client of HTTP/1.0
        until the end.  ``closes``: nothing is answered behind it.
        """
        key = (version, status, fields)
        begun = self._begun.get(key)
        if begun is None:
            begun = self._begin(key)
        if length >= 0:
            if version >= VERSION_1_1:
                if not closes:
                    return b"%b%b\r\nContent-Length: %d\r\n\r\n" % (begun, date, length)
                end = b"Connection: close\r\n\r\n"
            else:
                end = b"\r\n" if closes else b"Connection: keep-alive\r\n\r\n"
            return b"%b%b\r\nContent-Length: %d\r\n%b" % (begun, date, length, end)
        end = b"Connection: close\r\n" if closes and version >= VERSION_1_1 else b""
        if length == UNKNOWN_LENGTH and version >= VERSION_1_1:
            end += b"Transfer-Encoding: chunked\r\n"
        return b"%b%b\r\n%b\r\n" % (begun, date, end)

    def _begin(self, key: tuple[int, int, Fields]) -> bytes:
        version, status, fields = key
        name = b"HTTP/1.1" if version >= VERSION_1_1 else b"HTTP/1.0"
        lines = [b"%b %d %b" % (name, status, reason(status))]
        lines += [b"%b: %b" % (field, _one_line(value)) for field, value in fields]
        lines.append(b"Date: ")
        begun = b"\r\n".join(lines)
        if len(begun) <= REMEMBERED_SIZE_MAX:
            if len(self._begun) >= REMEMBERED_MAX:
                self._begun.clear()
            self._begun[key] = begun
        return begun


def _one_line(value: bytes) -> bytes:
    """Return a value without line ends: what a client sent may be part of it."""
    return value.replace(b"\r", b" ").replace(b"\n", b" ")


def refusal(status: int, text: str) -> bytes:
    """Return the whole answer to what is no request; the connection closes behind it."""
    if status == EXPECTATION_FAILED:
        return closing(status)
    line = b"%d %b" % (status, reason(status))
    if status == NOT_IMPLEMENTED:
        return b"HTTP/1.1 %b%b%b" % (line, _ERROR_FIELDS, text.encode())
    if text:
        line += b": " + text.encode()
    return b"HTTP/1.1 %b%b%b" % (line, _ERROR_FIELDS, line)


def closing(status: int) -> bytes:
    """Return a whole answer that says no more than its status; the connection closes behind it."""
    return b"HTTP/1.1 %d %b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % (
        status,
        reason(status),
    )


def chunk(piece: bytes) -> bytes:
    """Return ``piece``, which is not empty, as a chunk."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def date_text(parts: Sequence[int]) -> bytes:
    """Return a date as HTTP has it; ``parts`` as ``time.gmtime`` gives them (RFC 9110, 5.6.7)."""
    year, month, day, hour, minute, second, weekday = parts[:7]
    return b"%b, %02d %b %04d %02d:%02d:%02d GMT" % (
        (b"Mon", b"Tue", b"Wed", b"Thu", b"Fri", b"Sat", b"Sun")[weekday],
        day,
        _MONTHS[month - 1],
        year,
        hour,
        minute,
        second,
    )


_MONTHS: Final = (
    *(b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun"),
    *(b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"),
)
