"""Every call, and every field that names keys, has its row: what was forgotten has a name here."""

from __future__ import annotations

from typing import Any, Final

import pytest

from etcdtw.rpc.needs import ADMIN, NEEDS, OPEN, PROPOSED, READ, USER, WITHIN
from etcdtw.server.metrics.table import GRPC_METHODS
from etcdtw.wire import etcdserverpb as pb

NOTHING: Final = "opens no key"
KEYS: Final = "the range that is read or written"
INNER: Final = "each of them as what it is"

FIELDS: Final[dict[Any, dict[str, str]]] = {
    pb.RangeRequest: {
        "key": KEYS, "range_end": KEYS, "limit": NOTHING, "revision": NOTHING,
        "sort_order": NOTHING, "sort_target": NOTHING, "serializable": NOTHING,
        "keys_only": NOTHING, "count_only": NOTHING, "min_mod_revision": NOTHING,
        "max_mod_revision": NOTHING, "min_create_revision": NOTHING,
        "max_create_revision": NOTHING,
    },
    pb.PutRequest: {
        "key": KEYS, "value": NOTHING, "lease": "its other keys must be writable",
        "prev_kv": "the key must be readable", "ignore_value": NOTHING, "ignore_lease": NOTHING,
    },
    pb.DeleteRangeRequest: {
        "key": KEYS, "range_end": KEYS, "prev_kv": "the range must be readable",
    },
    pb.TxnRequest: {"compare": INNER, "success": INNER, "failure": INNER},
    pb.Compare: {
        "result": NOTHING, "target": NOTHING, "key": KEYS, "version": NOTHING,
        "create_revision": NOTHING, "mod_revision": NOTHING, "value": NOTHING,
        "lease": NOTHING, "range_end": KEYS,
    },
    pb.RequestOp: {
        "request_range": INNER, "request_put": INNER, "request_delete_range": INNER,
        "request_txn": INNER,
    },
    pb.WatchCreateRequest: {
        "key": KEYS, "range_end": KEYS, "start_revision": NOTHING, "progress_notify": NOTHING,
        "filters": NOTHING, "prev_kv": "who may watch may read", "watch_id": NOTHING,
        "fragment": NOTHING,
    },
    pb.LeaseGrantRequest: {"TTL": NOTHING, "ID": NOTHING},
    pb.LeaseRevokeRequest: {"ID": "its keys must be writable"},
    pb.LeaseKeepAliveRequest: {"ID": "its keys must be writable"},
    pb.LeaseTimeToLiveRequest: {"ID": NOTHING, "keys": "they must be readable"},
    pb.LeaseLeasesRequest: {},
    pb.CompactionRequest: {"revision": NOTHING, "physical": NOTHING},
    pb.AlarmRequest: {
        "action": "to look needs a user, the others an administrator", "memberID": NOTHING,
        "alarm": NOTHING,
    },
}  # fmt: skip
"""What each field of what users may ask opens, and where that is looked at (`auth.access`)."""


def test_every_call_has_a_row_and_every_row_is_a_call() -> None:
    calls = {f"/{service}/{method}" for _, service, method in GRPC_METHODS}
    assert set(NEEDS) == calls
    assert set(NEEDS.values()) == {OPEN, USER, ADMIN, PROPOSED, READ, WITHIN}


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: str(kind.DESCRIPTOR.name))
def test_every_field_has_a_row_and_every_row_is_a_field(kind: Any) -> None:
    assert set(FIELDS[kind]) == {field.name for field in kind.DESCRIPTOR.fields}


def test_without_a_user_nothing_but_this_is_open() -> None:
    assert sorted(path for path, need in NEEDS.items() if need == OPEN) == [
        "/etcdserverpb.Auth/Authenticate",
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
    ]
