"""Real etcd and etcdtw give the same answers to the same operations."""

from __future__ import annotations

import pytest

from tests.differential.__main__ import run_sequence
from tests.differential.judged import NEEDS_JUDGE
from tests.differential.lockstep import Outcome

pytestmark = [pytest.mark.integration, NEEDS_JUDGE]

OPERATIONS = 1200
OPERATIONS_CONTROL = 500
SEED = 20_220


def check(outcome: Outcome, operations: int) -> None:
    assert not outcome.differences, "\n".join(outcome.differences)
    assert outcome.operations >= operations
    assert outcome.hashes
    assert outcome.errors  # invalid requests were among them


def test_etcdtw_answers_as_real_etcd_does() -> None:
    check(run_sequence("etcd", "etcdtw", SEED, OPERATIONS), OPERATIONS)


def test_two_real_etcds_do_not_differ() -> None:
    """The control: whatever this finds would be a fault of the comparison."""
    check(run_sequence("etcd", "etcd", SEED, OPERATIONS_CONTROL), OPERATIONS_CONTROL)
