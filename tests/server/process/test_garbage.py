"""When garbage is looked for: among a little that has come, in an idle moment, rarely in all."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest

from etcdtw.server.process.garbage import (
    DUE_CPU_MS,
    DUE_MS,
    DUE_OBJECTS,
    PATIENCE_MS,
    VISITED_OBJECTS_MAX,
    WHOLE_EVERY_MS,
    Collections,
    Collector,
    held_off,
)

TICK_MS = 100


class Rig:
    """A member that ticks, and what is asked of the collector."""

    def __init__(self) -> None:
        self.objects = 0
        self.cpu_ns = 0
        self.now_ms = 5_000
        self.asked: list[str] = []
        self.collections = Collections(self, lambda: self.cpu_ns, self.now_ms)

    def get_count(self) -> tuple[int, int, int]:
        return self.objects, 0, 0

    def collect(self) -> int:
        self.asked.append("collect")
        return 0

    def freeze(self) -> None:
        self.asked.append("freeze")
        self.objects = 0

    def unfreeze(self) -> None:
        self.asked.append("unfreeze")

    def tick(self, busy_ms: int = 0, after_ms: int = TICK_MS) -> list[str]:
        self.asked.clear()
        self.now_ms += after_ms
        self.cpu_ns += busy_ms * 1_000_000
        self.collections.look(self.now_ms)
        return list(self.asked)


def test_nothing_is_done_before_enough_has_come() -> None:
    rig = Rig()
    rig.objects = DUE_OBJECTS - 1
    assert rig.tick() == []
    rig.objects = DUE_OBJECTS
    assert rig.tick() == ["collect", "freeze"]
    assert rig.tick() == []


def test_a_busy_member_visits_nothing() -> None:
    rig = Rig()
    assert rig.tick(busy_ms=90) == ["freeze"]
    rig.objects = DUE_OBJECTS
    assert rig.tick(busy_ms=90) == ["freeze"]
    assert rig.tick() == []


def test_very_much_that_has_come_is_not_visited_in_an_idle_moment_either() -> None:
    rig = Rig()
    rig.objects = VISITED_OBJECTS_MAX
    assert rig.tick() == ["collect", "freeze"]
    rig.objects = VISITED_OBJECTS_MAX + 1
    assert rig.tick() == ["freeze"]


def test_what_nobody_counted_is_visited_now_and_then() -> None:
    rig = Rig()
    rig.objects = 1
    assert rig.tick(after_ms=DUE_MS - 1) == []
    assert rig.tick(after_ms=1) == ["collect", "freeze"]
    assert rig.tick(after_ms=DUE_MS - 1) == []
    assert rig.tick(busy_ms=90) == ["freeze"]
    assert rig.tick(after_ms=DUE_MS - 1) == []


def test_old_objects_that_go_do_not_hide_how_many_have_come() -> None:
    rig = Rig()
    rig.objects = 1  # as many went as came
    assert rig.tick(busy_ms=DUE_CPU_MS - 2) == []
    assert rig.tick(busy_ms=2) == ["collect", "freeze"]
    assert rig.tick(busy_ms=DUE_CPU_MS - 2) == []


def test_everything_is_visited_once_an_hour_in_an_idle_moment() -> None:
    rig = Rig()
    assert rig.tick(after_ms=WHOLE_EVERY_MS - TICK_MS) == ["collect", "freeze"]
    assert rig.tick(busy_ms=90) == ["freeze"]
    assert rig.tick() == ["unfreeze", "collect", "freeze"]
    assert rig.tick() == []


def test_a_member_that_is_never_idle_is_waited_for_a_day() -> None:
    rig = Rig()
    busy_ms = WHOLE_EVERY_MS // 2
    asked = [rig.tick(busy_ms, WHOLE_EVERY_MS) for _ in range(PATIENCE_MS // WHOLE_EVERY_MS)]
    assert asked == [["freeze"]] * len(asked)
    assert rig.tick(busy_ms, WHOLE_EVERY_MS) == ["unfreeze", "collect", "freeze"]


def test_the_interpreters_collector_is_one() -> None:
    collector: Collector = gc
    assert len(collector.get_count()) == 3


def test_the_interpreter_counts_also_while_it_collects_nothing() -> None:
    gc.disable()
    try:
        kept: list[list[int]] = [[] for _ in range(2 * DUE_OBJECTS)]
        assert gc.get_count()[0] > DUE_OBJECTS
        del kept
    finally:
        gc.enable()


@pytest.mark.parametrize("was_on", [True, False])
def test_none_is_begun_while_they_are_held_off(was_on: bool) -> None:
    switch = Switch(was_on)
    with suppress(ImportError), held_off(switch):
        assert not switch.is_on
        raise ImportError
    assert switch.is_on == was_on


class Switch:
    """As the module `gc`."""

    def __init__(self, is_on: bool) -> None:
        self.is_on = is_on

    def isenabled(self) -> bool:
        return self.is_on

    def enable(self) -> None:
        self.is_on = True

    def disable(self) -> None:
        self.is_on = False
