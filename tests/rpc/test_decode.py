"""Requests from octets: what is understood, and what of it goes into the log."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.rpc.decode import decode_entry, decode_put, decode_txn
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import delimited
from etcdtw.wire.requests import put_of, txn_of
from tests.support.records import content

# Real members up to 3.5 refuse a known field of another wire type, and of one operation given
# twice in a RequestOp they take the second alone: such an entry kills them, or they diverge.
WRONG_TYPE = b"\x08\x01"
UNKNOWN = b"\xf8\x07\x01"


def op(*parts: tuple[bytes, Any]) -> bytes:
    """Return the success field with one RequestOp of these fields."""
    return delimited(b"\x12", b"".join(delimited(tag, octets) for tag, octets in parts))


def test_octets_of_a_usual_put_go_into_the_log_as_they_came() -> None:
    octets = pb.PutRequest(key=b"k", value=b"v", lease=7, prev_kv=True).SerializeToString()
    assert decode_put(octets)[1] is octets


def test_octets_of_a_usual_txn_go_into_the_log_as_they_came() -> None:
    ops = [
        pb.RequestOp(request_put=pb.PutRequest(key=b"k")),
        pb.RequestOp(request_range=pb.RangeRequest(key=b"k", range_end=b"l", limit=3)),
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"d", prev_kv=True)),
        pb.RequestOp(request_txn=pb.TxnRequest()),
    ]
    compare = pb.Compare(key=b"k", target=pb.Compare.MOD, mod_revision=4)
    octets = pb.TxnRequest(compare=[compare], success=ops).SerializeToString()
    assert decode_txn(octets)[1] is octets


@pytest.mark.parametrize("odd", [WRONG_TYPE, UNKNOWN, b"\x0a\x01j"])
def test_an_unusual_put_goes_into_the_log_as_it_was_understood(odd: bytes) -> None:
    request, octets = decode_put(odd + b"\x0a\x01k\x12\x01v")
    assert octets == pb.PutRequest(key=b"k", value=b"v").SerializeToString()
    assert content(request) == content(put_of(pb.PutRequest(key=b"k", value=b"v")))


@pytest.mark.parametrize(
    ("octets", "understood"),
    [
        (
            op((b"\x12", b"\x0a\x01k\x12\x011"), (b"\x12", b"\x12\x012")),
            pb.RequestOp(request_put=pb.PutRequest(key=b"k", value=b"2")),
        ),
        (
            op((b"\x12", WRONG_TYPE + b"\x0a\x01k")),
            pb.RequestOp(request_put=pb.PutRequest(key=b"k")),
        ),
        (
            op((b"\x0a", b"\x0a\x01k" + WRONG_TYPE)),
            pb.RequestOp(request_range=pb.RangeRequest(key=b"k")),
        ),
        (
            op((b"\x1a", WRONG_TYPE + b"\x0a\x01k")),
            pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"k")),
        ),
        (
            op((b"\x22", op((b"\x0a", WRONG_TYPE + b"\x0a\x01k")))),
            pb.RequestOp(
                request_txn=pb.TxnRequest(
                    success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))]
                )
            ),
        ),
    ],
)
def test_an_unusual_txn_goes_into_the_log_as_it_was_understood(
    octets: bytes, understood: pb.RequestOp
) -> None:
    expected = pb.TxnRequest(success=[understood])
    request, proposed = decode_txn(octets)
    assert proposed == expected.SerializeToString()
    assert content(request) == content(txn_of(expected))


def test_other_requests_go_into_the_log_as_they_were_understood() -> None:
    request, octets = decode_entry(pb.DeleteRangeRequest, WRONG_TYPE + b"\x0a\x01k" + UNKNOWN)
    assert octets == pb.DeleteRangeRequest(key=b"k").SerializeToString()
    assert request == pb.DeleteRangeRequest(key=b"k")
