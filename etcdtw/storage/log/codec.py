"""The octets of the log: batches of entries with a chained CRC-32C, and the small records.

    batch    := previous:u32 count:u32 entry*           one LMDB value, key 0x01 first_index:u64
    entry    := crc:u32 type:u8 size:u32 term:u64 data
    small    := crc:u32 body                            hard state, snapshot mark, compaction mark

All integers are big-endian.  An entry's CRC covers the previous entry's CRC (as the seed), its
own index, term, type, size and data, so that no octet and no order can change unnoticed.
Knows no LMDB.  Source of the polynomial: RFC 3720 section B.4 (Castagnoli).
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from struct import error as StructError  # noqa: N812 - the name says nothing alone
from typing import Final

import google_crc32c

from etcdtw.raft.entry import ConfState, Entry, HardState, Snapshot

FORMAT: Final = b"etcdtw-wal 3"
FORMAT_1: Final = b"etcdtw-wal 1"  # without a journal
FORMAT_2: Final = b"etcdtw-wal 2"  # without stamps in the journal
FORMATS_BEFORE: Final = (FORMAT_1, FORMAT_2)

KEY_FORMAT: Final = b"\x00format"
KEY_IDENTITY: Final = b"\x00identity"
KEY_HARD_STATE: Final = b"\x00hard_state"
KEY_SNAPSHOT: Final = b"\x00snapshot"
KEY_COMPACTED: Final = b"\x00compacted"
KEY_JOURNAL: Final = b"\x00journal"
BATCH_PREFIX: Final = b"\x01"

_BATCH: Final = Struct(">II")
_ENTRY: Final = Struct(">IBIQ")
_COVERED: Final = Struct(">QQBI")  # index, term, type, size: what a CRC covers beside data
_HARD_STATE: Final = Struct(">QQQ")
_MARK: Final = Struct(">QQ")
_CRC: Final = Struct(">I")

extend_crc = google_crc32c.extend


class CorruptionError(Exception):
    """Stored octets are not what was written."""


def batch_key(first_index: int) -> bytes:
    """Return the LMDB key of the batch that begins at ``first_index``."""
    return BATCH_PREFIX + first_index.to_bytes(8, "big")


def index_of_key(key: bytes) -> int:
    """Return the first index that a batch's key names."""
    return int.from_bytes(key[1:9], "big")


def encode_batch(previous: int, entries: Sequence[Entry]) -> tuple[bytes, list[int]]:
    """Return a batch's value and the CRC of each of its entries, in order.

    ``previous`` is the CRC of the entry before the first one; 0 where there is none.
    """
    parts: list[bytes] = [_BATCH.pack(previous, len(entries))]
    crcs: list[int] = []
    crc = previous
    for entry in entries:
        data = entry.data
        size = len(data)
        crc = extend_crc(crc, _COVERED.pack(entry.index, entry.term, entry.type, size))
        if size:
            crc = extend_crc(crc, data)
        parts.append(_ENTRY.pack(crc, entry.type, size, entry.term))
        parts.append(data)
        crcs.append(crc)
    return b"".join(parts), crcs


def join_batches(values: Sequence[bytes], count: int) -> bytes:
    """Return neighbouring batches, ``count`` entries in all, as one batch."""
    if len(values) == 1:
        return values[0]
    parts = [_BATCH.pack(batch_previous(values[0]), count)]
    parts.extend([value[_BATCH.size :] for value in values])
    return b"".join(parts)


def batch_count(value: bytes) -> int:
    """Return how many entries a batch's value says it holds."""
    if len(value) < _BATCH.size:
        raise CorruptionError(f"a batch of {len(value)} octets")
    return int(_BATCH.unpack_from(value)[1])


def batch_previous(value: bytes) -> int:
    """Return the CRC of the entry before the batch."""
    return int(_BATCH.unpack_from(value)[0])


