"""The line of a slow request: the same fields from real etcd and from ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.support.cluster_processes import wait_for
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.processes import PROGRAMS, RunningMember

pytestmark = pytest.mark.integration

SECRET = b"a value that nobody may see"
PUT = pb.PutRequest(key=b'k\xff"x\n', value=SECRET)
LIMITED = pb.RangeRequest(
    key=b"k", range_end=b"\0", limit=3, revision=2, sort_order=pb.RangeRequest.ASCEND
)
DELETE = pb.DeleteRangeRequest(key=b"k", range_end=b"l")
TXN = pb.TxnRequest(
    compare=[
        pb.Compare(key=b"c", target=pb.Compare.VALUE, value=SECRET),
        pb.Compare(key=b"c", target=pb.Compare.VERSION, result=pb.Compare.GREATER, version=3),
    ],
    success=[pb.RequestOp(request_put=pb.PutRequest(key=b"p", value=SECRET))],
    failure=[
        pb.RequestOp(request_range=pb.RangeRequest(key=b"r")),
        pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"dd")),
    ],
)
CALLS: list[tuple[str, Any]] = [
    ("put", PUT),
    ("put", pb.PutRequest(key=b"leased", value=SECRET, lease=77)),
    ("range", LIMITED),
    ("range", pb.RangeRequest(key=b"k")),
    ("delete_range", DELETE),
    ("txn", TXN),
]
EXPECTED = [
    ("Put", 1, PUT.ByteSize(), 0, 'key:"k\\377\\"x\\n" value_size:27 '),
    ("Put", 1, 39, 0, 'key:"leased" value_size:27 lease:77 '),
    (
        "Range",
        0,
        12,
        1,
        'key:"k"  range_end:"\\x00"  limit:3  revision:2  sort_order:ASCEND',
    ),
    ("Range", 0, 3, 0, 'key:"k"'),
    ("DeleteRange", 0, 6, 1, 'key:"k"  range_end:"l"'),
    (
        "Txn",
        2,
        sum(op.ByteSize() for op in TXN.failure),
        0,
        'compare:<target:VALUE key:"c" value_size:27  result:GREATER  key:"c"  version:3> '
        'success:<request_put:<key:"p" value_size:27 >> '
        'failure:<request_range:{key:"r"} request_delete_range:{key:"dd"}>',
    ),
]


@pytest.fixture(scope="module", params=PROGRAMS)
def told(request: pytest.FixtureRequest) -> Iterator[list[tuple[dict[str, Any], int]]]:
    """Return the line of each call, with the octets of its answer."""
    sizes = []
    with RunningMember(request.param, flags=["--warning-unary-request-duration=1ns"]) as member:
        with EtcdClient(member.endpoint) as client:
            for name, message in CALLS:
                try:
                    sizes.append(client.call(name, message).ByteSize())
                except RpcFailedError:
                    sizes.append(0)

        def lines() -> list[dict[str, Any]]:
            found = [json.loads(line) for line in member.stderr().splitlines() if line[:1] == "{"]
            told = [one for one in found if one["msg"] == "request stats"]
            return [one for one in told if "/etcdserverpb.KV/" in one["response type"]]

        wait_for(lambda: len(lines()) >= len(CALLS), 10.0, "each call has a line")
        yield list(zip(lines(), sizes, strict=True))


def test_each_call_is_told_in_etcds_words(told: list[tuple[dict[str, Any], int]]) -> None:
    for (line, size), expected in zip(told, EXPECTED, strict=True):
        method, request_count, request_size, response_count, content = expected
        assert line["level"] == "warn"
        assert line["response type"] == f"/etcdserverpb.KV/{method}"
        assert line["remote"].startswith("127.0.0.1:")
        assert line["request content"] == content
        assert (line["request count"], line["request size"]) == (request_count, request_size)
        assert (line["response count"], line["response size"]) == (response_count, size)
        assert line["time spent"].endswith(("ms", "µs"))
        assert line["start time"].endswith("Z")


def test_no_value_is_told(told: list[tuple[dict[str, Any], int]]) -> None:
    assert SECRET.decode() not in str(told)
