"""What the header block of a request says, worked out once per distinct block.

Clients repeat their header blocks; the http2 core hands back the same header list for a
repeated block, and the intake made for it is kept in the list's ``memo``.  Where only the timeout
is another one, the rest is taken from the intake before (`resolve_like`).
"""

from __future__ import annotations

from typing import Final

from etcdtw.grpc.call import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    INVALID_ARGUMENT,
    UNARY,
    UNIMPLEMENTED,
    Method,
    MethodTable,
    StatusError,
    UnaryHandler,
)
from etcdtw.grpc.caller import Caller
from etcdtw.grpc.gzip import ENCODING, GZIP
from etcdtw.grpc.message import unknown_encoding
from etcdtw.grpc.metadata import decode_value
from etcdtw.grpc.quoting import quote_go
from etcdtw.grpc.stats import MethodStats, ServerStats
from etcdtw.grpc.timeout import TimeoutFormatError, parse_timeout
from etcdtw.http2.hpack import encode_block

Fields = tuple[tuple[bytes, bytes], ...]

NEVER_MS: Final = 1 << 62
"""A deadline that does not come."""

CONTENT_TYPE: Final = b"application/grpc"
HEAD: Final[Fields] = ((b":status", b"200"), (b"content-type", CONTENT_TYPE))
HEAD_BLOCK: Final = encode_block(HEAD)

FIELD_OVERHEAD: Final = 160
"""Octets of objects that hold one field, about."""
HEAVY_OCTETS_MIN: Final = 4_096
"""Header fields that are kept for a call are bounded from here on; clients of today send half."""
TIMEOUT: Final = b"grpc-timeout"

_UNCOUNTED: Final = MethodStats("", UNARY)
"""Stands for the counters of refused requests, which belong to no method."""


class Refusal:
    """Why no method is started: the HTTP status and the gRPC status to answer with."""

    __slots__ = ("code", "http_status", "message")

    def __init__(self, http_status: int, code: int, message: str) -> None:
        self.http_status = http_status
        self.code = code
        self.message = message


class Intake:
    """The meaning of one header block, which takes about ``octets``.

    Exactly one of ``method`` and ``refusal`` is set for a gRPC request, neither for
    another HTTP request.  ``unary`` is the method's handler when it is a unary one and answers
    are not to be compressed.  ``head`` begins an answer, with the client's kind of gRPC in it.
    ``timeout_ms`` is `NEVER_MS` when the client names none; ``timeout_at`` is where it stands
    among the fields, set once the method is.  ``caller`` is who makes these calls, once it was
    asked: blocks are known within their connection only.
    """

    __slots__ = (
        "_values",
        "caller",
        "encoding",
        "fields",
        "head",
        "head_block",
        "is_grpc",
        "method",
        "octets",
        "refusal",
        "stats",
        "timeout_at",
        "timeout_ms",
        "unary",
    )

    def __init__(self, fields: Fields, like: Intake | None = None) -> None:
        """``like``: what the same fields mean with another timeout, which was in order."""
        self.fields = fields
        if like is None:
            # The first value of a repeated name is the one that counts.
            self._values: dict[bytes, bytes] = dict(fields[::-1])
            self.caller: Caller | None = None
            self.octets: int = sum([len(n) + len(v) + FIELD_OVERHEAD for n, v in fields])
            self.encoding: bytes = self._values.get(b"grpc-encoding", b"")
            self.head: Fields = HEAD
            self.head_block: bytes = HEAD_BLOCK
            self.method: Method | None = None
            self.stats: MethodStats = _UNCOUNTED
            self.timeout_at: int = -1
            self.unary: UnaryHandler | None = None
        else:
            self._values = like._values
            self.caller = like.caller
            self.octets = like.octets
            self.encoding = like.encoding
            self.head = like.head
            self.head_block = like.head_block
            self.method = like.method
            self.stats = like.stats
            self.timeout_at = like.timeout_at
            self.unary = like.unary
        self.is_grpc = True
        self.refusal: Refusal | None = None
        self.timeout_ms = NEVER_MS

    def value(self, name: bytes) -> bytes | None:
        """Return the first value of a field, as it came."""
        return self._values.get(name)

    def understood_timeout(self) -> None:
        """The timeout is a number now: the values may serve for another one as well.

        As in grpc-go it is none of the metadata.
        """
        del self._values[TIMEOUT]
        self.timeout_at = [name for name, _ in self.fields].index(TIMEOUT)

    def metadata(self, name: bytes) -> bytes | None:
        """Return the first value of a metadata key, decoded; None when absent or no base64."""
        value = self._values.get(name)
        return None if value is None else decode_value(name, value)


