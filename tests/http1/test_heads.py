"""Heads of requests, as real etcd 3.7.3 (Go's net/http) takes and refuses them."""

from __future__ import annotations

import time

import pytest

from etcdtw.http1.head import (
    CHUNKED,
    FIELDS_MAX,
    VERSION_1_0,
    VERSION_1_1,
    Head,
    HttpError,
    parse_head,
)
from etcdtw.http1.target import BadTargetError, split_target

LINE = b"GET /version HTTP/1.1\r\n"
HOST = b"Host: a"


def parsed(*fields: bytes, line: bytes = LINE) -> Head:
    return parse_head(line + b"\r\n".join(fields))


def refused(octets: bytes) -> tuple[int, str]:
    with pytest.raises(HttpError) as caught:
        parse_head(octets)
    return caught.value.status, caught.value.text


def test_a_head_is_taken_apart() -> None:
    head = parsed(HOST, b"X-A:  b\t", b"x-a: c", b"Empty:", line=b"PUT /a/b?c=d?e HTTP/1.1\r\n")
    assert (head.verb, head.target, head.version) == (b"PUT", b"/a/b?c=d?e", VERSION_1_1)
    assert (head.path, head.query, head.host) == (b"/a/b", b"c=d?e", b"a")
    assert head.fields == {b"host": b"a", b"x-a": b"b", b"empty": b""}
    assert head.all_of(b"x-a") == [b"b", b"c"]
    assert head.all_of(b"x-b") == []
    assert (head.length, head.keeps_alive, head.expects_continue) == (0, True, False)


def test_line_feeds_alone_end_lines() -> None:
    head = parse_head(b"GET / HTTP/1.1\nHost: a\nX: b\r\nY: c")
    assert head.fields == {b"host": b"a", b"x": b"b", b"y": b"c"}


@pytest.mark.parametrize(
    "line",
    [
        *(b"GET /", b"GET", b"", b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b"GET / HTTP/1.1 "),
        *(b"GET\t/\tHTTP/1.1", b"GET /\t HTTP/1.1", b"G@T / HTTP/1.1", b" / HTTP/1.1"),
        *(b"GET / HTTP/1.10", b"GET / HTTP/1", b"GET / HTTP/1.x", b"GET / http/1.1"),
        *(b"GET / HTTP/a.1", b"GET / HTTP/1,1", b"GET / HTTPS/1.", b"GET /\x01 HTTP/1.1"),
        *(b"GET /\x7f HTTP/1.1", b"GET /a\rb HTTP/1.1", b"GET /%zz HTTP/1.1", b"GET x HTTP/1.1"),
    ],
)
def test_what_is_no_request_line_is_refused(line: bytes) -> None:
    assert refused(line + b"\r\n" + HOST) == (400, "")


@pytest.mark.parametrize("version", [b"HTTP/2.0", b"HTTP/0.9", b"HTTP/3.0"])
def test_other_versions_are_not_supported(version: bytes) -> None:
    why = "unsupported protocol version"
    assert refused(b"GET / " + version + b"\r\n" + HOST) == (505, why)


def test_later_versions_of_http_1_are_taken_for_1_1() -> None:
    assert parsed(HOST, line=b"GET / HTTP/1.2\r\n").version == VERSION_1_1
    assert parsed(line=b"GET / HTTP/1.0\r\n").version == VERSION_1_0


@pytest.mark.parametrize(
    "field",
    [
        *(
            b"X",
            b":x",
            b": x",
            b"X\t: y",
            b"X\0: y",
            b"X: \0",
            b"X: a\x01b",
            b"X: a\x7fb",
            b"X: a\rb",
        ),
        *(b"X(: y", b"X@: y", b"X\xff: y", b'X": y', b"=: y", b"X: a\r\r\nY: b", b"\rX: a"),
    ],
)
def test_what_is_no_field_is_refused(field: bytes) -> None:
    assert refused(LINE + HOST + b"\r\n" + field) == (400, "")
    assert refused(LINE + field + b"\r\n" + HOST) == (400, "")


@pytest.mark.parametrize("field", [b"X : y", b"X Y: z", b"Content-Length : 5"])
def test_a_space_in_a_name_is_refused_in_gos_words(field: bytes) -> None:
    assert refused(LINE + field + b"\r\n" + HOST) == (400, "invalid header name")


