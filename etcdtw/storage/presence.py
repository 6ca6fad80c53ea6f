"""Whose a data directory is, said to real etcd, and that a member has run, said to its next start.

Real etcd that finds none of its own logs in a directory makes one, and deletes what is in the
place: a *guard*, a name that every version of it fails to open before it writes, keeps it away.
A *mark*, beside the log and beside the state, is laid when both were there together; from then
on one without the other is a loss, and no new member.  Knows the names of files, and no LMDB.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from twisted.logger import Logger

from etcdtw.storage.directory import (
    DATA_FILE,
    META_SIZE,
    DataDirError,
    prepare_directory,
    sync_directory,
)
from etcdtw.storage.disk_words import disk_words
from etcdtw.storage.journal import SEGMENT_FILES

ETCD_DATABASE: Final = "db"
"""What real etcd opens first of all, in its folder of snapshots."""
ETCD_LOG: Final = "0000000000000000-0000000000000000.wal"
"""What real etcd opens in the folder of its log, if that alone is ours."""
GUARD_TARGET: Final = "etcdtw-holds-its-data-here/real-etcd-must-not-be-started-on-it"
"""Nothing is there, so that neither an open nor a creation succeeds.  A program of ours that
knows no guards does not take it for etcd's file either: nothing exists under the name."""
MARK_FILE: Final = "etcdtw-has-run"
_NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
"""A filesystem without symbolic links; EACCES and EROFS are other errors."""
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


def guard_against_etcd(path: Path, symlink: Callable[[str, Path], None] = os.symlink) -> None:
    """Lay a guard at ``path``, durably.  Raises `DataDirError`."""
    try:
        if os.path.lexists(path):
            return
        prepare_directory(path.parent)
        symlink(GUARD_TARGET, path)
        sync_directory(path.parent)
    except OSError as error:
        if error.errno in _NO_LINKS:
            log.warn("{path} cannot be a link here: nothing keeps real etcd away", path=str(path))
            return
        raise DataDirError(f"cannot write {path}: {disk_words(error, path.parent)}") from error


def is_guard(path: Path) -> bool:
    """Whether what has this name was laid by `guard_against_etcd`."""
    return path.is_symlink() and os.readlink(path) == GUARD_TARGET


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
    file, new = folder / MARK_FILE, folder / (MARK_FILE + ".new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        fd = os.open(new, flags, 0o600)
        try:
            os.write(fd, json.dumps(mark._asdict()).encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(new, file)
        sync_directory(folder)
    except OSError as error:
        raise DataDirError(f"cannot write {file}: {disk_words(error, folder)}") from error


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
