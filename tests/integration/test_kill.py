"""Nothing acknowledged is lost when all processes of a member die at once."""

from __future__ import annotations

import pytest

from tests.integration.kill_loop import KillLoop
from tests.support.processes import PROGRAMS

pytestmark = pytest.mark.integration

CYCLES = 3
ACKNOWLEDGED_MIN = 100


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_acknowledged_write_survives_kill_9_at_its_revision(program: str) -> None:
    tally = KillLoop(program, seed=1).run(CYCLES)
    assert not tally.problems, "\n".join(tally.problems[:20])
    assert tally.cycles == CYCLES
    assert tally.acknowledged > ACKNOWLEDGED_MIN
    assert tally.checked >= tally.acknowledged
