"""Which span a request makes beneath that of its call: etcd's names and attributes.

Keys are shown, values, tokens and passwords never.  Source: etcd 3.7.3's ``v3_server.go`` and
``watch.go``, compared with what its binary exports (`tests/integration/test_tracing.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from google.protobuf.message import DecodeError

from etcdtw.rpc.tracing.seams import Attributes
from etcdtw.wire import etcdserverpb as pb

KEY_SIZE_MAX: Final = 1024
"""Octets of a key that are shown."""
NO_LEASE: Final = -1
"""etcd's value where nothing is put."""


class Operation(NamedTuple):
    """A span's name and attributes."""

    name: str
    attributes: Attributes


def operation_of(path: str, message: bytes) -> Operation | None:
    """Return what a request does; None: etcd has no span for it, or it is none."""
    found = _OPERATIONS.get(path)
    if found is None:
        return None
    parse, name, attributes = found
    try:
        return Operation(name, attributes(parse(message)))
    except DecodeError:
        return None


def watch_operation(request: pb.WatchCreateRequest) -> Operation:
    """Return what the creation of a watch does."""
    end = request.range_end
    attributes: Attributes = {
        "key": shown(request.key),
        "range_end": "" if end == b"\0" else shown(end),
        "start_rev": request.start_revision,
        "progress_notify": request.progress_notify,
        "prev_kv": request.prev_kv,
        "fragment": request.fragment,
    }
    return Operation("watch", attributes)


def granted(path: str, reply: bytes) -> Attributes:
    """Return what only the answer tells: the id of a lease whose client has named none."""
    if path != LEASE_GRANT:
        return {}
    return {"id": pb.LeaseGrantResponse.FromString(reply).ID}


def shown(key: bytes) -> str:
    """Return a key as text; where it is none etcd's exporter loses the whole batch."""
    return key[:KEY_SIZE_MAX].decode("utf-8", "backslashreplace")


def _range(request: pb.RangeRequest) -> Attributes:
    return {**_range_stream(request), "keys_only": request.keys_only}


def _range_stream(request: pb.RangeRequest) -> Attributes:
    return {
        "range_begin": shown(request.key),
        "range_end": shown(request.range_end),
        "rev": request.revision,
        "limit": request.limit,
        "count_only": request.count_only,
    }


def _put(request: pb.PutRequest) -> Attributes:
    return {"key": shown(request.key)}


def _delete_range(request: pb.DeleteRangeRequest) -> Attributes:
    return {"range_begin": shown(request.key), "range_end": shown(request.range_end)}


def _txn(request: pb.TxnRequest) -> Attributes:
    success = request.success
    return {
        "compare_first_key": shown(_first_key(request.compare)),
        "success_first_key": shown(_first_key([part for one in success if (part := _part(one))])),
        "success_first_type": _TYPES.get(_kind(success[0]), "") if success else "",
        "success_first_lease": _first_lease(success),
        "compare_len": len(request.compare),
        "success_len": len(success),
        "failure_len": len(request.failure),
        "read_only": _is_read_only(request),
    }


def _kind(operation: pb.RequestOp) -> str:
    return operation.WhichOneof("request") or ""


def _part(operation: pb.RequestOp) -> Any:
    """Return the operation within the union; None for a txn, which has no key."""
    kind = _kind(operation)
    return None if kind in ("", "request_txn") else getattr(operation, kind)


def _first_key(parts: Iterable[Any]) -> bytes:
    """Return the first key that is not empty."""
    return next((part.key for part in parts if part.key), b"")


def _first_lease(operations: Iterable[pb.RequestOp]) -> int:
    """Return the lease of the first put."""
    puts = (one.request_put for one in operations if one.HasField("request_put"))
    return next((put.lease for put in puts), NO_LEASE)


def _is_read_only(request: pb.TxnRequest) -> bool:
    return all(
        one.WhichOneof("request") == "request_range"
        for branch in (request.success, request.failure)
        for one in branch
    )


def _compact(request: pb.CompactionRequest) -> Attributes:
    return {"is_physical": request.physical, "rev": request.revision}


def _lease_grant(request: pb.LeaseGrantRequest) -> Attributes:
    return {"id": request.ID, "ttl": request.TTL}


def _lease_id(request: pb.LeaseRevokeRequest | pb.LeaseKeepAliveRequest) -> Attributes:
    return {"id": request.ID}


LEASE_GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
LEASE_KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
RANGE_STREAM: Final = "/etcdserverpb.KV/RangeStream"
WATCH: Final = "/etcdserverpb.Watch/Watch"

_TYPES: Final = {
    "request_put": "put",
    "request_range": "range",
    "request_delete_range": "delete_range",
    "request_txn": "txn",
}
_OPERATIONS: Final[dict[str, tuple[Callable[[bytes], Any], str, Callable[[Any], Attributes]]]] = {
    "/etcdserverpb.KV/Range": (pb.RangeRequest.FromString, "range", _range),
    RANGE_STREAM: (pb.RangeRequest.FromString, "range_streaming", _range_stream),
    "/etcdserverpb.KV/Put": (pb.PutRequest.FromString, "put", _put),
    "/etcdserverpb.KV/DeleteRange": (
        pb.DeleteRangeRequest.FromString,
        "delete_range",
        _delete_range,
    ),
    "/etcdserverpb.KV/Txn": (pb.TxnRequest.FromString, "txn", _txn),
    "/etcdserverpb.KV/Compact": (pb.CompactionRequest.FromString, "compact", _compact),
    LEASE_GRANT: (pb.LeaseGrantRequest.FromString, "lease_grant", _lease_grant),
    "/etcdserverpb.Lease/LeaseRevoke": (
        pb.LeaseRevokeRequest.FromString,
        "lease_revoke",
        _lease_id,
    ),
    LEASE_KEEP_ALIVE: (pb.LeaseKeepAliveRequest.FromString, "lease_renew", _lease_id),
}
