"""A grpcio client over our own message classes: an HTTP/2 and gRPC in C that we did not write.

Calls are synchronous, take metadata and a timeout each, and raise `RpcFailedError` with the
code and the text of the status.  A watch runs in a thread of its own and collects responses.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import grpc

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import healthpb

Metadata = Sequence[tuple[str, str]]
CALL_TIMEOUT_S: Final = 10.0
RECEIVE_OCTETS_MAX: Final = 2**31 - 1

_UNARY: Final[dict[str, tuple[str, Any, Any]]] = {
    "range": ("/etcdserverpb.KV/Range", pb.RangeRequest, pb.RangeResponse),
    "put": ("/etcdserverpb.KV/Put", pb.PutRequest, pb.PutResponse),
    "delete_range": (
        "/etcdserverpb.KV/DeleteRange",
        pb.DeleteRangeRequest,
        pb.DeleteRangeResponse,
    ),
    "txn": ("/etcdserverpb.KV/Txn", pb.TxnRequest, pb.TxnResponse),
    "compact": ("/etcdserverpb.KV/Compact", pb.CompactionRequest, pb.CompactionResponse),
    "lease_grant": (
        "/etcdserverpb.Lease/LeaseGrant",
        pb.LeaseGrantRequest,
        pb.LeaseGrantResponse,
    ),
    "lease_revoke": (
        "/etcdserverpb.Lease/LeaseRevoke",
        pb.LeaseRevokeRequest,
        pb.LeaseRevokeResponse,
    ),
    "lease_time_to_live": (
        "/etcdserverpb.Lease/LeaseTimeToLive",
        pb.LeaseTimeToLiveRequest,
        pb.LeaseTimeToLiveResponse,
    ),
    "lease_leases": (
        "/etcdserverpb.Lease/LeaseLeases",
        pb.LeaseLeasesRequest,
        pb.LeaseLeasesResponse,
    ),
    "member_list": (
        "/etcdserverpb.Cluster/MemberList",
        pb.MemberListRequest,
        pb.MemberListResponse,
    ),
    "member_add": (
        "/etcdserverpb.Cluster/MemberAdd",
        pb.MemberAddRequest,
        pb.MemberAddResponse,
    ),
    "member_promote": (
        "/etcdserverpb.Cluster/MemberPromote",
        pb.MemberPromoteRequest,
        pb.MemberPromoteResponse,
    ),
    "member_update": (
        "/etcdserverpb.Cluster/MemberUpdate",
        pb.MemberUpdateRequest,
        pb.MemberUpdateResponse,
    ),
    "member_remove": (
        "/etcdserverpb.Cluster/MemberRemove",
        pb.MemberRemoveRequest,
        pb.MemberRemoveResponse,
    ),
    "move_leader": (
        "/etcdserverpb.Maintenance/MoveLeader",
        pb.MoveLeaderRequest,
        pb.MoveLeaderResponse,
    ),
    "status": ("/etcdserverpb.Maintenance/Status", pb.StatusRequest, pb.StatusResponse),
    "hash_kv": ("/etcdserverpb.Maintenance/HashKV", pb.HashKVRequest, pb.HashKVResponse),
    "defragment": (
        "/etcdserverpb.Maintenance/Defragment",
        pb.DefragmentRequest,
        pb.DefragmentResponse,
    ),
    "alarm": ("/etcdserverpb.Maintenance/Alarm", pb.AlarmRequest, pb.AlarmResponse),
    "health_check": (
        "/grpc.health.v1.Health/Check",
        healthpb.HealthCheckRequest,
        healthpb.HealthCheckResponse,
    ),
}


class RpcFailedError(Exception):
    """A call ended with another status than OK."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code  # the number of the gRPC status
        self.text = text


def _failure(error: Any) -> RpcFailedError:
    return RpcFailedError(error.code().value[0], error.details() or "")


