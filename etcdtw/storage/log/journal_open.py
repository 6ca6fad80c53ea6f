"""The journal at the start: take over what LMDB has not yet, then begin a fresh epoch.

Everything here is done again without harm when a crash interrupts it: records go into LMDB in one
transaction together with the number of the last one, and the files themselves are only read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import lmdb
from twisted.logger import Logger

from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.disk.words import disk_words
from etcdtw.storage.log.codec import (
    BATCH_PREFIX,
    FORMAT,
    FORMATS_BEFORE,
    KEY_COMPACTED,
    KEY_FORMAT,
    KEY_JOURNAL,
    CorruptionError,
    batch_previous,
    decode_batch,
    decode_mark,
    index_of_key,
)
from etcdtw.storage.log.journal import (
    SEGMENT_FILES,
    SEGMENT_SIZE,
    Journal,
    create_segments,
    open_segments,
)
from etcdtw.storage.log.journal_before import read_journal_before
from etcdtw.storage.log.journal_codec import PAGE, SALT_SIZE, decode_settled, encode_settled
from etcdtw.storage.log.journal_scan import read_journal
from etcdtw.storage.log.writer import MAP_SIZE_MAX, LogJob, perform

ADVICE: Final = (
    "put the files back as they were, or remove this member's data directory and let it join "
    "again, or restore a snapshot"
)

log = Logger()


def recover(env: lmdb.Environment, path: Path, map_size: int) -> int:
    """Bring into LMDB what only the journal holds; return how many records that were.

    A last record that a crash cut short is dropped, and said.  Raises `DataDirError` when the
    journal is missing or damaged in a way no crash explains.
    """

    def change(epoch: int, salt: bytes, settled: int) -> int:
        jobs, torn = read_journal(_read_segments(path), epoch, salt, settled)
        if jobs:
            note = encode_settled(epoch, salt, settled + len(jobs))
            commit(env, map_size, lambda txn: _carry_out(txn, jobs, note))
        if torn is not None:
            log.warn(
                "the journal's last record was cut short when the member ended, and is dropped: "
                "{written} of {size} octets of record {sequence} ({count} entries) were there; "
                "nobody was told of it",
                written=torn.written, size=torn.size, sequence=torn.sequence,
                count=torn.entry_count or "no known",
            )  # fmt: skip
        return len(jobs)

    return _taken_over(env, path, change)


def take_over_log(env: lmdb.Environment, path: Path, map_size: int) -> int:
    """Bring a log of an earlier format to this one; return how many records its journal held.

    One transaction: what the journal held, the format's number, and that there is no journal yet.
    `begin_journal` then makes one, over the old files.  Raises `DataDirError`.
    """

    def change(epoch: int, salt: bytes, settled: int) -> int:
        jobs: list[LogJob] = []
        if epoch:
            jobs = read_journal_before(_read_segments(path), epoch, salt, settled)
        commit(env, map_size, lambda txn: _adopt(txn, jobs))
        log.info("the log in {path} was taken over from an earlier format", path=str(path))
        return len(jobs)

    return _taken_over(env, path, change)


def _taken_over(env: lmdb.Environment, path: Path, change: Callable[[int, bytes, int], int]) -> int:
    """Call ``change`` with LMDB's note of the journal; epoch 0: there is none."""
    try:
        with env.begin() as txn:
            value = txn.get(KEY_JOURNAL)
            is_before = txn.get(KEY_FORMAT) in FORMATS_BEFORE
        if value is None and not is_before:
            return 0
        return change(*(decode_settled(value) if value is not None else (0, b"", 0)))
    except CorruptionError as error:
        raise DataDirError(f"the journal in {path} is damaged: {error}; {ADVICE}") from error
    except (lmdb.Error, OSError) as error:
        raise DataDirError(
            f"the journal in {path} cannot be taken over: {disk_words(error, path)}; check the "
            "disk and its free space, then start again: nothing is lost"
        ) from error


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
            f"the journal in {path} cannot be used: {disk_words(error, path)}; check the disk and "
            "its free space"
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


def _carry_out(txn: Any, jobs: list[LogJob], note: bytes) -> None:
    _replay(txn, jobs)
    txn.put(KEY_JOURNAL, note)


def _adopt(txn: Any, jobs: list[LogJob]) -> None:
    _replay(txn, jobs)
    txn.delete(KEY_JOURNAL)
    txn.put(KEY_FORMAT, FORMAT)


def _replay(txn: Any, jobs: list[LogJob]) -> None:
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
