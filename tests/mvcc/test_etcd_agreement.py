"""The store beside real etcd 3.5.1: the same requests, the same answers, the same HashKV."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from etcdtw.grpc.call import StatusError
from etcdtw.mvcc.errors import MvccError
from etcdtw.mvcc.hash_kv import hash_kv
from etcdtw.mvcc.store import Store
from etcdtw.rpc.errors import status_of
from etcdtw.rpc.kv.checks import check_txn
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import plain, txn_of
from tests.mvcc.random_requests import RandomRequests
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.model_backend import ModelBackend
from tests.support.processes import RunningMember

LEASES = (3, 7)
REQUESTS_COUNT = 400
KEY_NOT_FOUND = "etcdserver: key not found"

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdClient]:
    with RunningMember("etcd", flags=("--unsafe-no-fsync",)) as member:
        client = EtcdClient(member.endpoint)
        for lease in LEASES:
            client.call("lease_grant", pb.LeaseGrantRequest(ID=lease, TTL=3600))
        yield client
        client.close()


def answer_of_etcd(etcd: EtcdClient, name: str, request: Any) -> tuple[Any, int]:
    """Return (response without its header, revision), or the text of the refusal and 0."""
    try:
        response = etcd.call(name, request)
    except RpcFailedError as error:
        return error.text, 0
    revision = response.header.revision
    response.ClearField("header")
    return response, revision


def answer_of_ours(store: Store, name: str, request: Any) -> tuple[Any, int]:
    try:
        if name == "range":
            return pb.RangeResponse.FromString(store.range(request)), store.revision
        if name == "txn":
            check_txn(txn_of(request))
    except (MvccError, StatusError) as error:
        return status_of(error)[1], 0
    apply: Any = getattr(store, {"compact": "apply_compaction"}.get(name, "apply_" + name))
    applied = apply(plain(request))
    if applied.error is not None:
        return status_of(applied.error)[1], 0
    response_class: Any = {
        "put": pb.PutResponse,
        "delete_range": pb.DeleteRangeResponse,
        "txn": pb.TxnResponse,
        "compact": pb.CompactionResponse,
    }[name]
    return response_class.FromString(applied.body), applied.revision


def clear_leases_without_values(answer: Any) -> None:
    """Take away the leases of keys without values, which etcd 3.7 loses (docs/departures.md)."""
    if isinstance(answer, pb.RangeResponse):
        for kv in answer.kvs:
            if not kv.value:
                kv.ClearField("lease")
    elif isinstance(answer, pb.TxnResponse):
        for op in answer.responses:
            clear_leases_without_values(getattr(op, op.WhichOneof("response")))


def one_request(requests: RandomRequests, revision: int) -> tuple[str, Any]:
    kind = requests.random.random()
    if kind < 0.25:
        return "put", requests.put()
    if kind < 0.35:
        return "delete_range", requests.delete()
    if kind < 0.6:
        return "txn", requests.txn(revision)
    if kind < 0.98:
        return "range", requests.range(revision)
    return "compact", pb.CompactionRequest(revision=requests.random.randint(0, revision))


def test_random_requests_are_answered_alike(etcd: EtcdClient) -> None:
    backend = ModelBackend()
    store = Store(backend, LEASES.__contains__)
    requests = RandomRequests(Random(20))
    for _ in range(REQUESTS_COUNT):
        name, request = one_request(requests, store.revision)
        ours = answer_of_ours(store, name, request)
        if name == "txn" and ours[0] == KEY_NOT_FOUND:
            continue  # 3.5.1 panics on some of these
        theirs = answer_of_etcd(etcd, name, request)
        for answer in (ours[0], theirs[0]):
            clear_leases_without_values(answer)
        assert ours == theirs, request
    response = etcd.call("hash_kv", pb.HashKVRequest())
    assert response.compact_revision == store.compact_revision
    changes = backend.changes_from(0, 0, store.revision, 10**6)
    assert hash_kv(changes, store.revision, store.compact_revision) == response.hash
