"""Header compression: a decoder with its table, and a stateless encoder.

The decoder keeps static and dynamic entries in one list, so that an index is an index.  A block
that left the table unchanged is remembered and answered with the same `HeaderList` until the
table changes.  The encoder never uses the dynamic table: a block it made is valid at any time on
any connection, so that hot replies can be rendered once.  Source: RFC 7541.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from etcdtw.http2 import fields, huffman
from etcdtw.http2.errors import CompressionError, TooManyFieldsError
from etcdtw.http2.events import Field, HeaderList
from etcdtw.http2.static_table import STATIC_TABLE

ENTRY_OVERHEAD: Final = 32
"""RFC 7541 4.1: what an entry counts beyond its octets."""
FIRST_DYNAMIC: Final = 62
INTEGER_MAX: Final = 2**32 - 1
"""No length, index or table size of ours comes near; larger ones are refused."""
INTEGER_OCTETS_MAX: Final = 6
FIELDS_MIN: Final = 256
"""So many fields are decoded whatever the size limit of a list is."""
BLOCK_CACHED_SIZE_MAX: Final = 4_096
"""A larger block is decoded each time: what is kept stays as long as an idle connection."""

_STATIC_ENTRY_MAX: Final = ENTRY_OVERHEAD + max(len(n) + len(v) for n, v in STATIC_TABLE)
_NOTHING: Final[Field] = (b"", b"")

_FULL_INDEX: Final = {field: i for i, field in reversed(list(enumerate(STATIC_TABLE, 1)))}
_NAME_INDEX: Final = {field[0]: i for i, field in reversed(list(enumerate(STATIC_TABLE, 1)))}
_NEVER_INDEXED: Final = frozenset((b"authorization", b"token", b"cookie", b"set-cookie"))
"""Secrets: an intermediary must not put them in a table (RFC 7541 7.1.3)."""

SIZE_UPDATE_ZERO: Final = b"\x20"
"""Dynamic table size update to 0, for the block after a peer lowered its table size."""


def decode_integer(block: bytes, pos: int, prefix: int) -> tuple[int, int]:
    """Return (value, next position) of an integer whose prefix was full.

    ``pos`` is behind the prefix octet, ``prefix`` the largest value the prefix can hold.
    Raises `CompressionError` when it is cut short, too long or over `INTEGER_MAX`.
    """
    value = prefix
    shift = 0
    for i in range(pos, min(pos + INTEGER_OCTETS_MAX, len(block))):
        octet = block[i]
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            if value > INTEGER_MAX:
                break
            return value, i + 1
        shift += 7
    raise CompressionError("bad integer")


def encode_integer(value: int, prefix_bits: int, first: int) -> bytes:
    """Return ``value`` with the pattern ``first`` in front of its prefix."""
    prefix = (1 << prefix_bits) - 1
    if value < prefix:
        return bytes((first | value,))
    out = bytearray((first | prefix,))
    value -= prefix
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_field(name: bytes, value: bytes) -> bytes:
    """Return one field: indexed when the static table holds it, else a literal, not indexed."""
    index = _FULL_INDEX.get((name, value))
    if index is not None:
        return bytes((0x80 | index,))
    pattern = 0x10 if name in _NEVER_INDEXED else 0x00
    index = _NAME_INDEX.get(name, 0)
    head = encode_integer(index, 4, pattern)
    if not index:
        head += encode_integer(len(name), 7, 0) + name
    return head + encode_integer(len(value), 7, 0) + value


def encode_block(headers: Iterable[Field]) -> bytes:
    """Return a header block that any peer can decode at any time, whatever came before."""
    return b"".join([encode_field(name, value) for name, value in headers])


class Decoder:
    """Decodes the header blocks of one direction of one connection, in order.

    ``cache`` maps the octets of a block to its `HeaderList`; the connection looks there first.
    After a `CompressionError` the decoder must not be used again.
    """

    def __init__(self, table_size_max: int, list_size_max: int, cache_count_max: int) -> None:
        self._table_size_limit = table_size_max  # our setting; the peer may stay below it
        self._table_size_max = table_size_max
        self._list_size_max = list_size_max
        self._fields_max = max(list_size_max // ENTRY_OVERHEAD, FIELDS_MIN)
        self._cache_count_max = cache_count_max
        self._entries: list[Field] = [_NOTHING, *STATIC_TABLE]
        self._table_size = 0
        self._entry_size_max = _STATIC_ENTRY_MAX  # upper bound of any entry there ever was
        self._tainted = False  # a malformed entry went into the table: check every list in full
        self._malformed = False  # the block at hand holds a malformed literal
        self.generation = 0
        self.cache: dict[bytes, HeaderList] = {}

    @property
    def table_size(self) -> int:
        """Octets in the dynamic table as RFC 7541 4.1 counts them."""
        return self._table_size

    def decode(self, block: bytes) -> HeaderList | None:
        """Return the fields of ``block``; None when the list is over its size limit.

        Raises `CompressionError` when the block is not valid HPACK, `TooManyFieldsError` when it
        goes on beyond any list of the size limit.
        """
        found = self.cache.get(block)
        if found is not None:
            return found
        generation = self.generation
        self._malformed = False
        fields_found = self._read_block(block)
        if self._over_limit(fields_found, len(block)):
            return None
        if self._tainted:
            self._malformed = not fields.are_clean(fields_found)
        headers = HeaderList(tuple(fields_found), not self._malformed)
        if generation == self.generation and len(block) <= BLOCK_CACHED_SIZE_MAX:
            if len(self.cache) >= self._cache_count_max:
                self.cache.clear()
            self.cache[block] = headers
        return headers

    def _read_block(self, block: bytes) -> list[Field]:
        # Not as `Field`, or the compiled module takes each one apart and joins it anew.
        entries: list[Any] = self._entries
        found: list[Any] = []
        fields_max = self._fields_max
        pos = 0
        end = len(block)
        while pos < end:
            if len(found) > fields_max:
                # One more than any list may have; the rest would only cost time.
                raise TooManyFieldsError("too many header fields")
            octet = block[pos]
            pos += 1
            if octet > 0x80:
                index = octet & 0x7F
                if index == 0x7F:
                    index, pos = decode_integer(block, pos, 0x7F)
                if index >= len(entries):
                    raise CompressionError("index past the table")
                found.append(entries[index])
            elif octet >= 0x40:
                if octet == 0x80:
                    raise CompressionError("index 0")
                index = octet & 0x3F
                if index == 0x3F:
                    index, pos = decode_integer(block, pos, 0x3F)
                field, pos = self._read_literal(block, pos, index)
                self._insert(field)
                found.append(field)
            elif octet >= 0x20:
                if found:
                    raise CompressionError("table size update behind a field")
                pos = self._resize(block, pos, octet & 0x1F)
            else:
                index = octet & 0x0F
                if index == 0x0F:
                    index, pos = decode_integer(block, pos, 0x0F)
                field, pos = self._read_literal(block, pos, index)
                found.append(field)
        return found

    def _read_literal(self, block: bytes, pos: int, index: int) -> tuple[Field, int]:
        if index:
            if index >= len(self._entries):
                raise CompressionError("name index past the table")
            name = self._entries[index][0]
        else:
            name, pos = self._read_string(block, pos)
            if not fields.is_name(name):
                self._malformed = True
        value, pos = self._read_string(block, pos)
        if not fields.is_value(value):
            self._malformed = True
        return (name, value), pos

    def _read_string(self, block: bytes, pos: int) -> tuple[bytes, int]:
        if pos >= len(block):
            raise CompressionError("string missing")
        octet = block[pos]
        pos += 1
        length = octet & 0x7F
        if length == 0x7F:
            length, pos = decode_integer(block, pos, 0x7F)
        end = pos + length
        if end > len(block):
            raise CompressionError("string cut short")
        text = block[pos:end]
        return (huffman.decode(text) if octet & 0x80 else text), end

    def _insert(self, field: Field) -> None:
        size = len(field[0]) + len(field[1]) + ENTRY_OVERHEAD
        self.generation += 1
        if self.cache:
            self.cache.clear()
        if self._malformed:
            self._tainted = True
        if size > self._entry_size_max:
            self._entry_size_max = size
        if self._table_size + size > self._table_size_max:
            self._evict(self._table_size_max - size)
        # An entry larger than the whole table empties it and is not kept (RFC 7541 4.4).
        if size <= self._table_size_max:
            self._entries.insert(FIRST_DYNAMIC, field)
            self._table_size += size

    def _evict(self, room: int) -> None:
        """Drop the oldest entries until the table holds at most ``room`` octets."""
        entries = self._entries
        while self._table_size > room and len(entries) > FIRST_DYNAMIC:
            name, value = entries.pop()
            self._table_size -= len(name) + len(value) + ENTRY_OVERHEAD

    def _resize(self, block: bytes, pos: int, size: int) -> int:
        if size == 0x1F:
            size, pos = decode_integer(block, pos, 0x1F)
        if size > self._table_size_limit:
            raise CompressionError("table size over our setting")
        if size != self._table_size_max:
            self.generation += 1
            self.cache.clear()
            self._table_size_max = size
            self._evict(size)
        return pos

    def _over_limit(self, found: list[Field], block_size: int) -> bool:
        # A cheap upper bound first: a literal holds at most 8/5 of its octets in the block.
        if len(found) * self._entry_size_max + 2 * block_size <= self._list_size_max:
            return False
        size = sum([len(name) + len(value) + ENTRY_OVERHEAD for name, value in found])
        return size > self._list_size_max
