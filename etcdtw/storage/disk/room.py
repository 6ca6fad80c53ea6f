"""How much room the log and the state have, and a reserve that nobody else can take.

A data file of LMDB grows at its end.  Where the disk is not roomy, blocks behind that end are
allocated ahead without changing the file's length: they are this member's whatever others write.
On a filesystem that cannot do so the free space itself has to do.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Final, NamedTuple, Protocol

from etcdtw.storage.disk.page_format import PAGE

MIB: Final = 1 << 20
PLENTY_BYTES: Final = 1024 * MIB
"""Free space, beside what is pending, with which nothing is reserved and nothing counted."""
BASE_BYTES: Final = 16 * MIB
"""With less than this, beside what is pending, a place is short."""
FLOOR_BYTES: Final = 8 * MIB
"""With less than this, beside what is pending, nothing may be taken in."""
FLOOR_LAST_BYTES: Final = 2 * MIB
"""The same for one who must take entries for the others to go on at all."""
FIRM_LEAST_BYTES: Final = 1 * MIB
"""So much must be there that is no page to be used again: there are filesystems that copy a
block that is written anew."""
STEP_BYTES: Final = 16 * MIB
"""What is allocated ahead beside the base."""
AGAIN_BYTES: Final = 4 * MIB
"""What ends a shortage beside the base."""
LEFT_BYTES: Final = 1 * MIB
"""Free space that is not asked for: allocating the last blocks is slow, and they may be others'."""
TAKEN_FACTOR: Final = 4
"""Octets of entries may need so many times their size in a file until they are committed."""
PAGES_PER_CHANGE: Final = 2
SHORT_WRITE_MAX: Final = 1 * MIB
"""LMDB writes up to so much at once; with less free space a write may end early."""
ANSWER_S: Final = 0.005
"""So long a look waits for the operating system; a hung filesystem does not hold the reactor."""
KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE of fallocate(2)


LOG: Final = "log"
STATE: Final = "state"


class Disk(Protocol):
    """What is asked of the operating system; raises OSError."""

    def free(self, path: Path) -> int:
        """Octets that this user may still take on the disk of ``path``."""
        ...

    def extent(self, path: Path) -> tuple[int, int]:
        """Length of a file, and octets of the disk that are allocated for it."""
        ...

    def allocate(self, path: Path, octets: int) -> None:
        """Allocate that many from the file's start on, and leave its length alone."""
        ...


