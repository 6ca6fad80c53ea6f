"""HTTP/2 requests that are not gRPC: collected whole and handed to the HTTP routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.grpc.intake import Fields, Intake
from etcdtw.grpc.message import CHUNK_OVERHEAD
from etcdtw.grpc.server_call import CallRegister

PLAIN_BODY_SIZE_MAX: Final = 2 * 1024 * 1024


class PlainRequest:
    """One HTTP request and, through `respond`, its answer.

    ``on_end`` is called once if the client goes before the answer.  A body that no route reads
    is not kept.
    """

    __slots__ = (
        "_chunks",
        "_held",
        "_keeps_body",
        "_open",
        "_register",
        "_size",
        "fields",
        "intake",
        "on_end",
        "stream_id",
    )

    def __init__(
        self,
        register: CallRegister,
        open_requests: dict[int, PlainRequest],
        stream_id: int,
        intake: Intake,
        keeps_body: bool = True,
    ) -> None:
        self._keeps_body = keeps_body
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

    @property
    def body(self) -> bytes:
        return b"".join(self._chunks)

    def collect(self, data: bytes) -> bool:
        """Add to the body.  Returns False when that makes it, or all that is held, too large."""
        register = self._register
        if register is None or not data:
            return True
        self._size += len(data)
        if self._size > PLAIN_BODY_SIZE_MAX:
            return False
        if not self._keeps_body:
            return True
        self._chunks.append(data)
        self._hold(register, self._held + len(data) + CHUNK_OVERHEAD)
        return not register.holds_too_much

    def respond(
        self, status: int, fields: Fields, body: bytes, *, is_remote_open: bool = False
    ) -> None:
        """Answer; a second answer, or one to a client that has gone, does nothing.

        ``fields`` carry lower-case names.
        """
        register = self._register
        if register is None:
            return
        self._register = None
        self.on_end = None  # it knows this request
        self._hold(register, 0)
        self._open.pop(self.stream_id, None)
        connection = register.connection
        head = ((b":status", b"%d" % status), *fields)
        connection.send_headers(self.stream_id, head, not body)
        if body:
            register.owe(len(body))
            connection.send_data(self.stream_id, body, True)
        if is_remote_open:
            register.close_remote(self.stream_id)
        register.mark()

    def cancelled(self) -> None:
        """The client reset the stream or is gone."""
        register = self._register
        if register is not None:
            self._register = None
            self._hold(register, 0)
            on_end, self.on_end = self.on_end, None
            if on_end is not None:
                on_end()

    def _hold(self, register: CallRegister, octets: int) -> None:
        register.hold(octets - self._held)
        self._held = octets
