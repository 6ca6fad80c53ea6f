"""What a service leaves for later is a piece of work of its own."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from etcdtw.node.loop.measured_clock import MeasuredClock
from etcdtw.wire.pieces import SLICE, Pieces


def test_delayed_calls_are_measured_and_can_be_cancelled() -> None:
    clock, pieces = Clock(), Pieces()
    measured = MeasuredClock(clock, pieces)
    told: list[tuple[object, ...]] = []
    measured.callLater(1, lambda *args, **kw: told.append((*args, kw)), 1, a=2)
    cancelled = measured.callLater(1, told.append, ())
    cancelled.cancel()
    assert list(measured.getDelayedCalls()) == list(clock.getDelayedCalls())
    clock.advance(1)
    assert told == [(1, {"a": 2})]
    assert measured.seconds() == 1
    assert pieces.cpu_s[SLICE].count == 1


def test_a_call_that_fails_is_measured_too() -> None:
    clock, pieces = Clock(), Pieces()

    def fails() -> None:
        raise ValueError("it fails")

    MeasuredClock(clock, pieces).callLater(0, fails)
    with pytest.raises(ValueError, match="it fails"):
        clock.advance(0)
    assert pieces.cpu_s[SLICE].count == 1
