"""The client side of gRPC on one connection: calls out, answers in.

Pure, like the server side.  Used by the client library and by tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from etcdtw.grpc.call import (
    CANCELLED,
    INTERNAL,
    OK,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNKNOWN,
    StatusError,
)
from etcdtw.grpc.intake import CONTENT_TYPE, is_grpc_content_type
from etcdtw.grpc.message import MessageReader, encode_prefix
from etcdtw.grpc.metadata import encode_value
from etcdtw.grpc.status import code_of_http_status, decode_message_text
from etcdtw.grpc.timeout import format_timeout
from etcdtw.http2 import errors, events
from etcdtw.http2.connection import Connection
from etcdtw.http2.events import HeaderList
from etcdtw.http2.hpack import encode_block

CLIENT_MESSAGE_SIZE_MAX: Final = 2**31 - 1  # etcd's clients take whatever the server sends
BLOCKS_MAX: Final = 256
"""Header blocks of requests that are kept: of a method, its metadata and its time-out."""
TEXT_SIZE_MAX: Final = 256
"""Octets of a server's farewell that are shown."""

Ended = Callable[[int, str], None]
Metadata = Sequence[tuple[bytes, bytes]]

_CODE_OF_RESET: Final = {
    errors.REFUSED_STREAM: UNAVAILABLE,
    errors.CANCEL: CANCELLED,
    errors.FLOW_CONTROL_ERROR: RESOURCE_EXHAUSTED,
    errors.ENHANCE_YOUR_CALM: RESOURCE_EXHAUSTED,
    errors.INADEQUATE_SECURITY: PERMISSION_DENIED,
}
"""As grpc-go has them; the others are INTERNAL."""
_GOOD_HEAD: Final = "good head"
LOST: Final = "error reading from server: EOF"
CANCELLED_TEXT: Final = "context canceled"


class ClientCall:
    """One call.  ``on_message`` gets each response, ``on_end`` the status, once."""

    __slots__ = (
        "_client",
        "_reader",
        "is_refused",
        "on_end",
        "on_message",
        "status",
        "stream_id",
    )

    def __init__(
        self,
        client: CallClient,
        stream_id: int,
        on_message: Callable[[bytes], None],
        on_end: Ended,
    ) -> None:
        self._client = client
        self._reader = MessageReader(client.message_size_max)
        self.stream_id = stream_id
        self.on_message = on_message
        self.on_end = on_end
        self.status: tuple[int, str] | None = None
        self.is_refused = False
        """The server has said that it did not look at this call: it may be made again."""

    @property
    def queued(self) -> int:
        """Octets that wait for the server's windows."""
        return self._client.queued(self.stream_id)

    def send(self, message: bytes, *, last: bool = False) -> None:
        """Send one request message; ``last`` ends the sending side with it."""
        if self.status is None:
            self._client.send(self.stream_id, encode_prefix(len(message)) + message, last)

    def half_close(self) -> None:
        """Send no more."""
        if self.status is None:
            self._client.send(self.stream_id, b"", True)

    def hold(self) -> None:
        """Let the server send what it has credit for, and no more, until `release`."""
        if self.status is None:
            self._client.hold(self.stream_id)

    def release(self) -> None:
        """Undo `hold`."""
        if self.status is None:
            self._client.release(self.stream_id)

    def cancel(self) -> None:
        """Give up: the call ends with CANCELLED here and is reset there."""
        if self.status is None:
            self._client.reset(self.stream_id)
            self.end(CANCELLED, CANCELLED_TEXT)

    def end(self, code: int, message: str) -> None:
        """Close with a status; the first one counts."""
        if self.status is None:
            self.status = (code, message)
            self._client.forget(self.stream_id)
            self.on_end(code, message)

    def head(self, headers: HeaderList, end_stream: bool) -> None:
        """Response headers came."""
        if headers.memo is _GOOD_HEAD and not end_stream:
            return
        values = dict(headers.fields)
        if end_stream and b"grpc-status" in values:
            self.trailers(headers)
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
        else:
            headers.memo = _GOOD_HEAD

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

    def trailers(self, headers: HeaderList) -> None:
        """The status came."""
        values = dict(headers.fields)
        text = decode_message_text(values.get(b"grpc-message", b""))
        try:
            code = int(values[b"grpc-status"])
        except (KeyError, ValueError):
            code, text = UNKNOWN, "the server sent no valid grpc-status"
        if code == OK and not self._reader.is_between_messages:
            code, text = INTERNAL, "unexpected EOF"
        self.end(code, text)

    def reset(self, code: int) -> None:
        """The server gave the stream up."""
        self.is_refused = code == errors.REFUSED_STREAM
        self.end(
            _CODE_OF_RESET.get(code, INTERNAL),
            f"stream terminated by RST_STREAM with error code: {code}",
        )

    def _give_up(self, code: int, message: str) -> None:
        if self.status is None:
            self._client.reset(self.stream_id)
            self.end(code, message)


