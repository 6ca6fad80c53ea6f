"""Founders in a registry and in DNS."""

from __future__ import annotations

import pytest

from etcdtw.cluster.discovery import (
    CLUSTER_IS_FULL,
    SIZE_IS_BAD,
    SIZE_NOT_FOUND,
    URL_IS_BAD,
    DiscoveryError,
    Roll,
    SrvFounders,
    SrvTarget,
    member_key,
    own_addresses,
    parse_size,
    size_key,
    srv_name,
)
from etcdtw.cluster.urls import own_address, parse_urls

OWN = own_addresses(parse_urls("http://a.test:1,unix:///x"), {"a.test": ["10.0.0.1", "10.0.0.2"]})


def test_keys_are_etcds() -> None:
    assert size_key("t") == "/_etcd/registry/t/_config/size"
    assert member_key("t", 0xABC) == "/_etcd/registry/t/members/abc"
    assert srv_name("etcd-server", "", "x.test") == "_etcd-server._tcp.x.test"
    assert srv_name("etcd-server", "blue", "x.test") == "_etcd-server-blue._tcp.x.test"


@pytest.mark.parametrize(("value", "size"), [(b"1", 1), (b"+3", 3), (b"1024", 1024)])
def test_the_size_is_a_number(value: bytes, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", [b"", b"0", b"-1", b"x", b"3 ", b"1025", b"\xff", b"++1"])
def test_a_bad_size_is_refused(value: bytes) -> None:
    with pytest.raises(DiscoveryError, match=SIZE_IS_BAD):
        parse_size(value)


def test_a_missing_size_is_refused() -> None:
    with pytest.raises(DiscoveryError, match=SIZE_NOT_FOUND):
        parse_size(None)


def roll(count: int) -> Roll:
    found = Roll()
    for number in reversed(range(count)):
        assert found.add(b"k%d" % number, b"m%d=http://h:%d" % (number, number), number) == ""
    return found


def test_the_first_to_register_found_the_cluster() -> None:
    assert roll(3).initial_cluster(2) == "m0=http://h:0,m1=http://h:1"
    assert len(roll(3)) == 3


@pytest.mark.parametrize(
    ("count", "key", "has_place"),
    [(1, "new", True), (2, "new", False), (3, "k1", True), (3, "k2", False), (0, "new", True)],
)
def test_who_comes_late_has_no_place(count: int, key: str, has_place: bool) -> None:
    assert roll(count).has_place(key, 2) is has_place
    assert CLUSTER_IS_FULL == "discovery: cluster is full"


def test_what_is_no_registration_does_not_count() -> None:
    found = roll(1)
    assert found.add(b" k0 ", b"m=http://h:9", 9) == "found duplicate peer from discovery service"
    assert found.add(b"k9", b"m", 9) == "invalid peer info returned from discovery service"
    assert len(found) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([b"a=ftp://x"], URL_IS_BAD),
        ([b"a=http://h:1", b"b=http://h:1"], "discovery cluster .* has duplicate url"),
    ],
)
def test_founders_that_cannot_be_are_refused(values: list[bytes], message: str) -> None:
    found = Roll()
    for number, value in enumerate(values):
        found.add(b"k%d" % number, value, number)
    with pytest.raises(DiscoveryError, match=message):
        found.initial_cluster(3)


def test_records_are_members_and_ours_is_known_by_its_address() -> None:
    founders = SrvFounders("me", OWN)
    founders.add(
        "http",
        [
            SrvTarget("b.test.", 1, ("10.0.0.9",)),
            SrvTarget("c.test.", 1, ("10.0.0.2",)),
            SrvTarget("fe80::1", 2, ("fe80::1",)),
            SrvTarget("gone.test.", 1, ()),
        ],
    )
    assert founders.initial_cluster() == "0=http://b.test:1,me=http://c.test:1,1=http://[fe80::1]:2"
    assert founders.faults == ["lookup gone.test: no such host"]


def test_a_scheme_that_is_not_advertised_is_no_place() -> None:
    founders = SrvFounders("me", OWN)
    founders.add("https", [SrvTarget("a.test.", 1, ("10.0.0.1",))])
    founders.add("http", [SrvTarget("b.test.", 1, ("10.0.0.9",))])
    with pytest.raises(DiscoveryError, match='cannot find local etcd member "me" in SRV records'):
        founders.initial_cluster()
    assert "scheme mismatch with expected peer http://a.test:1" in founders.faults[0]


def test_no_records_are_an_error() -> None:
    founders = SrvFounders("me", OWN)
    with pytest.raises(DiscoveryError, match="there are none"):
        founders.initial_cluster()
    founders.faults.append("lookup x: timed out")
    with pytest.raises(DiscoveryError, match="lookup x: timed out"):
        founders.initial_cluster()


@pytest.mark.parametrize(
    ("urls", "address"),
    [
        ("http://127.0.0.1:1,http://h:1,http://10.0.0.1:1", "10.0.0.1"),
        ("http://0.0.0.0:1,http://[::1]:1,http://[fd00::1]:1", "fd00::1"),
        ("http://h:1,unix:///10.0.0.1", None),
    ],
)
def test_the_own_address_is_the_first_that_others_can_reach(urls: str, address: str | None) -> None:
    assert own_address(parse_urls(urls)) == address
