"""Where things stand in the pages of LMDB 0.9 (mdb.c; little-endian, pages of 4096 octets)."""

from __future__ import annotations

from struct import Struct
from typing import Final

PAGE: Final = 4096

HEADER: Final = Struct("<QHHHH")
"""Of a page: its number, padding, flags, end of the lower part, begin of the upper one."""
NODE: Final = Struct("<HHHH")
"""Of a row: size or page (low, high), flags or highest part of the page, size of the key."""
NUMBER: Final = Struct("<Q")
BRANCH: Final = 0x01
LEAF: Final = 0x02
OVERFLOW: Final = 0x04
LEAF2: Final = 0x20
BIG_DATA: Final = 0x01
"""Of a row: its value has pages of its own."""
SUB_DATA: Final = 0x02
"""Of a row: its value is the record of a database."""
DUPLICATES: Final = 0x04
ROOT_AT: Final = 40
"""In the record of a database."""
DEPTH_AT: Final = 6
"""Likewise."""
DATABASES_AT: Final = (40, 88)
"""Of free pages and of names, in a meta page."""
LAST_PAGE_AT: Final = 136
TRANSACTION_AT: Final = 144
NO_ROOT: Final = (1 << 64) - 1


def transaction(meta: bytes) -> int:
    """Return the number of the transaction that wrote a meta page."""
    return int(NUMBER.unpack_from(meta, TRANSACTION_AT)[0])
