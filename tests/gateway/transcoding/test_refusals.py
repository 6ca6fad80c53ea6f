"""What is wrong with a body, in the words that real etcd 3.7.3 was heard to say."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.gateway.transcoding.exact import MESSAGE_DEPTH_MAX, TOO_DEEP, ReadingError, read_value
from etcdtw.gateway.transcoding.scanning import (
    DEPTH_MAX,
    ESCAPES_MAX,
    LONG_SIZE,
    STEP,
    TOKENS_MAX,
    TOO_MANY_ESCAPES,
    TOO_MANY_TOKENS,
    WINDOW_SIZE,
    NotJsonError,
    skip_space,
)
from etcdtw.gateway.transcoding.tables import table_of
from etcdtw.gateway.transcoding.usual import USUAL_SIZE_MAX, read_usual
from etcdtw.gateway.turns import whole
from etcdtw.wire import etcdserverpb as pb


def read(body: bytes, message_class: Any = pb.RangeRequest) -> Any:
    """Return the message that ``body`` begins with, or what is wrong with it."""
    table = table_of(message_class)
    usual = read_usual(table, body)
    try:
        octets, _ = whole(read_value(table, body, skip_space(body, 0)))
    except (NotJsonError, ReadingError) as error:
        assert usual is None, "both ways agree"
        return str(error)
    assert usual in (None, octets), "both ways agree"
    return message_class.FromString(octets)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"null", "proto: syntax error (line 1:1): unexpected token null"),
        (b'"x"', 'proto: syntax error (line 1:1): unexpected token "x"'),
        (b"[]", "proto: syntax error (line 1:1): unexpected token ["),
        (b'{"key":"Zm9v","key":"Zm9v"}', 'proto: (line 1:15): duplicate field "key"'),
        (b'{"range_end":"","rangeEnd":""}', 'proto: (line 1:17): duplicate field "rangeEnd"'),
        (b'{"limit":" 1"}', 'proto: (line 1:10): invalid value for int64 field limit: " 1"'),
        (b'{"limit":1.5}', "proto: (line 1:10): invalid value for int64 field limit: 1.5"),
        (
            b'{"sort_order":true}',
            "proto: (line 1:15): invalid value for enum field sortOrder: true",
        ),
        (b'{"serializable":1}', "proto: (line 1:17): invalid value for bool field serializable: 1"),
        (b'{"key":"Zm9v=="}', 'proto: (line 1:8): invalid value for bytes field key: "Zm9v=="'),
        (b'{"key":1}', "proto: (line 1:8): invalid value for bytes field key: 1"),
        (
            b'\n {"a":1,\n\xc3\xbc',
            "invalid character 'Ã' looking for beginning of object key string",
        ),
        (b'{"\xc3\xbc":1,"key":1}', "proto: (line 1:14): invalid value for bytes field key: 1"),
        (b'{\n\n "key":1}', "proto: (line 3:8): invalid value for bytes field key: 1"),
        (
            b'{"key":"Zm9v","x":{"a":[1,{"b":"\\ud800zzzzzzzzz"}]}}',
            'proto: syntax error (line 1:32): invalid escape code "zzzzzz" in string',
        ),
        (b'{"a":"\xff"}', "proto: syntax error (line 1:6): invalid UTF-8 in string"),
        (b'{"a":"\\ud800"}', "proto: unexpected EOF"),
        (b"{", "unexpected EOF"),
        (b'{"key":"Zm9v', "unexpected EOF"),
        (b'{"key":"Zm\n9v"}', "invalid character '\\n' in string literal"),
        (b'{"a":01}', "invalid character '1' after object key:value pair"),
        (b"[1 2]", "invalid character '2' after array element"),
        (b'{"a":tru3}', "invalid character '3' in literal true (expecting 'e')"),
        (b'{"a":nul}', "invalid character '}' in literal null (expecting 'l')"),
        (b'{"a" 1}', "invalid character '1' after object key"),
        (b'{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
        (b"{,}", "invalid character ',' looking for beginning of object key string"),
        (b'{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        (b"[1,]", "invalid character ']' looking for beginning of value"),
        (b'{"a":"\\x"}', "invalid character 'x' in string escape code"),
        (b'{"a":"\\u12g4"}', "invalid character 'g' in \\u hexadecimal character escape"),
        (b'{"a":-}', "invalid character '}' in numeric literal"),
        (b'{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
        (b'{"a":1e+}', "invalid character '}' in exponent of numeric literal"),
        (b"{'a':1}", "invalid character '\\'' looking for beginning of object key string"),
        (b"\xef\xbb\xbf{}", "invalid character 'ï' looking for beginning of value"),
        (b'{"a":"\x01"}', "invalid character '\\x01' in string literal"),
        (b"{\xff}", "invalid character 'ÿ' looking for beginning of object key string"),
    ],
)
def test_what_is_wrong(body: bytes, expected: str) -> None:
    assert read(body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            b'{"compare":[{"key":"Zm9v","version":"0","value":"YQ=="}]}',
            'proto: (line 1:41): error parsing "value", oneof etcdserverpb.Compare.target_union '
            "is already set",
        ),
        (b'{"success":[null]}', "proto: syntax error (line 1:13): unexpected token null"),
        (b'{"success":{}}', "proto: syntax error (line 1:12): unexpected token {"),
        (b'{"success":"\\u0061"}', 'proto: syntax error (line 1:12): unexpected token "\\u0061"'),
    ],
)
def test_what_is_wrong_with_a_txn(body: bytes, expected: str) -> None:
    assert read(body, pb.TxnRequest) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"key":"Zm9v"} trailing', {"key": b"foo"}),
        (b'{"key":"Zm9v"}}', {"key": b"foo"}),
        (b'{"limit":"1e0","revision":1.0}', {"limit": 1, "revision": 1}),
        (b'{"limit":"12.30e2","revision":-1}', {"limit": 1230, "revision": -1}),
        (b'{"limit":100e-2}', {"limit": 1}),
        (b'{"sort_order":"NOPE","sortTarget":2}', {"sort_target": pb.RangeRequest.CREATE}),
        (b'{"sort_order":"DESCEND"}', {"sort_order": pb.RangeRequest.DESCEND}),
        (b'{"key":null,"unknown":[{"key":1}]}', {}),
        (b'{"key":"Zm9"}', {"key": b"fo"}),
        (b'{"key":"_-8"}', {"key": b"\xff\xef"}),
        (b'{"key":"_-8="}', {"key": b"\xff\xef"}),
        (b'{"key":"Zm\\n9v"}', {"key": b"foo"}),
        (b'{"key":"AA=="}', {"key": b"\0"}),
        (b'{"\\u006bey":"\\u005am9v"}', {"key": b"foo"}),
        (b'{"limit":0,"serializable":false,"key":""}', {}),
    ],
)
def test_what_is_taken(body: bytes, expected: dict[str, Any]) -> None:
    assert read(body) == pb.RangeRequest(**expected)


def test_a_value_of_a_oneof_is_kept_although_it_is_zero() -> None:
    found = read(b'{"compare":[{"version":"0"},{"lease":0,"value":null}]}', pb.TxnRequest)
    assert [one.WhichOneof("target_union") for one in found.compare] == ["version", "lease"]


def test_pairs_of_halves_are_characters() -> None:
    found = read(b'{"name":"\\ud83d\\ude00\\n\\"\\/"}', pb.AuthUserAddRequest)
    assert found.name == '\U0001f600\n"/'


# Bounds.


def nested(depth: int) -> bytes:
    opened = b'{"success":[{"request_txn":'
    return opened * depth + b"{}" + b"}]}" * depth


def test_messages_within_messages_end_somewhere() -> None:
    levels = (MESSAGE_DEPTH_MAX - 1) // 2
    octets, _ = whole(read_value(table_of(pb.TxnRequest), nested(levels), 0))
    assert octets
    assert read(nested(levels + 1), pb.TxnRequest) == TOO_DEEP


def test_values_within_values_end_where_gos_do() -> None:
    def deep(depth: int) -> bytes:
        return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"

    assert read(deep(DEPTH_MAX)) == pb.RangeRequest()
    assert read(deep(DEPTH_MAX + 1)) == "invalid character '[' exceeded max depth"


def test_a_body_of_very_many_values_is_refused() -> None:
    body = b'{"a":[' + b"1," * (TOKENS_MAX // 2 + STEP) + b"1]}"
    assert read(body) == TOO_MANY_TOKENS


def test_a_long_body_is_read_in_steps() -> None:
    many = b'{"a":[' + b"1," * STEP + b"1]}"
    text = b"QUJD" * (LONG_SIZE // 2)
    for body in (many, b'{"key":"%b"}' % text, b'{"a":["%b"]}' % text):
        steps = sum(1 for _ in read_value(table_of(pb.RangeRequest), body, 0))
        assert steps >= 2
        assert len(body) <= USUAL_SIZE_MAX or read_usual(table_of(pb.RangeRequest), body) is None


def test_strings_are_steps_by_their_octets() -> None:
    short = b'"' + b"\\/" * (LONG_SIZE // 8) + b'"'
    body = b'{"a":[' + b",".join([short] * 20) + b"]}"
    assert sum(1 for _ in read_value(table_of(pb.RangeRequest), body, 0)) >= 2 * 20 // 5


@pytest.mark.parametrize("size", [LONG_SIZE // 2, LONG_SIZE, WINDOW_SIZE, 5 * WINDOW_SIZE])
def test_long_strings_of_escapes_are_read(size: int) -> None:
    for escape, meant in ((b"\\u0041", "A"), (b"\\/", "/"), (b"\\ud83d\\ude00", "\U0001f600")):
        count = size // len(escape)
        body = b'{"name":"' + escape * count + b'"}'
        assert read(body, pb.AuthUserAddRequest) == pb.AuthUserAddRequest(name=meant * count)


def test_what_is_wrong_with_a_string_of_many_escapes_is_not_looked_for() -> None:
    def ended(count: int, end: bytes) -> object:
        return read(b'{"key":"' + b"\\/" * count + end)

    long = LONG_SIZE // 2 + 1
    assert long > ESCAPES_MAX
    assert ended(ESCAPES_MAX - 1, b'\\x"}') == "invalid character 'x' in string escape code"
    assert ended(long, b'\\x"}') == TOO_MANY_ESCAPES
    assert ended(long, b"") == TOO_MANY_ESCAPES
    few, many = (ended(count, b'\\ud800zzzzzz"}') for count in (ESCAPES_MAX - 1, ESCAPES_MAX))
    assert "invalid escape code" in str(few)
    assert "invalid UTF-8 in string" in str(many)
