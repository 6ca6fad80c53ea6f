"""Health checks of a member: they read from its state, and say what is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from etcdtw.gateway.member_health import MemberHealth
from tests.support.model_state import State
from tests.support.node_rig import NodeRig


class BrokenStateError(Exception):
    pass


class BrokenState(State):
    """One whose rows cannot be read."""

    def frames(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> list[bytes]:
        raise BrokenStateError("page 7 is damaged")


def health_of(rig: NodeRig) -> MemberHealth:
    return MemberHealth(rig.node, rig.node.duties.damage, rig.node.duties.space)


def outcome(done: Deferred[None]) -> list[Any]:
    found: list[Any] = []
    done.addCallbacks(found.append, lambda failure: found.append(failure.value))
    return found


@pytest.mark.parametrize("is_linearizable", [False, True])
def test_check_passes_on_a_state_that_can_be_read(is_linearizable: bool) -> None:
    rig = NodeRig().start()
    rig.put(b"k")
    rig.run()
    found = outcome(health_of(rig).read(is_linearizable))
    rig.run()
    assert found == [None]
    assert rig.node.store.ranges_total == 1


@pytest.mark.parametrize("is_linearizable", [False, True])
def test_check_fails_with_what_the_state_says(is_linearizable: bool) -> None:
    rig = NodeRig(state=BrokenState()).start()
    found = outcome(health_of(rig).read(is_linearizable))
    rig.run()
    assert [str(error) for error in found] == ["page 7 is damaged"]


def test_linearizable_check_fails_when_the_member_stops() -> None:
    rig = NodeRig().start()
    rig.node.stop()
    found = outcome(health_of(rig).read(linearizable=True))
    assert [str(error) for error in found] == ["etcdserver: server stopped"]
