"""The messages of a stream as JSON, a line each."""

from __future__ import annotations

from functools import lru_cache

from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from etcdtw.client.channel import Stream
from etcdtw.gateway.json_answers import error_line, piece_of
from etcdtw.gateway.transcoding.tables import Table
from etcdtw.gateway.transcoding.writing import PIECE_SIZE, Writer, write
from etcdtw.gateway.turns import Turns
from etcdtw.grpc.call import StatusError


@lru_cache(maxsize=4)
def _line(table: Table, message: bytes) -> bytes:
    """Return a small message as a line; who is told what others are told gets the same one."""
    return b'{"result":%b}\n' % write(table, message)


class LineParts:
    """The messages of a stream, a line each; implements `pages.Parts`."""

    def __init__(self, table: Table, first: bytes | None, stream: Stream, turns: Turns) -> None:
        """``first``: what was taken of it already; None: nothing."""
        self._table = table
        self._first = first
        self._stream = stream
        self._turns = turns
        self._writer: Writer | None = None  # of the message at hand, if it is a large one
        self._is_over = False
        self.cancel = stream.cancel

    def receive(self) -> Deferred[bytes | None]:
        """See `pages.Parts`.  A stream that fails ends with a line that says so."""
        if self._writer is not None:
            return self._turns.run(piece_of(self._writer)).addCallback(self._went_on)
        first, self._first = self._first, None
        if first is not None:
            return succeed(self._line(first))
        if self._is_over:
            return succeed(None)
        return self._stream.receive().addCallbacks(self._line, self._failed)

    def _line(self, message: bytes | None) -> bytes | None:
        if message is None:
            self._is_over = True
            return None
        if len(message) <= PIECE_SIZE:
            return _line(self._table, message)
        writer = self._writer = Writer(self._table)
        writer.feed(message)
        return b'{"result":'

    def _went_on(self, part: bytes) -> bytes:
        writer = self._writer
        assert writer is not None, "it was asked for a piece"
        if part and writer.has_more:
            return part
        self._writer = None
        return part + writer.end() + b"}\n"

    def _failed(self, failure: object) -> Deferred[bytes | None]:
        error = failure.value  # type: ignore[attr-defined]
        if isinstance(error, CancelledError) or not isinstance(error, StatusError):
            return fail(error)
        self._is_over = True
        return succeed(error_line(error.code, error.message))
