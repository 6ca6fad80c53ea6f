"""What the leader proposes about leases at a tick."""

from __future__ import annotations

from etcdtw.lease.expiry import (
    CHECKPOINTS_PER_SCAN_MAX,
    EXPIRIES_PER_SCAN_MAX,
    SCAN_INTERVAL_MS,
    ExpiryScan,
)
from etcdtw.lease.lessor import Lessor


def test_leases_are_scanned_twice_a_second() -> None:
    lessor = Lessor(2)
    lessor.promote(0)
    lessor.grant(1, 2)
    scan = ExpiryScan(lessor)
    assert scan.due(1990) == ([], [])
    assert scan.due(1990 + SCAN_INTERVAL_MS - 1) == ([], [])
    assert scan.due(1990 + SCAN_INTERVAL_MS) == ([1], [])
    assert lessor.now_ms == 1990 + SCAN_INTERVAL_MS


def test_a_scan_names_at_most_five_hundred_leases() -> None:
    lessor = Lessor(2)
    lessor.promote(0)
    for lease_id in range(1, EXPIRIES_PER_SCAN_MAX + 2):
        lessor.grant(lease_id, 2)
    scan = ExpiryScan(lessor)
    assert len(scan.due(5000)[0]) == EXPIRIES_PER_SCAN_MAX
    assert len(scan.due(5500)[0]) == 1


def test_a_scan_checkpoints_at_most_a_thousand_leases() -> None:
    lessor = Lessor(2)
    lessor.promote(0)
    for lease_id in range(1, CHECKPOINTS_PER_SCAN_MAX + 2):
        lessor.grant(lease_id, 1000)
    scan = ExpiryScan(lessor)
    assert len(scan.due(300_000)[1]) == CHECKPOINTS_PER_SCAN_MAX
    assert scan.due(300_500) == ([], [(CHECKPOINTS_PER_SCAN_MAX + 1, 700)])


def test_a_member_that_does_not_lead_proposes_nothing_but_keeps_time() -> None:
    lessor = Lessor(2)
    lessor.grant(1, 2)
    assert ExpiryScan(lessor).due(10_000) == ([], [])
    assert lessor.now_ms == 10_000
