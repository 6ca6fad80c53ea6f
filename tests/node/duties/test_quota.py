"""The space quota: what it counts, when it raises the alarm, and when it stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.errors import RequestTooLargeError
from etcdtw.mvcc.applied import Applied
from etcdtw.node.duties.quota import ALARM_EVERY_MS, COMPACTION_GRACE_MS, TIGHT_BYTES, SpaceQuota
from etcdtw.wire import etcdserverpb as pb
from tests.support.model_backend import ModelBackend
from tests.support.recorded_call import RecordedCall

LIMIT = 1000


class FakeState:
    size_in_use = 0
    pending = (0, 0)
    is_compacting = False


class FakeNode:
    member_id = 7
    now_ms = 50_000

    def __init__(self) -> None:
        self.alarms = Alarms(ModelBackend())
        self.proposed: list[Any] = []

    def ask_alarm(self, action: int, member_id: int, alarm: int) -> None:
        self.proposed.append((action, member_id, alarm))


class Rig:
    def __init__(self, limit: int | None = LIMIT) -> None:
        self.node = FakeNode()
        self.state = FakeState()
        self.outcomes: list[Applied] = []
        node = self.node
        self.quota = SpaceQuota(7, node.alarms, node, self.state, limit, lambda: node.now_ms)

    def hold(self, cost: int) -> Callable[[Any, Applied], None]:
        return self.quota.hold(cost, lambda call, applied: self.outcomes.append(applied))

    @property
    def alarms_asked(self) -> int:
        return len(self.node.proposed)


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
    assert rig.node.proposed[0] == (pb.AlarmRequest.ACTIVATE, 7, pb.NOSPACE)
    rig.node.alarms.activate(7, pb.NOSPACE)
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
