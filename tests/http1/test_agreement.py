"""h11, which nobody here wrote, reads the same requests and answers.

Go takes requests that h11 refuses, and the other way round; whoever takes one must see the same.
"""

from __future__ import annotations

import itertools

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdtw.http1.answers import LAST_CHUNK, UNKNOWN_LENGTH, HeadWriter, chunk
from etcdtw.http1.head import VERSION_1_1, HttpError
from etcdtw.http1.reader import BODY, BROKEN, END, HEAD, NEED_MORE, RequestReader

Seen = tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]
"""Verb, target, fields, body."""
OFTEN = settings(deadline=None, max_examples=150)
DATE = b"Mon, 30 Nov 2026 21:00:05 GMT"

TOKENS = st.text("abcXYZ-_09!#", min_size=1, max_size=8).map(str.encode)
NAMES = TOKENS.map(lambda token: b"x" + token)
VALUES = st.binary(max_size=20).map(
    lambda value: bytes(c for c in value if 0x20 <= c < 0x7F or c >= 0x80).strip()
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5)
TARGETS = st.text("ab/?=&.~-", max_size=12).map(lambda rest: b"/" + rest.encode())
REQUESTS = st.tuples(
    st.sampled_from([b"GET", b"POST", b"PUT", b"BREW"]),
    TARGETS,
    FIELDS,
    st.lists(st.binary(min_size=1, max_size=50), max_size=4),
    st.booleans(),
)
Asked = tuple[bytes, bytes, list[tuple[bytes, bytes]], list[bytes], bool]


def sent_by_h11(asked: Asked) -> bytes:
    verb, target, fields, pieces, is_chunked = asked
    size = sum(map(len, pieces))
    framing = (b"Transfer-Encoding", b"chunked")
    if not is_chunked:
        framing = (b"Content-Length", b"%d" % size)
    client = h11.Connection(h11.CLIENT)
    head = h11.Request(method=verb, target=target, headers=[(b"Host", b"a"), *fields, framing])
    octets: bytes = client.send(head) or b""
    for piece in pieces:
        octets += client.send(h11.Data(data=piece)) or b""
    return octets + (client.send(h11.EndOfMessage()) or b"")


def ours(pieces: list[bytes]) -> list[Seen]:
    """Return the requests that our core reads, up to one that it refuses."""
    reader = RequestReader()
    found: list[Seen] = []
    body = b""
    for piece in pieces:
        reader.feed(piece)
        try:
            while (event := reader.next_event()) != NEED_MORE:
                if event == HEAD:
                    body = b""
                elif event == BODY:
                    body += reader.piece
                elif event == END:
                    head = reader.head
                    fields = [*head.fields.items(), *head.repeated]
                    found.append((head.verb, head.target, sorted(fields), body))
                else:
                    assert event == BROKEN
        except HttpError:
            break
    return found


def theirs(octets: bytes) -> list[Seen]:
    """The same as h11 reads them."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(octets)
    found: list[Seen] = []
    try:
        while True:
            event = server.next_event()
            if isinstance(event, h11.Request):
                verb, target, body = event.method, event.target, b""
                fields = [(bytes(name), bytes(value)) for name, value in event.headers]
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((bytes(verb), bytes(target), sorted(fields), body))
                if server.their_state is h11.MUST_CLOSE:
                    return found
                server.send(h11.Response(status_code=200, headers=[(b"Content-Length", b"0")]))
                server.send(h11.EndOfMessage())
                server.start_next_cycle()
            else:
                return found
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        return found


@OFTEN
@given(st.lists(REQUESTS, min_size=1, max_size=3), st.lists(st.integers(0, 2_000), max_size=6))
def test_what_h11_sends_is_read_as_it_was_meant(asked: list[Asked], cuts: list[int]) -> None:
    octets = b"".join(map(sent_by_h11, asked))
    edges = [0, *sorted(cut % len(octets) for cut in cuts), len(octets)]
    read = ours([octets[start:end] for start, end in itertools.pairwise(edges)])
    assert [(verb, target, body) for verb, target, _, body in read] == [
        (verb, target, b"".join(pieces)) for verb, target, _, pieces, _ in asked
    ]
    for (_, _, fields, _), (_, _, meant, _, _) in zip(read, asked, strict=True):
        assert sorted((name.lower(), value) for name, value in meant) == [
            one for one in fields if one[0].startswith(b"x")
        ]


ODD = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b",",
            b"\0",
            b"0",
            b"1",
            b";",
            b"\xff",
            b"Host: b\r\n",
        ),
        *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n ", b"0\r\n\r\n"),
        *(b"Connection: close\r\n", b"HTTP/1.1", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]
)


@settings(deadline=None, max_examples=400)
@given(REQUESTS, st.lists(st.tuples(st.integers(0, 400), st.integers(0, 3), ODD), max_size=3))
def test_whoever_takes_an_odd_request_sees_the_same(
    asked: Asked, changes: list[tuple[int, int, bytes]]
) -> None:
    octets = bytearray(sent_by_h11(asked) + b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n")
    for at, size, odd in changes:
        at %= len(octets)
        octets[at : at + size] = odd
    for mine, other in zip(ours([bytes(octets)]), theirs(bytes(octets)), strict=False):
        assert (mine[0], mine[1], mine[3]) == (other[0], other[1], other[3])
        assert _shown(mine) == _shown(other)


def _shown(seen: Seen) -> list[tuple[bytes, bytes]]:
    """Return fields as both show them: h11 joins folded lines otherwise, and drops lengths."""
    return [
        (name, b" ".join(value.split()))
        for name, value in seen[2]
        if name not in (b"content-length", b"transfer-encoding")
    ]


@OFTEN
@given(
    st.sampled_from([200, 400, 404, 431, 499, 503]),
    FIELDS,
    st.lists(st.binary(min_size=1, max_size=50), max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_h11_reads_our_answers(
    status: int, fields: list[tuple[bytes, bytes]], pieces: list[bytes], closes: bool, streams: bool
) -> None:
    length = UNKNOWN_LENGTH if streams else sum(map(len, pieces))
    octets = HeadWriter().head(VERSION_1_1, status, tuple(fields), DATE, length, closes=closes)
    octets += b"".join([*map(chunk, pieces), LAST_CHUNK]) if streams else b"".join(pieces)
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(octets)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    assert head.status_code == status
    told = [(bytes(name), bytes(value)) for name, value in head.headers]
    assert told[: len(fields)] == [(name.lower(), value) for name, value in fields]
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += bytes(event.data)
    assert body == b"".join(pieces)
    assert isinstance(event, h11.EndOfMessage)
    assert (client.their_state is h11.MUST_CLOSE) is closes
