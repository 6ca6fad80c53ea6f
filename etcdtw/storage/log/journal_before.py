"""The journal of format 2, read once more when a log of that format is taken over.

    record := magic:4 size:u32 epoch:u64 salt:8 sequence:u64 crc:u32 body padding

Records begin at pages; the CRC-32C covers the head before it and the body.  Nothing stamps the
sectors: a last record that fails its checksum is taken for torn.  Pure; writes nothing.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from etcdtw.storage.log.codec import CorruptionError
from etcdtw.storage.log.journal_codec import MAGIC, PAGE, decode_job, extend_crc
from etcdtw.storage.log.writer import LogJob

_HEAD: Final = Struct(">4sIQ8sQ")
_CRC: Final = Struct(">I")
_BODY_SIZE_MIN: Final = 40
_BODY_AT: Final = _HEAD.size + _CRC.size


class _Found(NamedTuple):
    """A whole record of the wanted epoch."""

    sequence: int
    body: bytes


def read_journal_before(
    segments: list[bytes], epoch: int, salt: bytes, settled: int
) -> list[LogJob]:
    """Return the jobs behind record ``settled``.  Raises `CorruptionError` where one is missing.

    Records are written one after the other, each flushed before the next: only the last can be
    torn.  One that is missing before a whole one was damaged later.
    """
    jobs: list[LogJob] = []
    for sequence, body in _scan(segments, epoch, salt):
        if sequence <= settled:
            continue
        if sequence != settled + len(jobs) + 1:
            raise CorruptionError(
                f"record {settled + len(jobs) + 1} is damaged, but record {sequence} is whole"
            )
        jobs.append(decode_job(body))
    return jobs


def _scan(segments: list[bytes], epoch: int, salt: bytes) -> list[_Found]:
    """Return every whole record of the epoch, by sequence number.

    The salt is compared because between records of this lap lie pages of earlier ones, and a
    page within such a record may hold anything that a client wrote.
    """
    found: list[_Found] = []
    for octets in segments:
        at = 0
        while at < len(octets):
            head = _decode_head(octets, at)
            if head is not None and at == 0 and head[0] > epoch:
                # No payload ever lies at the head of a segment: this is a record.
                raise CorruptionError("it is newer than the log beside it")
            if head is None or head[0] != epoch or head[1] != salt:
                at += PAGE
                continue
            found.append(_Found(head[2], octets[at + _BODY_AT : head[3]]))
            at = -(-head[3] // PAGE) * PAGE
    found.sort(key=lambda record: record.sequence)
    return found


def _decode_head(octets: bytes, at: int) -> tuple[int, bytes, int, int] | None:
    """Return (epoch, salt, sequence, end) of the whole record at ``at``; None: there is none."""
    if octets[at : at + 4] != MAGIC or at + _BODY_AT > len(octets):
        return None
    _, size, epoch, salt, sequence = _HEAD.unpack_from(octets, at)
    end = at + _BODY_AT + size
    if size < _BODY_SIZE_MIN or end > len(octets):
        return None
    crc = extend_crc(extend_crc(0, octets[at : at + _HEAD.size]), octets[at + _BODY_AT : end])
    if crc != _CRC.unpack_from(octets, at + _HEAD.size)[0]:
        return None
    return epoch, salt, sequence, end
