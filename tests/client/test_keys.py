"""Requests about keys, and transactions."""

from __future__ import annotations

import pytest

from etcdtw.client import txn
from etcdtw.client.admin import Roles, Users
from etcdtw.client.keys import delete_request, key_range, prefix_end, put_request, range_request
from etcdtw.client.kv import PAGE_COUNT, KeyValues, RangeParts
from etcdtw.grpc.call import UNIMPLEMENTED, StatusError
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import mvccpb
from tests.client.network.network_rig import result_of
from tests.client.scripted_channel import ClientRig


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        (b"a", b"b"),
        (b"a/", b"a0"),
        (b"a\xff", b"b"),
        (b"\xff\xff", b"\0"),
        (b"", b"\0"),
    ],
)
def test_a_prefix_ends_before_the_next_one(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


def test_a_range_is_one_key_or_one_of_three_kinds() -> None:
    assert key_range("k", None, False, False) == (b"k", b"")
    assert key_range("k", "m", False, False) == (b"k", b"m")
    assert key_range("k", None, True, False) == (b"k", b"l")
    assert key_range("", None, True, False) == (b"\0", b"\0")
    assert key_range("k", None, False, True) == (b"k", b"\0")
    with pytest.raises(AssertionError):
        key_range("k", "m", True, False)


def test_requests_carry_what_was_asked() -> None:
    request = range_request("é", prefix=True, sort="mod", descending=True, limit=3)
    assert (request.key, request.limit) == ("é".encode(), 3)
    assert (request.sort_target, request.sort_order) == (3, 2)
    assert range_request("k") == pb.RangeRequest(key=b"k")
    assert put_request("k", b"v", lease=7, prev_kv=True) == pb.PutRequest(
        key=b"k", value=b"v", lease=7, prev_kv=True
    )
    assert delete_request("k", from_key=True) == pb.DeleteRangeRequest(key=b"k", range_end=b"\0")


def test_compares_say_what_is_compared_with_what() -> None:
    compare = txn.value("k", prefix=True).differs("v")
    assert (compare.target, compare.result, compare.value) == (3, 3, b"v")
    assert (compare.key, compare.range_end) == (b"k", b"l")
    assert txn.version("k").equals(0).WhichOneof("target_union") == "version"
    assert txn.create_revision("k").is_less(5).create_revision == 5
    assert txn.mod_revision("k").is_greater(5).mod_revision == 5
    assert txn.lease("k").equals(5).lease == 5


def test_a_transaction_is_sent_as_it_was_built() -> None:
    rig = ClientRig()
    inner = txn.Txn().then(txn.delete("d"))
    KeyValues(rig.channel).txn().when(txn.version("a").equals(0)).then(
        txn.put("b", "1"), txn.nested(inner)
    ).otherwise(txn.get("c")).commit(timeout_ms=7)
    request = pb.TxnRequest.FromString(rig.calls[0].message)
    assert [len(request.compare), len(request.success), len(request.failure)] == [1, 2, 1]
    assert request.success[1].request_txn.success[0].request_delete_range.key == b"d"
    assert rig.calls[0].timeout_ms == 7


def test_a_role_is_granted_a_range() -> None:
    rig = ClientRig()
    Roles(rig.channel).grant("r", "readwrite", "k", prefix=True)
    request = pb.AuthRoleGrantPermissionRequest.FromString(rig.calls[0].message)
    assert (request.name, request.perm.permType) == ("r", 2)
    assert (request.perm.key, request.perm.range_end) == (b"k", b"l")


@pytest.mark.parametrize("password", ["pw", None])
def test_a_user_without_a_password_is_known_as_such(password: str | None) -> None:
    rig = ClientRig()
    Users(rig.channel).add("u", password)
    request = pb.AuthUserAddRequest.FromString(rig.calls[0].message)
    assert request.options.no_password is (password is None)
    assert request.password == (password or "")


class OldServer(ClientRig):
    """A server without RangeStream, with so many keys."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.asked: list[pb.RangeRequest] = []

    def all_of(self, parts: RangeParts) -> pb.RangeResponse:
        """Return the parts, merged."""
        whole = pb.RangeResponse()
        while True:
            waiting = parts.receive()
            if not self.asked:
                self.streams[0].end(StatusError(UNIMPLEMENTED, "unknown method RangeStream"))
            if not waiting.called or waiting.paused:
                self.serve()
            part = result_of(waiting)
            if part is None:
                return whole
            whole.MergeFrom(part.range_response)

    def serve(self) -> None:
        request = pb.RangeRequest.FromString(self.calls[-1].message)
        self.asked.append(request)
        keys = [b"k%05d" % number for number in range(self.count)]
        left = [key for key in keys if key >= request.key]
        sent = left[: request.limit or len(left)]
        self.calls[-1].answer(
            pb.RangeResponse(
                header=pb.ResponseHeader(revision=77),
                kvs=[mvccpb.KeyValue(key=key) for key in sent],
                more=len(sent) < len(left),
                count=len(left),
            )
        )


@pytest.mark.parametrize("count", [0, 1, PAGE_COUNT, PAGE_COUNT + 1, 2 * PAGE_COUNT + 1])
def test_an_older_server_is_asked_page_by_page_at_one_revision(count: int) -> None:
    rig = OldServer(count)
    whole = rig.all_of(KeyValues(rig.channel).range_stream("k", prefix=True))
    assert [kv.key for kv in whole.kvs] == [b"k%05d" % number for number in range(count)]
    assert (whole.count, whole.more) == (count, False)
    assert [page.revision for page in rig.asked] == [0, *[77] * (len(rig.asked) - 1)]
    assert len(rig.asked) == max(1, -(-count // PAGE_COUNT))


@pytest.mark.parametrize("limit", [1, PAGE_COUNT, PAGE_COUNT + 1])
def test_a_limit_holds_for_all_pages_together(limit: int) -> None:
    rig = OldServer(2 * PAGE_COUNT)
    whole = rig.all_of(KeyValues(rig.channel).range_stream("k", prefix=True, limit=limit))
    assert len(whole.kvs) == limit
    assert (whole.count, whole.more) == (2 * PAGE_COUNT, True)


def test_another_order_comes_as_one_part() -> None:
    rig = OldServer(2 * PAGE_COUNT)
    whole = rig.all_of(KeyValues(rig.channel).range_stream("k", prefix=True, sort="mod"))
    assert len(whole.kvs) == 2 * PAGE_COUNT
    assert len(rig.asked) == 1