def is_grpc_content_type(value: bytes) -> bool:
    """Whether a content type is gRPC's, with or without a subtype or parameters."""
    if not value.startswith(CONTENT_TYPE):
        return False
    return len(value) == len(CONTENT_TYPE) or value[len(CONTENT_TYPE)] in b"+;"


def resolve(fields: Fields, methods: MethodTable, stats: ServerStats) -> Intake:
    """Return what a request with these header fields asks for."""
    intake = Intake(fields)
    content_type = (intake.value(b"content-type") or b"").lower()
    if not is_grpc_content_type(content_type):
        intake.is_grpc = False
        return intake
    subtype = content_type[len(CONTENT_TYPE) + 1 :]
    if subtype:
        intake.head = (HEAD[0], (b"content-type", CONTENT_TYPE + b"+" + subtype))
        intake.head_block = encode_block(intake.head)
    intake.refusal = _refusal_of(intake)
    if intake.refusal is not None:
        return intake
    path = intake.value(b":path") or b""
    method = methods.find(path)
    if method is None:
        intake.refusal = Refusal(200, UNIMPLEMENTED, unknown_method_text(path, methods))
        return intake
    if intake.encoding not in (b"", b"identity", GZIP):
        unknown: StatusError = unknown_encoding(intake.encoding)
        intake.refusal = Refusal(200, unknown.code, unknown.message)
        return intake
    if intake.encoding == GZIP:
        intake.head_block = encode_block((*intake.head, ENCODING))
    try:
        label, method = methods.screen(method, intake.metadata)
    except StatusError as error:
        intake.refusal = Refusal(200, error.code, error.message)
        return intake
    intake.method = method
    intake.stats = stats.of(method, label)
    # Compressed answers go the long way: the short one asks nobody what form they have.
    if method.kind == UNARY and intake.encoding != GZIP:
        intake.unary = method.unary
    if intake.timeout_ms != NEVER_MS:
        intake.understood_timeout()
    return intake


def resolve_like(known: Intake, fields: Fields) -> Intake | None:
    """Return what ``fields`` ask for when only the timeout is another one than in ``known``.

    None: they differ in more, or this timeout is to be refused; `resolve` tells.
    """
    at: int = known.timeout_at
    if at < 0 or at >= len(fields):
        return None
    name, value = fields[at]
    before = known.fields
    if name != TIMEOUT or fields[:at] != before[:at] or fields[at + 1 :] != before[at + 1 :]:
        return None
    try:
        timeout_ms = parse_timeout(value)
    except TimeoutFormatError:
        return None
    if not timeout_ms:
        return None
    intake = Intake(fields, known)
    intake.timeout_ms = timeout_ms
    return intake


def not_grpc(content_type: bytes) -> Refusal:
    """Return the refusal of a request that no HTTP route takes either."""
    text = f"invalid gRPC request content-type {quote_go(content_type)}"
    return Refusal(415, INVALID_ARGUMENT, text)


def _refusal_of(intake: Intake) -> Refusal | None:
    """Return what is wrong with a gRPC request before its method is looked at."""
    timeout = intake.value(TIMEOUT)
    if timeout is not None:
        try:
            intake.timeout_ms = parse_timeout(timeout)
        except TimeoutFormatError as error:
            return Refusal(400, INTERNAL, f"malformed grpc-timeout: {error}")
    if intake.value(b":authority") is None and intake.value(b"host") is None:
        return Refusal(400, INTERNAL, "no host or :authority header present")
    verb = intake.value(b":method") or b""
    if verb != b"POST":
        text = f"Received a HEADERS frame with :method {quote_go(verb)} which should be POST"
        return Refusal(405, INTERNAL, text)
    if intake.timeout_ms == 0:
        return Refusal(200, DEADLINE_EXCEEDED, "context deadline exceeded")
    return None


def unknown_method_text(path: bytes, methods: MethodTable) -> str:
    """Return what is said of a ``:path`` that names no method."""
    text = path.decode("utf-8", "replace")
    service, slash, method = text[1:].rpartition("/")
    if not slash or path[:1] != b"/":
        return f"malformed method name: {quote_go(path)}"
    prefix = f"/{service}/"
    if any(known.startswith(prefix) for known in methods.paths()):
        return f"unknown method {method} for service {service}"
    return f"unknown service {service}"
