"""Members whose disk bears no entry though it is not short, and disks that do not answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.node.duties.space import (
    FIRST_FACTOR,
    NEEDED_AFTER_MS,
    NEEDED_OCTETS,
    REVIEW_MS,
    ROOM_AGAIN_MS,
    ROOMY,
    SHORT_AFTER_MS,
    SLOW,
    TRICKLE_AFTER_MS,
    TRICKLE_SPARE_MIN,
    UNKNOWN_AFTER_MS,
)
from tests.support.space_rig import EXHAUSTED, TIGHT
from tests.support.space_rig import SpaceRig as Rig

LEFT = NEEDED_OCTETS + TRICKLE_SPARE_MIN


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_follower_whose_room_bears_no_entry_is_short_and_says_so(rig: Rig) -> None:
    leader = rig.leader()
    cramped, _ = rig.followers()
    duty = cramped.duties.space
    octets = 10_000
    found = TIGHT._replace(spare=octets // FIRST_FACTOR)
    rig.disks[cramped.member_id].found = found
    rig.run(0.2)
    before = rig.parts_of(cramped).raw.last_index
    for number in range(3):
        rig.must_put(leader, b"%d" % number, bytes(octets))
    rig.run(SHORT_AFTER_MS / 1000 + 1.0)
    assert rig.parts_of(cramped).raw.last_index == before
    assert rig.state(cramped) == SLOW
    assert duty.trouble() == f"the disk is short of space: {found.where}"
    rig.disks[cramped.member_id].found = found._replace(spare=found.spare + 1000)
    rig.run(ROOM_AGAIN_MS / 1000 + 0.5)
    assert rig.state(cramped) == SLOW, "not without a margin"
    rig.disks[cramped.member_id].found = found._replace(spare=3 * octets)
    rig.run(ROOM_AGAIN_MS / 1000 + 0.5)
    assert (rig.state(cramped), duty.trouble()) == (ROOMY, "")
    rig.converge()


def test_needed_members_that_are_cramped_take_what_their_last_pages_bear(rig: Rig) -> None:
    leader = rig.leader()
    octets = 10_000
    for node in rig.followers():
        rig.disks[node.member_id].found = TIGHT._replace(
            spare=octets // FIRST_FACTOR, last=TRICKLE_SPARE_MIN + 4 * octets
        )
    rig.run(0.2)
    outcome = rig.put(leader, b"k", bytes(octets))
    rig.run((SHORT_AFTER_MS + NEEDED_AFTER_MS) / 1000 + 1.5)
    assert outcome
    rig.until(lambda: any(rig.alarms()))
    rig.free(*rig.followers())
    rig.until(lambda: not any(rig.alarms()))


def test_a_needed_member_takes_an_entry_of_all_that_its_last_pages_bear(rig: Rig) -> None:
    leader = rig.leader()
    octets = 2 * TRICKLE_SPARE_MIN
    for node in rig.followers():
        rig.disks[node.member_id].found = EXHAUSTED._replace(last=octets)
    rig.run(SHORT_AFTER_MS / 1000 + 0.2)
    outcomes = [rig.put(leader, b"%d" % number, bytes(octets)) for number in range(3)]
    rig.run(NEEDED_AFTER_MS / 1000 + 2.0)
    assert all(outcomes), "one at each look, and then the alarm"
    rig.until(lambda: any(rig.alarms()))


def test_what_a_needed_member_may_take_is_left_by_a_slow_one(rig: Rig) -> None:
    leader = rig.leader()
    slow, _ = rig.followers()
    rig.short(slow, found=EXHAUSTED._replace(last=NEEDED_OCTETS + TRICKLE_SPARE_MIN))
    before = rig.parts_of(slow).raw.last_index
    rig.must_put(leader, b"k")
    rig.run(TRICKLE_AFTER_MS / 1000 + 3.0)
    assert (rig.state(slow), rig.parts_of(slow).raw.last_index) == (SLOW, before)


def test_a_member_is_short_no_longer_when_nobody_offers_what_it_cannot_take(rig: Rig) -> None:
    leader = rig.leader()
    cramped, _ = rig.followers()
    octets = 10_000
    found = TIGHT._replace(spare=octets // FIRST_FACTOR, last=LEFT + 2 * octets)
    rig.disks[cramped.member_id].found = found
    rig.run(0.2)
    rig.must_put(leader, b"k", bytes(octets))
    rig.run(SHORT_AFTER_MS / 1000 + 1.0)
    assert rig.state(cramped) == SLOW
    rig.run((TRICKLE_AFTER_MS + REVIEW_MS + ROOM_AGAIN_MS) / 1000 + 2.0)
    assert rig.parts_of(cramped).raw.last_index == leader.commit_index, "it came out of the last"
    assert rig.state(cramped) == ROOMY


def test_a_disk_that_is_not_roomy_and_cannot_be_looked_at_for_long_is_told(rig: Rig) -> None:
    follower = rig.followers()[0]
    disk, duty = rig.disks[follower.member_id], follower.duties.space
    disk.found = TIGHT
    rig.run(0.2)
    disk.error = OSError(5, "broken")
    rig.run(UNKNOWN_AFTER_MS / 1000 - 0.5)
    assert duty.trouble() == ""
    rig.run(1.0)
    assert duty.trouble() == "the free space cannot be told: [Errno 5] broken"
    disk.error = None
    rig.run(0.2)
    assert duty.trouble() == ""
