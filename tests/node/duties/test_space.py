"""Members whose disks run full, in one process: who leads on, who takes what, who says what."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.apply.applier import FIELD_COMPACTION, FIELD_DELETE_RANGE
from etcdtw.apply.errors import NoSpaceError
from etcdtw.mvcc.applied import Applied
from etcdtw.node.duties.compaction import SHORT_ENTRIES, SILENT_MS
from etcdtw.node.duties.space import (
    ENTRY_COST,
    GIVING_UP,
    KEPT_OCTETS_MAX,
    LARGEST_MIN,
    LAST_OCTETS_MAX,
    NEEDED,
    NEEDED_AFTER_MS,
    OWN_OCTETS_MIN,
    REVIEW_MS,
    ROOM_AGAIN_MS,
    ROOMY,
    SHORT_AFTER_MS,
    SLOW,
    SLOW_PART,
    SLOW_SPARE_MIN,
    TRICKLE_AFTER_MS,
    TRICKLE_SPARE_MIN,
)
from etcdtw.node.node import Node
from etcdtw.raft.entry import Entry, Snapshot
from etcdtw.raft.message import MSG_APP, MSG_PROP, MSG_SNAP, MSG_TIMEOUT_NOW, Message
from etcdtw.storage.disk.room import ROOMY as FOUND_ROOMY
from etcdtw.storage.disk.room import RoomFound
from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_rig import OpenCall
from tests.support.space_rig import EXHAUSTED, SHORT, SPARE, TIGHT, offered
from tests.support.space_rig import SpaceRig as Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


# A follower.


def test_a_short_follower_takes_no_entries_while_the_others_go_on(rig: Rig) -> None:
    short, other = rig.followers()
    rig.short(short)
    before = rig.parts_of(short).raw.last_index
    for number in range(10):
        rig.must_put(rig.leader(), b"%d" % number)
        rig.run(0.1)
    assert rig.state(short) == SLOW
    assert rig.parts_of(short).raw.last_index == before
    assert other.applied_index > before
    assert rig.alarms() == [[], [], []]
    assert short.leader_id == rig.leader().member_id, "it still follows"
    rig.free(short)
    assert rig.state(short) == ROOMY
    rig.converge()


def test_a_short_follower_refuses_growth_at_once_and_is_not_ready(rig: Rig) -> None:
    short, _ = rig.followers()
    duty = short.duties.space
    assert duty.trouble() == ""
    rig.short(short)
    assert rig.is_blocked(short)
    assert duty.trouble() == f"the disk is short of space: {SHORT.where}"
    assert duty.shortages_total == 1
    rig.free(short)
    assert not rig.is_blocked(short)
    assert duty.trouble() == ""
    assert short.peers.door is None


def test_two_short_followers_are_needed_and_say_so(rig: Rig) -> None:
    leader = rig.leader()
    first, second = rig.followers()
    rig.short(first, second)
    outcome = rig.put(leader, b"k")
    rig.run(NEEDED_AFTER_MS / 1000 - 0.3)
    assert outcome == []
    rig.until(lambda: outcome)
    assert outcome[0].error is None, "the reserve is for this"
    rig.until(lambda: all(rig.alarms()))
    assert NEEDED in (rig.state(first), rig.state(second))
    raised = rig.alarms()[0]
    assert set(raised) <= {first.member_id, second.member_id}
    refused = rig.put(leader, b"l")
    rig.until(lambda: refused)
    assert isinstance(refused[0].error, NoSpaceError)

    rig.free(first, second)
    rig.until(lambda: not any(rig.alarms()))
    rig.must_put(leader, b"m")
    rig.converge()


def test_the_alarm_goes_when_the_others_have_room_though_this_one_has_none(rig: Rig) -> None:
    leader = rig.leader()
    first, second = rig.followers()
    rig.short(first, second)
    rig.put(leader, b"k")
    rig.until(lambda: all(rig.alarms()))
    rig.free(second)
    taking = [leader, second]
    rig.until(
        lambda: not any(node.alarms.active(pb.NOSPACE) for node in taking), 3 * REVIEW_MS / 1000
    )
    rig.must_put(leader, b"l")
    rig.run(REVIEW_MS / 1000)
    assert rig.state(first) == SLOW


def test_a_follower_that_lags_notices_that_it_is_needed_after_all(rig: Rig) -> None:
    leader = rig.leader()
    first, second = rig.followers()
    rig.short(first)
    rig.must_put(leader, b"k")
    rig.run(1.0)
    rig.crash(second.member_id)
    outcome = rig.put(leader, b"l")
    rig.until(lambda: outcome)
    assert outcome[0].error is None
    assert rig.state(first) == NEEDED


def test_a_slow_follower_takes_what_the_others_have_committed_and_leaves_some_room(
    rig: Rig,
) -> None:
    leader = rig.leader()
    slow, _ = rig.followers()
    rig.short(slow, found=SHORT._replace(spare=TRICKLE_SPARE_MIN + 1000))
    before = rig.parts_of(slow).raw.last_index
    for number in range(10):
        rig.must_put(leader, b"%d" % number)
    rig.run(TRICKLE_AFTER_MS / 1000 - 1.0)
    assert rig.parts_of(slow).raw.last_index == before
    rig.run(5.0)
    assert rig.parts_of(slow).raw.last_index == leader.commit_index
    rig.disks[slow.member_id].found = SHORT._replace(spare=TRICKLE_SPARE_MIN)
    rig.run(0.2)
    rig.must_put(leader, b"more")
    rig.run(5.0)
    assert rig.parts_of(slow).raw.last_index == leader.commit_index - 1
    assert (rig.state(slow), any(rig.alarms())) == (SLOW, False)


def test_a_slow_follower_takes_a_committed_entry_that_is_larger_than_its_budget(rig: Rig) -> None:
    leader = rig.leader()
    slow, _ = rig.followers()
    some = SLOW_SPARE_MIN // 8
    rig.short(slow, found=SHORT._replace(spare=SLOW_SPARE_MIN + SLOW_PART * some))
    for number in range(3):
        rig.must_put(leader, b"%d" % number, bytes(2 * some))
    rig.run(TRICKLE_AFTER_MS / 1000 + 3.0)
    assert rig.parts_of(slow).raw.last_index == leader.commit_index
    assert rig.state(slow) == SLOW


def test_a_message_is_cut_to_what_may_be_taken_of_it(rig: Rig) -> None:
    follower = rig.followers()[0]
    rig.disks[follower.member_id].found = TIGHT._replace(spare=3000)
    rig.run(0.2)
    door = follower.peers.door
    assert door is not None
    m = offered(follower, 700)
    m.entries = [Entry(m.entries[0].term, m.entries[0].index + i, 0, bytes(700)) for i in range(20)]
    assert door.takes(m)
    assert [entry.index for entry in m.entries] == [follower.commit_index + 1 + i for i in range(3)]


def test_the_first_entry_of_a_message_may_be_larger_than_the_budget(rig: Rig) -> None:
    follower = rig.followers()[0]
    rig.disks[follower.member_id].found = TIGHT._replace(spare=3000)
    rig.run(0.2)
    door = follower.peers.door
    assert door is not None
    m = offered(follower, 5000)
    m.entries.append(Entry(m.entries[0].term, m.entries[0].index + 1, 0, bytes(5000)))
    assert door.takes(m)
    assert [len(entry.data) for entry in m.entries] == [5000]


def test_an_exhausted_follower_takes_nothing_though_it_is_needed(rig: Rig) -> None:
    leader = rig.leader()
    followers = rig.followers()
    rig.short(*followers, found=EXHAUSTED)
    before = [rig.parts_of(node).raw.last_index for node in followers]
    outcome = rig.put(leader, b"k")
    rig.run(5)
    assert outcome == []
    assert [rig.parts_of(node).raw.last_index for node in followers] == before
    rig.free(*followers)
    rig.until(lambda: outcome)


@pytest.mark.parametrize("is_held", [True, False], ids=["held", "of an earlier term"])
def test_entries_that_are_not_written_use_up_nothing(rig: Rig, is_held: bool) -> None:
    first, second = rig.followers()
    rig.must_put(rig.leader(), b"k")
    rig.short(first, second)
    rig.put(rig.leader(), b"l")
    rig.until(lambda: all(rig.alarms()))
    needed = first if rig.state(first) == NEEDED else second
    rig.disks[needed.member_id].found = EXHAUSTED
    rig.meet(needed, LAST_OCTETS_MAX // 2)
    log, duty = rig.parts_of(needed).log, needed.duties.space
    last = log.last_index()
    entries = log.entries(last, last + 1, 1) if is_held else offered(needed, 1000).entries
    term = needed.term if is_held else needed.term - 1
    for _ in range(LAST_OCTETS_MAX // ENTRY_COST):
        again = offered(needed, 0, last)
        again.term, again.entries = term, entries
        assert duty.takes(again)
    assert duty.takes(offered(needed, LAST_OCTETS_MAX // 2))


def test_entries_are_paid_for_from_what_the_last_look_found(rig: Rig) -> None:
    follower = rig.followers()[0]
    rig.short(follower, found=TIGHT)
    door = follower.peers.door
    assert door is not None
    rig.meet(follower, 2 * SPARE - 300)
    assert door.takes(offered(follower, SPARE // 2))
    assert not door.takes(offered(follower, SPARE // 2))
    assert door.takes(Message(MSG_APP, to=follower.member_id, from_id=99)), "it has no entries"
    rig.run(0.2)
    assert not door.takes(offered(follower, 2 * SPARE))
    assert door.takes(offered(follower, 2 * SPARE - 300)), "the first may be larger"
    assert not door.takes(offered(follower, 1))
    rig.run(0.2)
    assert door.takes(offered(follower, SPARE // 2))


def test_an_entry_larger_than_all_before_waits_for_a_look_that_knows_of_it(rig: Rig) -> None:
    leader, follower = rig.leader(), rig.followers()[0]
    rig.short(follower, leader, found=TIGHT)
    door = follower.peers.door
    assert door is not None
    assert not door.takes(offered(follower, LARGEST_MIN + 1))
    assert door.takes(offered(follower, LARGEST_MIN))
    rig.run(0.2)
    assert rig.disks[follower.member_id].largest == LARGEST_MIN + 1
    assert door.takes(offered(follower, LARGEST_MIN + 1))
    outcomes = [rig.put(leader, key, bytes(LARGEST_MIN)) for key in (b"k", b"l")]
    rig.until(lambda: all(outcomes))
    assert rig.disks[leader.member_id].largest > LARGEST_MIN
    assert rig.disks[leader.member_id].largest == leader.inbox.largest_waiting
    rig.free(follower, leader)
    assert rig.disks[leader.member_id].largest == rig.disks[follower.member_id].largest
    assert leader.inbox.largest_waiting == 0


@pytest.mark.parametrize(("found", "is_taken"), [(TIGHT, True), (SHORT, False)])
def test_a_short_member_takes_neither_the_leadership_nor_a_snapshot(
    rig: Rig, found: RoomFound, is_taken: bool
) -> None:
    follower = rig.followers()[0]
    rig.short(follower, found=found)
    door = follower.peers.door
    assert door is not None
    for kind in (MSG_TIMEOUT_NOW, MSG_SNAP):
        m = Message(kind, to=follower.member_id, from_id=99, snapshot=Snapshot(5, 1))
        assert door.takes(m) is is_taken
    if is_taken:
        follower.peers.snapshot_path(5)
    else:
        with pytest.raises(OSError, match="No space left"):
            follower.peers.snapshot_path(5)


def test_the_disk_that_cannot_be_looked_at_changes_nothing(rig: Rig) -> None:
    follower = rig.followers()[0]
    rig.short(follower)
    rig.disks[follower.member_id].error = OSError(5, "broken")
    rig.disks[follower.member_id].found = FOUND_ROOMY
    rig.run(2.0)
    assert rig.state(follower) == SLOW


def test_want_of_room_for_a_moment_is_no_shortage(rig: Rig) -> None:
    leader = rig.leader()
    rig.disks[leader.member_id].found = SHORT
    outcome = rig.put(leader, b"k")
    rig.run(SHORT_AFTER_MS / 1000 - 0.1)
    assert (rig.state(leader), leader.inbox.is_held) == (ROOMY, True)
    rig.disks[leader.member_id].found = TIGHT
    rig.until(lambda: outcome, 0.3)
    assert outcome[0].error is None
    assert leader.is_leader


def test_room_for_a_moment_is_no_room(rig: Rig) -> None:
    follower = rig.followers()[0]
    rig.short(follower)
    rig.disks[follower.member_id].found = FOUND_ROOMY
    rig.run(ROOM_AGAIN_MS / 1000 - 0.2)
    rig.short(follower)
    rig.disks[follower.member_id].found = FOUND_ROOMY
    rig.run(ROOM_AGAIN_MS / 1000 - 0.2)
    assert rig.state(follower) == SLOW


def test_a_log_that_is_short_lets_go_of_entries_early(rig: Rig) -> None:
    leader = rig.leader()
    follower = rig.followers()[0]
    for number in range(2 * SHORT_ENTRIES + 10):
        rig.must_put(leader, b"%d" % number)
    rig.run(2.0)
    assert rig.parts_of(follower).log.first_index() == 1
    rig.short(follower, found=SHORT._replace(is_log_short=True))
    rig.run(1.0)
    assert rig.parts_of(follower).log.first_index() > SHORT_ENTRIES


def test_a_short_follower_takes_a_little_while_its_reserve_is_large(rig: Rig) -> None:
    follower = rig.followers()[0]
    some = SLOW_SPARE_MIN // 2
    rig.short(follower, found=SHORT._replace(spare=SLOW_SPARE_MIN + SLOW_PART * some))
    door = follower.peers.door
    assert door is not None
    rig.meet(follower, some)
    assert door.takes(offered(follower, some - 300))
    assert not door.takes(offered(follower, 1))
    rig.must_put(rig.leader(), b"k")
    rig.run(0.5)
    assert rig.state(follower) == SLOW
    rig.converge()


def test_a_leader_whose_log_is_short_keeps_what_a_follower_lacks_that_answers(rig: Rig) -> None:
    leader = rig.leader()
    slow, _ = rig.followers()
    rig.short(slow, found=EXHAUSTED)
    lacked = rig.parts_of(slow).raw.last_index
    rig.disks[leader.member_id].found = TIGHT._replace(is_log_short=True)
    for number in range(2 * SHORT_ENTRIES + 10):
        rig.must_put(leader, b"%d" % number)
    rig.run(1.0)
    assert rig.parts_of(leader).log.first_index() <= lacked
    rig.crash(slow.member_id)
    rig.run(2 * SILENT_MS / 1000)
    assert rig.parts_of(leader).log.first_index() > lacked


def test_a_follower_that_was_short_needs_no_snapshot_whoever_leads_by_then(tmp_path: Path) -> None:
    rig = Rig(tmp_path, snapshot_count=10, catchup_entries=5)
    leader = rig.leader()
    slow, other = rig.followers()
    rig.short(slow)
    for number in range(40):
        rig.must_put(leader, b"%d" % number)
    rig.parts_of(leader).raw.transfer_leader(other.member_id)
    rig.until(lambda: rig.leader() is other)
    for number in range(40):
        rig.must_put(other, b"%d" % number)
    rig.run(2 * SILENT_MS / 1000)
    rig.free(slow)
    rig.converge()
    assert [node.snapshots.sent_total for node in rig.nodes] == [0, 0, 0]


# The leader.


def test_a_short_leader_hands_over_and_no_proposal_is_lost(rig: Rig) -> None:
    leader = rig.leader()
    rig.disks[leader.member_id].found = SHORT
    outcomes = []
    for number in range(20):
        outcomes.append(rig.put(rig.nodes[number % 3], b"%d" % number))
        rig.run(0.05)
    rig.until(lambda: rig.leader() is not leader)
    rig.until(lambda: all(outcomes[n] for n in range(20) if rig.nodes[n % 3] is not leader))
    for number, outcome in enumerate(outcomes):
        assert all(applied.error is None for applied in outcome), number
    assert rig.state(leader) == SLOW
    assert rig.alarms() == [[], [], []]
    rig.free(leader)
    rig.until(lambda: all(outcomes))
    rig.converge()


def test_a_short_leader_passes_over_a_short_successor(rig: Rig) -> None:
    leader = rig.leader()
    short, roomy = rig.followers()
    rig.short(short)
    rig.short(leader)
    rig.until(lambda: roomy.is_leader)
    rig.run(0.2)
    assert (rig.state(leader), rig.state(short)) == (SLOW, SLOW)


def test_a_short_leader_whom_nobody_relieves_raises_the_alarm(rig: Rig) -> None:
    leader = rig.leader()
    rig.short(*rig.nodes)
    rig.until(lambda: all(rig.alarms()))
    deletion = proposed(rig, rig.leader(), FIELD_DELETE_RANGE, pb.DeleteRangeRequest(key=b"k"))
    compaction = proposed(rig, rig.leader(), FIELD_COMPACTION, pb.CompactionRequest(revision=1))
    rig.until(lambda: deletion and compaction)
    assert deletion[0].error is None, "what makes room passes"
    rig.free(*rig.nodes)
    rig.until(lambda: not any(rig.alarms()))
    rig.must_put(rig.leader(), b"k")
    rig.converge()
    assert leader.member_id in rig.disks


def test_growth_that_waits_for_a_relief_in_vain_is_told_why(rig: Rig) -> None:
    leader = rig.leader()
    rig.short(*rig.followers())
    rig.disks[leader.member_id].found = SHORT
    rig.until(lambda: rig.state(leader) == GIVING_UP)
    outcome = rig.put(leader, b"k")
    rig.until(lambda: outcome)
    assert isinstance(outcome[0].error, NoSpaceError)


def test_a_lone_member_raises_the_alarm_at_once_and_recovers(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1)
    lone = rig.leader()
    rig.short(lone)
    rig.until(lambda: all(rig.alarms()), 0.5)
    assert rig.state(lone) == NEEDED
    rig.free(lone)
    rig.until(lambda: not any(rig.alarms()), 0.5)
    rig.must_put(lone, b"k")


def test_an_exhausted_leader_holds_proposals_until_there_is_room(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1)
    lone = rig.leader()
    rig.disks[lone.member_id].found = EXHAUSTED._replace(is_short=False)
    rig.run(0.1)
    outcome = rig.put(lone, b"k")
    rig.run(SHORT_AFTER_MS / 1000 - 0.2)
    assert (outcome, rig.state(lone)) == ([], ROOMY)
    rig.disks[lone.member_id].found = TIGHT
    rig.until(lambda: outcome, 0.5)
    assert outcome[0].error is None


def test_the_alarm_passes_though_the_leader_is_exhausted(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1)
    rig.short(rig.leader(), found=EXHAUSTED)
    rig.until(lambda: all(rig.alarms()), 0.5)
    outcome = rig.put(rig.leader(), b"k")
    rig.until(lambda: outcome, 0.5)
    assert isinstance(outcome[0].error, NoSpaceError)


def test_a_compaction_passes_though_all_are_exhausted_and_little_else(rig: Rig) -> None:
    rig.short(*rig.nodes)
    rig.until(lambda: all(rig.alarms()))
    for node in rig.nodes:
        rig.disks[node.member_id].found = EXHAUSTED
    rig.run(0.5)
    leader = rig.leader()
    deletion = proposed(rig, leader, FIELD_DELETE_RANGE, pb.DeleteRangeRequest(key=b"k"))
    compaction = proposed(rig, leader, FIELD_COMPACTION, pb.CompactionRequest(revision=1))
    rig.until(lambda: compaction, 3.0)
    assert deletion == []


def test_a_leader_takes_of_its_own_clients_what_the_last_look_found(rig: Rig) -> None:
    leader = rig.leader()
    size = OWN_OCTETS_MIN // 4
    rig.disks[leader.member_id].found = TIGHT._replace(spare=8 * size)
    rig.run(0.2)
    log = rig.parts_of(leader).log
    for number in range(40):
        rig.put(leader, b"%d" % number, bytes(size))
    taken: list[int] = []
    before = log.appended_octets()
    while leader.inbox.has_proposals or len(taken) < 30:
        rig.run(0.01)
        taken.append(log.appended_octets() - before)
    within = max(later - sooner for sooner, later in zip(taken, taken[8:], strict=False))
    assert size < within < 10 * size, "between two looks"
    rig.disks[leader.member_id].found = TIGHT._replace(spare=0)
    rig.run(0.2)
    rig.must_put(leader, b"k", bytes(size))


def test_a_leader_says_so_that_cannot_take_a_large_proposal_of_another(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    leader = rig.leader()
    rig.disks[leader.member_id].found = TIGHT._replace(spare=3000)
    rig.run(0.2)
    door = leader.peers.door
    assert door is not None
    m = Message(MSG_PROP, to=leader.member_id, from_id=99, entries=[Entry(1, 1, 0, bytes(9000))])
    assert not door.takes(m)
    rig.until(lambda: rig.state(leader) != ROOMY)


def test_proposals_of_others_are_kept_up_to_a_bound_while_a_leader_gives_up(rig: Rig) -> None:
    leader = rig.leader()
    rig.short(*rig.followers())
    rig.disks[leader.member_id].found = SHORT
    rig.until(lambda: rig.state(leader) == GIVING_UP)
    door = leader.peers.door
    assert door is not None
    half = KEPT_OCTETS_MAX // 2
    for _ in range(3):
        entry = Entry(1, 1, 0, bytes(half - 300))
        door.takes(Message(MSG_PROP, to=leader.member_id, from_id=99, entries=[entry]))
    duty = leader.duties.space
    assert len(duty._kept) == 2


def test_an_alarm_that_is_raised_late_is_taken_back_as_well(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1)
    lone = rig.leader()
    log = rig.members[lone.member_id].log
    log.holds = True  # the alarm is on its way
    rig.short(lone)
    rig.free(lone)
    assert (rig.state(lone), rig.alarms()) == (ROOMY, [[]])
    log.holds = False
    log.release()
    rig.until(lambda: any(rig.alarms()), 0.5)
    rig.until(lambda: not any(rig.alarms()), 2.0)
    rig.must_put(lone, b"k")


def test_an_alarm_that_the_quota_raised_is_not_taken_back(rig: Rig) -> None:
    follower = rig.followers()[0]
    for node in rig.nodes:
        node.alarms.activate(follower.member_id, pb.NOSPACE)
    rig.short(follower)
    rig.free(follower)
    rig.run(3.0)
    assert all(rig.alarms())


def test_an_alarm_that_was_there_before_the_shortage_stays(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1)
    lone = rig.leader()
    lone.alarms.activate(lone.member_id, pb.NOSPACE)
    rig.short(lone)
    assert rig.state(lone) == NEEDED
    rig.free(lone)
    rig.run(3.0)
    assert rig.alarms() == [[lone.member_id]]


def proposed(rig: Rig, node: Node, field: int, request: object) -> list[Applied]:
    outcome: list[Applied] = []
    node.propose(
        field,
        request.SerializeToString(),  # type: ignore[attr-defined]
        request,
        OpenCall(),
        lambda call, applied: outcome.append(applied),
    )
    return outcome
