"""Log files: appended to, begun anew when a signal says so, rotated as etcd's library does.

    name.log --size_max--> name-2026-01-31T12-00-00.000.log --compresses--> ....log.gz --> removed

Compressing and removing are done in a thread: a file of 100 MB takes seconds.
Source of the names and rules: lumberjack v2, which etcd hands its files to.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, TextIO

from etcdtw.config.log_rotation import LogRotation

GZIP: Final = ".gz"
_STAMP: Final = re.compile(r"-(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3})\Z")
FILE_MODE: Final = 0o600


class FileOutput:
    """Writes lines to the end of a file, each at once.  Raises OSError when it cannot be opened."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._file = self._open()
        self._is_old = False

    def _open(self) -> TextIO:
        return open(self._path, "a", encoding="utf-8")

    def __call__(self, level: str, line: str) -> None:
        if self._is_old:
            self._is_old = False
            self._begin_anew()
        self._file.write(line + "\n")
        self._file.flush()

    def reopen(self) -> None:
        """Write the next line to a file of the same name, the old one having been renamed.

        May be called by a signal's handler, in the middle of a line.
        """
        self._is_old = True

    def _begin_anew(self) -> None:
        with suppress(OSError):
            new = self._open()
            self._file.close()
            self._file = new


class RotatingOutput(FileOutput):
    """A file that is put aside before it would grow beyond its limit.

    A line is never cut: one that is longer than the limit has a file of its own.  What cannot be
    renamed is written on to.  ``unix_s`` tells the time, ``start`` does something in a thread.
    """

    def __init__(
        self,
        path: str,
        rotation: LogRotation,
        *,
        unix_s: Callable[[], float],
        start: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        super().__init__(path)
        self._rotation = rotation
        self._unix_s = unix_s
        self._start = start or _start_thread
        self._tidying = threading.Lock()
        self._size = self._size_now()
        self._start(self.tidy)  # what an earlier process left

    def __call__(self, level: str, line: str) -> None:
        size = len(line.encode("utf-8", "surrogatepass")) + 1
        if self._size and self._size + size > self._rotation.size_max and not self._is_old:
            self._rotate()
        super().__call__(level, line)
        self._size += size

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self._size = self._size_now()

    def _size_now(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    def _rotate(self) -> None:
        self._size = 0  # whatever comes of it: another try after as many octets
        with suppress(OSError):
            os.rename(self._path, self._backup_name())
            self._begin_anew()
            self._start(self.tidy)

    def _backup_name(self) -> str:
        stem, ending = os.path.splitext(self._path)
        now_s = self._unix_s()
        zone = None if self._rotation.is_local_time else UTC
        while True:
            stamp = datetime.fromtimestamp(now_s, zone).strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
            name = f"{stem}-{stamp}{ending}"
            if not os.path.exists(name):
                return name
            now_s += 0.001  # two within a millisecond

    def backups(self) -> list[str]:
        """Return the files that were put aside, the newest first."""
        folder, name = os.path.split(self._path)
        stem, ending = os.path.splitext(name)
        found: list[tuple[str, str]] = []
        for one in os.listdir(folder):
            plain = one.removesuffix(GZIP)
            if not (plain.startswith(stem) and plain.endswith(ending)):
                continue
            stamp = _STAMP.fullmatch(plain[len(stem) : len(plain) - len(ending)])
            if stamp is not None:
                found.append((stamp[1], os.path.join(folder, one)))
        return [path for _, path in sorted(found, reverse=True)]

    def tidy(self) -> None:
        """Remove old files beyond what is kept, compress the others.  Safe in any thread."""
        with self._tidying, suppress(OSError):
            kept = self.backups()
            rotation = self._rotation
            if rotation.backups_max:
                kept, dropped = kept[: rotation.backups_max], kept[rotation.backups_max :]
                _remove(dropped)
            if rotation.age_max_s:
                oldest_s = self._unix_s() - rotation.age_max_s
                dropped = [path for path in kept if os.stat(path).st_mtime < oldest_s]
                _remove(dropped)
                kept = [path for path in kept if path not in dropped]
            if rotation.compresses:
                for path in kept:
                    if not path.endswith(GZIP):
                        _compress(path)


def _start_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="log files", daemon=True).start()


def _remove(paths: list[str]) -> None:
    for path in paths:
        with suppress(OSError):
            os.unlink(path)


def _compress(path: str) -> None:
    """Put a file's compressed form in its place; an unfinished one leaves the file as it is."""
    unfinished = f"{path}{GZIP}.tmp"
    status = os.stat(path)
    try:
        with (
            open(path, "rb") as source,
            open(unfinished, "wb", opener=_private) as raw,
            gzip.GzipFile(fileobj=raw, mode="wb") as target,
        ):
            shutil.copyfileobj(source, target)
        os.chmod(unfinished, status.st_mode & 0o777)
        os.utime(unfinished, (status.st_atime, status.st_mtime))  # its age is that of its lines
        os.rename(unfinished, f"{path}{GZIP}")
    except OSError:
        _remove([unfinished])
        raise
    os.unlink(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, FILE_MODE)
