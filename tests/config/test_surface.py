"""Every flag that real etcd's help names is exercised here, or said to have no effect."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from etcdtw.config.flag_table import FLAGS
from etcdtw.config.flags import LEGACY, NO_EFFECT, SUPPORTED
from tests.support.surface import recorded_flags

TESTS: Final = Path(__file__).resolve().parent.parent
OWN: Final = {
    "completion",
    "config-file",  # stands among the usages of etcd's help
    "version",
    "client-cert-allowed-cn",
    "compat-version",
    "state-sweep-interval",
    "core-dumps",
    "quota-auto-compaction",
    "quota-auto-disarm",
    "quota-measure",
    "watch-outlives-permission",
}
"""Flags that etcd's help does not list."""


@cache
def tests_text() -> str:
    return "\n".join(
        path.read_text(encoding="utf-8")
        for path in sorted(TESTS.rglob("*.py"))
        if path != Path(__file__)
    )


def is_named(flag: str) -> bool:
    """Whether a test sets the flag: on a command line, in a file, or as a field of `Config`."""
    field = flag.replace("-", "_")
    pattern = rf'--{flag}\b(?!-)|"{flag}"|\b{flag}:|\b{field}(?:_s|_ms)?='
    return re.search(pattern, tests_text()) is not None


def test_each_flag_of_real_etcd_is_known_and_no_other_is() -> None:
    recorded = recorded_flags()
    assert {name for name, is_there in recorded.items() if is_there} - set(FLAGS) == set()
    assert {name for name, is_there in recorded.items() if not is_there} & set(FLAGS) == set()
    ours = {name for name, spec in FLAGS.items() if spec.status != LEGACY}
    assert ours - set(recorded) - OWN == set()


@pytest.mark.parametrize("name", [n for n, is_there in recorded_flags().items() if is_there])
def test_each_flag_is_exercised_or_said_to_have_no_effect(name: str) -> None:
    """Those without effect, refused ones and ignored ones are each set in `test_config`."""
    status = FLAGS[name].status
    assert status in (NO_EFFECT, LEGACY) or (status == SUPPORTED and is_named(name))
