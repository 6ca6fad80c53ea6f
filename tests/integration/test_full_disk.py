"""A few rounds of filling and freeing small disks of a cluster under load; `make full-disk`: 50."""

from __future__ import annotations

import pytest

from tests.integration.full_disk_loop import NoMountsError, run

ROUNDS = 2
"""A filler at the leader's log, and one at its state beside writes that use its reserve up."""

pytestmark = pytest.mark.integration


def test_nothing_is_lost_and_nobody_dies_of_full_disks() -> None:
    try:
        tally, lines = run(ROUNDS, 1, is_quiet=True)
    except NoMountsError as error:
        pytest.skip(f"{error}: full disks are not tried here")
    assert not tally.problems, "\n".join([*tally.problems, *lines])
    assert tally.rounds == ROUNDS
    assert tally.acknowledged > 0
