"""Octets of protobuf to JSON, in one go or as they come.

Fields come out as they stand in the octets; those of services ascend.  What is not known is
left out.
"""

from __future__ import annotations

import json
from binascii import b2a_base64
from typing import Final

from etcdtw.gateway.transcoding.tables import (
    BOOL,
    BYTES,
    ENUM,
    INT32,
    INT64,
    MESSAGE,
    STRING,
    UINT32,
    Field,
    Table,
)

PIECE_SIZE: Final = 8 * 1024
"""Octets that `Writer` looks at in one piece, passed by one value at the most."""
_SIGN: Final = 1 << 63
_MODULUS: Final = 1 << 64
_VARINT_SIZE_MAX: Final = 10


class MalformedError(Exception):
    """The octets are no message."""


def write(table: Table, octets: bytes) -> bytes:
    """Return a small message as JSON.  Raises `MalformedError`."""
    return _whole(table, octets, 0, len(octets))


def write_string(text: str) -> bytes:
    """Return ``text`` as a string of JSON."""
    return json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")


class Writer:
    """Writes one message whose octets come in any parts.

    `feed` it, take `piece` after piece while `has_more`, and at last its `end`.
    """

    __slots__ = (
        "_at",
        "_ends",
        "_is_begun",
        "_is_first",
        "_lists",
        "_octets",
        "_offset",
        "_tables",
    )

    def __init__(self, table: Table) -> None:
        self._octets = b""
        self._at = 0
        self._offset = 0  # of what is kept, in the whole message
        # Of each message that is open: its fields, where it ends, the list that is open in it.
        self._tables = [table]
        self._ends: list[int] = []
        self._lists: list[Field | None] = [None]
        self._is_first = [True]
        self._is_begun = False

    @property
    def has_more(self) -> bool:
        """Whether there are octets that were not looked at."""
        return self._at < len(self._octets)

    def feed(self, octets: bytes) -> None:
        """Take the next octets."""
        self._octets = self._octets[self._at :] + octets
        self._offset += self._at
        self._at = 0

    def piece(self, size: int = PIECE_SIZE) -> bytes:
        """Return JSON of about ``size`` octets more.

        What is not whole yet waits for more octets; then `has_more` stays.
        """
        out: list[bytes] = []
        if not self._is_begun:
            self._is_begun = True
            out.append(b"{")
        until = self._at + size
        while self._at < until and self._step(out):
            pass
        return b"".join(out)

    def end(self) -> bytes:
        """Return the end, behind the last piece.  Raises `MalformedError` if it is not whole."""
        out = [self.piece(0)]
        if self.has_more:
            raise MalformedError
        self._close_ended(out)
        if self._ends:
            raise MalformedError
        self._close_list(out)
        out.append(b"}")
        return b"".join(out)

    def _step(self, out: list[bytes]) -> bool:
        """Write one field, or the beginning of a message; False: its octets are not all there."""
        self._close_ended(out)
        at = self._at
        octets = self._octets
        tag, at = _varint(octets, at)
        if at < 0:
            return False
        wire_type = tag & 7
        field = self._tables[-1].by_tag.get(tag)
        number, at = _varint(octets, at)
        if at < 0:
            return False
        if wire_type == 0:
            self._at = at
            if field is not None:
                self._begin(out, field)
                out.append(_number(field, number))
            return True
        if wire_type != 2:
            raise MalformedError
        end = at + number
        if field is not None and field.kind == MESSAGE:
            self._begin(out, field)
            if number <= PIECE_SIZE and end <= len(octets):
                out.append(_whole(field.table, octets, at, end))
                self._at = end
            else:
                self._open(out, field.table, at, end)
            return True
        if end > len(octets):
            return False
        self._at = end
        if field is not None and (number or not field.is_packed):
            self._begin(out, field)
            out.append(_delimited(field, octets[at:end]))
        return True

    def _open(self, out: list[bytes], table: Table, at: int, end: int) -> None:
        """Begin a message that is written field by field."""
        out.append(b"{")
        self._at = at
        self._tables.append(table)
        self._ends.append(self._offset + end)
        self._lists.append(None)
        self._is_first.append(True)

    def _begin(self, out: list[bytes], field: Field) -> None:
        """Write what stands before a value."""
        if field is self._lists[-1]:
            out.append(b",")
            return
        self._close_list(out)
        if self._is_first[-1]:
            self._is_first[-1] = False
            out.append(field.first_key)
        else:
            out.append(field.next_key)
        if field.is_list:
            self._lists[-1] = field

    def _close_list(self, out: list[bytes]) -> None:
        if self._lists[-1] is not None:
            self._lists[-1] = None
            out.append(b"]")

    def _close_ended(self, out: list[bytes]) -> None:
        """Close the messages that end here."""
        ends = self._ends
        while ends and ends[-1] <= self._offset + self._at:
            if ends.pop() < self._offset + self._at:
                raise MalformedError
            self._close_list(out)
            out.append(b"}")
            self._tables.pop()
            self._lists.pop()
            self._is_first.pop()


