"""One call within a member: its service's side, and what its caller has not taken yet.

For the service a call is open until it ends; what was said before waits for the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from etcdtw.client.loopback_ledger import Line
from etcdtw.grpc.call import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    SERVER_STREAM,
    Method,
    StatusError,
)
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.grpc.message import check_prefix
from etcdtw.grpc.server_call import MANY_REQUESTS, NO_STREAM_REQUEST, TOO_MUCH_UNFINISHED
from etcdtw.grpc.stats import MethodStats

log: Final = Logger("etcdtw.client.loopback_call")

DEFECT: Final = "the call failed unexpectedly"
GONE: Final = "context canceled"
LATE: Final = "context deadline exceeded"
TOO_MUCH_UNTAKEN: Final = "etcdtw: too many octets of answers that are not taken"


def _overrun_error() -> StatusError:
    return StatusError(RESOURCE_EXHAUSTED, TOO_MUCH_UNTAKEN)


class LoopbackCall:
    """What both kinds share.  Implements `grpc.call.Call`, `KeepsOctets`, `HasClient` and
    `RepliesInParts`.

    ``deadline_ms``: on the ledger's clock.
    """

    def __init__(
        self,
        line: Line,
        method: Method,
        stats: MethodStats,
        metadata: Mapping[bytes, bytes],
        kept: int,
        timeout_ms: int | None,
    ) -> None:
        """``kept``: octets that count until the call ends.  Raises `StatusError`."""
        line.enter(self)
        self._line = line
        self._is_open = True
        self._method = method
        self._stats = stats
        self._metadata = metadata
        self._fixed = self._kept = kept
        line.hold(kept)
        self._error: StatusError | None = None
        self._timer: IDelayedCall | None = None
        self.deadline_ms: int | None = None
        self.on_message: Callable[[bytes], None] | None = None
        self.on_half_close: Callable[[], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        if timeout_ms is not None:
            clock = line.ledger.clock
            self.deadline_ms = int(clock.seconds() * 1000) + timeout_ms
            self._timer = clock.callLater(timeout_ms / 1000, self._expired)
        stats.started += 1
        self._begun_ms = 0  # only where somebody asks how long calls take
        if stats.handling is not None:
            self._begun_ms = int(line.ledger.clock.seconds() * 1000)

    # What the service uses.

    @property
    def is_open(self) -> bool:
        return self._is_open

    @property
    def client(self) -> Line | None:
        return self._line if self._is_open else None

    @property
    def queued(self) -> int:
        return self.untaken if self._is_open else 0

    @property
    def untaken(self) -> int:
        """Octets that wait for the caller, whether or not the service goes on."""
        return 0

    @property
    def caller(self) -> Caller:
        """See `grpc.call.Call`."""
        if not self._is_open:
            return NOBODY_KNOWN
        return self._line.caller.showing(self._metadata.get)

    def metadata(self, name: bytes) -> bytes | None:
        return self._metadata.get(name)

    def reply(self, message: bytes) -> None:
        if self._is_open:
            self.send(message)
            self._finish(None)

    def send(self, message: bytes) -> None:
        self._send(message, len(message))

    def begin_reply(self, size: int) -> None:
        if self._is_open:
            self._stats.sent += 1
            self._stats.sent_octets += size

    def continue_reply(self, part: bytes) -> None:
        if self._is_open:
            self._add(part, len(part))

    def end_reply(self) -> None:
        self._finish(None)

    def finish(self) -> None:
        self._finish(None)

    def fail(self, code: int, message: str) -> None:
        self._finish(StatusError(code, message))

    def keep(self, octets: int) -> bool:
        """See `grpc.call.KeepsOctets`."""
        if not self._is_open:
            return True
        grown = self._fixed + octets - self._kept
        self._kept += grown
        return self._line.hold(grown) or grown <= 0

    # What befalls a call.

    def break_off(self, error: StatusError) -> None:
        """End the call by a verdict that is not its service's: it is told."""
        on_end = self.on_end
        if self._finish(error) and on_end is not None:
            on_end()

    def overrun(self) -> None:
        """End the call: it holds too much.  The service may be about to say more: it is told
        later."""
        on_end = self.on_end
        if self._finish(_overrun_error()) and on_end is not None:
            self._line.ledger.later(on_end)

    def close(self, error: StatusError) -> None:
        """End the call for its service and its caller."""
        self.break_off(error)

    def _expired(self) -> None:
        self._timer = None
        self.break_off(StatusError(DEADLINE_EXCEEDED, LATE))

    def run(self, service: Callable[[], None]) -> None:
        """Let the service do something; what it raises ends the call."""
        try:
            service()
        except StatusError as error:
            self.break_off(error)
        except Exception:
            log.failure("a call failed unexpectedly")
            self.break_off(StatusError(INTERNAL, DEFECT))

    def received(self, message: bytes) -> None:
        """Count a request message.  Raises `StatusError` when it is too large."""
        size = len(message)
        check_prefix(0, size, b"", self._line.ledger.bounds.message_size_max)
        self._stats.received += 1
        self._stats.received_octets += size

    def _send(self, message: bytes | list[bytes], size: int) -> None:
        if self._is_open:
            self._stats.sent += 1
            self._stats.sent_octets += size
            self._add(message, size)

    def _add(self, message: bytes | list[bytes], size: int) -> None:
        """Take octets of the answer."""
        raise NotImplementedError

    def _finish(self, error: StatusError | None) -> bool:
        """Close the call for its service; return whether that is new."""
        if not self._is_open:
            return False
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._stats.handled[OK if error is None else error.code] += 1
        if self._stats.handling is not None:
            self._stats.handling.ended(self._begun_ms, self._line.caller)
        self._line.hold(-self._kept)
        self._error = error
        # The service knows this call: no circle is left for the collector.
        self.on_message = self.on_half_close = self.on_end = self.on_drain = None
        self._ended()
        return True

    def _ended(self) -> None:
        """The call is over for its service."""
        raise NotImplementedError


