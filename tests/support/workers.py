"""The suite is run by several workers at once (pytest-xdist): how many, and what stays together.

Each has ports of its own (`tests.support.ports`); folders of its own are pytest's doing.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import pytest

WORKERS_PER_CORE: Final = 3
"""Most of the suite waits for members to start, to elect and to stop; measured."""
WORKERS_MAX: Final = 16
FIRST: Final = "gw0"
COLLECTED_WITHIN_S: Final = 60.0
POLL_S: Final = 0.05
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


def _collected(config: pytest.Config) -> tuple[Path, bool] | None:
    """Return the file that says that the first worker has collected, and whether it is this one.

    None where nobody waits.  In a fresh clone the first look compiles all of the tests: done by
    each of more workers than there are cores, that takes longer than by one for all the others.
    """
    worker = getattr(config, "workerinput", None)
    if worker is None or worker["workercount"] <= len(os.sched_getaffinity(0)):
        return None
    path = Path(config.rootpath, ".pytest_cache", f"collected-{worker['testrunuid']}")
    return path, worker["workerid"] == FIRST


def await_first(config: pytest.Config) -> None:
    """Wait, in any other worker, until the first one has collected."""
    if collected := _collected(config):
        path, is_first = collected
        deadline = time.monotonic() + COLLECTED_WITHIN_S
        while not (is_first or path.exists() or time.monotonic() > deadline):
            time.sleep(POLL_S)


def tell_collected(config: pytest.Config) -> None:
    """Let the others begin, in the first worker."""
    match _collected(config):
        case (path, True):
            path.parent.mkdir(exist_ok=True)
            path.touch()


def forget_collected(config: pytest.Config) -> None:
    """Remove what `tell_collected` left, in the worker that left it."""
    match _collected(config):
        case (path, True):
            path.unlink(missing_ok=True)


def arrange(items: list[pytest.Item]) -> None:
    """Mark the groups; what takes longest is begun first.

    After that what waits for members and what only computes come evenly mixed: one would leave
    the cores idle for a third of its time, the other never.
    """
    for item in items:
        group = group_of(item) if isinstance(item, pytest.Function) else None
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))

    places: dict[pytest.Item, float] = {}
    waiting = [item for item in items if item.get_closest_marker("integration")]
    computing = [item for item in items if not item.get_closest_marker("integration")]
    for kind in (waiting, computing):
        places |= {item: len(LONGEST_FIRST) + i / len(kind) for i, item in enumerate(kind)}
    for item in waiting:
        if item.path.name in LONGEST_FIRST:
            places[item] = LONGEST_FIRST.index(item.path.name)
    items.sort(key=places.__getitem__)
