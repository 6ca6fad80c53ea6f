"""Conf changes from the proposal to their application, on a node in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from etcdtw.apply.errors import StoppedError, TooManyRequestsError, TransferTimeoutError
from etcdtw.cluster.errors import MemberIdExistsError, MemberIdNotFoundError
from etcdtw.cluster.member import Member, encode_member
from etcdtw.cluster.membership import ADD_LEARNER_NODE, ADD_NODE, REMOVE_NODE
from etcdtw.grpc.call import Call
from etcdtw.node.duties.conf_changes import CONF_CHANGES_MAX, RETRY_MS
from etcdtw.node.duties.leader_transfer import TRANSFERS_MAX
from etcdtw.node.node import Node
from etcdtw.raft.confchange import UPDATE_NODE, ConfChange
from etcdtw.raft.entry import ENTRY_CONF_CHANGE
from tests.support.cluster_rig import ClusterRig, OpenCall, described, others
from tests.support.node_rig import MEMBER_ID, NodeRig
from tests.support.recorded_call import RecordedCall


class ConfChangeRig(NodeRig):
    """A leading lone voter, and what its conf changes came to."""

    def __init__(self) -> None:
        super().__init__()
        self.start()
        self.told: list[Exception | None] = []

    def change(self, kind: int, member_id: int, context: bytes = b"") -> RecordedCall:
        call = RecordedCall()
        self.node.conf_changes.propose(kind, member_id, context, call, self.done)
        return call

    def add(self, member_id: int, is_learner: bool = False) -> RecordedCall:
        member = Member(
            member_id=member_id, peer_urls=(f"http://h:{member_id}",), is_learner=is_learner
        )
        return self.change(
            ADD_LEARNER_NODE if is_learner else ADD_NODE, member_id, encode_member(member)
        )

    def done(self, call: Call, error: Exception | None) -> None:
        self.told.append(error)

    def ids(self) -> list[int]:
        return [member.member_id for member in self.node.members.all()]


def test_change_is_answered_when_it_is_applied_and_not_before() -> None:
    rig = ConfChangeRig()
    rig.log.holds = True
    rig.add(5, is_learner=True)
    rig.run()
    assert (rig.told, rig.ids()) == ([], [MEMBER_ID])
    rig.log.holds = False
    rig.log.release()
    rig.run()
    assert (rig.told, rig.ids()) == ([None], [5, MEMBER_ID])
    assert rig.parts.raw.configuration.learners == {5}


def test_refused_change_is_answered_with_its_reason_and_changes_nothing() -> None:
    rig = ConfChangeRig()
    rig.change(REMOVE_NODE, 99)
    rig.add(MEMBER_ID)
    rig.run()
    assert [type(error) for error in rig.told] == [MemberIdNotFoundError, MemberIdExistsError]
    assert rig.parts.raw.configuration.voters == {MEMBER_ID}


def test_changes_asked_for_at_once_all_come_to_pass_one_after_the_other() -> None:
    rig = ConfChangeRig()
    rig.add(5, is_learner=True)
    rig.change(REMOVE_NODE, 5)
    rig.add(6, is_learner=True)
    rig.run()
    assert (rig.told, rig.ids()) == ([None] * 3, [6, MEMBER_ID])
    assert rig.node.conf_changes.waiting == {}


def rig_without_room() -> tuple[ConfChangeRig, Member]:
    """Return a rig in whose log a change is under way, and the learner that it adds."""
    rig = ConfChangeRig()
    rig.log.holds = True
    other = Member(member_id=7, peer_urls=("http://h:7",), is_learner=True)
    rig.parts.raw.propose_conf_change(
        ConfChange(((ADD_LEARNER_NODE, 7),), 0, encode_member(other), ENTRY_CONF_CHANGE, 1)
    )
    return rig, other


def test_change_that_raft_had_no_room_for_is_proposed_again() -> None:
    rig, _ = rig_without_room()
    rig.change(REMOVE_NODE, 7)  # becomes an empty entry
    rig.run()
    rig.log.holds = False
    rig.log.release()
    rig.run(RETRY_MS / 1000 - 0.2)
    assert (rig.told, rig.ids()) == ([], [7, MEMBER_ID])
    rig.run(0.3)
    assert (rig.told, rig.ids()) == ([None], [MEMBER_ID])


def urls_of(node: Node, member_id: int) -> tuple[str, ...]:
    member = node.members.member(member_id)
    assert member is not None
    return member.peer_urls


def test_a_move_that_is_asked_for_again_undoes_no_later_one(tmp_path: Path) -> None:
    rig = ClusterRig(tmp_path, 3)
    leader = rig.leader()
    asked = others(rig, leader)[0]
    first, second = (replace(described(3), peer_urls=(f"http://moved{i}:2380",)) for i in (1, 2))
    rig.members[asked.member_id].log.holds = True  # it applies nothing for a while
    told: list[Exception | None] = []
    asked.conf_changes.propose(
        UPDATE_NODE, 3, encode_member(first), OpenCall(), lambda _, error: told.append(error)
    )
    rig.until(lambda: urls_of(leader, 3) == first.peer_urls)
    assert rig.update(second) is None
    rig.run(2 * RETRY_MS / 1000)
    assert urls_of(leader, 3) == second.peer_urls
    rig.members[asked.member_id].log.holds = False
    rig.members[asked.member_id].log.release()
    rig.until(lambda: told)
    assert told == [None]
    rig.converge()


def test_a_move_that_raft_had_no_room_for_is_proposed_again() -> None:
    rig, other = rig_without_room()
    moved = replace(other, peer_urls=("http://h:8",))
    rig.change(UPDATE_NODE, 7, encode_member(moved))  # becomes an empty entry
    rig.change(REMOVE_NODE, 99)  # waits for it no longer than it must
    rig.run()
    rig.log.holds = False
    rig.log.release()
    rig.run(2 * RETRY_MS / 1000)
    assert [type(error) for error in rig.told] == [type(None), MemberIdNotFoundError]
    assert urls_of(rig.node, 7) == moved.peer_urls


def test_caller_who_has_gone_is_forgotten() -> None:
    rig = ConfChangeRig()
    rig.log.holds = True
    first = rig.add(5, is_learner=True)
    second = rig.change(REMOVE_NODE, 5)
    rig.run()
    first.cancel()
    second.cancel()
    assert rig.node.conf_changes.waiting == {}
    rig.log.holds = False
    rig.log.release()
    rig.run(2.0)
    assert (rig.told, rig.ids()) == ([], [5, MEMBER_ID]), "the first was proposed already"


def test_entry_with_the_id_of_another_change_answers_nobody() -> None:
    rig = ConfChangeRig()
    rig.log.holds = True
    rig.add(5, is_learner=True)
    (number,) = rig.node.conf_changes.waiting
    stranger = Member(member_id=6, peer_urls=("http://h:6",), is_learner=True)
    rig.parts.raw.propose_conf_change(
        ConfChange(((ADD_LEARNER_NODE, 6),), 0, encode_member(stranger), ENTRY_CONF_CHANGE, number)
    )
    rig.log.holds = False
    rig.run()
    assert (rig.told, rig.ids()) == ([], [6, MEMBER_ID])


def test_changes_waiting_are_bounded() -> None:
    rig = ConfChangeRig()
    rig.log.holds = True
    for number in range(CONF_CHANGES_MAX):
        rig.change(REMOVE_NODE, 1000 + number)
    assert rig.told == []
    rig.change(REMOVE_NODE, 1)
    assert [type(error) for error in rig.told] == [TooManyRequestsError]


def test_stopping_member_answers_everybody() -> None:
    rig = ConfChangeRig()
    rig.log.holds = True
    rig.add(5)
    rig.node.stop()
    rig.add(6)
    rig.node.transfers.start(5, RecordedCall(), rig.done)
    assert [type(error) for error in rig.told] == [StoppedError] * 3


def test_own_entries_are_numbered_like_requests() -> None:
    rig = ConfChangeRig()
    numbers: list[int] = []
    applied = rig.node.applied_index

    def entry(number: int) -> bytes:
        numbers.append(number)
        return b""  # as a leader's own: nothing to apply

    for _ in range(3):
        rig.node.own.propose_octets(entry)
    rig.run()
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    assert rig.node.applied_index == applied + 3
    rig.node.stop()
    rig.node.own.propose_octets(entry)
    assert len(numbers) == 3


def test_how_far_members_are_is_known_to_the_leader() -> None:
    rig = ConfChangeRig()
    rig.add(5, is_learner=True)
    rig.run()
    assert rig.node.match_index(MEMBER_ID) == rig.log.last_index()
    assert (rig.node.match_index(5), rig.node.match_index(6)) == (0, None)
    assert (rig.node.is_voter, rig.node.is_learner) == (True, False)
    assert rig.node.connected_since(5) is None


def test_transfer_to_the_leader_itself_is_done_at_once() -> None:
    rig = ConfChangeRig()
    rig.node.transfers.start(MEMBER_ID, RecordedCall(), rig.done)
    assert rig.told == [None]


def test_transfer_that_raft_gives_up_is_answered() -> None:
    rig = ConfChangeRig()
    rig.add(5)
    rig.run()
    rig.node.transfers.start(5, RecordedCall(), rig.done)
    gone = RecordedCall()
    rig.node.transfers.start(5, gone, rig.done)
    gone.cancel()
    assert rig.told == [None]
    rig.run(4.0)
    assert [type(error) for error in rig.told[1:]] == [TransferTimeoutError]


def test_transfers_waiting_are_bounded() -> None:
    rig = ConfChangeRig()
    rig.add(5)
    rig.run()
    for _ in range(TRANSFERS_MAX + 1):
        rig.node.transfers.start(5, RecordedCall(), rig.done)
    assert [type(error) for error in rig.told] == [type(None), TooManyRequestsError]
