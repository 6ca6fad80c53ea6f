"""gRPC's health service: one name, the empty one, is served; others are unknown."""

from __future__ import annotations

import pytest

from etcdtw.grpc.call import INTERNAL, NOT_FOUND, StatusError
from etcdtw.rpc.maintenance.health import HealthService
from etcdtw.wire import healthpb as pb
from tests.support.recorded_call import RecordedCall

SERVING = pb.HealthCheckResponse.SERVING
NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


def asked(service: str) -> bytes:
    return pb.HealthCheckRequest(service=service).SerializeToString()


def test_the_whole_server_serves_and_any_other_name_is_not_found() -> None:
    health, call = HealthService(), RecordedCall()
    assert pb.HealthCheckResponse.FromString(health.check(call, asked(""))).status == SERVING
    with pytest.raises(StatusError) as refused:
        health.check(call, asked("etcdserverpb.KV"))
    assert (refused.value.code, refused.value.message) == (NOT_FOUND, "unknown service")


def test_the_list_has_the_empty_name_alone() -> None:
    octets = HealthService().list_services(RecordedCall(), b"")
    statuses = pb.HealthListResponse.FromString(octets).statuses
    assert {name: one.status for name, one in statuses.items()} == {"": SERVING}


@pytest.mark.parametrize(("service", "status"), [("", SERVING), ("etcdserverpb.KV", UNKNOWN)])
def test_a_watch_is_told_the_status_and_goes_on(service: str, status: int) -> None:
    call = RecordedCall()
    HealthService().watch(call)
    assert call.on_message is not None
    call.on_message(asked(service))
    assert [pb.HealthCheckResponse.FromString(one).status for one in call.sent] == [status]
    assert call.is_open


def test_octets_that_are_no_request_are_refused() -> None:
    with pytest.raises(StatusError) as refused:
        HealthService().check(RecordedCall(), b"\xff")
    assert refused.value.code == INTERNAL


def test_watchers_are_told_of_changes_until_they_leave() -> None:
    health, stays, leaves, unknown = HealthService(), *(RecordedCall() for _ in range(3))
    for call, service in ((stays, ""), (leaves, ""), (unknown, "x")):
        health.watch(call)
        assert call.on_message is not None
        call.on_message(asked(service))
    health.set_serving(False)
    health.set_serving(False)
    assert pb.HealthCheckResponse.FromString(health.check(stays, asked(""))).status == NOT_SERVING
    assert leaves.on_end is not None
    leaves.on_end()
    health.set_serving(True)
    told = [
        [pb.HealthCheckResponse.FromString(one).status for one in call.sent]
        for call in (stays, leaves, unknown)
    ]
    assert told == [[SERVING, NOT_SERVING, SERVING], [SERVING, NOT_SERVING], [UNKNOWN]]