@pytest.mark.parametrize(
    ("octets", "value"),
    [
        *((b"X: a\r\n b", b"a b"), (b"X: a \r\n\t b\r\n c", b"a b c"), (b"X:\r\n y", b"y")),
        *((b"X: a\n b", b"a b"), (b"X: a\r\n ", b"a "), (b"X: \xff", b"\xff"), (b"X:\ty\t", b"y")),
    ],
)
def test_folded_and_unusual_values_are_taken(octets: bytes, value: bytes) -> None:
    assert parsed(HOST, octets).fields[b"x"] == value


@pytest.mark.parametrize("filling", [b" ", b"\t ", b"\r\n ", b" \r\n\t"])
def test_blanks_beside_a_folded_field_cost_what_other_octets_do(filling: bytes) -> None:
    def cost_s(octets: bytes) -> float:
        costs: list[float] = []
        for _ in range(3):
            started_s = time.process_time()
            parsed(HOST, b"X: a\r\n b", b"Y:" + octets + b"x")
            costs.append(time.process_time() - started_s)
        return min(costs)

    # With the square of their number it was 20 s for 60,000; other octets take half a millisecond.
    assert cost_s(filling * (60_000 // len(filling))) < 100 * cost_s(b"x" * 60_000)


def test_the_first_field_cannot_go_on() -> None:
    assert refused(LINE + b" X: y\r\n" + HOST) == (400, "")


def test_fields_are_bounded_in_number() -> None:
    fields = [b"X-%d: y" % i for i in range(FIELDS_MAX - 1)]
    assert len(parsed(HOST, *fields).fields) == FIELDS_MAX
    assert refused(LINE + b"\r\n".join([HOST, *fields, b"Y: z"])) == (431, "")


@pytest.mark.parametrize(
    "host", [b"a b", b"a/b", b"a@b", b"\xff", b'a"', b"a<", b"a#b", b"a?b", b"a\\b"]
)
def test_a_host_of_the_wrong_octets_is_refused(host: bytes) -> None:
    assert refused(LINE + b"Host: " + host) == (400, "malformed Host header")


@pytest.mark.parametrize(
    "host", [b"", b"a:b", b"[::1]:80", b"[", b"a,b", b"a%41", b"a_b", b"-", b":80"]
)
def test_a_host_may_be_much(host: bytes) -> None:
    assert parsed(b"Host: " + host).host == host


def test_a_host_is_named_once() -> None:
    assert refused(LINE + b"X: y") == (400, "missing required Host header")
    assert refused(LINE.rstrip()) == (400, "missing required Host header")
    assert refused(LINE + HOST + b"\r\nHost: a") == (400, "")
    assert parsed(line=b"GET / HTTP/1.0").host == b""
    assert parsed(line=b"CONNECT a:80 HTTP/1.1").path == b""


@pytest.mark.parametrize(
    ("value", "length"),
    [
        (b"18", 18),
        (b" 18 ", 18),
        (b"018", 18),
        (b"0" * 30 + b"18", 18),
        (b"18\r\n ", 18),
        (b"0", 0),
    ],
)
def test_a_length_is_read(value: bytes, length: int) -> None:
    assert parsed(HOST, b"Content-Length: " + value).length == length
    twice = b"Content-Length: " + value
    assert parsed(HOST, twice, twice).length == length


@pytest.mark.parametrize(
    "value",
    [
        *(
            b"+18",
            b"-18",
            b"18,18",
            b"18, 18",
            b"0x12",
            b"",
            b"1 8",
            b"18;",
            b"18.0",
            b"a",
            b"-0",
            b"1_8",
        ),
        *(b"9" * 20, b"9" * 5_000, b"\xb218", b'"18"', b"1\r\n 8", b"18\r\nContent-Length: 19"),
        *(
            b"18\r\nContent-Length: 018",
            b"18\r\nContent-Length:",
            b"18\r\nTransfer-Encoding: chunked\r\nContent-Length: 1",
        ),
    ],
)
def test_what_is_no_length_is_refused(value: bytes) -> None:
    assert refused(LINE + HOST + b"\r\nContent-Length: " + value) == (400, "")


@pytest.mark.parametrize("value", [b"chunked", b"CHUNKED", b"\tchunked ", b"\r\n chunked"])
def test_chunks_go_before_a_length(value: bytes) -> None:
    coding = b"Transfer-Encoding: " + value
    assert parsed(HOST, coding).length == CHUNKED
    assert parsed(HOST, coding, b"Content-Length: 5").length == CHUNKED
    assert parsed(HOST, b"Content-Length: 5", coding).length == CHUNKED


@pytest.mark.parametrize(
    "value",
    [
        *(
            b"chunked,",
            b"gzip, chunked",
            b"chunked, chunked",
            b"gzip",
            b"identity",
            b"",
            b"xchunked",
        ),
        *(b"chunked;q=1", b"chun\r\n ked", b"chunked\r\nTransfer-Encoding: chunked", b"ch\xff"),
    ],
)
def test_other_codings_are_not_implemented(value: bytes) -> None:
    octets = LINE + HOST + b"\r\nContent-Length: 5\r\nTransfer-Encoding: " + value
    assert refused(octets) == (501, "Unsupported transfer encoding")


def test_http_1_0_knows_no_codings() -> None:
    line = b"POST / HTTP/1.0\r\n"
    assert parsed(b"Transfer-Encoding: chunked", line=line).length == 0
    assert parsed(b"Transfer-Encoding: gzip", b"Content-Length: 5", line=line).length == 5


@pytest.mark.parametrize(
    ("version", "fields", "keeps"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"Connection: close"], False),
        (b"1.1", [b"Connection: x,Close"], False),
        (b"1.1", [b"Connection: x", b"Connection: close"], False),
        (b"1.1", [b"Connection: closed"], True),
        (b"1.1", [b"Connection: close;x"], True),
        (b"1.0", [], False),
        (b"1.0", [b"Connection: Keep-Alive"], True),
        (b"1.0", [b"Connection: keep-alive, close"], True),
        (b"1.0", [b"Connection: close", b"Connection: keep-alive"], False),
        (b"1.0", [b"Connection: keep-alive", b"Connection: close"], True),
    ],
)
def test_a_connection_is_kept_as_the_client_wants(
    version: bytes, fields: list[bytes], keeps: bool
) -> None:
    head = parsed(HOST, *fields, line=b"GET / HTTP/" + version + b"\r\n")
    assert head.keeps_alive is keeps


