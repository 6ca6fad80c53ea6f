"""Requests out of octets in any pieces: bounds, chunks, trailers, and what breaks off."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdtw.http1.head import HttpError
from etcdtw.http1.reader import (
    BODY,
    BROKEN,
    CHUNK_LINE_SIZE_MAX,
    END,
    HEAD,
    HEAD_SIZE_MAX,
    NEED_MORE,
    TRAILER_SIZE_MAX,
    RequestReader,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def read(*pieces: bytes) -> list[bytes | str]:
    """Return the paths and bodies that are read; at the end what breaks it off."""
    reader = RequestReader()
    found: list[bytes | str] = []
    body = b""
    for piece in pieces:
        reader.feed(piece)
        try:
            while (event := reader.next_event()) != NEED_MORE:
                if event == HEAD:
                    found.append(reader.head.path)
                    body = b""
                elif event == BODY:
                    body += reader.piece
                elif event == END:
                    found.append(body)
                elif event == BROKEN:
                    found += [body, reader.broken]
        except HttpError as error:
            return [*found, f"{error.status} {error.text}".strip()]
    return found


def chunked(body: bytes) -> list[bytes | str]:
    return read(CHUNKED + body)[1:]


def test_requests_follow_each_other() -> None:
    assert read(GET + POST + CHUNKED + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n" + GET) == [
        *(b"/", b"", b"/p", b"abc", b"/c", b"abc", b"/", b"")
    ]


@given(st.lists(st.integers(0, 300), max_size=8))
@settings(deadline=None)
def test_any_chunking_is_read_alike(cuts: list[int]) -> None:
    octets = GET + POST + b"\r\n" + CHUNKED + b"2;a\r\nab\r\n0\r\nX: y\r\n\r\n" + GET + b"x\r\n\r\n"
    edges = [0, *sorted(cut % len(octets) for cut in cuts), len(octets)]
    pieces = [octets[start:end] for start, end in itertools.pairwise(edges)]
    assert read(*pieces) == [b"/", b"", b"/p", b"abc", b"/c", b"ab", b"/", b"", "400"]


def test_each_octet_may_come_alone() -> None:
    octets = GET + POST + CHUNKED + b"3\r\nabc\r\n0\r\n\r\n"
    assert read(*[octets[i : i + 1] for i in range(len(octets))]) == read(octets)


@pytest.mark.parametrize("end", [b"\r\n\r\n", b"\n\n", b"\r\n\n", b"\n\r\n"])
def test_a_head_ends_with_any_empty_line(end: bytes) -> None:
    assert read(b"GET /a HTTP/1.1\r\nHost: a" + end + GET) == [b"/a", b"", b"/", b""]


def test_an_empty_line_is_no_request_but_behind_a_post() -> None:
    assert read(b"\r\n" + GET) == ["400"]
    assert read(b"\n" + GET) == ["400"]
    assert read(GET + b"\r\n" + GET) == [b"/", b"", "400"]
    assert read(GET + b"\r\n") == [b"/", b""], "there may be nothing behind it"
    assert read(POST + b"\r\n" + GET) == [b"/p", b"abc", b"/", b""]
    assert read(POST + b"\r\n\r\n" + GET) == [b"/p", b"abc", b"/", b""]
    assert read(POST + b"\r\n\r\n\r\n" + GET) == [b"/p", b"abc", "400"]
    assert read(POST + b"\r", b"\n", b"GE", b"T / HTTP/1.1\r\nHost: a\r\n\r\n")[2:] == [b"/", b""]


def test_what_begins_with_no_request_line_is_refused_at_once() -> None:
    assert read(b"nonsense\r\n") == ["400"]
    assert read(b"GET / HTTP/1.1\r\nHost") == []


@pytest.mark.parametrize("over", [0, 1])
def test_a_head_is_bounded(over: int) -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\nX: "
    head = start + b"y" * (HEAD_SIZE_MAX + over - len(start))
    whole = read(head + b"\r\n\r\n")
    assert whole == (["431"] if over else [b"/", b""])
    assert read(head) == (["431"] if over else [])


def test_the_same_head_again_is_not_read_anew() -> None:
    reader = RequestReader()
    reader.feed(GET + GET + POST)
    assert reader.next_event() == HEAD
    first = reader.head
    assert (reader.next_event(), reader.next_event()) == (END, HEAD)
    assert reader.head is first
    assert (reader.next_event(), reader.next_event()) == (END, HEAD)
    assert reader.head is not first


def test_what_was_not_read_is_another_protocols() -> None:
    reader = RequestReader()
    reader.feed(GET + b"rest")
    assert (reader.next_event(), reader.next_event()) == (HEAD, END)
    assert (reader.unread, reader.is_between) == (4, False)
    assert reader.take_rest() == b"rest"
    assert (reader.unread, reader.is_between) == (0, True)


@pytest.mark.parametrize(
    "size",
    [b"3", b"03", b"0000000000000003", b"3 ", b"3\t", b"3;", b"3;a=b", b'3;a="b"', b"3;\xff"],
)
def test_the_size_of_a_chunk_is_read(size: bytes) -> None:
    assert chunked(size + b"\r\nabc\r\n0\r\n\r\n") == [b"abc"]


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"\r\n", "empty hex number for chunk length"),
        (b";a\r\n", "empty hex number for chunk length"),
        (b" 3\r\n", "invalid byte in chunk length"),
        (b"3 ;a\r\n", "invalid byte in chunk length"),
        (b"0x3\r\n", "invalid byte in chunk length"),
        (b"+3\r\n", "invalid byte in chunk length"),
        (b"3,\r\n", "invalid byte in chunk length"),
        (b"0" * 16 + b"3\r\n", "http chunk length too large"),
        (b"0" * 16 + b"x\r\n", "invalid byte in chunk length"),
        (b"3\n", "chunked line ends with bare LF"),
        (b"3;\rb\r\n", "invalid CR in chunked line"),
        (b"3\r\r\n", "invalid CR in chunked line"),
        (b"3;" + b"x" * CHUNK_LINE_SIZE_MAX + b"\r\n", "header line too long"),
        (b"3;" + b"x" * CHUNK_LINE_SIZE_MAX, "header line too long"),
    ],
)
def test_what_is_no_size_breaks_the_body_off(octets: bytes, why: str) -> None:
    assert chunked(octets + b"abc\r\n0\r\n\r\n" + GET) == [b"", why]


@pytest.mark.parametrize(
    "octets", [b"3\r\nabc\n0\r\n\r\n", b"3\r\nabc0\r\n\r\n", b"2\r\nabc\r\n0\r\n\r\n"]
)
def test_a_chunk_ends_where_it_says(octets: bytes) -> None:
    assert chunked(octets)[1:] == ["malformed chunked encoding"]


def test_a_line_of_a_chunk_is_bounded() -> None:
    longest = b"3;" + b"x" * (CHUNK_LINE_SIZE_MAX - 4) + b"\r\n"
    assert len(longest) == CHUNK_LINE_SIZE_MAX
    assert chunked(longest + b"abc\r\n0\r\n\r\n") == [b"abc"]


def test_octets_around_chunks_are_bounded() -> None:
    small = b"1;%b\r\nx\r\n" % (b"y" * 40)
    assert chunked(small * 600 + b"0\r\n\r\n") == [b"x" * 600]
    assert chunked(small * 700)[1] == "chunked encoding contains too much non-data"
    assert chunked(b"1\r\nx\r\n" * 5_000 + b"0\r\n\r\n") == [b"x" * 5_000], "each octet alone"


@pytest.mark.parametrize(
    "trailer",
    [b"", b"X: y\r\n", b"X : y\r\n", b"X: y\n", b"X: y\r\n z\r\n", b"X: " + b"y" * 3_000 + b"\r\n"],
)
def test_trailers_are_passed_over(trailer: bytes) -> None:
    assert chunked(b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n" + GET) == [b"abc", b"/", b""]


@pytest.mark.parametrize("trailer", [b"X\r\n", b" X: y\r\n", b"X: \0\r\n", b"(: x\r\n"])
def test_what_is_no_trailer_breaks_the_body_off(trailer: bytes) -> None:
    assert chunked(b"0\r\n" + trailer + b"\r\n") == [b"", "malformed MIME header line"]


@pytest.mark.parametrize("over", [0, 1])
def test_trailers_are_bounded(over: int) -> None:
    trailer = b"X: " + b"y" * (TRAILER_SIZE_MAX + over - 7)
    why = "http: suspiciously long trailer after chunked body"
    assert chunked(b"0\r\n" + trailer + b"\r\n\r\n") == ([b"", why] if over else [b""])
    assert chunked(b"0\r\n" + trailer + b"yyy") == ([] if not over else [b"", why])


def test_nothing_follows_a_body_that_is_broken() -> None:
    reader = RequestReader()
    reader.feed(CHUNKED + b"x\r\n")
    assert (reader.next_event(), reader.next_event()) == (HEAD, BROKEN)
    reader.feed(GET)
    assert reader.next_event() == NEED_MORE
