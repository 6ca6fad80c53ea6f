"""Torn and damaged are told apart: by sector subsets, single bits and laps, on octets alone."""

from __future__ import annotations

from random import Random

import pytest

from etcdtw.raft.entry import Entry
from etcdtw.storage.log.codec import CorruptionError, encode_batch
from etcdtw.storage.log.journal import Journal
from etcdtw.storage.log.journal_codec import (
    PAGE,
    SECTOR,
    STAMP_SIZE,
    encode_record,
    record_size,
)
from etcdtw.storage.log.journal_scan import read_journal
from etcdtw.storage.log.writer import LogJob

SALT = b"8 octets"
PAGES = 8  # of each segment


def job_of(index: int, size: int) -> LogJob:
    job = LogJob()
    job.batch, _ = encode_batch(index, [Entry(1, index, 0, Random(index).randbytes(size))])
    job.batch_first, job.entry_count = index, 1
    return job


class Disk:
    """The two segments as octets, and the journal that places records in them."""

    def __init__(self, pages: int = PAGES) -> None:
        self.segments = [bytearray(pages * PAGE), bytearray(pages * PAGE)]
        self.pages = pages
        self.epoch = 0
        self.begin()

    def begin(self) -> None:
        """As a start does: LMDB holds all, a new epoch begins."""
        self.epoch += 1
        self.salt = SALT[:-1] + bytes((self.epoch,))
        self.journal = Journal([0, 1], self.pages * PAGE, self.epoch, self.salt)
        self.jobs: list[LogJob] = []

    def place(self, job: LogJob) -> tuple[int, int, bytes] | None:
        """Return where the job's record goes, and its octets; nothing is written."""
        size = record_size(job)
        if not self.journal.has_room(size):
            return None
        segment, offset = self.journal.place(size)
        return segment, offset, encode_record(self.epoch, self.salt, self.journal.sequence, job)

    def write(self, job: LogJob) -> tuple[int, int, bytes]:
        placed = self.place(job)
        if placed is None:
            self.journal.settle(self.journal.sequence)
            placed = self.place(job)
        assert placed is not None
        segment, offset, record = placed
        self.segments[segment][offset : offset + len(record)] = record
        self.jobs.append(job)
        return placed

    def read(self, segments: list[bytes] | None = None) -> tuple[int, bool]:
        """Return how many records are found to be acknowledged, and whether one was torn."""
        settled = self.journal.settled
        octets = [bytes(segment) for segment in self.segments] if segments is None else segments
        jobs, torn = read_journal(octets, self.epoch, self.salt, settled)
        expected = [job.batch for job in self.jobs[settled:]]
        assert [job.batch for job in jobs] == expected[: len(jobs)]
        return settled + len(jobs), torn is not None

    def cut(self, placed: tuple[int, int, bytes], kept: set[int]) -> list[bytes]:
        """Return the segments as if only these sectors of a record had reached the disk."""
        segment, offset, record = placed
        found = [bytearray(octets) for octets in self.segments]
        for number in kept:
            at = number * SECTOR
            found[segment][offset + at : offset + at + SECTOR] = record[at : at + SECTOR]
        return [bytes(octets) for octets in found]

    def flipped(self, segment: int, bit: int) -> list[bytes]:
        found = [bytearray(octets) for octets in self.segments]
        found[segment][bit // 8] ^= 1 << bit % 8
        return [bytes(octets) for octets in found]


def lap(laps: int) -> Disk:
    """Return a disk whose next record lies over zeros, or over earlier laps or epochs."""
    disk = Disk()
    for index in range(1, laps * 12 + 1):
        disk.write(job_of(index, index * 977 % 9000))
        if index == 7:
            disk.begin()
    disk.journal.settle(max(disk.journal.sequence - 1, 0))
    return disk


@pytest.mark.parametrize("laps", [0, 1, 4])
def test_every_subset_of_the_sectors_of_a_torn_record_is_dropped(laps: int) -> None:
    disk = lap(laps)
    acknowledged = disk.journal.sequence
    placed = disk.place(job_of(100, 3000))
    assert placed is not None
    assert len(placed[2]) == PAGE
    for subset in range(255):
        kept = {number for number in range(8) if subset >> number & 1}
        assert disk.read(disk.cut(placed, kept)) == (acknowledged, bool(kept)), subset
    disk.jobs.append(job_of(100, 3000))
    assert disk.read(disk.cut(placed, set(range(8)))) == (acknowledged + 1, False)


@pytest.mark.parametrize("laps", [0, 1, 4])
def test_every_prefix_and_any_subset_of_a_long_torn_record_is_dropped(laps: int) -> None:
    disk = lap(laps)
    acknowledged = disk.journal.sequence
    placed = disk.place(job_of(100, 10_000))
    assert placed is not None
    count = len(placed[2]) // SECTOR
    random = Random(laps)
    subsets = [set(range(end)) for end in range(count)]
    subsets += [{n for n in range(count) if random.random() < 0.7} for _ in range(500)]
    subsets += [set(range(count)) - {missing} for missing in range(count)]
    for kept in subsets:
        if len(kept) < count:
            assert disk.read(disk.cut(placed, kept)) == (acknowledged, bool(kept)), kept


@pytest.mark.parametrize("laps", [0, 1, 4])
def test_every_flipped_bit_in_the_last_record_is_refused(laps: int) -> None:
    disk = lap(laps)
    segment, offset, record = disk.write(job_of(100, 3000))
    assert len(record) == PAGE
    for bit in range(offset * 8, (offset + PAGE) * 8):
        with pytest.raises(CorruptionError):
            disk.read(disk.flipped(segment, bit))


def test_every_flipped_bit_in_the_sectors_that_tell_of_a_long_record_is_refused() -> None:
    disk = lap(2)
    segment, offset, record = disk.write(job_of(100, 10_000))
    stamps = [at for at in range(len(record)) if at % SECTOR >= SECTOR - 16]
    for at in [*range(120), *stamps, *range(120, len(record), 211)]:
        for bit in range((offset + at) * 8, (offset + at) * 8 + 8):
            with pytest.raises(CorruptionError):
                disk.read(disk.flipped(segment, bit))


def test_a_page_of_garbage_where_the_last_record_was_is_refused() -> None:
    disk = lap(1)
    segment, offset, _ = disk.write(job_of(100, 3000))
    disk.segments[segment][offset : offset + PAGE] = b"\xa5" * PAGE
    with pytest.raises(CorruptionError, match="is neither written nor unwritten"):
        disk.read()


def test_a_torn_record_behind_a_damaged_one_does_not_hide_it() -> None:
    disk = lap(0)
    segment, offset, _ = disk.write(job_of(1, 100))
    placed = disk.place(job_of(2, 3000))
    assert placed is not None
    disk.segments[segment][offset + 100] ^= 1
    with pytest.raises(CorruptionError, match="record 1 is damaged, but record 2 was written"):
        disk.read(disk.cut(placed, {3}))


@pytest.mark.parametrize("seed", range(40))
def test_laps_and_lives_of_any_records_are_read_as_they_were_promised(seed: int) -> None:
    random = Random(seed)
    disk = Disk()
    for index in range(1, 120):
        job = job_of(index, random.choice((0, 10, 300, 3900, 4000, 9000, 20_000)))
        if random.random() < 0.1:
            disk.begin()
        if random.random() < 0.3 and disk.journal.sequence:
            disk.journal.settle(random.randint(disk.journal.settled, disk.journal.sequence))
        acknowledged = disk.journal.sequence
        # `Journal` has no way back, so that the torn record is the one that is then written.
        before = [bytes(octets) for octets in disk.segments]
        segment, offset, record = disk.write(job)
        assert disk.read() == (acknowledged + 1, False)
        count = len(record) // SECTOR
        kept = {n for n in range(count) if random.random() < random.choice((0.2, 0.9))}
        torn = [bytearray(octets) for octets in before]
        for number in kept:
            at = number * SECTOR
            torn[segment][offset + at : offset + at + SECTOR] = record[at : at + SECTOR]
        if len(kept) < count:
            found = disk.read([bytes(octets) for octets in torn])
            assert found == (acknowledged, bool(kept)), index
        bit = random.randrange(offset * 8, (offset + len(record)) * 8)
        with pytest.raises(CorruptionError):
            disk.read(disk.flipped(segment, bit))


@pytest.mark.parametrize("laps", [0, 1, 4])
def test_a_record_that_a_kill_cut_within_a_sector_is_dropped(laps: int) -> None:
    """The kernel copies from the front; the stamp is what comes last."""
    disk = lap(laps)
    acknowledged = disk.journal.sequence
    placed = disk.place(job_of(100, 10_000))
    assert placed is not None
    segment, offset, record = placed
    for end in range(1, len(record), 37):
        octets = [bytearray(content) for content in disk.segments]
        octets[segment][offset : offset + end] = record[:end]
        # Within a stamp nothing is cut: what is copied at once is far longer, and aligned.
        if end % SECTOR <= SECTOR - STAMP_SIZE:
            found = disk.read([bytes(content) for content in octets])
            assert found == (acknowledged, end >= SECTOR), end
