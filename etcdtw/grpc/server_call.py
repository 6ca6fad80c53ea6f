"""Calls on the server side, and the register of those under way on one connection.

Implements the seam `etcdtw.grpc.call.Call` over an http2 core.  A call is open from its
headers to its trailers; afterwards its register is None and every method does nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

from etcdtw.grpc.call import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    SERVER_STREAM,
    UNKNOWN,
    StatusError,
)
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.grpc.inflating import Inflating
from etcdtw.grpc.intake import NEVER_MS, Intake
from etcdtw.grpc.message import PREFIX_SIZE, MessageReader, encode_prefix, frame_message
from etcdtw.grpc.stats import MethodStats, ServerStats
from etcdtw.grpc.status import status_fields
from etcdtw.http2.connection import Connection
from etcdtw.http2.errors import NO_ERROR
from etcdtw.http2.hpack import encode_block

SWEEP_MS: Final = 10
"""Deadlines are looked at no more often than this: a call may live that much longer."""

ENDED_MAX: Final = 100
"""Calls of one connection that are ended at once, when very many end together."""

NO_REQUEST: Final = "EOF"
NO_STREAM_REQUEST: Final = (
    "cardinality violation: received no request message from non-client-streaming RPC"
)
MANY_REQUESTS: Final = (
    "cardinality violation: received multiple request messages for non-client-streaming RPC"
)
TRUNCATED: Final = "unexpected EOF"
TOO_MUCH_UNFINISHED: Final = "too many octets of unfinished requests"

OK_FIELDS: Final = status_fields(OK, "")
OK_BLOCK: Final = encode_block(OK_FIELDS)


QUEUED_FOR_EVER: Final = 1 << 62
"""What `ServerCall.queued` says of a stream that takes no more."""


class CallRegister:
    """The open calls of one connection, and the way out for their answers.

    ``calls`` is bounded by the streams the http2 core admits.  ``backlog`` is what the
    transport holds and cannot write: octets, set by whoever owns the transport.
    """

    __slots__ = (
        "backlog",
        "caller",
        "calls",
        "connection",
        "is_marked",
        "next_deadline_ms",
        "on_output",
        "stats",
        "to_reset",
        "unfinished_octets",
        "unread_octets",
    )

    def __init__(
        self,
        connection: Connection,
        on_output: Callable[[], None],
        stats: ServerStats,
        caller: Caller,
    ) -> None:
        self.stats = stats
        self.caller = caller
        self.unfinished_octets = 0
        self.unread_octets = 0
        """Of answers since the last `CallServer.settle`, and what that one found."""
        self.connection = connection
        self.on_output = on_output
        self.calls: dict[int, ServerCall] = {}
        self.backlog = 0
        self.is_marked = False
        self.next_deadline_ms = NEVER_MS
        # Ended by us with octets still queued while the client may go on sending.
        self.to_reset: set[int] = set()

    def mark(self) -> None:
        """Say that there is output: ``on_output`` hears it once until it is taken."""
        if not self.is_marked:
            self.is_marked = True
            self.on_output()

    def add(self, call: ServerCall) -> None:
        """Keep ``call`` until it ends."""
        self.calls[call.stream_id] = call
        call.held = call.kept
        self.hold(call.kept)
        if call.expires_ms < self.next_deadline_ms:
            self.next_deadline_ms = call.expires_ms

    def owe(self, octets: int) -> None:
        """An answer of ``octets`` is about to be kept until the client reads it."""
        stats = self.stats
        self.unread_octets += octets
        stats.unread_octets += octets
        if stats.unread_octets > stats.unread_max and stats.on_unread is not None:
            stats.on_unread()

    def hold(self, octets: int) -> None:
        """Count ``octets`` more (or less) of unfinished requests."""
        self.unfinished_octets += octets
        self.stats.unfinished_octets += octets

    @property
    def unread(self) -> int:
        """Octets that wait for the client's windows or for its socket."""
        return self.connection.queued_octets + self.backlog

    @property
    def holds_too_much(self) -> bool:
        stats = self.stats
        return (
            self.unfinished_octets > stats.unfinished_connection_max
            or stats.unfinished_octets > stats.unfinished_max
        )

    def expire(self, now_ms: int) -> None:
        """Fail the calls whose deadline has passed; of very many some, the next time the others."""
        if now_ms < self.next_deadline_ms:
            return
        overdue = [call for call in self.calls.values() if call.expires_ms <= now_ms]
        for call in overdue[:ENDED_MAX]:
            if call.is_open:  # the end of one call may end others
                call.break_off(DEADLINE_EXCEEDED, "context deadline exceeded")
        if len(overdue) > ENDED_MAX:
            return
        following = min((call.expires_ms for call in self.calls.values()), default=NEVER_MS)
        self.next_deadline_ms = min(max(following, now_ms + SWEEP_MS), NEVER_MS)

    def cancel_some(self) -> bool:
        """End calls without a word to the client, who is gone.  True: there are more."""
        self.to_reset.clear()
        for call in list(islice(self.calls.values(), ENDED_MAX)):
            self.calls.pop(call.stream_id, None)
            call.cancelled()
        return bool(self.calls)

    def queued(self, stream_id: int) -> int:
        """Octets that wait for the client's windows or for its socket.

        Very many when the client has reset the stream and this is not told yet: no more goes out,
        and whoever sends until some wait must find an end.
        """
        if self.connection.is_gone(stream_id):
            return QUEUED_FOR_EVER
        return self.connection.queued(stream_id) + self.backlog

    def close_remote(self, stream_id: int) -> None:
        """Tell a client that may still be sending that nobody listens (RFC 9113 section 8.1).

        Waits until the answer itself is out: a reset would drop what is queued.
        """
        if self.connection.queued(stream_id):
            self.to_reset.add(stream_id)
        else:
            self.connection.reset(stream_id, NO_ERROR)

    def backlog_cleared(self) -> None:
        """The transport has written all: streams that waited may go on."""
        self.backlog = 0
        for call in list(self.calls.values()):
            call.drained()


