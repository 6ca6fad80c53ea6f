"""A member's data: opened, checked against itself, and closed again.

Everything here touches the disk; nothing here serves anybody.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random, SystemRandom
from typing import Final

import lmdb

from etcdtw.cluster.member import encode_member
from etcdtw.raft.confchange import bootstrap_log
from etcdtw.raft.storage import CompactedError, UnavailableError
from etcdtw.server.bootstrap import (
    BootstrapError,
    Identity,
    check_directory,
    decide_start,
    encode_identity,
    inspect_directory,
)
from etcdtw.server.config import Config
from etcdtw.storage.directory import DataDirError, prepare_directory
from etcdtw.storage.failure import stop_process
from etcdtw.storage.journal_codec import SALT_SIZE
from etcdtw.storage.journal_open import begin_journal
from etcdtw.storage.journal_writer import JournalWriter
from etcdtw.storage.log import MAP_SIZE, LmdbLog, open_log
from etcdtw.storage.state import LmdbState
from etcdtw.storage.state_feed import StateWriter
from etcdtw.storage.state_open import open_state

MEMBER: Final = "member"
LOG: Final = "wal"
STATE: Final = "state"
SYSTEM_RANDOM: Final = SystemRandom()


class Data:
    """The open log and state of one member, and who it is."""

    def __init__(
        self, identity: Identity, raft_log: LmdbLog, state: LmdbState, log_writer: JournalWriter
    ) -> None:
        self.identity = identity
        self.log = raft_log
        self.state = state
        self.log_writer = log_writer

    def close(self) -> None:
        """Let go of both; what was flushed stays."""
        self.state.close()
        self.log.close()


def open_data(
    config: Config,
    seconds: Callable[[], float],
    call_from_thread: Callable[[Callable[[], None]], None],
    make_state_writer: Callable[[Path, int, int], StateWriter],
    fail_stop: Callable[[str], None] = stop_process,
    random: Random = SYSTEM_RANDOM,
) -> Data:
    """Open the data directory, or found it.

    ``random`` gives the journal's salt, which no client may guess.
    Raises `BootstrapError` or `DataDirError`, whose texts say what is wrong and what to do.
    """
    check_directory(inspect_directory(config.data_dir))
    root = Path(config.data_dir)
    prepare_directory(root)
    prepare_directory(root / MEMBER)
    log_path = Path(config.wal_dir) if config.wal_dir else root / MEMBER / LOG
    env, lock_fd = open_log(log_path)
    try:
        journal = begin_journal(env, log_path, MAP_SIZE, random.randbytes(SALT_SIZE))
        writer = JournalWriter(env, journal, MAP_SIZE, seconds, call_from_thread, fail_stop)
        raft_log = LmdbLog(env, writer, lock_fd=lock_fd)
    except DataDirError:
        env.close()
        os.close(lock_fd)
        raise
    try:
        identity = _found_or_find(config, raft_log)
        state = open_state(
            root / MEMBER / STATE,
            fail_stop,
            make_state_writer,
            compacted=raft_log.first_index() - 1,
        )
    except (BootstrapError, DataDirError, lmdb.Error):
        raft_log.close()
        raise
    try:
        _check_together(raft_log, state)
    except DataDirError:
        state.close()
        raft_log.close()
        raise
    return Data(identity, raft_log, state, writer)


def _found_or_find(config: Config, raft_log: LmdbLog) -> Identity:
    """Return who this member is; a new one is written down together with its first entries."""
    start = decide_start(config, raft_log.identity())
    if raft_log.last_index() == 0:
        # Also after a crash between the two writes: the first entries follow from the flags.
        founders = start.founders or decide_start(config, None).founders
        if start.is_new:
            raft_log.put_identity(encode_identity(start.identity))
        hard_state, entries = bootstrap_log(
            (member.member_id, encode_member(member)) for member in founders
        )
        raft_log.append(hard_state, entries, lambda: None)
    return start.identity


def _check_together(raft_log: LmdbLog, state: LmdbState) -> None:
    """The state must be a prefix of this very log."""
    applied = state.applied_index
    advice = "the two directories are not of one member, or one was restored alone; restore both"
    if applied == 0:
        if raft_log.first_index() > 1:
            raise DataDirError(
                f"the state is empty, but the log begins at {raft_log.first_index()}: {advice}"
            )
        return
    if applied > raft_log.last_index():
        raise DataDirError(
            f"the state holds entry {applied}, but the log ends at "
            f"{raft_log.last_index()}: {advice}"
        )
    try:
        term = raft_log.term(applied)
    except (CompactedError, UnavailableError):
        raise DataDirError(
            f"the state holds entry {applied}, but the log begins at "
            f"{raft_log.first_index()}: {advice}"
        ) from None
    if term != state.applied_term:
        raise DataDirError(
            f"entry {applied} is of term {state.applied_term} in the state and of term {term} "
            f"in the log: {advice}"
        )
