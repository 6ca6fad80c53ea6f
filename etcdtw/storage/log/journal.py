"""The journal's files: two preallocated segments, written in turn, one flush a record.

A segment is written over only when LMDB has confirmed every record in it.  The files are full of
zeros from the start, and neither grow nor move: a flush carries data and no metadata.  Knows
neither what records hold nor who settles them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from etcdtw.storage.disk.directory import sync_directory
from etcdtw.storage.log.journal_codec import PAGE

SEGMENT_FILES: Final = ("journal.0", "journal.1")
SEGMENT_SIZE: Final = 16 << 20  # octets; a second or more of full load
ZEROS_SIZE: Final = 1 << 20  # octets written at a time while preallocating


def create_segments(path: Path, segment_size: int) -> None:
    """Write both files full of zeros and make them and their names durable.

    Those of an earlier format, or that a crash left, are written over where they are: that needs
    no room on a full disk.  Raises `OSError`.
    """
    assert segment_size % PAGE == 0
    for name in SEGMENT_FILES:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path / name, flags, 0o600)
        try:
            for start in range(0, segment_size, ZEROS_SIZE):
                write_at(fd, bytes(min(ZEROS_SIZE, segment_size - start)), start)
            if os.fstat(fd).st_size > segment_size:
                os.ftruncate(fd, segment_size)
            os.fsync(fd)
        finally:
            os.close(fd)
    sync_directory(path)


def open_segments(path: Path) -> list[int]:
    """Open both files so that every write is durable when it returns.  Raises `OSError`.

    O_DSYNC: one call where write and fdatasync would be two, each giving up the interpreter.
    """
    fds: list[int] = []
    try:
        for name in SEGMENT_FILES:
            flags = os.O_WRONLY | os.O_DSYNC | os.O_CLOEXEC | os.O_NOFOLLOW
            fds.append(os.open(path / name, flags))
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    return fds


def write_at(
    fd: int, octets: bytes, offset: int, pwrite: Callable[[int, bytes, int], int] = os.pwrite
) -> None:
    """Write all of ``octets`` at ``offset``, however many calls it takes.  Raises `OSError`."""
    written = pwrite(fd, octets, offset)
    while written < len(octets):
        step = pwrite(fd, octets[written:], offset + written)
        if step <= 0:
            raise OSError(f"only {written} of {len(octets)} octets could be written")
        written += step


class Journal:
    """Where the next record goes.  One for each log, in one epoch.

    Invariants: sequence numbers ascend by one in the order of placing; a segment that holds a
    record above ``settled`` is never begun anew.
    """

    def __init__(self, fds: list[int], segment_size: int, epoch: int, salt: bytes) -> None:
        """Take over ``fds``; nothing that the files hold is of this epoch."""
        self.epoch = epoch
        self.salt = salt
        self.sequence = 0
        """The newest record's."""
        self.settled = 0
        self._fds = fds
        self._segment_size = segment_size
        self._segment = 0
        self._offset = 0
        self._last = [0, 0]  # the newest sequence number in each segment

    def has_room(self, size: int) -> bool:
        """Whether a record of ``size`` octets can be placed now."""
        if self._offset + size <= self._segment_size:
            return True
        return size <= self._segment_size and self._last[1 - self._segment] <= self.settled

    def place(self, size: int) -> tuple[int, int]:
        """Give the next record its number and return where it goes: descriptor and offset."""
        if self._offset + size > self._segment_size:
            self._segment = 1 - self._segment
            assert self._last[self._segment] <= self.settled, "a segment still needed"
            self._offset = 0
        offset = self._offset
        self._offset = offset + size
        self.sequence += 1
        self._last[self._segment] = self.sequence
        return self._fds[self._segment], offset

    def settle(self, sequence: int) -> None:
        """Records up to ``sequence`` are in LMDB and may be written over."""
        self.settled = sequence

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []
