"""Compares by the letter: each target with each result, absent keys, ranges and the budget."""

from __future__ import annotations

import operator
from collections.abc import Callable

import pytest

from etcdtw.mvcc.compare import choose_path, record_holds
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.txn_budget import TXN_OCTETS_MAX, Budget, TooMuchError
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import encode_record
from etcdtw.wire.record import Record
from etcdtw.wire.requests import Compare, put_of, txn_of
from tests.support.model_backend import ModelBackend

UNKNOWN = 99
RECORD = Record(encode_record(b"k", 3, 5, 2, b"value", 7))
"""Created at 3, changed at 5, of version 2, under lease 7."""
STORED = {
    pb.Compare.CREATE: 3,
    pb.Compare.MOD: 5,
    pb.Compare.VERSION: 2,
    pb.Compare.LEASE: 7,
}
RESULTS: dict[int, Callable[[int, int], bool]] = {
    pb.Compare.EQUAL: operator.eq,
    pb.Compare.NOT_EQUAL: operator.ne,
    pb.Compare.GREATER: operator.gt,
    pb.Compare.LESS: operator.lt,
}


@pytest.mark.parametrize("target", STORED)
@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("beside", [-1, 0, 1])
def test_a_number_holds_as_python_says(target: int, result: int, beside: int) -> None:
    given = STORED[target] + beside
    compare = Compare(b"k", b"", target, result, given, b"")
    assert record_holds(RECORD, compare) == RESULTS[result](STORED[target], given)


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("given", [b"", b"val", b"value", b"value\0", b"w"])
def test_a_value_holds_by_its_octets(result: int, given: bytes) -> None:
    order = (given < b"value") - (given > b"value")
    compare = Compare(b"k", b"", pb.Compare.VALUE, result, 0, given)
    assert record_holds(RECORD, compare) == RESULTS[result](order, 0)


def test_an_unknown_target_is_zero_beside_zero_and_an_unknown_result_holds() -> None:
    assert record_holds(RECORD, Compare(b"k", b"", UNKNOWN, pb.Compare.EQUAL, 5, b""))
    assert not record_holds(RECORD, Compare(b"k", b"", UNKNOWN, pb.Compare.LESS, 5, b""))
    assert record_holds(RECORD, Compare(b"k", b"", pb.Compare.MOD, UNKNOWN, 99, b""))


def backend(count: int = 3, value: bytes = b"v") -> ModelBackend:
    """Return one with keys k0, k1 ... of version 1."""
    found = ModelBackend()
    store = Store(found, lambda lease_id: True)
    for i in range(count):
        store.apply_put(put_of(pb.PutRequest(key=b"k%d" % i, value=value)))
    return found


def chosen(
    stored: ModelBackend, *compares: pb.Compare, rows_max: int = 100, octets_max: int = 0
) -> bool:
    budget = Budget()
    budget.fill(rows_max)
    assert budget.octets_left == TXN_OCTETS_MAX
    if octets_max:
        budget.octets_left = octets_max
    return choose_path(stored, txn_of(pb.TxnRequest(compare=compares)), {}, budget)[0]


def version(key: bytes, number: int, range_end: bytes = b"") -> pb.Compare:
    return pb.Compare(key=key, range_end=range_end, target=pb.Compare.VERSION, version=number)


def test_an_absent_key_is_compared_as_zeros_and_has_no_value() -> None:
    stored = backend()
    assert chosen(stored, version(b"absent", 0))
    assert not chosen(stored, version(b"absent", 1))
    for result in RESULTS:
        nothing = pb.Compare(key=b"absent", target=pb.Compare.VALUE, result=result, value=b"")
        assert not chosen(stored, nothing)


def test_a_range_holds_when_every_key_does_and_an_empty_one_as_an_absent_key() -> None:
    stored = backend()
    assert chosen(stored, version(b"k", 1, b"l"))
    assert not chosen(stored, version(b"k", 2, b"l"))
    assert chosen(stored, version(b"x", 0, b"y"))
    assert chosen(stored, version(b"y", 0, b"x")), "it ends before it begins"
    assert not chosen(stored, version(b"y", 1, b"x"))


def test_a_range_of_as_many_keys_as_the_budget_has_rows_is_looked_at_and_one_more_is_not() -> None:
    stored = backend(3)
    assert chosen(stored, version(b"k", 1, b"l"), rows_max=3)
    with pytest.raises(TooMuchError):
        chosen(stored, version(b"k", 1, b"l"), rows_max=2)


def test_keys_up_to_the_budgets_octets_are_looked_at_and_one_octet_more_is_not() -> None:
    stored = backend(2)
    size = sum(len(stored.get(b"k%d" % i) or b"") for i in range(2))
    both = version(b"k0", 1), version(b"k1", 1)
    assert chosen(stored, *both, octets_max=size)
    with pytest.raises(TooMuchError):
        chosen(stored, *both, octets_max=size - 1)


def test_compares_end_at_the_first_that_does_not_hold() -> None:
    stored = backend(2)
    assert not chosen(stored, version(b"k0", 9), version(b"k", 1, b"l"), rows_max=1)
