"""The octets of the state: revision keys, stored keys, frames, and what a record tells.

Knows no LMDB; the writer process imports it, so it stays small.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import Final

FORMAT: Final = b"etcdtw-state 2"
FORMAT_BEFORE: Final = b"etcdtw-state 1"
"""Without seals; taken over once (`building.renewal`)."""

TABLE_KEY: Final = b"key"
TABLE_CURRENT: Final = b"current"
TABLE_HISTORY: Final = b"history"
TABLE_ATTACHED: Final = b"attached"
TABLE_FENCES: Final = b"fences"
TABLE_PRIVATE: Final = b"etcdtw"
DERIVED: Final = (TABLE_CURRENT, TABLE_HISTORY, TABLE_ATTACHED, TABLE_FENCES)
BUCKETS: Final = (
    b"alarm", b"auth", b"authRoles", b"authUsers", b"cluster", b"lease", b"members",
    b"members_removed", b"meta",
)  # fmt: skip
"""The same names as `mvcc.backend.BUCKETS`, which the writer process does not import."""

ROW_FORMAT: Final = b"format"
ROW_REVISION: Final = b"revision"
ROW_HAS_LONG: Final = b"has_long"
META: Final = b"meta"
META_INDEX: Final = b"consistent_index"
META_TERM: Final = b"term"
META_CONF_STATE: Final = b"confState"
META_STORAGE_VERSION: Final = b"storageVersion"
META_SCHEDULED: Final = b"scheduledCompactRev"
META_FINISHED: Final = b"finishedCompactRev"

KEY_SIZE_MAX: Final = 480  # octets of a user key stored as it is; LMDB's own limit is 511
LONG_HASH_SIZE: Final = 30  # octets: prefix + "\0" + hash fill LMDB's 511 exactly
ATTACHED_KEY_SIZE_MAX: Final = 472  # behind 8 octets of lease id
RECORD_INLINE_MAX: Final = 1024  # octets; a larger record is stored once, in `key`
REFERENCE_SIZE: Final = 17  # "\0" main sub
REVISION_SIZE: Final = 17  # a tombstone's key has one octet more
DEAD: Final = b"\x01"
LIVE: Final = b"\x00"

_U64: Final = Struct(">Q")
_REVISION: Final = Struct(">QcQ")
_PAIR: Final = Struct(">QQ")
pack_revision: Final = _REVISION.pack
"""`revision_key`, without a call between: for (main, b"_", sub)."""
pack_version: Final = Struct(">QQc").pack
"""`encode_version`, likewise: for (main, sub, flag)."""

COMPACTIONS_MAX: Final = 11
"""Compactions that wait, each to be done on its own; of more the oldest are left out.

One more than hashes are remembered (`mvcc.compaction_hashes`), so that these are of the same pairs
as in etcd."""


BucketRow = tuple[bytes, bytes, bytes | None]
"""A change of one of etcd's small buckets: which, key, value; None: deleted."""


class StateCorruptionError(Exception):
    """Stored octets contradict one another."""


def encode_u64(number: int) -> bytes:
    """Return etcd's encoding of a counter."""
    return _U64.pack(number)


def revision_key(main: int, sub: int, is_tombstone: bool = False) -> bytes:
    """Return etcd's key in the bucket ``key``: 17 octets, 18 for a tombstone."""
    return pack_revision(main, b"_", sub) + (b"t" if is_tombstone else b"")


def parse_revision_key(stored: bytes) -> tuple[int, int, bool]:
    """Return (main, sub, is_tombstone).  Raises `StateCorruptionError` when it is no such key."""
    size = len(stored)
    if size != REVISION_SIZE and size != REVISION_SIZE + 1:
        raise StateCorruptionError(f"{stored[:32]!r} is no revision")
    main, _, sub = _REVISION.unpack_from(stored)
    return main, sub, size != REVISION_SIZE


def encode_version(main: int, sub: int, flag: bytes) -> bytes:
    """Return a row of ``history``."""
    return pack_version(main, sub, flag)


def parse_version(version: bytes) -> tuple[int, int, bool]:
    """Return (main, sub, is_tombstone)."""
    main, sub = _PAIR.unpack_from(version)
    return main, sub, version[16:] == DEAD


def encode_reference(main: int, sub: int) -> bytes:
    """Return what stands in ``current`` for a large record.  No frame begins with 0."""
    return b"\0" + _PAIR.pack(main, sub)


