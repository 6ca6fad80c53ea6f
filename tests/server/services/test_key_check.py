"""Keys are compared with the other members' before clients come.  No node, no sockets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from etcdtw.cluster.divergence import KeyHash
from etcdtw.cluster.member import Member
from etcdtw.mvcc.errors import CompactedError
from etcdtw.server.services.key_check import (
    CHECK_S,
    ROUND_S,
    ROUNDS_MAX,
    KeyCheck,
    KeysDifferError,
)

OWN = KeyHash(0xAAAA, 1, 9, 9)
OTHER = KeyHash(0xBBBB, 1, 9, 9)
SECOND = Member(member_id=2, peer_urls=())
THIRD = Member(member_id=3, peer_urls=())


class Comparing:
    """A check among members whose answers the test decides."""

    def __init__(self, answers: Mapping[int, KeyHash], *, is_wanted: bool = True) -> None:
        self.answers = dict(answers)
        self.own: Any = OWN
        self.clock = Clock()
        self.asked: list[list[int]] = []
        self.found: list[object] = []
        standing = SimpleNamespace(member_id=1, others=lambda: [SECOND, THIRD])
        hashes = SimpleNamespace(compute=lambda revision, hashed: self.own and hashed(self.own))
        self.check = KeyCheck(
            self.clock, cast(Any, standing), cast(Any, hashes), self.ask, is_wanted=is_wanted
        )

    def ask(
        self,
        members: Sequence[Member],
        revision: int,
        told: Callable[[Mapping[int, KeyHash]], None],
    ) -> None:
        ids = [one.member_id for one in members]
        self.asked.append(ids)
        told({one: self.answers[one] for one in ids if one in self.answers})

    def start(self) -> list[object]:
        started = self.check.startService()
        assert started is not None
        started.addBoth(lambda result: self.found.append(getattr(result, "value", result)))
        return self.found


def test_who_agrees_with_the_others_starts() -> None:
    rig = Comparing({2: OWN, 3: OWN})
    assert rig.start() == [None]
    assert rig.asked == [[2, 3]]


def test_who_is_contradicted_by_a_majority_does_not_start() -> None:
    (error,) = Comparing({2: OTHER, 3: OTHER}).start()
    assert isinstance(error, KeysDifferError)
    assert "1 found data inconsistency with peers" in str(error)
    assert "0000aaaa, but those of 2 0000bbbb, those of 3 0000bbbb" in str(error)


def test_who_does_not_answer_is_asked_a_few_times_and_is_no_obstacle() -> None:
    rig = Comparing({2: OWN})
    assert rig.start() == []
    rig.clock.pump([ROUND_S] * ROUNDS_MAX)
    assert rig.found == [None]
    assert rig.asked == [[2, 3]] + [[3]] * (ROUNDS_MAX - 1)


@pytest.mark.parametrize("seconds", [CHECK_S - 0.1, CHECK_S])
def test_a_member_with_very_many_keys_does_not_keep_its_clients_waiting(seconds: float) -> None:
    rig = Comparing({})
    rig.own = None  # the answer takes for ever
    rig.start()
    rig.clock.advance(seconds)
    assert rig.found == ([None] if seconds == CHECK_S else [])


def test_keys_that_cannot_be_hashed_are_not_compared() -> None:
    rig = Comparing({2: OTHER, 3: OTHER})
    rig.own = CompactedError(1, 5)
    assert rig.start() == [None]
    assert rig.asked == []


def test_with_the_gate_closed_nobody_is_asked() -> None:
    rig = Comparing({2: OTHER, 3: OTHER}, is_wanted=False)
    assert rig.check.startService() is None
    assert rig.asked == []
