"""What a leader does about versions, and how a member publishes itself, on a node in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from etcdtw.apply.entries import FIELD_V2, find_request
from etcdtw.apply.own_entries import attributes_entry
from etcdtw.cluster.line import Line
from etcdtw.cluster.member import Member, encode_member
from etcdtw.cluster.membership import ADD_LEARNER_NODE
from etcdtw.cluster.version import Version
from etcdtw.node.config import NodeConfig
from etcdtw.node.duties.cluster_version import INTERVAL_MS, PATIENCE_MS, VersionsTold
from etcdtw.node.duties.publication import RETRY_MS, UNDECIDED_MS, Publication
from tests.support.node_rig import CONFIG, MEMBER_ID, MemoryLog, NodeRig, log_with_a_learner
from tests.support.recorded_call import RecordedCall

LEARNER = Member(member_id=5, peer_urls=("http://h:5",), is_learner=True)


class VersionRig(NodeRig):
    """A lone voter with a learner that answers when the test lets it."""

    def __init__(
        self,
        *,
        has_learner: bool = True,
        log: MemoryLog | None = None,
        config: NodeConfig = CONFIG,
    ) -> None:
        super().__init__(log, config=config)
        self.asked: list[tuple[int, ...]] = []
        self.tell: list[VersionsTold] = []
        self.node.duties.cluster_version.ask = self.ask
        self.start()
        if has_learner and log is None:
            self.node.conf_changes.propose(
                ADD_LEARNER_NODE,
                5,
                encode_member(LEARNER),
                RecordedCall(),
                lambda call, error: None,
            )
            self.run()

    def ask(self, members: Sequence[Member], told: VersionsTold) -> None:
        self.asked.append(tuple(one.member_id for one in members))
        self.tell.append(told)

    @property
    def version(self) -> str:
        return self.node.members.cluster_version


def published(rig: NodeRig, name: str, client_urls: Sequence[str]) -> Publication:
    node = rig.node
    return Publication(node.standing, node.members, node.own, name, client_urls)


def test_lone_leader_settles_the_version_at_once() -> None:
    rig = VersionRig(has_learner=False)
    assert (rig.version, rig.asked) == ("3.7.0", [])


def test_lone_leader_founds_in_the_line_it_was_told() -> None:
    rig = NodeRig()
    rig.node.members.line_of_member = Line(Version(3, 5, 0))
    rig.start()
    assert rig.node.members.cluster_version == "3.5.0"


def test_everybody_is_asked_every_four_seconds_and_one_question_is_open_at_a_time() -> None:
    rig = VersionRig()
    rig.run(INTERVAL_MS / 1000 + 0.1)
    assert rig.asked == [(5,)]
    rig.run(INTERVAL_MS / 1000 + 0.1)
    assert len(rig.asked) == 1, "not answered yet"
    rig.tell[0]({5: Version(3, 7, 3)})
    rig.run(INTERVAL_MS / 1000 + 0.2)
    assert len(rig.asked) == 2
    rig.run(PATIENCE_MS / 1000 + 0.2)
    assert len(rig.asked) == 3, "an answer that never comes is not waited for"
    rig.tell[1]({5: Version(3, 7, 3)})  # overtaken: counts for nothing
    assert rig.version == "3.7.0"


def test_cluster_goes_up_with_its_last_member_and_only_when_told() -> None:
    rig = VersionRig()
    members = rig.node.members
    members.set_cluster_version("3.5.0")
    rig.run(INTERVAL_MS / 1000 + 0.1)
    rig.tell[-1]({5: Version(3, 6, 1)})
    rig.run()
    assert rig.version == "3.5.0", "we say 3.5 until an operator offers more"
    members.line_of_member.offer(Version(3, 6, 0), members.version)
    rig.run(INTERVAL_MS / 1000 + 0.1)
    rig.tell[-1]({})
    rig.run()
    assert rig.version == "3.5.0", "the learner did not answer"
    rig.run(INTERVAL_MS / 1000 + 0.1)
    rig.tell[-1]({5: Version(3, 6, 1)})
    rig.run()
    assert rig.version == "3.6.0"


def test_downgrade_is_carried_out_and_ended() -> None:
    rig = VersionRig(has_learner=False)
    rig.node.members.set_downgrade(True, "3.6.0")
    rig.run(INTERVAL_MS / 1000 + 0.1)
    targets = [rig.node.members.downgrade_target]
    assert rig.version == "3.6.0"
    rig.run(INTERVAL_MS / 1000 + 0.1)
    targets.append(rig.node.members.downgrade_target)
    assert targets == ["3.6.0", None]
    assert rig.node.members.server_version == "3.6.16"
    rig.run(2 * INTERVAL_MS / 1000)
    assert rig.version == "3.6.0"


@pytest.mark.parametrize(("check_ms", "ends_s"), [(0, None), (1_000, 1), (5_000, 4), (12_000, 12)])
def test_a_downgrade_is_ended_at_the_pace_of_its_flag(check_ms: int, ends_s: int | None) -> None:
    rig = VersionRig(has_learner=False, config=replace(CONFIG, downgrade_check_ms=check_ms))
    rig.node.members.set_downgrade(True, "3.6.0")
    while rig.version != "3.6.0":
        rig.run(0.1)
    ended_s = None
    for tenths in range(200):
        if rig.node.members.downgrade_target is None:
            ended_s = tenths / 10
            break
        rig.run(0.1)
    assert ended_s == (None if ends_s is None else pytest.approx(ends_s, abs=0.5))


@pytest.mark.parametrize("version", ["3.4.0", "3.7.0"])
def test_member_publishes_itself_until_its_cluster_knows(version: str) -> None:
    rig = NodeRig().start()
    rig.node.members.set_cluster_version(version)
    publication = published(rig, "m1", ["http://a:1"])
    rig.log.holds = True
    applied = rig.node.applied_index
    for now_ms in (1_000, 1_000 + RETRY_MS - 1, 1_000 + RETRY_MS):
        assert not publication.look(now_ms)
    rig.log.holds = False
    rig.log.release()
    rig.run()
    assert publication.look(1_000 + RETRY_MS)
    assert rig.node.applied_index == applied + 2
    member = rig.node.members.member(MEMBER_ID)
    assert member is not None
    assert (member.name, member.client_urls) == ("m1", ("http://a:1",))
    assert not published(rig, "m1", ["http://b:1"]).look(0)


def test_publication_waits_a_while_for_a_version_that_tells_its_form() -> None:
    rig = VersionRig(log=log_with_a_learner())
    publication = published(rig, "m1", [])
    for now_ms in (5_000, 5_000 + UNDECIDED_MS - 1):
        assert not publication.look(now_ms)
        assert rig.inbox.take_proposals() == []
    assert not publication.look(5_000 + UNDECIDED_MS)
    (entry,) = rig.inbox.take_proposals()
    assert find_request(entry)[0] == 1301


def test_publication_follows_an_old_member_that_has_written() -> None:
    rig = VersionRig(log=log_with_a_learner())
    rig.node.own.propose_octets(
        lambda number: attributes_entry(Version(3, 4, 0), number, 5, "l", ())
    )
    rig.run()
    publication = published(rig, "m1", [])
    assert not publication.look(5_000)
    (entry,) = rig.inbox.take_proposals()
    assert find_request(entry)[0] == FIELD_V2


def test_publication_follows_a_new_member_that_has_written_whatever_the_flag_says() -> None:
    """etcd 3.7 dies of the old form: so would all of a cluster for one wrong --compat-version."""
    rig = VersionRig(log=log_with_a_learner())
    rig.node.members.line_of_member = Line(Version(3, 5, 0))
    rig.node.own.propose_octets(
        lambda number: attributes_entry(Version(3, 7, 0), number, 5, "l", ())
    )
    rig.run()
    assert rig.node.members.line == Version(3, 5, 0)
    publication = published(rig, "m1", [])
    assert not publication.look(5_000)
    (entry,) = rig.inbox.take_proposals()
    assert find_request(entry)[0] == 1301
    rig.node.members.set_cluster_version("3.5.0")
    assert rig.node.members.writing_line == Version(3, 6, 0)
    rig.node.members.set_cluster_version("3.4.0")
    assert rig.node.members.writing_line == Version(3, 4, 0), "3.4 dies of the new form"


@pytest.mark.parametrize(("server", "field"), [(Version(3, 4, 23), FIELD_V2), (None, 1300)])
def test_first_version_is_written_in_the_form_that_who_answered_knows(
    server: Version | None, field: int
) -> None:
    rig = VersionRig(log=log_with_a_learner())
    assert rig.version == ""
    rig.tell[0]({} if server is None else {5: server})
    (entry,) = rig.inbox.take_proposals()
    assert find_request(entry)[0] == field


def test_nothing_is_published_by_a_stranger_or_without_a_leader() -> None:
    rig = NodeRig()
    assert not published(rig, "m1", []).look(5_000), "it has not applied its own addition"
    rig.start()
    assert rig.inbox.take_proposals() == []
