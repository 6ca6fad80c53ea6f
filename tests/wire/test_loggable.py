"""etcd's texts of requests; what is expected here was logged by the real binary, 3.7.3."""

from __future__ import annotations

import pytest

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.loggable import (
    KEY_SIZE_MAX,
    OPERATIONS_MAX,
    SIZED_MAX,
    TXN_OPERATIONS_MAX,
    TXN_TEXT_SIZE_MAX,
    duration_text,
    message_text,
    operations_size,
    put_text,
    txn_text,
)
from etcdtw.wire.requests import plain, txn_of


def test_a_put_shows_the_size_of_its_value() -> None:
    put = pb.PutRequest(key=b'k\xff"x\n', value=b"secretvalue")
    assert put_text(plain(put)) == 'key:"k\\377\\"x\\n" value_size:11 '
    assert put_text(plain(pb.PutRequest(value=b"secret"))) == "value_size:6 "
    put = pb.PutRequest(key=b"k2", value=b"secret", lease=77, prev_kv=True)
    assert put_text(plain(put)) == 'key:"k2" value_size:6 lease:77 prev_kv:true '


def test_ranges_and_deletes_are_shown_whole() -> None:
    a_range = pb.RangeRequest(
        key=b"k", range_end=b"\0", limit=3, revision=2, sort_order=pb.RangeRequest.ASCEND
    )
    text = 'key:"k"  range_end:"\\x00"  limit:3  revision:2  sort_order:ASCEND'
    assert message_text(a_range) == text
    a_range = pb.RangeRequest(key=b"k", serializable=True)
    assert message_text(a_range) == 'key:"k"  serializable:true'
    assert message_text(pb.DeleteRangeRequest(key=b"k", range_end=b"l")) == 'key:"k"  range_end:"l"'


def test_a_txn_shows_its_compares_and_both_branches() -> None:
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"p", value=b"secret"))
    txn = pb.TxnRequest(
        compare=[
            pb.Compare(key=b"c", target=pb.Compare.VALUE, value=b"secret"),
            pb.Compare(key=b"c", version=3),
        ],
        success=[put, pb.RequestOp(request_range=pb.RangeRequest(key=b"r"))],
        failure=[
            pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"dd")),
            pb.RequestOp(request_txn=pb.TxnRequest(success=[put])),
        ],
    )
    assert txn_text(txn_of(txn)) == (
        'compare:<target:VALUE key:"c" value_size:6  key:"c"  version:3> '
        'success:<request_put:<key:"p" value_size:6 > request_range:{key:"r"}> '
        'failure:<request_delete_range:{key:"dd"} '
        'request_txn:<compare:<> success:<request_put:<key:"p" value_size:6 >> failure:<>>>'
    )
    sizes = [op.ByteSize() for op in txn.success]
    assert [operations_size([op], 999) for op in txn_of(txn).success] == sizes
    assert operations_size(txn_of(txn).success, 999) == sum(sizes)


def test_keys_that_are_no_text_are_shown_by_their_octets() -> None:
    key = "ä".encode() + b"\xff\x7f\x01\t\\"
    assert message_text(pb.RangeRequest(key=key)) == 'key:"ä\\xff\\x7f\\x01\\t\\\\"'


def test_long_keys_are_cut() -> None:
    text = message_text(pb.RangeRequest(key=b"k" * (KEY_SIZE_MAX + 1)))
    assert text == f'key:"{"k" * KEY_SIZE_MAX}"'


def nested(depth: int, width: int) -> pb.TxnRequest:
    """Return a txn of ``width ** depth`` ranges."""
    if depth == 1:
        op = pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))
    else:
        op = pb.RequestOp(request_txn=nested(depth - 1, width))
    return pb.TxnRequest(success=[op] * width)


def test_of_very_many_nested_operations_the_first_are_shown_and_none_are_added_up() -> None:
    for depth in (2, 3):
        assert txn_text(txn_of(nested(depth, 20))).count("request_") == TXN_OPERATIONS_MAX
    assert operations_size(txn_of(nested(3, 20)).success, 999) == 999
    one = pb.RequestOp(request_range=pb.RangeRequest(key=b"k")).ByteSize()
    assert operations_size(txn_of(nested(2, 20)).success, 999) == 400 * one
    assert operations_size(txn_of(nested(1, SIZED_MAX)).success, 999) == SIZED_MAX * one


def test_a_txn_of_large_keys_shows_the_first_of_them() -> None:
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"\xff" * KEY_SIZE_MAX, value=b"secret"))
    compare = pb.Compare(key=b"k" * KEY_SIZE_MAX, version=3)
    txn = pb.TxnRequest(compare=[compare] * OPERATIONS_MAX, success=[put] * OPERATIONS_MAX)
    text = txn_text(txn_of(txn))
    assert TXN_TEXT_SIZE_MAX < len(text) < TXN_TEXT_SIZE_MAX + 5 * KEY_SIZE_MAX
    assert "request_put" not in text
    text = txn_text(txn_of(pb.TxnRequest(success=[put] * OPERATIONS_MAX)))
    assert TXN_TEXT_SIZE_MAX < len(text) < TXN_TEXT_SIZE_MAX + 5 * KEY_SIZE_MAX


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (5e-9, "5ns"),
        (13.54e-6, "13.54µs"),
        (1.114908e-3, "1.114908ms"),
        (0.3, "300ms"),
        (1.5, "1.5s"),
        (61.0, "61s"),
    ],
)
def test_durations_are_written_as_by_go(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
