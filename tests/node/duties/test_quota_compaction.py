"""History that goes by itself when the quota is nearly used: how old, by whom, and when not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import pytest

from etcdtw.cluster.member import Member
from etcdtw.node.duties.history.quota_compaction import (
    PATIENCE_MS,
    SAMPLES_PER_AGE,
    ProgramsTold,
    RevisionTimes,
    nobody_says,
)
from etcdtw.node.duties.quota import QuotaRules
from tests.support.cluster_rig import ClusterRig

AGE_MS: Final = 12_000
LIMIT: Final = 1 << 40  # far from it: requests are not asked, only the fifths matter
RULES: Final = QuotaRules(limit_bytes=LIMIT, compact_after_ms=AGE_MS)


class Rig(ClusterRig):
    """A cluster whose states are as large as a test says, and whose members say what they are."""

    def __init__(self, folder: Path, count: int = 3, rules: QuotaRules = RULES) -> None:
        self.asked: list[list[int]] = []
        self.strangers: set[int] = set()
        self.late: list[Callable[[], None]] | None = None
        super().__init__(folder, count, quota=rules)
        self.leader()

    def ask_programs(self, members: Sequence[Member], told: ProgramsTold) -> None:
        self.asked.append([one.member_id for one in members])
        ours = [one.member_id for one in members if one.member_id not in self.strangers]
        if self.late is None:
            told(ours)
        else:
            self.late.append(lambda: told(ours))

    def fill(self, part: float) -> None:
        for member in self.members.values():
            member.state.size_in_use = int(LIMIT * part)

    def write(self, seconds: float) -> None:
        """Let a revision be written ten times a second."""
        for _ in range(int(seconds * 10)):
            self.put(self.leader(), b"k")
            self.run(0.1)

    def compacted(self) -> list[int]:
        return [node.store.compact_revision for node in self.nodes]


def one_compacted(rig: Rig) -> int:
    """Return what all members have compacted alike."""
    (revision,) = set(rig.compacted())
    return revision


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_the_newest_revision_that_is_old_enough_is_known_and_one_older_is_kept() -> None:
    times = RevisionTimes(600)
    assert times.interval_ms == 600 // SAMPLES_PER_AGE
    found = []
    for now_ms in range(0, 1300, 5):
        times.note(now_ms, 1 + now_ms)
        found.append((now_ms, times.old_revision(now_ms)))
    assert dict(found)[599 // 5 * 5] == 0
    assert [revision for now_ms, revision in found if now_ms in (600, 605, 610, 1290)] == [
        1,
        1,
        11,
        691,
    ]


def test_samples_are_bounded() -> None:
    times = RevisionTimes(600)
    for now_ms in range(0, 10_000):
        times.note(now_ms, now_ms)
    assert len(times._samples) <= SAMPLES_PER_AGE + 1


def test_at_four_fifths_the_leader_compacts_what_is_older_than_an_hour(rig: Rig) -> None:
    rig.write(AGE_MS / 1000)
    rig.fill(0.79)
    rig.write(3)
    assert one_compacted(rig) == -1
    rig.fill(0.81)
    rig.write(0.5)
    assert 0 < one_compacted(rig) <= 45
    rig.write(3)
    # And goes on as history grows older.
    assert 45 < one_compacted(rig) < rig.leader().store.revision - 100
    totals = [node.duties.quota_compaction.done_total for node in rig.nodes]
    assert sum(totals) == max(totals) > 0


def test_without_an_hour_of_samples_nothing_is_compacted(rig: Rig) -> None:
    rig.fill(0.99)
    rig.write(AGE_MS / 1000 - 2)
    assert (one_compacted(rig), rig.asked) == (-1, [])


def test_a_new_leader_knows_how_old_its_history_is(rig: Rig) -> None:
    rig.write(AGE_MS / 1000 + 1)
    rig.crash(rig.leader().member_id)
    rig.run(3)
    rig.fill(0.9)
    rig.run(1)
    assert one_compacted(rig) > 0


def test_a_member_that_was_started_again_has_no_samples(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1)
    rig.write(AGE_MS / 1000 + 1)
    rig.crash(1)
    rig.start(1)
    rig.fill(0.9)
    rig.run(AGE_MS / 1000 - 2)
    assert one_compacted(rig) == -1
    rig.run(4)
    assert one_compacted(rig) > 0


def test_never_while_a_real_member_is_there_or_one_that_does_not_say_what_it_is(rig: Rig) -> None:
    rig.strangers = {node.member_id for node in rig.nodes if node is not rig.leader()}
    real = max(rig.strangers)
    rig.write(AGE_MS / 1000 + 1)
    rig.fill(0.9)
    rig.write(5)
    assert one_compacted(rig) == -1
    rig.strangers = {real}
    rig.write(1)
    assert one_compacted(rig) == -1
    rig.strangers = set()
    rig.write(1)
    assert one_compacted(rig) > 0
    # Who has said so once is not asked again.
    assert (len(rig.asked[0]), rig.asked[-1]) == (2, [real])


def test_an_answer_that_comes_when_another_leads_compacts_nothing(rig: Rig) -> None:
    rig.late = []
    rig.write(AGE_MS / 1000 + 1)
    rig.fill(0.9)
    rig.run(1)
    assert len(rig.late) == 1
    old = rig.leader().member_id
    rig.network.partition([old], [one for one in rig.members if one != old])
    rig.run(5)
    rig.fill(0.1)
    rig.late.pop(0)()
    rig.network.heal()
    rig.run(3)
    assert one_compacted(rig) == -1


def test_an_answer_that_never_comes_is_asked_for_again(rig: Rig) -> None:
    rig.late = []
    rig.write(AGE_MS / 1000 + 1)
    rig.fill(0.9)
    rig.run(PATIENCE_MS / 1000 - 1)
    assert len(rig.asked) == 1
    rig.run(2)
    assert len(rig.asked) == 2
    rig.late[0]()
    rig.run(1)
    assert one_compacted(rig) == -1
    rig.late[1]()
    rig.run(1)
    assert one_compacted(rig) > 0


@pytest.mark.parametrize(
    "rules",
    [QuotaRules(limit_bytes=LIMIT, compact_after_ms=0), QuotaRules(compact_after_ms=AGE_MS)],
)
def test_nothing_is_compacted_where_the_flag_says_never_or_there_is_no_quota(
    tmp_path: Path, rules: QuotaRules
) -> None:
    rig = Rig(tmp_path, 1, rules)
    rig.fill(0.99)
    rig.write(AGE_MS / 1000 + 3)
    assert one_compacted(rig) == -1


def test_a_member_without_peers_hears_of_nobody() -> None:
    told: list[list[int]] = []
    nobody_says((), lambda ours: told.append([*ours]))
    assert told == [[]]
