"""Callers within a member whose services the test plays."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from etcdtw.client.loopback import Loopback
from etcdtw.client.loopback_ledger import LoopbackBounds
from etcdtw.grpc.call import Call, MethodTable, StatusError
from etcdtw.grpc.stats import MethodStats, ServerStats

PREFIX = "/test.Echo/"


class LoopbackRig:
    """Serves Echo (at once), Wait (never by itself), Raise, Crash, One, Both and Refuse."""

    def __init__(self, clock: Clock | None = None, **bounds: int) -> None:
        self.clock = clock or Clock()
        self.clock.advance(1_000)
        self.stats = ServerStats()
        self.calls: list[Any] = []
        self.heard: list[object] = []
        self.methods = MethodTable()
        self.methods.add_unary(PREFIX + "Echo", lambda call, message: message)
        self.methods.add_unary(PREFIX + "Wait", self._wait)
        self.methods.add_unary(PREFIX + "Raise", self._raise)
        self.methods.add_unary(PREFIX + "Crash", self._crash)
        self.methods.add_server_stream(PREFIX + "One", self._opened)
        self.methods.add_bidi_stream(PREFIX + "Both", self._opened)
        self.methods.add_bidi_stream(PREFIX + "Refuse", self._refuse)
        self.loopback = Loopback(self.methods, self.stats, self.clock, LoopbackBounds(**bounds))
        self.channel = self.loopback.connect()

    def unary(self, name: str, message: bytes = b"", **more: Any) -> Deferred[bytes]:
        return self.channel.unary(PREFIX + name, message, **more)

    def stream(self, name: str = "Both", **more: Any) -> Any:
        return self.channel.stream(PREFIX + name, **more)

    def counts(self, name: str) -> MethodStats:
        method = self.methods.find((PREFIX + name).encode())
        assert method is not None
        return self.stats.of(method)

    def turn(self) -> None:
        """Let those hear that are to hear."""
        self.clock.advance(0)

    @property
    def is_empty(self) -> bool:
        """Whether nothing of any call is left."""
        ledger = self.loopback.ledger
        line = self.channel._line
        return (
            not ledger.calls
            and not line.calls
            and ledger.untaken == line.unread == self.stats.unfinished_octets == 0
            and not self.clock.getDelayedCalls()
        )

    def _wait(self, call: Call, message: bytes) -> None:
        call.on_end = lambda: self.heard.append("end")
        self.calls.append(call)

    def _raise(self, call: Call, message: bytes = b"") -> bytes:
        raise StatusError(9, "no")

    def _refuse(self, call: Call) -> None:
        self._raise(call)

    def _crash(self, call: Call, message: bytes) -> bytes:
        raise ZeroDivisionError("a defect")

    def _opened(self, call: Call) -> None:
        self.calls.append(call)
        call.on_message = self.heard.append
        call.on_half_close = lambda: self.heard.append("half-close")
        call.on_end = lambda: self.heard.append("end")
        call.on_drain = lambda: self.heard.append("drain")


def outcome(answer: Deferred[Any]) -> Any:
    """Return what has come: an answer, (code, text) of a status, or None: nothing yet."""
    found: list[Any] = []
    answer.addBoth(found.append)
    if not found:
        return None
    if isinstance(found[0], Failure):
        error = found[0].value
        assert isinstance(error, StatusError), error
        return error.code, error.message
    return found[0]
