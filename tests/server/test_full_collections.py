"""When everything is looked at for garbage: if much has come, in an idle moment, and rarely."""

from __future__ import annotations

from etcdtw.server.full_collections import DUE_COLLECTIONS, PATIENCE_MS, FullCollections

TICK_MS = 100


class Rig:
    def __init__(self) -> None:
        self.middle = 0
        self.cpu_ns = 0
        self.now_ms = 0
        self.takes_ms = 1
        self.collected_ms: list[int] = []
        self.collections = FullCollections(
            lambda: (0, 0, self.middle), self._collect, lambda: self.cpu_ns
        )

    def _collect(self) -> None:
        self.collected_ms.append(self.now_ms)
        self.cpu_ns += self.takes_ms * 1_000_000

    def tick(self, busy_ms: int = 0) -> int:
        self.now_ms += TICK_MS
        self.cpu_ns += busy_ms * 1_000_000
        self.collections.look(self.now_ms)
        return len(self.collected_ms)


def test_nothing_is_collected_before_enough_has_come() -> None:
    rig = Rig()
    rig.middle = DUE_COLLECTIONS - 1
    assert rig.tick() == 0
    rig.middle = DUE_COLLECTIONS
    assert rig.tick() == 1


def test_a_busy_member_is_waited_for_but_not_for_ever() -> None:
    rig = Rig()
    rig.middle = DUE_COLLECTIONS
    for _ in range(PATIENCE_MS // TICK_MS):
        assert rig.tick(busy_ms=90) == 0
    assert rig.tick(busy_ms=90) == 1


def test_after_a_long_collection_there_is_a_long_rest() -> None:
    rig = Rig()
    rig.middle = DUE_COLLECTIONS
    rig.takes_ms = 30
    assert rig.tick() == 1
    while rig.tick() == 1:
        pass
    first_ms, second_ms = rig.collected_ms
    assert second_ms - first_ms == 30_000
