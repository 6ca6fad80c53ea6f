"""A cluster answers as a single real etcd does, whoever is asked and whoever leads."""

from __future__ import annotations

import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.differential.cluster import keep_revisions_within, run_sequence
from tests.differential.judged import NEEDS_JUDGE
from tests.support.cluster_programs import with_programs

OPERATIONS = 1000
SEED = 20_220


@pytest.mark.integration
@NEEDS_JUDGE
@pytest.mark.parametrize(
    ("first", "second", "third"),
    [
        with_programs("etcd", "etcd", "etcd"),
        with_programs("etcd", "etcd", "etcdtw"),
        with_programs("etcd", "etcd36", "etcdtw", is_long=True),
        with_programs("etcdtw", "etcdtw", "etcdtw"),
    ],
)
def test_a_cluster_answers_as_a_single_etcd_does(first: str, second: str, third: str) -> None:
    outcome, led = run_sequence([first, second, third], SEED, OPERATIONS)
    assert not outcome.differences, "\n".join(outcome.differences)
    assert outcome.operations >= OPERATIONS
    assert len(outcome.hashes) >= 9
    assert outcome.errors
    assert all(count >= OPERATIONS / 3 - 100 for count in led.values())


def test_revisions_that_would_part_a_real_cluster_are_taken_out_at_any_depth() -> None:
    def read(revision: int) -> pb.RequestOp:
        return pb.RequestOp(request_range=pb.RangeRequest(key=b"k", revision=revision))

    def revisions(txn: pb.TxnRequest) -> list[int]:
        return [op.request_range.revision for op in (*txn.success, *txn.failure)]

    inner = pb.TxnRequest(failure=[read(4), read(11)])
    txn = pb.TxnRequest(
        success=[read(-1000), read(4), read(5), pb.RequestOp(request_txn=inner)],
        failure=[read(0), read(10), read(11)],
    )
    keep_revisions_within(txn, 5, 10)
    assert revisions(txn) == [0, 0, 5, 0, 0, 10, 0]
    assert revisions(txn.success[3].request_txn) == [0, 0]
