"""A call in front of another one, for whoever wants to know how it is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from etcdtw.grpc.caller import Caller


class WrappedCall:
    """Passes on to ``inner`` what a service asks of it; whoever inherits says how it is answered
    (``reply``, ``end_reply``, ``fail``), and what is told of its end (``on_end``).

    Implements the rest of `grpc.call.Call`, `HasClient` and `RepliesInParts`.
    """

    def __init__(self, inner: Any) -> None:
        """``inner``: the call that is answered, which offers all of these, too."""
        self._inner = inner
        self.on_message: Callable[[bytes], None] | None = None
        self.on_half_close: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None

    @property
    def is_open(self) -> bool:
        return bool(self._inner.is_open)

    @property
    def queued(self) -> int:
        return int(self._inner.queued)

    @property
    def deadline_ms(self) -> int | None:
        deadline_ms: int | None = self._inner.deadline_ms
        return deadline_ms

    @property
    def caller(self) -> Caller:
        caller: Caller = self._inner.caller
        return caller

    @property
    def client(self) -> Any:
        """See `grpc.call.HasClient`."""
        return self._inner.client

    def metadata(self, name: bytes) -> bytes | None:
        value: bytes | None = self._inner.metadata(name)
        return value

    def begin_reply(self, size: int) -> None:
        self._inner.begin_reply(size)

    def continue_reply(self, part: bytes) -> None:
        self._inner.continue_reply(part)

    def send(self, message: bytes) -> None:
        self._inner.send(message)

    def finish(self) -> None:
        self._inner.finish()
