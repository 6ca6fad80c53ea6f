"""One call over the network: waiting for a server, under way, over."""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from etcdtw.client.channel import Metadata, NotTakenError
from etcdtw.client.network.bounds import NetworkBounds
from etcdtw.client.network.connection import CLOSING, ServerConnection
from etcdtw.grpc.call import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    OK,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    StatusError,
)
from etcdtw.grpc.client import ClientCall

LATE: Final = "context deadline exceeded"
GONE: Final = "context canceled"
TOO_MUCH_UNTAKEN: Final = "etcdtw: the stream's messages are not taken"
TOO_MUCH_QUEUED: Final = "etcdtw: the server does not take what is sent on the stream"

WAITING: Final = 0
UNDER_WAY: Final = 1
OVER: Final = 2


class CallPlacer(Protocol):
    """The channel, as its calls see it."""

    clock: IReactorTime
    bounds: NetworkBounds

    def again(self, call: NetworkCall) -> bool: ...
    def left(self) -> None: ...
    def gave_up(self) -> None: ...
    def unreachable(self) -> NotTakenError: ...
    def too_large(self, size: int) -> StatusError: ...


class NetworkCall:
    """What unary calls and streams have in common."""

    __slots__ = (
        "_call",
        "_deadline",
        "_metadata",
        "_path",
        "_patience",
        "_placer",
        "_refusals",
        "_state",
        "_timeout_ms",
    )

    def __init__(
        self, placer: CallPlacer, path: str, metadata: Metadata, timeout_ms: int | None
    ) -> None:
        self._placer = placer
        self._path = path
        self._metadata = metadata
        self._timeout_ms = timeout_ms
        self._call: ClientCall | None = None
        self._deadline: IDelayedCall | None = None
        self._patience: IDelayedCall | None = None
        self._refusals = 0
        self._state = WAITING

    @property
    def is_waiting(self) -> bool:
        """Whether no server has it yet."""
        return self._state == WAITING

    def set_deadline(self) -> None:
        """Begin to count the time that the call may take."""
        if self._timeout_ms is not None:
            self._deadline = self._placer.clock.callLater(self._timeout_ms / 1_000, self._late)

    def wait(self) -> None:
        """There is no server yet."""
        wait_s = self._placer.bounds.connection_wait_ms / 1_000
        self._patience = self._placer.clock.callLater(wait_s, self._impatient)

    def begin(self, connection: ServerConnection) -> None:
        """Hand the call to a server that has room."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._state = UNDER_WAY
        self._start(connection)

    def refuse(self, error: StatusError) -> None:
        """End a call that was never begun."""
        self._state = OVER
        self._failed(error)

    def break_off(self, error: StatusError) -> None:
        """End the call for both sides."""
        if self._finish():
            call, self._call = self._call, None
            if call is not None:
                call.cancel()
            self._failed(error)

    def _start(self, connection: ServerConnection) -> None:
        raise NotImplementedError

    def _failed(self, error: StatusError) -> None:
        raise NotImplementedError

    def _ended_by_server(self, code: int, text: str) -> bool:
        """Return whether the call is over; False: it waits for another server."""
        call = self._call
        is_refused = call is not None and call.is_refused
        if not is_refused:
            return self._finish()
        if self._state == OVER:
            return False
        self._call = None
        self._refusals += 1
        if self._refusals > self._placer.bounds.refusals_max or not self._can_repeat():
            self._finish()
            self._failed(NotTakenError(UNAVAILABLE, text))
            return False
        self._state = WAITING
        if not self._placer.again(self):
            self._finish()
            self._failed(StatusError(CANCELLED, CLOSING))
        return False

    def _can_repeat(self) -> bool:
        """Whether all that was sent is still known."""
        return True

    def _finish(self) -> bool:
        """Note that the call is over; return whether that is new."""
        if self._state == OVER:
            return False
        if self._state == WAITING:
            self._placer.gave_up()
        self._state = OVER
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._deadline = self._patience = None
        self._placer.left()
        return True

    def _late(self) -> None:
        waits = self._state == WAITING
        kind = NotTakenError if waits else StatusError
        self.break_off(kind(DEADLINE_EXCEEDED, LATE))

    def _impatient(self) -> None:
        self.break_off(self._placer.unreachable())


class WholeCall(NetworkCall):
    """A unary call."""

    __slots__ = ("_message", "result")

    def __init__(
        self,
        placer: CallPlacer,
        path: str,
        message: bytes,
        metadata: Metadata,
        timeout_ms: int | None,
    ) -> None:
        super().__init__(placer, path, metadata, timeout_ms)
        self._message = message
        self.result: Deferred[bytes] = Deferred(self._cancelled)

    def _cancelled(self, _: Deferred[bytes]) -> None:
        if self._finish() and self._call is not None:
            call, self._call = self._call, None
            call.cancel()

    def _start(self, connection: ServerConnection) -> None:
        self._call = connection.unary(
            self._path, self._message, self._done, self._metadata, self._timeout_ms
        )

    def _done(self, response: bytes | None, code: int, text: str) -> None:
        if not self._ended_by_server(code, text):
            return
        self._call = None
        if response is not None:
            self.result.callback(response)
        else:
            self.result.errback(StatusError(code, text))

    def _failed(self, error: StatusError) -> None:
        self.result.errback(error)


class NetworkStream(NetworkCall):
    """A streaming call; implements `client.channel.Stream`."""

    __slots__ = (
        "_connection",
        "_error",
        "_has_ended",
        "_is_held",
        "_is_sent_kept",
        "_messages",
        "_sends_no_more",
        "_sent",
        "_sent_size",
        "_untaken",
        "_waiter",
    )

    def __init__(
        self, placer: CallPlacer, path: str, metadata: Metadata, timeout_ms: int | None
    ) -> None:
        super().__init__(placer, path, metadata, timeout_ms)
        self._connection: ServerConnection | None = None
        self._messages: deque[bytes] = deque()
        self._untaken = 0
        self._is_held = False
        self._sent: list[bytes] = []  # kept until a server has answered: one may refuse
        self._sent_size = 0
        self._is_sent_kept = True
        self._sends_no_more = False
        self._has_ended = False
        self._error: StatusError | None = None
        self._waiter: Deferred[bytes | None] | None = None

    def send(self, message: bytes) -> None:
        """See `client.channel.Stream`."""
        if self._state == OVER or self._sends_no_more:
            return
        bounds = self._placer.bounds
        if len(message) > bounds.request_size_max:
            self.break_off(self._placer.too_large(len(message)))
            return
        call = self._call
        if call is not None:
            call.send(message)
            self._note_sent(message)
            if call.queued > bounds.queued_size_max:
                self.break_off(StatusError(RESOURCE_EXHAUSTED, TOO_MUCH_QUEUED))
        elif self._sent_size + len(message) > bounds.queued_size_max:
            self.break_off(NotTakenError(RESOURCE_EXHAUSTED, TOO_MUCH_QUEUED))
        else:
            self._note_sent(message)

    def half_close(self) -> None:
        """See `client.channel.Stream`."""
        if self._state != OVER and not self._sends_no_more:
            self._sends_no_more = True
            if self._call is not None:
                self._call.half_close()

    def cancel(self) -> None:
        """See `client.channel.Stream`."""
        self._forget()
        self.break_off(StatusError(CANCELLED, GONE))

    def receive(self) -> Deferred[bytes | None]:
        """See `client.channel.Stream`."""
        assert self._waiter is None, "one at a time"
        if self._messages:
            return succeed(self._take())
        if self._has_ended:
            return succeed(None) if self._error is None else fail(self._error)
        self._waiter = Deferred(self._wait_no_more)
        return self._waiter

    def _wait_no_more(self, _: Deferred[bytes | None]) -> None:
        self._waiter = None

    def _note_sent(self, message: bytes) -> None:
        """Keep what would have to be sent anew."""
        if not self._is_sent_kept:
            return
        if self._sent_size + len(message) > self._placer.bounds.queued_size_max:
            self._keep_no_more()
        else:
            self._sent.append(message)
            self._sent_size += len(message)

    def _keep_no_more(self) -> None:
        self._is_sent_kept = False
        self._sent.clear()
        self._sent_size = 0

    def _can_repeat(self) -> bool:
        return self._is_sent_kept

    def _start(self, connection: ServerConnection) -> None:
        self._connection = connection
        call = self._call = connection.open(
            self._path, self._came, self._done, self._metadata, self._timeout_ms
        )
        for message in self._sent:
            call.send(message)
        if self._sends_no_more:
            call.half_close()

    def _came(self, message: bytes) -> None:
        if self._is_sent_kept:
            self._keep_no_more()
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            waiter.callback(message)
            return
        connection = self._connection
        assert connection is not None
        size = len(message)
        self._messages.append(message)
        self._untaken += size
        connection.untaken += size
        if connection.untaken > self._placer.bounds.untaken_size_max and len(self._messages) > 1:
            self._forget()
            self.break_off(StatusError(RESOURCE_EXHAUSTED, TOO_MUCH_UNTAKEN))
        elif not self._is_held and self._call is not None:
            self._is_held = True
            self._call.hold()

    def _take(self) -> bytes:
        message = self._messages.popleft()
        self._untaken -= len(message)
        if self._connection is not None:
            self._connection.untaken -= len(message)
        if self._is_held and not self._messages and self._call is not None:
            self._is_held = False
            self._call.release()
        return message

    def _done(self, code: int, text: str) -> None:
        if self._ended_by_server(code, text):
            self._call = None
            self._end(None if code == OK else StatusError(code, text))

    def _failed(self, error: StatusError) -> None:
        self._end(error)

    def _end(self, error: StatusError | None) -> None:
        self._has_ended = True
        self._error = error
        self._keep_no_more()
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        if error is None:
            waiter.callback(None)
        else:
            waiter.errback(error)

    def _forget(self) -> None:
        """Drop what was not taken."""
        if self._connection is not None:
            self._connection.untaken -= self._untaken
        self._untaken = 0
        self._messages.clear()
