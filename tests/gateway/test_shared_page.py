"""A page that is asked for much: rendered as often as is granted, never older than promised."""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.gateway.shared_page import BURST, PER_S, SUDDEN, SUDDEN_PER_S, SharedPage


class Rig:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.renderings = 0
        self.later: list[Callable[[], None]] = []
        self.page = SharedPage(self._render, lambda: self.now_s, self.later.append)

    def ask(self) -> bytes:
        """Ask in an iteration of its own."""
        body = self.page.body()
        while self.later:
            self.later.pop()()
        return body

    def _render(self) -> bytes:
        self.renderings += 1
        return b"%d at %.3f" % (self.renderings, self.now_s)


def test_who_asks_now_and_then_sees_the_moment() -> None:
    rig = Rig()
    for i in range(100):
        rig.now_s += 1 / PER_S
        assert rig.ask() == b"%d at %.3f" % (i + 1, rig.now_s)


def test_those_who_ask_in_one_iteration_share_a_rendering() -> None:
    rig = Rig()
    assert len({rig.page.body() for _ in range(1000)}) == 1
    assert len(rig.later) == 1
    rig.ask()
    rig.ask()
    assert rig.renderings == 2


def test_many_in_short_order_share_a_rendering() -> None:
    rig = Rig()
    bodies = [rig.ask() for _ in range(1000)]
    assert rig.renderings == len(set(bodies)) == SUDDEN
    for i in range(BURST - SUDDEN):
        rig.now_s += 1.01 / SUDDEN_PER_S
        bodies += [rig.ask() for _ in range(10)]
        assert rig.renderings == SUDDEN + i + 1
    assert rig.renderings == len(set(bodies)) == BURST
    assert rig.ask() is bodies[-1]
    rig.now_s += 1 / PER_S
    assert rig.ask() != bodies[-1]
    assert rig.renderings == BURST + 1
    rig.now_s += 2 * BURST / PER_S
    for _ in range(100):
        rig.ask()
    assert rig.renderings == BURST + 1 + SUDDEN