def decode_batch(first_index: int, value: bytes) -> tuple[list[Entry], list[int]]:
    """Return a batch's entries and their CRCs, every one of them checked.

    Raises `CorruptionError`, naming the index, on any octet that differs from what was written.
    """
    count = batch_count(value)
    crc = batch_previous(value)
    at = _BATCH.size
    end = len(value)
    entries: list[Entry] = []
    crcs: list[int] = []
    for index in range(first_index, first_index + count):
        try:
            stored, kind, size, term = _ENTRY.unpack_from(value, at)
        except StructError:
            raise CorruptionError(f"entry {index} of the log is cut short") from None
        at += _ENTRY.size
        if at + size > end:
            raise CorruptionError(f"entry {index} of the log is cut short")
        data = value[at : at + size]
        at += size
        crc = extend_crc(crc, _COVERED.pack(index, term, kind, size))
        if size:
            crc = extend_crc(crc, data)
        if crc != stored:
            raise CorruptionError(f"entry {index} of the log fails its checksum")
        entries.append(Entry(term, index, kind, data))
        crcs.append(crc)
    if at != end:
        raise CorruptionError(f"the batch at index {first_index} has octets behind its entries")
    return entries, crcs


def encode_small(body: bytes) -> bytes:
    """Return ``body`` behind its own CRC."""
    return _CRC.pack(google_crc32c.value(body)) + body


def decode_small(value: bytes, what: str) -> bytes:
    """Return the body of a small record.  Raises `CorruptionError`, naming ``what``."""
    if len(value) < 4 or _CRC.unpack_from(value)[0] != google_crc32c.value(value[4:]):
        raise CorruptionError(f"the {what} fails its checksum")
    return value[4:]


def encode_hard_state(state: HardState) -> bytes:
    """Return the hard state as a small record."""
    return encode_small(_HARD_STATE.pack(state.term, state.vote, state.commit))


def decode_hard_state(value: bytes | None) -> HardState:
    """Return the stored hard state; zeros when there is none."""
    if value is None:
        return HardState()
    return HardState(*_unpack(_HARD_STATE, decode_small(value, "hard state"), "hard state"))


def encode_mark(index: int, term: int, crc: int) -> bytes:
    """Return a compaction mark: the last forgotten entry's index, term and CRC."""
    return encode_small(_MARK.pack(index, term) + _CRC.pack(crc))


def decode_mark(value: bytes | None) -> tuple[int, int, int]:
    """Return (index, term, CRC) of a compaction mark; zeros when there is none."""
    if value is None:
        return 0, 0, 0
    body = decode_small(value, "compaction mark")
    if len(body) != _MARK.size + _CRC.size:
        raise CorruptionError("the compaction mark has a wrong size")
    index, term = _MARK.unpack_from(body)
    return index, term, _CRC.unpack_from(body, _MARK.size)[0]


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return a snapshot's mark with its configuration and its octets."""
    conf = snapshot.conf_state
    groups = (conf.voters, conf.learners, conf.voters_outgoing, conf.learners_next)
    parts = [_MARK.pack(snapshot.index, snapshot.term), bytes((int(conf.auto_leave),))]
    for group in groups:
        parts.append(_CRC.pack(len(group)))
        parts.extend(member_id.to_bytes(8, "big") for member_id in group)
    parts.append(snapshot.data)
    return encode_small(b"".join(parts))


def decode_snapshot(value: bytes | None) -> Snapshot:
    """Return the stored snapshot mark; index 0 when there is none."""
    if value is None:
        return Snapshot()
    body = decode_small(value, "snapshot mark")
    try:
        index, term = _MARK.unpack_from(body)
        at = _MARK.size + 1
        groups: list[tuple[int, ...]] = []
        for _ in range(4):
            count = _CRC.unpack_from(body, at)[0]
            at += _CRC.size
            groups.append(Struct(f">{count}Q").unpack_from(body, at))
            at += 8 * count
    except StructError as error:
        raise CorruptionError("the snapshot mark is cut short") from error
    voters, learners, voters_outgoing, learners_next = groups
    auto_leave = body[_MARK.size] != 0
    conf_state = ConfState(voters, learners, voters_outgoing, learners_next, auto_leave)
    return Snapshot(index, term, conf_state, body[at:])


def _unpack(layout: Struct, body: bytes, what: str) -> tuple[int, ...]:
    if len(body) != layout.size:
        raise CorruptionError(f"the {what} has a wrong size")
    return layout.unpack(body)
