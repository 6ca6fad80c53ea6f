"""Files of snapshots on their way: what a killed member leaves of them, and what room they get.

A received file is not all that a snapshot takes: a whole state is built from it beside the
running one, which must be able to grow meanwhile, like the log.  Knows no Raft and no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.disk.room import free_octets
from etcdtw.storage.disk.words import disk_words, size_words

EXPORTED: Final = ".out.db"
RECEIVED: Final = ".snap.db"
PART: Final = ".part"
RECEPTION_SHARE: Final = 4
"""One part in so many of what is free may be taken by files that are received, all together: the
state that is built from one is up to twice as large, and one part is left for what runs."""


def remove_leftovers(folder: Path) -> None:
    """Delete what a member that was killed was sending or receiving.

    Only while no other process uses ``folder``.  Raises `DataDirError`.
    """
    try:
        for suffix in (EXPORTED, RECEIVED, PART):
            for left in folder.glob("*" + suffix):
                left.unlink()
    except OSError as error:
        raise DataDirError(f"cannot clear {folder}: {disk_words(error, folder)}") from error


class ReceptionRoom:
    """How much all files that are being received may take together."""

    def __init__(self, folder: Path, free: Callable[[Path], int] = free_octets) -> None:
        self._folder = folder
        self._free = free
        self.held = 0
        """Octets of files that grow."""
        self.refused_total = 0

    def take(self, octets: int) -> str:
        """Count ``octets`` more; return an empty text, or why they are refused.

        What was taken already is no longer free: the share is one of both.
        """
        try:
            free = self._free(self._folder)
        except OSError as error:
            return disk_words(error, self._folder)
        bound = (free + self.held) // RECEPTION_SHARE
        if self.held + octets > bound:
            self.refused_total += 1
            return (
                f"no space left on device: snapshots may take {size_words(bound)}, a quarter of "
                f"what is free at {self._folder}"
            )
        self.held += octets
        return ""

    def give_back(self, octets: int) -> None:
        """These octets are no longer of a file that grows."""
        self.held -= octets
