"""Statuses on the wire: ``grpc-status`` and the percent-encoded ``grpc-message``.

Source: gRPC over HTTP/2, "Responses"; RFC 3986 section 2.1.
"""

from __future__ import annotations

from typing import Final

from etcdtw.grpc.call import (
    INTERNAL,
    PERMISSION_DENIED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    UNKNOWN,
)

CODE_NAMES: Final = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)
"""By code, as metrics and texts spell them (grpc-go's ``codes.Code.String``)."""

_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {ord("%")}

_CODE_OF_HTTP: Final = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    429: UNAVAILABLE,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: UNAVAILABLE,
}


def encode_message_text(text: str) -> bytes:
    """Return ``text`` percent-encoded as a ``grpc-message`` value."""
    raw = text.encode("utf-8", "surrogatepass")
    if raw.isascii() and text.isprintable() and "%" not in text:
        return raw
    return b"".join([b"%c" % octet if octet in _PLAIN else b"%%%02X" % octet for octet in raw])


def decode_message_text(value: bytes) -> str:
    """Undo `encode_message_text`.  What is not a valid escape stays as it is."""
    if b"%" not in value:
        return value.decode("utf-8", "replace")
    head, *rest = value.split(b"%")
    parts = [head]
    for piece in rest:
        try:
            parts.append(bytes.fromhex(piece[:2].decode("ascii")) + piece[2:])
        except ValueError:
            parts.append(b"%" + piece)
    return b"".join(parts).decode("utf-8", "replace")


def status_fields(code: int, message: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return the two fields every call ends with; the message is sent even when empty."""
    return ((b"grpc-status", b"%d" % code), (b"grpc-message", encode_message_text(message)))


def code_of_http_status(http_status: int) -> int:
    """Return the code a client reports for an answer that is not gRPC at all."""
    return _CODE_OF_HTTP.get(http_status, UNKNOWN)
