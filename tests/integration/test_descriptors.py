"""A member with few file descriptors, and clients that hold them all."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress

import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.support.etcd_client import EtcdClient
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration

LIMIT = 1024
IDLE_COUNT = 1500
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"


class LimitedMember(RunningMember):
    """A member that may have `LIMIT` descriptors, and not more."""

    def command(self) -> list[str]:
        return ["sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", *super().command()]


@pytest.fixture(scope="module")
def member() -> Iterator[RunningMember]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 2 * IDLE_COUNT:
        pytest.skip(f"this process may have {before[1]} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    with LimitedMember("etcdtw") as running:
        yield running
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("first_octets", [b"", PREFACE])
def test_idle_connections_and_a_defragmentation_do_not_end_a_member(
    member: RunningMember, first_octets: bytes
) -> None:
    with EtcdClient(member.endpoint) as client, ExitStack() as stack:
        client.call("put", pb.PutRequest(key=b"k", value=b"v"))
        for _ in range(IDLE_COUNT):
            with suppress(OSError):
                idle = stack.enter_context(
                    closing(socket.create_connection(("127.0.0.1", member.client_port), 5.0))
                )
                idle.sendall(first_octets)
        for _ in range(3):
            client.call("defragment", pb.DefragmentRequest())
            client.call("put", pb.PutRequest(key=b"k", value=b"w"))
        kvs = client.call("range", pb.RangeRequest(key=b"k")).kvs
        assert kvs[0].value == b"w"
        if not first_octets:
            with EtcdClient(member.endpoint) as newcomer:  # silent ones make room
                newcomer.call("put", pb.PutRequest(key=b"k", value=b"x"))
    assert member.is_running
