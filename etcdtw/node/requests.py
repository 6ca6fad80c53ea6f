"""Proposals on their way: how a request becomes an entry's octets, and who waits for it.

An entry of ours begins with a prefix of fixed length that holds its request id, so that apply
finds the waiter with one slice and one look-up, and takes the request already parsed.

    entry := 0xA2 0x06 0x0B 0x08 varint10(request id)  tag(field) varint(length) request
             `- InternalRaftRequest.header.ID -------'

Source: etcd's ``InternalRaftRequest`` (field 100 is ``RequestHeader``, whose field 1 is ID).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.wire.encode import encode_varint

HEADER: Final = b"\xa2\x06\x0b\x08"
PREFIX_SIZE: Final = len(HEADER) + 10
ID_TOP: Final = 1 << 63
"""Set in every id of ours: its varint then always takes ten octets."""

Done = Callable[[Call, Applied], None]


class RequestIds:
    """Entry prefixes with unique request ids.

    As in etcd, an id is member (15 bits here, after the top one), milliseconds (40 bits) and a
    counter (8 bits) that overflows into the milliseconds; ids stay unique over restarts as long
    as fewer than 256 requests a millisecond were made, on average, since the start.
    """

    def __init__(self, member_id: int, start_ms: int) -> None:
        self._next = ID_TOP | ((member_id & 0x7FFF) << 48) | ((start_ms & ((1 << 40) - 1)) << 8)
        self._low = 0
        self._tail = b""

    def next_prefix(self) -> bytes:
        """Return the octets with which the next entry begins."""
        # The two low groups of seven bits are spliced in by hand; the other eight octets of the
        # varint change once in 16,384 requests.
        low = self._next & 0x3FFF
        if low == 0 or not self._tail:
            self._tail = encode_varint(self._next)[2:]
        self._next += 1
        return HEADER + bytes(((low & 0x7F) | 0x80, (low >> 7) | 0x80)) + self._tail

    def next_id(self) -> int:
        """Return an id for what is no request: a conf change, an entry nobody waits for."""
        number = self._next
        if number & 0x3FFF == 0:
            self._tail = b""  # `next_prefix` makes it again
        self._next += 1
        return number


class Waiter:
    """One proposal whose outcome somebody waits for.

    ``request`` is what ``data`` encodes, parsed once.  Apply uses it only for an entry that holds
    exactly ``data``: an id met again in an old entry must not change what that entry does.
    """

    __slots__ = ("call", "data", "done", "field", "request", "started_ms")

    def __init__(
        self, data: bytes, field: int, request: Any, call: Call, done: Done, started_ms: int
    ) -> None:
        self.data = data
        self.field = field
        self.request = request
        self.call = call
        self.done = done
        self.started_ms = started_ms


_TAGS: dict[int, bytes] = {}


def tag(field: int) -> bytes:
    """Return the tag of a length-delimited field."""
    octets = _TAGS.get(field)
    if octets is None:
        octets = _TAGS[field] = encode_varint(field << 3 | 2)
    return octets
