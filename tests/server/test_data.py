"""The log and the state of one member, opened together: what is refused, and what is said."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from etcdtw.raft.entry import ENTRY_NORMAL, Entry
from etcdtw.server.bootstrap import Identity, encode_identity
from etcdtw.server.config import configure
from etcdtw.server.data import _check_together, open_data
from etcdtw.storage.directory import DataDirError
from etcdtw.storage.log import open_log
from etcdtw.storage.log_codec import KEY_IDENTITY, encode_small
from etcdtw.storage.state_open import open_state
from tests.support.node_rig import MemoryLog


def log_of(last: int, compacted: int) -> MemoryLog:
    log = MemoryLog()
    entries = [Entry(1, index, ENTRY_NORMAL, b"") for index in range(1, last + 1)]
    log.append(None, entries, lambda: None)
    if compacted:
        log.compact(compacted)
    return log


def check(log: MemoryLog, path: Path, applied: int) -> None:
    state = open_state(path, lambda reason: None, map_size=1 << 24)
    try:
        state.set_applied(applied, 1)
        _check_together(log, state)  # type: ignore[arg-type]
    finally:
        state.close()


@pytest.mark.parametrize("applied", [10, 15, 20])
def test_state_within_the_log_is_taken(tmp_path: Path, applied: int) -> None:
    check(log_of(20, 10), tmp_path / "state", applied)


def test_new_state_is_taken_with_a_whole_log(tmp_path: Path) -> None:
    check(log_of(20, 0), tmp_path / "state", 0)


@pytest.mark.parametrize(
    ("applied", "text"),
    [
        (0, "the state is empty, but the log begins at 11"),
        (9, "the state holds entry 9, but the log begins at 11"),
        (21, "the state holds entry 21, but the log ends at 20"),
    ],
)
def test_state_without_its_part_of_the_log_is_refused(
    tmp_path: Path, applied: int, text: str
) -> None:
    with pytest.raises(DataDirError, match=text):
        check(log_of(20, 10), tmp_path / "state", applied)


def not_called(*arguments: object) -> NoReturn:
    pytest.fail("nothing is opened")


def test_first_start_that_was_cut_off_does_not_meet_other_founders(tmp_path: Path) -> None:
    """Before `found_log` the identity was written alone, then the entries."""
    env, lock_fd = open_log(tmp_path / "data" / "member" / "wal")
    with env.begin(write=True) as txn:
        txn.put(KEY_IDENTITY, encode_small(encode_identity(Identity(1, 2))))
    env.close()
    os.close(lock_fd)
    arguments = ["--data-dir", str(tmp_path / "data")]
    with pytest.raises(DataDirError, match=r"first start was cut off.*start again"):
        open_data(configure(arguments, {}, lambda path: b""), float, not_called, not_called)
    open_log(tmp_path / "data" / "member" / "wal")[0].close()  # it was let go of