class ServerCall:
    """What unary and streaming calls share."""

    __slots__ = (
        "_intake",
        "_register",
        "_stats",
        "expires_ms",
        "head_sent",
        "held",
        "inflating",
        "is_remote_open",
        "kept",
        "on_end",
        "reader",
        "stream_id",
    )

    # Only streaming calls have callbacks for these.
    on_message: Callable[[bytes], None] | None = None
    on_half_close: Callable[[], None] | None = None
    on_drain: Callable[[], None] | None = None

    def __init__(
        self,
        register: CallRegister,
        stream_id: int,
        intake: Intake,
        stats: MethodStats,
        expires_ms: int,
    ) -> None:
        self._register: CallRegister | None = register
        self._intake = intake
        self._stats = stats
        self.stream_id = stream_id
        self.expires_ms = expires_ms
        self.on_end: Callable[[], None] | None = None
        self.head_sent = False
        self.is_remote_open = False
        # Only for a request that comes in pieces.
        self.reader: MessageReader | None = None
        self.held = 0
        """Octets that the register counts for this call."""
        self.kept = intake.octets
        """Of those, the ones that stay until it ends."""
        self.inflating: Inflating | None = None
        """Set where the client compresses its messages."""

    @property
    def is_open(self) -> bool:
        return self._register is not None

    @property
    def client(self) -> CallRegister | None:
        """The register of the connection; None once the call has ended."""
        return self._register

    @property
    def queued(self) -> int:
        register = self._register
        return 0 if register is None else register.queued(self.stream_id)

    @property
    def deadline_ms(self) -> int | None:
        return None if self.expires_ms >= NEVER_MS else self.expires_ms

    @property
    def caller(self) -> Caller:
        """Who makes the call; nobody is known any more once it has ended."""
        register = self._register
        if register is None:
            return NOBODY_KNOWN
        intake = self._intake
        caller = intake.caller
        if caller is None:
            caller = intake.caller = register.caller.showing(intake.metadata)
        return caller

    def metadata(self, name: bytes) -> bytes | None:
        return self._intake.metadata(name)

    def reply(self, message: bytes) -> None:
        """Send the one response and OK."""
        register = self._register
        if register is None:
            return
        self._register = None
        stream_id = self.stream_id
        register.calls.pop(stream_id, None)
        if self.held:
            register.hold(-self.held)
            self.held = 0
        stats = self._stats
        size = len(message)
        stats.handled[OK] += 1
        if stats.handling is not None:
            stats.handling.ended(self.expires_ms - self._intake.timeout_ms, register.caller)
        stats.sent += 1
        stats.sent_octets += size
        register.owe(size)
        head_block = self._intake.head_block
        register.connection.reply(stream_id, head_block, message, OK_BLOCK, encode_prefix(size))
        if self.is_remote_open:
            register.close_remote(stream_id)
        if not register.is_marked:
            register.mark()

    def begin_reply(self, size: int) -> None:
        """Begin a response whose parts hold ``size`` octets."""
        self._begin(size, encode_prefix(size))

    def _begin(self, size: int, prefix: bytes) -> None:
        register = self._register
        if register is None:
            return
        self.head_sent = True
        self._stats.sent += 1
        self._stats.sent_octets += size
        register.connection.send_headers(self.stream_id, self._intake.head_block)
        register.connection.send_data(self.stream_id, prefix)
        register.mark()

    def continue_reply(self, part: bytes) -> None:
        """Send the next octets of the response."""
        register = self._register
        if register is not None:
            register.owe(len(part))
            register.connection.send_data(self.stream_id, part)
            register.mark()

    def end_reply(self) -> None:
        """End the response behind its last part."""
        register = self._end(OK)
        if register is not None:
            register.connection.send_trailers(self.stream_id, OK_BLOCK)
            self._close(register)

    def send(self, message: bytes) -> None:
        raise AssertionError("send on a unary call")

    def finish(self) -> None:
        raise AssertionError("finish on a unary call")

    def fail(self, code: int, message: str) -> None:
        """End with an error status: trailers only, unless something was sent before."""
        register = self._end(code)
        if register is None:
            return
        fields = status_fields(code, message)
        if self.head_sent:
            register.connection.send_trailers(self.stream_id, fields)
        else:
            register.connection.send_headers(self.stream_id, self._intake.head + fields, True)
        self._close(register)

    def break_off(self, code: int, message: str) -> None:
        """As `fail`, by a verdict that is not the service's: it is told."""
        was_open, on_end = self.is_open, self.on_end
        self.fail(code, message)
        if was_open and on_end is not None:
            on_end()

    def cancelled(self) -> None:
        """The client reset the stream or is gone."""
        on_end = self.on_end
        if self._end(CANCELLED) is not None and on_end is not None:
            on_end()

    def drained(self) -> None:
        """Nothing of this call is queued any more."""

    def count_held(self) -> None:
        """Note what this call holds now.  Raises `StatusError` when that is too much."""
        register = self._register
        if register is None:
            return
        octets = self.held_now()
        grown = octets - self.held
        self.held = octets
        register.hold(grown)
        if grown > 0 and register.holds_too_much:
            raise StatusError(RESOURCE_EXHAUSTED, TOO_MUCH_UNFINISHED)

    def held_now(self) -> int:
        """Return the octets of memory that what came of the request takes."""
        held = self.kept
        if self.reader is not None:
            held += self.reader.held
        if self.inflating is not None:
            held += self.inflating.held
        return held

    def feed(self, data: bytes, end_stream: bool) -> None:
        """Take octets of the request.  Raises `StatusError` when the call must fail."""
        reader = self.reader
        if reader is None:
            return  # the first message is the request; grpc-go reads no further
        messages = reader.feed(data)
        if messages:
            self.reader = None
            self._took(messages[0])
        elif end_stream:
            raise StatusError(UNKNOWN, NO_REQUEST if reader.is_between_messages else TRUNCATED)

    def _took(self, message: bytes) -> None:
        """A message has arrived; a compressed one waits for its turn to be inflated."""
        inflating = self.inflating
        register = self._register
        if inflating is None:
            self._arrived(message)
        elif register is not None:
            inflating.add(message)
            register.stats.inflations.add(inflating)

    def inflated(self, message: bytes) -> None:
        """Take the next message; it was compressed."""
        self.count_held()
        self._arrived(message)

    def inflated_all(self) -> None:
        """The client sends no more; only streaming calls ask."""

    def _arrived(self, message: bytes) -> None:
        """The request is whole."""
        self._count(message)
        method = self._intake.method
        assert method is not None
        assert method.unary is not None
        reply = method.unary(self, message)
        if reply is not None:
            self.reply(reply)

    def _count(self, message: bytes) -> None:
        self._stats.received += 1
        self._stats.received_octets += len(message)

    def _end(self, code: int) -> CallRegister | None:
        """Make the call closed.  Returns None when it was."""
        register = self._register
        if register is None:
            return None
        self._register = None
        register.calls.pop(self.stream_id, None)
        if self.held:
            register.hold(-self.held)
            self.held = 0
        if self.inflating is not None:
            self.inflating.drop()
        self._stats.handled[code] += 1
        if self._stats.handling is not None:
            started_ms = self.expires_ms - self._intake.timeout_ms
            self._stats.handling.ended(started_ms, register.caller)
        self._let_go()
        return register

    def _let_go(self) -> None:
        """Forget the service, which knows this call: calls are too many to leave such circles
        to the garbage collector."""
        self.on_end = None

    def _close(self, register: CallRegister) -> None:
        if self.is_remote_open:
            register.close_remote(self.stream_id)
        register.mark()


