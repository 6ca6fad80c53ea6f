"""What metadata decides before a method is called, over the real server side of gRPC."""

from __future__ import annotations

import pytest

from etcdtw.grpc.call import (
    DATA_LOSS,
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    SERVER_STREAM,
    UNARY,
    UNAVAILABLE,
    Call,
    Method,
    StatusError,
)
from etcdtw.rpc.screening import VERSION_LENGTH_MAX, VERSIONS_MAX, Screening
from etcdtw.server.metrics.sources import call_sources
from etcdtw.wire import etcdserverpb as pb
from tests.grpc.grpc_rig import ServerRig
from tests.support.fake_facade import FakeFacade
from tests.support.recorded_call import RecordedCall

CORRUPT = (DATA_LOSS, "etcdserver: corrupt cluster")
NO_LEADER = (UNAVAILABLE, "etcdserver: no leader")
HAS_LEADER = (b"hasleader", b"true")


class Leaders(FakeFacade):
    leader_id = 7
    is_voter = True
    is_learner = False
    is_quarantined = False


@pytest.fixture
def leaders() -> Leaders:
    return Leaders()


@pytest.fixture
def rig(leaders: Leaders) -> ServerRig:
    rig = ServerRig()
    rig.methods.screen = Screening(leaders)
    return rig


def labels(rig: ServerRig) -> dict[str, int]:
    return {label: count for (_, label), count in rig.stats.started_by_label().items()}


def test_caller_that_asks_for_a_leader_is_refused_while_there_is_none(
    rig: ServerRig, leaders: Leaders
) -> None:
    assert rig.request("Unary", b"m", HAS_LEADER).status == (0, "")
    leaders.leader_id = 0  # the header block is known by now
    assert rig.request("Unary", b"m", HAS_LEADER).status == NO_LEADER
    assert rig.request("Unary", b"m").status == (0, "")
    leaders.leader_id = 7
    assert rig.request("Unary", b"m", HAS_LEADER).status == (0, "")


@pytest.mark.parametrize("value", [b"false", b"True", b"1", b""])
def test_only_the_exact_word_asks_for_a_leader(
    rig: ServerRig, leaders: Leaders, value: bytes
) -> None:
    leaders.leader_id = 0
    assert rig.request("Unary", b"m", (b"hasleader", value)).status == (0, "")


def test_server_stream_is_refused_at_its_opening(rig: ServerRig, leaders: Leaders) -> None:
    leaders.leader_id = 0
    assert rig.request("Server", b"m", HAS_LEADER).status == NO_LEADER


def test_version_that_is_no_text_is_refused(rig: ServerRig) -> None:
    answer = rig.request("Unary", b"m", (b"client-api-version", b"3.\xff"))
    assert answer.status == (INVALID_ARGUMENT, "etcdserver: invalid client api version")


def test_calls_are_counted_by_the_version_that_they_name(rig: ServerRig) -> None:
    for _ in range(3):
        rig.request("Unary", b"m", (b"client-api-version", b"3.7"))
    rig.request("Unary", b"m")
    assert (labels(rig)["3.7"], labels(rig)["unknown"]) == (3, 1)
    for _ in range(2):  # reading changes nothing
        (total,) = [stats for stats in rig.stats.methods() if stats.path.endswith("/Unary")]
        assert (total.started, total.handled[0]) == (4, 4)


def test_number_of_labels_is_bounded(rig: ServerRig) -> None:
    for i in range(VERSIONS_MAX + 5):
        rig.request("Unary", b"m", (b"client-api-version", b"v%d" % i))
    rig.request("Unary", b"m", (b"client-api-version", b"v0"))
    assert (len(labels(rig)), labels(rig)["other"], labels(rig)["v0"]) == (VERSIONS_MAX + 1, 5, 2)


@pytest.mark.parametrize(("length", "label"), [(VERSION_LENGTH_MAX, "x"), (33, "other")])
def test_length_of_a_label_is_bounded(rig: ServerRig, length: int, label: str) -> None:
    rig.request("Unary", b"m", (b"client-api-version", b"x" * length))
    assert [name for name in labels(rig) if name.startswith(label)]


