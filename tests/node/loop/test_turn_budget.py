"""A turn stops when its time is up, and the next one goes on where it stopped."""

from __future__ import annotations

import pytest

from etcdtw.apply.applier import FIELD_PUT
from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.node.loop.turn import (
    APPLY_S,
    APPLY_SLICE_ENTRIES,
    APPLY_SLICE_OCTETS,
    EARLY_READS_S,
    PROPOSED_ENTRIES_MAX,
    PROPOSED_OCTETS_MAX,
    QUICK_READS,
    READS_S,
)
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.pieces import TURN
from etcdtw.wire.requests import plain
from tests.support.node_rig import NodeRig

STEP_S = 0.001


@pytest.fixture
def rig() -> NodeRig:
    return NodeRig().start()


def turn_number(rig: NodeRig) -> int:
    """Return a number that each turn has for itself."""
    return rig.parts.pieces.cpu_s[TURN].count


def put(rig: NodeRig, turns: list[int], takes_s: float, value: bytes = b"v") -> None:
    """Propose a put after whose apply the clock has run on; note the turn that does it."""
    request = pb.PutRequest(key=b"k", value=value)

    def done(call: Call, applied: Applied) -> None:
        rig.clock.rightNow += takes_s
        rig.outcomes.append(applied)
        turns.append(turn_number(rig))

    rig.node.propose(FIELD_PUT, request.SerializeToString(), plain(request), rig.call, done)


def test_entries_are_applied_until_time_is_up_and_the_rest_in_later_turns(rig: NodeRig) -> None:
    turns: list[int] = []
    takes_s = APPLY_S / APPLY_SLICE_ENTRIES / 2  # two slices are as long as a turn may apply
    for _ in range(10 * APPLY_SLICE_ENTRIES):
        put(rig, turns, takes_s)
    rig.run()
    assert len(turns) == 10 * APPLY_SLICE_ENTRIES
    longest = max(turns.count(turn) for turn in set(turns))
    assert APPLY_SLICE_ENTRIES < longest <= 3 * APPLY_SLICE_ENTRIES
    assert [one.revision for one in rig.outcomes] == list(range(2, len(turns) + 2))
    assert rig.node.applied_index == rig.node.commit_index


def test_time_in_which_others_had_the_core_ends_no_turn(rig: NodeRig) -> None:
    turns: list[int] = []

    def waited(call: Call, applied: Applied) -> None:
        rig.clock.rightNow += APPLY_S
        rig.waited_s += APPLY_S
        turns.append(turn_number(rig))

    request = pb.PutRequest(key=b"k", value=b"v")
    data, frame = request.SerializeToString(), plain(request)
    for _ in range(3 * APPLY_SLICE_ENTRIES):
        rig.node.propose(FIELD_PUT, data, frame, rig.call, waited)
    rig.run()
    assert turns == [turns[0]] * 3 * APPLY_SLICE_ENTRIES


def test_large_entries_are_applied_in_smaller_slices(rig: NodeRig) -> None:
    turns: list[int] = []
    for _ in range(4):
        put(rig, turns, APPLY_S, bytes(APPLY_SLICE_OCTETS))
    rig.run()
    assert len(set(turns)) == 4


def test_reads_are_answered_until_time_is_up_and_the_rest_in_later_turns(rig: NodeRig) -> None:
    answered: list[int] = []
    turns: list[int] = []

    def ask(number: int) -> None:
        def done(call: Call, error: Exception | None) -> None:
            assert error is None
            rig.clock.rightNow += STEP_S
            answered.append(number)
            turns.append(turn_number(rig))

        rig.node.read(rig.call, done)

    for number in range(20):
        ask(number)
    rig.run()
    assert answered == list(range(20))
    longest = max(turns.count(turn) for turn in set(turns))
    assert READS_S / STEP_S <= longest <= READS_S / STEP_S + 1
    assert rig.node.reads.is_idle


@pytest.mark.parametrize(("takes_s", "flushes"), [(EARLY_READS_S, 1), (EARLY_READS_S * 0.9, 0)])
def test_answers_of_puts_go_out_before_many_reads_are_answered(
    rig: NodeRig, takes_s: float, flushes: int
) -> None:
    seen: list[tuple[int, int]] = []
    before = rig.flusher.flushes

    def done(call: Call, error: Exception | None) -> None:
        rig.clock.rightNow += takes_s
        seen.append((turn_number(rig), rig.flusher.flushes - before))

    put(rig, [], 0)
    for _ in range(2):
        rig.node.read(rig.call, done)
    rig.run()
    assert len(rig.outcomes) == 1
    assert seen == [(seen[0][0], 0), (seen[0][0], flushes)]
    assert rig.flusher.flushes - before == flushes + 1


def test_reads_that_were_quick_until_now_pass_their_time_by_a_few_at_most(rig: NodeRig) -> None:
    turns: list[int] = []

    def done(call: Call, error: Exception | None) -> None:
        if turns:
            rig.clock.rightNow += READS_S
        turns.append(turn_number(rig))

    for _ in range(QUICK_READS + 3):
        rig.node.read(rig.call, done)
    rig.run()
    assert turns.count(turns[0]) == 1 + QUICK_READS
    assert turns[-2:] == [turns[0] + 1, turns[0] + 2]


def test_reads_that_are_left_when_the_member_stops_are_told_so(rig: NodeRig) -> None:
    told: list[Exception | None] = []

    def done(call: Call, error: Exception | None) -> None:
        rig.clock.rightNow += READS_S
        told.append(error)
        if len(told) == 1:
            rig.node.wakeup.is_stopping = True  # no other turn comes

    for _ in range(3):
        rig.node.read(rig.call, done)
    rig.run()
    assert told == [None]
    rig.node.stop()
    assert len(told) == 3
    assert told[-1] is not None


@pytest.mark.parametrize(
    ("count", "size"), [(PROPOSED_ENTRIES_MAX, 1), (4, PROPOSED_OCTETS_MAX // 4)]
)
def test_a_turn_proposes_a_bounded_piece(rig: NodeRig, count: int, size: int) -> None:
    for _ in range(2 * count + 1):
        rig.inbox.add(bytes(size))
    pieces = []
    while rig.inbox.has_proposals:
        pieces.append(len(rig.inbox.take_proposals(PROPOSED_ENTRIES_MAX, PROPOSED_OCTETS_MAX)))
    assert pieces == [count, count, 1]