class StreamCall(ServerCall):
    """A server-streaming or bidirectional call."""

    __slots__ = ("_was_queued", "on_drain", "on_half_close", "on_message", "requests")

    def __init__(
        self,
        register: CallRegister,
        stream_id: int,
        intake: Intake,
        stats: MethodStats,
        expires_ms: int,
    ) -> None:
        super().__init__(register, stream_id, intake, stats, expires_ms)
        self.on_message = None
        self.on_half_close = None
        self.on_drain = None
        self._was_queued = False
        self.requests: list[bytes] = []

    def reply(self, message: bytes) -> None:
        """Send one message and finish."""
        self.send(message)
        self.finish()

    def send(self, message: bytes) -> None:
        size = len(message)
        self._send([encode_prefix(size) + message], 1, size)

    def send_all(self, messages: list[bytes]) -> None:
        """Send several messages, in order, in as few frames as they fit."""
        framed = b"".join([frame_message(message) for message in messages])
        self._send([framed], len(messages), len(framed) - PREFIX_SIZE * len(messages))

    def send_parts(self, parts: list[bytes]) -> None:
        """Send one message, joined from ``parts``, without joining them."""
        size = sum(map(len, parts))
        self._send([encode_prefix(size), *parts], 1, size)

    def _send(self, framed: list[bytes], count: int, octets: int) -> None:
        register = self._register
        if register is None:
            return
        connection = register.connection
        stream_id = self.stream_id
        if not self.head_sent:
            self.head_sent = True
            connection.send_headers(stream_id, self._intake.head_block)
        self._stats.sent += count
        self._stats.sent_octets += octets
        register.owe(octets)
        for part in framed:
            connection.send_data(stream_id, part)
        # Only `drained` takes it back: what was queued may be out already, and not yet told.
        if register.backlog > 0 or connection.queued(stream_id) > 0:
            self._was_queued = True
        if not register.is_marked:
            register.mark()

    def finish(self) -> None:
        register = self._end(OK)
        if register is None:
            return
        if self.head_sent:
            register.connection.send_trailers(self.stream_id, OK_BLOCK)
        else:
            register.connection.send_headers(self.stream_id, self._intake.head + OK_FIELDS, True)
        self._close(register)

    def _let_go(self) -> None:
        self.on_end = self.on_message = self.on_half_close = self.on_drain = None

    def keep(self, octets: int) -> bool:
        register = self._register
        if register is None:
            return True
        kept = self._intake.octets + octets
        grown = kept - self.kept
        self.kept = kept
        self.held += grown
        register.hold(grown)
        return grown <= 0 or not register.holds_too_much

    def held_now(self) -> int:
        held = super().held_now()
        return held + sum([len(message) for message in self.requests]) if self.requests else held

    def feed(self, data: bytes, end_stream: bool) -> None:
        reader = self.reader
        assert reader is not None
        for message in reader.feed(data):
            self._took(message)
        if end_stream and self._register is not None:
            if not reader.is_between_messages:
                raise StatusError(INTERNAL, TRUNCATED)
            self.reader = None
            inflating = self.inflating
            if inflating is None:
                self.inflated_all()
            else:
                inflating.end()
                self._register.stats.inflations.add(inflating)

    def _arrived(self, message: bytes) -> None:
        """One more message of the client's is whole."""
        if not self._takes_one_request:
            self._deliver(message)
            return
        # It is served when its client has said that there are no more.
        self.requests.append(message)
        if len(self.requests) > 1:
            raise StatusError(INTERNAL, MANY_REQUESTS)

    def inflated_all(self) -> None:
        """The client has sent all it will, and nothing of it waits."""
        if self._takes_one_request:
            if not self.requests:
                raise StatusError(INTERNAL, NO_STREAM_REQUEST)
            self._deliver(self.requests.pop())
        if self._register is not None and self.on_half_close is not None:
            self.on_half_close()

    @property
    def _takes_one_request(self) -> bool:
        method = self._intake.method
        return method is not None and method.kind == SERVER_STREAM

    def _deliver(self, message: bytes) -> None:
        if self._register is None:
            return  # ended by the message before
        self._count(message)
        if self.on_message is not None:
            self.on_message(message)

    def drained(self) -> None:
        if self._was_queued and self._register is not None and self.queued == 0:
            self._was_queued = False
            if self.on_drain is not None:
                self.on_drain()
