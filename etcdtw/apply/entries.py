"""What form an entry has: the one request in it, found without parsing the whole.

    entry := InternalRaftRequest            1 ID, 100 header, and exactly one request's field
           | Request                        bare, of the old API; etcd up to 3.5 writes it

Both are protobuf and nothing marks the second: it is told by its field 2, which holds the
name of a method where an InternalRaftRequest would hold a message.  Every entry that another
member has proposed comes through here.  Source: etcd's ``raft_internal.proto``.
"""

from __future__ import annotations

from typing import Final

from etcdtw.wire.encode import read_varint
from etcdtw.wire.entry_header import (
    FIELD_HEADER,
    HEADER_TAG,
    NOBODY,
    NOBODYS,
    PREFIX_SIZE,
    Asker,
    decode_header,
)

FIELD_ID: Final = 1
FIELD_V2: Final = 2

V2_METHODS: Final = frozenset((b"PUT", b"POST", b"DELETE", b"QGET", b"SYNC"))

_V2_TAG: Final = 0x12
_LAST_BUT_ONE: Final = PREFIX_SIZE - 2
"""Where an id of ours, of ten octets, has its last but one."""
_VARINT: Final = 0
_DELIMITED: Final = 2


class UnknownEntryError(Exception):
    """A committed entry that this version cannot apply: the member must stop, not skip it."""


def find_request(data: bytes) -> tuple[int, int, int]:
    """Return the request's field, and where its octets begin and end.

    A bare `Request` is field 2 and all of ``data``.  Raises ValueError when there is not
    exactly one request.
    """
    size = len(data)
    position = PREFIX_SIZE if data.startswith(NOBODYS) else 0
    if position + 3 <= size:
        tag = data[position]
        length = data[position + 1]
        start = position + 2
        if tag < 0x80 and tag & 7 == _DELIMITED and tag != _V2_TAG:
            # Up to two octets by hand: most requests are no longer.
            if length >= 0x80:
                second = data[start]
                if second < 0x80:
                    length = length & 0x7F | second << 7
                    start += 1
                else:
                    length, start = read_varint(data, position + 1)
            end = start + length
            # Ours ends here; real etcd writes the header behind the request.
            if end == size or (position == 0 and end + 3 <= size and _is_header(data, end, size)):
                return tag >> 3, start, end
    return _find_among_all(data)


def asker_of(data: bytes, start: int, end: int) -> Asker:
    """Return who asked for an entry; ``start`` and ``end`` are its request's.

    Raises ValueError for a header that cannot be read.
    """
    # Real members' ids may be shorter than ours, with something else in the room that is left.
    if data.startswith(NOBODYS) and data[_LAST_BUT_ONE] >= 0x80:
        return NOBODY
    asker = NOBODY
    for position, stop in ((0, start), (end, len(data))):
        while position < stop:
            tag, position = read_varint(data, position)
            if tag & 7 == _VARINT:
                _, position = read_varint(data, position)
                continue
            size, position = read_varint(data, position)
            if tag >> 3 == FIELD_HEADER:
                asker = decode_header(data[position : position + size]).asker
            position += size
    return asker


def _is_header(data: bytes, position: int, size: int) -> bool:
    """Tell whether a header with a short length is all that follows."""
    length = data[position + 2]
    return data.startswith(HEADER_TAG, position) and length < 0x80 and position + 3 + length == size


def _find_among_all(data: bytes) -> tuple[int, int, int]:
    size = len(data)
    position = 0
    found = (0, 0, 0)
    while position < size:
        tag, position = read_varint(data, position)
        field = tag >> 3
        kind = tag & 7
        if kind == _VARINT and field == FIELD_ID:
            _, position = read_varint(data, position)
            continue
        if kind != _DELIMITED:
            raise ValueError(f"field {field} has wire type {kind}")
        length, position = read_varint(data, position)
        end = position + length
        if end > size:
            raise ValueError(f"field {field} is cut short")
        if field == FIELD_V2 and data[position:end] in V2_METHODS:
            return FIELD_V2, 0, size
        if field != FIELD_HEADER:
            if found[0]:
                raise ValueError(f"fields {found[0]} and {field} are both requests")
            found = (field, position, end)
        position = end
    if not found[0]:
        raise ValueError("no request")
    return found
