"""Ids and URLs.  The expected ids are those that real etcd computes."""

from __future__ import annotations

import pytest

from etcdtw.cluster.ids import cluster_id, id_text, member_id, parse_id
from etcdtw.cluster.urls import MemberUrl, UrlError, parse_url, parse_urls


def test_ids_of_etcds_default_member_are_the_well_known_ones() -> None:
    one = member_id(["http://localhost:2380"], "etcd-cluster")
    assert id_text(one) == "8e9e05c52164694d"
    assert id_text(cluster_id([one])) == "cdf818194e3a8c32"


def test_order_of_urls_and_members_does_not_matter() -> None:
    a, b = "http://10.0.0.1:2380", "http://10.0.0.2:2380"
    assert member_id([a, b], "t") == member_id([b, a], "t")
    assert cluster_id([1, 2]) == cluster_id([2, 1])


def test_time_of_an_added_member_changes_its_id() -> None:
    urls = parse_urls("http://127.0.0.1:2380")
    assert member_id(urls, "", 1) != member_id(urls, "", 2) != member_id(urls, "")


def test_text_of_an_id_has_no_padding() -> None:
    assert id_text(0xAB) == "ab"
    assert parse_id("ab") == parse_id("00AB") == 0xAB


@pytest.mark.parametrize("text", ["", "g", "0x1", " 1", "1" * 17, "-1", "1_0"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an id"):
        parse_id(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://localhost:2379", MemberUrl("http", "localhost", 2379)),
        (" https://10.0.0.1:1 ", MemberUrl("https", "10.0.0.1", 1)),
        ("HTTP://[::1]:2379", MemberUrl("http", "::1", 2379)),
        ("http://:2379", MemberUrl("http", "", 2379)),
        ("http://a:", MemberUrl("http", "a", 0)),
        ("unix:///run/etcd.sock", MemberUrl("unix", "/run/etcd.sock", 0)),
        ("unixs://localhost:12", MemberUrl("unixs", "localhost:12", 0)),
    ],
)
def test_urls_are_parsed(text: str, expected: MemberUrl) -> None:
    assert parse_url(text) == expected


def test_url_prints_as_it_was_given() -> None:
    for text in ("http://localhost:2379", "https://[::1]:2379", "unix:///run/x"):
        assert str(parse_url(text)) == text
    assert parse_url("https://a:1").is_tls
    assert parse_url("unixs://a").is_tls
    assert not parse_url("unix://a").is_tls


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "127.0.0.1:1",
            'parse "127.0.0.1:1": first path segment in URL cannot contain colon',
        ),
        ("localhost:1", "URL scheme must be http, https, unix, or unixs: localhost:1"),
        ("ftp://a:1", "URL scheme must be http, https, unix, or unixs: ftp://a:1"),
        ("", "URL scheme must be http, https, unix, or unixs: "),
        ("x", "URL scheme must be http, https, unix, or unixs: x"),
        ("http:a:1", 'URL address does not have the form "host:port": http:a:1'),
        ("http://a", 'URL address does not have the form "host:port": http://a'),
        ("http://", 'URL address does not have the form "host:port": http://'),
        ("http://a:1/", "URL must not contain a path: http://a:1/"),
        ("http://a:1/x", "URL must not contain a path: http://a:1/x"),
        ("http://a b:1", 'parse "http://a b:1": invalid character " " in host name'),
        ("http://[::1]:x", 'parse "http://[::1]:x": invalid port ":x" after host'),
        ("http://[::1", "parse \"http://[::1\": missing ']' in host"),
        ("http://a:70000", "listen port 70000 is not in 0..65535: http://a:70000"),
        (
            f"http://a:{'9' * 5000}",  # Python makes no number of so many digits
            f"listen port {'9' * 5000} is not in 0..65535: http://a:{'9' * 5000}",
        ),
    ],
)
def test_bad_urls_are_refused_in_gos_words(text: str, message: str) -> None:
    with pytest.raises(UrlError) as caught:
        parse_url(text)
    assert str(caught.value) == message


def test_list_of_urls_is_sorted() -> None:
    assert [str(url) for url in parse_urls("http://b:1, http://a:1")] == [
        "http://a:1",
        "http://b:1",
    ]
