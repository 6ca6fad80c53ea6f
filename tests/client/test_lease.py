"""Leases: renewed in time, on one stream, and lost before their servers end them."""

from __future__ import annotations

import pytest

from etcdtw.client.lease import (
    EXPIRED,
    NO_ANSWER,
    REVOKED,
    Lease,
    LeaseKeeper,
    LeaseLostError,
    Leases,
)
from etcdtw.client.network.retry_rules import INVALID_TOKEN
from etcdtw.grpc.call import (
    INVALID_ARGUMENT,
    NOT_FOUND,
    UNAUTHENTICATED,
    UNAVAILABLE,
    StatusError,
)
from etcdtw.wire import etcdserverpb as pb
from tests.client.network.network_rig import has_come, result_of
from tests.client.scripted_channel import ClientRig, ScriptedStream

LOST = StatusError(UNAVAILABLE, "error reading from server: EOF")


class LeaseRig(ClientRig):
    def __init__(self, user: str | None = None) -> None:
        super().__init__(user=user)
        self.leases = Leases(self.channel)

    def granted(self, lease_id: int, ttl_s: int = 30) -> Lease:
        granted = self.leases.grant(ttl_s)
        self.calls[-1].answer(pb.LeaseGrantResponse(ID=lease_id, TTL=ttl_s))
        lease: Lease = result_of(granted)
        return lease

    @property
    def stream(self) -> ScriptedStream:
        return self.streams[-1]

    def asked(self) -> list[int]:
        """Return the leases that the newest stream was asked for."""
        return [pb.LeaseKeepAliveRequest.FromString(sent).ID for sent in self.stream.sent]

    def renewed(self, lease_id: int, ttl_s: int = 30) -> None:
        self.stream.push(pb.LeaseKeepAliveResponse(ID=lease_id, TTL=ttl_s))


def test_a_lease_is_what_the_server_granted() -> None:
    rig = LeaseRig()
    granted = rig.leases.grant(1)
    rig.calls[0].answer(pb.LeaseGrantResponse(ID=7, TTL=2))
    lease = result_of(granted)
    assert (lease.id, lease.ttl_s, lease.ends_s) == (7, 2, 1_002)
    assert rig.streams == []


def test_all_leases_are_renewed_on_one_stream_three_times_in_their_time() -> None:
    rig = LeaseRig()
    for lease_id in (1, 2):
        rig.granted(lease_id).keep_alive()
    assert rig.asked() == [1, 2]
    for lease_id in (1, 2):
        rig.renewed(lease_id)
    rig.clock.advance(10)
    assert rig.asked() == [1, 2, 1, 2]
    assert len(rig.streams) == 1


def test_its_time_runs_from_the_question_and_not_from_the_answer() -> None:
    rig = LeaseRig()
    lease = rig.granted(1).keep_alive()
    rig.clock.advance(4)
    rig.renewed(1)
    assert lease.ends_s == 1_030


def test_a_lease_that_its_server_has_ended_is_lost() -> None:
    rig = LeaseRig()
    lease = rig.granted(1).keep_alive()
    lost = lease.when_lost()
    rig.renewed(1, 0)
    assert result_of(lost) == EXPIRED
    assert result_of(lease.when_lost()) == EXPIRED
    assert rig.stream.is_cancelled
    assert rig.clock.getDelayedCalls() == []


def test_a_lease_that_nobody_renews_is_lost_when_its_time_is_over() -> None:
    rig = LeaseRig()
    lease = rig.granted(1).keep_alive()
    for _ in range(59):
        rig.clock.advance(0.5)
    assert not lease.is_lost
    rig.clock.advance(0.5)
    assert lease.lost_why == NO_ANSWER


def test_a_stream_that_does_not_answer_is_given_up_for_another() -> None:
    rig = LeaseRig()
    rig.granted(1).keep_alive()
    first = rig.stream
    rig.clock.advance(10)
    assert first.is_cancelled
    assert len(rig.streams) == 2
    assert rig.asked() == [1]
    rig.renewed(1)
    rig.clock.advance(10)
    assert rig.asked() == [1, 1]


def test_a_stream_that_is_lost_is_opened_again_for_what_is_not_answered() -> None:
    rig = LeaseRig()
    for lease_id in (1, 2):
        rig.granted(lease_id).keep_alive()
    rig.renewed(1)
    rig.stream.end(LOST)
    assert len(rig.streams) == 1
    rig.clock.advance(0.5)
    assert len(rig.streams) == 2
    assert rig.asked() == [2]


