"""What members tell each other over HTTP, and how a new one finds its place by it."""

from __future__ import annotations

import pytest

from etcdtw.cluster.initial_cluster import parse_initial_cluster
from etcdtw.cluster.joining import (
    JoinError,
    RemoteCluster,
    check_learners,
    check_not_bootstrapped,
    check_versions,
    match_members,
    urls_to_ask,
)
from etcdtw.cluster.member import Member, MemberFormatError
from etcdtw.cluster.remote import (
    RemoteVersion,
    decode_member_list,
    decode_version_page,
    encode_member_list,
    encode_version_page,
)
from etcdtw.cluster.version import Version

A = Member(member_id=0xA, peer_urls=("http://a:1",), name="a", client_urls=("http://a:2",))
B = Member(member_id=0xB, peer_urls=("http://b:2", "http://b:1"), is_learner=True)
FLAG = "one=http://a:1,two=http://b:1,two=http://b:2"


def remote(*members: Member) -> RemoteCluster:
    return RemoteCluster(0xC1, members, {})


def test_member_list_is_etcds_json_and_comes_back() -> None:
    body = encode_member_list([B, A])
    assert body == (
        b'[{"id":10,"peerURLs":["http://a:1"],"name":"a","clientURLs":["http://a:2"]},'
        b'{"id":11,"peerURLs":["http://b:2","http://b:1"],"isLearner":true}]\n'
    )
    assert decode_member_list(body) == (A, B)
    assert decode_member_list(b"[]") == ()
    assert decode_member_list(b'[{"id":1,"peerURLs":null}]') == (Member(member_id=1, peer_urls=()),)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[1]", b'[{"id":0}]', b'[{"id":1},{"id":1}]', b"[" * 100_000, b"404 page"],
)
def test_body_that_is_no_member_list_is_refused(body: bytes) -> None:
    with pytest.raises(MemberFormatError):
        decode_member_list(body)


@pytest.mark.parametrize(
    ("body", "versions"),
    [
        (b'{"etcdserver":"3.5.1","etcdcluster":"3.5.0"}', (Version(3, 5, 1), Version(3, 5, 0))),
        (b'{"etcdserver":"3.7.3","etcdcluster":"not_decided","x":1}', (Version(3, 7, 3), None)),
        (b"{}", (None, None)),
        (b'{"etcdserver":5,"etcdcluster":null}', (None, None)),
    ],
)
def test_version_page_is_read(body: bytes, versions: tuple[Version | None, Version | None]) -> None:
    assert decode_version_page(body) == versions


@pytest.mark.parametrize(
    ("server", "cluster", "body"),
    [
        (
            Version(3, 5, 35),
            Version(3, 5, 0),
            b'{"etcdserver":"3.5.35","etcdcluster":"3.5.0"}',
        ),
        (
            Version(3, 7, 3),
            Version(3, 7, 0),
            b'{"etcdserver":"3.7.3","etcdcluster":"3.7.0","storage":"3.7.0"}',
        ),
        (
            Version(3, 6, 16),
            None,
            b'{"etcdserver":"3.6.16","etcdcluster":"not_decided","storage":"unknown"}',
        ),
    ],
)
def test_version_page_has_the_keys_of_its_line(
    server: Version, cluster: Version | None, body: bytes
) -> None:
    assert encode_version_page(server, cluster) == body
    assert decode_version_page(body) == (server, cluster)


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 100_000])
def test_body_that_is_no_version_page_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="is no version page"):
        decode_version_page(body)


def test_all_others_are_asked_in_etcds_order() -> None:
    cluster = parse_initial_cluster("me=http://z:1,b=http://y:1,b=http://x:1,a=http://y:0")
    assert urls_to_ask(cluster, "me") == ("http://x:1", "http://y:0", "http://y:1")


def test_members_are_found_by_their_peer_urls_in_any_order() -> None:
    assert match_members(parse_initial_cluster(FLAG), remote(A, B)) == {"one": A, "two": B}


def test_host_names_count_by_their_addresses() -> None:
    addresses = {"a": "10.0.0.1", "b": "10.0.0.2"}
    cluster = parse_initial_cluster("one=http://10.0.0.1:1,two=http://b:1,two=http://10.0.0.2:2")
    found = match_members(cluster, remote(A, B), lambda host: addresses.get(host, host))
    assert found == {"one": A, "two": B}


@pytest.mark.parametrize(
    ("flag", "members", "message"),
    [
        (FLAG, (A,), r"error validating peerURLs \{a:a=\[http://a:1\]\}: member count is unequal"),
        ("one=http://a:1", (A, B), "member count is unequal"),
        (
            "one=http://a:1,two=http://b:1",
            (A, B),
            r"PeerURLs: no match found for existing member \(b, \[http://b:2 http://b:1\]\)",
        ),
        ("one=http://a:1,two=https://b:1,two=http://b:2", (A, B), "no match found"),
        (FLAG, (A, Member(member_id=5, peer_urls=("nonsense",))), r"existing member \(5, "),
        (FLAG, (A, Member(member_id=5, peer_urls=("http://a:1",))), r"existing member \(5, "),
    ],
)
def test_cluster_that_does_not_match_is_refused_in_etcds_words(
    flag: str, members: tuple[Member, ...], message: str
) -> None:
    with pytest.raises(JoinError, match=message):
        match_members(parse_initial_cluster(flag), remote(*members))


V35 = RemoteVersion(Version(3, 5, 1), Version(3, 5, 0))
SILENT = RemoteVersion(None, None)


def test_line_is_the_clusters() -> None:
    assert check_versions([V35, SILENT]) == Version(3, 5, 0)
    mixed = RemoteVersion(Version(3, 6, 1), Version(3, 5, 0))
    assert check_versions([V35, mixed]) == Version(3, 5, 0)


@pytest.mark.parametrize(
    "versions",
    [
        [],
        [SILENT],
        [RemoteVersion(Version(3, 8, 0), Version(3, 8, 0))],
        [RemoteVersion(Version(3, 3, 0), Version(3, 3, 0))],
        [V35, RemoteVersion(Version(2, 3, 0), Version(2, 3, 0))],
        [RemoteVersion(Version(3, 5, 1), None)],
    ],
)
def test_cluster_of_another_line_is_refused(versions: list[RemoteVersion]) -> None:
    with pytest.raises(JoinError, match="incompatible with current running cluster"):
        check_versions(versions)


def test_more_learners_than_allowed_are_refused() -> None:
    check_learners(1, [A, B])
    with pytest.raises(JoinError, match="max learners is set to 0 and the cluster has 1"):
        check_learners(0, [A, B])


def test_founder_that_has_run_before_is_refused() -> None:
    check_not_bootstrapped(0xB, [A, B])
    check_not_bootstrapped(0x5, [A, B])
    with pytest.raises(JoinError, match="member a has already been bootstrapped"):
        check_not_bootstrapped(0xA, [A, B])
