"""Protobuf octets by hand, for the replies and records that are built most often.

Knows the encoding (https://protobuf.dev/programming-guides/encoding), not the messages,
except for `ResponseHeaders`.  Everything here produces canonical octets: minimal varints,
fields ascending, default values omitted.
"""

from __future__ import annotations

from typing import Final

_TABLE_SIZE: Final = 1 << 14  # two groups of 7 bits: 1.2 MiB of small bytes for both tables
_MASK_LOW: Final = _TABLE_SIZE - 1
_UINT64_MASK: Final = (1 << 64) - 1
_TWO_LOOKUPS_END: Final = 1 << 28

_LAST: Final = [
    bytes((i,)) if i < 0x80 else bytes((i & 0x7F | 0x80, i >> 7)) for i in range(_TABLE_SIZE)
]
"""The whole varint of a number below 2**14."""
LEADING: Final = [bytes((i & 0x7F | 0x80, i >> 7 | 0x80)) for i in range(_TABLE_SIZE)]
"""The two leading octets of a longer varint, by its low 14 bits."""


def encode_varint(number: int) -> bytes:
    """Encode an int64 or uint64; a negative number takes ten octets.

    Raises `ValueError` outside ``-2**63 .. 2**64 - 1``.
    """
    if 0 <= number < _TABLE_SIZE:
        return _LAST[number]
    if 0 < number < _TWO_LOOKUPS_END:
        return LEADING[number & _MASK_LOW] + _LAST[number >> 14]
    return _long_varint(number)


def _long_varint(number: int) -> bytes:
    if not -(1 << 63) <= number <= _UINT64_MASK:
        raise ValueError(f"{number} is not a 64-bit number")
    number &= _UINT64_MASK
    groups: list[bytes] = []
    while number >= _TABLE_SIZE:
        groups.append(LEADING[number & _MASK_LOW])
        number >>= 14
    groups.append(_LAST[number])
    return b"".join(groups)


def read_varint(octets: bytes, start: int) -> tuple[int, int]:
    """Return the unsigned number at ``start`` and the position behind it.

    Raises `ValueError` when the number is cut short or longer than ten octets.
    """
    number = 0
    shift = 0
    position = start
    while position < len(octets) and shift < 70:
        octet = octets[position]
        position += 1
        number |= (octet & 0x7F) << shift
        if octet < 0x80:
            return number & _UINT64_MASK, position
        shift += 7
    raise ValueError(f"no varint at octet {start}")


def delimited(tag: bytes, payload: bytes) -> bytes:
    """Return ``payload`` as a length-delimited field; ``tag`` is the encoded tag."""
    return b"%b%b%b" % (tag, encode_varint(len(payload)), payload)


def encode_record(
    key: bytes, create_revision: int, mod_revision: int, version: int, value: bytes, lease: int
) -> bytes:
    """Return an ``mvccpb.KeyValue`` as etcd stores and hashes it."""
    parts = [b"\x0a", encode_varint(len(key)), key] if key else []
    if create_revision:
        parts += (b"\x10", encode_varint(create_revision))
    if mod_revision:
        parts += (b"\x18", encode_varint(mod_revision))
    if version:
        parts += (b"\x20", encode_varint(version))
    if value:
        parts += (b"\x2a", encode_varint(len(value)), value)
    if lease:
        parts += (b"\x30", encode_varint(lease))
    return b"".join(parts)


def encode_renewed(header: bytes, lease_id: int, ttl_s: int) -> bytes:
    """Return a ``LeaseKeepAliveResponse``."""
    lease = b"\x10" + encode_varint(lease_id) if lease_id else b""
    ttl = b"\x18" + encode_varint(ttl_s) if ttl_s else b""
    return header + lease + ttl


class ResponseHeaders:
    """Encodes the ``header`` field (number 1) of this member's responses.

    One per member.  ``set_term`` when the term changes; the rest of the header is fixed but
    for the revision.
    """

    def __init__(self, cluster_id: int, member_id: int, term: int = 0) -> None:
        ids = b""
        if cluster_id:
            ids += b"\x08" + encode_varint(cluster_id)
        if member_id:
            ids += b"\x10" + encode_varint(member_id)
        self._ids = ids
        self._term = b""
        self._fixed_size = 0
        self._revision = -1
        self._encoded = b""
        self.set_term(term)

    def set_term(self, term: int) -> None:
        self._term = b"\x20" + encode_varint(term) if term else b""
        self._fixed_size = len(self._ids) + len(self._term)
        self._revision = -1

    def encode(self, revision: int) -> bytes:
        """Return tag, length and ``ResponseHeader``, to be joined in front of a body.

        Revision 0 stands for "no revision", as in the cluster service's responses.
        """
        # All the answers of one turn that read share one revision.
        if revision == self._revision:
            return self._encoded
        field = b"\x18" + encode_varint(revision) if revision else b""
        size = encode_varint(self._fixed_size + len(field))
        self._encoded = b"\x0a%b%b%b%b" % (size, self._ids, field, self._term)
        self._revision = revision
        return self._encoded
