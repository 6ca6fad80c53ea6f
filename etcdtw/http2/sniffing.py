"""Which protocol a client speaks, by its first octets.

The client port serves gRPC and HTTP/1.x on one socket, as etcd does.
"""

from __future__ import annotations

from typing import Final

UNDECIDED: Final = 0
HTTP2: Final = 1
HTTP1: Final = 2
TLS: Final = 3
UNKNOWN: Final = 4

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4
_PREFACE_TELLS: Final = 4  # "PRI " is no method that HTTP/1.x knows
TLS_HANDSHAKE: Final = 0x16  # RFC 8446 section 5.1
SPEAKS_TLS: Final = (
    "it speaks TLS, this port does not: give it an http:// URL, or this member an https:// one"
)
_METHOD_SIZE_MAX: Final = 16
_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"))
LINE_SIZE_MAX: Final = 4_096
"""Octets within which a request line with a method of its own must end (etcd's bound too)."""
_TOKEN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_")


def sniff(data: bytes) -> int:
    """Return what ``data``, all the octets so far, begins.

    `UNDECIDED` only while there are at most `_METHOD_SIZE_MAX` octets, or `LINE_SIZE_MAX` after
    a method that is not common: then the version at the line's end tells HTTP/1.x from text.
    """
    if not data:
        return UNDECIDED
    if data[0] == TLS_HANDSHAKE:
        return TLS
    head = data[:_PREFACE_TELLS]
    if PREFACE.startswith(head):
        return HTTP2 if len(head) == _PREFACE_TELLS else UNDECIDED
    # Servers should forgive an empty line before a request (RFC 9112 section 2.2).
    line = data[2:] if data[:2] == b"\r\n" else data
    method, space, _ = line[: _METHOD_SIZE_MAX + 1].partition(b" ")
    if len(method) > _METHOD_SIZE_MAX or not _TOKEN.issuperset(method):
        return UNDECIDED if data == b"\r" else UNKNOWN
    if not space:
        return UNDECIDED
    if not method:
        return UNKNOWN
    return HTTP1 if method in _METHODS else _sniff_line(line)


def _sniff_line(line: bytes) -> int:
    """The same for a request line (RFC 9112 section 3) that begins with some token."""
    whole, end, _ = line[:LINE_SIZE_MAX].partition(b"\n")
    if not end:
        return UNDECIDED if len(line) < LINE_SIZE_MAX else UNKNOWN
    parts = whole.rstrip(b"\r").split(b" ")
    is_line = len(parts) == 3 and parts[2].startswith(b"HTTP/1.")
    return HTTP1 if is_line else UNKNOWN
