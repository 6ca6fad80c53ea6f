"""A WebSocket at a path of the JSON gateway: each message a request, each answer a message.

As with etcd the subprotocol ``Bearer, <token>`` carries the token.  A message holds whole values
of JSON; etcd puts those together that are cut.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from etcdtw.client.channel import Stream
from etcdtw.gateway.json_answers import error_line
from etcdtw.gateway.json_lines import LineParts
from etcdtw.gateway.pages import ITERATION_SIZE
from etcdtw.gateway.routes import Route
from etcdtw.gateway.transcoding.exact import ReadingError, read_value
from etcdtw.gateway.transcoding.scanning import NotJsonError, skip_space
from etcdtw.gateway.turns import Job, Turns
from etcdtw.gateway.websocket import (
    CLOSE,
    CONTINUATION,
    NORMAL,
    PING,
    PONG,
    TEXT,
    TRY_LATER,
    FrameReader,
    WebSocketError,
    close_frame,
    frame,
)
from etcdtw.grpc.call import BIDI_STREAM, StatusError
from etcdtw.transport.client.seams import TakenLine

WAITING_SIZE_MAX: Final = 64 * 1024
"""Octets that come while those before are read; with more nothing is taken from the client."""
STEP: Final = 100
"""Frames between two steps."""


class RefusedSocket:
    """A WebSocket at a path where there is nothing: says so, and ends.

    Implements `transport.client.seams.Successor`.
    """

    def __init__(self, error: bytes) -> None:
        self._error = error

    def began(self, line: TakenLine) -> None:
        """Say what there is to say."""
        line.write(frame(TEXT, self._error) + close_frame(NORMAL))
        line.end()

    def received(self, data: bytes) -> None:
        """Nobody listens."""

    def clogged(self) -> None:
        """It is one frame."""

    def drained(self) -> None:
        """It was one frame."""

    def lost(self) -> None:
        """It has ended."""


class SocketStream:
    """One WebSocket and its call; implements `transport.client.seams.Successor`.

    ``open_stream`` None: a method that is none of streams; as with etcd nothing is answered.
    ``hold`` counts octets more (or less) that wait for the rest of their message; False: that is
    too much.
    """

    def __init__(
        self,
        route: Route,
        open_stream: Callable[[], Stream] | None,
        turns: Turns,
        message_size_max: int,
        hold: Callable[[int], bool],
    ) -> None:
        self._route = route
        self._open_stream = open_stream
        self._turns = turns
        self._reader = FrameReader(message_size_max)
        self._hold = hold
        self._held_size = 0
        self._line: TakenLine | None = None
        self._stream: Stream | None = None
        self._parts: LineParts | None = None
        self._is_reading = False
        self._waiting_size = 0  # came while it was reading
        self._is_clogged = False
        self._is_asking = False
        self._is_going = False
        self._is_within = False  # a message that goes out in pieces
        self._written_size = 0  # in this iteration

    # What the connection tells.

    def began(self, line: TakenLine) -> None:
        """The client was told that this is a WebSocket now."""
        self._line = line
        if self._open_stream is not None:
            stream = self._stream = self._open_stream()
            self._parts = LineParts(self._route.answer, None, stream, self._turns)
            self._go_on()

    def received(self, data: bytes) -> None:
        """Octets of frames have come."""
        line = self._line
        if line is None:
            return
        self._reader.feed(data)
        if not self._count():
            self._end(TRY_LATER)
            return
        if not self._is_reading:
            self._is_reading = True
            self._turns.run(self._read_all()).addErrback(self._failed)
            return
        self._waiting_size += len(data)
        if self._waiting_size > WAITING_SIZE_MAX:
            line.pause()

    def clogged(self) -> None:
        """The client does not read: it is told nothing more."""
        self._is_clogged = True

    def drained(self) -> None:
        """It reads again."""
        self._is_clogged = False
        self._go_on()

    def lost(self) -> None:
        """The connection is gone."""
        self._line = None
        self._let_go()
        if self._stream is not None:
            self._stream.cancel()

    def _count(self) -> bool:
        """Count what the reader holds; False: that is too much."""
        more, self._held_size = self._reader.size - self._held_size, self._reader.size
        return self._hold(more)

    def _let_go(self) -> None:
        """What came is not wanted any more."""
        self._reader.clear()
        self._count()

    # Requests.

    def _read_all(self) -> Job[None]:
        """Take what frames have come."""
        frames = 0
        try:
            while self._line is not None and (found := self._reader.next()) is not None:
                yield from self._take(*found)
                frames += 1
                if frames % STEP == 0:
                    yield
        except WebSocketError as error:
            self._end(error.code)
        self._count()
        self._is_reading = False
        if self._waiting_size > WAITING_SIZE_MAX and self._line is not None:
            self._line.resume()
        self._waiting_size = 0

    def _take(self, kind: int, message: bytes) -> Job[None]:
        if kind == CLOSE:
            self._end(NORMAL)
        elif kind == PING:
            if not self._is_clogged and self._line is not None:  # who does not read asks in vain
                self._line.write(frame(PONG, message))
        elif kind != PONG and self._stream is not None:
            yield from self._send(self._stream, message)

    def _send(self, stream: Stream, message: bytes) -> Job[None]:
        """Send what a message holds; behind one that cannot be read nothing is sent."""
        try:
            at = skip_space(message, 0)
            while at < len(message):
                octets, at = yield from read_value(self._route.request, message, at)
                stream.send(octets)
                if self._route.kind != BIDI_STREAM:
                    stream.half_close()
                yield
                at = skip_space(message, at)
        except (NotJsonError, ReadingError):
            stream.half_close()

    # Answers.

    def _go_on(self) -> None:
        """Take answers while there is room, and not too many in one iteration."""
        if self._is_going or self._parts is None:
            return
        self._is_going = True
        self._written_size = 0
        while self._line is not None and not (self._is_clogged or self._is_asking):
            self._is_asking = True
            if self._written_size >= ITERATION_SIZE:
                self._turns.run(_nothing()).addCallbacks(self._later, self._failed)
            else:
                asked: Deferred[bytes | None] = self._parts.receive()
                asked.addCallbacks(self._told, self._failed)
        self._is_going = False

    def _later(self, _: None) -> None:
        self._is_asking = False
        self._go_on()

    def _told(self, part: bytes | None) -> None:
        self._is_asking = False
        line = self._line
        if line is None:
            return
        if part is None:
            self._end(NORMAL)
            return
        is_last = part.endswith(b"\n")
        kind = CONTINUATION if self._is_within else TEXT
        self._is_within = not is_last
        line.write(frame(kind, part[:-1] if is_last else part, is_last))
        self._written_size += len(part)
        self._go_on()

    def _failed(self, failure: Failure) -> None:
        """What streams fail with is told in their last line: this is a defect, or the end."""
        self._is_asking = False
        error = failure.value
        if self._line is not None and isinstance(error, StatusError) and not self._is_within:
            self._line.write(frame(TEXT, error_line(error.code, error.message)[:-1]))
        self._end(NORMAL)

    def _end(self, code: int) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.write(close_frame(code))
            line.end()
        self._let_go()
        if self._stream is not None:
            self._stream.cancel()


def _nothing() -> Job[None]:
    yield from ()
