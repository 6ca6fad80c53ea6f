"""The server side of gRPC on one connection: http2 events in, handlers called, answers out.

Pure: knows no socket and no clock.  ``now_ms`` is given with each input.
"""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.grpc.call import RESOURCE_EXHAUSTED, UNARY, MethodTable, StatusError
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.grpc.gzip import GZIP
from etcdtw.grpc.gzip_call import GzipCall, GzipStreamCall
from etcdtw.grpc.inflating import Inflating
from etcdtw.grpc.intake import (
    HEAVY_OCTETS_MIN,
    NEVER_MS,
    Intake,
    Refusal,
    not_grpc,
    resolve,
    resolve_like,
)
from etcdtw.grpc.message import MESSAGE_SIZE_MAX, PREFIX_SIZE, MessageReader, is_one_message
from etcdtw.grpc.plain import BodySizeMax, PlainRequest, reads_no_body
from etcdtw.grpc.server_call import (
    ENDED_MAX,
    TOO_MUCH_UNFINISHED,
    CallRegister,
    ServerCall,
    StreamCall,
)
from etcdtw.grpc.stats import ServerStats
from etcdtw.grpc.status import status_fields
from etcdtw.http2 import events
from etcdtw.http2.connection import FRAMES_ALL, Connection
from etcdtw.http2.errors import NO_ERROR, PROTOCOL_ERROR
from etcdtw.http2.events import HeaderList


def is_path(path: bytes | None) -> bool:
    """Whether an HTTP request may have ``path``; gRPC's is the name of a method, whatever it is."""
    return path is None or path[:1] == b"/" or path == b"*"


def _no_output() -> None:
    """Nobody is left to write."""


