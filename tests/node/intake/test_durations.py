"""Durations of applies, requests and ranges, as they are counted by the slice."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.apply.applier import FIELD_LEASE_GRANT, FIELD_PUT, FIELD_TXN
from etcdtw.node.intake.durations import (
    LOCAL_RANGES_MAX,
    RANGE,
    RANGE_FAILED,
    READONLY_TXN,
    Durations,
)
from etcdtw.node.intake.requests import Waiter
from etcdtw.node.no_call import NoCall
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.entry_header import NOBODY
from etcdtw.wire.histogram import Histogram
from tests.support.node_rig import NodeRig


def waiter(field: int, started_ms: int) -> Waiter:
    return Waiter(b"", NOBODY, field, None, NoCall(), lambda call, applied: None, started_ms)


def facts(histograms: dict[tuple[str, ...], Histogram]) -> dict[tuple[str, ...], Any]:
    return {
        labels: (found.count, pytest.approx(found.total)) for labels, found in histograms.items()
    }


def test_entries_of_a_slice_share_its_time_by_op_and_success() -> None:
    durations = Durations()
    durations.applied({FIELD_PUT: 3, FIELD_TXN: 1}, {FIELD_PUT: 1}, 0.008)
    assert facts(durations.apply_s) == {
        ("v3", "Put", "false"): (1, 0.002),
        ("v3", "Put", "true"): (2, 0.004),
        ("v3", "Txn", "true"): (1, 0.002),
    }


def test_requests_count_from_when_they_came_by_type() -> None:
    durations = Durations()
    waiters = [waiter(FIELD_PUT, 100), waiter(FIELD_PUT, 100), waiter(FIELD_PUT, 104)]
    durations.answered([*waiters, waiter(FIELD_TXN, 104)], 110)
    durations.unanswered(waiter(FIELD_TXN, 100), 7_100)
    assert facts(durations.request_s) == {
        ("Put", "true"): (3, 0.026),
        ("Txn", "true"): (1, 0.006),
        ("Txn", "false"): (1, 7.0),
    }


def test_small_ranges_of_one_go_share_its_time_and_their_waiting() -> None:
    durations = Durations()
    durations.read(4, 0.004, 0.020)
    assert facts(durations.range_s) == {("true",): (4, 0.004)}
    assert facts(durations.request_s) == {("Range", "true"): (4, 0.024)}


def test_reads_that_are_answered_by_themselves_count_by_what_they_are() -> None:
    durations = Durations()
    durations.read_apart(RANGE_FAILED, 0.001)
    durations.read_apart(READONLY_TXN, 0.002)
    assert facts(durations.range_s) == {("false",): (1, 0.001)}
    assert facts(durations.request_s) == {
        ("Range", "false"): (1, 0.001),
        ("ReadonlyTxn", "true"): (1, 0.002),
    }


def test_serializable_ranges_are_counted_together() -> None:
    durations = Durations()
    for _ in range(LOCAL_RANGES_MAX - 1):
        durations.read_apart(RANGE, 0.001)
    assert durations.range_s == {}
    durations.read_apart(RANGE, 0.001)
    assert facts(durations.range_s)["true",][0] == LOCAL_RANGES_MAX
    durations.read_apart(RANGE, 0.5)
    durations.settle()
    durations.settle()
    assert facts(durations.range_s)["true",][0] == LOCAL_RANGES_MAX + 1


def test_a_node_counts_what_it_applies_and_answers() -> None:
    rig = NodeRig().start()
    for key in (b"a", b"b"):
        rig.put(key)
    rig.propose(FIELD_LEASE_GRANT, pb.LeaseGrantRequest(ID=7, TTL=60))
    rig.propose(FIELD_LEASE_GRANT, pb.LeaseGrantRequest(ID=7, TTL=60))
    rig.run()
    durations = rig.node.durations
    applied = {labels[1:]: found.count for labels, found in durations.apply_s.items()}
    assert applied["Put", "true"] == 2
    assert (applied["LeaseGrant", "true"], applied["LeaseGrant", "false"]) == (1, 1)
    requests = {labels: found.count for labels, found in durations.request_s.items()}
    assert requests == {("Put", "true"): 2, ("LeaseGrant", "true"): 2}


def test_a_request_that_waits_too_long_is_no_success() -> None:
    rig = NodeRig().start()
    rig.log.holds = True
    rig.put(b"a")
    rig.run(8.0)
    found = rig.node.durations.request_s["Put", "false"]
    assert found.count == 1
    assert 7.0 <= found.total <= 8.0
