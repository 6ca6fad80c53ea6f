"""A log is founded whole or not at all."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from etcdtw.raft.config import Config
from etcdtw.raft.entry import ENTRY_NORMAL, Entry, HardState
from etcdtw.raft.message import MSG_STORAGE_APPEND, MSG_VOTE, MSG_VOTE_RESP, Message
from etcdtw.raft.raw_node import RawNode
from etcdtw.storage.disk.directory import DataDirError, open_environment
from etcdtw.storage.log.codec import (
    KEY_HARD_STATE,
    KEY_IDENTITY,
    batch_key,
    encode_hard_state,
    encode_small,
)
from etcdtw.storage.log.founding import found_log, stored_identity
from etcdtw.storage.log.log import LmdbLog, open_log
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


def reopened(path: Path) -> LmdbLog:
    """Open a log as a start of its member does."""
    env, lock_fd = open_log(path, MAP_SIZE)
    try:
        assert stored_identity(env) == b"me"
    except DataDirError:
        env.close()
        os.close(lock_fd)
        raise
    return LmdbLog(env, DirectWriter(env), lock_fd=lock_fd)


def joined(path: Path) -> LmdbLog:
    """Found the log of member 1, which joins: its entries will come from a leader."""
    env, lock_fd = open_log(path, MAP_SIZE)
    found_log(env, MAP_SIZE, b"me", HardState(), [])
    env.close()
    os.close(lock_fd)
    return reopened(path)


def answer_to_candidate(log: LmdbLog, candidate: int) -> bool:
    """Ask member 1 for its vote in term 5, as a member that starts on ``log``; does it grant?"""
    member = RawNode(
        Config(id=1, election_ticks=10, heartbeat_ticks=1, storage=log, random=random.Random(1))
    )
    request = Message(MSG_VOTE, to=1, from_id=candidate, term=5, log_term=4, index=9)
    member.step(request)
    ready = member.ready()
    log.append(ready.hard_state, ready.entries, lambda: None)
    answers = [
        answer
        for m in ready.messages
        for answer in (m.responses if m.type == MSG_STORAGE_APPEND else [m])
        if answer.type == MSG_VOTE_RESP and answer.to == candidate
    ]
    assert len(answers) == 1
    return not answers[0].reject


def test_joined_member_starts_again_before_its_first_entry(tmp_path: Path) -> None:
    joined(tmp_path / "wal").close()
    log = reopened(tmp_path / "wal")
    assert (log.first_index(), log.last_index()) == (1, 0)
    log.close()


def test_joined_member_that_voted_before_its_first_entry_keeps_to_its_vote(tmp_path: Path) -> None:
    log = joined(tmp_path / "wal")
    assert answer_to_candidate(log, 2)
    log.close()
    log = reopened(tmp_path / "wal")
    assert log.initial_state()[0] == HardState(5, 2, 0)
    assert not answer_to_candidate(log, 3)
    assert answer_to_candidate(log, 2)  # its answer may have been lost
    log.close()


def test_log_that_lost_its_committed_entries_is_refused(env: lmdb.Environment) -> None:
    with env.begin(write=True) as txn:
        txn.put(KEY_IDENTITY, encode_small(b"me"))
        txn.put(KEY_HARD_STATE, encode_hard_state(HardState(3, 0, 2)))
    with pytest.raises(DataDirError, match=r"up to 2 are committed.*remove this member"):
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
