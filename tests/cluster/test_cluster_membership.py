"""The replicated membership: what is refused at apply, and which rows are kept."""

from __future__ import annotations

import json

import pytest

from etcdtw.cluster.errors import (
    LastVoterError,
    MemberIdExistsError,
    MemberIdNotFoundError,
    MemberIdRemovedError,
    MemberNotLearnerError,
    MembershipError,
    PeerUrlExistsError,
    TooManyLearnersError,
)
from etcdtw.cluster.member import (
    Member,
    MemberFormatError,
    decode_member,
    encode_json,
    encode_member,
    encode_promotion,
)
from etcdtw.cluster.membership import (
    ADD_LEARNER_NODE,
    ADD_NODE,
    CLUSTER,
    MEMBERS,
    MEMBERS_REMOVED,
    REMOVE_NODE,
    UPDATE_NODE,
    Membership,
    Row,
    UnknownChangeError,
)
from etcdtw.cluster.version import Version, VersionError


def url_of(member_id: int) -> str:
    return f"http://10.0.0.{member_id}:2380"


def described(member_id: int, is_learner: bool = False, url: str = "") -> bytes:
    return encode_member(
        Member(member_id=member_id, peer_urls=(url or url_of(member_id),), is_learner=is_learner)
    )


class MembershipRig:
    """A membership of voters 1 and 2 and learner 3, and the buckets that hold it."""

    def __init__(self) -> None:
        self.membership = Membership(max_learners=1)
        self.buckets: dict[bytes, dict[bytes, bytes]] = {
            MEMBERS: {},
            MEMBERS_REMOVED: {},
            CLUSTER: {},
        }
        self.change(ADD_NODE, 1, described(1))
        self.change(ADD_NODE, 2, described(2))
        self.change(ADD_LEARNER_NODE, 3, described(3, is_learner=True))

    def change(self, kind: int, node_id: int, context: bytes = b"") -> None:
        self.keep(self.membership.applied_change(kind, node_id, context))

    def keep(self, rows: list[Row]) -> None:
        for bucket, key, value in rows:
            if value is None:
                del self.buckets[bucket][key]
            else:
                self.buckets[bucket][key] = value

    def restored(self) -> Membership:
        again = Membership()
        again.restore(*(sorted(rows.items()) for rows in self.buckets.values()))
        return again


@pytest.fixture
def rig() -> MembershipRig:
    return MembershipRig()


def test_added_members_are_voters_and_learners(rig: MembershipRig) -> None:
    assert rig.membership.voter_ids == [1, 2]
    assert rig.membership.learner_ids == [3]
    assert rig.buckets[MEMBERS][b"3"] == (
        b'{"id":3,"peerURLs":["http://10.0.0.3:2380"],"isLearner":true}'
    )


def test_promoted_learner_is_a_voter(rig: MembershipRig) -> None:
    rig.change(ADD_NODE, 3, encode_promotion(3))
    assert rig.membership.voter_ids == [1, 2, 3]
    assert rig.buckets[MEMBERS][b"3"] == b'{"id":3,"peerURLs":["http://10.0.0.3:2380"]}'


def test_removed_member_is_remembered(rig: MembershipRig) -> None:
    rig.change(REMOVE_NODE, 2)
    assert rig.membership.member(2) is None
    assert rig.membership.is_removed(2)
    assert rig.buckets[MEMBERS_REMOVED] == {b"2": b"removed"}


def test_updated_member_keeps_all_but_its_peer_urls(rig: MembershipRig) -> None:
    rig.keep(rig.membership.set_attributes(3, "c", ("http://c:1",)))
    rig.change(UPDATE_NODE, 3, described(3, url="http://new:1"))
    member = rig.membership.member(3)
    assert member == Member(
        member_id=3,
        peer_urls=("http://new:1",),
        is_learner=True,
        name="c",
        client_urls=("http://c:1",),
    )
    assert member.is_started


@pytest.mark.parametrize(
    ("kind", "node_id", "context", "error"),
    [
        (ADD_NODE, 1, described(1, url="http://x:1"), MemberIdExistsError),
        (ADD_NODE, 4, described(4, url=url_of(1)), PeerUrlExistsError),
        (ADD_LEARNER_NODE, 4, described(4, is_learner=True), TooManyLearnersError),
        (ADD_NODE, 1, encode_promotion(1), MemberNotLearnerError),
        (ADD_NODE, 9, encode_promotion(9), MemberIdNotFoundError),
        (REMOVE_NODE, 9, b"", MemberIdNotFoundError),
        (UPDATE_NODE, 9, described(9), MemberIdNotFoundError),
        (UPDATE_NODE, 1, described(1, url=url_of(2)), PeerUrlExistsError),
        (ADD_NODE, 8, described(8), MemberIdRemovedError),
        (REMOVE_NODE, 8, b"", MemberIdRemovedError),
        (UPDATE_NODE, 8, described(8), MemberIdRemovedError),
        (77, 8, b"", MemberIdRemovedError),
        # A refusal comes before the check that the context speaks of the same member.
        (ADD_NODE, 1, described(5), MemberIdExistsError),
        (ADD_NODE, 4, described(5, url=url_of(1)), PeerUrlExistsError),
        (UPDATE_NODE, 9, described(5), MemberIdNotFoundError),
    ],
)
def test_refused_change_leaves_everything_as_it_was(
    rig: MembershipRig, kind: int, node_id: int, context: bytes, error: type[MembershipError]
) -> None:
    rig.change(ADD_NODE, 8, described(8))
    rig.change(REMOVE_NODE, 8)
    before = rig.membership.members
    with pytest.raises(error) as caught:
        rig.membership.applied_change(kind, node_id, context)
    assert caught.value.member_id == node_id
    assert error.text in str(caught.value)
    assert rig.membership.members == before


