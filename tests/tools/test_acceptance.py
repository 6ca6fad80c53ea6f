"""`tools.acceptance`: what is too long for CI."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from tools.acceptance import ALONE, SHARED, Acceptance, Check, speed_checks

CHECKS = [*SHARED, *ALONE, *speed_checks(Path("somewhere"), ["abc=0.95", "def=0.97"])]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_every_command_exists(check: Check) -> None:
    command = check.command
    if "-m" in command:
        module = command[command.index("-m") + 1]
        assert module == "pytest" or find_spec(module) is not None
    else:
        assert command[0] in ("make", "bash")


def test_names_are_those_of_files_and_no_two_are_alike() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    assert not any("/" in name or " " in name for name in names)


@pytest.mark.processes
def test_what_has_passed_at_a_commit_is_not_repeated_and_what_failed_is(tmp_path: Path) -> None:
    good = Check("good", ("bash", "-c", "echo once >> runs; echo fine"))
    bad = Check("bad", ("bash", "-c", "echo twice >> runs; exit 3"))
    for commit, wanted in (("1234", 1), ("1234", 0), ("5678", 1)):
        (tmp_path / "runs").unlink(missing_ok=True)
        acceptance = Acceptance(tmp_path, commit, tmp_path)
        acceptance.run(good)
        acceptance.run(bad)
        runs = (tmp_path / "runs").read_text().split()
        assert (runs.count("once"), runs.count("twice")) == (wanted, 1)
        assert acceptance.failed == ["bad"]
    summary = (tmp_path / "summary.txt").read_text().splitlines()
    assert summary[0].startswith("1234 good passed (status 0, 0 s): fine")
    assert summary[1].startswith("1234 bad failed (status 3, 0 s)")
    assert len(summary) == 5
