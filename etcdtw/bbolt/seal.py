"""The seal of a snapshot file: 32 octets behind the database, the SHA-256 of all of it.

``etcdctl snapshot save`` and the Snapshot RPC add it; a file copied from a data directory has
none.  Pages are multiples of 512 octets, so the size tells.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from etcdtw.bbolt.layout import BboltError
from etcdtw.bbolt.reader import ReadAt

SEAL_SIZE: Final = 32
SECTOR: Final = 512
READ_SIZE: Final = 1 << 18


def has_seal(size: int) -> bool:
    """Whether a file of ``size`` octets ends with a seal."""
    return size % SECTOR == SEAL_SIZE


def seal_of(read_at: ReadAt, size: int, write: Callable[[bytes], object] | None = None) -> bytes:
    """Return the seal of the first ``size`` octets, giving them to ``write`` in passing."""
    digest = sha256()
    offset = 0
    while offset < size:
        octets = read_at(offset, min(READ_SIZE, size - offset))
        if not octets:
            raise BboltError(f"the file ends at {offset} octets of {size}")
        digest.update(octets)
        if write is not None:
            write(octets)
        offset += len(octets)
    return digest.digest()


def verify_seal(read_at: ReadAt, size: int) -> int:
    """Check a sealed file; return the size of the database in it.

    Raises `BboltError`, with etcd's texts, when there is no seal or it is another one.
    """
    if not has_seal(size):
        raise BboltError("snapshot missing hash but --skip-hash-check=false")
    database_size = size - SEAL_SIZE
    expected = read_at(database_size, SEAL_SIZE)
    found = seal_of(read_at, database_size)
    if found != expected:
        raise BboltError(f"expected sha256 {_decimal(expected)}, got {_decimal(found)}")
    return database_size


def _decimal(octets: bytes) -> str:
    """Return octets as Go prints them."""
    return "[" + " ".join(map(str, octets)) + "]"
