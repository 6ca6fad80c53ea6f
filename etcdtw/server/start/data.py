"""A member's data: opened, checked against itself, and closed again.

Everything here touches the disk; nothing here serves anybody.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import Final

import lmdb

from etcdtw.apply.members import stored_conf_state
from etcdtw.cluster.joining import RemoteCluster
from etcdtw.cluster.member import Member, encode_member
from etcdtw.config.config import Config
from etcdtw.raft.confchange import bootstrap_log
from etcdtw.raft.entry import ConfState, Entry, HardState
from etcdtw.raft.log import NO_LIMIT
from etcdtw.raft.storage import CompactedError, UnavailableError
from etcdtw.server.start.bootstrap import (
    BootstrapError,
    Identity,
    Start,
    check_directory,
    check_log_place,
    decide_start,
    encode_identity,
    force_new_cluster,
    inspect_directory,
)
from etcdtw.storage.disk import room
from etcdtw.storage.disk.directory import DATA_FILE, DataDirError, prepare_directory
from etcdtw.storage.disk.failure import stop_process
from etcdtw.storage.disk.received_files import ReceptionRoom, remove_leftovers
from etcdtw.storage.disk.room import Place, RealDisk, log_need, no_space_advice, state_need
from etcdtw.storage.log.founding import found_log, stored_identity
from etcdtw.storage.log.journal_codec import SALT_SIZE
from etcdtw.storage.log.journal_open import begin_journal
from etcdtw.storage.log.journal_writer import JournalWriter
from etcdtw.storage.log.log import MAP_SIZE, LmdbLog, open_log
from etcdtw.storage.presence import (
    ETCD_SNAPSHOTS,
    Mark,
    check_presence,
    guard_log,
    guard_member,
    lay_mark,
    refuse_empty_log,
)
from etcdtw.storage.state.open import clear_state, open_state
from etcdtw.storage.state.state import LmdbState
from etcdtw.storage.writer.feed import StateWriter
from etcdtw.transport.peer_port.snapshot_in import SnapshotSaves

MEMBER: Final = "member"
LOG: Final = "wal"
STATE: Final = "state"
SNAPSHOTS: Final = "snapshots"
SYSTEM_RANDOM: Final = SystemRandom()


class Data:
    """The open log and state of one member, and who it is."""

    def __init__(
        self,
        start: Start,
        raft_log: LmdbLog,
        state: LmdbState,
        log_writer: JournalWriter,
        log_path: Path,
        folder: Path,
    ) -> None:
        self.identity = start.identity
        self.line = start.line
        self.remotes = start.remotes
        self.state_path = folder / STATE
        self.log_path = log_path
        self.saves = SnapshotSaves()
        self.snapshot_folder = folder / SNAPSHOTS
        self.reception_room = ReceptionRoom(self.snapshot_folder)
        self.log = raft_log
        self.state = state
        self.log_writer = log_writer

    def places(self) -> list[Place]:
        """Return the files that must be able to grow."""
        log, state, writer = self.log, self.state, self.log_writer
        return [
            Place(
                room.LOG,
                self.log_path / DATA_FILE,
                lambda: log_need(writer.unsettled_octets),
                log.reusable,
            ),
            Place(
                room.STATE,
                self.state_path / DATA_FILE,
                lambda: state_need(*state.pending, state.size_in_use),
                state.reuse.octets,
            ),
        ]

    def close(self) -> None:
        """Let go of both; what was flushed stays."""
        self.state.close()
        self.log.close()


def telling_stop(config: Config) -> Callable[[str], None]:
    """Return what ends the process; it says how much space there is where that is the reason."""
    paths = [_log_path(config), Path(config.data_dir)]
    return lambda reason: stop_process(no_space_advice(reason, paths, RealDisk()))


def has_identity(config: Config) -> bool:
    """Whether this member has run before: then its bootstrap flags are not read again."""
    return (_log_path(config) / DATA_FILE).exists()


def _log_path(config: Config) -> Path:
    return Path(config.wal_dir) if config.wal_dir else Path(config.data_dir) / MEMBER / LOG


def check_data(config: Config) -> None:
    """Refuse a data directory that is not ours, or of which a part is missing; changes nothing.

    Raises OSError when it may not look, `BootstrapError` or `DataDirError`, whose texts say what
    is wrong and what to do.
    """
    check_directory(inspect_directory(config.data_dir))
    if config.wal_dir:
        check_log_place(config.wal_dir)
    member = Path(config.data_dir) / MEMBER
    check_presence(member, _log_path(config), member / STATE)


def _make_room(config: Config) -> None:
    """Delete what a killed member was receiving or building; keep real etcd off the rest."""
    member = Path(config.data_dir) / MEMBER
    for folder in (member / SNAPSHOTS, member / ETCD_SNAPSHOTS):
        remove_leftovers(folder)  # the latter is an earlier program's place for them
    clear_state(member / STATE)
    guard_member(member)
    if config.wal_dir:
        # Where the log lies within the data directory the other guard keeps it.
        guard_log(Path(config.wal_dir))


def _lay_marks(config: Config, identity: Identity) -> None:
    """Note that the log and the state of this member exist: from now on neither may be missing."""
    log_path = _log_path(config)
    mark = Mark(f"{identity.member_id:x}", f"{identity.cluster_id:x}", os.path.abspath(log_path))
    lay_mark(log_path, mark)
    lay_mark(Path(config.data_dir) / MEMBER, mark)


def open_data(
    config: Config,
    seconds: Callable[[], float],
    call_from_thread: Callable[[Callable[[], None]], None],
    make_state_writer: Callable[[Path, int, int], StateWriter],
    fail_stop: Callable[[str], None] = stop_process,
    random: Random = SYSTEM_RANDOM,
    remote: RemoteCluster | None = None,
) -> Data:
    """Open the data directory, or found it.

    ``remote``: the running cluster that a new member joins, or that has this one already.
    ``random`` gives the journal's salt, which no client may guess.
    Raises `BootstrapError` or `DataDirError`, whose texts say what is wrong and what to do.
    """
    check_data(config)
    root = Path(config.data_dir)
    prepare_directory(root)
    prepare_directory(root / MEMBER)
    log_path = _log_path(config)
    env, lock_fd = open_log(log_path, on_owned=partial(_make_room, config))
    try:
        start = _find_or_found(config, env, remote)
        journal = begin_journal(env, log_path, MAP_SIZE, random.randbytes(SALT_SIZE))
        writer = JournalWriter(env, journal, MAP_SIZE, seconds, call_from_thread, fail_stop)
        raft_log = LmdbLog(env, writer, lock_fd=lock_fd)
    except (BootstrapError, DataDirError):
        env.close()
        os.close(lock_fd)
        raise
    try:
        state = open_state(
            root / MEMBER / STATE,
            fail_stop,
            make_state_writer,
            compacted=raft_log.first_index() - 1,
        )
    except (DataDirError, lmdb.Error):
        raft_log.close()
        raise
    try:
        _check_together(raft_log, state)
        if config.force_new_cluster:
            _force_new_cluster(config, start.identity, raft_log, state)
        _lay_marks(config, start.identity)
    except (BootstrapError, DataDirError):
        state.close()
        raft_log.close()
        raise
    return Data(start, raft_log, state, writer, log_path, root / MEMBER)


def _find_or_found(config: Config, env: lmdb.Environment, remote: RemoteCluster | None) -> Start:
    """Return who this member is; a new one is written down together with its first entries.

    One that joins has no entries of its own: its log comes from the leader.
    """
    start = decide_start(config, stored_identity(env), remote)
    if start.is_new:
        refuse_empty_log(Path(config.data_dir) / MEMBER, _log_path(config))
        hard_state = HardState()
        entries: list[Entry] = []
        if not start.is_joining:
            hard_state, entries = bootstrap_log(
                (member.member_id, encode_member(member)) for member in start.founders
            )
        found_log(env, MAP_SIZE, encode_identity(start.identity), hard_state, entries)
    return start


def _force_new_cluster(
    config: Config, identity: Identity, raft_log: LmdbLog, state: LmdbState
) -> None:
    """Write into the log that this member is the only one."""
    hard_state, _ = raft_log.initial_state()
    applied = state.applied_index
    # The commit index is not always flushed: what is applied was committed.
    hard_state.commit = max(hard_state.commit, applied)
    entries = raft_log.entries(applied + 1, hard_state.commit + 1, NO_LIMIT)
    own = Member(
        member_id=identity.member_id,
        peer_urls=tuple(str(url) for url in config.initial_advertise_peer_urls),
        name=config.name,
    )
    conf_state = stored_conf_state(state) or ConfState()
    appended = force_new_cluster(hard_state, conf_state, entries, own)
    if appended is not None:
        raft_log.append(*appended, lambda: None)


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
