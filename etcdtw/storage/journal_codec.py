"""One record of the journal: a job of the log, made durable by one flush.

Records begin at pages and fill whole pages, so that a torn write never touches an older one.  The
epoch, its salt and the sequence number tell a record of this life of the journal from the octets
of an earlier lap, and from octets that a client chose.

    record := magic:4 size:u32 epoch:u64 salt:8 sequence:u64 crc:u32 body padding
    body   := keep_below:u64 batch_first:u64 forget_below:u64
              hard_state:u32 snapshot:u32 mark:u32 batch:u32 (sizes) and then the four

``size`` is that of the body; the CRC-32C covers all of the head before it, and the body.
Knows no files.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import google_crc32c

from etcdtw.storage.log_codec import CorruptionError, batch_count, decode_small, encode_small
from etcdtw.storage.log_writer import LogJob

PAGE: Final = 4096  # octets; a page of the kernel's cache: writing it whole reads nothing first
MAGIC: Final = b"etwJ"
SALT_SIZE: Final = 8

_HEAD: Final = Struct(">4sIQ8sQ")
_CRC: Final = Struct(">I")
_BODY: Final = Struct(">QQQIIII")
_MARK: Final = Struct(">Q8sQ")
BODY_AT: Final = _HEAD.size + _CRC.size

extend_crc = google_crc32c.extend


def record_size(job: LogJob) -> int:
    """Return how many octets of the journal ``job`` takes: whole pages."""
    size = BODY_AT + _BODY.size + len(job.batch)
    for part in (job.hard_state, job.snapshot, job.mark):
        if part is not None:
            size += len(part)
    return -(-size // PAGE) * PAGE


def encode_record(epoch: int, salt: bytes, sequence: int, job: LogJob) -> bytes:
    """Return the record of ``job``, padded with zeros to whole pages."""
    hard_state = job.hard_state or b""
    snapshot = job.snapshot or b""
    mark = job.mark or b""
    batch = job.batch
    body = _BODY.pack(
        job.keep_below, job.batch_first, job.forget_below,
        len(hard_state), len(snapshot), len(mark), len(batch),
    )  # fmt: skip
    body += hard_state + snapshot + mark
    size = len(body) + len(batch)
    head = _HEAD.pack(MAGIC, size, epoch, salt, sequence)
    crc = extend_crc(extend_crc(extend_crc(0, head), body), batch)
    padding = bytes(-(BODY_AT + size) % PAGE)
    return b"".join((head, _CRC.pack(crc), body, batch, padding))


def decode_head(octets: bytes, at: int) -> tuple[int, bytes, int, int] | None:
    """Return (epoch, salt, sequence, end) of the whole record at ``at``; None: there is none."""
    if octets[at : at + 4] != MAGIC or at + BODY_AT > len(octets):
        return None
    _, size, epoch, salt, sequence = _HEAD.unpack_from(octets, at)
    end = at + BODY_AT + size
    if size < _BODY.size or end > len(octets):
        return None
    crc = extend_crc(extend_crc(0, octets[at : at + _HEAD.size]), octets[at + BODY_AT : end])
    if crc != _CRC.unpack_from(octets, at + _HEAD.size)[0]:
        return None
    return epoch, salt, sequence, end


def decode_job(octets: bytes, at: int, end: int) -> LogJob:
    """Return the job of the record at ``at``, whose checksum is known to be right.

    Raises `CorruptionError` when its parts do not fill it: no program of this format wrote it.
    """
    sizes: tuple[int, ...]
    keep_below, batch_first, forget_below, *sizes_read = _BODY.unpack_from(octets, at + BODY_AT)
    sizes = tuple(sizes_read)
    start = at + BODY_AT + _BODY.size
    if start + sum(sizes) != end:
        raise CorruptionError("the parts of a journal record do not fill it")
    parts: list[bytes] = []
    for size in sizes:
        parts.append(octets[start : start + size])
        start += size
    job = LogJob()
    job.keep_below, job.batch_first, job.forget_below = keep_below, batch_first, forget_below
    job.hard_state, job.snapshot, job.mark = (part or None for part in parts[:3])
    job.batch = parts[3]
    job.entry_count = batch_count(job.batch) if batch_first else 0
    return job


def encode_settled(epoch: int, salt: bytes, sequence: int) -> bytes:
    """Return LMDB's note of the journal's epoch and the last record it has taken over."""
    return encode_small(_MARK.pack(epoch, salt, sequence))


def decode_settled(value: bytes) -> tuple[int, bytes, int]:
    """Return (epoch, salt, sequence).  Raises `CorruptionError`."""
    body = decode_small(value, "journal's note")
    if len(body) != _MARK.size:
        raise CorruptionError("the journal's note has a wrong size")
    epoch, salt, sequence = _MARK.unpack(body)
    return epoch, salt, sequence
