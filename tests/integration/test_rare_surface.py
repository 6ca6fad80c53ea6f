"""What few clients ask for: rare fields and pages, the same from real etcd and from ours."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

import pytest

from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import healthpb
from tests.support.etcd_client import EtcdClient
from tests.support.processes import PROGRAMS, RunningMember

pytestmark = pytest.mark.integration

QUOTA = 3 << 30
MAINTENANCE = "/etcdserverpb.Maintenance/"
PROFILES = {
    "/debug/pprof/": 200,
    "/debug/pprof/allocs?seconds=1": 200,
    "/debug/pprof/cmdline": 200,
    "/debug/pprof/goroutine": 200,
    "/debug/pprof/heap?seconds=1": 200,
    "/debug/pprof/profile?seconds=1": 200,
}
CHECKS = {
    "/livez/serializable_read": 200,
    "/readyz/data_corruption": 200,
    "/readyz/linearizable_read": 200,
    "/readyz/non_learner": 200,
    "/readyz/serializable_read": 200,
}
PEER_PAGES = {
    ("GET", "/downgrade/enabled"): (200, "false"),
    ("GET", "/leases/internal"): (405, "Method Not Allowed"),
    ("GET", "/members/promote/1"): (405, "Method Not Allowed"),
    ("POST", "/members/promote/1"): (404, "membership: ID not found"),
    ("POST", "/raft/stream/msgapp/1"): (405, "Method Not Allowed"),
}


@pytest.fixture(scope="module", params=PROGRAMS)
def member(request: pytest.FixtureRequest) -> Iterator[RunningMember]:
    flags = [f"--quota-backend-bytes={QUOTA}", "--enable-pprof"]
    with RunningMember(request.param, flags=flags) as running:
        yield running


@pytest.fixture(scope="module")
def client(member: RunningMember) -> Iterator[EtcdClient]:
    with EtcdClient(member.endpoint) as connected:
        yield connected


def asked(port: int, verb: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(verb, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("latin-1").strip()
    finally:
        connection.close()


def test_the_status_tells_the_quota_and_a_downgrade(client: EtcdClient) -> None:
    status: pb.StatusResponse = client.call("status", pb.StatusRequest())
    assert status.dbSizeQuota == QUOTA
    assert not status.downgradeInfo.enabled
    enable = pb.DowngradeRequest(action=pb.DowngradeRequest.ENABLE, version="3.6.0")
    client.raw_unary(MAINTENANCE + "Downgrade", enable.SerializeToString())
    info: pb.DowngradeInfo = client.call("status", pb.StatusRequest()).downgradeInfo
    assert (info.enabled, info.targetVersion) == (True, "3.6.0")
    cancel = pb.DowngradeRequest(action=pb.DowngradeRequest.CANCEL)
    client.raw_unary(MAINTENANCE + "Downgrade", cancel.SerializeToString())


def test_a_hash_is_a_number_and_a_defragmentation_says_nothing(client: EtcdClient) -> None:
    hashed = client.raw_unary(MAINTENANCE + "Hash", pb.HashRequest().SerializeToString())
    assert pb.HashResponse.FromString(hashed).hash > 0
    octets = client.raw_unary(MAINTENANCE + "Defragment", b"")
    assert not pb.DefragmentResponse.FromString(octets).HasField("header")


def test_health_of_all_services_is_listed_by_name(client: EtcdClient) -> None:
    octets = client.raw_unary("/grpc.health.v1.Health/List", b"")
    statuses = healthpb.HealthListResponse.FromString(octets).statuses
    # Each is a HealthListResponse.StatusesEntry: its "key" is the name, its "value" the health.
    assert {key: value.status for key, value in statuses.items()} == {
        "": healthpb.HealthCheckResponse.SERVING
    }


@pytest.mark.parametrize("path", [*CHECKS, *PROFILES])
def test_each_check_and_profile_has_a_page(member: RunningMember, path: str) -> None:
    expected = {**CHECKS, **PROFILES}[path]
    assert asked(member.client_port, "GET", path)[0] == expected


@pytest.mark.parametrize(("verb", "path"), list(PEER_PAGES))
def test_pages_of_peers_answer_as_real_ones(member: RunningMember, verb: str, path: str) -> None:
    assert asked(member.peer_port, verb, path) == PEER_PAGES[verb, path]