def parse_reference(reference: bytes) -> bytes:
    """Return the referenced record's key in ``key``."""
    main, sub = _PAIR.unpack_from(reference, 1)
    return revision_key(main, sub)


def stored_key(key: bytes) -> bytes:
    """Return the name of ``key`` in ``current`` and ``history``.

    A long key keeps its first 480 octets and adds ``\\0`` and a hash of all of it: it sorts
    behind every key it should, and before every other; only among long keys with the same
    first 480 octets does the hash decide, and readers sort those by the key in the record.
    """
    if len(key) <= KEY_SIZE_MAX:
        return key
    return key[:KEY_SIZE_MAX] + b"\0" + sha256(key).digest()[:LONG_HASH_SIZE]


def attached_key(lease_id: int, key: bytes) -> bytes:
    """Return the name of an attachment; a long key's is hashed, its row holds the key."""
    if len(key) > ATTACHED_KEY_SIZE_MAX:
        key = key[:ATTACHED_KEY_SIZE_MAX] + b"\0" + sha256(key).digest()[:LONG_HASH_SIZE]
    return lease_prefix(lease_id) + key


def lease_prefix(lease_id: int) -> bytes:
    """Return what the names of a lease's attachments begin with; ids may be negative."""
    return _U64.pack(lease_id & 0xFFFFFFFFFFFFFFFF)


def fence_row(start: bytes, count: int) -> tuple[bytes, bytes]:
    """Return the row of a fence.  LMDB has no empty names, so one octet stands before all."""
    return b"f" + start, _U64.pack(count)


def encode_varint(number: int) -> bytes:
    """Return ``number`` as a protobuf varint."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


_HEADS: Final = tuple(b"\x12" + encode_varint(size) for size in range(1024))


def encode_frame(record: bytes) -> bytes:
    """Return ``record`` as field 2 of a RangeResponse."""
    size = len(record)
    return (_HEADS[size] if size < 1024 else b"\x12" + encode_varint(size)) + record


def current_value(main: int, sub: int, record: bytes) -> bytes:
    """Return what stands in ``current`` for the record put at a revision."""
    return encode_reference(main, sub) if len(record) > RECORD_INLINE_MAX else encode_frame(record)


def encode_tombstone(key: bytes) -> bytes:
    """Return the KeyValue that a tombstone stores: the key alone."""
    return b"\x0a" + encode_varint(len(key)) + key


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        octet = data[at]
        at += 1
        number |= (octet & 127) << shift
        if octet < 128:
            return number, at
        shift += 7


def key_of(record: bytes) -> bytes:
    """Return the user key of a record; empty for etcd's bump record, which has none."""
    if record[:1] != b"\x0a":
        return b""
    size, at = _varint(record, 1)
    return record[at : at + size]


def key_in(frames: bytes, at: int) -> bytes:
    """Return the user key of the frame that begins at ``at`` among joined ones."""
    _, at = _varint(frames, at + 1)
    size, at = _varint(frames, at + 1)
    return frames[at : at + size]


def lease_of(record: bytes) -> int:
    """Return the lease a record is attached to; 0: none."""
    return _number_in(record, 6 << 3)


def revision_of(value: bytes) -> int:
    """Return the main revision that put what stands in ``current``."""
    if value[0] == 0:
        return int(_PAIR.unpack_from(value, 1)[0])
    return _number_in(value[_varint(value, 1)[1] :], 3 << 3)


def _number_in(record: bytes, wanted: int) -> int:
    at = 0
    while at < len(record):
        tag, at = _varint(record, at)
        if tag & 7 == 2:
            size, at = _varint(record, at)
            at += size
        else:
            number, at = _varint(record, at)
            if tag == wanted:
                return number
    return 0


def after_group(name: bytes, end: bytes | None) -> bytes | None:
    """Return the first user key after a stored name, and after all of its group if long.

    None when that is ``end`` or later: the range is exhausted.
    """
    if len(name) <= KEY_SIZE_MAX:
        bound = name + b"\0"
    else:
        prefix = name[:KEY_SIZE_MAX].rstrip(b"\xff")
        if not prefix:
            return None
        bound = prefix[:-1] + bytes((prefix[-1] + 1,))
    return bound if end is None or bound < end else None


def is_same_group(name: bytes, other: bytes) -> bool:
    """Whether two stored names are of long keys that begin alike."""
    return len(name) > KEY_SIZE_MAX and name[:KEY_SIZE_MAX] == other[:KEY_SIZE_MAX]