class CallServer:
    """Serves ``methods`` on one connection.

    ``on_output`` is called once when there is something to send, until `take_output`.
    ``on_plain`` gets requests that are not gRPC; without it they are answered with 415.
    ``body_size_max``: with bodies up to that, for routes that read them.
    ``caller``: whose connection it is, without a token.
    """

    def __init__(
        self,
        connection: Connection,
        methods: MethodTable,
        stats: ServerStats,
        *,
        on_output: Callable[[], None],
        on_plain: Callable[[PlainRequest], None] | None = None,
        message_size_max: int = MESSAGE_SIZE_MAX,
        body_size_max: BodySizeMax = reads_no_body,
        caller: Caller = NOBODY_KNOWN,
    ) -> None:
        self._body_size_max = body_size_max
        self._connection = connection
        self._methods = methods
        self._stats = stats
        self._on_plain = on_plain
        self._message_size_max = message_size_max
        self._register = CallRegister(connection, on_output, stats, caller)
        self._plain: dict[int, PlainRequest] = {}
        # The last one with a timeout; calls that follow differ in that alone.
        self._known: Intake | None = None
        self.goaway_received = False
        self.pages = 0
        """Requests so far that were not gRPC."""

    @property
    def open_calls(self) -> int:
        """How many calls and requests wait for their end."""
        return len(self._register.calls) + len(self._plain)

    @property
    def unread_octets(self) -> int:
        """Octets that this connection counts for among those of `ServerStats.unread_octets`."""
        return self._register.unread_octets

    @property
    def next_deadline_ms(self) -> int:
        """Before this time `expire` has nothing to do."""
        return self._register.next_deadline_ms

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over: send what is left, then close the socket."""
        return self._connection.is_closed

    @property
    def is_at_fault(self) -> bool:
        """Whether it is over because the client broke HTTP/2's rules or our bounds."""
        return self._connection.is_at_fault

    def take_output(self) -> bytes:
        """Return what is to be sent; the next output will call ``on_output`` again."""
        self._register.is_marked = False
        return self._connection.take_output()

    def take_parts(self) -> list[bytes | memoryview]:
        """As `take_output`, not joined."""
        self._register.is_marked = False
        return self._connection.take_parts()

    @property
    def holds_data_back(self) -> bool:
        """Whether data waits for nothing but `resume`."""
        return self._connection.holds_data_back

    def pause(self) -> None:
        """The transport is congested: data waits in its streams."""
        self._connection.pause()

    def resume(self) -> bool:
        """All that was taken is written; True: there is more to take."""
        for event in self._connection.resume():
            self._drained(event[1])
        return self._connection.has_output

    def settle(self, octets: int) -> None:
        """Say how many octets the transport holds, after what was taken was given to it."""
        register = self._register
        octets += self._connection.queued_octets
        register.stats.unread_octets += octets - register.unread_octets
        register.unread_octets = octets

    def discard(self) -> None:
        """Drop all that is made for this client; it gets nothing more."""
        self._connection.discard()
        self._register.backlog = 0  # reads that wait until less is unread would wait for ever
        self.settle(0)

    def set_backlog(self, octets: int) -> None:
        """Say how much the transport holds and cannot write; calls report it as queued."""
        register = self._register
        if octets:
            register.backlog = octets
        elif register.backlog:
            register.backlog_cleared()
            for request in list(self._plain.values()):
                request.drained()

    def receive(self, data: bytes, now_ms: int, frames_max: int = FRAMES_ALL) -> bool:
        """Take octets from the client and do what they ask for.

        Looks at ``frames_max`` frames; True: more of them wait for the next call.
        """
        register = self._register
        size_max = self._message_size_max
        for event in self._connection.receive(data, now_ms, frames_max):
            kind: int = event[0]
            if kind != events.REQUEST:
                self._dispatch(event, now_ms)
                continue
            # Typed, or the compiled module looks up each attribute by its name.
            stream_id: int = event[1]
            headers: HeaderList = event[2]
            body: bytes = event[3]
            memo = headers.memo
            intake = memo if isinstance(memo, Intake) else self._resolve(headers)
            unary = intake.unary
            size = len(body) - PREFIX_SIZE
            # One uncompressed message and nothing else: the only shape that clients send.
            if unary is None or size < 0 or size > size_max or not is_one_message(body):
                self._opened(stream_id, headers, now_ms, False)
                self._data(stream_id, body, True)
                continue
            stats = intake.stats
            stats.started += 1
            if intake.octets >= HEAVY_OCTETS_MIN and register.holds_too_much:
                call = ServerCall(register, stream_id, intake, stats, NEVER_MS)
                call.fail(RESOURCE_EXHAUSTED, TOO_MUCH_UNFINISHED)
                continue
            stats.received += 1
            stats.received_octets += size
            call = ServerCall(register, stream_id, intake, stats, now_ms + intake.timeout_ms)
            try:
                reply = unary(call, body[PREFIX_SIZE:])
            except StatusError as error:
                call.fail(error.code, error.message)
                continue
            if reply is not None:
                call.reply(reply)
            elif call.is_open:
                register.add(call)
        if not register.is_marked and self._connection.has_output:
            register.mark()
        return self._connection.has_more

    def expire(self, now_ms: int) -> None:
        """End the calls whose deadline has passed with DEADLINE_EXCEEDED."""
        self._register.expire(now_ms)

    def connection_lost(self) -> bool:
        """The client is gone: every call ends, ``on_end`` is told.

        Of very many some end now; True: call it again for the others, and let others be served.
        """
        for _ in range(min(len(self._plain), ENDED_MAX)):
            _, request = self._plain.popitem()
            request.cancelled()
        return self._register.cancel_some() or bool(self._plain)

    def release(self) -> None:
        """Let go of the owner, after `connection_lost`: nothing more is said to it.

        Connections come and go too often to leave their cycles to the collector.
        """
        self._register.on_output = _no_output
        self._on_plain = None

    def drain(self) -> None:
        """Ask the client to take new calls elsewhere; calls under way go on."""
        self._connection.drain()
        self._register.mark()

    def ping(self, opaque: bytes) -> None:
        """Ask the client for a sign of life: any octets from it will do."""
        self._connection.ping(opaque)
        self._register.mark()

    # What follows is off the hot path.

    def _dispatch(self, event: events.Event, now_ms: int) -> None:
        kind: int = event[0]
        if kind == events.DATA:
            self._data(event[1], event[2], event[3])
        elif kind == events.HEADERS:
            self._opened(event[1], event[2], now_ms, event[3])
        elif kind == events.TRAILERS:
            self._data(event[1], b"", True)
        elif kind == events.RESET:
            self._reset(event[1])
        elif kind == events.DRAINED:
            self._drained(event[1])
        elif kind == events.GOAWAY:
            self.goaway_received = True
        elif kind == events.CLOSED:
            self.connection_lost()  # of very many calls the rest ends when the transport is gone

    def _resolve(self, headers: HeaderList) -> Intake:
        fields = headers.fields
        known = self._known
        intake = None if known is None else resolve_like(known, fields)
        if intake is None:
            intake = resolve(fields, self._methods, self._stats)
            if intake.timeout_at >= 0 and intake.octets < HEAVY_OCTETS_MIN:
                self._known = intake
        headers.memo = intake
        return intake

    def _opened(self, stream_id: int, headers: HeaderList, now_ms: int, end_stream: bool) -> None:
        """A request has begun."""
        intake = headers.memo
        if not isinstance(intake, Intake):
            intake = self._resolve(headers)
        if not intake.is_grpc and not is_path(intake.value(b":path")):
            self._connection.reset(stream_id, PROTOCOL_ERROR)
            self._register.mark()
        elif not intake.is_grpc and self._on_plain is not None:
            self.pages += 1
            size_max = self._body_size_max(
                intake.value(b":method") or b"", intake.value(b":path") or b""
            )
            request = PlainRequest(self._register, self._plain, stream_id, intake, size_max)
            if self._register.holds_too_much:
                request.respond(413, (), b"", is_remote_open=not end_stream)
        elif intake.method is None:
            refusal = intake.refusal or not_grpc(intake.value(b"content-type") or b"")
            self._refuse(stream_id, intake, refusal, end_stream)
        else:
            self._start(stream_id, intake, now_ms)
        if end_stream:
            self._data(stream_id, b"", True)

    def _start(self, stream_id: int, intake: Intake, now_ms: int) -> None:
        assert intake.method is not None
        intake.stats.started += 1
        call = self._call(stream_id, intake, now_ms + intake.timeout_ms)
        call.is_remote_open = True
        call.reader = MessageReader(self._message_size_max, intake.encoding)
        self._register.add(call)
        if intake.octets >= HEAVY_OCTETS_MIN and self._register.holds_too_much:
            call.fail(RESOURCE_EXHAUSTED, TOO_MUCH_UNFINISHED)
            return
        opened = intake.method.opened
        if opened is not None:
            try:
                opened(call)
            except StatusError as error:
                call.fail(error.code, error.message)

    def _call(self, stream_id: int, intake: Intake, expires_ms: int) -> ServerCall:
        assert intake.method is not None
        is_unary = intake.method.kind == UNARY
        register = self._register
        if intake.encoding == GZIP:
            made = GzipCall if is_unary else GzipStreamCall
            call: ServerCall = made(register, stream_id, intake, intake.stats, expires_ms)
            call.inflating = Inflating(self._message_size_max, call)
            return call
        kind = ServerCall if is_unary else StreamCall
        return kind(register, stream_id, intake, intake.stats, expires_ms)

    def _refuse(self, stream_id: int, intake: Intake, refusal: Refusal, end_stream: bool) -> None:
        fields = status_fields(refusal.code, refusal.message)
        head = ((b":status", b"%d" % refusal.http_status), *intake.head[1:], *fields)
        self._connection.send_headers(stream_id, head, True)
        if not end_stream:
            self._connection.reset(stream_id, NO_ERROR)
        self._register.mark()

    def _data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        call = self._register.calls.get(stream_id)
        if call is None:
            self._plain_data(stream_id, data, end_stream)
            return
        if end_stream:
            call.is_remote_open = False
        try:
            call.feed(data, end_stream)
            call.count_held()
        except StatusError as error:
            call.break_off(error.code, error.message)

    def _plain_data(self, stream_id: int, data: bytes, end_stream: bool) -> None:
        request = self._plain.get(stream_id)
        if request is None:
            return  # an ended call; the octets were counted by the http2 core
        if not request.collect(data):
            request.respond(413, (), b"", is_remote_open=not end_stream)
        elif end_stream:
            assert self._on_plain is not None
            self._on_plain(request)

    def _reset(self, stream_id: int) -> None:
        call = self._register.calls.get(stream_id)
        if call is not None:
            call.cancelled()
        request = self._plain.pop(stream_id, None)
        if request is not None:
            request.cancelled()
        self._register.to_reset.discard(stream_id)

    def _drained(self, stream_id: int) -> None:
        if stream_id in self._register.to_reset:
            self._register.to_reset.discard(stream_id)
            self._connection.reset(stream_id, NO_ERROR)
        call = self._register.calls.get(stream_id)
        if call is not None:
            call.drained()
        request = self._plain.get(stream_id)
        if request is not None:
            request.drained()
