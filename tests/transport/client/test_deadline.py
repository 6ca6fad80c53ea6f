"""A deadline that is moved often, and its one timer."""

from __future__ import annotations

from twisted.internet.task import Clock

from etcdtw.transport.client.deadline import LOOK_S, Deadline


class Rig:
    def __init__(self) -> None:
        self.clock = Clock()
        self.passed = 0
        self.deadline = Deadline(self.clock, self._passed)

    def _passed(self) -> None:
        self.passed += 1

    def after(self, seconds: float) -> int:
        """Return how often it has passed when so much more time has."""
        self.clock.advance(seconds)
        return self.passed


def test_it_passes_once() -> None:
    rig = Rig()
    rig.deadline.set(5)
    assert (rig.after(4.9), rig.after(0.1), rig.after(100)) == (0, 1, 1)
    rig.deadline.set(5)
    assert rig.after(5) == 2


def test_a_later_one_moves_no_timer() -> None:
    rig = Rig()
    rig.deadline.set(5)
    timer = rig.clock.getDelayedCalls()
    rig.clock.advance(4)
    rig.deadline.set(5)
    assert rig.clock.getDelayedCalls() == timer
    assert (rig.after(4.9), rig.after(0.1)) == (0, 1)


def test_an_earlier_one_counts() -> None:
    rig = Rig()
    rig.deadline.set(50)
    rig.deadline.set(5)
    assert (rig.after(4.9), rig.after(0.1)) == (0, 1)


def test_one_that_is_lifted_passes_never_and_may_be_set_again() -> None:
    rig = Rig()
    rig.deadline.set(5)
    rig.deadline.lift()
    assert rig.after(10 * LOOK_S) == 0
    rig.deadline.set(5)
    assert (rig.after(4.9), rig.after(0.1)) == (0, 1)


def test_one_that_is_stopped_leaves_nothing() -> None:
    rig = Rig()
    rig.deadline.set(5)
    rig.deadline.stop()
    rig.deadline.stop()
    assert rig.clock.getDelayedCalls() == []
