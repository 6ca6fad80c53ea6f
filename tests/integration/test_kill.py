"""Nothing acknowledged is lost when all processes of a member die at once.

Real etcd 3.5.1 is no control for that: it loses writes (see `tests.integration.kill_loop`).  So
the loop itself is held against two members whose fate is known: one that ends in order and one
that is set back.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.kill_loop import KillLoop
from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration

CYCLES = 3
ACKNOWLEDGED_MIN = 100


def test_every_acknowledged_write_survives_kill_9_at_its_revision() -> None:
    tally = KillLoop("etcdtw", seed=1).run(CYCLES)
    assert not tally.problems, "\n".join(tally.problems[:20])
    assert tally.cycles == CYCLES
    assert tally.acknowledged > ACKNOWLEDGED_MIN
    assert tally.checked >= tally.acknowledged


@pytest.mark.long
def test_the_loop_finds_nothing_wrong_with_real_etcd_when_it_ends_in_order() -> None:
    tally = KillLoop("etcd", seed=1, end=RunningMember.stop).run(CYCLES)
    assert not tally.problems, "\n".join(tally.problems[:20])
    assert tally.cycles == CYCLES
    assert tally.checked >= tally.acknowledged > ACKNOWLEDGED_MIN


def test_the_loop_reports_a_member_that_is_set_back_by_one_cycle(tmp_path: Path) -> None:
    copy = tmp_path / "copy"

    def set_back(member: RunningMember) -> None:
        member.kill()
        if copy.exists():
            shutil.rmtree(member.data_dir)
            shutil.copytree(copy, member.data_dir)
        else:
            shutil.copytree(member.data_dir, copy)

    tally = KillLoop("etcdtw", seed=1, end=set_back).run(CYCLES)
    assert tally.cycles <= 2
    assert any("was seen" in problem for problem in tally.problems)
