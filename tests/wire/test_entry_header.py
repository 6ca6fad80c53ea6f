"""The header of an entry, as etcd's own protobuf reads and writes it."""

from __future__ import annotations

import pytest

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import read_varint
from etcdtw.wire.entry_header import (
    ID_TOP,
    NOBODY,
    PREFIX_SIZE,
    Asker,
    EntryHeader,
    decode_header,
    encode_header,
)

NAMES = ["", "u", "root", "\u00fc" * 30, "n" * 108, "n" * 16_400]
REVISIONS = [0, 1, 127, 128, 2**64 - 1]


def body_of(field: bytes) -> bytes:
    """Return what a header's field holds."""
    _, position = read_varint(field, 0)
    size, position = read_varint(field, position)
    assert position + size == len(field)
    return field[position:]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("revision", REVISIONS)
def test_a_header_is_etcds_and_comes_back(name: str, revision: int) -> None:
    header = EntryHeader(ID_TOP | 77, Asker(name, revision))
    octets = encode_header(header)
    request = pb.InternalRaftRequest.FromString(octets)
    expected = pb.RequestHeader(ID=ID_TOP | 77, username=name, auth_revision=revision)
    assert request.header == expected
    assert decode_header(body_of(octets)) == header
    assert decode_header(expected.SerializeToString()) == header


def test_no_user_is_nobody() -> None:
    assert decode_header(pb.RequestHeader(ID=5).SerializeToString()) == EntryHeader(5, NOBODY)
    assert len(encode_header(EntryHeader(ID_TOP))) == PREFIX_SIZE


@pytest.mark.parametrize("name", NAMES)
def test_the_first_octets_tell_the_requests_of_a_member_apart(name: str) -> None:
    first = ID_TOP | 0x1234 << 48
    ids = [first, first + 1, first + (1 << 14), first + (1 << 47)]
    prefixes = {encode_header(EntryHeader(one, Asker(name, 3)))[:PREFIX_SIZE] for one in ids}
    assert len(prefixes) == len(ids)


def test_unknown_fields_are_passed_over_and_nonsense_is_refused() -> None:
    known = pb.RequestHeader(ID=5, username="u").SerializeToString()
    assert decode_header(b"\x20\x07" + known + b"\x2a\x01x") == EntryHeader(5, Asker("u", 0))
    with pytest.raises(ValueError, match="a header is cut short"):
        decode_header(b"\x12\x05ab")
    with pytest.raises(ValueError, match="field 1 has wire type 1"):
        decode_header(b"\x09" + bytes(8))


def test_a_name_that_is_no_text_comes_back_as_it_was() -> None:
    header = decode_header(b"\x12\x02\xff\x80")
    field = encode_header(EntryHeader(ID_TOP, header.asker))
    assert field.endswith(b"\x12\x02\xff\x80")