class WatchCall:
    """One Watch stream: requests go in by `send`, responses are collected in order."""

    def __init__(self, multi_callable: Any, metadata: Metadata) -> None:
        self._requests: queue.Queue[Any] = queue.Queue()
        self._arrived = threading.Condition()
        self._responses: list[Any] = []
        self.error: RpcFailedError | None = None
        self._call = multi_callable(iter(self._requests.get, None), metadata=tuple(metadata))
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def send(self, request: Any) -> None:
        """Send a WatchRequest."""
        self._requests.put(request)

    def create(self, key: bytes, **options: Any) -> None:
        """Ask for a watcher; ``options`` are the fields of WatchCreateRequest."""
        self.send(pb.WatchRequest(create_request=pb.WatchCreateRequest(key=key, **options)))

    def take(self, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Return the next response; raises `TimeoutError`, or the error that ended the stream."""
        deadline = time.monotonic() + timeout_s
        with self._arrived:
            while not self._responses:
                if self.error is not None:
                    raise self.error
                if not self._arrived.wait(max(deadline - time.monotonic(), 0.0)):
                    raise TimeoutError(f"no watch response in {timeout_s} s")
            return self._responses.pop(0)

    def take_events(self, count: int, timeout_s: float = CALL_TIMEOUT_S) -> list[Any]:
        """Return the next ``count`` events, whatever responses they come in."""
        events: list[Any] = []
        while len(events) < count:
            events.extend(self.take(timeout_s).events)
        assert len(events) == count, f"{len(events)} events, {count} were expected"
        return events

    def close(self) -> None:
        """Cancel the stream and wait for its thread."""
        self._requests.put(None)
        self._call.cancel()
        self._thread.join(CALL_TIMEOUT_S)

    def _collect(self) -> None:
        try:
            for response in self._call:
                with self._arrived:
                    self._responses.append(response)
                    self._arrived.notify_all()
        except grpc.RpcError as error:
            with self._arrived:
                self.error = _failure(error)
                self._arrived.notify_all()


class EtcdClient:
    """A channel to one member; a context manager.  Safe for threads."""

    def __init__(
        self,
        endpoint: str,
        *,
        ca_file: Path | None = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        reads_ahead: bool = True,
    ) -> None:
        """``reads_ahead``: whether windows grow with what the connection bears."""
        options = (
            ("grpc.http2.bdp_probe", int(reads_ahead)),
            ("grpc.max_receive_message_length", RECEIVE_OCTETS_MAX),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            # A member that was killed and started again is to be found soon.
            ("grpc.initial_reconnect_backoff_ms", 50),
            ("grpc.max_reconnect_backoff_ms", 500),
        )
        if ca_file is None:
            self._channel = grpc.insecure_channel(endpoint, options=options)
        else:
            credentials = grpc.ssl_channel_credentials(
                ca_file.read_bytes(),
                key_file.read_bytes() if key_file else None,
                cert_file.read_bytes() if cert_file else None,
            )
            self._channel = grpc.secure_channel(endpoint, credentials, options=options)
        self._calls: dict[str, Any] = {}

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> EtcdClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def call(
        self,
        name: str,
        request: Any,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        metadata: Metadata = (),
        wait_for_ready: bool = False,
    ) -> Any:
        """Make the unary call ``name`` with a request message; raises `RpcFailedError`."""
        path, _, response_class = _UNARY[name]
        if name not in self._calls:
            self._calls[name] = self._channel.unary_unary(
                path,
                request_serializer=_serialized,
                response_deserializer=response_class.FromString,
            )
        try:
            return self._calls[name](
                request, timeout=timeout_s, metadata=tuple(metadata), wait_for_ready=wait_for_ready
            )
        except grpc.RpcError as error:
            raise _failure(error) from None

    def invoke(self, name: str, **fields: Any) -> Any:
        """Make the unary call ``name`` with the fields of its request."""
        return self.call(name, _UNARY[name][1](**fields))

    def put(self, key: bytes, value: bytes, **fields: Any) -> Any:
        return self.invoke("put", key=key, value=value, **fields)

    def range(self, key: bytes, range_end: bytes = b"", **fields: Any) -> Any:
        return self.invoke("range", key=key, range_end=range_end, **fields)

    def raw_unary(self, path: str, octets: bytes, timeout_s: float = CALL_TIMEOUT_S) -> bytes:
        """Send ``octets`` as the request of ``path`` and return the octets of the answer."""
        try:
            answer: bytes = self._channel.unary_unary(path)(octets, timeout=timeout_s)
        except grpc.RpcError as error:
            raise _failure(error) from None
        return answer

    def watch(self, metadata: Metadata = ()) -> WatchCall:
        """Open a Watch stream."""
        return WatchCall(
            self._stream("/etcdserverpb.Watch/Watch", pb.WatchResponse.FromString), metadata
        )

    def keep_alive(self, lease_ids: Sequence[int]) -> list[Any]:
        """Renew ``lease_ids`` over one stream; one LeaseKeepAliveResponse for each."""
        stream = self._stream(
            "/etcdserverpb.Lease/LeaseKeepAlive", pb.LeaseKeepAliveResponse.FromString
        )
        requests = iter([pb.LeaseKeepAliveRequest(ID=lease_id) for lease_id in lease_ids])
        responses: Iterator[Any] = stream(requests, timeout=CALL_TIMEOUT_S)
        return [next(responses) for _ in lease_ids]

    def snapshot(self, timeout_s: float = CALL_TIMEOUT_S) -> Any:
        """Ask for a snapshot: an iterator over SnapshotResponses that can be cancelled."""
        stream = self._channel.unary_stream(
            "/etcdserverpb.Maintenance/Snapshot",
            request_serializer=_serialized,
            response_deserializer=pb.SnapshotResponse.FromString,
        )
        return stream(pb.SnapshotRequest(), timeout=timeout_s)

    def range_stream(self, request: Any, metadata: Metadata = ()) -> list[Any]:
        """Ask for a range in parts; returns the RangeResponse of each.  Raises `RpcFailedError`."""
        stream = self._channel.unary_stream(
            "/etcdserverpb.KV/RangeStream",
            request_serializer=_serialized,
            response_deserializer=pb.RangeStreamResponse.FromString,
        )
        try:
            answers = stream(request, timeout=CALL_TIMEOUT_S, metadata=tuple(metadata))
            return [part.range_response for part in answers]
        except grpc.RpcError as error:
            raise _failure(error) from None

    def _stream(self, path: str, parse: Any) -> Any:
        return self._channel.stream_stream(
            path, request_serializer=_serialized, response_deserializer=parse
        )


def _serialized(message: Any) -> bytes:
    octets: bytes = message.SerializeToString()
    return octets
