"""The journal at the start: take over what LMDB has not yet, then begin a fresh epoch.

Everything here is done again without harm when a crash interrupts it: records go into LMDB in one
transaction together with the number of the last one, and the files themselves are only read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import lmdb

from etcdtw.storage.directory import DataDirError
from etcdtw.storage.journal import (
    SEGMENT_FILES,
    SEGMENT_SIZE,
    Journal,
    create_segments,
    open_segments,
)
from etcdtw.storage.journal_codec import (
    PAGE,
    SALT_SIZE,
    decode_head,
    decode_job,
    decode_settled,
    encode_settled,
)
from etcdtw.storage.log_codec import (
    BATCH_PREFIX,
    FORMAT,
    KEY_COMPACTED,
    KEY_FORMAT,
    KEY_JOURNAL,
    CorruptionError,
    batch_previous,
    decode_batch,
    decode_mark,
    index_of_key,
)
from etcdtw.storage.log_writer import MAP_SIZE_MAX, LogJob, perform

ADVICE: Final = (
    "put the files back as they were, or remove this member's data directory and let it join "
    "again, or restore a snapshot"
)


class Found(NamedTuple):
    """A whole record of the wanted epoch."""

    sequence: int
    octets: bytes
    at: int
    end: int


def recover(env: lmdb.Environment, path: Path, map_size: int) -> int:
    """Bring into LMDB what only the journal holds; return how many records that were.

    Raises `DataDirError` when the journal is missing or damaged in a way no crash explains.
    """
    try:
        with env.begin() as txn:
            value = txn.get(KEY_JOURNAL)
        if value is None:
            return 0
        epoch, salt, settled = decode_settled(value)
        found = _scan(_read_segments(path), epoch, salt)
        jobs = _continue(found, settled)
        if jobs:
            note = encode_settled(epoch, salt, settled + len(jobs))
            commit(env, map_size, lambda txn: _replay(txn, jobs, note))
    except CorruptionError as error:
        raise DataDirError(f"the journal in {path} is damaged: {error}; {ADVICE}") from error
    except (lmdb.Error, OSError) as error:
        raise DataDirError(
            f"the journal in {path} cannot be taken over: {error}; check the disk and its free "
            "space, then start again: nothing is lost"
        ) from error
    return len(jobs)


def begin_journal(
    env: lmdb.Environment,
    path: Path,
    map_size: int,
    salt: bytes,
    segment_size: int = SEGMENT_SIZE,
) -> Journal:
    """Open the journal of a recovered log, or create it, and begin an epoch of its own.

    ``salt`` is `SALT_SIZE` octets that nobody can guess: they keep a value that a client wrote
    from passing for a record.  Raises `DataDirError`.
    """
    assert len(salt) == SALT_SIZE
    fds: list[int] = []
    try:
        with env.begin() as txn:
            value = txn.get(KEY_JOURNAL)
        epoch = 0
        if value is None:
            create_segments(path, segment_size)
        else:
            epoch = decode_settled(value)[0]
        fds = open_segments(path)
        size = min(os.fstat(fd).st_size for fd in fds) // PAGE * PAGE
        note = encode_settled(epoch + 1, salt, 0)
        commit(env, map_size, lambda txn: _begin(txn, note))
    except (CorruptionError, lmdb.Error, OSError) as error:
        for fd in fds:
            os.close(fd)
        raise DataDirError(
            f"the journal in {path} cannot be used: {error}; check the disk and its free space"
        ) from error
    return Journal(fds, size, epoch + 1, salt)


def commit(env: lmdb.Environment, map_size: int, change: Callable[[Any], None]) -> None:
    """Commit ``change``, with a larger map when need be.  Only while nothing else runs."""
    while True:
        try:
            with env.begin(write=True) as txn:
                change(txn)
        except lmdb.MapFullError:
            map_size = max(map_size, env.info()["map_size"]) * 2
            if map_size > MAP_SIZE_MAX:
                raise
            env.set_mapsize(map_size)
        else:
            return


def _begin(txn: Any, note: bytes) -> None:
    txn.put(KEY_FORMAT, FORMAT)
    txn.put(KEY_JOURNAL, note)


def _read_segments(path: Path) -> list[bytes]:
    contents: list[bytes] = []
    for name in SEGMENT_FILES:
        try:
            content = (path / name).read_bytes()
        except FileNotFoundError:
            raise CorruptionError(f"{name} is missing") from None
        if not content or len(content) % PAGE:
            raise CorruptionError(f"{name} is truncated: {len(content)} octets")
        contents.append(content)
    return contents


def _scan(segments: list[bytes], epoch: int, salt: bytes) -> list[Found]:
    """Return every whole record of the epoch, by sequence number.

    The salt is compared because between records of this lap lie pages of earlier ones, and a
    page within such a record may hold anything that a client wrote.
    """
    found: list[Found] = []
    for octets in segments:
        at = 0
        while at < len(octets):
            head = decode_head(octets, at)
            if head is not None and at == 0 and head[0] > epoch:
                # No payload ever lies at the head of a segment: this is a record.
                raise CorruptionError("it is newer than the log beside it")
            if head is None or head[0] != epoch or head[1] != salt:
                at += PAGE
                continue
            found.append(Found(head[2], octets, at, head[3]))
            at = -(-head[3] // PAGE) * PAGE
    found.sort(key=lambda record: record.sequence)
    return found


def _continue(found: list[Found], settled: int) -> list[LogJob]:
    """Return the jobs behind record ``settled``, without a gap.

    Records are written one after the other, each flushed before the next: only the last can be
    torn.  One that is missing before a whole one was damaged later.
    """
    jobs: list[LogJob] = []
    for sequence, octets, at, end in found:
        if sequence <= settled:
            continue
        if sequence != settled + len(jobs) + 1:
            raise CorruptionError(
                f"record {settled + len(jobs) + 1} is damaged, but record {sequence} is whole"
            )
        jobs.append(decode_job(octets, at, end))
    return jobs


def _replay(txn: Any, jobs: list[LogJob], note: bytes) -> None:
    """Carry the jobs out, each batch only where it continues the log."""
    index, crc = _end_of(txn)
    for job in jobs:
        previous = batch_previous(job.batch) if job.batch_first else 0
        perform(txn, job)
        if not job.batch_first:
            if job.keep_below:  # a snapshot took the place of the log
                index, crc = _end_of(txn)
            continue
        if job.keep_below:
            index, crc = _end_before(txn, job.batch_first)
        if job.batch_first != index + 1 or previous != crc:
            raise CorruptionError(f"entry {job.batch_first} does not continue the log")
        entries, crcs = decode_batch(job.batch_first, job.batch)
        index, crc = entries[-1].index, crcs[-1]
    txn.put(KEY_JOURNAL, note)


def _end_of(txn: Any) -> tuple[int, int]:
    """Return the index and the CRC of the log's last entry."""
    return _end_before(txn, 1 << 64)


def _end_before(txn: Any, below: int) -> tuple[int, int]:
    """Return the index and the CRC of the last batch that begins before ``below``."""
    mark_index, _, mark_crc = decode_mark(txn.get(KEY_COMPACTED))
    cursor = txn.cursor()
    is_placed = cursor.last()
    while is_placed and cursor.key()[:1] == BATCH_PREFIX:
        first = index_of_key(bytes(cursor.key()))
        if first < below:
            entries, crcs = decode_batch(first, bytes(cursor.value()))
            if entries[-1].index > mark_index:
                return entries[-1].index, crcs[-1]
            break
        is_placed = cursor.prev()
    return mark_index, mark_crc
