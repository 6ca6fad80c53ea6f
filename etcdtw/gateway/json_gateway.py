"""etcd's JSON gateway: every method as a page below ``/v3/``, in the dialect of etcd 3.7.

A request becomes a call within this member (`client.loopback`), on a channel of its connection.
Its certificate's name counts for nothing, as with etcd.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from posixpath import normpath
from typing import Final
from urllib.parse import unquote_to_bytes
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITCPTransport
from twisted.python.failure import Failure

from etcdtw.client.channel import Stream
from etcdtw.client.loopback import Loopback, LoopbackChannel, LoopbackStream, RefusedStream
from etcdtw.gateway.json_answers import (
    OF_GRPC,
    MessageParts,
    error_answer,
    message_answer,
    stream_error_answer,
)
from etcdtw.gateway.json_lines import LineParts
from etcdtw.gateway.pages import NO_FIELDS, Answer, Posted, Said, Streamed, Taking
from etcdtw.gateway.request_head import HeadError, metadata, timeout_ms
from etcdtw.gateway.routes import OLD_PREFIX, PREFIX, ROUTES, Route
from etcdtw.gateway.socket_stream import RefusedSocket, SocketStream
from etcdtw.gateway.transcoding.exact import ReadingError, read_value
from etcdtw.gateway.transcoding.scanning import NotJsonError, skip_space
from etcdtw.gateway.transcoding.usual import USUAL_SIZE_MAX, read_usual
from etcdtw.gateway.turns import Job, Turns, whole
from etcdtw.gateway.websocket import bearer_of
from etcdtw.grpc.call import (
    BIDI_STREAM,
    INVALID_ARGUMENT,
    NOT_FOUND,
    UNARY,
    UNIMPLEMENTED,
    StatusError,
)
from etcdtw.grpc.caller import AUTHORIZATION, Caller
from etcdtw.transport.client.seams import Successor
from etcdtw.transport.sockets import address_of, end_of
from etcdtw.transport.tls.verification import common_name_of

HELD_SIZE_MAX: Final = 32 * 1024
"""Octets of an answer that are held as a whole; a larger one is streamed."""
BODY_SHARE: Final = 2
"""A body may be so many times as large as the message in it: base64 and names take room."""
NOT_FOUND_TEXT: Final = "Not Found"
CUT_OFF: Final = "unexpected EOF"
NOT_ALLOWED_TEXT: Final = "Method Not Allowed"
NAME_IGNORED: Final = (
    b"CommonName of client sending a request against gateway will be ignored and not used as "
    b"expected\n"
)


def _never() -> bool:
    return False


class JsonGateway:
    """Implements `pages.Tree`.

    ``refuses_names``: whether a client with a certificate's name is turned away, lest it
    believes that the name counts.
    """

    def __init__(
        self,
        loopback: Loopback,
        turns: Turns,
        message_size_max: int,
        refuses_names: Callable[[], bool] = _never,
    ) -> None:
        self._loopback = loopback
        self._turns = turns
        self._refuses_names = refuses_names
        self._channels: WeakKeyDictionary[ITCPTransport, LoopbackChannel] = WeakKeyDictionary()
        body_size_max = self._message_size_max = BODY_SHARE * message_size_max
        pages = {
            path: Taking(partial(self._serve, route), body_size_max)
            for path, route in ROUTES.items()
        }
        old = {OLD_PREFIX + path[len(PREFIX) :]: page for path, page in pages.items()}
        self._pages = pages | old

    def find(self, path: bytes) -> Taking | None:
        """See `pages.Tree`."""
        page = self._pages.get(path)
        return self._pages.get(_resolved(path)) if page is None and b"%" in path else page

    def bar(self, path: bytes, connection: ITCPTransport) -> Answer | None:
        """See `pages.Tree`."""
        if not self._refuses_names() or not _resolved(path).startswith(PREFIX):
            return None
        return Answer(400, NAME_IGNORED) if common_name_of(connection) else None

    def refuse(self, verb: bytes, path: bytes) -> Answer | None:
        """See `pages.Tree`."""
        path = _resolved(path)
        clean = normpath(path).replace(b"//", b"/", 1) if path else path
        if (path.endswith(b"/") and clean != b"/") or clean == PREFIX[:-1]:
            clean += b"/"
        if not clean.startswith(PREFIX):
            return None
        if clean != path:
            return Answer(307, b"", b"", False, ((b"Location", clean),))
        if path in ROUTES:
            return error_answer(UNIMPLEMENTED, NOT_ALLOWED_TEXT)
        return error_answer(NOT_FOUND, NOT_FOUND_TEXT)

    def upgrade(self, path: bytes, posted: Posted) -> Successor | None:
        """See `pages.Tree`."""
        path = _resolved(path)
        if not path.startswith(PREFIX):
            return None
        route = ROUTES.get(path)
        if route is None:
            return RefusedSocket(error_answer(NOT_FOUND, NOT_FOUND_TEXT).body)
        bearer = bearer_of(posted.header)
        told = metadata({AUTHORIZATION: bearer}.get)
        open_stream = None
        channel = self._channel(posted.connection)
        if route.kind != UNARY:
            open_stream = partial(channel.stream, route.method, told)
        return SocketStream(route, open_stream, self._turns, self._message_size_max, channel.hold)

    def _serve(self, route: Route, posted: Posted) -> Said | Deferred[Said]:
        try:
            wait_ms = timeout_ms(posted.header)
        except HeadError as error:
            return error_answer(INVALID_ARGUMENT, str(error))
        call = _JsonCall(route, posted, wait_ms, self._channel(posted.connection), self._turns)
        return call.stream() if route.kind == BIDI_STREAM else call.begin()

    def _channel(self, connection: ITCPTransport) -> LoopbackChannel:
        """Return the channel of a connection; its calls end with their requests."""
        channel = self._channels.get(connection)
        if channel is None:
            peer, own = connection.getPeer(), connection.getHost()
            caller = Caller(address_of(peer), "", remote=end_of(peer), local=end_of(own))
            channel = self._loopback.connect(caller)
            self._channels[connection] = channel
        return channel


class _JsonCall:
    """One request, and the call that is made of it."""

    def __init__(
        self,
        route: Route,
        posted: Posted,
        wait_ms: int | None,
        channel: LoopbackChannel,
        turns: Turns,
    ) -> None:
        self._route = route
        self._body = posted.body
        self._broken = posted.broken
        self._let_go = posted.let_go
        self._metadata = metadata(posted.header)
        self._wait_ms = wait_ms
        self._channel = channel
        self._turns = turns

    def begin(self) -> Said | Deferred[Said]:
        """Read the one message of the body, and make the call."""
        body = self._body
        if self._broken and not body.strip():
            return error_answer(INVALID_ARGUMENT, self._broken)
        message = read_usual(self._route.request, body)
        if message is not None:
            return self._ask(message)
        reading = _read_one(self._route, body)
        if len(body) <= USUAL_SIZE_MAX:
            try:
                return self._ask(whole(reading))
            except (NotJsonError, ReadingError) as error:
                return self._unreadable(error)
        return self._turns.run(reading).addCallbacks(self._ask, self._not_read)

    def _not_read(self, failure: Failure) -> Said:
        failure.trap(NotJsonError, ReadingError)
        error = failure.value
        assert isinstance(error, Exception), "trapped"
        return self._unreadable(error)

    def _unreadable(self, error: Exception) -> Said:
        """Say why the body cannot be read: where it ends too early, why it does."""
        text = str(error)
        is_cut = self._broken and text == CUT_OFF
        return error_answer(INVALID_ARGUMENT, self._broken if is_cut else text)

    def _was_read(self) -> None:
        """Let the body go: its answer may be long in coming."""
        self._body = b""
        self._let_go()

    def _ask(self, message: bytes) -> Deferred[Said]:
        route = self._route
        self._was_read()
        if route.kind != UNARY:
            stream = self._open()
            stream.send(message)
            stream.half_close()
            return self._follow(stream)
        if route.is_large:
            stream = self._channel.unary_in_parts(
                route.method, message, self._metadata, self._wait_ms
            )
            return self._gather(stream)
        answered = self._channel.unary(route.method, message, self._metadata, self._wait_ms)
        return answered.addCallbacks(partial(message_answer, route.answer), _unary_failure)

    def _gather(self, stream: LoopbackStream | RefusedStream) -> Deferred[Said]:
        """Return the answer as a whole if it is small.  A client that leaves ends the call."""
        waiting: Deferred[Said] = Deferred(lambda _: stream.cancel())
        gathered = b""

        def came(part: bytes | None) -> None:
            nonlocal gathered
            if waiting.called:
                return
            if part is not None:
                gathered += part
            if len(gathered) > HELD_SIZE_MAX:
                parts = MessageParts(self._route.answer, gathered, stream, self._turns)
                waiting.callback(Streamed(200, parts, fields=OF_GRPC))
            elif part is None or stream.is_spent:
                waiting.callback(message_answer(self._route.answer, gathered))
            else:
                ask()

        def failed(failure: Failure) -> None:
            if waiting.called:
                return
            if failure.check(StatusError) is not None:
                waiting.callback(_unary_failure(failure))
            else:
                waiting.errback(failure)

        def ask() -> None:
            stream.receive().addCallbacks(came, failed).addErrback(failed)

        ask()
        return waiting

    # Streams.

    def stream(self) -> Deferred[Said]:
        """Send each message of the body; as with etcd, behind one that is none nothing is sent."""
        stream = self._open()
        sending = self._send_all(stream)
        if len(self._body) <= USUAL_SIZE_MAX:
            whole(sending)
        else:
            self._turns.run(sending)
        return self._follow(stream)

    def _open(self) -> Stream:
        return self._channel.stream(self._route.method, self._metadata, self._wait_ms)

    def _send_all(self, stream: Stream) -> Job[None]:
        body = self._body
        table = self._route.request
        try:
            at = skip_space(body, 0)
            while at < len(body):
                message, at = yield from read_value(table, body, at)
                stream.send(message)
                yield
                at = skip_space(body, at)
        except (NotJsonError, ReadingError):
            pass
        self._was_read()
        stream.half_close()

    def _follow(self, stream: Stream) -> Deferred[Said]:
        """Wait for its first message, which decides on the status.

        A client that leaves meanwhile ends it.
        """
        waiting: Deferred[Said] = Deferred(lambda _: stream.cancel())

        def began(first: bytes | None) -> None:
            if waiting.called:
                return
            if first is None:
                waiting.callback(Answer(200, b"", b"", False, NO_FIELDS))
                return
            lines = LineParts(self._route.answer, first, stream, self._turns)
            waiting.callback(Streamed(200, lines, fields=OF_GRPC))

        def failed(failure: Failure) -> None:
            if waiting.called:
                return
            error = failure.value
            if isinstance(error, StatusError):
                waiting.callback(stream_error_answer(error.code, error.message))
            else:
                waiting.errback(failure)

        stream.receive().addCallbacks(began, failed).addErrback(failed)
        return waiting


def _read_one(route: Route, body: bytes) -> Job[bytes]:
    at = skip_space(body, 0)
    if at >= len(body):
        return b""
    message, _ = yield from read_value(route.request, body, at)
    return message


def _unary_failure(failure: Failure) -> Said:
    failure.trap(StatusError)
    error = failure.value
    assert isinstance(error, StatusError), "trapped"
    return error_answer(error.code, error.message)


def _resolved(path: bytes) -> bytes:
    """Return ``path`` as routes are looked up."""
    if b"%" in path:
        path = unquote_to_bytes(path)
    return PREFIX + path[len(OLD_PREFIX) :] if path.startswith(OLD_PREFIX) else path
