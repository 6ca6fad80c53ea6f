"""What requests are refused for before anything is proposed or read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from etcdtw.grpc.call import StatusError
from etcdtw.rpc.kv.checks import (
    check_delete_range,
    check_put,
    check_range,
    check_range_stream,
    check_txn,
    is_read_only,
    is_serializable,
)
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import plain, txn_of

EMPTY_KEY = "etcdserver: key is not provided"
DUPLICATE = "etcdserver: duplicate key given in txn request"
TOO_MANY = "etcdserver: too many operations in txn request"
BAD_SORT = "etcdserver: invalid sort option"


def refusal(check: Callable[..., None], *arguments: Any) -> str | None:
    try:
        check(*[plain(argument) for argument in arguments])
    except StatusError as error:
        return error.message
    return None


def put(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, **fields))


def delete(key: bytes, range_end: bytes = b"") -> pb.RequestOp:
    return pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, range_end=range_end))


def read(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, **fields))


def nested(then: list[pb.RequestOp], otherwise: list[pb.RequestOp] | None = None) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(success=then, failure=otherwise or []))


def txn_refusal(*ops: pb.RequestOp, ops_max: int = 128) -> str | None:
    then = refusal(check_txn, pb.TxnRequest(success=ops), ops_max)
    otherwise = refusal(check_txn, pb.TxnRequest(failure=ops), ops_max)
    assert then == otherwise, "both branches are checked alike"
    return then


@pytest.mark.parametrize(
    ("check", "request_"),
    [
        (check_range, pb.RangeRequest(range_end=b"z")),
        (check_put, pb.PutRequest(value=b"v")),
        (check_delete_range, pb.DeleteRangeRequest(range_end=b"\0")),
        (check_txn, pb.TxnRequest(compare=[pb.Compare()])),
        (check_txn, pb.TxnRequest(success=[put(b"")])),
        (check_txn, pb.TxnRequest(failure=[read(b"")])),
        (check_txn, pb.TxnRequest(failure=[delete(b"")])),
        (check_txn, pb.TxnRequest(success=[nested([put(b"")])])),
    ],
)
def test_an_empty_key_is_refused_everywhere(check: Callable[..., None], request_: Any) -> None:
    assert refusal(check, request_) == EMPTY_KEY


@pytest.mark.parametrize(
    ("order", "target", "text"),
    [(0, 0, None), (2, 4, None), (3, 0, BAD_SORT), (0, 5, BAD_SORT), (-1, 0, BAD_SORT)],
)
def test_sort_options_must_be_known(order: int, target: int, text: str | None) -> None:
    request = pb.RangeRequest(key=b"k", sort_order=order, sort_target=target)
    assert refusal(check_range, request) == text
    assert refusal(check_txn, pb.TxnRequest(success=[nested([]), read(b"k")])) is None
    wrapped = pb.TxnRequest(success=[pb.RequestOp(request_range=request)])
    assert refusal(check_txn, wrapped) == text


def test_a_negative_limit_and_crossed_bounds_are_accepted() -> None:
    request = pb.RangeRequest(
        key=b"k", range_end=b"a", limit=-1, revision=-1, min_mod_revision=5, max_mod_revision=1
    )
    assert refusal(check_range, request) is None


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"ignore_value": True, "value": b"v"}, "etcdserver: value is provided"),
        ({"ignore_lease": True, "lease": 1}, "etcdserver: lease is provided"),
        ({"ignore_value": True, "ignore_lease": True}, None),
        ({"ignore_value": True, "lease": 1}, None),
    ],
)
def test_what_a_put_keeps_it_must_not_bring(fields: dict[str, Any], text: str | None) -> None:
    assert refusal(check_put, pb.PutRequest(key=b"k", **fields)) == text
    assert txn_refusal(put(b"k", **fields)) == text


def test_the_key_of_a_put_is_checked_before_its_value() -> None:
    assert refusal(check_put, pb.PutRequest(ignore_value=True, value=b"v")) == EMPTY_KEY


@pytest.mark.parametrize("field", ["min_mod_revision", "max_create_revision"])
def test_a_range_stream_takes_no_revision_filters(field: str) -> None:
    request = pb.RangeRequest(key=b"k")
    setattr(request, field, 1)  # protobuf
    text = "RangeStream does not support revision filters"
    assert refusal(check_range_stream, request) == text


@pytest.mark.parametrize(
    ("order", "target", "is_fine"),
    [(0, 0, True), (1, 0, True), (0, 2, True), (1, 2, False), (2, 0, False)],
)
def test_a_range_stream_has_the_keys_order(order: int, target: int, is_fine: bool) -> None:
    request = pb.RangeRequest(key=b"k", sort_order=order, sort_target=target)
    text = None if is_fine else "RangeStream does not support custom sort orders"
    assert refusal(check_range_stream, request) == text


def test_a_range_stream_is_a_range_first() -> None:
    assert refusal(check_range_stream, pb.RangeRequest(sort_order=2)) == EMPTY_KEY


def test_an_operation_without_a_request_is_key_not_found() -> None:
    assert txn_refusal(pb.RequestOp()) == "etcdserver: key not found"


@pytest.mark.parametrize(("count", "text"), [(128, None), (129, TOO_MANY)])
def test_a_txn_holds_128_operations_in_each_list(count: int, text: str | None) -> None:
    ops = [put(b"%d" % i) for i in range(count)]
    compares = [pb.Compare(key=b"k")] * count
    assert txn_refusal(*ops) == text
    assert refusal(check_txn, pb.TxnRequest(compare=compares)) == text
    both = pb.TxnRequest(compare=compares[:128], success=ops[:128], failure=ops[:128])
    assert refusal(check_txn, both) is None


@pytest.mark.parametrize(("inner", "text"), [(27, None), (28, TOO_MANY)])
def test_a_nested_txn_has_what_its_parent_leaves(inner: int, text: str | None) -> None:
    ops = [read(b"k")] * 100
    assert txn_refusal(*ops, nested([read(b"k")] * inner)) == text


def test_the_depth_is_bounded_by_the_same_budget() -> None:
    txn = nested([read(b"k")])
    for _ in range(5):
        txn = nested([txn])
    assert txn_refusal(txn, ops_max=7) is None
    assert txn_refusal(txn, ops_max=6) == TOO_MANY


@pytest.mark.parametrize(
    "ops",
    [
        [put(b"a"), put(b"a")],
        [put(b"a"), delete(b"a")],
        [delete(b"a"), put(b"a")],
        [put(b"b"), delete(b"a", b"c")],
        [put(b"b"), delete(b"x", b"z"), delete(b"a", b"aa"), delete(b"a", b"bb")],
        [put(b"b"), delete(b"a", b"c"), delete(b"aa", b"ab")],
        [put(b"a"), nested([put(b"a")])],
        [put(b"a"), nested([], [put(b"a")])],
        [put(b"a"), nested([delete(b"a")])],
        [nested([put(b"a")]), delete(b"a")],
        [nested([put(b"a")]), nested([put(b"a")])],
        [nested([put(b"a")], []), nested([], [put(b"a")])],
        [nested([delete(b"a")]), nested([put(b"a")])],
        [nested([nested([put(b"a"), put(b"a")])])],
    ],
)
def test_a_key_is_not_put_twice_nor_put_and_deleted(ops: list[pb.RequestOp]) -> None:
    assert txn_refusal(*ops) == DUPLICATE


@pytest.mark.parametrize(
    "ops",
    [
        [put(b"a"), put(b"b")],
        [put(b"c"), delete(b"a", b"c")],
        [put(b"a"), delete(b"aa", b"c"), delete(b"b")],
        [delete(b"a"), delete(b"a", b"c")],
        [put(b"a"), read(b"a"), read(b"a", range_end=b"\0")],
        [nested([put(b"a")], [put(b"a")])],
        [nested([put(b"a")]), nested([delete(b"a")])],
        [nested([put(b"a")], [delete(b"a")])],
        # Tried on etcd 3.5.1: to the end of all keys, or backwards, overlaps nothing.
        [put(b"b"), delete(b"a", b"\0")],
        [put(b"b"), delete(b"\0", b"\0")],
        [put(b"b"), delete(b"c", b"a")],
    ],
)
def test_what_excludes_or_deletes_each_other_may_overlap(ops: list[pb.RequestOp]) -> None:
    assert txn_refusal(*ops) is None


def test_the_two_branches_of_a_txn_may_put_the_same_key() -> None:
    txn = pb.TxnRequest(success=[put(b"a"), put(b"b")], failure=[put(b"a"), put(b"b")])
    assert refusal(check_txn, txn) is None


def test_only_ranges_make_a_txn_read_only() -> None:
    assert is_read_only(txn_of(pb.TxnRequest(compare=[pb.Compare(key=b"k")])))
    assert is_read_only(txn_of(pb.TxnRequest(success=[read(b"a")], failure=[read(b"b")])))
    assert not is_read_only(txn_of(pb.TxnRequest(success=[read(b"a")], failure=[put(b"b")])))
    assert not is_read_only(txn_of(pb.TxnRequest(success=[nested([read(b"a")])])))


def test_a_read_only_txn_is_serializable_when_every_range_is() -> None:
    local = read(b"a", serializable=True)
    assert is_serializable(txn_of(pb.TxnRequest()))
    assert is_serializable(txn_of(pb.TxnRequest(success=[local], failure=[local])))
    assert not is_serializable(txn_of(pb.TxnRequest(success=[local], failure=[read(b"b")])))
