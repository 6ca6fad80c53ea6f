"""How a state that was built takes the place of the running one, whatever crashes when.

    building/             an environment that is being filled
    built-<index>.mdb     a complete one, durable: its data file, named after the index it covers
    data.mdb              the state; replaced by renaming a built one over it

The order, for a snapshot at some index: build; then the log's record that drops every entry up
to that index; then the renaming.  After a crash the log decides: if it begins behind what the
state holds, its record was written and the built file takes its place now; if not, the built
file is deleted and the old state stands.  Either way one complete state is there at any moment.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from etcdtw.storage.disk.directory import DATA_FILE, LMDB_LOCK_FILE, names_held, sync_directory

BUILDING: Final = "building"
BUILT_PATTERN: Final = "built-*.mdb"


def built_file(path: Path, index: int) -> Path:
    """Return the place of a complete state at ``index``, beside the one in ``path``."""
    return path / f"built-{index:016x}.mdb"


def has_built(path: Path) -> bool:
    """Whether an install has left anything beside the state in ``path``."""
    return (path / BUILDING).is_dir() or any(path.glob(BUILT_PATTERN))


def remove_building(path: Path) -> None:
    """Delete a state that was half built; a complete one may be needed."""
    building = path / BUILDING
    if building.is_dir():
        shutil.rmtree(building)


def remove_built(path: Path) -> None:
    """Delete every state that was built, or half built, beside the one in ``path``."""
    remove_building(path)
    for file in path.glob(BUILT_PATTERN):
        file.unlink()


def swap_in(path: Path, index: int) -> None:
    """Let the built state at ``index`` take the place of the one in ``path``, durably.

    No environment may be open there in this process.  Raises `OSError` when there is none.
    """
    take_place(path, built_file(path, index))


def take_place(path: Path, file: Path) -> None:
    """Rename ``file`` over the state in ``path``, durably; the same conditions."""
    with names_held(path, is_changing=True):
        os.rename(file, path / DATA_FILE)
        # It belongs to one data file; a crash before this does no harm, since LMDB makes it
        # anew where nobody else has it open.
        (path / LMDB_LOCK_FILE).unlink(missing_ok=True)
        sync_directory(path)


def finish_install(path: Path, applied: int, compacted: int) -> bool:
    """After a crash: bring an install to its end, or take it back.  True: the state is another.

    ``applied`` is what the state in ``path`` covers, ``compacted`` the last index that the log
    has forgotten.  No environment may be open there.
    """
    is_due = applied < compacted and built_file(path, compacted).exists()
    if is_due:
        swap_in(path, compacted)
    remove_built(path)
    return is_due