class CallClient:
    """The calls of one connection, which is already begun.

    ``on_output`` is called whenever there is something to send.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        on_output: Callable[[], None],
        scheme: bytes = b"http",
        authority: bytes = b"localhost",
        message_size_max: int = CLIENT_MESSAGE_SIZE_MAX,
    ) -> None:
        self._connection = connection
        self._on_output = on_output
        self._scheme = scheme
        self._authority = authority
        self.message_size_max = message_size_max
        """Octets of one response."""
        self._calls: dict[int, ClientCall] = {}
        self._blocks: dict[tuple[str, Metadata, int | None], bytes] = {}
        self.is_going_away = False
        self.farewell = ""
        """Why the server takes no more calls, in its own words."""

    @property
    def open_calls(self) -> int:
        return len(self._calls)

    @property
    def has_room(self) -> bool:
        """Whether a call may begin."""
        return self._connection.has_room

    def open(
        self,
        path: str,
        on_message: Callable[[bytes], None],
        on_end: Ended,
        *,
        metadata: Metadata = (),
        timeout_ms: int | None = None,
    ) -> ClientCall:
        """Begin a call.  Raises `StreamLimitError` of the http2 core when none may begin."""
        block = self._block(path, metadata, timeout_ms)
        stream_id = self._connection.open_stream()
        self._connection.send_headers(stream_id, block)
        call = self._calls[stream_id] = ClientCall(self, stream_id, on_message, on_end)
        self._on_output()
        return call

    def unary(
        self,
        path: str,
        message: bytes,
        done: Callable[[bytes | None, int, str], None],
        *,
        metadata: Metadata = (),
        timeout_ms: int | None = None,
    ) -> ClientCall:
        """Call a unary method: ``done(response or None, code, text)`` is called once."""
        responses: list[bytes] = []

        def ended(code: int, text: str) -> None:
            if code == OK and len(responses) != 1:
                code, text = INTERNAL, f"{len(responses)} responses to a unary call"
            done(responses[0] if code == OK else None, code, text)

        block = self._block(path, metadata, timeout_ms)
        stream_id = self._connection.open_stream()
        self._connection.send_headers(stream_id, block)
        call = self._calls[stream_id] = ClientCall(self, stream_id, responses.append, ended)
        self.send(stream_id, encode_prefix(len(message)) + message, True)
        return call

    def _block(self, path: str, metadata: Metadata, timeout_ms: int | None) -> bytes:
        key = (path, tuple(metadata), timeout_ms)
        block = self._blocks.get(key)
        if block is None:
            if len(self._blocks) >= BLOCKS_MAX:
                self._blocks.clear()
            block = self._blocks[key] = self._encode(path, metadata, timeout_ms)
        return block

    def _encode(self, path: str, metadata: Metadata, timeout_ms: int | None) -> bytes:
        fields = [
            (b":method", b"POST"),
            (b":scheme", self._scheme),
            (b":path", path.encode()),
            (b":authority", self._authority),
            (b"content-type", CONTENT_TYPE),
            (b"te", b"trailers"),
        ]
        if timeout_ms is not None:
            fields.append((b"grpc-timeout", format_timeout(timeout_ms)))
        fields += [(name, encode_value(name, value)) for name, value in metadata]
        return encode_block(tuple(fields))

    def receive(self, data: bytes, now_ms: int) -> None:
        """Take octets from the server."""
        for event in self._connection.receive(data, now_ms):
            self._dispatch(event)
        if self._connection.has_output:
            self._on_output()

    def connection_lost(self, why: str = LOST, code: int = UNAVAILABLE) -> None:
        """The connection is gone: every call ends."""
        for call in list(self._calls.values()):
            call.end(code, why)

    def queued(self, stream_id: int) -> int:
        """See `ClientCall.queued`."""
        return self._connection.queued(stream_id)

    def send(self, stream_id: int, data: bytes, last: bool) -> None:
        """Send octets of a call."""
        self._connection.send_data(stream_id, data, last)
        self._on_output()

    def hold(self, stream_id: int) -> None:
        """See `ClientCall.hold`."""
        self._connection.hold(stream_id)

    def release(self, stream_id: int) -> None:
        """See `ClientCall.release`."""
        self._connection.release(stream_id)
        if self._connection.has_output:
            self._on_output()

    def reset(self, stream_id: int) -> None:
        """Give up a stream."""
        self._connection.reset(stream_id, errors.CANCEL)
        self._on_output()

    def forget(self, stream_id: int) -> None:
        """A call has ended; if its server did it, our half of the stream may still be open."""
        self._calls.pop(stream_id, None)
        if not self._connection.is_gone(stream_id):
            self._connection.reset(stream_id, errors.NO_ERROR)

    def _dispatch(self, event: events.Event) -> None:
        kind = event[0]
        if kind > events.RESET:
            if kind == events.GOAWAY:
                self.is_going_away = True
                self.farewell = event[3][:TEXT_SIZE_MAX].decode("utf-8", "replace")
            elif kind == events.CLOSED:
                text = event[2].decode("utf-8", "replace")
                self.connection_lost(f"the server broke the rules of HTTP/2: {text}")
            return
        call = self._calls.get(event[1])
        if call is None:
            return
        if kind == events.HEADERS:
            call.head(event[2], event[3])
        elif kind == events.DATA:
            call.data(event[2], event[3])
        elif kind == events.TRAILERS:
            call.trailers(event[2])
        elif kind == events.RESET:
            call.reset(event[2])
