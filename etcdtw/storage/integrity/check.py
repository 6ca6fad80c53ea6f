"""A look at a state before it is served, when its last member did not end well.

``python -m etcdtw.storage.integrity.check PATH MAP_SIZE MODE`` is the child that looks: a damaged
file may end it within LMDB, and that must not be the member.  What follows from `key` it makes
anew; damage to `key` itself, or to a small bucket, is told and nothing is changed.

    opened      lies in a state's directory while a member has it open; what it holds is why the
                state must not be trusted, empty: nothing is known
"""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Final

import lmdb

from etcdtw.storage.building.renewal import renew
from etcdtw.storage.disk.core_dumps import follow_parent
from etcdtw.storage.disk.directory import DataDirError, open_environment, sync_directory
from etcdtw.storage.disk.page_check import PagesDamagedError, check_pages
from etcdtw.storage.integrity.sweep import Finding, quick_sweep, sweep
from etcdtw.storage.rows.codec import (
    DERIVED,
    FORMAT,
    ROW_FORMAT,
    TABLE_PRIVATE,
    StateCorruptionError,
)
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables

MARK: Final = "opened"
TIMEOUT_S: Final = 1800.0  # some 10 us a row in the full mode
FINDINGS_MAX: Final = 8  # that are told
WHY_SIZE_MAX: Final = 4096

QUICK: Final = "quick"
"""Seals, order and counts."""
FULL: Final = "full"
"""All that a sweep compares."""
RENEW: Final = "renew"
"""Nothing is looked at: what follows from `key` is made anew."""

STATUS_DAMAGED: Final = 3
ADVICE: Final = (
    "this member's log is not concerned: beside others mend it from a snapshot of theirs "
    "(python -m etcdtw.server.state_mend), alone restore a snapshot (docs/guide/operate.md)"
)


def begin_mark(path: Path) -> str | None:
    """Note that the state in ``path`` is about to be opened, durably.

    Returns what an earlier member left: None, it ended well; else its text.
    """
    mark = path / MARK
    try:
        return mark.read_bytes()[:WHY_SIZE_MAX].decode(errors="replace")
    except FileNotFoundError:
        mark.touch(mode=0o600)
        sync_directory(path)
        return None


def distrust(path: Path, why: str) -> None:
    """Have the next start look at the state closely, whatever comes in between."""
    mark = path / MARK
    fd = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, why.encode()[:WHY_SIZE_MAX])
        os.fsync(fd)
    finally:
        os.close(fd)
    sync_directory(path)


def end_mark(path: Path) -> None:
    """The state was closed as it should be."""
    mark = path / MARK
    if mark.exists() and not mark.stat().st_size:
        mark.unlink()


def clear_mark(path: Path) -> None:
    """The state was looked at and is sound, or was made so."""
    (path / MARK).write_bytes(b"")


def check_state(path: Path, map_size: int, mode: str) -> str:
    """Look at the state in ``path`` in a child; return what was mended, empty: nothing was wrong.

    Nothing may have it open.  Raises `DataDirError` when it must not be served.
    """
    status, text = _ask_child(path, map_size, mode)
    if status < 0 and mode != RENEW:
        text = f"LMDB ended with signal {-status} on a damaged page"
        status, reason = _ask_child(path, map_size, RENEW)
        if status == 0:
            return f"{text}; all that follows from `key` was made anew"
        text = reason or text
    if status == 0:
        return text
    if status < 0:
        text = f"LMDB ended with signal {-status} on a damaged page"
    raise DataDirError(f"{path} is damaged: {text}; {ADVICE}")


def _ask_child(path: Path, map_size: int, mode: str) -> tuple[int, str]:
    command = [
        sys.executable,
        "-m",
        "etcdtw.storage.integrity.check",
        str(path),
        str(map_size),
        mode,
    ]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise DataDirError(f"{path} could not be looked through in {TIMEOUT_S:.0f} s") from None
    text = done.stdout.decode(errors="replace").strip()
    if done.returncode > 0 and not text:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        text = lines[-1] if lines else f"the check ended with status {done.returncode}"
    return done.returncode, text


def look(path: Path, map_size: int, mode: str) -> tuple[int, str]:
    """Do what the child does; return its status and text."""
    try:
        try:
            check_pages(path)
        except PagesDamagedError as error:
            if error.table not in DERIVED:
                raise
            mode = RENEW
        env = open_environment(path, map_size, DATABASES_MAX)
        with env.begin() as txn:
            if not txn.stat()["entries"]:
                return 0, ""  # its first transaction was never committed
        tables = Tables(env)
        if not _is_of_this_format(tables):
            return 0, ""  # of an earlier one all is made anew in any case, a foreign one is refused
        found: list[Finding] = []
        if mode != RENEW:
            steps = quick_sweep(tables) if mode == QUICK else sweep(tables)
            found = list(islice((one for one in steps if one is not None), FINDINGS_MAX))
        told = "; ".join([one.text() for one in found])
        if any(one.table not in DERIVED for one in found):
            return STATUS_DAMAGED, told
        if not found and mode != RENEW:
            return 0, ""
        renew(tables, path, map_size)
    except (lmdb.Error, StateCorruptionError, DataDirError) as error:
        return STATUS_DAMAGED, str(error)
    return 0, f"all that follows from `key` was made anew ({told or 'unseen'})"


def _is_of_this_format(tables: Tables) -> bool:
    with tables.env.begin() as txn:
        return bool(txn.get(ROW_FORMAT, db=tables.handles[TABLE_PRIVATE]) == FORMAT)


def main(arguments: list[str]) -> int:
    """Look at one state; returns the exit status."""
    path, map_size, mode = arguments
    status, text = look(Path(path), int(map_size), mode)
    print(text)
    return status


if __name__ == "__main__":
    follow_parent()
    sys.exit(main(sys.argv[1:]))
