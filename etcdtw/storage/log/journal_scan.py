"""What a start makes of the journal's octets: whole records, one cut short, or damage.

Records are written one after the other, each flushed before the next, so that only the last can
be torn.  A torn one shows at least one sector of earlier times in its place: zeros, or the stamp
of an earlier record.  Everything else that is not whole was changed after it was written, and
may have been promised to somebody.  Pure: octets in, jobs out.
"""

from __future__ import annotations

from typing import NamedTuple

from etcdtw.storage.log.codec import CorruptionError
from etcdtw.storage.log.journal_codec import (
    EPOCH_MASK,
    NO_STAMP,
    PAGE,
    PAGE_SECTORS,
    RECORD_SIZE_MAX,
    SECTOR,
    Stamp,
    decode_body,
    decode_job,
    decode_stamp,
    entry_count_of,
    stamps_of,
)
from etcdtw.storage.log.writer import LogJob


class Torn(NamedTuple):
    """The last record, cut short by a crash: nobody was told of it."""

    sequence: int
    written: int
    """Octets that reached the disk."""
    size: int
    entry_count: int
    """0: it held none, or nobody can tell."""


class Reading(NamedTuple):
    """What is to be carried out, in order, and what was dropped."""

    jobs: list[LogJob]
    torn: Torn | None


class _Sectors(NamedTuple):
    """Where the stamps of one record were found, in one segment."""

    segment: int
    numbers: list[int]
    pages: int


def read_journal(segments: list[bytes], epoch: int, salt: bytes, settled: int) -> Reading:
    """Return the jobs behind record ``settled`` of ``epoch``.

    Raises `CorruptionError` when an octet that may have been promised is not what was written.
    """
    return _Journal(segments, epoch, salt, settled).read()


class _Journal:
    """The two segments and whose each sector is."""

    def __init__(self, segments: list[bytes], epoch: int, salt: bytes, settled: int) -> None:
        self._segments = segments
        self._epoch = epoch
        self._salt = salt
        self._settled = settled
        self._stamps = [stamps_of(octets) for octets in segments]
        self._known: dict[bytes, Stamp | None] = {
            octets: decode_stamp(octets) for stamps in self._stamps for octets in set(stamps)
        }
        self._sectors: dict[int, list[_Sectors]] = {}
        self._find()

    def read(self) -> Reading:
        jobs: list[LogJob] = []
        newest = max(self._sectors, default=self._settled)
        for sequence in range(self._settled + 1, newest + 1):
            body = self._body(sequence)
            if body is not None:
                jobs.append(decode_job(body))
            elif sequence == newest:
                return Reading(jobs, self._torn(sequence))
            else:
                raise CorruptionError(
                    f"record {sequence} is damaged, but record {newest} was written after it"
                )
        self._check_next(newest + 1)
        return Reading(jobs, None)

    def _find(self) -> None:
        """Note the sectors of this epoch's records, from the last settled one on."""
        epoch = self._epoch & EPOCH_MASK
        wanted: dict[bytes, Stamp] = {}
        for octets, stamp in self._known.items():
            if stamp is None:
                continue
            if stamp.epoch > epoch:
                raise CorruptionError("it is newer than the log beside it")
            if stamp.epoch == epoch and stamp.sequence >= max(self._settled, 1):
                wanted[octets] = stamp
        for segment, stamps in enumerate(self._stamps):
            runs: dict[bytes, list[int]] = {}
            for number, octets in enumerate(stamps):
                if octets in wanted:
                    runs.setdefault(octets, []).append(number)
            for octets, numbers in runs.items():
                stamp = wanted[octets]
                found = _Sectors(segment, numbers, stamp.pages)
                self._sectors.setdefault(stamp.sequence, []).append(found)

    def _body(self, sequence: int) -> bytes | None:
        """Return the body of a record; None: it is not whole."""
        places = self._sectors.get(sequence, [])
        if len(places) != 1:
            return None
        segment, numbers, pages = places[0]
        if numbers[0] % PAGE_SECTORS or len(numbers) != pages * PAGE_SECTORS:
            return None
        start = numbers[0] * SECTOR
        octets = self._segments[segment][start : start + pages * PAGE]
        return decode_body(octets, self._epoch, self._salt, sequence)

    def _torn(self, sequence: int) -> Torn:
        """Return what was left of the last record.  Raises `CorruptionError`: it was complete."""
        place = self._place_of(sequence)
        if place is None:
            raise CorruptionError(f"record {sequence}, the last one, lies where none does")
        segment, first, pages = place
        written = 0
        for number in range(first, first + pages * PAGE_SECTORS):
            stamp = self._known[self._stamps[segment][number]]
            if stamp is not None and (stamp.epoch, stamp.sequence) == (
                self._epoch & EPOCH_MASK,
                sequence,
            ):
                written += 1
            elif not self._is_older(segment, number):
                raise self._damaged(sequence, segment, number)
        if written == pages * PAGE_SECTORS:
            raise CorruptionError(
                f"record {sequence}, the last one, was written whole and fails its checksum"
            )
        start = first * SECTOR
        head = self._segments[segment][start : start + PAGE]
        count = entry_count_of(head, self._epoch, self._salt, sequence)
        return Torn(sequence, written * SECTOR, pages * PAGE, count)

    def _place_of(self, sequence: int) -> tuple[int, int, int] | None:
        """Return (segment, first sector, pages) of the last record, of which some is there."""
        places = self._sectors[sequence]
        if len(places) != 1:
            return None
        segment, numbers, pages = places[0]
        for start in self._starts(sequence):
            end = start[1] + pages * PAGE_SECTORS
            if start[0] == segment and start[1] <= numbers[0] and numbers[-1] < end:
                return (segment, start[1], pages) if end <= len(self._stamps[segment]) else None
        return None

    def _starts(self, sequence: int) -> list[tuple[int, int]]:
        """Return (segment, sector) of the places at which record ``sequence`` may begin."""
        if sequence == 1:
            return [(0, 0)]
        before = self._sectors.get(sequence - 1)
        if before is None:
            raise CorruptionError(
                f"it is older than the log beside it, which has taken over record {sequence - 1}"
            )
        segment = before[-1].segment
        end = -(-(before[-1].numbers[-1] + 1) // PAGE_SECTORS) * PAGE_SECTORS
        starts = [(segment, end)] if end < len(self._stamps[segment]) else []
        is_needed = any(
            place.segment != segment
            for number, places in self._sectors.items()
            if self._settled < number < sequence
            for place in places
        )
        if (len(self._stamps[segment]) - end) * SECTOR < RECORD_SIZE_MAX and not is_needed:
            starts.append((1 - segment, 0))
        return starts

    def _check_next(self, sequence: int) -> None:
        """No sector names record ``sequence``: its place must look as if nobody had written it."""
        for segment, first in self._starts(sequence):
            for number in range(first, first + PAGE_SECTORS):
                if not self._is_older(segment, number):
                    raise self._damaged(sequence, segment, number)

    def _is_older(self, segment: int, number: int) -> bool:
        """Whether a sector was not written: its stamp is zeros, or an earlier record's.

        The stamp comes last in a sector: a process that is killed while the kernel copies its
        record may leave the beginning of one before a stamp of zeros.
        """
        octets = self._stamps[segment][number]
        return self._known[octets] is not None or octets == NO_STAMP

    @staticmethod
    def _damaged(sequence: int, segment: int, number: int) -> CorruptionError:
        return CorruptionError(
            f"sector {number} of journal.{segment}, where record {sequence} lies or would, "
            "is neither written nor unwritten"
        )
