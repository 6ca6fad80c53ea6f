"""Entries of our own: their octets are etcd's, their ids unique."""

from __future__ import annotations

from etcdtw.node.intake.requests import RequestIds, tag
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import read_varint
from etcdtw.wire.entry_header import PREFIX_SIZE


def test_an_entry_is_an_internal_raft_request_with_a_header_id() -> None:
    message = pb.PutRequest(key=b"k", value=b"v").SerializeToString()
    prefix = RequestIds(0x8E9E05C52164694D, 1_700_000_000_000).next_header()
    data = prefix + tag(4) + bytes((len(message),)) + message
    request = pb.InternalRaftRequest.FromString(data)
    assert request.put == pb.PutRequest(key=b"k", value=b"v")
    assert request.header.ID >> 48 == 0x8000 | 0x694D
    assert request.SerializeToString() != b""


def test_prefixes_have_one_length_and_decode_to_consecutive_ids() -> None:
    ids = RequestIds(7, 1_700_000_000_123)
    seen = []
    for _ in range(40_000):
        prefix = ids.next_header()
        assert len(prefix) == PREFIX_SIZE
        seen.append(prefix)
    assert len(set(seen)) == 40_000
    for at in (0, 1, 127, 128, 16_383, 16_384, 16_385, 39_999):
        first = pb.InternalRaftRequest.FromString(seen[0]).header.ID
        assert first + at == pb.InternalRaftRequest.FromString(seen[at]).header.ID


def test_a_field_above_fifteen_has_a_longer_tag() -> None:
    assert tag(4) == b"\x22"
    assert pb.InternalRaftRequest.FromString(tag(1300) + b"\x00").HasField("cluster_version_set")


def test_ids_of_other_entries_and_of_requests_never_meet() -> None:
    ids = RequestIds(5, 1)
    numbers = []
    for turn in range(40_000):
        if turn % 3 == 0:
            numbers.append(ids.next_id())
        else:
            numbers.append(read_varint(ids.next_header(), 4)[0])
    assert numbers == list(range(numbers[0], numbers[0] + 40_000))
