"""The data directory: who may open it, how it is created, and what is said when it is unfit.

Every LMDB environment of the product is opened through here: directories 0700, files 0600, one
process at a time, no remote filesystem.  Knows nothing of what the environments hold.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import error as StructError  # noqa: N812 - the name says nothing alone
from typing import Final

import lmdb

from etcdtw.storage.disk.file_extent import used_size
from etcdtw.storage.disk.words import disk_words, is_outside_cause

LOCK_FILE: Final = "owner.lock"
DATA_FILE: Final = "data.mdb"
LOCK_RETRY_S: Final = 0.05
META_SIZE: Final = 8192  # octets of LMDB's two meta pages
LMDB_LOCK_FILE: Final = "lock.mdb"
LMDB_LOCK_SIZE: Final = 8192  # octets, with LMDB's own number of readers

# Filesystems on which neither file locks nor shared mappings can be trusted.
REMOTE_FILESYSTEMS: Final = frozenset(
    (
        "nfs", "nfs3", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda",
        "9p", "virtiofs", "ceph", "glusterfs", "lustre", "gfs2", "ocfs2", "fuse.sshfs",
        "fuse.s3fs", "fuse.glusterfs", "fuse.ceph", "fuse.davfs",
    )
)  # fmt: skip


class DataDirError(Exception):
    """The data directory cannot be used.  The text says what is wrong and what to do."""


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def prepare_directory(path: Path, sync: Callable[[Path], None] = sync_directory) -> None:
    """Create ``path`` (0700, parents too) and make its name durable; refuse a loose one.

    Also of one that is there: a start that was killed may have left it without.
    """
    try:
        missing = [p for p in (path, *path.parents) if not p.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700)
            sync(folder.parent)
        if not missing and os.access(path.parent, os.R_OK):
            sync(path.parent)
        mode = path.stat().st_mode & 0o777
    except OSError as error:
        raise DataDirError(
            f"cannot create {path}: {disk_words(error, path)}; create it, owned by this user, "
            "mode 0700"
        ) from error
    if mode & 0o077:
        raise DataDirError(f"{path} is open to others (mode {mode:04o}); run: chmod 0700 {path}")


@contextmanager
def names_held(path: Path, is_changing: bool) -> Iterator[None]:
    """Keep the files in ``path`` from being renamed meanwhile, or rename them alone.

    A data file and its lock file are opened together: one that is opened by another process
    between two renames would get two that do not belong together.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX if is_changing else fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def filesystem_of(path: Path, mountinfo: str = "/proc/self/mountinfo") -> str:
    """Return the type of the filesystem that holds ``path``; empty when it cannot be told."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path(mountinfo).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        # proc(5): id parent major:minor root mount options [tags] - type source options
        left, _, right = line.partition(" - ")
        if left.split()[2:3] == [wanted] and right:
            return right.split()[0]
    return ""


def refuse_remote(path: Path, mountinfo: str = "/proc/self/mountinfo") -> None:
    """Raise `DataDirError` when ``path`` lies on a remote filesystem."""
    kind = filesystem_of(path, mountinfo)
    if kind in REMOTE_FILESYSTEMS:
        raise DataDirError(
            f"{path} is on a remote filesystem ({kind}), where locks and mappings cannot be "
            "trusted; use a local disk, or allow remote filesystems explicitly"
        )


def lock_directory(path: Path, wait_s: float = 0.0) -> int:
    """Take the directory for this process and return the descriptor that holds it.

    The lock lasts until the last copy of the descriptor is closed; a child that inherited it
    keeps its parent's successor out.  Waits up to ``wait_s`` for such a child to end.
    """
    try:
        fd = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirError(f"cannot write in {path}: {disk_words(error, path)}") from error
    for _ in range(max(1, int(wait_s / LOCK_RETRY_S))):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait_s:
                time.sleep(LOCK_RETRY_S)
        except OSError as error:
            os.close(fd)
            raise DataDirError(f"cannot lock {path}: {disk_words(error, path)}") from error
        else:
            return fd
    os.close(fd)
    raise DataDirError(
        f"{path} is in use by another process; stop it first, or choose another data directory"
    )


def open_environment(
    path: Path,
    map_size: int,
    databases_max: int,
    readonly: bool = False,
    sync: Callable[[Path], None] = sync_directory,
) -> lmdb.Environment:
    """Open the LMDB environment in ``path`` in fully synced mode.

    Raises `DataDirError` when the files are not LMDB's, damaged, of another version or
    unreadable.  No flag that weakens durability exists here on purpose.
    """
    file = path / DATA_FILE
    is_new = not _is_begun(file)
    if not is_new:
        _check_file(file)
    try:
        if not readonly:
            _allocate_lock_file(path / LMDB_LOCK_FILE)
        env = lmdb.open(
            str(path),
            map_size=map_size,
            max_dbs=databases_max,
            max_spare_txns=4,
            mode=0o600,
            readonly=readonly,
            create=not readonly,
            lib_version=0,
        )
        env.reader_check()
    except (lmdb.Error, OSError) as error:
        raise DataDirError(
            f"{file} cannot be opened: {disk_words(error, file)}; {_advice(error)}"
        ) from error
    if not readonly:
        sync(path)  # not only of a new one: who made it may have been killed just then
    return env


def _allocate_lock_file(file: Path) -> None:
    """Give LMDB's lock file the blocks it needs.  Raises `OSError`.

    LMDB makes it sparse and maps it: on a full disk its first write would end the process with
    SIGBUS, which says nothing to anybody.
    """
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, 0, LMDB_LOCK_SIZE)
    finally:
        os.close(fd)


def _advice(error: Exception) -> str:
    if is_outside_cause(error):
        return "nothing is damaged: mend this and start again"
    return (
        "if it is damaged, remove this member's data directory and let it join again, or restore "
        "a snapshot"
    )


def _is_begun(file: Path) -> bool:
    """Whether the file holds anything; one that a crash left empty is removed."""
    try:
        with file.open("rb") as stream:
            head = stream.read(META_SIZE + 1)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise DataDirError(f"cannot read {file}: {disk_words(error, file)}") from error
    if len(head) <= META_SIZE and not any(head):
        file.unlink()
        return False
    return True


def _check_file(file: Path) -> None:
    """Look at the two meta pages before LMDB maps the file: it may crash on a foreign one."""
    try:
        with file.open("rb") as stream:
            head = stream.read(META_SIZE)
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise DataDirError(f"cannot read {file}: {disk_words(error, file)}") from error
    # LMDB 0.9 file format: page header of 16 octets, then magic and data version.
    magic = [int.from_bytes(head[at : at + 4], "little") for at in (16, 4096 + 16)]
    version = [int.from_bytes(head[at : at + 4], "little") for at in (20, 4096 + 20)]
    if size < META_SIZE or magic != [0xBEEFC0DE, 0xBEEFC0DE]:
        raise DataDirError(
            f"{file} is not an LMDB file, or its head is damaged; restore this member from a "
            "snapshot or remove its data directory and let it join again"
        )
    if version != [1, 1]:
        raise DataDirError(
            f"{file} has LMDB data version {max(version)}, this program reads version 1; "
            "use the program that wrote it"
        )
    # Each meta page: last used page number at offset 16 + 24 + 2 * 48; the file must reach it.
    last = [int.from_bytes(head[at + 136 : at + 144], "little") for at in (0, 4096)]
    txnid = [int.from_bytes(head[at + 144 : at + 152], "little") for at in (0, 4096)]
    newest = 0 if txnid[0] > txnid[1] else 1
    needed = (last[newest] + 1) * 4096
    if size < needed:
        _check_short_file(file, head[newest * 4096 :], size, needed)


def _check_short_file(file: Path, meta: bytes, size: int, needed: int) -> None:
    """Refuse a file that lost its end; one that only lacks free pages is made long enough."""
    try:
        with file.open("rb") as stream:
            is_whole = used_size(stream, meta) <= size
    except (OSError, ValueError, StructError):
        is_whole = False
    if not is_whole:
        raise DataDirError(
            f"{file} is truncated: {size} octets where {needed} are needed; "
            "restore this member from a snapshot or remove its data directory and let it join"
        )
    os.truncate(file, needed)


def check_format(found: bytes | None, wanted: bytes, is_empty: bool, path: Path) -> None:
    """Compare a format marker, ``name version``, with the one this program writes."""
    if found == wanted or (found is None and is_empty):
        return
    name, _, version = (found or b"").partition(b" ")
    ours, _, our_version = wanted.partition(b" ")
    if found is None or name != ours or not version.isdigit():
        raise DataDirError(
            f"{path} holds an LMDB environment that is not {ours.decode()}; point at the right "
            "directory or remove it"
        )
    raise DataDirError(
        f"{path} has format {version.decode()}, this program reads format "
        f"{our_version.decode()}; use the version of etcdtw that wrote it"
    )
