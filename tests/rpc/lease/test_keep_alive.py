"""The LeaseKeepAlive stream: answers in order, and what an answer may wait for."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.grpc.call import INTERNAL, NOT_FOUND, RESOURCE_EXHAUSTED, UNAVAILABLE, StatusError
from etcdtw.lease.errors import LeaseNotFoundError
from etcdtw.mvcc.applied import Applied
from etcdtw.rpc.lease.keep_alive import OUTPUT_BYTES_MAX, PRIMARY_WAIT_S, REQUESTS_PENDING_MAX
from etcdtw.wire import etcdserverpb as pb
from tests.support.lease_rig import LeaseRig
from tests.support.recorded_call import RecordedCall


class StreamRig(LeaseRig):
    """A `LeaseRig` with one keep-alive stream and leases 1 and 2 of 10 s."""

    def __init__(self) -> None:
        super().__init__()
        self.lessor.grant(1, 10)
        self.lessor.grant(2, 10)
        self.call = self.open()

    def open(self, **metadata: str) -> RecordedCall:
        call = RecordedCall(**metadata)
        self.service.keep_alive(call)
        return call

    def ask(self, *lease_ids: int) -> None:
        for lease_id in lease_ids:
            self.call.receive(pb.LeaseKeepAliveRequest(ID=lease_id).SerializeToString())

    def answers(self) -> list[tuple[int, int]]:
        """Return and forget (ID, TTL) of what was sent."""
        return [(answer.ID, answer.TTL) for answer in self.messages()]

    def messages(self) -> list[Any]:
        return [pb.LeaseKeepAliveResponse.FromString(octets) for octets in self.call.take()]


@pytest.fixture
def rig() -> StreamRig:
    return StreamRig()


def test_a_renewal_answers_the_granted_ttl_and_starts_it_anew(rig: StreamRig) -> None:
    rig.clock.advance(9)
    rig.ask(1)
    assert rig.answers() == [(1, 10)]
    assert rig.lessor.remaining_ttl_s(1) == 10


def test_the_header_is_of_the_time_before_the_renewal(rig: StreamRig) -> None:
    rig.ask(9)
    rig.store.revision = 77
    rig.confirm()
    assert [message.header.revision for message in rig.messages()] == [5]


def test_an_unknown_lease_has_ttl_zero_and_the_stream_goes_on(rig: StreamRig) -> None:
    rig.ask(9, 1)
    assert rig.answers() == []
    rig.confirm()
    assert rig.answers() == [(9, 0), (1, 10)]
    assert rig.call.is_open


def test_lease_zero_is_unknown(rig: StreamRig) -> None:
    rig.ask(0)
    rig.confirm()
    assert rig.answers() == [(0, 0)]


def test_bug_13932_a_lease_committed_but_not_yet_applied_is_found(rig: StreamRig) -> None:
    rig.ask(9)
    rig.lessor.grant(9, 30)
    rig.confirm()
    assert rig.answers() == [(9, 30)]


def test_bug_20615_an_expired_lease_waits_for_its_revoke(rig: StreamRig) -> None:
    rig.lessor.advance(10_000)
    rig.ask(1)
    rig.lessor.restore([(1, 10, 0), (2, 10, 0)])  # no revoke: goes on waiting
    assert rig.answers() == []
    rig.lessor.revoke(1)
    assert rig.answers() == [(1, 0)]


def test_answers_keep_the_order_of_the_requests(rig: StreamRig) -> None:
    rig.lessor.advance(10_000)
    rig.lessor.grant(3, 60)
    rig.ask(3, 1, 3, 2, 3)
    assert rig.answers() == [(3, 60)]
    rig.lessor.revoke(2)
    assert rig.answers() == []
    rig.lessor.revoke(1)
    assert rig.answers() == [(1, 0), (3, 60)]
    rig.confirm()
    assert rig.answers() == [(2, 0), (3, 60)]


def test_reads_that_answer_at_once_do_not_nest(rig: StreamRig) -> None:
    """Thousands of unknown leases in line, none of which has to wait."""
    rig.lessor.advance(10_000)
    rig.ask(1, *range(10, 5000))
    rig.confirms_at_once = True
    rig.lessor.revoke(1)
    assert len(rig.answers()) == 4991


def test_bug_13508_a_checkpoint_is_cleared_before_the_answer(rig: StreamRig) -> None:
    rig.lessor.checkpoint(1, 7)
    rig.ask(1, 2)
    assert rig.answers() == []
    field, _, request, _, _ = rig.proposals[0]
    assert field == 11
    assert [(c.ID, c.remaining_TTL) for c in request.checkpoints] == [(1, 0)]
    rig.lessor.checkpoint(1, 0)
    rig.settle(Applied(5, b"", None))
    assert rig.answers() == [(1, 10), (2, 10)]


def test_bug_14087_a_lease_revoked_while_its_checkpoint_is_cleared_is_unknown(
    rig: StreamRig,
) -> None:
    rig.lessor.checkpoint(1, 7)
    rig.ask(1)
    rig.lessor.revoke(1)
    rig.settle(Applied(5, b"", LeaseNotFoundError(1)))
    rig.confirm()
    assert rig.answers() == [(1, 0)]


def test_a_failed_wait_ends_the_stream_with_its_error(rig: StreamRig) -> None:
    rig.ask(9, 1)
    rig.confirm(StatusError(NOT_FOUND, "x"))
    assert rig.call.status == (NOT_FOUND, "x")
    assert rig.call.take() == []


def test_what_was_waited_for_may_come_after_the_end(rig: StreamRig) -> None:
    rig.ask(9)
    rig.call.cancel()
    rig.confirm()
    assert rig.call.take() == []


def test_a_stream_that_ends_no_longer_waits_for_a_revoke(rig: StreamRig) -> None:
    rig.lessor.advance(10_000)
    rig.ask(1)
    rig.call.cancel()
    rig.lessor.revoke(1)
    assert rig.call.take() == []


# Leadership.


def test_a_renewal_waits_until_this_member_leads(rig: StreamRig) -> None:
    rig.lessor.demote()
    rig.ask(1, 2)
    rig.clock.pump([0.05] * 10)
    assert rig.answers() == []
    rig.lessor.promote(0)
    rig.clock.advance(0.05)
    assert rig.answers() == [(1, 10), (2, 10)]
    assert rig.clock.getDelayedCalls() == []


def test_a_renewal_gives_up_without_a_leader(rig: StreamRig) -> None:
    rig.lessor.demote()
    rig.ask(1)
    rig.clock.pump([0.05] * int(PRIMARY_WAIT_S / 0.05 + 2))
    assert rig.call.status == (UNAVAILABLE, "etcdserver: no leader")
    assert rig.clock.getDelayedCalls() == []


def test_a_stream_that_ends_no_longer_waits_to_lead(rig: StreamRig) -> None:
    rig.lessor.demote()
    rig.ask(1)
    rig.call.cancel()
    assert rig.clock.getDelayedCalls() == []


def test_a_demotion_sends_a_waiting_renewal_on_to_the_next_leader(rig: StreamRig) -> None:
    rig.lessor.advance(10_000)
    rig.ask(1)
    rig.lessor.demote()
    rig.lessor.promote(1000)
    rig.clock.advance(0.05)
    assert rig.answers() == [(1, 10)]


def test_a_stream_that_asks_for_a_leader_is_refused_or_ended_without_one(rig: StreamRig) -> None:
    call = rig.open(hasleader="true")
    rig.leader_id = 0
    refused = rig.open(hasleader="true")
    rig.clock.pump([1, 1, 1])
    for stream in (refused, call):
        assert stream.status == (UNAVAILABLE, "etcdserver: no leader")


# The wire.


def test_octets_that_are_no_request_end_the_stream(rig: StreamRig) -> None:
    rig.call.receive(b"\xff")
    assert rig.call.status is not None
    assert rig.call.status[0] == INTERNAL


def test_a_half_closed_stream_is_finished_once_all_is_answered(rig: StreamRig) -> None:
    other = rig.open()
    other.half_close()
    assert other.status == (0, "")
    rig.ask(9)
    rig.call.half_close()
    assert rig.call.is_open
    rig.confirm()
    assert rig.answers() == [(9, 0)]
    assert rig.call.status == (0, "")


def test_requests_of_a_client_that_does_not_read_wait_and_are_bounded(rig: StreamRig) -> None:
    rig.call.is_slow = True
    count = 0
    while rig.call.queued <= OUTPUT_BYTES_MAX:
        rig.ask(1)
        count += 1
    rig.ask(*[2] * REQUESTS_PENDING_MAX)
    assert rig.call.is_open
    assert rig.answers() == [(1, 10)] * count
    rig.call.drain()
    assert rig.answers() == [(2, 10)] * REQUESTS_PENDING_MAX


def test_one_request_too_many_behind_one_that_waits_ends_the_stream(rig: StreamRig) -> None:
    rig.ask(9, *[1] * (REQUESTS_PENDING_MAX - 1))
    assert rig.call.is_open
    rig.call.drain()
    rig.ask(1)
    assert rig.call.status is not None
    assert rig.call.status[0] == RESOURCE_EXHAUSTED


def test_a_drain_does_not_disturb_one_that_waits_for_something_else(rig: StreamRig) -> None:
    rig.call.is_slow = True
    rig.ask(1, 9)
    rig.call.drain()
    assert len(rig.reads) == 1
