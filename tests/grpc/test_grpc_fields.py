"""Statuses, timeouts, metadata and Go's quoting, value by value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.grpc.metadata import decode_value, encode_value, is_binary_key
from etcdtw.grpc.quoting import quote_go
from etcdtw.grpc.status import (
    CODE_NAMES,
    code_of_http_status,
    decode_message_text,
    encode_message_text,
    status_fields,
)
from etcdtw.grpc.timeout import TimeoutFormatError, format_timeout, parse_timeout


@given(st.text())
def test_a_status_text_survives_the_wire(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # no client can send or read a lone surrogate
    wire = encode_message_text(text)
    assert all(0x20 <= octet < 0x7F for octet in wire)
    assert decode_message_text(wire) == text


def test_only_what_must_be_escaped_is() -> None:
    assert encode_message_text('etcdserver: "k" ~!') == b'etcdserver: "k" ~!'
    assert encode_message_text("100%\nß") == b"100%25%0A%C3%9F"


def test_broken_escapes_stay_as_they_are() -> None:
    assert decode_message_text(b"a%zz%4") == "a%zz%4"
    assert decode_message_text(b"\xff") == "\ufffd"


def test_the_message_is_sent_even_when_empty() -> None:
    assert status_fields(0, "") == ((b"grpc-status", b"0"), (b"grpc-message", b""))


def test_there_is_a_name_for_each_code() -> None:
    assert len(CODE_NAMES) == 17
    assert CODE_NAMES[1] == "Canceled"


def test_http_statuses_become_codes() -> None:
    assert [code_of_http_status(status) for status in (400, 404, 503, 302)] == [13, 12, 14, 2]


@pytest.mark.parametrize(
    ("value", "timeout_ms"),
    [
        (b"1H", 3_600_000),
        (b"2M", 120_000),
        (b"3S", 3_000),
        (b"4m", 4),
        (b"5000u", 5),
        (b"5001u", 6),
        (b"1n", 1),
        (b"0m", 0),
        (b"99999999H", 99_999_999 * 3_600_000),
    ],
)
def test_a_timeout_is_read_in_every_unit_and_rounded_up(value: bytes, timeout_ms: int) -> None:
    assert parse_timeout(value) == timeout_ms


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"", 'transport: timeout string is too short: ""'),
        (b"S", 'transport: timeout string is too short: "S"'),
        (b"123456789S", 'transport: timeout string is too long: "123456789S"'),
        (b"1s", 'transport: timeout unit is not recognized: "1s"'),
        (b"1.5S", 'strconv.ParseInt: parsing "1.5": invalid syntax'),
        (b"-1S", 'strconv.ParseInt: parsing "-1": invalid syntax'),
    ],
)
def test_a_malformed_timeout_says_what_is_wrong(value: bytes, text: str) -> None:
    with pytest.raises(TimeoutFormatError) as caught:
        parse_timeout(value)
    assert str(caught.value) == text


@given(st.integers(0, 10**15))
def test_a_formatted_timeout_is_never_shorter_than_meant(timeout_ms: int) -> None:
    value = format_timeout(timeout_ms)
    assert len(value) <= 9
    parsed = parse_timeout(value)
    assert parsed >= min(timeout_ms, parse_timeout(b"99999999H"))
    assert timeout_ms > 99_999_999 or parsed == timeout_ms


@given(st.binary())
def test_binary_metadata_survives_the_wire(value: bytes) -> None:
    wire = encode_value(b"k-bin", value)
    assert b"=" not in wire
    assert decode_value(b"k-bin", wire) == value
    assert decode_value(b"k-bin", wire + b"=" * (-len(wire) % 4)) == value


def test_of_joined_binary_values_the_first_counts() -> None:
    assert decode_value(b"k-bin", b"AQ,Ag") == b"\1"


def test_a_binary_value_that_is_no_base64_is_none() -> None:
    assert decode_value(b"k-bin", b"?") is None


def test_other_metadata_is_as_it_is() -> None:
    assert not is_binary_key(b"token")
    assert encode_value(b"token", b"a=") == decode_value(b"token", b"a=") == b"a="


def test_quoting_is_gos() -> None:
    assert quote_go(b'a"b\\\n\x01\xff') == '"a\\"b\\\\\\n\\x01\\xff"'
    assert quote_go("ß\u200b\U000e0001".encode()) == '"ß\\u200b\\U000e0001"'
