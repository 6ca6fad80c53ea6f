"""A member and its children leave no core, unless a flag asks for one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.processes import RunningMember

pytestmark = pytest.mark.integration


def limits_of(member: RunningMember) -> list[tuple[str, str]]:
    """Return the limits of cores, here and for children, of each process of a member."""
    found = []
    for pid in member.pids:
        text = Path(f"/proc/{pid}/limits").read_text()
        row = re.search(r"^Max core file size +(\S+) +(\S+)", text, re.MULTILINE)
        assert row is not None
        found.append((row.group(1), row.group(2)))
    return found


def test_no_process_of_a_member_leaves_a_core() -> None:
    with RunningMember("etcdtw") as member:
        found = limits_of(member)
    assert len(found) >= 2
    assert set(found) == {("0", "0")}


def test_a_flag_leaves_cores_to_the_system() -> None:
    own = Path("/proc/self/limits").read_text()
    with RunningMember("etcdtw", flags=["--core-dumps"]) as member:
        for soft, hard in limits_of(member):
            assert re.search(rf"^Max core file size +{soft} +{hard} ", own, re.MULTILINE)
