"""A member at its space quota: what it refuses, what it lets pass, and the way back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event
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
BURST_QUOTA_BYTES: Final = 8 * 1024 * 1024
BURST_PUTS_MAX: Final = 200
WRITERS: Final = 8
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
    assert refused(client, "put", pb.PutRequest(key=b"k", value=b"v")) is None
    assert etcdctl.lines("get", "k") == ["k", "v"]
    assert refused(client, "lease_grant", pb.LeaseGrantRequest(TTL=60)) is None


def test_a_burst_does_not_pass_the_quota_and_a_writer_does_not_bring_the_alarm_back() -> None:
    with (
        RunningMember("etcdtw", flags=[f"--quota-backend-bytes={BURST_QUOTA_BYTES}"]) as member,
        EtcdClient(member.endpoint) as client,
        ThreadPoolExecutor(WRITERS) as pool,
    ):
        etcdctl = Etcdctl(member)
        passed = list(pool.map(partial(put_until_full, client), range(WRITERS)))
        # What is in use besides values is small, and the last values may not fit.
        assert BURST_QUOTA_BYTES // 2 < sum(passed) * len(VALUE) < BURST_QUOTA_BYTES
        await_alarm(etcdctl)

        is_over = Event()
        writing = pool.submit(write_on, client, is_over)
        try:
            deletion = client.call("delete_range", pb.DeleteRangeRequest(key=b"burst"))
            etcdctl.output("compact", str(deletion.header.revision))
            etcdctl.output("alarm", "disarm")
            time.sleep(1.0)
            assert etcdctl.output("alarm", "list").strip() == ""
        finally:
            is_over.set()
        assert writing.result() > 0


def put_until_full(client: EtcdClient, _: int) -> int:
    """Return how many puts passed."""
    request = pb.PutRequest(key=b"burst", value=VALUE)
    for passed in range(BURST_PUTS_MAX):
        if refused(client, "put", request) is not None:
            return passed
    return BURST_PUTS_MAX


def write_on(client: EtcdClient, is_over: Event) -> int:
    """Put small values whatever comes; return how many passed."""
    passed = 0
    while not is_over.wait(0.005):
        passed += refused(client, "put", pb.PutRequest(key=b"small", value=b"v")) is None
    return passed


def await_alarm(etcdctl: Etcdctl) -> None:
    deadline = time.monotonic() + WITHIN_S
    while "NOSPACE" not in etcdctl.output("alarm", "list"):
        assert time.monotonic() < deadline, "no alarm"
        time.sleep(0.05)
