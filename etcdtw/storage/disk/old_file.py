"""A data file that another one took the place of: given back in steps, once nobody reads it.

Its last user would free all of it at once by closing it: 0.2 s for 600 MiB.  But what maps a
file that shrinks is killed by the next look at it, so each process that reads the state for a
time of its own holds the file (`held`), and a file that is held is left to its last user.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

SHRINK_OCTETS: Final = 8 << 20  # given back in one step


class OldFile:
    """To be made while the file still has its name, and by whoever renames another one over it."""

    def __init__(self, file: Path, step_octets: int = SHRINK_OCTETS) -> None:
        self._step_octets = step_octets
        self._fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)

    def shrink(self) -> bool:
        """Give some of the file back; True: nothing is left to do.

        The member and its writer must have left it, which they tell each other.
        """
        if self._fd < 0:
            return True
        left = 0
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left = max(os.fstat(self._fd).st_size - self._step_octets, 0)
            os.ftruncate(self._fd, left)
        except BlockingIOError:
            pass  # a snapshot is still read from it
        if not left:
            self.close()
        return not left

    def close(self) -> None:
        """Leave the file as it is to its other users."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Keep a data file from being shrunk; to be entered while its name cannot change."""
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)
