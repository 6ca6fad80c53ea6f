"""A received state: built from a bbolt file beside the running one, by a process of its own.

Started by `snapshots`: ``python -m etcdtw.storage.snapshot.install PARENT`` with the job as
input.  How it takes the old one's place is `building.swap`'s.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from etcdtw.bbolt.reader import BboltFile
from etcdtw.bbolt.seal import has_seal, verify_seal
from etcdtw.storage.building.from_bbolt import (
    SnapshotFacts,
    SnapshotInstall,
    import_state,
    map_size_for,
)
from etcdtw.storage.building.swap import BUILDING, built_file, remove_built, swap_in
from etcdtw.storage.disk.core_dumps import follow_parent
from etcdtw.storage.disk.directory import (
    DATA_FILE,
    DataDirError,
    lock_directory,
    open_environment,
    prepare_directory,
    sync_directory,
)
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.snapshot.child import run_child


def build_state(
    source: Path,
    path: Path,
    map_size: int,
    facts: SnapshotFacts,
    still_wanted: Callable[[], None] = lambda: None,
) -> SnapshotInstall:
    """Build a state from a bbolt file beside the one in ``path``, and make it durable there.

    A seal behind the file is checked.  What an earlier build left is deleted first.  Raises
    `BboltError` or `DataDirError`; then nothing is left of it.
    """
    remove_built(path)
    building = path / BUILDING
    building.mkdir(mode=0o700)
    fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size

        def read_at(offset: int, wanted: int) -> bytes:
            return os.pread(fd, wanted, offset)

        if has_seal(size):
            size = verify_seal(read_at, size)
        still_wanted()
        file = BboltFile(read_at, size)
        env = open_environment(building, max(map_size, map_size_for(size)), DATABASES_MAX)
        try:
            tables = Tables(env, is_new=True)
            built = import_state(file, tables, facts, building / "runs", still_wanted)
            env.sync(True)
        finally:
            env.close()
    except Exception:
        shutil.rmtree(building)  # the disk may be full of it
        raise
    finally:
        os.close(fd)
    os.rename(building / DATA_FILE, built_file(path, built.index))
    sync_directory(path)
    shutil.rmtree(building)
    return built


def load_state(source: Path, path: Path, map_size: int, facts: SnapshotFacts) -> SnapshotInstall:
    """Make the state of a new member in ``path`` from a bbolt file, with no process running.

    Raises `DataDirError` when there is a state already, or `BboltError`.
    """
    prepare_directory(path)
    lock_fd = lock_directory(path)
    try:
        if (path / DATA_FILE).exists():
            raise DataDirError(f"{path} holds a state already; choose a new data directory")
        built = build_state(source, path, map_size, facts)
        swap_in(path, built.index)
    finally:
        os.close(lock_fd)
    return built


def _build_in_child(
    still_wanted: Callable[[], None],
    source: str,
    path: str,
    map_size: int,
    facts: tuple[Any, ...],
) -> tuple[Any, ...]:
    return astuple(
        build_state(Path(source), Path(path), map_size, SnapshotFacts(*facts), still_wanted)
    )


if __name__ == "__main__":
    follow_parent()
    os._exit(run_child(sys.argv[1:], _build_in_child))
