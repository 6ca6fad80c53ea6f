"""A damaged state mended from a snapshot of another member, while this one is stopped.

    etcdctl --endpoints=<a healthy member> snapshot save FILE    (while this one still runs)
    python -m etcdtw.server.state_mend --data-dir DIR [--wal-dir DIR] FILE

The log is kept: what it holds behind the snapshot is applied at the next start.  A damaged log is
never mended so: what this member has acknowledged would be guessed.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Final

from etcdtw.apply.members import decode_conf_state
from etcdtw.bbolt.layout import BboltError
from etcdtw.raft.entry import ConfState, HardState, Snapshot
from etcdtw.raft.storage import CompactedError, UnavailableError
from etcdtw.server.start.bootstrap import BootstrapError, Identity, decode_identity
from etcdtw.server.start.data import LOG, MEMBER, STATE, SYSTEM_RANDOM
from etcdtw.storage.building.from_bbolt import SnapshotFacts, SnapshotInstall
from etcdtw.storage.building.swap import remove_built, swap_in
from etcdtw.storage.disk.directory import DataDirError, lock_directory
from etcdtw.storage.integrity.check import MARK
from etcdtw.storage.log.founding import stored_identity
from etcdtw.storage.log.journal_codec import SALT_SIZE
from etcdtw.storage.log.journal_open import begin_journal
from etcdtw.storage.log.journal_writer import JournalWriter
from etcdtw.storage.log.log import MAP_SIZE, LmdbLog, open_log
from etcdtw.storage.snapshot.install import build_state

FLUSH_TIMEOUT_S: Final = 60.0


class MendError(Exception):
    """The snapshot is not one that this member may stand on."""


def mend(log_path: Path, state_path: Path, snapshot: Path) -> SnapshotInstall:
    """Let the state of ``snapshot`` take the place of the one in ``state_path``.

    The state is as it was when this raises `MendError`, `DataDirError`, `BootstrapError` or
    `BboltError`.  A crash leaves the old state or the new one, and may be followed by another try.
    """
    env, lock_fd = open_log(log_path)
    octets = stored_identity(env)
    if octets is None:
        env.close()
        os.close(lock_fd)
        raise MendError(f"{log_path} holds the log of no member")
    journal = begin_journal(env, log_path, MAP_SIZE, SYSTEM_RANDOM.randbytes(SALT_SIZE))
    seconds = time.monotonic  # noqa: TID251 - a program of its own
    writer = JournalWriter(env, journal, MAP_SIZE, seconds, lambda call: call(), _fail)
    raft_log = LmdbLog(env, writer, lock_fd=lock_fd)
    try:
        return _mend(raft_log, decode_identity(octets), state_path, snapshot)
    finally:
        raft_log.close()


def _mend(
    raft_log: LmdbLog, identity: Identity, state_path: Path, snapshot: Path
) -> SnapshotInstall:
    state_fd = lock_directory(state_path)
    try:
        built = build_state(snapshot, state_path, MAP_SIZE, SnapshotFacts())
        try:
            conf_state = _checked(raft_log, identity, built)
        except MendError:
            remove_built(state_path)
            raise
        if built.index > raft_log.last_index():
            _install(raft_log, built, conf_state)
        swap_in(state_path, built.index)
        (state_path / MARK).unlink(missing_ok=True)
    finally:
        os.close(state_fd)
    return built


def _checked(raft_log: LmdbLog, identity: Identity, built: SnapshotInstall) -> ConfState:
    """Return the configuration of a snapshot that goes together with the log."""
    try:
        conf_state = decode_conf_state(built.conf_state)
    except ValueError:
        raise MendError(
            "the snapshot does not tell its voters: take it of a member of 3.5 or later"
        ) from None
    if identity.member_id not in (*conf_state.voters, *conf_state.learners):
        raise MendError(
            f"the snapshot does not know member {identity.member_id:x}: it is another cluster's, "
            "or this member was removed"
        )
    if built.index > raft_log.last_index():
        return conf_state
    try:
        term = raft_log.term(built.index)
    except (CompactedError, UnavailableError):
        raise MendError(
            f"the snapshot is of index {built.index}, this log begins at "
            f"{raft_log.first_index()}: take a newer one"
        ) from None
    if term != built.term:
        raise MendError(
            f"entry {built.index} is of term {built.term} in the snapshot and of term {term} in "
            "this log: it is another cluster's"
        )
    return conf_state


def _install(raft_log: LmdbLog, built: SnapshotInstall, conf_state: ConfState) -> None:
    """Let the log begin behind a snapshot that it does not reach, as when a leader sends one."""
    old, _ = raft_log.initial_state()
    hard_state = HardState(old.term, old.vote, built.index)
    if built.term > old.term:
        hard_state = HardState(built.term, 0, built.index)
    is_stored = Event()
    place = Snapshot(built.index, built.term, conf_state)
    raft_log.install_snapshot(hard_state, place, is_stored.set)
    if not is_stored.wait(FLUSH_TIMEOUT_S):
        raise DataDirError(f"the log was not stored within {FLUSH_TIMEOUT_S:.0f} s")


def _fail(reason: str) -> None:
    raise DataDirError(reason)


def main(arguments: Sequence[str]) -> int:
    """Mend one member; returns the exit status."""
    parser = argparse.ArgumentParser(prog="etcdtw.server.state_mend", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--wal-dir", type=Path)
    parser.add_argument("snapshot", type=Path)
    options = parser.parse_args(arguments)
    member = options.data_dir / MEMBER
    try:
        built = mend(options.wal_dir or member / LOG, member / STATE, options.snapshot)
    except (MendError, DataDirError, BootstrapError, BboltError, OSError) as error:
        print(f"nothing was changed: {error}", file=sys.stderr)
        return 1
    print(f"the state is that of index {built.index}, revision {built.revision}; start the member")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
