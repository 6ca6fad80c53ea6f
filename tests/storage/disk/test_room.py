"""The room of the log and the state: what is reserved, when it is short, when it is exhausted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from etcdtw.storage.disk.room import (
    AGAIN_BYTES,
    BASE_BYTES,
    FIRM_LEAST_BYTES,
    FLOOR_BYTES,
    FLOOR_LAST_BYTES,
    LEFT_BYTES,
    LOG,
    MIB,
    PLENTY_BYTES,
    STEP_BYTES,
    TAKEN_FACTOR,
    DiskRoom,
    Place,
    RealDisk,
    RoomFound,
    log_need,
    no_space_advice,
    state_need,
)

SIZE = 100 * MIB
LARGEST = 1_572_864
WANTED = BASE_BYTES + STEP_BYTES


class FakeDisk:
    """One disk with one data file; what is allocated for that is no longer free."""

    def __init__(self, free: int) -> None:
        self.free_bytes = free
        self.ahead = 0
        self.size = SIZE
        self.error = 0
        self.measuring_error = 0
        self.unused = 0
        self.asked_for = 0
        self.looks = 0

    def free(self, path: Path) -> int:
        self.looks += 1
        if self.measuring_error:
            raise OSError(self.measuring_error, "no")
        return self.free_bytes

    def extent(self, path: Path) -> tuple[int, int]:
        return self.size, self.size + self.ahead

    def reusable(self, row: int) -> int:
        self.asked_for = row
        return self.unused

    def allocate(self, path: Path, octets: int) -> None:
        if self.error:
            raise OSError(self.error, "no")
        more = octets - self.size - self.ahead
        assert more <= self.free_bytes - LEFT_BYTES, "asked for more than there is"
        self.free_bytes -= more
        self.ahead += more

    def grow(self, octets: int) -> None:
        """Let the file grow into its reserve."""
        self.size += octets
        self.ahead -= octets


class Rig:
    def __init__(self, free: int, *, in_thread: Callable[..., object] = lambda run: run()) -> None:
        self.disk = FakeDisk(free)
        self.need = 0
        self._looks = 0
        place = Place("state", Path("/d/state/data.mdb"), lambda: self.need, self.disk.reusable)
        self.room = DiskRoom([place], self.disk, in_thread)

    @property
    def is_measured(self) -> bool:
        """Whether this look has its answer: what comes in a thread now is no measuring."""
        return self.disk.looks > self._looks

    def look(self) -> None:
        self._looks = self.disk.looks
        self.room.look(LARGEST)


def test_a_roomy_disk_is_left_alone() -> None:
    rig = Rig(PLENTY_BYTES)
    found = rig.room.look(LARGEST)
    assert (found.is_tight, found.is_short, found.is_exhausted) == (False, False, False)
    assert rig.disk.ahead == 0
    rig.need = 1
    assert rig.room.look(LARGEST).is_tight


def test_a_reserve_is_kept_once_the_disk_is_not_roomy() -> None:
    rig = Rig(PLENTY_BYTES - 1)
    assert rig.room.look(LARGEST).is_tight
    assert rig.disk.ahead == WANTED
    rig.disk.grow(STEP_BYTES)
    rig.room.look(LARGEST)
    assert rig.disk.ahead == BASE_BYTES, "it is still what is wanted"
    rig.disk.grow(1)
    rig.room.look(LARGEST)
    assert rig.disk.ahead == WANTED


def test_the_reserve_grows_with_what_is_pending() -> None:
    rig = Rig(PLENTY_BYTES - 1)
    rig.need = 50 * MIB
    rig.room.look(LARGEST)
    assert rig.disk.ahead == WANTED + 50 * MIB


def test_pages_that_can_be_used_again_count_half_against_what_is_pending() -> None:
    rig = Rig(PLENTY_BYTES - 1)
    rig.need, rig.disk.unused = 50 * MIB, 60 * MIB
    rig.room.look(LARGEST)
    assert rig.disk.ahead == WANTED + 20 * MIB


def test_a_place_is_short_when_base_and_pending_cannot_be_had() -> None:
    rig = Rig(LEFT_BYTES + BASE_BYTES)
    assert not rig.room.look(LARGEST).is_short
    rig.need = 1
    assert rig.room.look(LARGEST).is_short
    rig.need = 0
    assert rig.room.look(LARGEST).is_short, "not without a margin"
    rig.disk.free_bytes += AGAIN_BYTES
    found = rig.room.look(LARGEST)
    assert not found.is_short
    assert "the state's disk has" in found.where


def test_what_a_filler_takes_does_not_touch_the_reserve() -> None:
    rig = Rig(PLENTY_BYTES - 1)
    rig.room.look(LARGEST)
    rig.disk.free_bytes = 0
    found = rig.room.look(LARGEST)
    assert (found.is_short, found.is_exhausted) == (False, False)
    assert found.spare == (WANTED - FLOOR_BYTES) // TAKEN_FACTOR
    rig.disk.grow(STEP_BYTES + 1)
    assert rig.room.look(LARGEST).is_short


def test_nothing_may_be_taken_in_below_the_floor() -> None:
    rig = Rig(LEFT_BYTES + FLOOR_BYTES)
    found = rig.room.look(LARGEST)
    assert (found.is_short, found.is_exhausted, found.spare) == (True, False, 0)
    rig.need = 1
    assert rig.room.look(LARGEST).is_exhausted


def test_pages_that_large_values_find_stand_in_for_the_floor_by_half() -> None:
    rig = Rig(LEFT_BYTES + FLOOR_LAST_BYTES)
    rig.disk.unused = 2 * (FLOOR_BYTES - FLOOR_LAST_BYTES)
    found = rig.room.look(LARGEST)
    assert (found.is_short, found.is_exhausted, found.spare) == (True, False, 0)
    rig.disk.unused -= 2
    assert rig.room.look(LARGEST).is_exhausted
    rig.disk.unused = 2 * (BASE_BYTES + AGAIN_BYTES - FLOOR_LAST_BYTES)
    found = rig.room.look(LARGEST)
    assert (found.is_short, found.is_exhausted) == (False, False)


def test_only_pages_in_rows_that_the_largest_value_fits_into_are_asked_for() -> None:
    rig = Rig(LEFT_BYTES)
    rig.room.look(LARGEST)
    assert rig.disk.asked_for == 1 + LARGEST // 4096


def test_where_there_is_plenty_nobody_asks_for_free_pages() -> None:
    rig = Rig(PLENTY_BYTES)
    rig.room.look(LARGEST)
    assert rig.disk.asked_for == 0


def test_some_of_the_reserve_must_be_no_page_that_was_used_before() -> None:
    rig = Rig(LEFT_BYTES + FIRM_LEAST_BYTES)
    rig.disk.unused = 90 * MIB
    assert not rig.room.look(LARGEST).is_exhausted
    rig.disk.grow(1)
    found = rig.room.look(LARGEST)
    assert (found.is_exhausted, found.spare, found.last) == (True, 0, 0)


def test_a_disk_that_cannot_reserve_is_judged_by_what_is_free() -> None:
    rig = Rig(LEFT_BYTES + BASE_BYTES)
    rig.disk.error = errno.EOPNOTSUPP
    rig.room.look(LARGEST)
    found = rig.room.look(LARGEST)
    assert (found.is_short, rig.disk.ahead) == (False, 0)
    assert found.spare == (BASE_BYTES - FLOOR_BYTES) // TAKEN_FACTOR
    rig.disk.free_bytes -= 1
    assert rig.room.look(LARGEST).is_short


def test_a_full_disk_is_asked_again_and_only_once_at_a_time() -> None:
    waiting: list[Callable[[], None]] = []

    def in_thread(run: Callable[[], None]) -> None:
        if rig.is_measured:
            waiting.append(run)
        else:
            run()

    rig = Rig(PLENTY_BYTES - 1, in_thread=in_thread)
    rig.look()
    rig.look()
    assert len(waiting) == 1
    rig.disk.error = errno.ENOSPC
    waiting.pop()()
    rig.disk.error = 0
    rig.look()
    waiting.pop()()
    assert rig.disk.ahead == WANTED


def test_where_there_was_plenty_a_look_takes_the_answer_of_the_last_one() -> None:
    waiting: list[Callable[[], None]] = []
    rig = Rig(2 * PLENTY_BYTES, in_thread=lambda run: waiting.append(run) if is_slow else run())
    is_slow = False
    assert not rig.room.look(LARGEST).is_tight
    is_slow = True
    rig.disk.free_bytes = PLENTY_BYTES - 1
    assert not rig.room.look(
        LARGEST
    ).is_tight  # nobody has measured since, and nobody is waited for
    waiting.pop()()
    is_slow = False
    assert rig.room.look(LARGEST).is_tight


def test_an_error_of_a_roomy_disk_is_told_once_and_asked_about_again() -> None:
    rig = Rig(2 * PLENTY_BYTES)
    rig.look()
    rig.disk.measuring_error = errno.EIO
    rig.look()
    rig.disk.measuring_error = 0
    with pytest.raises(OSError, match="no"):
        rig.look()
    rig.look()
    assert not rig.room.look(LARGEST).is_tight


def test_an_answer_that_came_too_late_for_one_look_counts_at_the_next() -> None:
    waiting: list[Callable[[], None]] = []
    rig = Rig(PLENTY_BYTES - 1, in_thread=lambda run: waiting.append(run) if is_late else run())
    is_late = False
    assert rig.room.look(LARGEST).spare
    is_late = True
    rig.disk.free_bytes = 0
    rig.disk.ahead = 0
    for _ in range(3):
        with pytest.raises(TimeoutError):
            rig.room.look(LARGEST)
        waiting.pop()()
        assert rig.room.look(LARGEST).is_exhausted
        waiting.clear()


def test_what_was_pending_counts_beside_a_late_answer_for_it_may_be_committed_since() -> None:
    waiting: list[Callable[[], None]] = []
    rig = Rig(LEFT_BYTES, in_thread=lambda run: waiting.append(run) if is_late else run())
    rig.disk.ahead = WANTED
    is_late = True
    rig.need = 10 * MIB
    with pytest.raises(TimeoutError):
        rig.room.look(LARGEST)
    waiting.pop()()
    rig.need = MIB
    spare = rig.room.look(LARGEST).spare
    assert spare == (WANTED - FLOOR_BYTES - 11 * MIB) // TAKEN_FACTOR


def test_what_the_last_pages_bear_is_told_beside_what_is_to_spare() -> None:
    rig = Rig(LEFT_BYTES + 4 * MIB)
    rig.disk.unused = 2 * 2 * MIB
    found = rig.room.look(LARGEST)
    assert (found.is_short, found.is_exhausted, found.spare) == (True, True, 0)
    assert found.last == (6 * MIB - FLOOR_LAST_BYTES) // TAKEN_FACTOR
    rig.disk.unused = 0
    assert rig.room.look(LARGEST).last == (4 * MIB - FLOOR_LAST_BYTES) // TAKEN_FACTOR
    rig.need = 3 * MIB
    assert rig.room.look(LARGEST).last == 0


class HungDisk(FakeDisk):
    """Says nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__(PLENTY_BYTES)
        self.goes_on = Event()
        self.fails = False

    def free(self, path: Path) -> int:
        self.goes_on.wait(10)
        if self.fails:
            raise OSError(errno.EIO, "no")
        return super().free(path)