def test_metric_shows_every_version(rig: ServerRig) -> None:
    rig.request("Unary", b"m", (b"client-api-version", b"3.7"))
    rig.request("Unary", b"m")
    assert call_sources(rig.stats)["etcd_server_client_requests_total"]() == {
        ("unary", "3.7"): 1,
        ("unary", "unknown"): 1,
    }


NOT_FOR_LEARNERS = (FAILED_PRECONDITION, "etcdserver: rpc not supported for learner")


def test_learner_refuses_calls_of_each_kind_until_it_votes(
    rig: ServerRig, leaders: Leaders
) -> None:
    leaders.is_voter, leaders.is_learner = False, True
    for method in ("Unary", "Server", "Bidi"):
        assert rig.request(method, b"m").status == NOT_FOR_LEARNERS
    leaders.is_voter, leaders.is_learner = True, False  # the header blocks are known by now
    assert rig.request("Unary", b"m").status == (0, "")


def test_member_that_nobody_has_added_yet_answers_until_it_learns(
    rig: ServerRig, leaders: Leaders
) -> None:
    leaders.is_voter = False
    assert rig.request("Unary", b"m").status == (0, "")
    leaders.is_learner = True
    assert rig.request("Unary", b"m").status == NOT_FOR_LEARNERS


def test_learner_serves_status_snapshots_and_serializable_ranges(leaders: Leaders) -> None:
    leaders.is_voter, leaders.is_learner = False, True
    screen = Screening(leaders)
    served = []

    def unary(call: Call, message: bytes) -> bytes:
        served.append(message)
        return b""

    def screened(path: str) -> Method:
        return screen(Method(path, UNARY, unary, None), lambda name: None)[1]

    status = screened("/etcdserverpb.Maintenance/Status")
    assert status.unary is unary
    of_range = screened("/etcdserverpb.KV/Range").unary
    assert of_range is not None
    serializable = pb.RangeRequest(key=b"k", serializable=True).SerializeToString()
    of_range(RecordedCall(), serializable)
    assert served == [serializable]
    for path in ("/etcdserverpb.KV/Range", "/etcdserverpb.Cluster/MemberList"):
        refused = screened(path).unary
        assert refused is not None
        with pytest.raises(StatusError) as caught:
            refused(RecordedCall(), pb.RangeRequest(key=b"k").SerializeToString())
        assert (caught.value.code, caught.value.message) == NOT_FOR_LEARNERS
    snapshot = Method("/etcdserverpb.Maintenance/Snapshot", SERVER_STREAM, None, lambda call: None)
    assert screen(snapshot, lambda name: None)[1] is snapshot


def test_member_whose_keys_differ_refuses_calls_of_each_kind_while_they_do(
    rig: ServerRig, leaders: Leaders
) -> None:
    leaders.is_quarantined = True
    for method in ("Unary", "Server", "Bidi"):
        assert rig.request(method, b"m").status == CORRUPT
    leaders.is_quarantined = False  # the header blocks are known by now
    assert rig.request("Unary", b"m").status == (0, "")


@pytest.mark.parametrize(
    ("path", "is_served"),
    [
        ("/etcdserverpb.KV/Range", False),
        ("/etcdserverpb.KV/Txn", False),
        ("/etcdserverpb.Watch/Watch", False),
        ("/etcdserverpb.Lease/LeaseTimeToLive", False),
        ("/etcdserverpb.Maintenance/Snapshot", False),
        ("/v3lockpb.Lock/Lock", False),
        ("/etcdserverpb.Maintenance/Alarm", True),
        ("/etcdserverpb.Maintenance/HashKV", True),
        ("/etcdserverpb.Cluster/MemberList", True),
        ("/grpc.health.v1.Health/Check", True),
    ],
)
def test_member_whose_keys_differ_answers_what_it_takes_to_replace_it(
    leaders: Leaders, path: str, is_served: bool
) -> None:
    leaders.is_quarantined = True
    method = Method(path, UNARY, lambda call, message: b"", None)
    screened = Screening(leaders)(method, lambda name: None)[1]
    assert (screened is method) == is_served
