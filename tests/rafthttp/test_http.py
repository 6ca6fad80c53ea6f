"""HTTP/1.1 between members: heads, bodies, bounds; octets in any pieces."""

from __future__ import annotations

import contextlib
import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcdtw.rafthttp.http import (
    CHUNK_LINE_SIZE_MAX,
    HEAD_SIZE_MAX,
    HEADERS_MAX,
    INTERIM_RESPONSES_MAX,
    LAST_CHUNK,
    Head,
    HttpError,
    HttpReader,
    encode_chunk,
    encode_request,
    encode_response,
)

SLOW_MACHINE = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)


def read(data: bytes, *, is_server: bool = True, cuts: list[int] | None = None) -> list[object]:
    """Return heads as (method or status, path, headers) and bodies as octets, whole."""
    reader = HttpReader(is_server)
    found: list[object] = []
    body: list[bytes] = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    for start, end in itertools.pairwise(edges):
        reader.feed(data[start:end])
        while (event := reader.next_event()) is not None:
            if isinstance(event, Head):
                found.append((event.method or event.status, event.path, event.headers))
            elif event:
                body.append(event)
            else:
                found.append(b"".join(body))
                body.clear()
    return [*found, *body]


CUTS = st.lists(st.integers(0, 1 << 12), max_size=10)


@SLOW_MACHINE
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=200)), max_size=4), CUTS)
def test_requests_survive_any_chunking(sent: list[tuple[bool, bytes]], cuts: list[int]) -> None:
    wire = b""
    expected: list[object] = []
    for is_chunked, body in sent:
        header = ("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", "")
        value = header[1] or str(len(body))
        wire += encode_request("POST", "/raft?x=1", "h", [(header[0], value)])
        if is_chunked:
            wire += b"".join(encode_chunk(body[i : i + 50]) for i in range(0, len(body), 50))
            wire += LAST_CHUNK
        else:
            wire += body
        expected += [("POST", "/raft", {"host": "h", header[0].lower(): value}), body]
    assert read(wire, cuts=cuts) == expected


@SLOW_MACHINE
@given(st.binary(max_size=300), CUTS)
def test_any_octets_are_read_or_refused(data: bytes, cuts: list[int]) -> None:
    for is_server in (True, False):
        with contextlib.suppress(HttpError):
            read(data, is_server=is_server, cuts=cuts)


def test_a_request_without_a_body_ends_at_once() -> None:
    assert read(b"\r\nGET /version HTTP/1.1\r\nHost: a\r\n\r\n") == [
        ("GET", "/version", {"host": "a"}),
        b"",
    ]


def test_a_get_may_have_a_body() -> None:
    wire = b"GET /members/hashkv HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}"
    assert read(wire)[1] == b"{}"


def test_trailers_and_chunk_extensions_are_passed_over() -> None:
    wire = (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n"
        b"3;a=b\r\nabc\r\n000\r\nX: y\r\nZ: w\r\n\r\n"
    )
    assert read(wire)[1] == b"abc"


def test_a_response_without_a_length_lasts_until_the_connection_ends() -> None:
    reader = HttpReader(is_server=False)
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\nab")
    head = reader.next_event()
    assert isinstance(head, Head)
    assert not head.keeps_alive
    assert reader.next_event() == b"ab"
    assert reader.next_event() is None
    assert reader.ended()


@pytest.mark.parametrize("status", [204, 304])
def test_some_responses_never_have_a_body(status: int) -> None:
    wire = encode_response(status, [("Content-Length", "5")])
    assert read(wire, is_server=False)[1:] == [b""]


def test_interim_responses_are_passed_over_but_not_for_ever() -> None:
    interim = encode_response(100, [])
    final = encode_response(204, [])
    found = read(interim * INTERIM_RESPONSES_MAX + final, is_server=False)
    assert found[0] == (204, "", {})
    with pytest.raises(HttpError):
        read(interim * (INTERIM_RESPONSES_MAX + 1) + final, is_server=False)


def test_a_name_that_comes_twice_has_both_values() -> None:
    wire = b"GET / HTTP/1.1\r\nA: 1\r\na:2\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx"
    assert read(wire)[0] == ("GET", "/", {"a": "1,2", "content-length": "1"})


@pytest.mark.parametrize(
    ("line", "headers", "keeps_alive"),
    [
        (b"GET / HTTP/1.1", b"", True),
        (b"GET / HTTP/1.1", b"Connection: Close\r\n", False),
        (b"GET / HTTP/1.1", b"Connection: x, close\r\n", False),
        (b"GET / HTTP/1.0", b"Connection: keep-alive\r\n", False),
        (b"GET http://a:1/b?c HTTP/1.1", b"", True),
    ],
)
def test_who_keeps_a_connection(line: bytes, headers: bytes, keeps_alive: bool) -> None:
    reader = HttpReader(is_server=True)
    reader.feed(line + b"\r\n" + headers + b"\r\n")
    head = reader.next_event()
    assert isinstance(head, Head)
    assert head.keeps_alive is keeps_alive
    assert head.path in ("/", "/b")


CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"G(T / HTTP/1.1\r\n\r\n", 400),
        (b"GET raft HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 400),
        (b"\x16\x03\x01", 400),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * HEAD_SIZE_MAX, 431),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * (HEADERS_MAX + 1) + b"\r\n", 431),
        (CHUNKED + b"xyz\r\n", 400),
        (CHUNKED + b"\r\n", 400),
        (CHUNKED + b"-1\r\n", 400),
        (CHUNKED + b"1" * 17 + b"\r\n", 400),
        (CHUNKED + b"1" + b";" * (CHUNK_LINE_SIZE_MAX + 1), 400),
        (CHUNKED + b"1\r\nabc", 400),
        (CHUNKED + b"0\r\n" + b"A: b\r\n" * HEAD_SIZE_MAX, 431),
        (CHUNKED + b"0\r\n" + b"x" * (HEAD_SIZE_MAX + 1), 400),
    ],
)
def test_bad_requests_are_refused_with_a_status(wire: bytes, status: int) -> None:
    with pytest.raises(HttpError) as refused:
        read(wire)
    assert refused.value.status == status


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 2xx\r\n\r\n",
        b"HTTP/1.1 99 x\r\n\r\n",
        b"HTTP/1.1 600 x\r\n\r\n",
        b"HTTP/1.1 2000 x\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_bad_responses_are_refused(wire: bytes) -> None:
    with pytest.raises(HttpError):
        read(wire, is_server=False)


def test_a_head_of_the_largest_size_is_read() -> None:
    start = b"GET / HTTP/1.1\r\nA: "
    wire = start + b"x" * (HEAD_SIZE_MAX - len(start)) + b"\r\n\r\n"
    assert len(read(wire)) == 2
    with pytest.raises(HttpError):
        read(wire.replace(b"A: ", b"A: xx"))
    assert len(read(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * HEADERS_MAX + b"\r\n")) == 2
