"""One voter in memory: what it promises, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import cast

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from etcdtw.apply.applier import FIELD_LEASE_GRANT, FIELD_LEASE_REVOKE
from etcdtw.apply.errors import (
    RequestTimeoutError,
    RequestTooLargeError,
    StoppedError,
    TooManyRequestsError,
)
from etcdtw.node.loop.turn import APPLY_SLICE_ENTRIES
from etcdtw.wire import etcdserverpb as pb
from tests.support.model_state import State
from tests.support.node_rig import CONFIG, MEMBER_ID, NodeRig


@pytest.fixture
def rig() -> NodeRig:
    return NodeRig().start()


def test_a_lone_voter_leads_at_once_and_knows_its_members(rig: NodeRig) -> None:
    assert rig.node.is_leader
    assert [member.member_id for member in rig.node.members.all()] == [MEMBER_ID]
    assert rig.node.applied_index == rig.node.commit_index


def test_all_puts_of_an_iteration_share_one_append_and_one_flush(rig: NodeRig) -> None:
    appends, flushes = rig.log.appends, rig.flusher.flushes
    for i in range(50):
        rig.put(b"k%d" % i)
    rig.run()
    assert [applied.revision for applied in rig.outcomes] == list(range(2, 52))
    assert rig.log.appends == appends + 1
    assert rig.flusher.flushes == flushes + 1


def test_answers_of_a_large_append_go_out_while_the_rest_is_applied(rig: NodeRig) -> None:
    flushes = rig.flusher.flushes
    for i in range(3 * APPLY_SLICE_ENTRIES):
        rig.put(b"k%d" % i)
    rig.run()
    assert len(rig.outcomes) == 3 * APPLY_SLICE_ENTRIES
    assert rig.flusher.flushes == flushes + 3


def test_issue_14370_nothing_is_answered_before_our_own_log_is_durable(rig: NodeRig) -> None:
    rig.log.holds = True
    rig.put(b"k")
    rig.run(1.0)
    assert rig.outcomes == []
    assert rig.state.get(b"k") is None
    rig.log.release()
    rig.run()
    assert [applied.error for applied in rig.outcomes] == [None]


def test_a_read_sees_every_put_answered_before_it(rig: NodeRig) -> None:
    rig.put(b"k")
    rig.read()
    rig.run()
    assert rig.reads == [None]
    assert rig.state.get(b"k") is not None


def test_a_read_waits_for_what_is_committed_and_not_yet_durable_here(rig: NodeRig) -> None:
    rig.log.holds = True
    rig.put(b"k")
    rig.run()
    rig.read()
    rig.run()
    # The put is not committed: the read need not see it, and does not wait for it.
    assert rig.reads == [None]
    rig.log.release()


def test_a_request_over_the_limit_is_refused_and_one_at_the_limit_is_not(rig: NodeRig) -> None:
    room = rig.node.config.request_bytes_max - 14 - 4  # header, tag and length, as etcd counts
    overhead = len(pb.PutRequest(key=b"k", value=b"v" * 100_000).SerializeToString()) - 100_000
    rig.put(b"k", b"v" * (room - overhead))
    rig.put(b"k", b"v" * (room - overhead + 1))
    rig.run()
    # Refusals come at once, so before the outcome of the log.
    assert type(rig.outcomes[0].error) is RequestTooLargeError
    assert rig.outcomes[1].error is None


def test_a_state_that_cannot_keep_up_makes_apply_wait(rig: NodeRig) -> None:
    rig.state.is_full = True
    rig.put(b"k")
    rig.read()
    rig.run(0.5)
    assert (rig.outcomes, rig.state.get(b"k")) == ([], None)
    rig.state.is_full = False
    rig.run(0.1)
    assert [applied.error for applied in rig.outcomes] == [None]
    assert rig.state.get(b"k") is not None


def test_proposals_too_far_ahead_of_apply_are_refused() -> None:
    rig = NodeRig(config=replace(CONFIG, apply_gap_max=2)).start()
    rig.state.is_full = True
    for i in range(3):
        rig.put(b"k%d" % i)
        rig.run()
    assert rig.outcomes == []
    rig.put(b"k")
    assert [type(applied.error) for applied in rig.outcomes] == [TooManyRequestsError]
    rig.state.is_full = False
    rig.run(0.1)
    assert [applied.error for applied in rig.outcomes[1:]] == [None] * 3


@pytest.mark.parametrize(("prefers", "refused"), [(False, 3), (True, 1)])
def test_ends_of_leases_may_be_twice_as_far_ahead_where_they_are_preferred(
    prefers: bool, refused: int
) -> None:
    config = replace(CONFIG, apply_gap_max=2, prefers_revokes=prefers)
    rig = NodeRig(config=config).start()
    rig.state.is_full = True
    for i in range(3):
        rig.put(b"k%d" % i)
        rig.run()
    errors: list[Exception | None] = []
    request = pb.LeaseRevokeRequest(ID=7)
    for _ in range(3):
        rig.node.propose(
            FIELD_LEASE_REVOKE,
            request.SerializeToString(),
            request,
            rig.call,
            lambda call, applied: errors.append(applied.error),
        )
        rig.run()
    assert [type(error) for error in errors] == [TooManyRequestsError] * refused
    rig.put(b"k")
    assert [type(applied.error) for applied in rig.outcomes] == [TooManyRequestsError]


def test_waiting_proposals_are_bounded() -> None:
    rig = NodeRig(config=replace(CONFIG, proposals_max=3)).start()
    rig.log.holds = True
    for _ in range(4):
        rig.put(b"k")
    assert [type(applied.error) for applied in rig.outcomes] == [TooManyRequestsError]
    rig.log.release()


def test_proposals_that_no_leader_takes_are_bounded_in_octets() -> None:
    rig = NodeRig(config=replace(CONFIG, queued_octets_max=1000))
    for size in (600, 600, 600):
        rig.put(b"k", b"v" * size)
    assert [type(applied.error) for applied in rig.outcomes] == [TooManyRequestsError]
    rig.start()
    rig.run(0.2)
    assert [applied.error for applied in rig.outcomes[1:]] == [None, None]
    rig.put(b"k")
    rig.run()
    assert rig.outcomes[3].error is None


def test_a_proposal_without_an_outcome_times_out_after_seven_seconds(rig: NodeRig) -> None:
    rig.log.holds = True
    rig.put(b"k")
    rig.run(6.8)
    assert rig.outcomes == []
    rig.run(0.4)
    assert [type(applied.error) for applied in rig.outcomes] == [RequestTimeoutError]
    # It may still happen: a time-out is an unknown outcome, not a failure.
    rig.log.release()
    rig.run()
    assert rig.state.get(b"k") is not None
    assert len(rig.outcomes) == 1


def test_a_restart_replays_what_the_state_had_not_yet(rig: NodeRig) -> None:
    rig.put(b"k")
    rig.run()
    rig.node.stop()
    again = NodeRig(log=rig.log, state=State()).start()
    assert again.state.get(b"k") == rig.state.get(b"k")
    assert again.node.store.revision == rig.node.store.revision


def test_stopping_fails_what_waits_and_refuses_what_comes(rig: NodeRig) -> None:
    rig.log.holds = True
    rig.put(b"k")
    rig.node.stop()
    rig.put(b"k")
    rig.read()
    assert [type(applied.error) for applied in rig.outcomes] == [StoppedError] * 2
    assert [type(error) for error in rig.reads] == [StoppedError]
    assert rig.clock.getDelayedCalls() == []


def test_an_expired_lease_is_revoked_through_the_log_with_its_keys(rig: NodeRig) -> None:
    rig.propose(FIELD_LEASE_GRANT, pb.LeaseGrantRequest(ID=7, TTL=2))
    rig.propose(4, pb.PutRequest(key=b"k", value=b"v", lease=7))
    rig.run()
    assert [applied.error for applied in rig.outcomes] == [None, None]
    rig.run(1.8)
    assert rig.state.get(b"k") is not None
    rig.run(2.0)
    assert rig.state.get(b"k") is None
    assert not rig.node.lessor.exists(7)
    assert rig.node.store.revision == 3


def test_a_stalled_reactor_becomes_at_most_one_election_of_ticks(rig: NodeRig) -> None:
    rig.clock.advance(60.0)
    rig.run()
    assert rig.node.is_leader


class BrokenState(State):
    """One that no key can be put into."""

    def put(self, main: int, sub: int, key: bytes, record: bytes, is_new: bool) -> None:
        raise AssertionError("broken")


def test_a_broken_invariant_in_a_turn_stops_the_member(flush_errors: Callable[[], int]) -> None:
    rig = NodeRig(state=BrokenState()).start()
    rig.put(b"k")
    rig.run()
    assert rig.outcomes == []
    assert len(rig.stops) == 1
    assert flush_errors() == 1


def test_a_broken_invariant_in_a_tick_stops_the_member(
    rig: NodeRig, flush_errors: Callable[[], int]
) -> None:
    def breaks(now_ms: int) -> None:
        raise AssertionError("broken")

    rig.node.ticks.follow(breaks)
    rig.clock.advance(0.1)
    assert len(rig.stops) == 1
    assert flush_errors() == 1


@pytest.fixture
def flush_errors() -> Iterator[Callable[[], int]]:
    """Return how many failures were logged."""
    seen: list[LogEvent] = []

    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            seen.append(event)

    observer = cast(ILogObserver, observe)
    globalLogPublisher.addObserver(observer)
    yield lambda: len(seen)
    globalLogPublisher.removeObserver(observer)
