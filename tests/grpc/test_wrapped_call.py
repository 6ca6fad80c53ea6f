"""`WrappedCall`: a call in front of another one."""

from __future__ import annotations

from etcdtw.grpc.caller import Caller
from etcdtw.grpc.wrapped_call import WrappedCall


class Inner:
    """The call behind: says what it is told to, and keeps what it hears."""

    is_open = True
    queued = 7
    deadline_ms = 9
    caller = Caller("127.0.0.1", "ann")
    client = object()

    def __init__(self) -> None:
        self.heard: list[object] = []

    def metadata(self, name: bytes) -> bytes:
        return name + b"!"

    def begin_reply(self, size: int) -> None:
        self.heard.append(size)

    def continue_reply(self, part: bytes) -> None:
        self.heard.append(part)

    def send(self, message: bytes) -> None:
        self.heard.append(message)

    def finish(self) -> None:
        self.heard.append("finish")


def test_what_a_service_asks_is_what_the_call_behind_says() -> None:
    inner = Inner()
    call = WrappedCall(inner)
    assert (call.is_open, call.queued, call.deadline_ms) == (True, 7, 9)
    assert (call.caller, call.client) == (inner.caller, inner.client)
    assert call.metadata(b"token") == b"token!"


def test_what_is_answered_goes_to_the_call_behind_in_its_order() -> None:
    inner = Inner()
    call = WrappedCall(inner)
    call.begin_reply(3)
    call.continue_reply(b"abc")
    call.send(b"d")
    call.finish()
    assert inner.heard == [3, b"abc", b"d", "finish"]
