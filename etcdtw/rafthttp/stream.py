"""The two streams between members, as octets: ``message`` and ``msgapp`` (version 2).

A writer and a reader belong to one connection: ``msgapp`` leaves out what the message before it
implies, so both ends must have seen the same messages.  Knows no sockets and no HTTP.

::

    message   (u64 length, Message)*                  a link heartbeat: from and to are 0
    msgapp    (kind octet, ...)*
              0  link heartbeat
              1  u64 count, (u64 length, Entry)*, u64 commit     goes on where the last one ended
              2  u64 length, Message
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from etcdtw.raft.entry import Entry
from etcdtw.raft.message import MSG_APP, MSG_HEARTBEAT, NO_MEMBER, Message
from etcdtw.rafthttp.codec import (
    MalformedMessageError,
    decode_entry,
    decode_message,
    encode_entry,
    encode_message,
)

MESSAGE_SIZE_MAX: Final = 512 * 1024 * 1024
"""Octets of one message; etcd's bound.  Memory grows with what arrives, not with what is said."""
ENTRIES_MAX: Final = 1 << 20
"""Entries of one MsgApp: an entry takes 6 octets or more, a message is about 1 MiB."""

KIND_HEARTBEAT: Final = 0
KIND_ENTRIES: Final = 1
KIND_MESSAGE: Final = 2

_U64: Final = Struct(">Q")
_pack_u64 = _U64.pack

# What a msgapp reader waits for next.
_KIND: Final = 0
_COUNT: Final = 1
_ENTRY_LENGTH: Final = 2
_ENTRY: Final = 3
_COMMIT: Final = 4
_MESSAGE_LENGTH: Final = 5
_MESSAGE: Final = 6
_SIZES: Final = (1, 8, 8, 0, 8, 8, 0)  # 0: as long as was said before


class PeerStreamError(Exception):
    """The peer sent octets that cannot be this stream; the connection is lost."""


class Octets:
    """Octets that arrived and were not taken yet; joins them when there are enough, not before."""

    __slots__ = ("_chunks", "_data", "_start", "size")

    def __init__(self) -> None:
        self._data = b""
        self._start = 0
        self._chunks: list[bytes] = []
        self.size = 0

    def feed(self, data: bytes) -> None:
        self._chunks.append(data)
        self.size += len(data)

    def take(self, size: int) -> bytes | None:
        """Return the next ``size`` octets, or None as long as they are not all there."""
        if self.size < size:
            return None
        end = self._start + size
        if end > len(self._data):
            self._data = self._data[self._start :] + b"".join(self._chunks)
            self._chunks.clear()
            end = size
            self._start = 0
        taken = self._data[self._start : end]
        self._start = end
        self.size -= size
        return taken

    def take_all(self, size_max: int) -> bytes:
        """Return what is there, at most ``size_max`` octets; may be empty."""
        return self.take(min(self.size, size_max)) or b""


class MessageWriter:
    """The sending end of one ``message`` stream."""

    __slots__ = ()

    def encode(self, m: Message) -> bytes:
        """Return ``m`` in its frame."""
        octets = encode_message(m)
        return _pack_u64(len(octets)) + octets


MESSAGE_HEARTBEAT: Final = MessageWriter().encode(Message(MSG_HEARTBEAT))
"""A link heartbeat of a ``message`` stream: says that it lives; the reader drops it."""
APPEND_HEARTBEAT: Final = b"\x00"
"""The same of a ``msgapp`` stream."""


class MessageReader:
    """The receiving end of one ``message`` stream."""

    __slots__ = ("_length", "_octets", "_size_max")

    def __init__(self, size_max: int = MESSAGE_SIZE_MAX) -> None:
        self._size_max = size_max
        self._octets = Octets()
        self._length = -1  # of the message that is arriving

    def feed(self, data: bytes) -> list[Message]:
        """Take ``data`` and return the messages it completes, link heartbeats left out.

        Raises `PeerStreamError`; the reader must not be fed again after that.
        """
        octets = self._octets
        octets.feed(data)
        found: list[Message] = []
        while True:
            if self._length < 0:
                prefix = octets.take(8)
                if prefix is None:
                    return found
                self._length = read_length(prefix, self._size_max)
            body = octets.take(self._length)
            if body is None:
                return found
            self._length = -1
            m = _decode_message(body)
            if not is_link_heartbeat(m):
                found.append(m)


class AppendWriter:
    """The sending end of one ``msgapp`` stream."""

    __slots__ = ("_index", "_term")

    def __init__(self) -> None:
        self._term = 0
        self._index = 0

    def encode(self, m: Message) -> bytes:
        """Return ``m``, a MsgApp, as entries alone if it goes on where the last one ended."""
        entries = m.entries
        if self._index == m.index and self._term == m.log_term == m.term:
            self._index += len(entries)
            parts = [b"\x01", _pack_u64(len(entries))]
            for entry in entries:
                octets = encode_entry(entry)
                parts += (_pack_u64(len(octets)), octets)
            parts.append(_pack_u64(m.commit))
            return b"".join(parts)
        self._term = m.term
        self._index = entries[-1].index if entries else m.index
        octets = encode_message(m)
        return b"\x02%b%b" % (_pack_u64(len(octets)), octets)


