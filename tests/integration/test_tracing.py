"""Traces of running members: the same spans from real etcd and from ours."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.support.ports import free_port
from tests.support.processes import PROGRAMS, RunningMember
from tests.support.trace_collector import Collector, Span, collecting

pytestmark = pytest.mark.integration

KV = "/etcdserverpb.KV/"
LEASE = "/etcdserverpb.Lease/"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE}-{PARENT}-01"),)
SECRET = b"a value that nobody may see"
SPANS = 35
STOPS_S = 10.0
"""What is left is waited for half as long."""


@pytest.fixture(scope="module", params=PROGRAMS)
def traces(request: pytest.FixtureRequest) -> Iterator[list[Span]]:
    with collecting(free_port()) as collector:
        flags = [
            "--enable-distributed-tracing",
            f"--distributed-tracing-address={collector.address}",
            "--distributed-tracing-instance-id=i1",
            "--distributed-tracing-sampling-rate=1000000",
        ]
        with RunningMember(request.param, flags=flags) as member:
            ask_everything(member)
            member.stop()  # which sends what is left
        yield collector.wait(SPANS)


def ask_everything(member: RunningMember) -> None:
    """Make a call of each kind that etcd has a span for, and some that it has none for."""
    with grpc.insecure_channel(member.endpoint) as channel:
        ask_keys(channel)
        ask_leases(channel)
        ask_streams(channel)
        unary(channel, "/etcdserverpb.Cluster/MemberList", pb.MemberListRequest())
    head = {"Grpc-Metadata-traceparent": f"00-{TRACE}-{PARENT}-01"}
    body = b'{"key":"a2V5","value":"c2VjcmV0"}'
    url = f"http://{member.endpoint}/v3/kv/put"
    with urllib.request.urlopen(urllib.request.Request(url, body, head), timeout=10):
        pass


def unary(
    channel: grpc.Channel, path: str, request: Any, metadata: Sequence[tuple[str, str]] = ()
) -> bytes:
    call = channel.unary_unary(path, request_serializer=type(request).SerializeToString)
    try:
        reply: bytes = call(request, timeout=10, metadata=metadata)
    except grpc.RpcError:
        return b""
    return reply


def ask_keys(channel: grpc.Channel) -> None:
    put = pb.PutRequest(key=b"k", value=SECRET)
    unary(channel, KV + "Put", put, (*SAMPLED, ("tracestate", "a=b")))
    unsampled = f"00-{TRACE}-{PARENT}-00"
    unary(channel, KV + "Put", pb.PutRequest(key=b"never"), (("traceparent", unsampled),))
    unary(channel, KV + "Put", pb.PutRequest(value=SECRET))
    unary(channel, KV + "Put", pb.PutRequest(key=b"leased", lease=77))
    limited = pb.RangeRequest(key=b"k", range_end=b"\0", limit=3, revision=2, keys_only=True)
    unary(channel, KV + "Range", limited)
    unary(channel, KV + "Range", pb.RangeRequest(key=b"k", serializable=True))
    unary(channel, KV + "DeleteRange", pb.DeleteRangeRequest(key=b"k", range_end=b"l"))
    txn = pb.TxnRequest(
        compare=[pb.Compare(key=b"c", target=pb.Compare.VALUE, value=SECRET)],
        success=[pb.RequestOp(request_put=pb.PutRequest(key=b"p", value=SECRET, lease=0))],
        failure=[pb.RequestOp(request_put=pb.PutRequest(key=b"f", value=SECRET))],
    )
    unary(channel, KV + "Txn", txn)
    a_range = pb.RequestOp(request_range=pb.RangeRequest(key=b"r"))
    unary(channel, KV + "Txn", pb.TxnRequest(success=[a_range]))
    unary(channel, KV + "Compact", pb.CompactionRequest(revision=2, physical=True))
    unary(channel, KV + "Compact", pb.CompactionRequest(revision=2_000))


def ask_leases(channel: grpc.Channel) -> None:
    reply = unary(channel, LEASE + "LeaseGrant", pb.LeaseGrantRequest(TTL=100))
    lease_id = pb.LeaseGrantResponse.FromString(reply).ID
    renew = channel.stream_stream(
        LEASE + "LeaseKeepAlive", request_serializer=pb.LeaseKeepAliveRequest.SerializeToString
    )
    ids = (lease_id, 5)
    assert len(list(renew(iter([pb.LeaseKeepAliveRequest(ID=one) for one in ids])))) == 2
    unary(channel, LEASE + "LeaseTimeToLive", pb.LeaseTimeToLiveRequest(ID=lease_id))
    unary(channel, LEASE + "LeaseRevoke", pb.LeaseRevokeRequest(ID=lease_id))


def ask_streams(channel: grpc.Channel) -> None:
    ranges = channel.unary_stream(
        KV + "RangeStream", request_serializer=pb.RangeRequest.SerializeToString
    )
    list(ranges(pb.RangeRequest(key=b"\0", range_end=b"\0")))
    watches = channel.stream_stream(
        "/etcdserverpb.Watch/Watch", request_serializer=pb.WatchRequest.SerializeToString
    )
    over = threading.Event()

    def requests() -> Iterator[pb.WatchRequest]:
        create = pb.WatchCreateRequest(key=b"w", range_end=b"\0", prev_kv=True)
        yield pb.WatchRequest(create_request=create)
        yield pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"x"))
        yield pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=1))
        over.wait(10)

    call = watches(requests())
    for _ in range(3):
        next(call)
    call.cancel()
    over.set()


def told(spans: list[Span]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return name, name of the parent and attributes of each span; what no two members share
    left out."""
    names = {span.span_id: span.name for span in spans}
    found = []
    for span in spans:
        attributes = dict(span.attributes)
        for name in ("server.address", "server.port"):
            attributes.pop(name, None)
        if "id" in attributes and attributes["id"] != 5:
            attributes["id"] = 0
        found.append((span.name, names.get(span.parent_id, span.parent_id), attributes))
    return sorted(found, key=str)