def _whole(  # noqa: C901, PLR0912 - a loop of calls costs twice as much
    table: Table, octets: bytes, at: int, end: int
) -> bytes:
    """Return a small message in ``octets`` as JSON: what `Writer` does, for what is all there."""
    out: list[bytes] = []
    by_tag = table.by_tag
    open_list: Field | None = None
    while at < end:
        tag = octets[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = _varint(octets, at)
        number, at = _varint(octets, at)
        if at < 0:
            raise MalformedError
        wire_type = tag & 7
        start = at
        if wire_type == 2:
            at += number
        elif wire_type != 0:
            raise MalformedError
        field = by_tag.get(tag)
        if field is None:
            continue
        if wire_type == 2 and not number and field.is_packed:
            continue
        if field is open_list:
            out.append(b",")
        else:
            if open_list is not None:
                open_list = None
                out.append(b"]")
            out.append(field.next_key if out else field.first_key)
            if field.is_list:
                open_list = field
        if wire_type == 0:
            out.append(_number(field, number))
        elif field.kind == MESSAGE:
            out.append(_whole(field.table, octets, start, at))
        else:
            out.append(_delimited(field, octets[start:at]))
    if at != end:
        raise MalformedError
    if open_list is not None:
        out.append(b"]")
    return b"{%b}" % b"".join(out)


def _delimited(field: Field, octets: bytes) -> bytes:
    """Return a value that is no message; of a packed list all, one at least, without brackets."""
    if field.kind == BYTES:
        return b'"%b"' % b2a_base64(octets, newline=False)
    if field.kind == STRING:
        return write_string(octets.decode("utf-8", "replace"))
    found: list[bytes] = []
    at = 0
    while at < len(octets):
        number, at = _varint(octets, at)
        if at < 0:
            raise MalformedError
        found.append(_number(field, number))
    return b",".join(found)


def _number(field: Field, number: int) -> bytes:
    kind = field.kind
    if kind == INT64:
        return b'"%d"' % (number - _MODULUS if number >= _SIGN else number)
    if kind == BOOL:
        return b"true" if number else b"false"
    if kind == ENUM:
        name = field.enum_names.get(number)
        if name is not None:
            return name
    if kind in (INT32, ENUM):
        number &= 0xFFFFFFFF
        return b"%d" % (number - (1 << 32) if number >> 31 else number)
    return b"%d" % number if kind == UINT32 else b'"%d"' % number


def _varint(octets: bytes, at: int) -> tuple[int, int]:
    """Return a number and the position behind it, which is -1 when there are too few octets."""
    size = len(octets)
    if at >= size:
        return 0, -1
    octet = octets[at]
    if octet < 0x80:
        return octet, at + 1
    number = octet & 0x7F
    shift = 7
    for position in range(at + 1, min(at + _VARINT_SIZE_MAX, size)):
        octet = octets[position]
        number |= (octet & 0x7F) << shift
        if octet < 0x80:
            return number, position + 1
        shift += 7
    if size - at >= _VARINT_SIZE_MAX:
        raise MalformedError
    return 0, -1
