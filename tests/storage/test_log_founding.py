"""A log is founded whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from etcdtw.raft.entry import ENTRY_NORMAL, Entry, HardState
from etcdtw.storage.directory import DataDirError, open_environment
from etcdtw.storage.log import LmdbLog, open_log
from etcdtw.storage.log_codec import KEY_IDENTITY, batch_key, encode_small
from etcdtw.storage.log_founding import found_log, stored_identity
from tests.storage.test_data_directory import MAP_SIZE, DirectWriter, open_whole_log

ENTRIES = [Entry(1, index, ENTRY_NORMAL, b"founder") for index in (1, 2, 3)]


@pytest.fixture
def env(tmp_path: Path) -> Iterator[lmdb.Environment]:
    made, lock_fd = open_log(tmp_path / "wal", MAP_SIZE)
    yield made
    made.close()
    os.close(lock_fd)


def found(env: lmdb.Environment) -> None:
    found_log(env, MAP_SIZE, b"me", HardState(1, 0, 3), ENTRIES)


def test_new_log_is_nobodys(env: lmdb.Environment) -> None:
    assert stored_identity(env) is None


def test_founded_log_has_its_identity_and_its_entries(env: lmdb.Environment) -> None:
    found(env)
    assert stored_identity(env) == b"me"
    log = LmdbLog(env, DirectWriter(env))
    assert log.entries(1, 4, 1 << 20) == ENTRIES
    assert log.initial_state()[0] == HardState(1, 0, 3)
    more = [Entry(1, 4, ENTRY_NORMAL, b"next")]
    log.append(None, more, lambda: None)
    assert LmdbLog(env, DirectWriter(env)).entries(1, 5, 1 << 20) == ENTRIES + more


def test_founding_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "wal"
    open_whole_log(path).close()
    readonly = open_environment(path, MAP_SIZE, 0, readonly=True)
    with pytest.raises(DataDirError, match=r"cannot be written.*check the disk"):
        found(readonly)
    assert stored_identity(readonly) is None
    readonly.close()


def test_log_is_founded_once(env: lmdb.Environment) -> None:
    found(env)
    with pytest.raises(AssertionError):
        found(env)


def test_identity_without_entries_is_refused_with_what_to_do(env: lmdb.Environment) -> None:
    with env.begin(write=True) as txn:
        txn.put(KEY_IDENTITY, encode_small(b"me"))
    with pytest.raises(DataDirError, match=r"first start was cut off.*remove.*and start again"):
        stored_identity(env)


def test_a_joined_member_that_has_no_entries_yet_remembers_its_vote(env: lmdb.Environment) -> None:
    found_log(env, MAP_SIZE, b"me", HardState(), [])
    LmdbLog(env, DirectWriter(env)).append(HardState(5, 7, 0), [], lambda: None)
    assert stored_identity(env) == b"me"
    assert LmdbLog(env, DirectWriter(env)).initial_state()[0] == HardState(5, 7, 0)


def test_a_commit_index_without_entries_is_refused(env: lmdb.Environment) -> None:
    found_log(env, MAP_SIZE, b"me", HardState(5, 7, 3), [])
    with pytest.raises(DataDirError, match="entries were committed, but holds none"):
        stored_identity(env)


def test_entries_without_an_identity_are_refused(env: lmdb.Environment) -> None:
    found(env)
    with env.begin(write=True) as txn:
        txn.delete(KEY_IDENTITY)
    with pytest.raises(DataDirError, match="not whose they are"):
        stored_identity(env)


def test_compacted_log_is_still_its_members(env: lmdb.Environment) -> None:
    found(env)
    log = LmdbLog(env, DirectWriter(env))
    log.compact(3)  # a mark alone is left, and whole batches below it go
    with env.begin() as txn:
        assert txn.get(batch_key(1)) is None
    assert stored_identity(env) == b"me"
