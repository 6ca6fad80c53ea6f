"""Requests as records: whatever protobuf says that octets mean, the records say too."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import delimited, encode_record
from etcdtw.wire.mvccpb import KeyValue
from etcdtw.wire.record import Record, record_of
from etcdtw.wire.requests import parse_put, parse_txn, put_of, txn_of, usual_lease_id
from tests.support.records import content

KEYS = st.sampled_from([b"", b"a", b"key", b"k" * 130, b"\xff\0"])
NUMBERS = st.sampled_from([0, 1, 127, 128, 2**31, 2**55, 2**56, 2**63 - 1, -1, -(2**63)])

puts = st.builds(
    pb.PutRequest,
    key=KEYS,
    value=st.sampled_from([b"", b"v", b"v" * 20_000]),
    lease=NUMBERS,
    prev_kv=st.booleans(),
    ignore_value=st.booleans(),
    ignore_lease=st.booleans(),
)


def _compares() -> st.SearchStrategy[Any]:
    fixed: dict[str, Any] = {
        "key": KEYS,
        "range_end": KEYS,
        "result": st.sampled_from([0, 1, 2, 3, 9]),
        "target": st.sampled_from([0, 1, 2, 3, 4, 7]),
    }
    return st.one_of(
        st.builds(pb.Compare, **fixed),
        st.builds(pb.Compare, value=KEYS, **fixed),
        *[
            st.builds(pb.Compare, **fixed, **{name: NUMBERS})
            for name in ("version", "create_revision", "mod_revision", "lease")
        ],
    )


def _txns(ops: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    few = st.lists(ops, max_size=3)
    compares = st.lists(_compares(), max_size=3)
    return st.builds(pb.TxnRequest, compare=compares, success=few, failure=few)


plain_ops = st.one_of(
    st.builds(pb.RequestOp),
    st.builds(pb.RequestOp, request_put=puts),
    st.builds(pb.RequestOp, request_range=st.builds(pb.RangeRequest, key=KEYS, limit=NUMBERS)),
    st.builds(pb.RequestOp, request_delete_range=st.builds(pb.DeleteRangeRequest, key=KEYS)),
)
txns = _txns(
    st.recursive(
        plain_ops, lambda ops: st.builds(pb.RequestOp, request_txn=_txns(ops)), max_leaves=8
    )
)


@given(puts)
def test_a_put_is_parsed_as_protobuf_parses_it(message: Any) -> None:
    assert content(parse_put(message.SerializeToString())) == content(put_of(message))


@given(txns)
def test_a_txn_is_parsed_as_protobuf_parses_it(message: Any) -> None:
    assert content(parse_txn(message.SerializeToString())) == content(txn_of(message))


@given(st.one_of(puts, txns), st.randoms(use_true_random=False))
def test_damaged_octets_mean_what_protobuf_makes_of_them(message: Any, random: Random) -> None:
    octets = bytearray(message.SerializeToString())
    for _ in range(random.randint(1, 3)):
        if octets:
            octets[random.randrange(len(octets))] = random.choice([0, 8, 0x0A, 0x12, 0x80, 0xFF])
    octets = octets[: random.randint(0, len(octets))] if random.random() < 0.3 else octets
    is_put = isinstance(message, pb.PutRequest)
    try:
        expected: Any = type(message).FromString(bytes(octets))
    except DecodeError:
        with pytest.raises(DecodeError):
            (parse_put if is_put else parse_txn)(bytes(octets))
        return
    found: Any = parse_put(bytes(octets)) if is_put else parse_txn(bytes(octets))
    assert content(found) == content(put_of(expected) if is_put else txn_of(expected))


@pytest.mark.parametrize(
    "octets",
    [
        b"\x0a\x01a\x0a\x01b",  # a field twice: the last one counts
        b"\x12\x01v\x0a\x01k",  # out of order
        b"\x0a\x01k\x3a\x01x",  # an unknown field
        b"\x0a\x01k\x98\x7d\x01",  # an unknown field with a long tag
        b"\x0a\x81\x00k",  # a length that is longer than it need be
        b"\x0a\x01k\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # lease -1
    ],
)
def test_unusual_puts_mean_what_protobuf_says(octets: bytes) -> None:
    assert content(parse_put(octets)) == content(put_of(pb.PutRequest.FromString(octets)))


def test_an_operation_given_twice_means_what_protobuf_says() -> None:
    put = delimited(b"\x12", pb.PutRequest(key=b"k").SerializeToString())
    again = delimited(b"\x12", pb.PutRequest(value=b"v").SerializeToString())
    delete = delimited(b"\x1a", pb.DeleteRangeRequest(key=b"d").SerializeToString())
    for op in (put + again, put + delete):
        octets = delimited(b"\x12", op)
        assert content(parse_txn(octets)) == content(txn_of(pb.TxnRequest.FromString(octets)))


@pytest.mark.parametrize(
    "compare",
    [
        b"\x0a\x03abc\x1a\x01k",  # a known field of another type
        b"\x12\x01a\x1a\x01k",
        b"\x18\x01\x1a\x01k",
        b"\x1a\x01k\x22\x01a",
        b"\x1a\x01k\x38\x01",
        b"\x1a\x01k\x80\x04\x01",
    ],
)
def test_unusual_compares_mean_what_protobuf_says(compare: bytes) -> None:
    octets = delimited(b"\x0a", compare)
    assert content(parse_txn(octets)) == content(txn_of(pb.TxnRequest.FromString(octets)))


def test_an_operand_of_another_target_counts_as_zero() -> None:
    compare = pb.Compare(key=b"k", target=pb.Compare.MOD, version=7)
    parsed = parse_txn(pb.TxnRequest(compare=[compare]).SerializeToString())
    assert parsed.compare[0].number == 0


@given(KEYS, NUMBERS, NUMBERS, NUMBERS, KEYS, NUMBERS)
def test_a_record_reads_as_protobuf_reads_it(
    key: bytes, create: int, mod: int, version: int, value: bytes, lease: int
) -> None:
    octets = encode_record(key, create, mod, version, value, lease)
    record, kv = Record(octets), KeyValue.FromString(octets)
    found = (record.key, record.create_revision, record.mod_revision, record.version)
    assert found == (kv.key, kv.create_revision, kv.mod_revision, kv.version)
    assert (record.value, record.lease) == (kv.value, kv.lease)


def test_the_octets_of_a_record_in_another_order_are_read_as_well() -> None:
    record = Record(b"\x20\x03\x0a\x01k\x2a\x01v")
    assert (record.key, record.version, record.value) == (b"k", 3, b"v")


@pytest.mark.parametrize("size", [1, 127, 128, 20_000])
def test_a_frame_gives_its_record(size: int) -> None:
    record = encode_record(b"k", 1, 1, 1, b"v" * size, 0)
    assert record_of(delimited(b"\x12", record)) == record


def test_a_txn_is_parsed_however_deep_the_most_operations_let_it_nest() -> None:
    # Each level costs one of 128 operations; protobuf for Python itself ends at 49 levels.
    depth = 140
    octets = delimited(b"\x12", delimited(b"\x12", b"\x0a\x01k"))
    for _ in range(depth):
        octets = delimited(b"\x12", delimited(b"\x22", octets))
    txn = parse_txn(octets)
    for _ in range(depth):
        (op,) = txn.success
        assert op.txn is not None
        txn = op.txn
    assert txn.success[0].put is not None
    assert txn.success[0].put.key == b"k"


@pytest.mark.parametrize("lease_id", [1, 127, 128, 2**31, 2**56, 2**63 - 1])
def test_a_lease_that_is_to_be_renewed_is_read_as_protobuf_reads_it(lease_id: int) -> None:
    octets = pb.LeaseKeepAliveRequest(ID=lease_id).SerializeToString()
    assert usual_lease_id(octets) == lease_id


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x08",
        b"\x08\x80",
        b"\x08\x01\x08\x02",
        b"\x10\x01",
        b"\x0a\x01a",
        b"\x08" + b"\xff" * 10 + b"\x01",
        pb.LeaseKeepAliveRequest(ID=-1).SerializeToString(),
    ],
)
def test_what_else_a_renewal_may_be_is_left_to_protobuf(octets: bytes) -> None:
    assert usual_lease_id(octets) < 0
