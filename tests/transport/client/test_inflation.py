"""Compressed requests are inflated in turns of the reactor, and a defect is one call's."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from etcdtw.grpc.inflating import DEFECT, WORK_OCTETS_MAX, InflateQueue, Inflating
from etcdtw.grpc.message import PREFIX
from etcdtw.transport.client.inflation import inflate_in_turns
from etcdtw.wire.pieces import UNMEASURED


class Call:
    """Takes what is inflated; one of none is a defect."""

    def __init__(self, queue: InflateQueue) -> None:
        self.messages: list[bytes] = []
        self.ended: list[tuple[int, str]] = []
        self._queue = queue
        self._inflating = Inflating(1 << 24, self)

    def send(self, message: bytes) -> None:
        octets = gzip.compress(message)
        self._inflating.add(PREFIX.pack(1, len(octets)) + octets)
        self._queue.add(self._inflating)

    def inflated(self, message: bytes) -> None:
        if not message:
            raise ZeroDivisionError("a defect")
        self.messages.append(message)

    def inflated_all(self) -> None:
        """Not asked for."""

    def break_off(self, code: int, message: str) -> None:
        self.ended.append((code, message))
        self._inflating.drop()


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    seen: list[LogEvent] = []
    observer = cast(ILogObserver, seen.append)
    globalLogPublisher.addObserver(observer)
    yield seen
    globalLogPublisher.removeObserver(observer)


class Turns(Clock):
    """Counts what was put off to a later turn."""

    turns = 0

    def callLater(self, *args: Any, **kwargs: Any) -> Any:
        self.turns += 1
        return super().callLater(*args, **kwargs)


@pytest.fixture
def clock() -> Turns:
    return Turns()


@pytest.fixture
def queue(clock: Clock) -> InflateQueue:
    made = InflateQueue()
    inflate_in_turns(clock, made, UNMEASURED)
    return made


def test_the_work_is_done_in_turns_of_the_reactor(clock: Turns, queue: InflateQueue) -> None:
    call = Call(queue)
    call.send(bytes(2 * WORK_OCTETS_MAX))
    assert call.messages == []
    clock.advance(0)
    assert len(call.messages) == 1
    assert clock.turns >= 2


def test_a_defect_ends_its_call_is_logged_and_the_others_go_on(
    clock: Clock, queue: InflateQueue, logged: list[LogEvent]
) -> None:
    broken, other = Call(queue), Call(queue)
    broken.send(b"")
    other.send(b"x")
    clock.pump([0, 0])
    assert broken.ended == [(DEFECT.code, DEFECT.message)]
    assert other.messages == [b"x"]
    assert [event["log_failure"].type for event in logged] == [ZeroDivisionError]
    other.send(b"y")
    clock.advance(0)
    assert other.messages == [b"x", b"y"]
    assert clock.getDelayedCalls() == []