def test_a_revoked_lease_is_renewed_no_longer() -> None:
    rig = LeaseRig()
    lease = rig.granted(1).keep_alive()
    revoked = lease.revoke()
    assert rig.stream.is_cancelled
    rig.calls[-1].answer(pb.LeaseRevokeResponse())
    assert result_of(revoked) is None
    assert lease.lost_why == REVOKED


def test_revoking_what_is_gone_is_no_error_and_other_errors_are() -> None:
    rig = LeaseRig()
    for code in (NOT_FOUND, 7):
        revoked = rig.granted(1).revoke()
        error = StatusError(code, "")
        rig.calls[-1].fail(error)
        assert result_of(revoked) is (None if code == NOT_FOUND else error)


def test_one_renewal_has_a_stream_of_its_own() -> None:
    rig = LeaseRig()
    renewed = rig.leases.renew(1)
    assert rig.asked() == [1]
    rig.renewed(1, 12)
    assert result_of(renewed) == 12
    assert rig.stream.is_cancelled
    renewed = rig.leases.renew(2)
    rig.renewed(2, 0)
    assert isinstance(result_of(renewed), LeaseLostError)


def test_closing_renews_nothing_more() -> None:
    rig = LeaseRig()
    lease = rig.granted(1).keep_alive()
    rig.leases.close()
    assert rig.stream.is_cancelled
    assert not lease.is_lost
    assert rig.clock.getDelayedCalls() == []


def test_a_refused_token_is_renewed_before_the_next_stream() -> None:
    rig = LeaseRig(user="u")
    rig.leases.adopt(1, 30).keep_alive()
    rig.calls[0].answer(pb.AuthenticateResponse(token="t1"))
    rig.stream.end(StatusError(UNAUTHENTICATED, INVALID_TOKEN))
    rig.calls[1].answer(pb.AuthenticateResponse(token="t2"))
    rig.clock.advance(0.5)
    assert rig.stream.metadata[-1] == (b"token", b"t2")
    assert rig.asked() == [1]


def test_a_lease_waits_for_a_token_and_is_lost_without() -> None:
    rig = LeaseRig(user="u")
    lease = rig.leases.adopt(1, 30).keep_alive()
    for _ in range(60):
        if not has_come(rig.calls[-1].result):
            rig.calls[-1].fail(StatusError(INVALID_ARGUMENT, "no"))
        rig.clock.advance(0.5)
    assert rig.streams == []
    assert lease.lost_why == NO_ANSWER


def test_a_lease_that_is_no_longer_kept_opens_no_stream() -> None:
    rig = LeaseRig(user="u")
    rig.leases.adopt(1, 30).keep_alive()
    rig.leases.close()
    rig.calls[0].answer(pb.AuthenticateResponse(token="t1"))
    assert rig.streams == []


def test_one_lease_too_many_is_refused() -> None:
    rig = LeaseRig()
    keeper = LeaseKeeper(rig.channel, kept_max=2)
    for lease_id in (1, 2):
        keeper.add(rig.leases.adopt(lease_id, 30))
    keeper.add(keeper_lease := rig.leases.adopt(2, 30))
    assert not keeper_lease.is_lost
    with pytest.raises(StatusError, match="too many leases"):
        keeper.add(rig.leases.adopt(3, 30))


def test_all_who_wait_for_a_loss_hear_of_it_but_those_who_stopped() -> None:
    rig = LeaseRig()
    lease = rig.granted(1)
    first, second = lease.when_lost(), lease.when_lost()
    first.addErrback(lambda _: None).cancel()
    lease.lose("why")
    lease.lose("another")
    assert result_of(second) == "why"
    with pytest.raises(LeaseLostError, match="why"):
        lease.check()


def test_leases_are_listed_and_looked_at() -> None:
    rig = LeaseRig()
    rig.leases.list()
    rig.leases.time_to_live(7, keys=True)
    rig.leases.revoke(7)
    assert [call.path for call in rig.calls] == ["LeaseLeases", "LeaseTimeToLive", "LeaseRevoke"]
    assert pb.LeaseTimeToLiveRequest.FromString(rig.calls[1].message).keys


def test_an_answer_for_a_lease_that_is_not_kept_is_nothing() -> None:
    rig = LeaseRig()
    rig.granted(1).keep_alive()
    rig.renewed(99)
    assert rig.asked() == [1]
