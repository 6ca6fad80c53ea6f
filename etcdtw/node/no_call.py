"""The call of what a member asks of itself, or for another member: nobody is to be answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.grpc.caller import NOBODY_KNOWN


class NoCall:
    """Implements `grpc.call.Call`; keeps nothing that it is told.  All share `NO_CALL`."""

    is_open = False
    queued = 0
    deadline_ms: int | None = None
    caller = NOBODY_KNOWN

    def __init__(self) -> None:
        self.on_message: Callable[[bytes], None] | None = None
        self.on_half_close: Callable[[], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None

    def metadata(self, name: bytes) -> bytes | None:
        return None

    def reply(self, message: bytes) -> None:
        pass

    def send(self, message: bytes) -> None:
        pass

    def finish(self) -> None:
        pass

    def fail(self, code: int, message: str) -> None:
        pass


NO_CALL: Final = NoCall()
