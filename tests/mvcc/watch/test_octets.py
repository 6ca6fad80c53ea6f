"""Watch responses as octets, against protobuf's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.mvcc.watch.octets import (
    CANCELED,
    CREATED,
    FRAGMENT,
    encode_compacted,
    encode_event,
    encode_reason,
    encode_varint,
    encode_watch_id,
    key_of,
    tombstone_record,
)
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import mvccpb

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(INT64, INT64, st.text(max_size=200))
def test_every_field_is_as_protobuf_writes_it(
    watch_id: int, compact_revision: int, reason: str
) -> None:
    expected = pb.WatchResponse(
        watch_id=watch_id,
        created=True,
        canceled=True,
        compact_revision=compact_revision,
        cancel_reason=reason,
        fragment=True,
    )
    octets = encode_watch_id(watch_id) + CREATED + CANCELED
    octets += encode_compacted(compact_revision) + encode_reason(reason) + FRAGMENT
    assert pb.WatchResponse.FromString(octets) == expected
    if compact_revision:
        assert octets == expected.SerializeToString()


@given(st.booleans(), st.binary(min_size=1, max_size=300), st.none() | st.binary(max_size=300))
def test_events_are_as_protobuf_writes_them(
    is_delete: bool, value: bytes, previous: bytes | None
) -> None:
    kv = mvccpb.KeyValue(key=b"k", mod_revision=7, value=value)
    prev_kv = None if previous is None else mvccpb.KeyValue(key=b"k", value=previous)
    event = mvccpb.Event(type=int(is_delete), kv=kv, prev_kv=prev_kv)
    expected = pb.WatchResponse(events=[event]).SerializeToString()
    before = None if prev_kv is None else prev_kv.SerializeToString()
    assert encode_event(is_delete, kv.SerializeToString(), before) == expected


@pytest.mark.parametrize("length", [1, 127, 128, 16_383, 16_384, 3_000_000])
def test_the_key_of_a_record_is_found_at_any_length(length: int) -> None:
    key = b"k" * length
    record = mvccpb.KeyValue(key=key, mod_revision=3, value=b"v").SerializeToString()
    assert key_of(record) == key
    tombstone = mvccpb.KeyValue(key=key).SerializeToString()
    full = mvccpb.KeyValue(key=key, mod_revision=300).SerializeToString()
    assert tombstone_record(tombstone, 300) == full


@pytest.mark.parametrize(("value", "size"), [(0, 1), (127, 1), (128, 2), (-1, 10), (2**63 - 1, 9)])
def test_a_varint_takes_as_many_octets_as_protobuf_says(value: int, size: int) -> None:
    assert len(encode_varint(value)) == size