def test_a_hung_disk_holds_one_thread_and_nobody_else() -> None:
    disk = HungDisk()
    threads: list[Thread] = []

    def in_thread(run: Callable[[], None]) -> None:
        threads.append(Thread(target=run, daemon=True))
        threads[-1].start()

    place = Place("log", Path("/d/wal/data.mdb"), lambda: 0, lambda _: 0)
    room = DiskRoom([place], disk, in_thread)
    for _ in range(50):
        with pytest.raises(TimeoutError):
            room.look(LARGEST)
    assert len(threads) == 1
    disk.goes_on.set()
    threads[0].join()
    assert disk.looks == 1
    disk.free_bytes = PLENTY_BYTES - 1

    def look() -> RoomFound:
        while True:  # a machine that is busy may be late, too
            with suppress(TimeoutError):
                return room.look(LARGEST)

    assert look().is_tight, "what the late answer said is not believed"
    disk.fails = True
    with pytest.raises(OSError, match="no"):
        look()


def test_the_worse_of_two_places_counts() -> None:
    disk = FakeDisk(LEFT_BYTES + FLOOR_BYTES + 4 * MIB)
    places = [
        Place(LOG, Path("/l/data.mdb"), lambda: 2 * MIB, lambda _: 0),
        Place("state", Path("/s/data.mdb"), lambda: 0, lambda _: 0),
    ]
    found = DiskRoom(places, disk, lambda run: run()).look(LARGEST)
    assert found.is_short
    assert found.is_log_short
    assert "the log's disk" in found.where


