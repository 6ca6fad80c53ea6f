"""The full check of a file: what ``etcdutl snapshot status`` demands, and its figures."""

from __future__ import annotations

from typing import Final, NamedTuple

import google_crc32c

from etcdtw.bbolt.layout import (
    FIRST_PAGE,
    FLAG_FREELIST,
    HEAD_SIZE,
    LONG_COUNT,
    NO_FREELIST,
    BboltError,
)
from etcdtw.bbolt.reader import BboltFile

FREELIST_STEP: Final = 8192  # ids read at a time
BUCKET_KEY: Final = b"key"
BUCKET_META: Final = b"meta"
STORAGE_VERSION: Final = b"storageVersion"


class SnapshotStatus(NamedTuple):
    """What ``etcdutl snapshot status`` prints."""

    hash: int
    """CRC-32C over every bucket's name, keys and values, in order."""
    revision: int
    """The main revision of the newest row of ``key``; 0: there is none."""
    total_key: int
    """Items in all buckets, as etcd 3.5 counts."""
    total_size: int
    version: str
    """The storage version; empty before etcd 3.6."""


class _Pages:
    """Which pages were met: an octet for each."""

    def __init__(self, count: int) -> None:
        self.seen = bytearray(count)

    def visit(self, page: int, pages: int) -> None:
        """Raises `BboltError` when one of them was met before."""
        behind = page + pages
        met = self.seen.find(1, page, behind)
        if met >= 0:
            raise BboltError(f"page {met} is referenced twice")
        self.seen[page:behind] = b"\x01" * pages


def check(file: BboltFile) -> SnapshotStatus:
    """Read everything.  Raises `BboltError` at the first thing that is wrong.

    Every page must be met once, in a tree or as a free one; a file without a freelist calls free
    what its trees do not reach.
    """
    pages = _Pages(file.meta.high_water)
    pages.visit(0, FIRST_PAGE)
    file.visit_roots(pages.visit)
    extend = google_crc32c.extend
    crc = 0
    total = 0
    newest = b""
    version = b""
    for name in file.buckets:
        crc = extend(crc, name)
        for rows in file.leaves(name, pages.visit):
            crc = extend(crc, b"".join([octets for row in rows for octets in row]))
            total += len(rows)
            if name == BUCKET_KEY:
                newest = rows[-1][0]
            elif name == BUCKET_META:
                version = dict(rows).get(STORAGE_VERSION, version)
    if file.meta.freelist != NO_FREELIST:
        _check_freelist(file, pages)
    revision = int.from_bytes(newest[:8], "big")
    return SnapshotStatus(crc, revision, total, file.size, version.decode("ascii", "replace"))


def _check_freelist(file: BboltFile, pages: _Pages) -> None:
    """Mark the free pages as met; nothing may be left."""
    page = file.meta.freelist
    kind, count, overflow = file.page_head(page)
    if kind != FLAG_FREELIST:
        raise BboltError(f"the freelist page {page} has flags {kind:#x}")
    pages.visit(page, 1 + overflow)
    offset = page * file.page_size + HEAD_SIZE
    behind = (page + 1 + overflow) * file.page_size
    if count == LONG_COUNT:
        count = int.from_bytes(file.read(offset, 8), "little")
        offset += 8
    if offset + 8 * count > behind:
        raise BboltError(f"the freelist page {page} has no room for its {count} ids")
    while count:
        step = min(count, FREELIST_STEP)
        octets = file.read(offset, 8 * step)
        for at in range(0, 8 * step, 8):
            free = int.from_bytes(octets[at : at + 8], "little")
            if not FIRST_PAGE <= free < file.meta.high_water:
                raise BboltError(f"the free page {free} is outside the file")
            pages.visit(free, 1)
        offset += 8 * step
        count -= step
    left = pages.seen.find(0)
    if left >= 0:
        raise BboltError(f"page {left} is neither reachable nor free")
