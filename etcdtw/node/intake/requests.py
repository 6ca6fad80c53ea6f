"""Proposals on their way: how a request becomes an entry's octets, and who waits for it.

An entry of ours begins with its header (`wire.entry_header`), whose first octets hold the
request id, so that apply finds the waiter with one slice and one look-up, and takes the request
already parsed.

    entry := header  tag(field) varint(length) request
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.wire.encode import LEADING, encode_varint
from etcdtw.wire.entry_header import ID_TOP, NOBODYS, TAG_ID, Asker

HEADER: Final = NOBODYS + TAG_ID
LOW_BITS: Final = 14
LOW_MASK: Final = (1 << LOW_BITS) - 1

Done = Callable[[Call, Applied], None]


class RequestIds:
    """Headers of entries with unique request ids.

    As in etcd, an id is member (15 bits here, after the top one), milliseconds (40 bits) and a
    counter (8 bits) that overflows into the milliseconds; ids stay unique over restarts as long
    as fewer than 256 requests a millisecond were made, on average, since the start.
    """

    def __init__(self, member_id: int, start_ms: int) -> None:
        first = ID_TOP | ((member_id & 0x7FFF) << 48) | ((start_ms & ((1 << 40) - 1)) << 8)
        self._high = first >> LOW_BITS
        self._low = first & LOW_MASK
        self._tail = encode_varint(self._high)

    def next_header(self) -> bytes:
        """Return the header of the next entry, as nobody's."""
        # Two groups of the varint by one look-up; the other eight change once in 16,384 requests.
        low = self._next_low()
        return HEADER + LEADING[low] + self._tail

    def next_id(self) -> int:
        """Return an id for what is no request: a conf change, an entry nobody waits for."""
        low = self._next_low()
        return self._high << LOW_BITS | low

    def _next_low(self) -> int:
        low = self._low
        if low > LOW_MASK:
            self._high += 1
            self._tail = encode_varint(self._high)
            low = 0
        self._low = low + 1
        return low


class Waiter:
    """One proposal whose outcome somebody waits for.

    ``request`` is what ``data`` encodes, parsed once.  Apply uses it, and ``asker``, who is in the
    header, only for an entry that holds exactly ``data``: an id met again in an old one must not
    change what that entry does.
    """

    __slots__ = ("asker", "call", "data", "done", "field", "request", "started_ms")

    def __init__(
        self,
        data: bytes,
        asker: Asker,
        field: int,
        request: Any,
        call: Call,
        done: Done,
        started_ms: int,
    ) -> None:
        self.data = data
        self.asker = asker
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
