"""Leases and their deadlines.  Time is whatever the test says."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etcdtw.lease.errors import LeaseExistsError, LeaseNotFoundError, LeaseTtlTooLargeError
from etcdtw.lease.lease import Lease
from etcdtw.lease.lessor import (
    ARMED_MAX,
    LEASE_TTL_MAX_S,
    LOOKS_MAX,
    RENEW_CHECKPOINTED,
    RENEW_EXPIRED,
    REVOKE_RETRY_MS,
    Lessor,
)

START_MS = 5_000_000


@pytest.fixture
def lessor() -> Lessor:
    """A leader's lessor at START_MS with a smallest TTL of 2 s."""
    lessor = Lessor(2)
    lessor.advance(START_MS)
    lessor.promote(0)
    return lessor


def leases_of(lessor: Lessor, count: int = 3) -> list[Lease]:
    """All leases in the order of their list, made in steps of ``count``."""
    listing = lessor.listing()
    found: list[Lease] = []
    while not listing.is_done:
        step = listing.step(count)
        assert len(step) <= count
        found += step
    return found


def at(lessor: Lessor, seconds: float) -> Lessor:
    lessor.advance(START_MS + int(seconds * 1000))
    return lessor


# Lists.


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 7])
def test_a_list_made_in_steps_holds_all_leases_in_the_order_of_their_deadlines(
    lessor: Lessor, count: int
) -> None:
    for i in range(count):
        lessor.grant(i + 1, 100 - i // 2)
    expected = sorted(range(1, count + 1), key=lambda i: (100 - (i - 1) // 2, i))
    assert [lease.lease_id for lease in leases_of(lessor)] == expected
    assert [lease.lease_id for lease in leases_of(lessor, 100)] == expected


# Grants and revokes.


def test_a_grant_has_the_asked_ttl_or_the_smallest(lessor: Lessor) -> None:
    ttls = [lessor.grant(i + 1, ttl_s).ttl_s for i, ttl_s in enumerate((60, 2, 1, 0, -5))]
    assert ttls == [60, 2, 2, 2, 2]
    assert len(lessor) == 5


def test_any_id_but_zero_may_be_chosen(lessor: Lessor) -> None:
    lessor.grant(-7, 60)
    assert lessor.exists(-7)
    with pytest.raises(LeaseNotFoundError):
        lessor.grant(0, 60)


def test_an_id_in_use_is_refused(lessor: Lessor) -> None:
    lessor.grant(1, 60)
    with pytest.raises(LeaseExistsError):
        lessor.grant(1, 60)


def test_the_largest_ttl_is_granted_and_one_more_refused(lessor: Lessor) -> None:
    assert lessor.grant(1, LEASE_TTL_MAX_S).ttl_s == LEASE_TTL_MAX_S
    with pytest.raises(LeaseTtlTooLargeError):
        lessor.grant(2, LEASE_TTL_MAX_S + 1)


def test_a_revoked_lease_is_gone_and_cannot_be_revoked_again(lessor: Lessor) -> None:
    lessor.grant(1, 60)
    lessor.revoke(1)
    assert lessor.lookup(1) is None
    assert lessor.renew(1) is None
    with pytest.raises(LeaseNotFoundError):
        lessor.revoke(1)
    with pytest.raises(LeaseNotFoundError):
        lessor.remaining_ttl_s(1)
    assert at(lessor, 100).expired(10) == []


def test_a_revoked_id_may_be_granted_again_with_a_deadline_of_its_own(lessor: Lessor) -> None:
    lessor.grant(1, 10)
    lessor.revoke(1)
    lessor.grant(1, 20)
    assert at(lessor, 15).expired(10) == []
    assert at(lessor, 20).expired(10) == [1]


# Expiry.


def test_a_lease_expires_at_its_ttl_and_not_before(lessor: Lessor) -> None:
    lessor.grant(1, 10)
    assert at(lessor, 9.999).expired(10) == []
    assert at(lessor, 10).expired(10) == [1]


def test_a_renewal_starts_the_ttl_anew(lessor: Lessor) -> None:
    lessor.grant(1, 10)
    assert at(lessor, 9).renew(1) == 10
    assert at(lessor, 18.9).expired(10) == []
    assert lessor.remaining_ttl_s(1) == 0
    assert at(lessor, 19).expired(10) == [1]


def test_expiry_is_bounded_and_the_earliest_go_first(lessor: Lessor) -> None:
    for i in range(5):
        lessor.grant(i + 1, 20 - i)
    at(lessor, 30)
    assert lessor.expired(2) == [5, 4]
    assert lessor.expired(2) == [3, 2]
    assert lessor.expired(2) == [1]
    assert lessor.expired(2) == []


def test_a_pending_revoke_is_named_again_after_three_seconds(lessor: Lessor) -> None:
    lessor.grant(1, 10)
    assert at(lessor, 10).expired(10) == [1]
    lessor.advance(START_MS + 10_000 + REVOKE_RETRY_MS - 1)
    assert lessor.expired(10) == []
    lessor.advance(START_MS + 10_000 + REVOKE_RETRY_MS)
    assert lessor.expired(10) == [1]


def test_remaining_time_is_in_whole_seconds_and_may_pass_zero(lessor: Lessor) -> None:
    lessor.grant(1, 10)
    seen = [at(lessor, s).remaining_ttl_s(1) for s in (0, 0.001, 9.5, 10, 11.5)]
    assert seen == [10, 9, 0, 0, -1]


def test_leases_are_listed_by_expiry(lessor: Lessor) -> None:
    for lease_id, ttl_s in ((1, 30), (2, 10), (3, 20)):
        lessor.grant(lease_id, ttl_s)
    at(lessor, 5).renew(2)
    assert [lease.lease_id for lease in leases_of(lessor)] == [2, 3, 1]


def test_time_never_goes_back(lessor: Lessor) -> None:
    lessor.advance(0)
    assert lessor.now_ms == START_MS


# Leadership.


def test_only_the_leader_expires_leases() -> None:
    lessor = Lessor(2)
    lessor.grant(1, 10)
    lessor.advance(10**12)
    assert lessor.expired(10) == []
    assert lessor.remaining_ttl_s(1) == 10


def test_a_new_leader_gives_every_lease_its_whole_ttl_and_an_election_more(
    lessor: Lessor,
) -> None:
    lessor.grant(1, 10)
    at(lessor, 9).demote()
    assert at(lessor, 50).expired(10) == []
    lessor.promote(1000)
    assert at(lessor, 60.9).expired(10) == []
    assert at(lessor, 61).expired(10) == [1]


def test_a_restored_checkpoint_arms_what_remains() -> None:
    lessor = Lessor(2)
    lessor.restore([(1, 600, 250), (2, 600, 0)])
    lessor.promote(1000)
    lessor.advance(250_999)
    assert lessor.expired(10) == []
    lessor.advance(251_000)
    assert lessor.expired(10) == [1]
    lessor.advance(601_000)
    assert 2 in lessor.expired(10)


def test_restoring_on_a_leader_times_the_new_leases(lessor: Lessor) -> None:
    """After a snapshot is installed nothing of the old leases remains."""
    released = []
    lessor.grant(1, 2)
    lessor.grant(3, 2)
    at(lessor, 2)
    lessor.when_revoked(1, lambda: released.append(1))
    lessor.when_revoked(3, lambda: released.append(3))
    lessor.restore([(2, 10, 0), (3, 10, 0)])
    assert released == [1]
    assert at(lessor, 11.9).expired(10) == []
    assert at(lessor, 12).expired(10) == [2, 3]


def test_a_thousand_leases_due_in_one_second_are_spread_and_none_is_shortened() -> None:
    lessor = Lessor(2)
    lessor.restore([(i + 1, 10, 0) for i in range(3000)] + [(9000, 60, 0)])
    lessor.promote(1000)
    arm_all(lessor)
    deadlines = [lease.deadline_ms for lease in leases_of(lessor)]
    assert deadlines[0] == 11_000
    assert deadlines[-1] == 61_000
    for start_ms in range(11_000, 16_000, 100):
        assert len([d for d in deadlines if start_ms <= d < start_ms + 1000]) <= 751
    assert max(deadlines[:-1]) <= 11_000 + 4000


def test_fewer_than_a_thousand_leases_are_not_spread() -> None:
    lessor = Lessor(2)
    lessor.restore([(i + 1, 10, 0) for i in range(999)])
    lessor.promote(0)
    assert {lease.deadline_ms for lease in leases_of(lessor)} == {10_000}


@given(st.lists(st.integers(2, 30), min_size=20, max_size=200))
def test_spreading_keeps_every_second_within_the_rate(ttls: list[int]) -> None:
    rate = 20
    lessor = Lessor(2, expiries_per_s_max=rate)
    lessor.restore([(i + 1, ttl_s, 0) for i, ttl_s in enumerate(ttls)])
    lessor.promote(0)
    deadlines = sorted(lease.deadline_ms for lease in leases_of(lessor))
    for lease in leases_of(lessor):
        assert lease.deadline_ms >= lease.ttl_s * 1000
    for i in range(len(deadlines) - rate):
        assert deadlines[i + rate] - deadlines[i] >= 1000


def arm_all(lessor: Lessor) -> int:
    """Let a promotion end; return how many pieces that took."""
    count = 0
    while lessor.has_work:
        lessor.work(100)
        count += 1
    return count


def test_a_promotion_with_very_many_leases_arms_them_piece_by_piece() -> None:
    lessor = Lessor(2, expiries_per_s_max=100_000)
    lessor.restore([(i + 1, 10, 0) for i in range(2 * ARMED_MAX)])
    at(lessor, 0).promote(1000)
    assert lessor.has_work
    assert lessor.renew(2 * ARMED_MAX) == 10, "a renewal does not wait for it"
    assert lessor.remaining_ttl_s(2 * ARMED_MAX - 1) == 11
    at(lessor, 5)
    assert lessor.renew(1) == 10
    assert arm_all(lessor) > 10
    assert at(lessor, 10.9).expired(10) == []
    assert len(at(lessor, 11).expired(10_000)) == 2 * ARMED_MAX - 1
    assert 1 in at(lessor, 15).expired(10_000)


def test_a_demotion_ends_a_promotion_under_way() -> None:
    lessor = Lessor(2)
    lessor.restore([(i + 1, 10, 0) for i in range(2 * ARMED_MAX)])
    at(lessor, 0).promote(0)
    lessor.demote()
    assert 0 < arm_all(lessor) <= 2, "what was armed is freed, nothing more is armed"
    assert at(lessor, 100).expired(10) == []
    assert lessor.remaining_ttl_s(1) == 10


def test_leases_revoked_during_a_promotion_are_not_armed() -> None:
    lessor = Lessor(2, expiries_per_s_max=100_000)
    lessor.restore([(i + 1, 10, 0) for i in range(2 * ARMED_MAX)])
    at(lessor, 0).promote(0)
    for lease_id in range(1, 2 * ARMED_MAX):
        lessor.revoke(lease_id)
    arm_all(lessor)
    assert at(lessor, 100).expired(10) == [2 * ARMED_MAX]


def test_leases_that_were_renewed_in_time_are_looked_at_in_pieces() -> None:
    lessor = Lessor(2, expiries_per_s_max=100_000)
    lessor.restore([(i + 1, 10, 0) for i in range(LOOKS_MAX + 1)])
    at(lessor, 0).promote(0)
    arm_all(lessor)
    at(lessor, 9)
    for lease_id in range(1, LOOKS_MAX + 1):
        lessor.renew(lease_id)
    assert at(lessor, 11).expired(500) == []
    assert lessor.has_due
    assert lessor.expired(500) == [LOOKS_MAX + 1]
    assert not lessor.has_due


# Waiting for a revoke.


def test_an_expired_lease_is_not_renewed_and_who_asked_is_told_of_the_revoke(
    lessor: Lessor,
) -> None:
    told: list[str] = []
    lessor.grant(1, 10)
    assert at(lessor, 10).renew(1) == RENEW_EXPIRED
    lessor.when_revoked(1, lambda: told.append("first"))
    lessor.when_revoked(1, lambda: told.append("second"))
    assert told == []
    lessor.revoke(1)
    assert told == ["first", "second"]
    assert lessor.renew(1) is None


def test_a_demotion_releases_those_who_wait(lessor: Lessor) -> None:
    told: list[int] = []
    lessor.grant(1, 10)
    at(lessor, 10)
    lessor.when_revoked(1, lambda: told.append(1))
    lessor.demote()
    assert told == [1]
    lessor.revoke(1)
    assert told == [1]


def test_who_no_longer_waits_is_not_told(lessor: Lessor) -> None:
    told: list[int] = []

    def first() -> None:
        told.append(1)

    def second() -> None:
        told.append(2)

    lessor.grant(1, 10)
    lessor.when_revoked(1, first)
    lessor.when_revoked(1, second)
    lessor.forget_waiter(1, first)
    lessor.forget_waiter(1, first)
    lessor.revoke(1)
    lessor.grant(1, 10)
    lessor.when_revoked(1, first)
    lessor.forget_waiter(1, first)
    lessor.forget_waiter(2, first)
    lessor.revoke(1)
    assert told == [2]


# Checkpoints.


def test_a_lease_is_checkpointed_every_interval_with_what_remains(lessor: Lessor) -> None:
    lessor.grant(1, 1000)
    assert at(lessor, 299.9).due_checkpoints(10) == []
    assert at(lessor, 300).due_checkpoints(10) == [(1, 700)]
    lessor.checkpoint(1, 700)
    assert at(lessor, 599).due_checkpoints(10) == []
    assert at(lessor, 600).due_checkpoints(10) == [(1, 400)]
    lessor.checkpoint(1, 400)
    assert at(lessor, 900).due_checkpoints(10) == [(1, 100)]
    lessor.checkpoint(1, 100)
    assert at(lessor, 999).due_checkpoints(10) == []


def test_a_checkpoint_that_was_not_applied_is_due_again(lessor: Lessor) -> None:
    lessor.grant(1, 1000)
    assert at(lessor, 300).due_checkpoints(10) == [(1, 700)]
    assert at(lessor, 600).due_checkpoints(10) == [(1, 400)]


def test_a_lease_of_at_most_an_interval_is_never_checkpointed(lessor: Lessor) -> None:
    lessor.grant(1, 300)
    assert at(lessor, 299).due_checkpoints(10) == []


def test_checkpoints_are_bounded(lessor: Lessor) -> None:
    for i in range(5):
        lessor.grant(i + 1, 1000)
    at(lessor, 301)
    assert [len(lessor.due_checkpoints(2)) for _ in range(4)] == [2, 2, 1, 0]


def test_a_lease_renewed_often_is_never_checkpointed(lessor: Lessor) -> None:
    lessor.grant(1, 600)
    for second in range(200, 3000, 200):
        assert at(lessor, second).renew(1) == 600
        assert lessor.due_checkpoints(10) == []


def test_an_interval_counts_from_the_last_renewal(lessor: Lessor) -> None:
    lessor.grant(1, 1000)
    at(lessor, 100).renew(1)
    assert at(lessor, 300).due_checkpoints(10) == []
    assert at(lessor, 399).due_checkpoints(10) == []
    assert at(lessor, 400).due_checkpoints(10) == [(1, 700)]


def test_an_expired_lease_is_not_checkpointed(lessor: Lessor) -> None:
    lessor.grant(1, 301)
    assert at(lessor, 400).due_checkpoints(10) == []


def test_a_checkpoint_for_a_revoked_lease_is_refused(lessor: Lessor) -> None:
    with pytest.raises(LeaseNotFoundError):
        lessor.checkpoint(1, 5)


def test_bug_13508_repeated_leader_changes_do_not_renew_a_lease() -> None:
    """Each leader goes on from the checkpoint of the one before."""
    lessor = Lessor(2)
    lessor.grant(1, 1000)
    lived_ms = 0
    for _ in range(20):
        lessor.promote(1000)
        lessor.advance(lessor.now_ms + 301_000)
        lived_ms += 301_000
        if lessor.expired(1):
            break
        for lease_id, remaining_ttl_s in lessor.due_checkpoints(10):
            lessor.checkpoint(lease_id, remaining_ttl_s)
        lessor.demote()
    assert 1_000_000 <= lived_ms <= 1_000_000 + 5 * 301_000


def test_bug_13508_a_checkpointed_lease_is_renewed_only_after_the_checkpoint_is_cleared(
    lessor: Lessor,
) -> None:
    lessor.grant(1, 1000)
    lessor.checkpoint(1, 700)
    assert lessor.renew(1) == RENEW_CHECKPOINTED
    lessor.checkpoint(1, 0)
    assert lessor.renew(1) == 1000
    lessor.demote()
    lessor.promote(0)
    assert lessor.remaining_ttl_s(1) == 1000


def test_bug_14087_a_checkpoint_applied_after_a_demotion_only_records(lessor: Lessor) -> None:
    lessor.grant(1, 1000)
    assert at(lessor, 300).due_checkpoints(10) == [(1, 700)]
    lessor.demote()
    lessor.checkpoint(1, 700)
    assert at(lessor, 5000).expired(10) == []
    assert lessor.due_checkpoints(10) == []
    lessor.promote(0)
    assert lessor.remaining_ttl_s(1) == 700


def test_bug_17425_a_demoted_leader_names_no_lease_for_revoking(lessor: Lessor) -> None:
    lessor.grant(1, 10)
    at(lessor, 20).demote()
    assert lessor.expired(10) == []


# Cost.


def test_a_hundred_thousand_leases_cost_microseconds_each(lessor: Lessor) -> None:
    count = 100_000
    for lease_id in range(1, count + 1):
        lessor.grant(lease_id, 60)
    started = time.process_time()
    for lease_id in range(1, count + 1):
        lessor.renew(lease_id)
    at(lessor, 59.9)
    assert lessor.expired(500) == []
    # Five times what it takes; what a tracer of coverage costs is not ours.
    assert sys.gettrace() is not None or time.process_time() - started < 0.2