class AppendReader:
    """The receiving end of one ``msgapp`` stream: from ``remote_id``, to ``local_id``."""

    __slots__ = (
        "_count",
        "_entries",
        "_first_index",
        "_index",
        "_length",
        "_local_id",
        "_octets",
        "_remote_id",
        "_size",
        "_size_max",
        "_state",
        "_term",
    )

    def __init__(self, local_id: int, remote_id: int, size_max: int = MESSAGE_SIZE_MAX) -> None:
        self._local_id = local_id
        self._remote_id = remote_id
        self._size_max = size_max
        self._octets = Octets()
        self._term = 0
        self._index = 0
        self._state = _KIND
        self._length = 0
        # The entries that are arriving: how many are to come, and their octets so far.
        self._count = 0
        self._entries: list[Entry] = []
        self._first_index = 0
        self._size = 0

    def feed(self, data: bytes) -> list[Message]:
        """Take ``data`` and return the messages it completes.

        Raises `PeerStreamError`; the reader must not be fed again after that.
        """
        octets = self._octets
        octets.feed(data)
        found: list[Message] = []
        while True:
            part = octets.take(_SIZES[self._state] or self._length)
            if part is None:
                return found
            m = self._read(part)
            if m is not None:
                found.append(m)

    def _read(self, part: bytes) -> Message | None:
        """Take the part that `_state` waits for; returns the message that it ends."""
        state = self._state
        if state == _ENTRY_LENGTH:
            self._length = read_length(part, self._size_max - self._size)
            self._size += self._length
            self._state = _ENTRY
        elif state == _ENTRY:
            self._read_entry(part)
        elif state == _KIND:
            self._read_kind(part[0])
        elif state == _COUNT:
            self._begin_entries(int.from_bytes(part, "big"))
        elif state == _MESSAGE_LENGTH:
            self._length = read_length(part, self._size_max)
            self._state = _MESSAGE
        elif state == _COMMIT:
            self._state = _KIND
            return self._end_entries(int.from_bytes(part, "big"))
        else:
            self._state = _KIND
            m = _decode_message(part)
            self._term = m.term
            self._index = m.entries[-1].index if m.entries else m.index
            return m
        return None

    def _read_kind(self, kind: int) -> None:
        if kind == KIND_ENTRIES:
            self._state = _COUNT
        elif kind == KIND_MESSAGE:
            self._state = _MESSAGE_LENGTH
        elif kind != KIND_HEARTBEAT:
            raise PeerStreamError(f"{kind} is no kind of a msgapp stream: it has 0, 1 and 2")

    def _begin_entries(self, count: int) -> None:
        if count > ENTRIES_MAX:
            raise PeerStreamError(f"{count} entries in one message: {ENTRIES_MAX} are allowed")
        if not self._term:
            raise PeerStreamError("entries alone before any whole message: their term is unknown")
        self._count = count
        self._entries = []
        self._first_index = self._index
        self._size = 0
        self._state = _ENTRY_LENGTH if count else _COMMIT

    def _read_entry(self, part: bytes) -> None:
        try:
            entry = decode_entry(part)
        except MalformedMessageError as error:
            raise PeerStreamError(str(error)) from error
        self._index += 1
        # Nothing else tells that the two ends went out of step, and the log would take it.
        if entry.index != self._index:
            raise PeerStreamError(f"entry {entry.index} came where {self._index} was next")
        self._entries.append(entry)
        self._count -= 1
        self._state = _ENTRY_LENGTH if self._count else _COMMIT

    def _end_entries(self, commit: int) -> Message:
        entries, self._entries = self._entries, []
        return Message(
            MSG_APP,
            to=self._local_id,
            from_id=self._remote_id,
            term=self._term,
            log_term=self._term,
            index=self._first_index,
            entries=entries,
            commit=commit,
        )


def is_link_heartbeat(m: Message) -> bool:
    """Tell a sign of life of the stream from Raft's own heartbeat."""
    return m.type == MSG_HEARTBEAT and m.from_id == NO_MEMBER and m.to == NO_MEMBER


def read_length(prefix: bytes, size_max: int) -> int:
    """Return the length that ``prefix`` says.  Raises `PeerStreamError` above ``size_max``."""
    length = int.from_bytes(prefix, "big")
    if length > size_max:
        raise PeerStreamError(f"a message of {length} octets: {size_max} are allowed")
    return length


def _decode_message(octets: bytes) -> Message:
    try:
        return decode_message(octets)
    except MalformedMessageError as error:
        raise PeerStreamError(str(error)) from error
