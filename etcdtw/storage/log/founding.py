"""The first write to a log: who the member is and what it begins with, all or nothing.

Before anything else touches the log.  Knows not what an identity says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lmdb

from etcdtw.raft.entry import Entry, HardState
from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.disk.words import disk_words
from etcdtw.storage.log.codec import (
    KEY_COMPACTED,
    KEY_HARD_STATE,
    KEY_IDENTITY,
    CorruptionError,
    batch_key,
    decode_hard_state,
    decode_small,
    encode_batch,
    encode_hard_state,
    encode_small,
)
from etcdtw.storage.log.journal_open import commit
from etcdtw.storage.log.writer import LogJob, perform


def stored_identity(env: lmdb.Environment) -> bytes | None:
    """Return the octets given to `found_log`; None: this log was never founded.

    A member that joins begins with a hard state alone: it may vote before its first entry, and
    must know of it after a restart.  Raises `DataDirError` when something is damaged, or when
    either half is there without the other.
    """
    with env.begin() as txn:
        value = txn.get(KEY_IDENTITY)
        hard_state = txn.get(KEY_HARD_STATE)
        # A compacted log may hold no batch, but the mark that stands for all of them.
        has_entries = txn.get(KEY_COMPACTED) is not None or txn.cursor().set_range(batch_key(0))
    if value is None:
        if has_entries or hard_state is not None:
            raise DataDirError(
                f"{env.path()} holds entries or a vote, but not whose they are; restore this member"
            )
        return None
    if not has_entries and hard_state is None:
        raise DataDirError(
            f"{env.path()} says whose log it is, but holds neither entries nor a vote: its first "
            "start was cut off, and nothing was promised; remove this member's data directory "
            "and start again"
        )
    try:
        committed = decode_hard_state(hard_state).commit
        if committed and not has_entries:
            raise DataDirError(
                f"{env.path()} holds no entries, although those up to {committed} are committed; "
                "remove this member from its cluster and add it again, or restore it"
            )
        return decode_small(value, "identity")
    except CorruptionError as error:
        raise DataDirError(f"{env.path()}: {error}; restore this member") from error


def found_log(
    env: lmdb.Environment,
    map_size: int,
    identity: bytes,
    hard_state: HardState,
    entries: Sequence[Entry],
) -> None:
    """Write ``identity`` and the first entries, if any, in one durable transaction.  Once only.

    Raises `DataDirError` when the disk does not take it.
    """
    job = LogJob()
    if entries:
        job.batch, _ = encode_batch(0, entries)
        job.batch_first = entries[0].index
        job.entry_count = len(entries)
    job.hard_state = encode_hard_state(hard_state)

    def change(txn: Any) -> None:
        is_first = txn.put(KEY_IDENTITY, encode_small(identity), overwrite=False)
        assert is_first, "a log is founded once"
        perform(txn, job)

    try:
        commit(env, map_size, change)
    except (lmdb.Error, OSError) as error:
        raise DataDirError(
            f"{env.path()} cannot be written: {disk_words(error, Path(env.path()))}; check the "
            "disk and its free space"
        ) from error
