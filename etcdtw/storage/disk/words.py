"""What an error of the disk means to an operator: how much room there is, whose the place is.

Knows neither what was to be done nor what follows from it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_DENIED: Final = (errno.EACCES, errno.EPERM)
_KNOWN: Final = (*_FULL, *_DENIED, errno.EROFS, errno.EMFILE, errno.ENFILE)
_UNITS: Final = ("octets", "KiB", "MiB", "GiB", "TiB", "PiB")


def disk_words(error: Exception, path: Path) -> str:
    """Return what ``error``, met at ``path``, says; never raises.

    LMDB's errors have no number, but the system's text for it.
    """
    number = errno_of(error)
    if number in _FULL:
        return f"no space left on the device ({_room(path)})"
    if number in _DENIED:
        return f"permission denied ({_owner(path)})"
    if number == errno.EROFS:
        return f"the filesystem of {path} is mounted read-only"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


def errno_of(error: Exception) -> int:
    """Return the number of a system error that is told apart here; 0: it is another."""
    if isinstance(error, OSError):
        return error.errno or 0
    text = str(error)
    return next((number for number in _KNOWN if os.strerror(number) in text), 0)


def is_full(error: Exception) -> bool:
    """Whether the disk, or what of it this user may take, has no room."""
    return errno_of(error) in _FULL


def is_outside_cause(error: Exception) -> bool:
    """Whether the disk lacks room or rights: then nothing is damaged."""
    return errno_of(error) in _KNOWN


def _room(path: Path) -> str:
    try:
        found = os.statvfs(_existing(path))
    except OSError:
        return "how much is free cannot be told"
    if found.f_files and not found.f_favail:
        return f"no inodes are left on the filesystem of {path}"
    free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    return f"{size_words(free)} of {size_words(size)} are free at {path}"


def size_words(octets: int) -> str:
    """Return a size as people read it: ``12.5 MiB``."""
    size, unit = float(octets), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if not unit else f"{size:.1f} {_UNITS[unit]}"


def _owner(path: Path) -> str:
    try:
        place = _existing(path)
        found = place.stat()
    except OSError:
        return f"this process runs as user {os.geteuid()}"
    return (
        f"this process runs as user {os.geteuid()}; {place} belongs to user {found.st_uid}, "
        f"mode {found.st_mode & 0o7777:04o}"
    )


def _existing(path: Path) -> Path:
    """Return ``path``, or the nearest folder above it that can be looked at."""
    for place in (path, *path.parents):
        try:
            place.stat()
        except OSError:
            continue
        return place
    return path