def call(method: str, parent: str = "", code: str = "OK") -> tuple[str, str, dict[str, Any]]:
    """Return what is told of a call."""
    attributes = {
        "rpc.method": method,
        "rpc.system.name": "grpc",
        "rpc.response.status_code": code,
    }
    return method, parent, attributes


WRITES = {
    "compare_first_key": "c",
    "success_first_key": "p",
    "success_first_type": "put",
    "success_first_lease": 0,
    "compare_len": 1,
    "success_len": 1,
    "failure_len": 1,
    "read_only": False,
}
READS = {
    **WRITES,
    "compare_first_key": "",
    "success_first_key": "r",
    "success_first_type": "range",
    "success_first_lease": -1,
    "compare_len": 0,
    "failure_len": 0,
    "read_only": True,
}
LIMITED = {"range_begin": "k", "range_end": "\0", "rev": 2, "limit": 3, "count_only": False}
PLAIN = {"range_begin": "k", "range_end": "", "rev": 0, "limit": 0, "count_only": False}
WATCHED = {
    "key": "w",
    "range_end": "",
    "start_rev": 0,
    "progress_notify": False,
    "prev_kv": True,
    "fragment": False,
}


def test_each_kind_of_call_has_the_spans_that_real_etcd_exports(traces: list[Span]) -> None:
    kv, lease = "etcdserverpb.KV", "etcdserverpb.Lease"
    expected = [
        call(f"{kv}/Put", PARENT),
        ("put", f"{kv}/Put", {"key": "k"}),
        call(f"{kv}/Put", code="INVALID_ARGUMENT"),
        call(f"{kv}/Put", code="NOT_FOUND"),
        ("put", f"{kv}/Put", {"key": "leased"}),
        call(f"{kv}/Range"),
        ("range", f"{kv}/Range", {**LIMITED, "keys_only": True}),
        call(f"{kv}/Range"),
        ("range", f"{kv}/Range", {**PLAIN, "keys_only": False}),
        call(f"{kv}/DeleteRange"),
        ("delete_range", f"{kv}/DeleteRange", {"range_begin": "k", "range_end": "l"}),
        call(f"{kv}/Txn"),
        ("txn", f"{kv}/Txn", WRITES),
        call(f"{kv}/Txn"),
        ("txn", f"{kv}/Txn", READS),
        call(f"{kv}/Compact"),
        ("compact", f"{kv}/Compact", {"is_physical": True, "rev": 2}),
        call(f"{kv}/Compact", code="OUT_OF_RANGE"),
        ("compact", f"{kv}/Compact", {"is_physical": False, "rev": 2_000}),
        call(f"{lease}/LeaseGrant"),
        ("lease_grant", f"{lease}/LeaseGrant", {"id": 0, "ttl": 100}),
        call(f"{lease}/LeaseKeepAlive"),
        ("lease_renew", f"{lease}/LeaseKeepAlive", {"id": 0}),
        ("lease_renew", f"{lease}/LeaseKeepAlive", {"id": 5}),
        call(f"{lease}/LeaseTimeToLive"),
        call(f"{lease}/LeaseRevoke"),
        ("lease_revoke", f"{lease}/LeaseRevoke", {"id": 0}),
        call(f"{kv}/RangeStream"),
        ("range_streaming", f"{kv}/RangeStream", {**PLAIN, "range_begin": "\0", "range_end": "\0"}),
        call("etcdserverpb.Watch/Watch", code="CANCELLED"),
        ("watch", "etcdserverpb.Watch/Watch", WATCHED),
        ("watch", "etcdserverpb.Watch/Watch", {**WATCHED, "key": "x", "prev_kv": False}),
        call("etcdserverpb.Cluster/MemberList"),
        call(f"{kv}/Put", PARENT),
        ("put", f"{kv}/Put", {"key": "key"}),
    ]
    assert told(traces) == sorted(expected, key=str)


