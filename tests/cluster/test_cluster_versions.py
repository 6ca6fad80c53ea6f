"""Versions and the founding members."""

from __future__ import annotations

import pytest

from etcdtw.cluster.initial_cluster import (
    InitialClusterError,
    check_own_place,
    parse_initial_cluster,
)
from etcdtw.cluster.urls import parse_urls
from etcdtw.cluster.version import (
    CLUSTER_VERSION_MIN,
    COMPAT_RELEASES,
    Version,
    VersionError,
    decide_cluster_version,
    downgrade_is_done,
    downgrade_target_of,
    may_join,
    may_serve,
    parse_downgrade_target,
    parse_version,
    storage_version,
)

V35, V36, V37 = Version(3, 5, 9), Version(3, 6, 1), Version(3, 7, 3)


def test_version_comes_back_from_its_text() -> None:
    assert parse_version("3.7.3") == V37
    assert str(V37) == "3.7.3"
    assert str(V37.line) == "3.7.0"
    assert parse_version("3.8.0-alpha.0") == Version(3, 8, 0)
    assert COMPAT_RELEASES["3.7"] == V37


@pytest.mark.parametrize("text", ["", "3.7", "3.07.3", "v3.7.3", "3.7.3.2", "3.7.x"])
def test_text_that_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(VersionError):
        parse_version(text)


@pytest.mark.parametrize(
    ("current", "servers", "decision"),
    [
        (None, [V37], Version(3, 7, 0)),
        (None, [V37, None], CLUSTER_VERSION_MIN),
        (None, [], CLUSTER_VERSION_MIN),
        (None, [Version(2, 3, 0)], CLUSTER_VERSION_MIN),
        (Version(3, 6, 0), [V37, V37], Version(3, 7, 0)),
        (Version(3, 6, 0), [V37, V36], None),
        (Version(3, 7, 0), [V37, V36], None),
        (Version(3, 6, 0), [V37, None], None),
        (Version(3, 6, 0), [], None),
    ],
)
def test_leader_raises_the_cluster_version_and_never_lowers_it(
    current: Version | None, servers: list[Version | None], decision: Version | None
) -> None:
    assert decide_cluster_version(current, servers) == decision


@pytest.mark.parametrize(
    ("current", "servers", "decision"),
    [
        (Version(3, 7, 0), [V37, V37], Version(3, 6, 0)),  # the cluster goes first
        (Version(3, 6, 0), [V37, V36], None),  # it is there
        (Version(3, 7, 0), [V37, None], None),
    ],
)
def test_downgrade_lowers_the_cluster_version_at_once(
    current: Version, servers: list[Version | None], decision: Version | None
) -> None:
    assert decide_cluster_version(current, servers, Version(3, 6, 0)) == decision


def test_downgrade_before_3_6_waits_for_its_members() -> None:
    current, target = Version(3, 5, 0), Version(3, 4, 0)
    assert decide_cluster_version(current, [V35, V35], target) is None
    assert decide_cluster_version(current, [V35, Version(3, 4, 23)], target) == target


def test_downgrade_is_done_when_all_members_run_the_target() -> None:
    target = Version(3, 6, 0)
    assert downgrade_is_done(target, [V36, Version(3, 6, 9)])
    for servers in ([V36, V37], [V36, None], []):
        assert not downgrade_is_done(target, servers)


def test_downgrade_target_is_the_minor_version_below() -> None:
    assert downgrade_target_of(Version(3, 7, 0)) == Version(3, 6, 0)
    assert parse_downgrade_target("3.6") == parse_downgrade_target("3.6.9") == Version(3, 6, 0)
    for text in ("", "3", "3.x", "v3.6", "3.6.1.1"):
        with pytest.raises(VersionError):
            parse_downgrade_target(text)


def test_server_older_than_its_cluster_must_not_run() -> None:
    assert may_serve(V37, None)
    assert may_serve(V37, Version(3, 7, 0))
    assert may_serve(V37, Version(3, 6, 0))
    assert not may_serve(V36, Version(3, 7, 0))


def test_only_clusters_that_are_not_newer_can_be_joined() -> None:
    assert may_join(V37, [Version(3, 7, 0), Version(3, 5, 0)])
    assert not may_join(V37, [Version(3, 8, 0)])
    assert not may_join(V37, [Version(2, 3, 0)])
    assert not may_join(V37, [])


def test_old_data_does_not_say_its_version() -> None:
    assert storage_version(None) is None
    assert storage_version(V35) is None
    assert storage_version(V37) == Version(3, 7, 0)


def test_initial_cluster_collects_urls_by_name() -> None:
    cluster = parse_initial_cluster("a=http://h:2,b=http://h:3, a=http://h:1")
    assert {name: [str(url) for url in urls] for name, urls in cluster.items()} == {
        "a": ["http://h:1", "http://h:2"],
        "b": ["http://h:3"],
    }
    assert parse_initial_cluster("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=b=c", "URL scheme must be http, https, unix, or unixs: b=c"),
        ("a", "'a' is not of the form name=url"),
        ("=http://h:1", "'=http://h:1' is not of the form name=url"),
    ],
)
def test_bad_initial_cluster_is_refused(text: str, message: str) -> None:
    with pytest.raises(InitialClusterError) as caught:
        parse_initial_cluster(text)
    assert str(caught.value) == message


def place(text: str, name: str, advertised: str) -> None:
    check_own_place(text, parse_initial_cluster(text), name, parse_urls(advertised))


def test_own_place_in_the_cluster_is_accepted() -> None:
    place("a=http://h:1,a=http://h:2,b=http://h:3", "a", "http://h:2,http://h:1")


@pytest.mark.parametrize(
    ("text", "name", "advertised", "message"),
    [
        (
            "a=http://h:1",
            "b",
            "http://h:1",
            'couldn\'t find local name "b" in the initial cluster configuration',
        ),
        (
            "a=http://h:1,b=http://h:1",
            "a",
            "http://h:1",
            "initial cluster a=http://h:1,b=http://h:1 has duplicate url",
        ),
        (
            "a=http://h:1",
            "a",
            "http://h:2",
            "--initial-advertise-peer-urls has a=http://h:2 but missing from "
            "--initial-cluster=a=http://h:1",
        ),
        (
            "a=http://h:1,a=http://h:2",
            "a",
            "http://h:1",
            "--initial-cluster has a=http://h:2 but missing from "
            "--initial-advertise-peer-urls=http://h:1",
        ),
    ],
)
def test_wrong_own_place_is_refused_in_etcds_words(
    text: str, name: str, advertised: str, message: str
) -> None:
    with pytest.raises(InitialClusterError) as caught:
        place(text, name, advertised)
    assert str(caught.value) == message
