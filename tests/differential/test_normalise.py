"""What the differential test forgives, and that it forgives nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import mvccpb
from tests.differential import normalise
from tests.differential import operations as ops
from tests.differential.normalise import Answer, answers_agree


def ok(response: Any) -> Answer:
    return Answer(0, "", response)


def kv(name: bytes, version: int = 1, value: bytes = b"") -> mvccpb.KeyValue:
    return mvccpb.KeyValue(key=name, version=version, value=value)


def test_ids_and_raft_term_are_no_difference_but_the_revision_is() -> None:
    def put(member_id: int, revision: int) -> Answer:
        header = pb.ResponseHeader(
            cluster_id=member_id, member_id=member_id, raft_term=member_id, revision=revision
        )
        return ok(pb.PutResponse(header=header))

    assert answers_agree(ops.PUT, pb.PutRequest(), put(1, 7), put(2, 7))
    assert not answers_agree(ops.PUT, pb.PutRequest(), put(1, 7), put(1, 8))


def test_code_and_text_of_an_error_must_both_be_equal() -> None:
    answer = Answer(3, "etcdserver: key is not provided", None)
    assert answers_agree(ops.PUT, pb.PutRequest(), answer, answer)
    for other in (Answer(3, "key is not provided", None), Answer(11, answer.text, None)):
        assert not answers_agree(ops.PUT, pb.PutRequest(), answer, other)
    assert not answers_agree(ops.PUT, pb.PutRequest(), answer, ok(pb.PutResponse()))


def test_ties_under_a_sort_by_version_may_stand_in_any_order() -> None:
    request = pb.RangeRequest(
        sort_order=pb.RangeRequest.ASCEND, sort_target=pb.RangeRequest.VERSION
    )
    left = pb.RangeResponse(kvs=[kv(b"a"), kv(b"b"), kv(b"c", 2)])
    right = pb.RangeResponse(kvs=[kv(b"b"), kv(b"a"), kv(b"c", 2)])
    assert normalise.ranges_agree(request, left, right)
    wrong = pb.RangeResponse(kvs=[kv(b"c", 2), kv(b"a"), kv(b"b")])
    assert not normalise.ranges_agree(request, left, wrong)


def test_order_under_a_sort_by_key_must_be_equal() -> None:
    left = pb.RangeResponse(kvs=[kv(b"a"), kv(b"b")])
    right = pb.RangeResponse(kvs=[kv(b"b"), kv(b"a")])
    assert not normalise.ranges_agree(pb.RangeRequest(), left, right)


def test_a_limit_through_a_group_of_ties_may_keep_any_of_them() -> None:
    request = pb.RangeRequest(
        sort_order=pb.RangeRequest.ASCEND, sort_target=pb.RangeRequest.VERSION, limit=2
    )
    left = pb.RangeResponse(kvs=[kv(b"a"), kv(b"b", 2)], more=True, count=3)
    right = pb.RangeResponse(kvs=[kv(b"a"), kv(b"c", 2)], more=True, count=3)
    assert normalise.ranges_agree(request, left, right)
    other = pb.RangeResponse(kvs=[kv(b"x"), kv(b"c", 2)], more=True, count=3)
    assert not normalise.ranges_agree(request, left, other)
    left.more = right.more = False
    assert not normalise.ranges_agree(request, left, right)


def test_ranges_inside_nested_txns_are_compared_by_their_own_request() -> None:
    by_version = pb.RangeRequest(
        sort_order=pb.RangeRequest.DESCEND, sort_target=pb.RangeRequest.VERSION
    )
    inner = pb.TxnRequest(failure=[pb.RequestOp(request_range=by_version)])
    request = pb.TxnRequest(success=[pb.RequestOp(request_txn=inner)])

    def answer(*kvs: mvccpb.KeyValue) -> pb.TxnResponse:
        op = pb.ResponseOp(response_range=pb.RangeResponse(kvs=kvs))
        nested = pb.ResponseOp(response_txn=pb.TxnResponse(responses=[op]))
        return pb.TxnResponse(succeeded=True, responses=[nested])

    left, right = answer(kv(b"a"), kv(b"b")), answer(kv(b"b"), kv(b"a"))
    assert normalise.txns_agree(request, left, right)
    inner_op = request.success[0].request_txn.failure[0]
    inner_op.request_range.sort_target = pb.RangeRequest.KEY
    assert not normalise.txns_agree(request, left, right)


@pytest.mark.parametrize(("ttl_s", "agree"), [(99, True), (101, True), (98, False), (102, False)])
def test_remaining_ttl_may_differ_by_one_second(ttl_s: int, agree: bool) -> None:
    left = pb.LeaseTimeToLiveResponse(ID=1, TTL=100, grantedTTL=200, keys=[b"a", b"b"])
    right = pb.LeaseTimeToLiveResponse(ID=1, TTL=ttl_s, grantedTTL=200, keys=[b"b", b"a"])
    assert normalise.time_to_lives_agree(None, left, right) is agree


def test_lease_lists_are_sets() -> None:
    left = pb.LeaseLeasesResponse(leases=[pb.LeaseStatus(ID=1), pb.LeaseStatus(ID=2)])
    right = pb.LeaseLeasesResponse(leases=[pb.LeaseStatus(ID=2), pb.LeaseStatus(ID=1)])
    assert normalise.lease_lists_agree(None, left, right)
    del right.leases[0]
    assert not normalise.lease_lists_agree(None, left, right)


def test_a_hash_must_be_equal_and_its_own_revision_is_new_in_3_6() -> None:
    left = pb.HashKVResponse(hash=5, compact_revision=3)
    right = pb.HashKVResponse(hash=5, compact_revision=3, hash_revision=9)
    assert normalise.hashes_agree(None, left, right)
    right.hash = 6
    assert not normalise.hashes_agree(None, left, right)


def test_the_end_of_a_watcher_is_compared_without_its_revision() -> None:
    left = pb.WatchResponse(watch_id=4, canceled=True, compact_revision=9)
    right = pb.WatchResponse(watch_id=4, canceled=True, compact_revision=9)
    right.header.revision = 12
    assert normalise.canceled_agree(left, right)
    right.cancel_reason = "because"
    assert not normalise.canceled_agree(left, right)


def test_a_hash_of_a_compaction_may_be_kept_by_one_member_alone() -> None:
    def hashed(compact_revision: int) -> Answer:
        response = pb.HashKVResponse(hash=compact_revision, compact_revision=compact_revision)
        return Answer(0, "", response)

    refused = Answer(11, "etcdserver: mvcc: required revision has been compacted", None)
    request = pb.HashKVRequest(revision=7)
    assert answers_agree(ops.HASH_KV, request, refused, hashed(3))
    assert answers_agree(ops.HASH_KV, request, hashed(3), hashed(7))
    assert not answers_agree(ops.HASH_KV, request, hashed(3), hashed(4))
    assert not answers_agree(ops.HASH_KV, request, refused, hashed(7))
    assert not answers_agree(ops.HASH_KV, pb.HashKVRequest(), refused, hashed(3))
