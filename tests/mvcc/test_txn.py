"""Txns: each test is one fact about TxnRequest and Compare."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.mvcc.cost import txn_cost
from etcdtw.mvcc.errors import (
    CompactedError,
    FutureRevisionError,
    KeyNotFoundError,
    LeaseNotFoundError,
)
from etcdtw.mvcc.store import Store
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import put_of, txn_of
from tests.support.late_answers import apply_txn
from tests.support.model_backend import ModelBackend

EQUAL, GREATER, LESS, NOT_EQUAL = range(4)
VERSION, CREATE, MOD, VALUE, LEASE = range(5)


def put(key: bytes, value: bytes = b"v", **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_put=pb.PutRequest(key=key, value=value, **fields))


def delete(key: bytes, range_end: bytes = b"", **fields: Any) -> pb.RequestOp:
    request = pb.DeleteRangeRequest(key=key, range_end=range_end, **fields)
    return pb.RequestOp(request_delete_range=request)


def read(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, **fields))


def nested(**fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_txn=pb.TxnRequest(**fields))


class TxnRig:
    """A store in which a has versions 1 to 3 (revisions 2, 3, 4), b is new (5) with a lease."""

    def __init__(self) -> None:
        self.backend = ModelBackend()
        self.store = Store(self.backend, (7).__eq__)
        for i in range(3):
            self.store.apply_put(put_of(pb.PutRequest(key=b"a", value=b"%d" % i)))
        self.store.apply_put(put_of(pb.PutRequest(key=b"b", value=b"5", lease=7)))

    def run(self, **fields: Any) -> pb.TxnResponse:
        applied = apply_txn(self.store, txn_of(pb.TxnRequest(**fields)))
        assert applied.error is None
        return pb.TxnResponse.FromString(applied.body)

    def error(self, *ops: pb.RequestOp) -> Exception | None:
        before = (self.store.revision, dict(self.backend.revisions))
        error = apply_txn(self.store, txn_of(pb.TxnRequest(success=ops))).error
        assert before == (self.store.revision, self.backend.revisions), "changed something"
        return error

    def holds(self, key: bytes, target: int, result: int, **fields: Any) -> bool:
        compare = pb.Compare(key=key, target=target, result=result, **fields)
        return self.run(compare=[compare]).succeeded


@pytest.fixture
def rig() -> TxnRig:
    return TxnRig()


@pytest.mark.parametrize(
    ("target", "name", "stored"),
    [
        (VERSION, "version", 3),
        (CREATE, "create_revision", 2),
        (MOD, "mod_revision", 4),
        (LEASE, "lease", 0),
    ],
)
def test_each_number_compares_in_four_ways(
    rig: TxnRig, target: int, name: str, stored: int
) -> None:
    for given in (stored - 1, stored, stored + 1):
        outcomes = [rig.holds(b"a", target, result, **{name: given}) for result in range(4)]
        assert outcomes == [stored == given, stored > given, stored < given, stored != given]


def test_a_value_compares_by_its_octets(rig: TxnRig) -> None:
    for given in (b"", b"1", b"2", b"20", b"3"):
        outcomes = [rig.holds(b"a", VALUE, result, value=given) for result in range(4)]
        assert outcomes == [given == b"2", given < b"2", given > b"2", given != b"2"]


def test_a_compare_without_a_value_compares_with_zero(rig: TxnRig) -> None:
    assert rig.holds(b"a", VERSION, GREATER)
    assert rig.holds(b"a", VALUE, GREATER)
    assert rig.holds(b"a", LEASE, EQUAL)
    # The value given is for another target.
    assert not rig.holds(b"a", VERSION, EQUAL, mod_revision=3)


@pytest.mark.parametrize("target", [VERSION, CREATE, MOD, LEASE])
@pytest.mark.parametrize("range_end", [b"", b"zz", b"x"])
def test_an_absent_key_compares_as_zeros(rig: TxnRig, target: int, range_end: bytes) -> None:
    assert rig.holds(b"z", target, EQUAL, range_end=range_end)
    assert not rig.holds(b"z", target, NOT_EQUAL, range_end=range_end)


@pytest.mark.parametrize("result", [EQUAL, GREATER, LESS, NOT_EQUAL])
@pytest.mark.parametrize("range_end", [b"", b"zz", b"x"])
def test_the_value_of_an_absent_key_satisfies_nothing(
    rig: TxnRig, result: int, range_end: bytes
) -> None:
    assert not rig.holds(b"z", VALUE, result, range_end=range_end)


def test_every_key_of_a_range_must_satisfy(rig: TxnRig) -> None:
    assert rig.holds(b"a", VERSION, GREATER, range_end=b"\0")
    assert not rig.holds(b"a", VERSION, GREATER, version=1, range_end=b"\0")
    assert rig.holds(b"a", VERSION, GREATER, version=1, range_end=b"b")


@pytest.mark.parametrize("count", [1_000, 1_001, 2_000])
def test_a_large_range_is_compared_to_its_end(count: int) -> None:
    rig = TxnRig()
    for i in range(count):
        rig.backend.live[b"x%05d" % i] = b"\x0a\x06x%05d\x20\x02" % i
    assert rig.holds(b"x", VERSION, EQUAL, version=2, range_end=b"y")
    last = b"x%05d" % (count - 1)
    rig.backend.live[last] = b"\x0a\x06%b\x20\x03" % last
    assert not rig.holds(b"x", VERSION, EQUAL, version=2, range_end=b"y")


def test_an_unknown_result_holds_and_an_unknown_target_is_zero(rig: TxnRig) -> None:
    assert rig.holds(b"a", VERSION, 9, version=77)
    assert rig.holds(b"a", 9, EQUAL, version=77)
    assert not rig.holds(b"a", 9, NOT_EQUAL, version=77)


def test_no_compares_succeed_and_all_must_hold(rig: TxnRig) -> None:
    good = pb.Compare(key=b"a", target=VERSION, result=EQUAL, version=3)
    bad = pb.Compare(key=b"a", target=VERSION, result=EQUAL, version=4)
    assert rig.run().succeeded
    assert rig.run(compare=[good, good]).succeeded
    assert not rig.run(compare=[good, bad]).succeeded


def test_the_failing_branch_runs_when_a_compare_fails(rig: TxnRig) -> None:
    bad = pb.Compare(key=b"a", target=VERSION, result=EQUAL)
    response = rig.run(compare=[bad], success=[put(b"yes")], failure=[read(b"a"), read(b"b")])
    assert [op.response_range.kvs[0].key for op in response.responses] == [b"a", b"b"]
    assert rig.store.revision == 5


def test_all_changes_of_a_txn_are_one_revision_in_order(rig: TxnRig) -> None:
    response = rig.run(success=[put(b"x"), delete(b"a", b"c"), nested(success=[put(b"y")])])
    assert len(response.responses) == 3
    assert rig.store.revision == 6
    changes = [(c.main, c.sub, c.is_tombstone) for c in rig.backend.changes_from(6, 0, 6, 9)]
    assert changes == [(6, 0, False), (6, 1, True), (6, 2, True), (6, 3, False)]


def test_later_operations_see_earlier_ones(rig: TxnRig) -> None:
    response = rig.run(
        success=[read(b"x"), put(b"x"), read(b"x"), delete(b"x", prev_kv=True), read(b"x")]
    )
    counts = [response.responses[i].response_range.count for i in (0, 2, 4)]
    assert counts == [0, 1, 0]
    assert response.responses[3].response_delete_range.prev_kvs[0].create_revision == 6


def test_nested_headers_hold_the_revision_as_it_is_then(rig: TxnRig) -> None:
    responses = rig.run(
        success=[read(b"a"), delete(b"z"), put(b"x", prev_kv=True), read(b"a"), delete(b"z")]
    ).responses
    headers = [
        responses[0].response_range.header,
        responses[1].response_delete_range.header,
        responses[2].response_put.header,
        responses[3].response_range.header,
        responses[4].response_delete_range.header,
    ]
    assert headers == [pb.ResponseHeader(revision=revision) for revision in (5, 5, 6, 6, 6)]


def test_the_header_of_a_nested_txn_is_there_and_empty(rig: TxnRig) -> None:
    inner = rig.run(success=[nested(success=[put(b"x")])]).responses[0].response_txn
    assert inner.HasField("header")
    assert inner.header == pb.ResponseHeader()
    assert inner.succeeded


def test_nested_compares_look_at_the_state_before_the_txn(rig: TxnRig) -> None:
    exists = pb.Compare(key=b"x", target=VERSION, result=GREATER)
    inner = {"compare": [exists], "success": [put(b"yes")], "failure": [put(b"no")]}
    rig.run(success=[put(b"x"), nested(**inner)])
    assert sorted(rig.backend.live) == [b"a", b"b", b"no", b"x"]


def test_each_nested_txn_takes_its_own_path(rig: TxnRig) -> None:
    is_a = pb.Compare(key=b"a", target=VERSION, result=GREATER)
    is_z = pb.Compare(key=b"z", target=VERSION, result=GREATER)
    deep = nested(compare=[is_z], success=[put(b"1")], failure=[put(b"2")])
    response = rig.run(
        success=[
            nested(compare=[is_a], success=[deep, put(b"3")], failure=[put(b"4")]),
            nested(compare=[is_z], success=[put(b"5")], failure=[put(b"6")]),
        ]
    )
    assert sorted(rig.backend.live) == [b"2", b"3", b"6", b"a", b"b"]
    assert [op.response_txn.succeeded for op in response.responses] == [True, False]


def test_a_put_in_a_txn_returns_the_previous_pair(rig: TxnRig) -> None:
    responses = rig.run(success=[put(b"a", prev_kv=True), put(b"x", prev_kv=True)]).responses
    assert responses[0].response_put.prev_kv.value == b"2"
    assert not responses[1].response_put.HasField("prev_kv")


def test_one_bad_operation_undoes_the_whole_txn(rig: TxnRig) -> None:
    assert isinstance(rig.error(put(b"x"), put(b"y", lease=9)), LeaseNotFoundError)
    assert isinstance(rig.error(put(b"x"), put(b"y", b"", ignore_value=True)), KeyNotFoundError)
    assert isinstance(rig.error(put(b"x"), put(b"y", ignore_lease=True)), KeyNotFoundError)
    assert isinstance(rig.error(put(b"x"), read(b"a", revision=6)), FutureRevisionError)
    inner = nested(success=[read(b"a", revision=99)])
    assert isinstance(rig.error(put(b"x"), inner), FutureRevisionError)


def test_what_is_to_be_kept_must_exist_before_the_txn(rig: TxnRig) -> None:
    ops = [put(b"x"), put(b"x", b"", ignore_value=True)]  # never passes the check of the service
    assert isinstance(rig.error(*ops), KeyNotFoundError)


def test_of_several_reasons_the_first_operation_tells_its_own(rig: TxnRig) -> None:
    reasons = [
        (read(b"a", revision=99), FutureRevisionError),
        (read(b"a", revision=-2), CompactedError),
        (put(b"x", lease=9), LeaseNotFoundError),
        (put(b"x", b"", ignore_value=True), KeyNotFoundError),
        (put(b"x", b"", ignore_value=True, lease=9), LeaseNotFoundError),
    ]
    for first, reason in reasons:
        for second, _ in reasons:
            assert isinstance(rig.error(first, second), reason)
            assert isinstance(rig.error(nested(success=[first]), second), reason)
            assert isinstance(rig.error(put(b"y"), first, nested(success=[second])), reason)


@pytest.mark.parametrize("range_end", [b"", b"b", b"\0"])
def test_what_is_to_be_kept_must_not_be_deleted_before(rig: TxnRig, range_end: bytes) -> None:
    # To the end of all keys, etcd 3.5.1 accepts this and then panics in every member.
    keeping = put(b"a", b"", ignore_value=True)
    gone = rig.error(nested(success=[delete(b"a", range_end)]), nested(success=[keeping]))
    assert isinstance(gone, KeyNotFoundError)
    assert isinstance(rig.error(delete(b"a", range_end), keeping), KeyNotFoundError)
    assert rig.run(success=[delete(b"b"), keeping, delete(b"a", range_end)]).succeeded


def test_the_branch_not_taken_is_not_checked(rig: TxnRig) -> None:
    assert rig.run(failure=[put(b"x", lease=9), read(b"a", revision=99)]).succeeded


def test_a_range_of_a_past_revision_is_read_after_a_write_too(rig: TxnRig) -> None:
    responses = rig.run(
        success=[put(b"a", b"new"), read(b"a", revision=5), read(b"a", revision=2), read(b"a")]
    ).responses
    values = [op.response_range.kvs[0].value for op in responses[1:]]
    assert values == [b"2", b"0", b"new"]


def test_a_negative_revision_is_compacted_but_for_minus_one_before_any_compaction(
    rig: TxnRig,
) -> None:
    assert rig.error(read(b"a", revision=-1)) is None
    assert isinstance(rig.error(read(b"a", revision=-2)), CompactedError)
    rig.store.apply_compaction(pb.CompactionRequest(revision=3))
    assert isinstance(rig.error(read(b"a", revision=-1)), CompactedError)
    assert isinstance(rig.error(read(b"a", revision=2)), CompactedError)
    assert rig.error(read(b"a", revision=3)) is None


def test_a_txn_of_ranges_can_be_read_without_an_entry(rig: TxnRig) -> None:
    applied = rig.store.read_txn(txn_of(pb.TxnRequest(success=[read(b"a")])))
    response = pb.TxnResponse.FromString(applied.body)
    assert response.responses[0].response_range.count == 1
    assert applied.revision == 5
    refused = rig.store.read_txn(txn_of(pb.TxnRequest(success=[read(b"a", revision=9)])))
    assert isinstance(refused.error, FutureRevisionError)


def test_an_operation_without_a_request_answers_nothing(rig: TxnRig) -> None:
    assert rig.run(success=[pb.RequestOp()]).responses == [pb.ResponseOp()]


def test_a_txn_costs_its_dearer_branch_with_everything_nested() -> None:
    cheap = [put(b"k", b"v"), delete(b"z"), read(b"z")]
    dear = [put(b"k", b"v" * 10), nested(success=[put(b"kk", b"v")], failure=[delete(b"z")])]
    assert txn_cost(txn_of(pb.TxnRequest(success=cheap))) == 258
    assert txn_cost(txn_of(pb.TxnRequest(success=cheap, failure=dear))) == 267 + 259
    assert txn_cost(txn_of(pb.TxnRequest(success=[delete(b"k")]))) == 0