def test_spans_name_their_service_their_scope_and_their_server(traces: list[Span]) -> None:
    for span in traces:
        assert span.resource == {"service.name": "etcd", "service.instance.id": "i1"}
        is_call = "/" in span.name
        assert span.scope.startswith("go.opentelemetry.io/" if is_call else "go.etcd.io/etcd")
        if is_call:
            assert span.attributes["server.address"] == "127.0.0.1"
            assert span.attributes["server.port"] > 0


def test_calls_join_the_trace_of_their_client(traces: list[Span]) -> None:
    joined = [span for span in traces if span.trace_id == TRACE]
    assert sorted(span.name for span in joined) == ["etcdserverpb.KV/Put"] * 2 + ["put"] * 2


def test_no_value_is_in_any_span(traces: list[Span]) -> None:
    assert SECRET.decode() not in str(traces)


def test_without_a_rate_only_calls_of_sampled_traces_are_traced() -> None:
    with collecting(free_port()) as collector:
        with (
            RunningMember("etcdtw", flags=_flags(collector)) as member,
            grpc.insecure_channel(member.endpoint) as channel,
        ):
            unary(channel, KV + "Put", pb.PutRequest(key=b"unseen"))
            unary(channel, KV + "Put", pb.PutRequest(key=b"not text: \xff"), SAMPLED)
            member.stop()
        spans = collector.wait(2)
    assert [span.attributes.get("key") for span in spans if span.name == "put"] == [
        "not text: \\xff"
    ]


def test_a_collector_that_is_not_there_holds_up_neither_calls_nor_the_stop() -> None:
    absent = Collector(f"127.0.0.1:{free_port()}")
    flags = [*_flags(absent), "--distributed-tracing-sampling-rate=1000000"]
    with (
        RunningMember("etcdtw", flags=flags) as member,
        grpc.insecure_channel(member.endpoint) as channel,
    ):
        for _ in range(20):
            assert unary(channel, KV + "Put", pb.PutRequest(key=b"k"))
        began_s = time.monotonic()
        member.stop()
        assert time.monotonic() - began_s < STOPS_S


def _flags(collector: Collector) -> list[str]:
    return [
        "--enable-distributed-tracing",
        f"--distributed-tracing-address={collector.address}",
    ]
