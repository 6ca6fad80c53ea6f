"""A call that remembers what a service did with it, and a client that may stop reading."""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.grpc.caller import NOBODY_KNOWN


class RecordedCall:
    """Implements `grpc.call.Call`.  While ``is_slow`` all that is sent stays queued."""

    def __init__(self, **metadata: str) -> None:
        self.on_message: Callable[[bytes], None] | None = None
        self.on_half_close: Callable[[], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        self.sent: list[bytes] = []
        self.replies: list[bytes] = []
        self.status: tuple[int, str] | None = None
        """(code, text) once the call has ended; OK is (0, "")."""
        self.is_slow = False
        self.queued = 0
        self.deadline_ms: int | None = None
        self.caller = NOBODY_KNOWN
        self._metadata = metadata

    @property
    def is_open(self) -> bool:
        return self.status is None

    def metadata(self, name: bytes) -> bytes | None:
        value = self._metadata.get(name.decode())
        return None if value is None else value.encode()

    def reply(self, message: bytes) -> None:
        if self.is_open:
            self.replies.append(message)
            self.status = (0, "")

    def send(self, message: bytes) -> None:
        if self.is_open:
            self.sent.append(message)
            if self.is_slow:
                self.queued += len(message)

    def finish(self) -> None:
        if self.is_open:
            self.status = (0, "")

    def fail(self, code: int, message: str) -> None:
        if self.is_open:
            self.status = (code, message)

    # The client.

    def receive(self, message: bytes) -> None:
        """Let a request message arrive."""
        if self.is_open:
            assert self.on_message is not None
            self.on_message(message)

    def half_close(self) -> None:
        if self.is_open and self.on_half_close is not None:
            self.on_half_close()

    def drain(self) -> None:
        """Let the client read everything."""
        self.is_slow = False
        had_queued, self.queued = self.queued, 0
        if self.is_open and had_queued and self.on_drain is not None:
            self.on_drain()

    def cancel(self) -> None:
        """Let the client go away."""
        if self.is_open:
            self.status = (1, "context canceled")
            if self.on_end is not None:
                self.on_end()

    def take(self) -> list[bytes]:
        """Return and forget what was sent."""
        sent, self.sent = self.sent, []
        return sent


class BatchingCall(RecordedCall):
    """A `RecordedCall` that takes several messages at a time."""

    def __init__(self, **metadata: str) -> None:
        super().__init__(**metadata)
        self.batches: list[int] = []

    def send_all(self, messages: list[bytes]) -> None:
        self.batches.append(len(messages))
        for message in messages:
            self.send(message)
