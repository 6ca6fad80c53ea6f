"""Whose a data directory is, said to real etcd, and that a member has run, said to its next start.

Real etcd that finds none of its own logs in a directory makes one, and deletes what is in the
place: a *guard*, a file where it wants a folder or a folder where it wants a file, makes every
version of it fail before it writes.
A *mark*, beside the log and beside the state, is laid when both were there together; from then
on one without the other is a loss, and no new member.  Knows the names of files, and no LMDB.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Final, NamedTuple

from twisted.logger import Logger

from etcdtw.storage.disk.directory import (
    DATA_FILE,
    META_SIZE,
    DataDirError,
    sync_directory,
)
from etcdtw.storage.disk.words import disk_words
from etcdtw.storage.log.journal import SEGMENT_FILES

ETCD_SNAPSHOTS: Final = "snap"
"""The folder, in that of the member, that real etcd makes or opens first of all: a file here."""
ETCD_LOG: Final = "0000000000000000-0000000000000000.wal"
"""The file that real etcd reads first in the folder of its log: a folder here."""
GUARD_TEXT: Final = (
    b"This is a data directory of etcdtw.  Real etcd wants a folder in the place of this file,\n"
    b"and fails: without the file it would delete the log beside it and serve an empty store.\n"
)
MARK_FILE: Final = "etcdtw-has-run"
ADVICE: Final = (
    "put back what is missing (is a disk not mounted?), or remove this member from its cluster "
    "and all of its directories, and let it join again"
)

log = Logger()


class Mark(NamedTuple):
    """What a mark says; empty where it cannot be read."""

    member: str
    cluster: str
    log: str
    """Where the log was."""


def guard_member(member: Path) -> None:
    """Keep real etcd from taking the member's folder for a new one's.  Raises `DataDirError`.

    A program of ours that knows no guards does not mind the file: it opens the log before.
    """
    path = member / ETCD_SNAPSHOTS
    try:
        if path.is_file():
            return
        if path.is_dir():
            path.rmdir()  # of an earlier format; what it held was cleared away
        _write_durably(path, GUARD_TEXT)
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            log.warn(
                "{path} holds what etcdtw has not put there: while it does, nothing keeps real "
                "etcd from deleting this member's log; move it elsewhere",
                path=str(path),
            )
            return
        raise DataDirError(f"cannot write {path}: {disk_words(error, member)}") from error


def guard_log(log_path: Path) -> None:
    """Keep real etcd from taking the folder of our log for its own.  Raises `DataDirError`."""
    path = log_path / ETCD_LOG
    try:
        if not path.is_dir():
            path.mkdir(mode=0o700)
            sync_directory(log_path)
    except OSError as error:
        raise DataDirError(f"cannot write {path}: {disk_words(error, log_path)}") from error


def is_guard(path: Path) -> bool:
    """Whether ``path``, which is named like a log of real etcd, was made by `guard_log`."""
    return path.name == ETCD_LOG and path.is_dir()


def read_mark(folder: Path) -> Mark | None:
    """Return the mark in ``folder``; None: there is none.  Raises `DataDirError`."""
    try:
        octets = (folder / MARK_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataDirError(f"cannot read {folder}: {disk_words(error, folder)}") from error
    try:
        found = json.loads(octets)
        return Mark(*(str(found[name]) for name in Mark._fields))
    except (ValueError, KeyError, TypeError):
        return Mark("", "", "")  # it says enough by being there


def lay_mark(folder: Path, mark: Mark) -> None:
    """Let ``folder`` say that a member has run, durably.  Raises `DataDirError`."""
    if read_mark(folder) == mark:
        return
    file = folder / MARK_FILE
    try:
        _write_durably(file, json.dumps(mark._asdict()).encode() + b"\n")
    except OSError as error:
        raise DataDirError(f"cannot write {file}: {disk_words(error, folder)}") from error


def _write_durably(file: Path, content: bytes) -> None:
    """Let ``file`` be there with ``content``, wholly or not at all.  Raises `OSError`."""
    new = file.with_name(file.name + ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    fd = os.open(new, flags, 0o600)
    try:
        os.write(fd, content)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(new, file)
    sync_directory(file.parent)


def check_presence(member: Path, log: Path, state: Path) -> None:
    """Refuse a member that has run and lacks its log or its state; changes nothing.

    ``member`` is the folder of the member, where its mark lies.  Raises `DataDirError`.
    """
    mark = read_mark(member)
    log_mark = read_mark(log)
    has_log, has_state = _is_begun(log / DATA_FILE), _is_begun(state / DATA_FILE)
    if not has_log and (mark or log_mark or has_state or _has_journal(log)):
        was = f"; it was in {mark.log}" if mark and mark.log not in ("", str(log)) else ""
        raise DataDirError(
            f"this member has run, but its log is missing: {log / DATA_FILE} holds nothing"
            f"{was} (--wal-dir); {ADVICE}"
        )
    if not has_state and (mark or log_mark):
        raise DataDirError(
            f"this member has run, but its state is missing: {state / DATA_FILE} holds nothing; "
            f"{ADVICE}"
        )
    if mark and log_mark and "" not in (mark.member, log_mark.member) and mark[:2] != log_mark[:2]:
        raise DataDirError(
            f"the log in {log} is of member {log_mark.member} of cluster {log_mark.cluster}, but "
            f"{member} is of member {mark.member} of cluster {mark.cluster}: give the directories "
            "of one member (--data-dir, --wal-dir)"
        )


def refuse_empty_log(member: Path, log: Path) -> None:
    """Refuse to make a new member of one that has run: its log is there, but says nothing."""
    if read_mark(member) or read_mark(log):
        raise DataDirError(
            f"this member has run, but its log is missing: the one in {log} was never anybody's; "
            f"{ADVICE}"
        )


def _has_journal(log: Path) -> bool:
    """Whether there is a journal; `data.mdb` is made before it."""
    return any((log / name).exists() for name in SEGMENT_FILES)


def _is_begun(file: Path) -> bool:
    """Whether LMDB's file holds anything: a crash in its creation leaves zeros at the most."""
    try:
        with file.open("rb") as stream:
            return any(stream.read(META_SIZE + 1))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise DataDirError(f"cannot read {file}: {disk_words(error, file.parent)}") from error
