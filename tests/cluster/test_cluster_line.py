"""Which line of etcd a member speaks."""

from __future__ import annotations

import pytest

from etcdtw.cluster.line import Line, LineError, joining_line, parse_line, writes_v2_entries
from etcdtw.cluster.version import CLUSTER_VERSION_MIN, Version

V33, V34, V35, V36, V37, V38 = (Version(3, minor, 0) for minor in range(3, 9))


@pytest.mark.parametrize(
    ("cluster", "line", "release"),
    [
        (None, V36, "3.6.16"),
        (CLUSTER_VERSION_MIN, V36, "3.6.16"),
        (V34, V34, "3.4.44"),
        (V35, V35, "3.5.35"),
        (V36, V36, "3.6.16"),
        (V37, V37, "3.7.3"),
    ],
)
def test_line_follows_the_cluster_once_it_has_decided(
    cluster: Version | None, line: Version, release: str
) -> None:
    member = Line(Version(3, 6, 5))
    assert member.current(cluster) == line
    assert str(member.release(cluster)) == release


def test_operator_offers_the_next_line_and_the_cluster_follows() -> None:
    member = Line(V35)
    member.offer(V36, V35)
    assert member.release(V35).line == V36
    assert member.current(V35) == V35, "rules change only with the cluster"
    assert member.release(V36).line == member.current(V36) == V36
    assert member.release(V37).line == V37
    member.withdraw()
    assert member.release(V35).line == V35


def test_offer_of_the_present_line_takes_an_offer_back() -> None:
    member = Line(V35)
    member.offer(V36, V35)
    member.offer(V35, V35)
    assert member.release(V35).line == V35


@pytest.mark.parametrize("target", [V34, V37, V38])
def test_line_that_is_not_next_is_not_offered(target: Version) -> None:
    with pytest.raises(LineError):
        Line(V35).offer(target, V35)


def test_newest_line_is_the_last_that_can_be_offered() -> None:
    with pytest.raises(LineError, match=r"speaks etcd's lines up to 3\.7"):
        Line(V37).offer(V38, V37)


@pytest.mark.parametrize(
    ("clusters", "servers", "line"),
    [
        ([V35, V35], [V35, V36], V35),
        ([None, V35], [None, V35], V35),
        ([V34, V35], [V35, V35], V35),  # one lags behind
        ([None], [Version(3, 5, 1), Version(3, 4, 23)], V34),
        ([CLUSTER_VERSION_MIN], [V36, V36], V36),
        ([V33], [V33], None),
        ([V38], [V38], None),
        ([None], [None], None),
        ([], [], None),
    ],
)
def test_joining_member_speaks_the_line_of_the_cluster(
    clusters: list[Version | None], servers: list[Version | None], line: Version | None
) -> None:
    assert joining_line(clusters, servers) == line


def test_forms_of_entries_by_line() -> None:
    assert [writes_v2_entries(line) for line in (V34, V35, V36, V37)] == [True, True, False, False]


def test_flag_names_a_line() -> None:
    assert parse_line("3.5") == V35
    with pytest.raises(LineError, match=r'"3\.5\.1" is unknown; known: 3\.7, 3\.6, 3\.5, 3\.4'):
        parse_line("3.5.1")