class WholeCall(LoopbackCall):
    """A unary call whose caller wants all of the answer at once.

    What has come of an answer in parts counts as unread.
    """

    _parts: list[bytes] | None = None
    _size = 0
    _waiter: Deferred[bytes] | None = None

    def result(self) -> Deferred[bytes]:
        """Return the answer, once it is there.  To be called once."""
        if not self._is_open:
            return self._outcome()
        self._waiter = Deferred(self._cancelled)
        return self._waiter

    def _cancelled(self, _: Deferred[bytes]) -> None:
        self._waiter = None  # it fails with CancelledError
        self.break_off(StatusError(CANCELLED, GONE))

    def _add(self, message: bytes | list[bytes], size: int) -> None:
        if self._parts is None:
            self._parts = []
        self._parts += [message] if isinstance(message, bytes) else message
        self._size += size
        self._line.unread += size

    def _ended(self) -> None:
        self._line.unread -= self._size
        self._line.leave(self)
        if self._waiter is not None:
            self._line.ledger.later(self._tell)

    def _tell(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        if self._error is not None:
            self._parts = None
            waiter.errback(self._error)
        else:
            waiter.callback(self._whole())

    def _whole(self) -> bytes:
        parts, self._parts = self._parts or [], None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _outcome(self) -> Deferred[bytes]:
        if self._error is not None:
            self._parts = None
            return fail(self._error)
        return succeed(self._whole())


class QueuedCall(LoopbackCall):
    """A call whose caller takes one message after the other: those of a stream, or the parts of
    a unary answer.

    Implements `grpc.call.SendsMany` and `SendsInParts`, too.
    """

    def __init__(
        self,
        line: Line,
        method: Method,
        stats: MethodStats,
        metadata: Mapping[bytes, bytes],
        kept: int,
        timeout_ms: int | None,
    ) -> None:
        self._messages: deque[tuple[bytes | list[bytes], int]] = deque()
        self._untaken = 0
        self._was_queued = False
        self._is_due = False  # the caller hears of something later
        self._waiter: Deferred[bytes | None] | None = None
        self._request: bytes | None = None
        self._sends_no_more = False
        super().__init__(line, method, stats, metadata, kept, timeout_ms)

    # What the service uses.

    @property
    def untaken(self) -> int:
        return self._untaken

    def send_all(self, messages: list[bytes]) -> None:
        for message in messages:
            self._send(message, len(message))

    def send_parts(self, parts: list[bytes]) -> None:
        self._send(parts, sum(map(len, parts)))

    # What the caller uses.

    def deliver(self, message: bytes) -> None:
        """Send a message to the service."""
        if self._is_open and not self._sends_no_more:
            self.run(lambda: self._deliver(message))

    def half_close(self) -> None:
        """Tell the service that no more comes."""
        if self._is_open and not self._sends_no_more:
            self._sends_no_more = True
            self.run(self._half_close)

    def receive(self) -> Deferred[bytes | None]:
        """See `client.channel.Stream`."""
        assert self._waiter is None, "one at a time"
        if self._messages:
            return succeed(self._take())
        if not self._is_open:
            return self._end()
        self._waiter = Deferred(self._wait_no_more)
        return self._waiter

    @property
    def is_spent(self) -> bool:
        """Whether it has ended well and all of it was taken."""
        return not (self._is_open or self._messages or self._error is not None)

    def cancel(self) -> None:
        """The caller wants nothing more."""
        self.close(StatusError(CANCELLED, GONE))

    def close(self, error: StatusError) -> None:
        self._forget(error)
        self.break_off(error)
        self._line.leave(self)

    def _deliver(self, message: bytes) -> None:
        if self._method.kind != SERVER_STREAM:
            self.received(message)
            if self.on_message is not None:
                self.on_message(message)
        elif self._request is not None:
            raise StatusError(INTERNAL, MANY_REQUESTS)
        else:
            # As over the network: served when its caller has said that there are no more.
            self.received(message)
            self._request = message
            if not self.keep(len(message)):
                raise StatusError(RESOURCE_EXHAUSTED, TOO_MUCH_UNFINISHED)

    def _half_close(self) -> None:
        if self._method.kind == SERVER_STREAM:
            request, self._request = self._request, None
            if request is None:
                raise StatusError(INTERNAL, NO_STREAM_REQUEST)
            self.keep(0)
            if self.on_message is not None:
                self.on_message(request)
        if self.on_half_close is not None:
            self.on_half_close()

    def _add(self, message: bytes | list[bytes], size: int) -> None:
        line = self._line
        if self._messages and line.unread + size > line.ledger.bounds.untaken_size_max:
            self.overrun()
            return
        self._messages.append((message, size))
        self._untaken += size
        self._was_queued = self._was_queued or size > 0
        line.owe(size)
        self._tell_soon()
        line.ledger.bound()

    def overrun(self) -> None:
        self._forget(_overrun_error())
        super().overrun()
        self._line.leave(self)

    def _ended(self) -> None:
        self._tell_soon()
        if not self._messages:
            self._line.leave(self)

    def _tell_soon(self) -> None:
        if self._waiter is not None and not self._is_due:
            self._is_due = True
            self._line.ledger.later(self._tell)

    def _tell(self) -> None:
        self._is_due = False
        waiter = self._waiter
        if waiter is None:
            return
        self._waiter = None
        if self._messages:
            waiter.callback(self._take())
        else:
            self._end().chainDeferred(waiter)

    def _take(self) -> bytes:
        message, size = self._messages.popleft()
        self._untaken -= size
        line = self._line
        line.owe(-size)
        if not self._is_open:
            if not self._messages:
                line.leave(self)
        elif self._was_queued and not self._untaken:
            self._was_queued = False
            line.ledger.later(self._drained)
        return message if isinstance(message, bytes) else b"".join(message)

    def _drained(self) -> None:
        if self.on_drain is not None and not self._untaken:
            self.run(self.on_drain)

    def _end(self) -> Deferred[bytes | None]:
        return succeed(None) if self._error is None else fail(self._error)

    def _wait_no_more(self, _: Deferred[bytes | None]) -> None:
        self._waiter = None

    def _forget(self, error: StatusError) -> None:
        """Drop what was not taken, and say why."""
        if self._messages and not self._is_open:
            self._error = error
        self._messages.clear()
        self._line.owe(-self._untaken)
        self._untaken = 0
