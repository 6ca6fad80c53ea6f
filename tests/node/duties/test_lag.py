"""How far a leader of a tight log goes ahead of a follower, in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.node.duties.lag import TAKEN_OCTETS_MIN, TAKEN_WITHIN_MS, WAITED_MAX_MS
from etcdtw.raft.message import MSG_APP, Message
from tests.support.space_rig import TIGHT
from tests.support.space_rig import SpaceRig as Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_leader_waits_for_a_follower_that_takes_entries_where_logs_are_small(rig: Rig) -> None:
    leader = rig.leader()
    slow, _ = rig.followers()
    rig.disks[leader.member_id].found = TIGHT._replace(spare=1 << 30, is_log_tight=True)
    octets = bytes(TAKEN_OCTETS_MIN)

    def fate(m: Message) -> list[float]:
        return [] if m.to == slow.member_id and m.type == MSG_APP and m.entries else [0.0]

    rig.run(0.2)
    rig.must_put(leader, b"first", octets)
    rig.run(1.5)
    rig.network.fate = fate
    outcomes = [rig.put(leader, b"%d" % number, octets) for number in range(10)]
    rig.run(0.2)
    assert all(outcomes)
    held = [leader.inbox.is_held]
    rig.run(TAKEN_WITHIN_MS / 1000)
    held.append(leader.inbox.is_held)
    assert held == [True, False], "one that takes nothing is not waited for"
    rig.network.fate = lambda m: [0.0]
    rig.converge()


def test_a_leader_waits_for_a_slow_follower_no_longer_than_clients_do(rig: Rig) -> None:
    leader = rig.leader()
    slow, _ = rig.followers()
    log = rig.parts_of(slow).log
    rig.disks[leader.member_id].found = TIGHT._replace(spare=1 << 30, is_log_tight=True)
    taken_s = [float("inf")]

    def fate(m: Message) -> list[float]:
        if m.to != slow.member_id or m.type != MSG_APP or not m.entries:
            return [0.0]
        now_s = rig.network.clock.seconds()
        if m.index != log.last_index() or now_s - taken_s[0] < TAKEN_WITHIN_MS / 1000 - 0.2:
            return []
        taken_s[0] = now_s
        m.entries = m.entries[:1]
        return [0.0]

    rig.run(0.2)
    rig.must_put(leader, b"first", bytes(TAKEN_OCTETS_MIN))
    rig.run(1.5)
    rig.network.fate = fate
    for number in range(30):
        rig.put(leader, b"%d" % number, bytes(TAKEN_OCTETS_MIN))
        rig.run(0.12)  # a look after each
    rig.run(TAKEN_WITHIN_MS / 1000 + 0.2)
    held = [leader.inbox.is_held]
    taken_s[0] = 0.0  # from now on it takes entries again
    for _ in range(2):
        rig.run(WAITED_MAX_MS / 2000)
        held.append(leader.inbox.is_held)
    assert held == [False, True, False]
    outcome = rig.put(leader, b"k")
    rig.run(0.2)
    assert outcome
    rig.network.fate = lambda m: [0.0]
    rig.converge()
