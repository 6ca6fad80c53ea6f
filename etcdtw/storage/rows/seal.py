"""Checksums of ours on every row of `state/`: four octets behind each value.

A seal covers the table, the name and the value, so that a row that lies in another row's place is
found as well.  It is a CRC-32C made so that the sum over a row with its seal is the sum it began
with: rows that stand behind one another are checked in one go, however many.  Knows no LMDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final

import google_crc32c

from etcdtw.storage.rows.codec import (
    BUCKETS,
    DERIVED,
    KEY_SIZE_MAX,
    ROW_FORMAT,
    TABLE_KEY,
    TABLE_PRIVATE,
    StateCorruptionError,
)

SEAL_SIZE: Final = 4  # octets
OTHER_SUM: Final = "its checksum is another"

_SEAL: Final = Struct("<I")
_POLYNOMIAL: Final = 0x82F63B78  # CRC-32C, reflected
_ONES: Final = 0xFFFFFFFF

Row = tuple[bytes, bytes]

_extend: Final = google_crc32c.extend
_pack: Final = _SEAL.pack


class StateDamageError(StateCorruptionError):
    """A stored row is not what was written there.  ``table`` and ``name`` say which one."""

    def __init__(self, table: bytes, name: bytes, why: str = OTHER_SUM) -> None:
        super().__init__(f"the row {name[:64]!r} of the table `{table.decode()}` is damaged: {why}")
        self.table = table
        self.name = name
        self.why = why


class PageDamageError(StateDamageError):
    """LMDB cannot read a page of a table: nothing may be written to it either."""

    def __init__(self, table: bytes, name: bytes, error: Exception) -> None:
        super().__init__(table, name, str(error))


def _turned_back(register: int) -> int:
    """Return the register of the sum as it was four octets of zeros before."""
    for _ in range(8 * SEAL_SIZE):
        if register & 0x80000000:
            register = ((register ^ _POLYNOMIAL) << 1 | 1) & _ONES
        else:
            register <<= 1
    return register


class Seal:
    """The seals of one table."""

    def __init__(self, table: bytes) -> None:
        self.table = table
        self.sum = int(google_crc32c.value(table))
        """What the sum over any sealed rows is, begun with itself."""
        self._begin: object = self.sum  # made an object once
        self._turn = _ONES ^ _turned_back(self.sum ^ _ONES)

    def closed(self, name: bytes, value: bytes) -> bytes:
        """Return what is stored for a row."""
        register: int = _extend(self._begin, name + value)
        return value + _pack(register ^ self._turn)

    def row(self, name: bytes, value: bytes) -> Row:
        """Return a row as it is stored."""
        return name, self.closed(name, value)

    def rows(self, rows: Iterable[Row]) -> list[Row]:
        """Return rows as they are stored."""
        return [self.row(name, value) for name, value in rows]

    def is_whole(self, name: bytes, stored: bytes) -> bool:
        """Whether the stored value is this row's."""
        return len(stored) >= SEAL_SIZE and bool(_extend(self._begin, name + stored) == self.sum)

    def opened(self, name: bytes, stored: bytes) -> bytes:
        """Return the value of a stored row.  Raises `StateDamageError`."""
        register: int = _extend(self._begin, name + stored)
        if register != self.sum or len(stored) < SEAL_SIZE:
            raise StateDamageError(self.table, name)
        return stored[:-SEAL_SIZE]

    def are_whole(self, rows: list[Row]) -> bool:
        """Whether all of these stored rows are as they were written; of their order it says
        nothing."""
        joined = b"".join([name + stored for name, stored in rows])
        return bool(_extend(self.sum, joined) == self.sum)

    def opened_rows(self, rows: list[Row]) -> list[Row]:
        """Return stored rows with their values.  Raises `StateDamageError`."""
        if not self.are_whole(rows):
            raise StateDamageError(self.table, self.first_damaged(rows))
        return [(name, stored[:-SEAL_SIZE]) for name, stored in rows]

    def first_damaged(self, rows: list[Row]) -> bytes:
        """Return the name of the first damaged one among rows that are not all whole."""
        for name, stored in rows:
            if not self.is_whole(name, stored):
                return name
        return b""


SEALS: Final[dict[bytes, Seal]] = {
    table: Seal(table) for table in (*BUCKETS, TABLE_KEY, *DERIVED, TABLE_PRIVATE)
}


def sealed_rows(table: bytes, rows: list[Row]) -> list[Row]:
    """Return the rows of a table that have seals: all but the one that tells the format."""
    return [row for row in rows if row[0] != ROW_FORMAT] if table == TABLE_PRIVATE else rows


def opened_rows(table: bytes, rows: list[Row]) -> list[Row]:
    """Return a table's stored rows with their values.  Raises `StateDamageError`."""
    return SEALS[table].opened_rows(sealed_rows(table, rows))


def rest_of_group(seal: Seal, stored_rows: Iterator[Row], prefix: bytes) -> list[Row]:
    """Return the next rows of long keys that begin alike.  Raises `StateDamageError`."""
    rows: list[Row] = []
    for name, stored in stored_rows:
        value = seal.opened(name, stored)  # else it may not be the end
        if name[:KEY_SIZE_MAX] != prefix:
            break
        rows.append((name, value))
    return rows
