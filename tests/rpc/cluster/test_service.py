"""The Cluster service over a node in memory: one voter, and members that never start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from etcdtw.apply.members import Members
from etcdtw.cluster.ids import member_id as member_id_of
from etcdtw.grpc.call import MethodTable, StatusError
from etcdtw.raft.message import Message
from etcdtw.rpc.cluster.service import ClusterService
from etcdtw.rpc.leader_line import Answered
from etcdtw.wire import etcdserverpb as pb
from tests.support.node_rig import MEMBER_ID, NodeRig
from tests.support.recorded_call import RecordedCall

UNIX_S = 1_700_000_000
NOT_STARTED = (2, "etcdserver: re-configuration failed due to not enough started members")
UNHEALTHY = (14, "etcdserver: unhealthy cluster")
NOT_FOUND = (5, "etcdserver: member not found")
OK = (0, "")


class ClusterRig(NodeRig):
    """A published lone voter and its Cluster service."""

    def __init__(self, *, is_strict: bool = True) -> None:
        super().__init__()
        self.start()
        self.members.set_attributes(MEMBER_ID, "m1", ("http://localhost:2379",))
        self.service = ClusterService(
            self.node, unix_s=lambda: UNIX_S, is_strict=is_strict, line=None
        )
        self.methods = MethodTable()
        self.service.register(self.methods)

    @property
    def members(self) -> Members:
        return self.node.members

    def ask(self, name: str, request: Any) -> RecordedCall:
        """Call a method and let the node work; its answer is in the call."""
        call = RecordedCall()
        method = self.methods.find(f"/etcdserverpb.Cluster/{name}".encode())
        assert method is not None
        assert method.unary is not None
        try:
            reply = method.unary(call, request.SerializeToString())
        except StatusError as error:
            call.fail(error.code, error.message)
        else:
            if reply is not None:
                call.reply(reply)
        self.run()
        return call

    def add(self, *urls: str, is_learner: bool = False) -> RecordedCall:
        return self.ask("MemberAdd", pb.MemberAddRequest(peerURLs=urls, isLearner=is_learner))

    def remove(self, member_id: int) -> RecordedCall:
        return self.ask("MemberRemove", pb.MemberRemoveRequest(ID=member_id))

    def update(self, member_id: int, *urls: str) -> RecordedCall:
        return self.ask("MemberUpdate", pb.MemberUpdateRequest(ID=member_id, peerURLs=urls))

    def promote(self, member_id: int) -> RecordedCall:
        return self.ask("MemberPromote", pb.MemberPromoteRequest(ID=member_id))

    def added_learner(self) -> int:
        call = self.add("http://l:1", is_learner=True)
        assert call.status == OK
        return pb.MemberAddResponse.FromString(call.replies[0]).member.ID

    def added_voter(self) -> int:
        """Add a second voter that counts as started; from then on there is no quorum."""
        call = self.add("http://b:1")
        assert call.status == OK
        member_id = pb.MemberAddResponse.FromString(call.replies[0]).member.ID
        self.members.set_attributes(member_id, "m2", ())
        return member_id

    def catch_up(self, member_id: int, match_index: int | None = None) -> None:
        """Let the leader believe that a learner holds its log."""
        progress = self.parts.raw.progress()[member_id]
        progress.match_index = self.log.last_index() if match_index is None else match_index


class Connections:
    """A transport that carries nothing and says who is connected since when."""

    def __init__(self, since_ms: dict[int, int]) -> None:
        self._since_ms = since_ms

    def set_peer(self, member_id: int, urls: Sequence[str]) -> None:
        pass

    set_remote = set_peer

    def remove_peer(self, member_id: int) -> None:
        pass

    def send(self, messages: list[Message]) -> None:
        pass

    def send_snapshot(
        self, m: Message, source: object, size: int, done: Callable[[bool], None]
    ) -> None:
        raise AssertionError("nobody lags here")

    def connected_since_ms(self, member_id: int) -> int | None:
        return self._since_ms.get(member_id)

    def stop(self) -> None:
        pass


def connect(rig: ClusterRig, member_ids: list[int], since_ms: int) -> None:
    rig.node.peers.attach(Connections(dict.fromkeys(member_ids, since_ms)))


@pytest.fixture
def rig() -> ClusterRig:
    return ClusterRig()


def test_all_five_methods_are_registered(rig: ClusterRig) -> None:
    names = ["Add", "List", "Promote", "Remove", "Update"]
    assert rig.methods.paths() == [f"/etcdserverpb.Cluster/Member{name}" for name in names]


def test_added_voter_is_in_the_answer_and_in_the_list(rig: ClusterRig) -> None:
    call = rig.add("http://b:2", "http://b:1")
    assert call.status == OK
    response = pb.MemberAddResponse.FromString(call.replies[0])
    expected_id = member_id_of(["http://b:1", "http://b:2"], "", UNIX_S)
    assert (response.member.ID, response.member.name) == (expected_id, "")
    assert list(response.member.peerURLs) == ["http://b:1", "http://b:2"]
    assert not response.member.isLearner
    assert {one.ID for one in response.members} == {MEMBER_ID, expected_id}
    assert (response.header.revision, response.header.member_id) == (0, MEMBER_ID)
    assert rig.parts.raw.configuration.voters == {MEMBER_ID, expected_id}


def test_added_learner_is_one(rig: ClusterRig) -> None:
    learner = rig.added_learner()
    call = rig.ask("MemberList", pb.MemberListRequest())
    listed = pb.MemberListResponse.FromString(call.replies[0]).members
    assert {one.ID: one.isLearner for one in listed} == {MEMBER_ID: False, learner: True}
    assert rig.parts.raw.configuration.learners == {learner}


@pytest.mark.parametrize(
    "urls", [(), ("b:1",), ("http://b",), ("http://b:1/path",), ("ftp://b:1",), ("http://b:1", "")]
)
def test_urls_that_are_none_are_refused(rig: ClusterRig, urls: tuple[str, ...]) -> None:
    assert rig.add(*urls).status == (3, "etcdserver: given member URLs are invalid")


def test_what_the_membership_refuses_is_told_in_etcds_words(rig: ClusterRig) -> None:
    rig.added_learner()
    exists = (9, "etcdserver: Peer URLs already exists")
    assert rig.add("http://l:1", is_learner=True).status == (
        9,
        "etcdserver: member ID already exist",
    )
    assert rig.add("http://localhost:2380", is_learner=True).status == exists
    assert rig.update(MEMBER_ID, "http://l:1").status == exists
    too_many = (9, "etcdserver: too many learner members in cluster")
    assert rig.add("http://k:1", is_learner=True).status == too_many
    assert rig.remove(99).status == NOT_FOUND
    assert rig.update(99, "http://x:1").status == NOT_FOUND


def test_second_voter_is_refused_until_the_first_has_started(rig: ClusterRig) -> None:
    rig.members.set_attributes(MEMBER_ID, "", ())
    assert rig.add("http://b:1").status == NOT_STARTED
    assert rig.add("http://l:1", is_learner=True).status == OK


def test_addition_needs_a_healthy_quorum(rig: ClusterRig) -> None:
    second = rig.added_voter()
    assert rig.add("http://c:1").status == UNHEALTHY
    assert rig.add("http://l:1", is_learner=True).status == UNHEALTHY
    connect(rig, [second], rig.node.now_ms - 6_000)
    assert rig.add("http://l:1", is_learner=True).status is None, "proposed; there is no quorum"


def test_removal_of_the_last_voter_is_refused_in_any_case() -> None:
    for is_strict in (True, False):
        rig = ClusterRig(is_strict=is_strict)
        assert rig.remove(MEMBER_ID).status == NOT_STARTED
        rig.added_learner()
        assert rig.remove(MEMBER_ID).status == NOT_STARTED


def test_removal_that_would_cost_the_quorum_is_refused(rig: ClusterRig) -> None:
    second = rig.added_voter()
    # Connected a moment ago: neither down nor healthy.
    connect(rig, [second], rig.node.now_ms - 1)
    assert rig.remove(second).status == UNHEALTHY
    rig.members.set_attributes(second, "", ())
    assert rig.remove(MEMBER_ID).status == NOT_STARTED


def test_member_that_is_down_may_be_removed(rig: ClusterRig) -> None:
    second = rig.added_voter()
    call = rig.remove(second)
    assert call.status is None, "proposed; the rig has no quorum without it"


def test_without_strict_checks_everything_is_proposed() -> None:
    rig = ClusterRig(is_strict=False)
    second = rig.added_voter()
    connect(rig, [second], rig.node.now_ms - 1)
    for call in (rig.remove(second), rig.add("http://c:1")):
        assert call.status is None


def test_removed_learner_is_gone_for_ever(rig: ClusterRig) -> None:
    learner = rig.added_learner()
    call = rig.remove(learner)
    assert call.status == OK
    response = pb.MemberRemoveResponse.FromString(call.replies[0])
    assert [one.ID for one in response.members] == [MEMBER_ID]
    assert rig.remove(learner).status == NOT_FOUND
    assert rig.update(learner, "http://l:1").status == NOT_FOUND
    assert rig.promote(learner).status == NOT_FOUND


def test_update_takes_any_urls_and_keeps_a_learner_one(rig: ClusterRig) -> None:
    learner = rig.added_learner()
    call = rig.update(learner, "no url at all")
    assert call.status == OK
    response = pb.MemberUpdateResponse.FromString(call.replies[0])
    members = {one.ID: (list(one.peerURLs), one.isLearner) for one in response.members}
    assert members[learner] == (["no url at all"], True)
    assert rig.update(learner).status == OK
    member = rig.members.member(learner)
    assert member is not None
    assert (member.peer_urls, member.is_learner) == ((), True)


def test_learner_is_promoted_when_it_has_started_and_caught_up(rig: ClusterRig) -> None:
    learner = rig.added_learner()
    not_ready = (9, "etcdserver: can only promote a learner member which is in sync with leader")
    assert rig.promote(learner).status == not_ready
    rig.catch_up(learner)
    assert rig.promote(learner).status == not_ready, "it has never started"
    rig.members.set_attributes(learner, "l", ())
    rig.catch_up(learner, 0)
    assert rig.promote(learner).status == not_ready
    rig.catch_up(learner)
    call = rig.promote(learner)
    assert call.status == OK
    response = pb.MemberPromoteResponse.FromString(call.replies[0])
    assert not any(one.isLearner for one in response.members)
    assert rig.parts.raw.configuration.voters == {MEMBER_ID, learner}
    assert rig.service.promotions_total == 1
    assert rig.service.failed_promotions == {not_ready[1]: 3}


def test_voter_and_stranger_are_not_promoted(rig: ClusterRig) -> None:
    not_learner = (9, "etcdserver: can only promote a learner member")
    assert rig.promote(MEMBER_ID).status == not_learner
    assert rig.promote(99).status == NOT_FOUND
    assert rig.service.failed_promotions == {
        "membership: can only promote a learner member": 1,
        "membership: ID not found": 1,
    }


def test_promotion_needs_started_voters(rig: ClusterRig) -> None:
    learner = rig.added_learner()
    rig.members.set_attributes(learner, "l", ())
    rig.catch_up(learner)
    rig.members.set_attributes(MEMBER_ID, "", ())
    assert rig.promote(learner).status == NOT_STARTED


class Forwarder:
    """Remembers what was forwarded."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.answered: list[Answered] = []

    def ask_leader(self, path: str, body: bytes, answered: Answered) -> None:
        self.asked.append((path, body))
        self.answered.append(answered)


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, b'[{"id":5,"peerURLs":["http://l:1"],"name":"l"}]\n', OK),
        (404, b"membership: ID not found\n", NOT_FOUND),
        (0, b"", (14, "etcdserver: request timed out")),
    ],
)
def test_follower_lets_its_leader_promote(
    status: int, body: bytes, outcome: tuple[int, str]
) -> None:
    rig = ClusterRig()
    forwarder = Forwarder()
    follower = NodeRig()  # never started: it does not lead
    service = ClusterService(follower.node, unix_s=lambda: UNIX_S, line=forwarder)
    call = RecordedCall()
    message = pb.MemberPromoteRequest(ID=5).SerializeToString()
    service.member_promote(call, message)
    assert (forwarder.asked, call.status) == ([("/members/promote/5", b"")], None)
    forwarder.answered[0](status, body)
    assert call.status == outcome
    if outcome == OK:
        (member,) = pb.MemberPromoteResponse.FromString(call.replies[0]).members
        assert (member.ID, member.name) == (5, "l")
    alone = ClusterService(follower.node, unix_s=lambda: UNIX_S)
    call = RecordedCall()
    alone.member_promote(call, message)
    assert call.status == (9, "etcdserver: not leader")
    assert alone.failed_promotions == {}, "the leader counts"
    assert rig.stops == []


def test_list_asks_the_quorum_when_told_to(rig: ClusterRig) -> None:
    call = rig.ask("MemberList", pb.MemberListRequest(linearizable=True))
    (member,) = pb.MemberListResponse.FromString(call.replies[0]).members
    assert (member.ID, member.name) == (MEMBER_ID, "m1")
    assert list(member.clientURLs) == ["http://localhost:2379"]
    rig.node.stop()
    call = rig.ask("MemberList", pb.MemberListRequest(linearizable=True))
    assert call.status == (14, "etcdserver: server stopped")


def test_nothing_breaks_when_the_client_has_gone(rig: ClusterRig) -> None:
    rig.log.holds = True
    call = rig.add("http://b:1")
    call.cancel()
    rig.log.holds = False
    rig.log.release()
    rig.run(1.0)
    assert (len(rig.members.all()), rig.stops) == (2, [])
