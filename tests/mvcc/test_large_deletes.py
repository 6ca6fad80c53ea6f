"""What returns very much, a delete or a txn, is never joined: its answer goes out in parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.errors import KeyNotFoundError
from etcdtw.mvcc.long_entry import STEP_OCTETS_MAX, LongEntryError, Steps
from etcdtw.mvcc.slices import SLICE_OCTETS_MAX
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.work_bounds import FEW_KEYS_MAX, WorkBounds
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import Txn, put_of, txn_of
from tests.support.late_answers import finish
from tests.support.model_backend import ModelBackend

KEYS_COUNT = 40
DELETE = pb.DeleteRangeRequest(key=b"a", range_end=b"z", prev_kv=True)
READ = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", range_end=b"z"))
PUT = pb.RequestOp(request_put=pb.PutRequest(key=b"z", value=b"new"))
LONG = WorkBounds(long_keys_min=2, step_keys_max=3)
LAST_OCTETS = 18  # of the key b"last" in an answer, beside its value
FEW = WorkBounds(long_octets_min=4 * SLICE_OCTETS_MAX // 10)
AT_ONCE = WorkBounds(long_octets_min=1 << 40)


def make_store(
    bounds: WorkBounds, size: int = SLICE_OCTETS_MAX // 10, backend: ModelBackend | None = None
) -> Store:
    store = Store(backend or ModelBackend(), lambda lease_id: True, bounds)
    for i in range(KEYS_COUNT):
        value = bytes([i]) * size
        store.apply_put(put_of(pb.PutRequest(key=b"k%02d" % i, value=value)))
    return store


def apply_long(apply: Callable[[], Applied]) -> Applied:
    with pytest.raises(LongEntryError) as long:
        apply()
    steps: Steps = long.value.steps
    while True:
        try:
            next(steps)
        except StopIteration as end:
            applied: Applied = end.value
            return applied


def parts_of(applied: Applied) -> list[bytes]:
    assert applied.late is not None
    assert applied.body == b""
    slices = applied.late.open()
    parts: list[bytes] = []
    while (part := slices.step()) is not None:
        assert slices.held >= 0
        parts.append(part)
    assert slices.held == 0
    return parts


def test_a_large_delete_is_answered_in_parts_of_a_step() -> None:
    expected = make_store(AT_ONCE).apply_delete_range(DELETE)
    store = make_store(LONG)
    applied = apply_long(lambda: store.apply_delete_range(DELETE))
    parts = parts_of(applied)
    assert len(parts) > KEYS_COUNT // 3
    assert max(map(len, parts)) <= STEP_OCTETS_MAX
    assert b"".join(parts) == expected.body
    assert applied.revision == expected.revision
    assert len(pb.DeleteRangeResponse.FromString(expected.body).prev_kvs) == KEYS_COUNT


@pytest.mark.parametrize(("more", "is_late"), [(0, False), (1, True)])
def test_an_answer_is_one_up_to_its_bound(more: int, is_late: bool) -> None:
    size = SLICE_OCTETS_MAX // KEYS_COUNT - 40
    without = make_store(AT_ONCE, size).apply_delete_range(DELETE)
    value = bytes(SLICE_OCTETS_MAX - LAST_OCTETS - len(without.body) + more)
    stores = [make_store(bounds, size) for bounds in (AT_ONCE, LONG)]
    for store in stores:
        store.apply_put(put_of(pb.PutRequest(key=b"last", value=value)))
    expected = stores[0].apply_delete_range(DELETE)
    assert len(expected.body) == SLICE_OCTETS_MAX + more
    applied = apply_long(lambda: stores[1].apply_delete_range(DELETE))
    assert (applied.late is not None) == is_late
    assert finish(applied).body == expected.body


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_txn_with_a_large_delete_is_answered_in_parts_too(is_nested: bool) -> None:
    delete = pb.RequestOp(request_delete_range=DELETE)
    ops = [PUT, READ, delete, READ]
    if is_nested:
        ops = [pb.RequestOp(request_txn=pb.TxnRequest(success=ops)), PUT]
        ops[1].request_put.key = b"zz"
    txn = txn_of(pb.TxnRequest(success=ops))
    expected = finish(make_store(AT_ONCE).apply_txn(txn))
    store = make_store(LONG)
    applied = apply_long(lambda: store.apply_txn(txn))
    parts = parts_of(applied)
    assert max(map(len, parts)) <= STEP_OCTETS_MAX + SLICE_OCTETS_MAX
    assert b"".join(parts) == expected.body


def test_a_large_delete_without_previous_records_is_answered_at_once() -> None:
    store = make_store(LONG)
    request = pb.DeleteRangeRequest(key=b"a", range_end=b"z")
    applied = apply_long(lambda: store.apply_delete_range(request))
    assert applied.late is None
    assert pb.DeleteRangeResponse.FromString(applied.body).deleted == KEYS_COUNT


@pytest.mark.parametrize("is_nested", [False, True])
def test_a_txn_that_keeps_or_tells_of_large_values_takes_steps(is_nested: bool) -> None:
    keys = [b"k%02d" % i for i in range(KEYS_COUNT)]
    puts = [
        pb.PutRequest(key=key, ignore_value=i % 3 > 0, prev_kv=i % 3 < 2)
        for i, key in enumerate(keys[::2])
    ]
    ops = [pb.RequestOp(request_put=put) for put in puts]
    ops += [
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=key, prev_kv=True))
        for key in keys[1::2]
    ]
    if is_nested:
        ops = [pb.RequestOp(request_txn=pb.TxnRequest(success=ops)), PUT]
    txn = txn_of(pb.TxnRequest(success=ops))
    backends = [ModelBackend(), ModelBackend()]
    expected = finish(make_store(AT_ONCE, backend=backends[0]).apply_txn(txn))
    store = make_store(FEW, backend=backends[1])
    parts = parts_of(apply_long(lambda: store.apply_txn(txn)))
    assert max(map(len, parts)) <= STEP_OCTETS_MAX
    assert b"".join(parts) == expected.body
    assert backends[0].revisions == backends[1].revisions


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("kind", ["put", "delete", "delete of a range of one", "delete of two"])
def test_a_txn_that_writes_over_many_large_values_takes_steps(kind: str, is_nested: bool) -> None:
    txn = write_over(kind, KEYS_COUNT, is_nested)
    backends = [ModelBackend(), ModelBackend()]
    expected = finish(make_store(AT_ONCE, backend=backends[0]).apply_txn(txn))
    store = make_store(FEW, backend=backends[1])
    assert finish(apply_long(lambda: store.apply_txn(txn))).body == expected.body
    assert backends[0].revisions == backends[1].revisions


@pytest.mark.parametrize("kind", ["put", "delete"])
def test_a_txn_that_writes_over_a_few_large_values_is_done_at_once(kind: str) -> None:
    store = make_store(WorkBounds(long_octets_min=1), backend=ModelBackend())
    assert finish(store.apply_txn(write_over(kind, FEW_KEYS_MAX))).error is None


def write_over(kind: str, count: int, is_nested: bool = False) -> Txn:
    """Return a txn that puts or deletes the first keys, a value or a pair of keys each time."""
    keys = [b"k%02d" % i for i in range(count)]
    if kind == "put":
        ops = [pb.RequestOp(request_put=pb.PutRequest(key=key)) for key in keys]
    else:
        deletes = [pb.DeleteRangeRequest(key=key) for key in keys]
        if kind == "delete of a range of one":
            for one in deletes:
                one.range_end = one.key + b"\0"
        elif kind == "delete of two":
            deletes = deletes[::2]
            for one in deletes:
                one.range_end = b"k%02d" % (int(one.key[1:]) + 2)
        ops = [pb.RequestOp(request_delete_range=one) for one in deletes]
    if is_nested:
        ops = [pb.RequestOp(request_txn=pb.TxnRequest(success=ops)), PUT]
    return txn_of(pb.TxnRequest(success=ops))


def test_a_txn_that_keeps_what_is_not_there_changes_nothing_however_large_it_is() -> None:
    backend = ModelBackend()
    store = make_store(FEW, backend=backend)
    before = dict(backend.revisions)
    puts = [pb.PutRequest(key=b"k%02d" % i, ignore_value=True) for i in range(KEYS_COUNT)]
    ops = [pb.RequestOp(request_put=put) for put in puts]
    ops.append(pb.RequestOp(request_put=pb.PutRequest(key=b"missing", ignore_value=True)))
    applied = store.apply_txn(txn_of(pb.TxnRequest(success=ops)))
    assert isinstance(applied.error, KeyNotFoundError)
    assert backend.revisions == before
