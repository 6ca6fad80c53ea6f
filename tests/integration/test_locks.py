"""Locks and elections of real etcdctl and of the gRPC services exclude one another."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from etcdtw.wire import v3electionpb as epb
from etcdtw.wire import v3lockpb
from tests.support.etcd_client import EtcdClient
from tests.support.etcdctl import Etcdctl
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration

TIMEOUT_S = 10.0
SHORT_S = 0.5


@pytest.fixture
def etcdctl(member: RunningMember) -> Etcdctl:
    return Etcdctl(member)


@pytest.fixture
def channel(member: RunningMember) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(member.endpoint) as opened:
        yield opened


def ask(channel: grpc.Channel, method: str, request: Any, answer: Any) -> Any:
    """Return the future of a call."""
    call = channel.unary_unary(
        method,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,
    )
    return call.future(request, timeout=TIMEOUT_S)


def lock(channel: grpc.Channel, name: str, lease: int) -> Any:
    request = v3lockpb.LockRequest(name=name.encode(), lease=lease)
    return ask(channel, "/v3lockpb.Lock/Lock", request, v3lockpb.LockResponse)


def unlock(channel: grpc.Channel, key: bytes) -> Any:
    request = v3lockpb.UnlockRequest(key=key)
    return ask(channel, "/v3lockpb.Lock/Unlock", request, v3lockpb.UnlockResponse)


def elect(channel: grpc.Channel, method: str, request: Any) -> Any:
    answer = getattr(epb, f"{method}Response")
    return ask(channel, f"/v3electionpb.Election/{method}", request, answer)


def lease(client: EtcdClient, ttl_s: int = 600) -> int:
    return int(client.invoke("lease_grant", TTL=ttl_s).ID)


def is_waiting(call: Any) -> bool:
    time.sleep(SHORT_S)
    return not call.done()


def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call.result()
    return caught.value.code(), caught.value.details()


@contextmanager
def running(etcdctl: Etcdctl, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with etcdctl.start(*arguments) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def keys(client: EtcdClient, name: str) -> list[bytes]:
    prefix = name.encode()
    return [one.key for one in client.range(prefix + b"/", prefix + b"0").kvs]


def test_a_lock_of_etcdctl_keeps_the_service_waiting(
    etcdctl: Etcdctl, channel: grpc.Channel, client: EtcdClient
) -> None:
    with running(etcdctl, "lock", "one") as process:
        held = first_line(process)
        assert held.startswith("one/")
        call = lock(channel, "one", lease(client))
        assert is_waiting(call)
    answer = call.result()
    assert keys(client, "one") == [answer.key]
    unlock(channel, answer.key).result()
    assert keys(client, "one") == []


def test_a_lock_of_the_service_keeps_etcdctl_waiting(
    etcdctl: Etcdctl, channel: grpc.Channel, client: EtcdClient
) -> None:
    key = lock(channel, "two", lease(client)).result().key
    with etcdctl.start("lock", "two", "echo", "ours") as process:
        until(lambda: len(keys(client, "two")) == 2)
        assert process.poll() is None
        assert unlock(channel, key).result().header.revision
        assert first_line(process) == "ours"
        assert process.wait(TIMEOUT_S) == 0


def test_a_leader_of_etcdctl_and_a_candidate_of_the_service(
    etcdctl: Etcdctl, channel: grpc.Channel, client: EtcdClient
) -> None:
    with running(etcdctl, "elect", "three", "theirs") as process:
        assert first_line(process).startswith("three/")
        assert first_line(process) == "theirs"
        request = epb.CampaignRequest(name=b"three", lease=lease(client), value=b"ours")
        call = elect(channel, "Campaign", request)
        assert is_waiting(call)
        shown = elect(channel, "Leader", epb.LeaderRequest(name=b"three")).result()
        assert shown.kv.value == b"theirs"
    leader = call.result().leader
    listened = etcdctl.start("elect", "-l", "three")
    with listened as process:
        assert first_line(process) == leader.key.decode()
        assert first_line(process) == "ours"
        elect(channel, "Proclaim", epb.ProclaimRequest(leader=leader, value=b"new")).result()
        assert [first_line(process), first_line(process)] == [leader.key.decode(), "new"]
        process.kill()
    elect(channel, "Resign", epb.ResignRequest(leader=leader)).result()
    assert failure(elect(channel, "Proclaim", epb.ProclaimRequest(leader=leader)))[1] == (
        "election: not leader"
    )


def test_refusals_are_etcds(channel: grpc.Channel) -> None:
    unknown = grpc.StatusCode.UNKNOWN
    no_lease = (unknown, "etcdserver: requested lease not found")
    assert failure(lock(channel, "four", 5)) == no_lease
    assert failure(elect(channel, "Campaign", epb.CampaignRequest(name=b"four", lease=5))) == (
        no_lease
    )
    no_leader = elect(channel, "Leader", epb.LeaderRequest(name=b"four"))
    assert failure(no_leader) == (unknown, "election: no leader")
    for call in (
        elect(channel, "Proclaim", epb.ProclaimRequest()),
        elect(channel, "Resign", epb.ResignRequest()),
    ):
        assert failure(call) == (unknown, '"leader" field must be provided')
    empty = unlock(channel, b"")
    assert failure(empty) == (unknown, "etcdserver: key is not provided")


def test_a_session_that_ends_while_it_waits_gets_no_lock(
    channel: grpc.Channel, client: EtcdClient
) -> None:
    first, second = lease(client), lease(client)
    key = lock(channel, "five", first).result().key
    call = lock(channel, "five", second)
    until(lambda: len(keys(client, "five")) == 2)
    client.invoke("lease_revoke", ID=second)
    unlock(channel, key).result()
    assert failure(call) == (grpc.StatusCode.UNKNOWN, "mutex: session is expired")


def test_who_gives_up_leaves_no_key(channel: grpc.Channel, client: EtcdClient) -> None:
    key = lock(channel, "six", lease(client)).result().key
    call = lock(channel, "six", lease(client))
    until(lambda: len(keys(client, "six")) == 2)
    call.cancel()
    until(lambda: keys(client, "six") == [key])


def test_an_observer_hears_of_each_leader(channel: grpc.Channel, client: EtcdClient) -> None:
    observe = channel.unary_stream(
        "/v3electionpb.Election/Observe",
        request_serializer=epb.LeaderRequest.SerializeToString,
        response_deserializer=epb.LeaderResponse.FromString,
    )
    observed = observe(epb.LeaderRequest(name=b"seven"), timeout=TIMEOUT_S)
    told = []
    for value in (b"1", b"2"):
        request = epb.CampaignRequest(name=b"seven", lease=lease(client), value=value)
        leader = elect(channel, "Campaign", request).result().leader
        answer = next(observed)
        assert answer.header.revision >= answer.kv.mod_revision == answer.kv.create_revision
        told.append((answer.kv.key, answer.kv.value))
        assert told[-1] == (leader.key, value)
        elect(channel, "Resign", epb.ResignRequest(leader=leader)).result()
    observed.cancel()
