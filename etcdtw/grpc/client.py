"""The client side of gRPC on one connection: calls out, answers in.

Pure, like the server side.  Used by the client library, by peers and by tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from etcdtw.grpc.call import CANCELLED, INTERNAL, OK, UNAVAILABLE, UNKNOWN, StatusError
from etcdtw.grpc.intake import CONTENT_TYPE, Fields, is_grpc_content_type
from etcdtw.grpc.message import MessageReader, frame_message
from etcdtw.grpc.metadata import encode_value
from etcdtw.grpc.status import code_of_http_status, decode_message_text
from etcdtw.grpc.timeout import format_timeout
from etcdtw.http2 import events
from etcdtw.http2.connection import Connection
from etcdtw.http2.errors import CANCEL, REFUSED_STREAM

CLIENT_MESSAGE_SIZE_MAX: Final = 2**31 - 1  # etcd's clients take whatever the server sends

Ended = Callable[[int, str], None]


class ClientCall:
    """One call.  ``on_message`` gets each response, ``on_end`` the status, once."""

    __slots__ = ("_client", "_reader", "on_end", "on_message", "status", "stream_id")

    def __init__(
        self,
        client: CallClient,
        stream_id: int,
        on_message: Callable[[bytes], None],
        on_end: Ended,
    ) -> None:
        self._client = client
        self._reader = MessageReader(CLIENT_MESSAGE_SIZE_MAX)
        self.stream_id = stream_id
        self.on_message = on_message
        self.on_end = on_end
        self.status: tuple[int, str] | None = None

    def send(self, message: bytes, *, last: bool = False) -> None:
        """Send one request message; ``last`` ends the sending side with it."""
        if self.status is None:
            self._client.send(self.stream_id, frame_message(message), last)

    def half_close(self) -> None:
        """Send no more."""
        if self.status is None:
            self._client.send(self.stream_id, b"", True)

    def cancel(self) -> None:
        """Give up: the call ends with CANCELLED here and is reset there."""
        if self.status is None:
            self._client.reset(self.stream_id)
            self.end(CANCELLED, "context canceled")

    def end(self, code: int, message: str) -> None:
        """Close with a status; the first one counts."""
        if self.status is None:
            self.status = (code, message)
            self._client.forget(self.stream_id)
            self.on_end(code, message)

    def head(self, fields: Fields, end_stream: bool) -> None:
        """Response headers came."""
        values = dict(fields)
        if end_stream and b"grpc-status" in values:
            self.trailers(fields)
            return
        http_status = int(values.get(b":status", b"0"))
        if http_status != 200:
            self._give_up(
                code_of_http_status(http_status),
                f"unexpected HTTP status code received from server: {http_status}",
            )
        elif not is_grpc_content_type(values.get(b"content-type", b"")):
            self._give_up(UNKNOWN, "the server's answer is not gRPC")
        elif end_stream:
            self._give_up(INTERNAL, "server closed the stream without sending trailers")

    def data(self, data: bytes, end_stream: bool) -> None:
        """Octets of responses came."""
        try:
            messages = self._reader.feed(data)
        except StatusError as error:
            self._give_up(error.code, error.message)
            return
        for message in messages:
            if self.status is None:
                self.on_message(message)
        if end_stream:
            self._give_up(INTERNAL, "server closed the stream without sending trailers")

    def trailers(self, fields: Fields) -> None:
        """The status came."""
        values = dict(fields)
        text = decode_message_text(values.get(b"grpc-message", b""))
        try:
            code = int(values[b"grpc-status"])
        except (KeyError, ValueError):
            code, text = UNKNOWN, "the server sent no valid grpc-status"
        if code == OK and not self._reader.is_between_messages:
            code, text = INTERNAL, "unexpected EOF"
        self.end(code, text)

    def _give_up(self, code: int, message: str) -> None:
        if self.status is None:
            self._client.reset(self.stream_id)
            self.end(code, message)


class CallClient:
    """The calls of one connection, which is already begun.

    ``on_output`` is called whenever there is something to send.
    """

    def __init__(self, connection: Connection, *, on_output: Callable[[], None]) -> None:
        self._connection = connection
        self._on_output = on_output
        self._calls: dict[int, ClientCall] = {}
        self.is_going_away = False

    @property
    def open_calls(self) -> int:
        return len(self._calls)

    def open(
        self,
        path: str,
        on_message: Callable[[bytes], None],
        on_end: Ended,
        *,
        metadata: Iterable[tuple[bytes, bytes]] = (),
        timeout_ms: int | None = None,
        authority: bytes = b"localhost",
    ) -> ClientCall:
        """Begin a call.  Raises `StreamLimitError` of the http2 core when none may begin."""
        fields = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", authority),
            (b"content-type", CONTENT_TYPE),
            (b"te", b"trailers"),
        ]
        if timeout_ms is not None:
            fields.append((b"grpc-timeout", format_timeout(timeout_ms)))
        fields += [(name, encode_value(name, value)) for name, value in metadata]
        stream_id = self._connection.open_stream()
        self._connection.send_headers(stream_id, tuple(fields))
        call = self._calls[stream_id] = ClientCall(self, stream_id, on_message, on_end)
        self._on_output()
        return call

    def unary(
        self,
        path: str,
        message: bytes,
        done: Callable[[bytes | None, int, str], None],
        *,
        metadata: Iterable[tuple[bytes, bytes]] = (),
        timeout_ms: int | None = None,
    ) -> ClientCall:
        """Call a unary method: ``done(response or None, code, text)`` is called once."""
        responses: list[bytes] = []

        def ended(code: int, text: str) -> None:
            if code == OK and len(responses) != 1:
                code, text = INTERNAL, f"{len(responses)} responses to a unary call"
            done(responses[0] if code == OK else None, code, text)

        call = self.open(path, responses.append, ended, metadata=metadata, timeout_ms=timeout_ms)
        call.send(message, last=True)
        return call

    def receive(self, data: bytes, now_ms: int) -> None:
        """Take octets from the server."""
        for event in self._connection.receive(data, now_ms):
            self._dispatch(event)
        if self._connection.has_output:
            self._on_output()

    def connection_lost(self) -> None:
        """The connection is gone: every call ends with UNAVAILABLE."""
        for call in list(self._calls.values()):
            call.end(UNAVAILABLE, "error reading from server: EOF")

    def send(self, stream_id: int, data: bytes, last: bool) -> None:
        """Send octets of a call."""
        self._connection.send_data(stream_id, data, last)
        self._on_output()

    def reset(self, stream_id: int) -> None:
        """Give up a stream."""
        self._connection.reset(stream_id, CANCEL)
        self._on_output()

    def forget(self, stream_id: int) -> None:
        """A call has ended."""
        self._calls.pop(stream_id, None)

    def _dispatch(self, event: events.Event) -> None:
        kind = event[0]
        if kind == events.GOAWAY:
            self.is_going_away = True
            return
        if kind == events.CLOSED:
            self.connection_lost()
            return
        call = self._calls.get(event[1])
        if call is None:
            return
        if kind == events.HEADERS:
            call.head(event[2].fields, event[3])
        elif kind == events.DATA:
            call.data(event[2], event[3])
        elif kind == events.TRAILERS:
            call.trailers(event[2].fields)
        elif kind == events.RESET:
            refused = event[2] == REFUSED_STREAM
            call.end(
                UNAVAILABLE if refused else INTERNAL,
                f"stream terminated by RST_STREAM with error code: {event[2]}",
            )
