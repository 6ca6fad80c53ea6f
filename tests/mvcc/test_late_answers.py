"""Txns whose answers are made later read what they would have read at once."""

from __future__ import annotations

import gc
from random import Random
from typing import Any

import pytest

from etcdtw.mvcc.applied import Applied, Slices
from etcdtw.mvcc.errors import CompactedError
from etcdtw.mvcc.late import LateAnswer
from etcdtw.mvcc.long_entry import LongEntryError
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import put_of, txn_of
from tests.support.late_answers import apply_txn, finish
from tests.support.model_backend import ModelBackend

KEYS_COUNT = 12
SMALL = WorkBounds(slice_keys_max=3, slice_past_keys_max=2, txn_rows_max=4)
AT_ONCE = WorkBounds(txn_rows_max=1_000_000)
LESS = pb.Compare.LESS
MOD = pb.Compare.MOD
ALL = pb.RequestOp(request_range=pb.RangeRequest(key=b"\0", range_end=b"\0"))
DESCENDING = pb.RequestOp(
    request_range=pb.RangeRequest(
        key=b"\0", range_end=b"\0", sort_order=pb.RangeRequest.DESCEND, sort_target=3
    )
)
EARLIER = pb.RequestOp(request_range=pb.RangeRequest(key=b"\0", range_end=b"\0", revision=9))
PUT = pb.RequestOp(request_put=pb.PutRequest(key=b"05a", value=b"new"))
DELETE = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"02", range_end=b"04"))
NESTED = pb.RequestOp(request_txn=pb.TxnRequest(success=[DELETE, ALL]))
EVERYTHING_IS_OLD = pb.Compare(key=b"\0", range_end=b"\0", target=MOD, result=LESS)
EVERYTHING_IS_OLD.mod_revision = 1 << 40


def make_store(bounds: WorkBounds = SMALL) -> Store:
    store = Store(ModelBackend(), lambda lease_id: True, bounds)
    for i in range(KEYS_COUNT):
        put(store, b"%02d" % i)
    return store


def put(store: Store, key: bytes, value: bytes = b"v") -> None:
    store.apply_put(put_of(pb.PutRequest(key=key, value=value)))


def drain(slices: Slices) -> None:
    while slices.step() is not None:
        pass


def txn(*ops: Any, **fields: Any) -> Any:
    return txn_of(pb.TxnRequest(success=ops, **fields))


READS = [(ALL,), (DESCENDING, ALL, EARLIER)]
WRITES = [(PUT, ALL), (ALL, PUT, ALL, EARLIER), (DESCENDING, NESTED, PUT, DESCENDING)]


@pytest.mark.parametrize("ops", [*READS, *WRITES])
@pytest.mark.parametrize("compares", [[], [EVERYTHING_IS_OLD]])
def test_a_late_answer_is_not_changed_by_what_comes_after_its_txn(
    ops: tuple[Any, ...], compares: list[Any]
) -> None:
    expected = apply_txn(make_store(AT_ONCE), txn(*ops, compare=compares))
    store = make_store()
    random = Random(1)
    try:
        applied = store.apply_txn(txn(*ops, compare=compares))
    except LongEntryError as long:
        assert compares
        while True:
            try:
                next(long.steps)
            except StopIteration as end:
                applied = end.value
                break
    assert (applied.body, applied.revision) == (b"", expected.revision)
    assert applied.late is not None
    slices = applied.late.open()
    parts: list[bytes] = []
    while (part := slices.step()) is not None:
        parts.append(part)
        put(store, b"%02d" % random.randint(0, 20), b"later")
        start = b"%02d" % random.randint(0, 20)
        store.apply_delete_range(pb.DeleteRangeRequest(key=start, range_end=start + b"0"))
    assert b"".join(parts) == expected.body


@pytest.mark.parametrize("ops", READS)
@pytest.mark.parametrize("compares", [[], [EVERYTHING_IS_OLD]])
def test_a_read_only_txn_reads_all_at_one_revision(
    ops: tuple[Any, ...], compares: list[Any]
) -> None:
    expected = make_store(AT_ONCE).read_txn(txn(*ops, compare=compares))
    store = make_store()
    applied = store.read_txn(txn(*ops, compare=compares))
    assert applied.late is not None
    slices = applied.late.open()
    parts: list[bytes] = []
    while (part := slices.step()) is not None:
        parts.append(part)
        put(store, b"%02d" % (len(parts) % 20), b"later")
    assert b"".join(parts) == expected.body


def test_a_refusal_comes_behind_compares_in_steps() -> None:
    future = pb.RequestOp(request_range=pb.RangeRequest(key=b"a", revision=99))
    store = make_store()
    refused = apply_txn(store, txn(PUT, future, compare=[EVERYTHING_IS_OLD]))
    assert type(refused.error).__name__ == "FutureRevisionError"
    assert store.revision == KEYS_COUNT + 1
    applied = store.read_txn(txn(future, compare=[EVERYTHING_IS_OLD]))
    with pytest.raises(Exception, match="above the current"):
        finish(applied)


@pytest.mark.parametrize("compares", [[], [EVERYTHING_IS_OLD]])
def test_a_compaction_takes_a_late_answer_away(compares: list[Any]) -> None:
    store = make_store()
    applied = store.read_txn(txn(ALL, compare=compares))
    assert applied.late is not None
    slices = applied.late.open()
    slices.step()
    put(store, b"k")
    store.apply_compaction(pb.CompactionRequest(revision=store.revision))
    with pytest.raises(CompactedError):
        drain(slices)


@pytest.mark.parametrize(("count", "is_late"), [(4, False), (5, True)])
def test_a_txn_reads_at_once_what_its_budget_allows(count: int, is_late: bool) -> None:
    few = pb.RequestOp(request_range=pb.RangeRequest(key=b"00", range_end=b"%02d" % count))
    applied = make_store().apply_txn(txn(PUT, few))
    assert (applied.late is not None) == is_late
    one = pb.RequestOp(request_range=pb.RangeRequest(key=b"00"))
    assert (make_store().apply_txn(txn(*[one] * count)).late is not None) == is_late


def test_what_nobody_reads_is_not_opened() -> None:
    store = make_store()
    applied: Applied = store.apply_txn(txn(PUT, ALL))
    assert applied.late is not None
    assert store._writer.touched is None


def alive() -> int:
    return sum([type(found) is LateAnswer for found in gc.get_objects()])


@pytest.mark.parametrize("steps", [0, 1, 3, 100])
@pytest.mark.parametrize("compares", [[], [EVERYTHING_IS_OLD]])
def test_an_answer_that_is_given_up_leaves_nothing_to_the_collector(
    steps: int, compares: list[Any]
) -> None:
    store = make_store()
    applied = store.read_txn(txn(ALL, DESCENDING, compare=compares))
    assert applied.late is not None
    gc.collect()
    gc.disable()
    try:
        slices = applied.late.open()
        for _ in range(steps):
            slices.step()
        slices.close()
        del slices
        assert alive() == 0
    finally:
        gc.enable()
