"""The suite is run by several workers at once (pytest-xdist): how many, and what stays together.

Each has ports of its own (`tests.support.ports`); folders of its own are pytest's doing.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

WORKERS_PER_CORE: Final = 2
"""Most of the suite waits for members to start, to elect and to stop; measured."""
WORKERS_MAX: Final = 16
LONGEST_FIRST: Final = (
    "test_mixed_cluster.py",
    "test_full_disk.py",
    "test_kill.py",
    "test_cluster_kill.py",
    "test_guides.py",
    "test_live_metrics.py",
)
"""Files that would be waited for at the end if they did not begin first."""


def worker_count(config: pytest.Config) -> int:
    """Return how many workers run what was asked for; 0, nobody beside this process, for files."""
    files = [argument.partition("::")[0].endswith(".py") for argument in config.args]
    if files and all(files):
        return 0
    waits = "not integration" not in config.option.markexpr
    per_core = WORKERS_PER_CORE if waits else 1
    return min(WORKERS_MAX, per_core * len(os.sched_getaffinity(0)))


def group_of(item: pytest.Function) -> str | None:
    """Return what stays with one worker: a file of a room, or what shares a member.

    None for what may run anywhere: an integration test whose members are its own.
    """
    file = item.nodeid.partition("::")[0]
    if item.get_closest_marker("integration") is None:
        return file
    params = item.callspec.params if hasattr(item, "callspec") else {}
    shared = [
        f"{name}={params.get(name, '')}"
        for name, found in sorted(item._fixtureinfo.name2fixturedefs.items())
        if found[-1].scope == "module"
    ]
    return "-".join([file, *shared]) if shared else None


def arrange(items: list[pytest.Item]) -> None:
    """Mark the groups; what takes longest is begun first, and what starts nothing last."""
    for item in items:
        group = group_of(item) if isinstance(item, pytest.Function) else None
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))

    def place(item: pytest.Item) -> int:
        if item.path.name in LONGEST_FIRST:
            return LONGEST_FIRST.index(item.path.name)
        return len(LONGEST_FIRST) + (item.get_closest_marker("integration") is None)

    items.sort(key=place)
