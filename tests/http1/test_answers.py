"""Heads of answers, octet by octet."""

from __future__ import annotations

import pytest

from etcdtw.http1.answers import (
    NO_LENGTH,
    REMEMBERED_MAX,
    UNKNOWN_LENGTH,
    HeadWriter,
    chunk,
    closing,
    date_text,
    reason,
    refusal,
)
from etcdtw.http1.head import VERSION_1_0, VERSION_1_1

DATE = b"Mon, 30 Nov 2026 21:00:05 GMT"
BEGUN = b"HTTP/1.1 200 OK\r\nX-A: b\r\nDate: " + DATE + b"\r\n"
OLD = BEGUN.replace(b"1.1", b"1.0")


@pytest.mark.parametrize(
    ("version", "length", "closes", "octets"),
    [
        (VERSION_1_1, 5, False, BEGUN + b"Content-Length: 5\r\n\r\n"),
        (VERSION_1_1, 0, True, BEGUN + b"Content-Length: 0\r\nConnection: close\r\n\r\n"),
        (VERSION_1_1, UNKNOWN_LENGTH, False, BEGUN + b"Transfer-Encoding: chunked\r\n\r\n"),
        (VERSION_1_1, NO_LENGTH, False, BEGUN + b"\r\n"),
        (VERSION_1_1, NO_LENGTH, True, BEGUN + b"Connection: close\r\n\r\n"),
        (VERSION_1_0, 5, True, OLD + b"Content-Length: 5\r\n\r\n"),
        (VERSION_1_0, 5, False, OLD + b"Content-Length: 5\r\nConnection: keep-alive\r\n\r\n"),
        (VERSION_1_0, UNKNOWN_LENGTH, True, OLD + b"\r\n"),
    ],
)
def test_a_head_says_how_its_body_ends(
    version: int, length: int, closes: bool, octets: bytes
) -> None:
    writer = HeadWriter()
    for _ in range(2):
        fields = ((b"X-A", b"b"),)
        assert writer.head(version, 200, fields, DATE, length, closes=closes) == octets


def test_a_value_cannot_end_its_line() -> None:
    fields = ((b"X", b"a\r\nSet-Cookie: b"),)
    head = HeadWriter().head(VERSION_1_1, 200, fields, DATE, 0, closes=False)
    assert b"X: a  Set-Cookie: b\r\n" in head


def test_what_is_remembered_is_bounded() -> None:
    writer = HeadWriter()
    for i in range(3 * REMEMBERED_MAX):
        writer.head(VERSION_1_1, 200, ((b"X", b"%d" % i),), DATE, 0, closes=False)
        assert len(writer._begun) <= REMEMBERED_MAX
    before = len(writer._begun)
    writer.head(VERSION_1_1, 200, ((b"X", bytes(9_000)),), DATE, 0, closes=False)
    assert len(writer._begun) == before


def test_statuses_without_a_name_are_worded_as_gos() -> None:
    assert reason(499) == b"status code 499"


def test_refusals_are_gos() -> None:
    fields = b"\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    assert refusal(400, "") == b"HTTP/1.1 400 Bad Request" + fields + b"400 Bad Request"
    line = b"400 Bad Request: invalid header name"
    assert refusal(400, "invalid header name") == b"HTTP/1.1 " + line + fields + line
    assert (
        refusal(501, "Unsupported x") == b"HTTP/1.1 501 Not Implemented" + fields + b"Unsupported x"
    )
    assert refusal(417, "") == closing(417)
    assert closing(417).startswith(b"HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\n")


def test_chunks_and_dates() -> None:
    assert chunk(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert date_text((2026, 11, 30, 21, 0, 5, 0, 334, 0)) == DATE
