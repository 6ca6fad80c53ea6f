"""When a change of the membership may be proposed."""

from __future__ import annotations

import pytest

from etcdtw.cluster.member import Member
from etcdtw.cluster.reconfiguration import (
    CONNECTED_MIN_MS,
    can_add_voter,
    can_promote,
    can_remove_voter,
    learner_is_ready,
    quorum,
    quorum_is_connected,
    quorum_survives_removal,
)

NOW_MS = 100_000


def voters(count: int, started: int) -> list[Member]:
    return [
        Member(member_id=i, peer_urls=(), name=f"m{i}" if i <= started else "")
        for i in range(1, count + 1)
    ]


def connected(*member_ids: int, for_ms: int = CONNECTED_MIN_MS + 1) -> dict[int, int]:
    return dict.fromkeys(member_ids, NOW_MS - for_ms)


def test_quorum_is_a_majority() -> None:
    assert [quorum(count) for count in range(1, 8)] == [1, 2, 2, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("count", "started", "may"),
    [
        (1, 1, True),  # the exception: one becomes two
        (1, 0, False),
        (2, 1, False),
        (2, 2, True),
        (3, 2, False),
        (3, 3, True),
        (4, 3, True),
        (4, 2, False),
        (5, 3, False),
        (5, 4, True),
    ],
)
def test_voter_is_added_when_enough_have_started(count: int, started: int, may: bool) -> None:
    assert can_add_voter(voters(count, started)) is may


@pytest.mark.parametrize(
    ("count", "started", "removed", "may"),
    [
        (1, 1, 1, False),
        (2, 2, 1, True),
        (2, 1, 2, True),  # the one that never started
        (2, 1, 1, False),
        (3, 2, 3, True),
        (3, 2, 1, False),
        (3, 3, 1, True),
        (5, 3, 1, False),
        (1, 1, 9, True),  # nobody's id: refused where it is applied
    ],
)
def test_voter_is_removed_when_enough_of_the_others_have_started(
    count: int, started: int, removed: int, may: bool
) -> None:
    assert can_remove_voter(voters(count, started), removed) is may


@pytest.mark.parametrize(
    ("count", "started", "may"),
    [(1, 1, True), (1, 0, False), (2, 1, True), (3, 1, False), (3, 2, True)],
)
def test_promoted_learner_counts_as_started(count: int, started: int, may: bool) -> None:
    assert can_promote(voters(count, started)) is may


@pytest.mark.parametrize(
    ("count", "others", "healthy"),
    [
        (1, [], True),
        (2, [2], True),
        (2, [], False),
        (3, [2, 3], True),
        (3, [2], False),
        (5, [2, 3, 4], True),  # one is down, and a quorum of six is still there (PR 21667)
        (5, [2, 3], False),
    ],
)
def test_addition_needs_a_healthy_quorum_of_one_more(
    count: int, others: list[int], healthy: bool
) -> None:
    since = connected(*others).get
    assert quorum_is_connected(voters(count, count), 1, since, NOW_MS) is healthy


def test_connection_counts_after_five_seconds() -> None:
    both = voters(2, 2)
    for for_ms, healthy in ((CONNECTED_MIN_MS, False), (CONNECTED_MIN_MS + 1, True)):
        since = connected(2, for_ms=for_ms).get
        assert quorum_is_connected(both, 1, since, NOW_MS) is healthy


@pytest.mark.parametrize(
    ("count", "others", "removed", "survives"),
    [
        (3, [2, 3], 3, True),
        (3, [2, 3], 1, True),  # itself
        (3, [2], 3, True),  # the one that is down
        (3, [2], 2, False),
        (3, [2], 1, False),
        (2, [2], 2, True),
        (2, [], 2, True),
        (5, [2, 3], 4, True),
        (5, [2, 3], 2, False),
        (5, [2, 3, 4], 2, True),
    ],
)
def test_removal_leaves_a_healthy_quorum(
    count: int, others: list[int], removed: int, survives: bool
) -> None:
    since = connected(*others).get
    assert quorum_survives_removal(voters(count, count), removed, 1, since, NOW_MS) is survives


def test_member_connected_a_moment_ago_is_neither_down_nor_healthy() -> None:
    since = connected(2, 3, for_ms=1).get
    assert not quorum_survives_removal(voters(3, 3), 3, 1, since, NOW_MS)


def test_learner_is_ready_with_nine_tenths() -> None:
    assert learner_is_ready(90, 100)
    assert not learner_is_ready(89, 100)
    assert learner_is_ready(0, 0)
    assert not learner_is_ready(0, 1)