def test_a_client_may_ask_before_it_sends() -> None:
    length = b"Content-Length: 5"
    for value in (
        b"100-continue",
        b"100-Continue",
        b"100-continue, x",
        b"100-continue\r\nExpect: x",
    ):
        assert parsed(HOST, length, b"Expect: " + value).expects_continue
    assert not parsed(HOST, b"Expect: 100-continue").expects_continue
    assert not parsed(HOST, length, b"Expect:").expects_continue
    line = b"POST / HTTP/1.0\r\n"
    assert not parsed(length, b"Expect: 100-continue", line=line).expects_continue
    for value in (b"x", b"100-continue;x", b"x\r\nExpect: 100-continue"):
        assert refused(LINE + HOST + b"\r\n" + length + b"\r\nExpect: " + value) == (417, "")


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/a?b", (b"", b"/a", b"b")),
        (b"/version#x", (b"", b"/version#x", b"")),
        (b"/%00", (b"", b"/%00", b"")),
        (b"/a?%zz", (b"", b"/a", b"%zz")),
        (b"*", (b"", b"*", b"")),
        (b"http://a:80/b?c/d", (b"a:80", b"/b", b"c/d")),
        (b"HTTPS://u:p@a/b", (b"a", b"/b", b"")),
        (b"http://[::1]:80/b", (b"[::1]:80", b"/b", b"")),
        (b"http:///b", (b"", b"/b", b"")),
        (b"http:/b", (b"", b"/b", b"")),
        (b"http://a?b", (b"a", b"", b"b")),
        (b"a:80", (b"", b"", b"")),
    ],
)
def test_a_target_is_taken_apart(target: bytes, parts: tuple[bytes, bytes, bytes]) -> None:
    assert split_target(b"GET", target) == parts


@pytest.mark.parametrize(
    "target",
    [
        *(
            b"",
            b"a",
            b"?",
            b"://a/b",
            b"1a://b/c",
            b"/%zz",
            b"/%4",
            b"http://[::1/b",
            b"http://a:x/b",
        ),
        *(b"http://a%41/b", b"http://a/%z", b'http://a"/b', b"http://a:1:2/b"),
    ],
)
def test_what_is_no_target_is_refused(target: bytes) -> None:
    with pytest.raises(BadTargetError):
        split_target(b"GET", target)


def test_a_whole_url_names_the_host() -> None:
    head = parsed(HOST, line=b"GET http://b:1/c HTTP/1.1\r\n")
    assert (head.host, head.path) == (b"b:1", b"/c")
