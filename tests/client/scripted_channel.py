"""A channel whose servers the test plays: calls are kept, and answered by hand."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from etcdtw.client.channel import Metadata
from etcdtw.client.network.retrying import Credentials, RetryingChannel
from etcdtw.grpc.call import CANCELLED, StatusError


class ScriptedCall:
    """A unary call that was made."""

    def __init__(
        self, path: str, message: bytes, metadata: Metadata, timeout_ms: int | None
    ) -> None:
        self.path = path.rpartition("/")[2]
        self.message = message
        self.metadata = tuple(metadata)
        self.timeout_ms = timeout_ms
        self.is_cancelled = False
        self.result: Deferred[bytes] = Deferred(self._cancel)

    def answer(self, message: Any) -> None:
        """Bring the answer, a message."""
        self.result.callback(message.SerializeToString())

    def fail(self, error: StatusError) -> None:
        self.result.errback(error)

    def _cancel(self, _: object) -> None:
        self.is_cancelled = True


class ScriptedStream:
    """A stream that was opened; implements `client.channel.Stream`."""

    def __init__(self, path: str, metadata: Metadata) -> None:
        self.path = path.rpartition("/")[2]
        self.metadata = tuple(metadata)
        self.sent: list[bytes] = []
        self.is_half_closed = False
        self.is_cancelled = False
        self._messages: deque[bytes] = deque()
        self._end: list[StatusError | None] = []
        self._waiter: Deferred[bytes | None] | None = None

    # What the test does.

    def push(self, message: Any) -> None:
        """Bring a message."""
        octets = message.SerializeToString()
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.callback(octets)
        else:
            self._messages.append(octets)

    def end(self, error: StatusError | None) -> None:
        """End it."""
        self._end.append(error)
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            self._outcome().chainDeferred(waiter)

    # What the client does.

    def send(self, message: bytes) -> None:
        self.sent.append(message)

    def half_close(self) -> None:
        self.is_half_closed = True

    def cancel(self) -> None:
        self.is_cancelled = True
        if not self._end:
            self.end(StatusError(CANCELLED, "context canceled"))

    def receive(self) -> Deferred[bytes | None]:
        assert self._waiter is None
        if self._messages:
            return succeed(self._messages.popleft())
        if self._end:
            return self._outcome()
        self._waiter = Deferred(self._forget)
        return self._waiter

    def _forget(self, _: object) -> None:
        self._waiter = None

    def _outcome(self) -> Deferred[bytes | None]:
        error = self._end[0]
        return succeed(None) if error is None else fail(error)


class ScriptedChannel:
    """Implements `client.channel.Channel`, and `close`."""

    def __init__(self) -> None:
        self.calls: list[ScriptedCall] = []
        self.streams: list[ScriptedStream] = []
        self.is_closed = False

    def unary(
        self,
        path: str,
        message: bytes,
        metadata: Metadata = (),
        timeout_ms: int | None = None,
    ) -> Deferred[bytes]:
        call = ScriptedCall(path, message, metadata, timeout_ms)
        self.calls.append(call)
        return call.result

    def stream(
        self, path: str, metadata: Metadata = (), timeout_ms: int | None = None
    ) -> ScriptedStream:
        stream = ScriptedStream(path, metadata)
        self.streams.append(stream)
        return stream

    def close(self) -> Deferred[None]:
        self.is_closed = True
        return succeed(None)


class ClientRig:
    """A `RetryingChannel` over a `ScriptedChannel`, on a fake clock."""

    def __init__(self, *, servers: int = 1, user: str | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(1_000)
        self.script = ScriptedChannel()
        self.channel = RetryingChannel(
            self.script,
            self.clock,
            random=lambda: 0.5,
            servers=servers,
            credentials=None if user is None else Credentials(user, "secret"),
        )

    @property
    def calls(self) -> list[ScriptedCall]:
        return self.script.calls

    @property
    def streams(self) -> list[ScriptedStream]:
        return self.script.streams
