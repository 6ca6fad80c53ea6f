"""HTTP/2 requests that are not gRPC: collected whole, handed to the HTTP routes, and answered
whole or piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.grpc.intake import Fields, Intake
from etcdtw.grpc.message import CHUNK_OVERHEAD
from etcdtw.grpc.server_call import CallRegister
from etcdtw.http2.errors import INTERNAL_ERROR

PLAIN_BODY_SIZE_MAX: Final = 2 * 1024 * 1024
"""Octets of a body that no route reads: counted, and not kept."""

BodySizeMax = Callable[[bytes, bytes], int]
"""Takes the verb and the target of a request; returns how many octets of a body its route reads,
0: it reads none."""


def reads_no_body(verb: bytes, target: bytes) -> int:
    """Stands for routes that read no bodies."""
    return 0


class PlainRequest:
    """One HTTP request and its answer: whole through `respond`, or from `begin` to `finish`.

    ``on_end`` is called once if the client goes before the answer is over.  A body is kept up to
    ``body_size_max``; one that no route reads (0) is counted and not kept.
    """

    __slots__ = (
        "_body_size_max",
        "_chunks",
        "_held",
        "_open",
        "_register",
        "_size",
        "_was_queued",
        "fields",
        "intake",
        "on_drain",
        "on_end",
        "stream_id",
    )

    def __init__(
        self,
        register: CallRegister,
        open_requests: dict[int, PlainRequest],
        stream_id: int,
        intake: Intake,
        body_size_max: int = PLAIN_BODY_SIZE_MAX,
    ) -> None:
        self._body_size_max = body_size_max
        self._was_queued = False
        self._open = open_requests
        open_requests[stream_id] = self
        self._register: CallRegister | None = register
        self._chunks: list[bytes] = []
        self._size = 0
        self._held = intake.octets  # that the register counts for this request
        register.hold(self._held)
        self.stream_id = stream_id
        self.intake = intake
        self.fields: Fields = intake.fields
        self.on_end: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        """Called when `queued` has fallen to zero after having been above it."""

    @property
    def body(self) -> bytes:
        return b"".join(self._chunks)

    def collect(self, data: bytes) -> bool:
        """Add to the body.  Returns False when that makes it, or all that is held, too large."""
        register = self._register
        if register is None or not data:
            return True
        self._size += len(data)
        if not self._body_size_max:
            return self._size <= PLAIN_BODY_SIZE_MAX
        if self._size > self._body_size_max:
            return False
        self._chunks.append(data)
        self._hold(register, self._held + len(data) + CHUNK_OVERHEAD)
        return not register.holds_too_much

    def respond(
        self, status: int, fields: Fields, body: bytes, *, is_remote_open: bool = False
    ) -> None:
        """Answer; a second answer, or one to a client that has gone, does nothing.

        ``fields`` carry lower-case names.
        """
        register = self._close()
        if register is None:
            return
        connection = register.connection
        head = ((b":status", b"%d" % status), *fields)
        connection.send_headers(self.stream_id, head, not body)
        if body:
            register.owe(len(body))
            connection.send_data(self.stream_id, body, True)
        if is_remote_open:
            register.close_remote(self.stream_id)
        register.mark()

    def let_go(self) -> None:
        """The body is not needed any more; it counts no longer."""
        register = self._register
        if register is not None:
            self._chunks.clear()
            self._hold(register, self.intake.octets)

    # An answer piece by piece.

    @property
    def queued(self) -> int:
        """As `CallRegister.queued`."""
        register = self._register
        return 0 if register is None else register.queued(self.stream_id)

    def begin(self, status: int, fields: Fields) -> None:
        """Begin an answer; pieces follow.  The request's body is let go."""
        register = self._register
        if register is not None:
            self.let_go()
            head = ((b":status", b"%d" % status), *fields)
            register.connection.send_headers(self.stream_id, head, False)
            register.mark()

    def send(self, piece: bytes) -> None:
        """Send the next octets; watch `queued`."""
        register = self._register
        if register is not None and piece:
            register.owe(len(piece))
            register.connection.send_data(self.stream_id, piece)
            self._was_queued = self._was_queued or self.queued > 0
            register.mark()

    def finish(self) -> None:
        """End the answer behind what was sent."""
        register = self._close()
        if register is not None:
            register.connection.send_data(self.stream_id, b"", True)
            register.mark()

    def break_off(self) -> None:
        """End an answer that cannot go on; its client sees that it is not whole."""
        register = self._close()
        if register is not None:
            register.connection.reset(self.stream_id, INTERNAL_ERROR)
            register.mark()

    def drained(self) -> None:
        """Nothing may be queued any more."""
        if self._was_queued and self._register is not None and not self.queued:
            self._was_queued = False
            if self.on_drain is not None:
                self.on_drain()

    def cancelled(self) -> None:
        """The client reset the stream or is gone."""
        on_end = self.on_end
        if self._close() is not None and on_end is not None:
            on_end()

    def _close(self) -> CallRegister | None:
        """Make the request answered.  Returns None when it was."""
        register = self._register
        if register is not None:
            self._register = None
            self.on_end = self.on_drain = None  # they know this request
            self._hold(register, 0)
            self._open.pop(self.stream_id, None)
        return register

    def _hold(self, register: CallRegister, octets: int) -> None:
        register.hold(octets - self._held)
        self._held = octets
