"""What the JSON gateway says: messages, errors, and lines of streams, as they are read."""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred, succeed

from etcdtw.client.channel import Stream
from etcdtw.gateway.pages import JSON, NO_FIELDS, Answer
from etcdtw.gateway.transcoding.tables import Table
from etcdtw.gateway.transcoding.writing import Writer, write, write_string
from etcdtw.gateway.turns import Job, Turns
from etcdtw.grpc.call import (
    ABORTED,
    ALREADY_EXISTS,
    CANCELLED,
    DEADLINE_EXCEEDED,
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    NOT_FOUND,
    OUT_OF_RANGE,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
)
from etcdtw.http1.answers import Fields

OF_GRPC: Final[Fields] = ((b"Grpc-Metadata-Content-Type", b"application/grpc"),)
"""What tells that a service has answered."""

_HTTP_STATUSES: Final = {
    CANCELLED: 499,
    INVALID_ARGUMENT: 400,
    DEADLINE_EXCEEDED: 504,
    NOT_FOUND: 404,
    ALREADY_EXISTS: 409,
    PERMISSION_DENIED: 403,
    UNAUTHENTICATED: 401,
    RESOURCE_EXHAUSTED: 429,
    FAILED_PRECONDITION: 400,
    ABORTED: 409,
    OUT_OF_RANGE: 400,
    UNIMPLEMENTED: 501,
    UNAVAILABLE: 503,
}
_OTHERS: Final = 500


def message_answer(table: Table, message: bytes) -> Answer:
    """Return what a unary method has answered."""
    return Answer(200, write(table, message), JSON, False, OF_GRPC)


def error_answer(code: int, message: str) -> Answer:
    """Return how a unary method has failed."""
    fields = NO_FIELDS
    if code == UNAUTHENTICATED:
        fields = ((b"WWW-Authenticate", message.encode("latin-1", "replace")),)
    return Answer(_HTTP_STATUSES.get(code, _OTHERS), _error(code, message), JSON, False, fields)


def stream_error_answer(code: int, message: str) -> Answer:
    """Return how a stream has failed that has said nothing yet."""
    return Answer(_HTTP_STATUSES.get(code, _OTHERS), error_line(code, message), JSON, False)


def _error(code: int, message: str) -> bytes:
    return b'{"code":%d,"message":%b}' % (code, write_string(message))


def error_line(code: int, message: str) -> bytes:
    """Return the last line of a stream that has failed."""
    return b'{"error":%b}\n' % _error(code, message)


class MessageParts:
    """A large answer of a unary method, as JSON; implements `pages.Parts`.

    What its call says is taken as the client reads.
    """

    def __init__(self, table: Table, begun: bytes, stream: Stream, turns: Turns) -> None:
        """``begun``: what came of it so far."""
        self._writer = Writer(table)
        self._writer.feed(begun)
        self._stream = stream
        self._turns = turns
        self._is_over = False
        self.cancel = stream.cancel

    def receive(self) -> Deferred[bytes | None]:
        """See `pages.Parts`."""
        if self._is_over:
            return succeed(None)
        return Deferred.fromCoroutine(self._next())

    async def _next(self) -> bytes | None:
        writer = self._writer
        while True:
            part = await self._turns.run(piece_of(writer)) if writer.has_more else b""
            if part:
                return part
            more = await self._stream.receive()
            if more is None:
                self._is_over = True
                return writer.end()
            writer.feed(more)


def piece_of(writer: Writer) -> Job[bytes]:
    """Write a piece, when it has its turn."""
    yield from ()
    return writer.piece()
