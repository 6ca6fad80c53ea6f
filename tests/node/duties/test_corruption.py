"""Members whose keys were bent by hand are found by each check, on clusters in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from etcdtw.apply.applier import FIELD_ALARM, FIELD_COMPACTION
from etcdtw.apply.errors import CorruptError
from etcdtw.cluster.divergence import KeyHash
from etcdtw.cluster.member import Member
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.errors import MvccError
from etcdtw.node.duties.corruption import (
    AGREED,
    ASKED_MAX,
    COMPACTIONS,
    CUT,
    DIFFERED,
    INCOMPLETE,
    PATIENCE_MS,
    HashesTold,
)
from etcdtw.node.node import Node
from etcdtw.storage.state.errands import ErrandError, SupersededError, TooManyErrandsError
from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_rig import ClusterRig, OpenCall

INTERVAL_S = 2.0


class CheckedRig(ClusterRig):
    """A cluster whose members compare their keys as often as it is told."""

    def __init__(self, folder: Path, count: int, *checks: str) -> None:
        super().__init__(folder, count)
        self.checks = checks
        self.asked: list[tuple[int, int]] = []
        self.is_silent: set[int] = set()
        self.held: list[HashesTold] | None = None
        for node in self.nodes:
            self.watch(node)
        self.leader()
        for number in range(3):
            self.must_put(self.leader(), b"k%d" % number)
        self.run(0.5)

    def watch(self, node: Node) -> None:
        def ask(members: Sequence[Member], revision: int, told: HashesTold) -> None:
            if self.held is not None:
                self.held.append(told)
            else:
                told(self.answers(members, revision))

        node.duties.corruption.ask = ask
        if CUT in self.checks:
            node.duties.corruption.cut_interval_ms = int(INTERVAL_S * 1000)
        if COMPACTIONS in self.checks:
            node.duties.corruption.compactions_interval_ms = int(INTERVAL_S * 1000)

    def answers(self, members: Sequence[Member], revision: int) -> Mapping[int, KeyHash]:
        found: dict[int, KeyHash] = {}
        for one in members:
            self.asked.append((one.member_id, revision))
            node = self.members[one.member_id].node
            if node is None or one.member_id in self.is_silent:
                continue
            try:
                node.hashes.compute(revision, partial(found.__setitem__, one.member_id))
            except MvccError:
                continue
        return found

    def bend(self, member_id: int, key: bytes = b"k1") -> None:
        """Flip an octet of a key's record in one member's state."""
        state = self.members[member_id].state
        place = max(place for place, row in state.revisions.items() if row[1] == key)
        is_tombstone, _, record = state.revisions[place]
        state.revisions[place] = (is_tombstone, key, record[:-1] + bytes([record[-1] ^ 1]))

    def compact(self, revision: int) -> None:
        assert self.ask_leader(FIELD_COMPACTION, pb.CompactionRequest(revision=revision)) is None

    def disarm(self, member_id: int) -> None:
        request = pb.AlarmRequest(
            action=pb.AlarmRequest.DEACTIVATE, memberID=member_id, alarm=pb.CORRUPT
        )
        assert self.ask_leader(FIELD_ALARM, request) is None

    def ask_leader(self, field: int, request: object) -> Exception | None:
        outcome: list[Applied] = []
        octets = request.SerializeToString()  # type: ignore[attr-defined]
        self.leader().propose(
            field, octets, request, OpenCall(), lambda call, applied: outcome.append(applied)
        )
        self.until(lambda: outcome)
        self.run(0.3)
        return outcome[0].error

    @property
    def accused(self) -> set[tuple[int, ...]]:
        """Whom the members hold for corrupt, each for itself."""
        return {tuple(sorted(node.alarms.corrupt_members)) for node in self.nodes}

    def result(self, check: str, result: str) -> int:
        return sum(node.duties.corruption.results[check, result] for node in self.nodes)


@pytest.mark.parametrize("check", [CUT, COMPACTIONS])
@pytest.mark.parametrize("count", [3, 5])
def test_bent_follower_is_found_and_stands_aside(tmp_path: Path, check: str, count: int) -> None:
    rig = CheckedRig(tmp_path, count, check)
    leader = rig.leader()
    bent = next(node for node in rig.nodes if node is not leader)
    rig.bend(bent.member_id)
    rig.compact(3)
    rig.until(lambda: rig.accused == {(bent.member_id,)}, 2 * INTERVAL_S)
    assert [node.is_quarantined for node in rig.nodes] == [node is bent for node in rig.nodes]
    outcome = rig.put(leader, b"more")
    rig.until(lambda: outcome)
    assert type(outcome[0].error) is CorruptError
    assert rig.result(check, DIFFERED) == 1


@pytest.mark.parametrize("check", [CUT, COMPACTIONS])
def test_bent_leader_accuses_itself_and_lets_another_lead(tmp_path: Path, check: str) -> None:
    rig = CheckedRig(tmp_path, 3, check)
    bent = rig.leader()
    rig.bend(bent.member_id)
    rig.compact(3)
    rig.until(lambda: rig.accused == {(bent.member_id,)}, 2 * INTERVAL_S)
    rig.until(lambda: rig.leader() is not bent)


@pytest.mark.parametrize("check", [CUT, COMPACTIONS])
def test_equal_members_are_left_alone(tmp_path: Path, check: str) -> None:
    rig = CheckedRig(tmp_path, 3, check)
    rig.compact(3)
    rig.run(2.5 * INTERVAL_S)
    assert rig.accused == {()}
    assert rig.result(check, AGREED) == (2 if check == CUT else 1)
    assert rig.result(check, DIFFERED) == rig.result(check, INCOMPLETE) == 0


@pytest.mark.parametrize("check", [CUT, COMPACTIONS])
def test_without_a_majority_nobody_is_named_and_nothing_is_written(
    tmp_path: Path, check: str
) -> None:
    rig = CheckedRig(tmp_path, 2, check)
    rig.bend(rig.leader().member_id)
    rig.compact(3)
    rig.until(lambda: rig.accused == {(0,)}, 2 * INTERVAL_S)
    assert not any(node.is_quarantined for node in rig.nodes)
    outcome = rig.put(rig.leader(), b"more")
    rig.until(lambda: outcome)
    assert type(outcome[0].error) is CorruptError


def test_alarm_is_raised_once_and_again_when_it_was_cleared_in_vain(tmp_path: Path) -> None:
    rig = CheckedRig(tmp_path, 3, COMPACTIONS)
    leader = rig.leader()
    bent = next(node for node in rig.nodes if node is not leader)
    rig.bend(bent.member_id)
    rig.compact(3)
    rig.until(lambda: rig.accused == {(bent.member_id,)}, 2 * INTERVAL_S)
    applied = leader.applied_index
    rig.run(2 * INTERVAL_S + 0.2)
    assert leader.applied_index == applied, "what is known is not proposed again"
    rig.disarm(bent.member_id)
    rig.until(lambda: rig.accused == {(bent.member_id,)}, 2 * INTERVAL_S)


def test_quarantine_ends_with_the_alarm(tmp_path: Path) -> None:
    rig = CheckedRig(tmp_path, 3, COMPACTIONS)
    bent = next(node for node in rig.nodes if not node.is_leader)
    rig.bend(bent.member_id)
    rig.compact(3)
    rig.until(lambda: bent.is_quarantined, 2 * INTERVAL_S)
    for node in rig.nodes:
        node.duties.corruption.compactions_interval_ms = 0
    rig.disarm(bent.member_id)
    assert not bent.is_quarantined
    rig.must_put(rig.leader(), b"more")


def test_silent_member_is_asked_a_few_times_for_each_compaction(tmp_path: Path) -> None:
    rig = CheckedRig(tmp_path, 3, COMPACTIONS)
    silent = next(node.member_id for node in rig.nodes if not node.is_leader)
    rig.is_silent.add(silent)
    rig.compact(3)
    rig.run((ASKED_MAX + 2) * INTERVAL_S)
    assert rig.asked.count((silent, 3)) == ASKED_MAX
    assert rig.result(COMPACTIONS, INCOMPLETE) == ASKED_MAX
    rig.is_silent.clear()
    rig.compact(4)
    rig.run(1.5 * INTERVAL_S)
    assert rig.result(COMPACTIONS, AGREED) == 1
    assert rig.accused == {()}


def test_member_that_lacks_the_hash_of_a_compaction_is_compared_at_an_older_one(
    tmp_path: Path,
) -> None:
    rig = CheckedRig(tmp_path, 3, COMPACTIONS)
    bent = next(node for node in rig.nodes if not node.is_leader)
    rig.bend(bent.member_id)
    rig.compact(3)
    rig.compact(4)
    del bent.storage.compaction_hashes._known[4]
    rig.until(lambda: rig.accused == {(bent.member_id,)}, 2 * INTERVAL_S)


def test_late_answers_and_lost_leaders_accuse_nobody(tmp_path: Path) -> None:
    rig = CheckedRig(tmp_path, 3, CUT)
    leader = rig.leader()
    rig.held = []
    rig.run(INTERVAL_S + 0.2)
    assert len(rig.held) == 1
    rig.run(PATIENCE_MS / 1000 - 1)
    assert len(rig.held) == 1, "one check at a time"
    rig.run(INTERVAL_S + 1)
    assert len(rig.held) == 2, "an answer that never comes is not waited for"
    wrong = {node.member_id: KeyHash(1, -1, 4, 4) for node in rig.nodes if node is not leader}
    rig.held[0](wrong)
    rig.run(0.5)
    target = next(node for node in rig.nodes if node is not leader)
    rig.parts_of(leader).raw.transfer_leader(target.member_id)
    leader.wakeup.wake()
    rig.until(lambda: rig.leader() is target)
    rig.held[1](wrong)
    rig.run(0.5)
    assert rig.accused == {()}


def test_only_the_leader_asks_and_only_when_it_is_told_to(tmp_path: Path) -> None:
    rig = CheckedRig(tmp_path, 3)
    rig.compact(3)
    rig.run(3 * INTERVAL_S)
    assert rig.asked == []
    for node in rig.nodes:
        if not node.is_leader:
            node.duties.corruption.cut_interval_ms = 100
    rig.run(3 * INTERVAL_S)
    assert rig.asked == []


def test_hash_at_a_compaction_is_the_one_that_it_found(tmp_path: Path) -> None:
    rig = CheckedRig(tmp_path, 1)
    rig.compact(3)
    rig.compact(4)
    node = rig.leader()
    found: list[KeyHash | ErrandError | MvccError] = []
    for revision in (3, 4, 0):
        node.hashes.compute(revision, found.append)
    hashes = [one for one in found if isinstance(one, KeyHash)]
    assert [(one.compact_revision, one.hash_revision) for one in hashes] == [
        (-1, 3), (3, 4), (4, 4),
    ]  # fmt: skip


def test_cut_without_the_leaders_own_hash_is_left_out_and_the_next_one_is_not(
    tmp_path: Path,
) -> None:
    rig = CheckedRig(tmp_path, 3, CUT)
    state = rig.members[rig.leader().member_id].state
    state.hash_error = SupersededError()
    rig.run(INTERVAL_S + 0.2)
    assert (rig.asked, rig.result(CUT, INCOMPLETE)) == ([], 1)
    state.hash_error = None
    rig.held = []
    rig.run(INTERVAL_S)
    state.hash_error = TooManyErrandsError()
    rig.held.pop()({})  # the second hash of this round is refused
    rig.run(0.2)
    assert rig.result(CUT, INCOMPLETE) == 2
    state.hash_error = rig.held = None
    rig.run(INTERVAL_S)
    assert rig.result(CUT, AGREED) == 1
    assert rig.accused == {()}
