"""Octets by hand against protobuf's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import (
    ResponseHeaders,
    delimited,
    encode_record,
    encode_renewed,
    encode_varint,
    read_varint,
)
from etcdtw.wire.mvccpb import KeyValue

INT64 = st.integers(-(2**63), 2**63 - 1)
EDGES = [0, 1, 127, 128, 2**14 - 1, 2**14, 2**21, 2**28 - 1, 2**28, 2**35, 2**56, 2**63 - 1]


def header_of(encoded: bytes) -> pb.ResponseHeader:
    return pb.RangeResponse.FromString(encoded).header


@pytest.mark.parametrize("number", [*EDGES, -1, -(2**63)])
def test_a_varint_is_what_protobuf_writes(number: int) -> None:
    encoded = pb.CompactionRequest(revision=number).SerializeToString()
    assert encoded == (b"\x08" + encode_varint(number) if number else b"")


def test_a_uint64_takes_ten_octets_at_its_top() -> None:
    assert encode_varint(2**64 - 1) == encode_varint(-1) == b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_a_number_of_more_than_64_bits_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        encode_varint(number)


@given(st.integers(0, 2**64 - 1))
def test_a_varint_reads_back(number: int) -> None:
    encoded = encode_varint(number)
    assert read_varint(b"\xff" + encoded + b"\x00", 1) == (number, 1 + len(encoded))


@pytest.mark.parametrize("octets", [b"", b"\x80", b"\xff" * 10, b"\xff" * 11 + b"\x01"])
def test_a_varint_cut_short_or_too_long_is_refused(octets: bytes) -> None:
    with pytest.raises(ValueError, match="no varint"):
        read_varint(octets, 0)


def test_a_delimited_field_is_tag_length_and_payload() -> None:
    assert delimited(b"\x12", b"x" * 300) == b"\x12\xac\x02" + b"x" * 300


@given(st.binary(max_size=20), INT64, INT64, INT64, st.binary(max_size=300), INT64)
def test_a_record_is_canonical(
    key: bytes, created: int, mod: int, version: int, value: bytes, lease: int
) -> None:
    expected = KeyValue(
        key=key,
        create_revision=created,
        mod_revision=mod,
        version=version,
        value=value,
        lease=lease,
    )
    assert encode_record(key, created, mod, version, value, lease) == (
        expected.SerializeToString(deterministic=True)
    )


@given(
    st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0)
)
def test_a_header_names_member_revision_and_term(
    cluster_id: int, member_id: int, term: int, revision: int
) -> None:
    revision %= 2**63
    headers = ResponseHeaders(cluster_id, member_id, term)
    assert header_of(headers.encode(revision)) == pb.ResponseHeader(
        cluster_id=cluster_id, member_id=member_id, revision=revision, raft_term=term
    )


def test_a_header_follows_the_term_and_the_revision() -> None:
    headers = ResponseHeaders(1, 2)
    assert header_of(headers.encode(7)).raft_term == 0
    headers.set_term(3)
    assert header_of(headers.encode(7)).raft_term == 3
    assert header_of(headers.encode(8)).revision == 8
    assert headers.encode(8) == headers.encode(8)


@given(INT64, st.sampled_from([0, 1, 127, 128, 9_000_000_000]))
def test_a_renewal_is_what_protobuf_writes(lease_id: int, ttl_s: int) -> None:
    header = ResponseHeaders(1, 2, 3).encode(4)
    response = pb.LeaseKeepAliveResponse(header=header_of(header), ID=lease_id, TTL=ttl_s)
    assert encode_renewed(header, lease_id, ttl_s) == response.SerializeToString()
