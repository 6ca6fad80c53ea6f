"""When garbage is looked for: among what has come, in an idle moment, and rarely in everything."""

from __future__ import annotations

import gc

from etcdtw.server.full_collections import (
    DUE_COLLECTIONS,
    PATIENCE_MS,
    WHOLE_EVERY_MS,
    Collector,
    FullCollections,
)

TICK_MS = 100


class Rig:
    """A member that ticks, and what is asked of the collector."""

    def __init__(self) -> None:
        self.middle = 0
        self.cpu_ns = 0
        self.now_ms = 5_000
        self.asked: list[str] = []
        self.collections = FullCollections(self, lambda: self.cpu_ns, self.now_ms)

    def get_count(self) -> tuple[int, int, int]:
        return 0, 0, self.middle

    def collect(self) -> int:
        self.asked.append("collect")
        return 0

    def freeze(self) -> None:
        self.asked.append("freeze")
        self.middle = 0

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
    rig.middle = DUE_COLLECTIONS - 1
    assert rig.tick() == []
    rig.middle = DUE_COLLECTIONS
    assert rig.tick() == ["collect", "freeze"]
    assert rig.tick() == []


def test_a_busy_member_visits_nothing() -> None:
    rig = Rig()
    assert rig.tick(busy_ms=90) == ["freeze"]
    rig.middle = DUE_COLLECTIONS
    assert rig.tick(busy_ms=90) == ["freeze"]
    assert rig.tick() == []


def test_everything_is_visited_once_an_hour_in_an_idle_moment() -> None:
    rig = Rig()
    assert rig.tick(after_ms=WHOLE_EVERY_MS - TICK_MS) == []
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
