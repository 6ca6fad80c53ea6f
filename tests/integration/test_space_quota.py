"""A member at its space quota: what it refuses, what it lets pass, and the way back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import pytest

from etcdtw.wire import etcdserverpb as pb
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.etcdctl import Etcdctl
from tests.support.processes import RunningMember

QUOTA_BYTES: Final = 2 * 1024 * 1024
VALUE: Final = b"v" * 100_000
PUTS_MAX: Final = 100
"""Five times what fits."""
WITHIN_S: Final = 15.0
NO_SPACE: Final = (8, "etcdserver: mvcc: database space exceeded")

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def member() -> Iterator[RunningMember]:
    with RunningMember("etcdtw", flags=[f"--quota-backend-bytes={QUOTA_BYTES}"]) as running:
        yield running


@pytest.fixture
def client(member: RunningMember) -> Iterator[EtcdClient]:
    with EtcdClient(member.endpoint) as connected:
        yield connected


def refused(client: EtcdClient, name: str, request: object) -> tuple[int, str] | None:
    try:
        client.call(name, request)
    except RpcFailedError as error:
        return error.code, error.text
    return None


def test_full_member_refuses_growth_until_it_is_compacted_and_disarmed(
    member: RunningMember, client: EtcdClient
) -> None:
    for _ in range(PUTS_MAX):
        outcome = refused(client, "put", pb.PutRequest(key=b"k", value=VALUE))
        if outcome is not None:
            break
    assert outcome == NO_SPACE
    etcdctl = Etcdctl(member)
    await_alarm(etcdctl)

    # What grows is refused, what gives back passes.
    assert refused(client, "put", pb.PutRequest(key=b"small", value=b"v")) == NO_SPACE
    assert refused(client, "lease_grant", pb.LeaseGrantRequest(TTL=60)) == NO_SPACE
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"t", value=b"v"))
    assert refused(client, "txn", pb.TxnRequest(success=[put])) == NO_SPACE
    deletion = client.call("delete_range", pb.DeleteRangeRequest(key=b"k"))
    assert deletion.deleted == 1
    assert "database space exceeded" in etcdctl.run("put", "a", "b").stderr

    revision = deletion.header.revision
    etcdctl.output("compact", "--physical", str(revision))
    assert etcdctl.lines("alarm", "disarm")
    assert etcdctl.output("alarm", "list").strip() == ""
    # The quota looks at the state again at most half a second later.
    deadline = time.monotonic() + WITHIN_S
    while refused(client, "put", pb.PutRequest(key=b"k", value=b"v")) is not None:
        assert time.monotonic() < deadline, "still full"
        time.sleep(0.2)
        etcdctl.output("alarm", "disarm")
    assert etcdctl.lines("get", "k") == ["k", "v"]
    assert refused(client, "lease_grant", pb.LeaseGrantRequest(TTL=60)) is None


def await_alarm(etcdctl: Etcdctl) -> None:
    deadline = time.monotonic() + WITHIN_S
    while "NOSPACE" not in etcdctl.output("alarm", "list"):
        assert time.monotonic() < deadline, "no alarm"
        time.sleep(0.05)