def test_update_to_its_own_urls_is_allowed(rig: MembershipRig) -> None:
    rig.change(UPDATE_NODE, 1, described(1))
    assert rig.membership.voter_ids == [1, 2]


def test_second_learner_is_allowed_where_two_may_be() -> None:
    membership = Membership(max_learners=2)
    for member_id in (1, 2):
        membership.applied_change(ADD_LEARNER_NODE, member_id, described(member_id, True))
    with pytest.raises(TooManyLearnersError):
        membership.applied_change(ADD_LEARNER_NODE, 3, described(3, True))


@pytest.mark.parametrize(
    ("kind", "node_id", "context"),
    [
        (9, 4, described(4)),
        (ADD_NODE, 4, described(5)),
        (UPDATE_NODE, 1, described(5)),
        (ADD_NODE, 3, encode_promotion(5)),
    ],
)
def test_change_that_makes_no_sense_stops_the_member(
    rig: MembershipRig, kind: int, node_id: int, context: bytes
) -> None:
    with pytest.raises(UnknownChangeError):
        rig.membership.applied_change(kind, node_id, context)


def test_last_voter_stays_even_with_learners_around(rig: MembershipRig) -> None:
    rig.change(REMOVE_NODE, 2)
    with pytest.raises(LastVoterError):
        rig.membership.applied_change(REMOVE_NODE, 1, b"")
    rig.change(REMOVE_NODE, 3)
    assert (rig.membership.voter_ids, rig.membership.removed_ids) == ([1], [2, 3])


def test_cluster_of_a_newer_line_than_we_speak_is_refused(rig: MembershipRig) -> None:
    with pytest.raises(VersionError, match="server version is lower than determined"):
        rig.membership.set_cluster_version("3.8.0")
    with pytest.raises(VersionError):
        Membership().restore([], [], [(b"clusterVersion", b"4.0.0")])


@pytest.mark.parametrize("row", [b"{", b"[]", b"1"])
def test_damaged_downgrade_is_refused(row: bytes) -> None:
    with pytest.raises(ValueError, match="is no downgrade"):
        Membership().restore([], [], [(b"downgrade", row)])


def test_attributes_of_a_removed_member_are_ignored(rig: MembershipRig) -> None:
    rig.change(REMOVE_NODE, 2)
    assert rig.membership.set_attributes(2, "b", ()) == []
    with pytest.raises(MemberIdNotFoundError):
        rig.membership.set_attributes(9, "z", ())


def test_everything_comes_back_from_the_rows(rig: MembershipRig) -> None:
    rig.keep(rig.membership.set_attributes(1, "a", ("http://a:2379",)))
    rig.change(REMOVE_NODE, 2)
    rig.keep(rig.membership.set_cluster_version("3.7.0"))
    rig.keep(rig.membership.set_downgrade(True, "3.6.0"))
    again = rig.restored()
    assert again.members == rig.membership.members
    assert again.is_removed(2)
    assert again.cluster_version == Version(3, 7, 0)
    assert again.downgrade_target == "3.6.0"
    assert rig.buckets[CLUSTER][b"clusterVersion"] == b"3.7.0"


def test_ended_downgrade_has_no_target(rig: MembershipRig) -> None:
    rig.keep(rig.membership.set_downgrade(True, "3.6.0"))
    rig.keep(rig.membership.set_downgrade(False, ""))
    assert rig.membership.downgrade_target is None
    assert rig.restored().downgrade_target is None
    assert json.loads(rig.buckets[CLUSTER][b"downgrade"]) == {
        "target-version": "",
        "enabled": False,
    }


def test_empty_buckets_are_an_empty_membership() -> None:
    membership = Membership()
    membership.restore([], [], [])
    assert membership.members == []
    assert membership.cluster_version is None


def test_row_under_a_wrong_key_is_damage() -> None:
    with pytest.raises(ValueError, match="is about member 1"):
        Membership().restore([(b"2", described(1))], [], [])


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[]",
        b'{"id":"1"}',
        b'{"id":true}',
        b'{"id":-1}',
        b'{"id":18446744073709551616}',
        b"[" * 100_000,
        b'{"peerURLs":"x"}',
        b'{"peerURLs":[1]}',
        b'{"name":1}',
        b'{"isLearner":1}',
        b"\xff",
    ],
)
def test_damaged_member_is_refused(data: bytes) -> None:
    with pytest.raises(MemberFormatError):
        decode_member(data)


def test_member_json_is_gos() -> None:
    member = Member(
        member_id=2**64 - 3, peer_urls=("http://a&b:1",), name="<é>", client_urls=("u",)
    )
    data = encode_member(member)
    assert data == (
        b'{"id":18446744073709551613,"peerURLs":["http://a\\u0026b:1"],'
        b'"name":"\\u003c\xc3\xa9\\u003e","clientURLs":["u"]}'
    )
    assert decode_member(data) == (member, False)
    assert encode_json("\u2028") == b'"\\u2028"'


def test_absent_and_unknown_keys_of_a_member_are_fine() -> None:
    member, is_promotion = decode_member(b'{"id":7,"peerURLs":null,"isPromote":true,"new":[1]}')
    assert (member, is_promotion) == (Member(member_id=7, peer_urls=()), True)
    assert encode_member(member) == b'{"id":7,"peerURLs":null}'
