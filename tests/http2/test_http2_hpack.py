"""HPACK: the RFC's examples, an independent implementation as oracle, the limits."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from etcdtw.http2 import huffman
from etcdtw.http2.errors import CompressionError, TooManyFieldsError
from etcdtw.http2.events import Field
from etcdtw.http2.hpack import (
    BLOCK_CACHED_SIZE_MAX,
    ENTRY_OVERHEAD,
    FIELDS_MIN,
    INTEGER_MAX,
    SIZE_UPDATE_ZERO,
    Decoder,
    decode_integer,
    encode_block,
    encode_integer,
)

LIST_SIZE_MAX = 65_536

Fields = list[Field]


def new_decoder(table_size: int = 4_096, list_size_max: int = LIST_SIZE_MAX) -> Decoder:
    return Decoder(table_size, list_size_max, 4)


def fields_of(decoder: Decoder, block: bytes) -> Fields:
    headers = decoder.decode(block)
    assert headers is not None
    return list(headers.fields)


REQUESTS: list[Fields] = [
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
        (b"cache-control", b"no-cache"),
    ],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        (b":authority", b"www.example.com"),
        (b"custom-key", b"custom-value"),
    ],
]
REQUEST_TABLE_SIZES = [57, 110, 164]
RESPONSES: list[Fields] = [
    [
        (b":status", b"302"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"307"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT"),
        (b"location", b"https://www.example.com"),
    ],
    [
        (b":status", b"200"),
        (b"cache-control", b"private"),
        (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"),
        (b"location", b"https://www.example.com"),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
    ],
]
RESPONSE_TABLE_SIZES = [222, 222, 215]
C_3 = [
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
]
C_4 = [
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
]
C_5 = [
    "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
    "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
    "4803333037c1c0bf",
    "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f"
    "3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076"
    "657273696f6e3d31",
]
C_6 = [
    "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f"
    "0b97c8e9ae82ae43d3",
    "4883640effc1c0bf",
    "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335df"
    "dfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
]


@pytest.mark.parametrize(
    ("block", "field", "size"),
    [
        (
            "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
            (b"custom-key", b"custom-header"),
            55,
        ),
        ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), 0),
        ("100870617373776f726406736563726574", (b"password", b"secret"), 0),
        ("82", (b":method", b"GET"), 0),
    ],
)
def test_rfc7541_c_2_each_representation_decodes(block: str, field: Field, size: int) -> None:
    decoder = new_decoder()
    assert fields_of(decoder, bytes.fromhex(block)) == [field]
    assert decoder.table_size == size


@pytest.mark.parametrize(
    ("blocks", "lists", "sizes", "table_size"),
    [
        (C_3, REQUESTS, REQUEST_TABLE_SIZES, 4_096),
        (C_4, REQUESTS, REQUEST_TABLE_SIZES, 4_096),
        (C_5, RESPONSES, RESPONSE_TABLE_SIZES, 256),
        (C_6, RESPONSES, RESPONSE_TABLE_SIZES, 256),
    ],
    ids=["c_3", "c_4", "c_5", "c_6"],
)
def test_rfc7541_c_3_to_c_6_sequences_decode(
    blocks: list[str], lists: list[Fields], sizes: list[int], table_size: int
) -> None:
    decoder = new_decoder(table_size)
    for block, expected, size in zip(blocks, lists, sizes, strict=True):
        assert fields_of(decoder, bytes.fromhex(block)) == expected
        assert decoder.table_size == size


def test_rfc7541_c_1_integers() -> None:
    assert encode_integer(10, 5, 0) == b"\x0a"
    assert encode_integer(1337, 5, 0) == bytes.fromhex("1f9a0a")
    assert encode_integer(42, 8, 0) == b"\x2a"
    assert decode_integer(bytes.fromhex("9a0a"), 0, 31) == (1337, 2)


@given(st.integers(0, INTEGER_MAX), st.integers(1, 8))
def test_integers_come_back(value: int, bits: int) -> None:
    octets = encode_integer(value, bits, 0)
    prefix = (1 << bits) - 1
    if value < prefix:
        assert octets == bytes((value,))
    else:
        assert decode_integer(octets, 1, prefix) == (value, len(octets))


@pytest.mark.parametrize(
    "octets", [encode_integer(INTEGER_MAX + 1, 7, 0)[1:], b"\xff" * 9, b"\x80", b"", b"\x80" * 6]
)
def test_an_integer_past_the_edge_is_refused(octets: bytes) -> None:
    with pytest.raises(CompressionError):
        decode_integer(octets, 0, 127)


@given(st.binary(max_size=64))
def test_huffman_comes_back_and_matches_the_oracle(text: bytes) -> None:
    coded = huffman.encode(text)
    assert huffman.decode(coded) == text
    block = b"\x00\x01a" + encode_integer(len(coded), 7, 0x80) + coded
    assert [tuple(field) for field in hpack.Decoder().decode(block, raw=True)] == [(b"a", text)]


@given(st.binary(max_size=24))
@example(b"\xff\xff\xff\xff")
@example(b"\xff")
@example(b"\xfe")
@example(b"")
def test_huffman_accepts_exactly_what_the_oracle_accepts(data: bytes) -> None:
    from hpack.exceptions import HPACKDecodingError
    from hpack.huffman_table import decode_huffman

    try:
        expected: bytes | None = decode_huffman(data)
    except HPACKDecodingError:
        expected = None
    try:
        found: bytes | None = huffman.decode(data)
    except CompressionError:
        found = None
    assert found == expected


NAMES = st.sampled_from(
    [b":path", b":authority", b"te", b"grpc-timeout", b"token", b"x", b"a" * 60, b"user-agent"]
) | st.from_regex(rb"[a-z][a-z0-9-]{0,20}", fullmatch=True)
VALUES = st.sampled_from([b"", b"/", b"trailers", b"v" * 200]) | st.binary(max_size=40)
LISTS = st.lists(st.tuples(NAMES, VALUES), max_size=12)


@given(
    st.lists(st.tuples(LISTS, st.booleans(), st.sampled_from([None, None, 0, 100, 4_096]))),
)
def test_what_the_oracle_encodes_we_decode(
    sequence: list[tuple[Fields, bool, int | None]],
) -> None:
    encoder = hpack.Encoder()
    decoder = new_decoder()
    for fields, is_huffman, table_size in sequence:
        if table_size is not None:
            encoder.header_table_size = table_size
        assert fields_of(decoder, encoder.encode(fields, huffman=is_huffman)) == fields


@given(st.lists(LISTS, max_size=4))
def test_what_we_encode_the_oracle_decodes_at_any_time(sequence: list[Fields]) -> None:
    oracle = hpack.Decoder()
    for fields in sequence:
        found = oracle.decode(encode_block(fields), raw=True)
        assert [tuple(field) for field in found] == fields


def test_secrets_are_never_indexed_and_static_matches_are_short() -> None:
    assert encode_block([(b":status", b"200")]) == b"\x88"
    assert encode_block([(b"token", b"x")])[0] == 0x10
    assert encode_block([(b"authorization", b"x")])[0] & 0xF0 == 0x10
    assert encode_block([(b"content-type", b"application/grpc")])[0] & 0xF0 == 0x00


@given(st.binary(max_size=60))
def test_random_blocks_raise_nothing_but_compression_errors(block: bytes) -> None:
    decoder = new_decoder()
    try:
        decoder.decode(block)
    except CompressionError:
        return
    assert decoder.table_size <= 4_096


@pytest.mark.parametrize(
    "block",
    [
        b"\x80",  # index 0
        b"\xbe",  # first dynamic entry of an empty table
        b"\xff\x00",  # 127
        b"\x7f\x00\x00",  # name index past the table
        b"\x0f\x30\x00",
        b"\x40",  # no name
        b"\x40\x05abc",  # cut short
        b"\x40\x01a",  # no value
        b"\x82\x20",  # size update behind a field
        b"\x3f\xe2\x1f",  # 4097
        b"\x00\x81\xff\x00",  # padding of 8 bits
        b"\x00\x84\xff\xff\xff\xff\x00",  # EOS
    ],
)
def test_bad_blocks_are_compression_errors(block: bytes) -> None:
    with pytest.raises(CompressionError):
        new_decoder().decode(block)


def test_long_indexes_reach_the_far_end_of_the_table() -> None:
    decoder = new_decoder()
    for i in range(70):
        decoder.decode(b"\x40\x02" + b"%02d" % i + b"\x01v")
    assert fields_of(decoder, encode_integer(62 + 69, 7, 0x80)) == [(b"00", b"v")]
    assert fields_of(decoder, encode_integer(62 + 69, 4, 0x00) + b"\x01w") == [(b"00", b"w")]
    assert fields_of(decoder, encode_integer(62 + 69, 6, 0x40) + b"\x01w") == [(b"00", b"w")]


def test_a_repeated_block_is_the_same_object_until_the_table_changes() -> None:
    decoder = new_decoder()
    first = decoder.decode(b"\x82\x86")
    assert first is not None
    first.memo = "mine"
    assert decoder.decode(b"\x82\x86") is first
    decoder.decode(b"\x40\x01a\x01b")
    second = decoder.decode(b"\x82\x86")
    assert second is not first
    assert decoder.decode(b"\x82\x86") is second
    decoder.decode(SIZE_UPDATE_ZERO)
    assert decoder.decode(b"\x82\x86") is not second


def test_a_size_update_that_changes_nothing_keeps_the_cache() -> None:
    decoder = new_decoder()
    first = decoder.decode(b"\x82")
    same = encode_integer(4_096, 5, 0x20) + b"\x82"
    assert decoder.decode(same) is decoder.decode(same)
    assert decoder.decode(b"\x82") is first


def test_a_block_too_large_to_be_worth_keeping_is_not_kept() -> None:
    value_size = BLOCK_CACHED_SIZE_MAX - len(encode_block([(b"x", b"v" * 4_000)])) + 4_000
    decoder = new_decoder()
    for size, count in ((value_size, 1), (value_size + 1, 0)):
        block = encode_block([(b"x", b"v" * size)])
        assert decoder.decode(block) is not None
        assert (block in decoder.cache) == count


def test_the_cache_is_bounded() -> None:
    decoder = new_decoder()
    blocks = [b"\x00\x01a\x01%c" % letter for letter in b"abcdefgh"]
    for block in blocks:
        decoder.decode(block)
        assert 1 <= len(decoder.cache) <= 4


def test_a_list_at_its_size_limit_passes_and_one_octet_more_does_not() -> None:
    fields = [(b"a", b"v" * 67)]  # 100 octets as RFC 9113 6.5.2 counts
    assert new_decoder(list_size_max=100).decode(encode_block(fields)) is not None
    assert new_decoder(list_size_max=99).decode(encode_block(fields)) is None


def test_an_entry_larger_than_the_table_empties_it() -> None:
    decoder = new_decoder(100)
    decoder.decode(b"\x40\x01a\x01b")
    assert decoder.table_size == 34
    decoder.decode(b"\x40\x01a" + encode_integer(68, 7, 0) + b"v" * 68)
    assert decoder.table_size == 0
    decoder.decode(b"\x40\x01a" + encode_integer(67, 7, 0) + b"v" * 67)
    assert decoder.table_size == 100


@pytest.mark.parametrize("literal", [b"\x01A\x00", b"\x02:x\x00", b"\x00\x00", b"\x01a\x02v\n"])
def test_malformed_literals_are_marked_also_when_they_come_again_by_index(literal: bytes) -> None:
    decoder = new_decoder()
    plain = decoder.decode(b"\x00" + literal)
    assert plain is not None
    assert not plain.clean
    stored = decoder.decode(b"\x40" + literal)
    assert stored is not None
    assert not stored.clean
    again = decoder.decode(b"\x82\xbe")
    assert again is not None
    assert not again.clean
    other = decoder.decode(b"\x82")
    assert other is not None
    assert other.clean


def test_no_more_fields_are_decoded_than_any_list_may_have() -> None:
    decoder = new_decoder()
    count_max = LIST_SIZE_MAX // ENTRY_OVERHEAD
    assert decoder.decode(b"\x82" * (count_max + 1)) is None
    with pytest.raises(TooManyFieldsError):
        decoder.decode(b"\x82" * (count_max + 2))
    assert new_decoder(list_size_max=100).decode(b"\x82" * FIELDS_MIN) is None