def free_octets(path: Path) -> int:
    """Return how much this process may still write beside ``path``.  Raises `OSError`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class RealDisk:
    """Implements `Disk` on Linux."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def free(self, path: Path) -> int:
        return free_octets(path)

    def extent(self, path: Path) -> tuple[int, int]:
        found = os.stat(path)
        return found.st_size, found.st_blocks * 512

    def allocate(self, path: Path, octets: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            length = ctypes.c_int64(octets)
            if self._libc.fallocate(fd, KEEP_SIZE, ctypes.c_int64(0), length):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        finally:
            os.close(fd)


class Place(NamedTuple):
    """One data file that must be able to grow."""

    name: str
    file: Path
    need: Callable[[], int]
    """Octets by which the file may grow for what is pending, if it reuses nothing."""
    reusable: Callable[[int], int]
    """Octets of the file that can be used again in rows of so many pages, as far as is known."""


class RoomFound(NamedTuple):
    """What one look found."""

    is_tight: bool
    """Whether what is taken in has to be counted at all."""
    is_short: bool
    is_exhausted: bool
    """Whether nothing at all may be taken in now."""
    spare: int
    """Octets of entries that may be taken in until the next look."""
    where: str
    """The place with the least room, and how much it has, in words."""
    is_log_short: bool = False
    is_log_tight: bool = False
    last: int = 0
    """The same as ``spare`` for one whom the others need, or who takes what they have committed."""


ROOMY: Final = RoomFound(False, False, False, PLENTY_BYTES, "", last=PLENTY_BYTES)


class _Watched:
    """A place and what is known of its reserve."""

    __slots__ = (
        "ahead",
        "can_reserve",
        "free",
        "is_allocating",
        "is_short",
        "measured",
        "place",
        "was_needed",
    )

    def __init__(self, place: Place) -> None:
        self.place = place
        self.can_reserve = True
        self.is_allocating = False
        self.is_short = False
        self.free = 0
        self.ahead = 0
        """Octets that are allocated behind the end of the file."""
        self.measured = (0, 0, 0)
        """What the operating system said last: the file's length, what is allocated, what is
        free; one value, for a thread puts it here."""
        self.was_needed = 0
        """What was pending when it was asked."""


class DiskRoom:
    """Looks at the places, and keeps their reserves.  ``in_thread`` runs what may block."""

    def __init__(
        self,
        places: Sequence[Place],
        disk: Disk,
        in_thread: Callable[[Callable[[], None]], object],
    ) -> None:
        self._row = 1
        self._watched = [_Watched(place) for place in places]
        self._disk = disk
        self._in_thread = in_thread
        self._answered: Event | None = None
        """Set when the thread that measures has ended."""
        self._error: OSError | None = None
        self._has_plenty = False
        self._is_late = False
        """Whether the last look began to measure and had no answer in time."""

    def look(self, largest: int) -> RoomFound:
        """Return how things stand.  Raises OSError when a place cannot be looked at.

        ``largest``: octets of the largest value for which there is to be room.
        Where there was plenty, what the operating system said since the last look counts: that
        does not vanish within a tick, and nobody waits for a thread.  Else a look waits
        `ANSWER_S` at the most, and not at all while an earlier one has no answer yet.  An answer
        that missed one look on a busy machine counts at the next; one that missed more is old.
        """
        self._row = 1 + -(-largest // PAGE)
        had_plenty, self._has_plenty = self._has_plenty, False
        was_late, self._is_late = self._is_late, False
        answered = self._answered
        if answered is None or (answered.is_set() and not had_plenty and not was_late):
            answered = self._begin_measuring()
            answered.wait(ANSWER_S)
            self._is_late = not answered.is_set()
        if not answered.is_set():
            raise TimeoutError(errno.ETIMEDOUT, "the operating system does not answer")
        found = self._judge(was_late)
        if had_plenty:
            self._begin_measuring()
        self._has_plenty = not found.is_tight
        return found

    def _judge(self, is_late: bool) -> RoomFound:
        if self._error is not None:
            raise self._error
        found = ROOMY
        for watched in self._watched:
            found = _worse(found, self._look_at(watched, is_late))
        return found

    def _begin_measuring(self) -> Event:
        answered = self._answered = Event()
        for one in self._watched:
            one.was_needed = one.place.need()
        self._in_thread(self._measure)
        return answered

    def facts(self) -> list[tuple[str, int, int, bool]]:
        """Return name, free octets, reserved octets and shortage of each place, as last seen."""
        return [(one.place.name, one.free, one.ahead, one.is_short) for one in self._watched]

    def _measure(self) -> None:
        answered = self._answered
        assert answered is not None
        try:
            self._error = None
            for one in self._watched:
                self._ask(one)
        except OSError as error:
            self._error = error
        finally:
            answered.set()

    def _ask(self, one: _Watched) -> None:
        file = one.place.file
        one.measured = (*self._disk.extent(file), self._disk.free(file))

    def _look_at(self, one: _Watched, is_late: bool) -> RoomFound:
        place = one.place
        size, allocated, one.free = one.measured
        one.ahead = max(0, allocated - size)
        need = place.need()
        if is_late:
            need += one.was_needed  # which may be committed since, and in no length that is known
        if one.free >= PLENTY_BYTES + need:
            one.is_short = False
            return ROOMY
        again = place.reusable(self._row) // 2  # small rows break up what stands in a row
        wanted = BASE_BYTES + max(0, need - again)
        takeable = max(0, one.free - LEFT_BYTES)
        if one.can_reserve and one.ahead < wanted and takeable and not one.is_allocating:
            self._allocate(one, size + min(wanted + STEP_BYTES, one.ahead + takeable))
            # It may be done already.
            one.ahead = max(0, one.measured[1] - size)
            takeable = max(0, one.measured[2] - LEFT_BYTES)
        bears = again - need
        """What can be written beside what is pending, until the file is to grow."""
        one.is_short = one.ahead + takeable + bears < BASE_BYTES + AGAIN_BYTES * one.is_short
        # What is free and not ours may be gone within a tick.
        firm = one.ahead + (max(0, takeable - STEP_BYTES) if one.can_reserve else takeable)
        spare, last = firm + bears - FLOOR_BYTES, firm + bears - FLOOR_LAST_BYTES
        if firm < FIRM_LEAST_BYTES:
            spare, last = -1, 0
        where = f"the {place.name}'s disk has {one.free / MIB:.0f} MiB free"
        if one.can_reserve:
            where += f" and {one.ahead / MIB:.0f} MiB in reserve"
        where += f" ({place.file.parent})"
        return RoomFound(
            True,
            one.is_short,
            spare < 0,
            max(0, spare // TAKEN_FACTOR),
            where,
            one.is_short and place.name == LOG,
            place.name == LOG,
            max(0, last) // TAKEN_FACTOR,
        )

    def _allocate(self, one: _Watched, octets: int) -> None:
        one.is_allocating = True

        def allocate() -> None:
            try:
                self._disk.allocate(one.place.file, octets)
            except OSError as error:
                # A full disk is seen by the next look; another one cannot do it at all.
                one.can_reserve = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EINTR)
            else:
                with suppress(OSError):  # the next look will tell
                    self._ask(one)
            finally:
                one.is_allocating = False

        self._in_thread(allocate)


def _worse(one: RoomFound, other: RoomFound) -> RoomFound:
    is_worse = (other.is_short, -other.spare) >= (one.is_short, -one.spare)
    return RoomFound(
        one.is_tight or other.is_tight,
        one.is_short or other.is_short,
        one.is_exhausted or other.is_exhausted,
        min(one.spare, other.spare),
        other.where if is_worse else one.where,
        one.is_log_short or other.is_log_short,
        one.is_log_tight or other.is_log_tight,
        min(one.last, other.last),
    )


def state_need(octets: int, changes: int, in_use: int) -> int:
    """Return how much the state's file may grow for changes that are not committed.

    A record is stored twice at the most; a change copies pages, each page once in a commit.
    """
    return 2 * octets + min(changes * PAGES_PER_CHANGE * PAGE, in_use)


def log_need(octets: int) -> int:
    """Return how much the log's file may grow for what only the journal holds."""
    return octets + octets // 4


def no_space_advice(error: str, paths: Sequence[Path], disk: Disk) -> str:
    """Return a reason to stop with how much space there is, if the want of it is the reason."""
    lowered = error.lower()
    is_full = any(os.strerror(n).lower() in lowered for n in (errno.ENOSPC, errno.EDQUOT))
    rooms = []
    for path in paths:
        try:
            free = disk.free(path)
        except OSError as failure:
            rooms.append(f"{path} cannot be looked at: {failure.strerror}")
            continue
        rooms.append(f"{free / MIB:.1f} MiB free at {path}")
        # LMDB calls a write that ended early an input/output error.
        is_full = is_full or (os.strerror(errno.EIO).lower() in lowered and free < SHORT_WRITE_MAX)
    if not is_full:
        return error
    return f"no space left: {', '.join(rooms)}: {error}"
