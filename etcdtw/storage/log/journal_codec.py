"""One record of the journal: a job of the log, made durable by one flush.

Records begin at pages and fill whole pages, so that a torn write never touches an older one.  The
last octets of every sector say whose it is: a disk writes a sector whole or not at all, so that a
record that was cut short shows sectors of earlier times, and a damaged one does not.

    record := sector*                         whole pages of 4096 octets
    sector := part:496 epoch:u32 sequence:u48 pages:u16 crc:u32      the last four: its stamp
    parts  := magic:4 size:u32 epoch:u64 salt:8 sequence:u64 crc:u32 body padding      joined
    body   := keep_below:u64 batch_first:u64 forget_below:u64
              hard_state:u32 snapshot:u32 mark:u32 batch:u32 (sizes) and then the four

``size`` is that of the body; the CRC-32C covers all of the head before it, the body and the
padding.  A stamp holds the low half of the epoch, and the CRC-32C of its first twelve octets.
Knows no files.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

import google_crc32c

from etcdtw.storage.log.codec import CorruptionError, batch_count, decode_small, encode_small
from etcdtw.storage.log.writer import LogJob

PAGE: Final = 4096  # octets; a page of the kernel's cache: writing it whole reads nothing first
SECTOR: Final = 512  # octets; what a disk writes whole or not at all
STAMP_SIZE: Final = 16
NO_STAMP: Final = bytes(STAMP_SIZE)
"""In a sector that was never written; no record's, since its checksum would not be 0."""
PART_SIZE: Final = SECTOR - STAMP_SIZE
PAGE_SECTORS: Final = PAGE // SECTOR
PAGE_PARTS: Final = PAGE_SECTORS * PART_SIZE
"""Octets of a record that a page holds."""
PAGES_MAX: Final = 0xFFFF
RECORD_SIZE_MAX: Final = 4 << 20
"""Octets; larger jobs go to LMDB alone, once instead of twice."""
MAGIC: Final = b"etwJ"
SALT_SIZE: Final = 8
EPOCH_MASK: Final = 0xFFFFFFFF

_HEAD: Final = Struct(">4sIQ8sQ")
_CRC: Final = Struct(">I")
_BODY: Final = Struct(">QQQIIII")
_MARK: Final = Struct(">Q8sQ")
_STAMP: Final = Struct(">IQ")
_PARTS: Final = Struct(f"{PART_SIZE}s" * PAGE_SECTORS)  # of what is not stamped yet
_STAMPED: Final = Struct(f"{PART_SIZE}s{STAMP_SIZE}x" * PAGE_SECTORS)
_STAMPS: Final = Struct(f"{PART_SIZE}x{STAMP_SIZE}s" * PAGE_SECTORS)
BODY_AT: Final = _HEAD.size + _CRC.size

extend_crc = google_crc32c.extend


class Stamp(NamedTuple):
    """Whose a sector is."""

    epoch: int
    """Its low 32 bits."""
    sequence: int
    pages: int
    """How many the record fills."""


def encode_stamp(epoch: int, sequence: int, pages: int) -> bytes:
    """Return the last octets of every sector of a record."""
    stamp = _STAMP.pack(epoch & EPOCH_MASK, sequence << 16 | pages)
    return stamp + _CRC.pack(extend_crc(0, stamp))


def decode_stamp(octets: bytes) -> Stamp | None:
    """Return what a sector's last octets say; None: no program has written these."""
    epoch, place = _STAMP.unpack_from(octets)
    if _CRC.unpack_from(octets, _STAMP.size)[0] != extend_crc(0, octets[: _STAMP.size]):
        return None
    return Stamp(epoch, place >> 16, place & PAGES_MAX)


def stamps_of(octets: bytes) -> list[bytes]:
    """Return the last octets of every sector of whole pages."""
    found: list[bytes] = []
    for page in _STAMPS.iter_unpack(octets):
        found += page
    return found


def record_size(job: LogJob) -> int:
    """Return how many octets of the journal ``job`` takes: whole pages."""
    size = BODY_AT + _BODY.size + len(job.batch)
    for part in (job.hard_state, job.snapshot, job.mark):
        if part is not None:
            size += len(part)
    return -(-size // PAGE_PARTS) * PAGE


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
    padding = bytes(-(BODY_AT + size) % PAGE_PARTS)
    crc = extend_crc(extend_crc(extend_crc(extend_crc(0, head), body), batch), padding)
    whole = b"".join((head, _CRC.pack(crc), body, batch, padding))
    parts: list[bytes] = []
    for page in _PARTS.iter_unpack(whole):
        parts += page
    parts.append(b"")
    return encode_stamp(epoch, sequence, len(parts) // PAGE_SECTORS).join(parts)


def join_parts(octets: bytes) -> bytes:
    """Return what whole pages hold beside their stamps."""
    parts: list[bytes] = []
    for page in _STAMPED.iter_unpack(octets):
        parts += page
    return b"".join(parts)


def decode_body(octets: bytes, epoch: int, salt: bytes, sequence: int) -> bytes | None:
    """Return the body of the record that fills ``octets``; None: it is not whole.

    Its stamps, too, must all be its own: whoever changed one may have changed more.
    """
    pages = len(octets) // PAGE
    if set(stamps_of(octets)) != {encode_stamp(epoch, sequence, pages)}:
        return None
    parts = join_parts(octets)
    magic, size, *named = _HEAD.unpack_from(parts)
    if magic != MAGIC or named != [epoch, salt, sequence]:
        return None
    if size < _BODY.size or -(-(BODY_AT + size) // PAGE_PARTS) != pages:
        return None
    crc = extend_crc(extend_crc(0, parts[: _HEAD.size]), parts[BODY_AT:])
    if crc != _CRC.unpack_from(parts, _HEAD.size)[0]:
        return None
    return parts[BODY_AT : BODY_AT + size]


def entry_count_of(octets: bytes, epoch: int, salt: bytes, sequence: int) -> int:
    """Return how many entries a record that was cut short would have held; 0: it cannot be told.

    ``octets``: its first page.
    """
    parts = join_parts(octets)
    magic, _, *named = _HEAD.unpack_from(parts)
    if magic != MAGIC or named != [epoch, salt, sequence]:
        return 0
    _, batch_first, _, *sizes = _BODY.unpack_from(parts, BODY_AT)
    at = BODY_AT + _BODY.size + sum(sizes[:3])
    if not batch_first or at + _CRC.size * 2 > PART_SIZE:
        return 0
    return batch_count(parts[at : at + _CRC.size * 2])


def decode_job(body: bytes) -> LogJob:
    """Return the job of a record's body, whose checksum is known to be right.

    Raises `CorruptionError` when its parts do not fill it: no program of this format wrote it.
    """
    sizes: tuple[int, ...]
    keep_below, batch_first, forget_below, *sizes_read = _BODY.unpack_from(body)
    sizes = tuple(sizes_read)
    start = _BODY.size
    if start + sum(sizes) != len(body):
        raise CorruptionError("the parts of a journal record do not fill it")
    parts: list[bytes] = []
    for size in sizes:
        parts.append(body[start : start + size])
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
