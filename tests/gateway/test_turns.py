"""Jobs of pages take turns, a share of each iteration for all of them."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from etcdtw.gateway.turns import SHARE_S, Turns, whole


class Iterations:
    """A clock whose calls belong to the iteration after the one that asked for them."""

    def __init__(self) -> None:
        self._due: list[Callable[[], None]] = []

    def callLater(self, delay: float, called: Callable[[], None]) -> None:
        assert delay == 0
        self._due.append(called)

    def iterate(self) -> bool:
        """Let one pass; return whether anything was due in it."""
        due, self._due = self._due, []
        for called in due:
            called()
        return bool(due)


class TurnsRig:
    """Each step takes ``step_s``."""

    def __init__(self, step_s: float = SHARE_S / 4) -> None:
        self.clock = Iterations()
        self.now_s = 0.0
        self.step_s = step_s
        self.steps: list[str] = []
        self.turns = Turns(cast(IReactorTime, self.clock), seconds=lambda: self.now_s)

    def job(self, name: str, steps: int) -> Generator[None, None, str]:
        for _ in range(steps):
            self.steps.append(name)
            self.now_s += self.step_s
            yield
        return name * steps

    def iterate(self) -> str:
        """Let one iteration pass; return who had steps in it."""
        self.steps.clear()
        self.clock.iterate()
        return "".join(self.steps)


def test_a_short_job_is_done_in_the_next_iteration() -> None:
    rig = TurnsRig()
    done = rig.turns.run(rig.job("a", 2))
    assert not done.called
    assert rig.iterate() == "aa"
    assert done.result == "aa"
    assert rig.turns.waiting == 0
    assert not rig.clock.iterate()


def test_jobs_share_an_iteration_in_turns() -> None:
    rig = TurnsRig()
    rig.turns.run(rig.job("a", 9))
    rig.turns.run(rig.job("b", 3))
    assert [rig.iterate() for _ in range(4)] == ["abab", "abaa", "aaaa", ""]
    assert rig.turns.waiting == 0


def test_a_step_that_takes_long_has_an_iteration_of_its_own() -> None:
    rig = TurnsRig(SHARE_S)
    rig.turns.run(rig.job("a", 2))
    rig.turns.run(rig.job("b", 1))
    assert [rig.iterate() for _ in range(3)] == ["a", "b", "a"]


def test_what_a_job_raises_is_its_own_affair() -> None:
    rig = TurnsRig()

    def failing() -> Generator[None, None, None]:
        yield
        raise ZeroDivisionError

    failed: list[object] = []
    rig.turns.run(failing()).addErrback(lambda failure: failed.append(failure.type))
    done = rig.turns.run(rig.job("a", 1))
    rig.iterate()
    assert failed == [ZeroDivisionError]
    assert done.result == "a"


def test_a_job_that_nobody_waits_for_any_more_is_closed() -> None:
    rig = TurnsRig()
    cancelled: Deferred[object] = rig.turns.run(rig.job("a", 5))
    cancelled.addErrback(lambda failure: failure.trap(CancelledError))
    rig.turns.run(rig.job("b", 1))
    cancelled.cancel()
    assert rig.iterate() == "b"
    assert rig.turns.waiting == 0


def test_a_job_can_be_done_at_once() -> None:
    rig = TurnsRig()
    assert whole(rig.job("a", 3)) == "aaa"
    with pytest.raises(StopIteration):
        next(rig.job("a", 0))
