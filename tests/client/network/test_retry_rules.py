"""Which calls are made again."""

from __future__ import annotations

import pytest

from etcdtw.client.channel import NotTakenError
from etcdtw.client.network.retry_rules import (
    AGAIN,
    NO,
    NOT_FOR_LEARNERS,
    WITH_NEW_TOKEN,
    verdict,
    wait_s,
)
from etcdtw.grpc.call import (
    DEADLINE_EXCEEDED,
    FAILED_PRECONDITION,
    INTERNAL,
    INVALID_ARGUMENT,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    StatusError,
)

READ = "/etcdserverpb.KV/Range"
WRITES = (
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Cluster/MemberAdd",
    "/etcdserverpb.Auth/UserAdd",
    "/etcdserverpb.KV/AMethodOfLater",
)


@pytest.mark.parametrize("path", WRITES)
def test_a_change_whose_outcome_is_not_known_is_never_made_again(path: str) -> None:
    for text in ("error reading from server: EOF", "etcdserver: leader changed"):
        assert verdict(path, StatusError(UNAVAILABLE, text), 3) == NO


def test_a_read_is_made_again_while_servers_cannot_answer() -> None:
    assert verdict(READ, StatusError(UNAVAILABLE, "etcdserver: leader changed"), 1) == AGAIN


@pytest.mark.parametrize("code", [DEADLINE_EXCEEDED, INTERNAL, RESOURCE_EXHAUSTED])
def test_other_errors_of_a_read_are_told(code: int) -> None:
    assert verdict(READ, StatusError(code, ""), 3) == NO


def test_what_the_channel_could_not_place_is_told() -> None:
    assert verdict(READ, NotTakenError(UNAVAILABLE, ""), 3) == NO


@pytest.mark.parametrize(("servers", "expected"), [(1, NO), (2, AGAIN)])
def test_what_a_learner_refuses_goes_to_another_server(servers: int, expected: int) -> None:
    error = StatusError(FAILED_PRECONDITION, NOT_FOR_LEARNERS)
    assert verdict(WRITES[0], error, servers) == expected


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (UNAUTHENTICATED, "etcdserver: invalid auth token"),
        (INVALID_ARGUMENT, "etcdserver: revision of auth store is old"),
        (INVALID_ARGUMENT, "etcdserver: user name is empty"),
    ],
)
def test_a_refused_token_asks_for_another_whatever_the_call(code: int, text: str) -> None:
    for path in (READ, *WRITES):
        assert verdict(path, StatusError(code, text), 1) == WITH_NEW_TOKEN


def test_a_wait_follows_each_quorums_attempts() -> None:
    assert [wait_s(attempt, 3, 0.5) for attempt in range(1, 5)] == [0, 0.025, 0, 0.025]
    assert [wait_s(attempt, 1, 0.5) for attempt in range(1, 3)] == [0.025, 0.025]
    assert wait_s(1, 1, 0.0) == pytest.approx(0.0225)
    assert wait_s(1, 1, 1.0) == pytest.approx(0.0275)