def test_needs_of_pending_changes_are_bounded_by_the_pages_there_are() -> None:
    assert state_need(1000, 10, 1 << 30) == 2000 + 10 * 2 * 4096
    assert state_need(1000, 10, 5000) == 2000 + 5000
    assert log_need(1000) == 1250


def test_the_real_disk_allocates_ahead_without_changing_the_length(tmp_path: Path) -> None:
    file = tmp_path / "data.mdb"
    file.write_bytes(b"x" * 5000)
    disk = RealDisk()
    try:
        disk.allocate(file, 1 << 20)
    except OSError as error:
        pytest.skip(f"this filesystem cannot reserve: {error}")
    size, allocated = disk.extent(file)
    assert (size, file.read_bytes()) == (5000, b"x" * 5000)
    assert allocated >= 1 << 20
    assert disk.free(file) > 0


def test_only_the_want_of_space_is_told_with_how_much_there_is() -> None:
    disk = FakeDisk(3 * MIB)
    broken = f"state commit failed: {os.strerror(errno.EIO)}"
    assert no_space_advice(broken, [Path("/d")], disk) == broken
    full = no_space_advice(broken, [Path("/d")], FakeDisk(1 * MIB - 1))
    assert full == f"no space left: 1.0 MiB free at /d: {broken}"
    reason = f"log commit failed: {os.strerror(errno.ENOSPC)}"
    assert no_space_advice(reason, [Path("/d")], disk) == (
        f"no space left: 3.0 MiB free at /d: {reason}"
    )
