"""The space quota: what it counts, when it raises the alarm, and when it clears it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.errors import NoSpaceError, RequestTooLargeError
from etcdtw.mvcc.applied import Applied
from etcdtw.node.duties.quota import (
    ALARM_EVERY_MS,
    CLEAR_EVERY_MS,
    COMPACTION_GRACE_MS,
    TIGHT_BYTES,
    QuotaRules,
    SpaceQuota,
)
from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_rig import ClusterRig, others
from tests.support.model_backend import ModelBackend
from tests.support.recorded_call import RecordedCall

LIMIT: Final = 1000
MEMBER_ID: Final = 7
RAISE: Final = (pb.AlarmRequest.ACTIVATE, MEMBER_ID, pb.NOSPACE)
CLEAR: Final = (pb.AlarmRequest.DEACTIVATE, MEMBER_ID, pb.NOSPACE)


class FakeState:
    size_in_use = 0
    size_allocated = 0
    pending = (0, 0)
    is_compacting = False


class FakeNode:
    now_ms = 50_000

    def __init__(self) -> None:
        self.alarms = Alarms(ModelBackend())
        self.proposed: list[tuple[int, int, int]] = []

    def ask_alarm(self, action: int, member_id: int, alarm: int) -> None:
        self.proposed.append((action, member_id, alarm))


class Rig:
    def __init__(self, limit: int | None = LIMIT, **rules: bool) -> None:
        self.node = FakeNode()
        self.state = FakeState()
        self.outcomes: list[Applied] = []
        node = self.node
        self.quota = SpaceQuota(
            MEMBER_ID,
            node.alarms,
            node,
            self.state,
            QuotaRules(limit_bytes=limit, **rules),
            lambda: node.now_ms,
        )

    def hold(self, cost: int) -> Callable[[Any, Applied], None]:
        return self.quota.hold(cost, lambda call, applied: self.outcomes.append(applied))

    @property
    def alarms_asked(self) -> int:
        return len(self.node.proposed)

    def look(self, wait_ms: int = CLEAR_EVERY_MS) -> list[tuple[int, int, int]]:
        """Let a tick come, and return what was asked at it."""
        count = len(self.node.proposed)
        self.node.now_ms += wait_ms
        self.quota.look(self.node.now_ms)
        return self.node.proposed[count:]


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize(("cost", "is_admitted"), [(399, True), (400, False)])
def test_what_reaches_the_limit_is_refused(rig: Rig, cost: int, is_admitted: bool) -> None:
    rig.state.size_in_use = 600
    assert rig.quota.admit(cost) is is_admitted
    assert rig.alarms_asked == (not is_admitted)


def test_room_that_is_taken_or_freed_is_seen_at_once(rig: Rig) -> None:
    assert rig.quota.admit(500)
    rig.state.size_in_use = 900
    assert not rig.quota.admit(500)
    rig.state.size_in_use = 100
    assert rig.quota.admit(500)


def test_what_is_applied_and_not_committed_counts(rig: Rig) -> None:
    rig.state.size_in_use, rig.state.pending = 300, (400, 1)
    assert rig.quota.admit(299)
    assert not rig.quota.admit(300)


def test_a_disk_that_is_short_refuses_what_costs_without_the_alarm() -> None:
    for rig in (Rig(), Rig(None)):
        was_tight = rig.quota.is_tight
        rig.quota.block(True)
        rig.quota.look(0)
        assert (rig.quota.is_tight, rig.quota.admit(1), rig.quota.admit(0)) == (True, False, True)
        assert rig.alarms_asked == 0
        rig.quota.block(False)
        assert (rig.quota.is_tight, rig.quota.admit(1)) == (was_tight, True)


def test_asking_takes_nothing(rig: Rig) -> None:
    for _ in range(100):
        assert rig.quota.admit(600)
    assert rig.alarms_asked == 0


def test_what_is_proposed_counts_until_its_outcome_is_known(rig: Rig) -> None:
    done = rig.hold(600)
    assert not rig.quota.admit(400)
    applied = Applied(2, b"", None)
    done(RecordedCall(), applied)
    assert rig.outcomes == [applied]
    assert rig.quota.admit(400)


def test_what_is_refused_behind_the_quota_gives_its_room_back(rig: Rig) -> None:
    for _ in range(100):
        assert rig.quota.admit(600)
        rig.hold(600)(RecordedCall(), Applied(1, b"", RequestTooLargeError()))
    assert rig.alarms_asked == 0


def test_what_costs_nothing_passes_a_full_quota(rig: Rig) -> None:
    rig.state.size_in_use = 5000
    assert rig.quota.admit(0)
    assert rig.alarms_asked == 0


def test_the_alarm_is_asked_for_again_only_when_it_has_not_come(rig: Rig) -> None:
    rig.state.size_in_use = 5000
    for wait_ms in (0, ALARM_EVERY_MS - 1):
        assert not rig.quota.admit(1)
        rig.node.now_ms += wait_ms
    assert rig.alarms_asked == 1
    rig.node.now_ms += 1
    assert not rig.quota.admit(1)
    assert rig.alarms_asked == 2
    assert rig.node.proposed[0] == RAISE
    rig.node.alarms.activate(MEMBER_ID, pb.NOSPACE)
    rig.node.now_ms += ALARM_EVERY_MS
    assert not rig.quota.admit(1)
    assert rig.alarms_asked == 2


def test_a_compaction_under_way_keeps_the_alarm_away_for_a_bounded_time(rig: Rig) -> None:
    rig.state.size_in_use = 5000
    rig.state.is_compacting = True
    for wait_ms in (COMPACTION_GRACE_MS - 1, 1):
        assert not rig.quota.admit(1)
        assert rig.alarms_asked == 0
        rig.node.now_ms += wait_ms
    assert not rig.quota.admit(1)
    assert rig.alarms_asked == 1


def test_a_compaction_that_made_no_room_lets_the_alarm_be_raised(rig: Rig) -> None:
    rig.state.size_in_use = 5000
    rig.state.is_compacting = True
    assert not rig.quota.admit(1)
    rig.state.is_compacting = False
    assert not rig.quota.admit(1)
    assert rig.alarms_asked == 1


def test_requests_ask_only_where_a_tick_found_little_room() -> None:
    rig = Rig(TIGHT_BYTES + 100)
    assert not rig.quota.is_tight
    for size, is_tight in ((99, False), (100, True), (99, False)):
        rig.state.size_in_use = size
        rig.quota.look(0)
        assert rig.quota.is_tight is is_tight


def test_without_a_limit_nothing_is_asked_or_measured() -> None:
    rig = Rig(None)
    rig.state.size_in_use = 1 << 60
    rig.quota.look(0)
    assert not rig.quota.is_tight
    assert rig.quota.admit(1 << 60)


def test_etcds_measure_counts_the_file_and_not_what_is_free_in_it() -> None:
    rig = Rig(counts_allocated=True)
    rig.state.size_allocated, rig.state.size_in_use = 600, 100
    assert rig.quota.admit(399)
    assert not rig.quota.admit(400)
    rig.state.pending = (499, 1)  # fits into the file as it is
    assert rig.quota.admit(399)
    rig.state.pending = (501, 1)
    assert not rig.quota.admit(399)


def test_what_others_admitted_raises_the_alarm_once_it_has_passed_the_limit(rig: Rig) -> None:
    for size, asked in ((LIMIT - 1, []), (LIMIT, [RAISE]), (LIMIT, []), (LIMIT + 1, [RAISE])):
        rig.state.size_in_use = size
        assert rig.look() == asked
    # Nothing has grown since: whoever disarms by hand to delete is left alone.
    rig.state.size_in_use = LIMIT
    assert rig.look() == []


def test_growth_under_a_compaction_raises_the_alarm_only_when_that_takes_long(rig: Rig) -> None:
    rig.state.is_compacting = True
    for wait_ms, asked in ((0, []), (COMPACTION_GRACE_MS - 1, []), (1, [RAISE])):
        rig.state.size_in_use += LIMIT
        assert rig.look(wait_ms) == asked


@pytest.mark.parametrize(("size", "asked"), [(LIMIT * 19 // 20, [CLEAR]), (951, [])])
def test_the_alarm_is_cleared_once_a_twentieth_of_the_quota_is_free(
    rig: Rig, size: int, asked: list[tuple[int, int, int]]
) -> None:
    rig.node.alarms.activate(MEMBER_ID, pb.NOSPACE)
    rig.state.size_in_use = size
    assert rig.look() == asked
    assert rig.quota.cleared_total == len(asked)


def test_what_is_applied_or_admitted_is_not_free(rig: Rig) -> None:
    rig.node.alarms.activate(MEMBER_ID, pb.NOSPACE)
    rig.state.size_in_use, rig.state.pending = 500, (250, 1)
    done = rig.hold(201)
    assert rig.look() == []
    done(RecordedCall(), Applied(2, b"", None))
    assert rig.look() == [CLEAR]


def test_the_alarm_is_cleared_every_ten_seconds_at_the_most(rig: Rig) -> None:
    rig.node.alarms.activate(MEMBER_ID, pb.NOSPACE)
    waits_ms = (CLEAR_EVERY_MS - 1, 1, CLEAR_EVERY_MS - 1, 1)
    assert [rig.look(wait_ms) for wait_ms in waits_ms] == [[], [CLEAR], [], [CLEAR]]


def test_only_the_own_alarm_of_that_kind_is_cleared(rig: Rig) -> None:
    rig.node.alarms.activate(MEMBER_ID + 1, pb.NOSPACE)
    rig.node.alarms.activate(MEMBER_ID, pb.CORRUPT)
    assert rig.look() == []


def test_the_alarm_stays_where_the_flag_says_so() -> None:
    rig = Rig(disarms=False)
    rig.node.alarms.activate(MEMBER_ID, pb.NOSPACE)
    assert rig.look() == []


def test_the_alarm_of_a_disk_that_is_short_is_left_to_whoever_looks_at_disks(rig: Rig) -> None:
    rig.node.alarms.activate(MEMBER_ID, pb.NOSPACE)
    rig.quota.block(True)
    assert rig.look() == []
    rig.quota.block(False)
    assert rig.look() == [CLEAR]


def test_without_a_limit_an_alarm_from_before_is_cleared() -> None:
    rig = Rig(None)
    rig.node.alarms.activate(MEMBER_ID, pb.NOSPACE)
    assert rig.look() == [CLEAR]


@pytest.mark.parametrize(("limit", "is_so"), [(1000, True), (1001, False), (None, False)])
def test_the_quota_is_nearly_used_at_four_fifths_in_use(limit: int | None, is_so: bool) -> None:
    rig = Rig(limit, counts_allocated=True)
    rig.state.size_allocated, rig.state.size_in_use, rig.state.pending = 5000, 500, (300, 1)
    assert rig.quota.is_nearly_used() is is_so


class Cluster(ClusterRig):
    """Three members with the same quota, each of which holds what a test says."""

    def alarms(self) -> list[list[tuple[int, int]]]:
        return [node.alarms.active() for node in self.nodes]


def test_each_member_raises_and_clears_its_own_alarm_whoever_admitted_the_writes(
    tmp_path: Path,
) -> None:
    rig = Cluster(tmp_path, 3, quota=QuotaRules(limit_bytes=LIMIT))
    full = others(rig, rig.leader())[0].member_id
    rig.members[full].state.size_in_use = LIMIT
    rig.run(0.5)
    assert rig.alarms() == [[(full, pb.NOSPACE)]] * 3
    refused = rig.put(rig.leader(), b"k")
    rig.run(CLEAR_EVERY_MS / 1000)
    assert type(refused[0].error) is NoSpaceError
    assert rig.alarms() == [[(full, pb.NOSPACE)]] * 3
    rig.members[full].state.size_in_use = LIMIT // 2
    rig.run(CLEAR_EVERY_MS / 1000)
    assert rig.alarms() == [[]] * 3
    rig.must_put(rig.leader(), b"k")


def test_members_come_and_go_while_there_is_no_space(tmp_path: Path) -> None:
    rig = Cluster(tmp_path, 3, quota=QuotaRules(limit_bytes=LIMIT))
    rig.leader()
    for member in rig.members.values():
        member.state.size_in_use = LIMIT
    rig.run(0.5)
    assert [len(active) for active in rig.alarms()] == [3] * 3
    rig.add(4, is_learner=True)
    assert len(rig.leader().members.all()) == 4
    assert rig.remove(4) is None
    assert len(rig.leader().members.all()) == 3
