"""Which header lists are requests, responses, trailers (RFC 9113 section 8)."""

from __future__ import annotations

import pytest

from etcdtw.http2.events import Field
from etcdtw.http2.fields import (
    MALFORMED,
    NO_LENGTH,
    check_request,
    check_response,
    check_trailers,
    is_name,
    is_value,
)

METHOD = (b":method", b"POST")
SCHEME = (b":scheme", b"http")
PATH = (b":path", b"/p")
AUTHORITY = (b":authority", b"h")
LENGTH = (b"content-length", b"7")


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ((METHOD, SCHEME, PATH), NO_LENGTH),
        ((AUTHORITY, PATH, SCHEME, METHOD, (b"te", b"trailers"), (b"x", b"")), NO_LENGTH),
        ((METHOD, SCHEME, PATH, LENGTH), 7),
        ((METHOD, SCHEME, PATH, LENGTH, LENGTH), 7),
        (((b":method", b"OPTIONS"), SCHEME, (b":path", b"*")), NO_LENGTH),
        ((METHOD, SCHEME, (b":path", b"")), NO_LENGTH),
        ((METHOD, SCHEME, (b":path", b"p")), NO_LENGTH),
        (((b":method", b"CONNECT"), AUTHORITY), NO_LENGTH),
    ],
)
def test_good_requests_pass(fields: tuple[Field, ...], length: int) -> None:
    assert check_request(fields) == length


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (METHOD, SCHEME),
        (METHOD, PATH),
        (SCHEME, PATH),
        (METHOD, METHOD, SCHEME, PATH),
        (METHOD, SCHEME, PATH, PATH),
        (METHOD, SCHEME, (b"x", b""), PATH),
        (METHOD, SCHEME, (b"te", b"trailers"), PATH),
        (METHOD, SCHEME, LENGTH, PATH),
        ((b":method", b""), SCHEME, PATH),
        ((b":method", b"CONNECT"), SCHEME, PATH),
        (METHOD, AUTHORITY),
        (METHOD, SCHEME, PATH, (b":status", b"200")),
        (METHOD, SCHEME, PATH, (b"te", b"gzip")),
        (METHOD, SCHEME, PATH, (b"connection", b"close")),
        (METHOD, SCHEME, PATH, (b"keep-alive", b"1")),
        (METHOD, SCHEME, PATH, (b"proxy-connection", b"x")),
        (METHOD, SCHEME, PATH, (b"transfer-encoding", b"chunked")),
        (METHOD, SCHEME, PATH, (b"upgrade", b"x")),
        (METHOD, SCHEME, PATH, LENGTH, (b"content-length", b"8")),
        (METHOD, SCHEME, PATH, (b"content-length", b"-1")),
        (METHOD, SCHEME, PATH, (b"content-length", b"")),
        (METHOD, SCHEME, PATH, (b"content-length", b"1" * 19)),
    ],
)
def test_malformed_requests_do_not_pass(fields: tuple[Field, ...]) -> None:
    assert check_request(fields) == MALFORMED


def test_responses_have_one_status_of_three_digits() -> None:
    assert check_response(((b":status", b"200"), LENGTH)) == (200, 7)
    assert check_response(((b":status", b"103"),)) == (103, NO_LENGTH)
    for status in (b"20", b"2000", b"abc", b"099", b""):
        assert check_response(((b":status", status),)) == (0, MALFORMED)
    assert check_response((LENGTH,))[0] == 0
    assert check_response(((b":status", b"200"), PATH))[0] == 0


def test_trailers_have_no_pseudo_fields() -> None:
    assert check_trailers(((b"grpc-status", b"0"),))
    assert check_trailers(())
    assert not check_trailers((PATH,))
    assert not check_trailers(((b"connection", b"close"),))


def test_names_and_values_are_checked_octet_by_octet() -> None:
    assert all(
        is_name(name) for name in (b"a", b"grpc-timeout", b"x_y.z~", b":path", b"!#$%&'*+-.^_`|~")
    )
    bad: tuple[bytes, ...] = (
        b"",
        b"A",
        b"a b",
        b"a:",
        b":x",
        b"::",
        b"\x7f",
        b"\x80",
        b"a\x00",
        b"a\n",
        *[b"a%c" % octet for octet in b'"(),/:;<=>?@[\\]{}'],
    )
    assert not any(is_name(name) for name in bad)
    assert all(is_value(value) for value in (b"", b"a b", b"\x80\xff", b"a\tb", b"\x7f"))
    bad = (b" a", b"a ", b"\ta", b"a\t", b"a\0b", b"a\rb", b"a\nb", b"\n", b"a\n")
    assert not any(is_value(value) for value in bad)
