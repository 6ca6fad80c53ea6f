"""etcd-io/raft's golden scripts, run against our core, and how many of them there were."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.raft_cluster import ScriptCluster
from tests.conformance.raft_scripts import (
    SCRIPT_COUNTS,
    SCRIPTS,
    run_script,
    script_params,
    scripts_found,
)
from tests.conformance.raft_small import ConfChangeScript, run_quorum_directive
from tests.support.datadriven import parse_script


@pytest.mark.parametrize("path", script_params("interaction"))
def test_interaction_script(path: Path) -> None:
    run_script(path, ScriptCluster().run)


@pytest.mark.parametrize("path", script_params("confchange"))
def test_confchange_script(path: Path) -> None:
    run_script(path, ConfChangeScript().run)


@pytest.mark.parametrize("path", script_params("quorum"))
def test_quorum_script(path: Path) -> None:
    run_script(path, run_quorum_directive)


def test_all_scripts_are_there() -> None:
    assert scripts_found() == SCRIPT_COUNTS


def test_every_directive_of_the_scripts_is_parsed() -> None:
    counts = {
        kind: sum([len(parse_script(path)) for path in (SCRIPTS / kind).glob("*.txt")])
        for kind in SCRIPT_COUNTS
    }
    assert counts == {"interaction": 558, "confchange": 58, "quorum": 127}
