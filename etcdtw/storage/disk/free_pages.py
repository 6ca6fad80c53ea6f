"""How much of a file of LMDB 0.9 can be used again by large values.

A value of many pages needs pages that stand in a row.  Pages that are free but in pieces serve
small rows only, and the file grows for the others however many of them there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from etcdtw.storage.disk.page_format import (
    BIG_DATA,
    BRANCH,
    DATABASES_AT,
    HEADER,
    LEAF,
    NO_ROOT,
    NODE,
    NUMBER,
    PAGE,
    ROOT_AT,
    transaction,
)

PAGES_MAX: Final = 131_072
"""So many free pages are looked at, which are 512 MiB."""
ENOUGH_OCTETS: Final = 128 << 20
"""With so many nothing is short: more are not counted."""
TREE_PAGES_MAX: Final = 1_024


def reusable_octets(file: Path, row: int, readers: str, pages_max: int = PAGES_MAX) -> int:
    """Return how many octets of unused pages stand in rows of ``row`` pages, at the least.

    Nobody commits meanwhile.  ``readers``: what `lmdb.Environment.readers` says.  0 where the file
    makes no sense.  Raises `OSError`.
    """
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        metas = [os.pread(fd, PAGE, 0), os.pread(fd, PAGE, PAGE)]
        if any(len(meta) < PAGE for meta in metas):
            return 0
        meta = max(metas, key=transaction)
        return _found(fd, meta, min([transaction(meta), *reads(readers)]), row, pages_max) * PAGE
    except (ValueError, OverflowError):
        return 0
    finally:
        os.close(fd)


def reads(readers: str) -> list[int]:
    """Return the transactions that are read now, as `lmdb.Environment.readers` says.

    Each keeps the pages from reuse that were freed since.
    """
    # A table with a head; "-" stands for the number of a place that reads nothing now.
    rows = [line.split() for line in readers.splitlines()[1:]]
    return [int(row[-1]) for row in rows if row and row[-1].isdecimal()]


def _found(fd: int, meta: bytes, before: int, row: int, pages_max: int) -> int:
    """Return how many pages that were freed before a transaction stand in such rows.

    The newest first: what no value fitted into is left over in the oldest ones.  Raises
    `ValueError`.
    """
    found = 0
    numbers: list[int] = []
    root = NUMBER.unpack_from(meta, DATABASES_AT[0] + ROOT_AT)[0]
    for freed_by, at, size in reversed(list(_rows(fd, root))):
        if freed_by >= before:
            continue
        some = _free_pages(fd, at, size)
        found += _in_rows(some, row)
        numbers += some
        if found * PAGE >= ENOUGH_OCTETS:
            return found
        if len(numbers) >= pages_max:
            break
    numbers.sort()
    return max(found, _in_rows(numbers, row))


def _free_pages(fd: int, at: int, size: int) -> list[int]:
    """Return the pages that one row of the free list names, in order."""
    octets = os.pread(fd, min(size, NUMBER.size * (PAGES_MAX + 1)), at)
    if len(octets) < NUMBER.size or len(octets) % NUMBER.size:
        raise ValueError("a row of the free list is cut")
    count, *numbers = memoryview(octets).cast("Q").tolist()
    if count > size // NUMBER.size - 1:
        raise ValueError("a row of the free list is shorter than it says")
    return sorted(numbers[:count])


def _rows(fd: int, root: int) -> Iterator[tuple[int, int, int]]:
    """Yield each row of the free list in order: which transaction freed, where, and its size."""
    waiting = [root] if root != NO_ROOT else []
    for _ in range(TREE_PAGES_MAX):
        if not waiting:
            return
        number = waiting.pop()
        page = os.pread(fd, PAGE, number * PAGE)
        if len(page) < PAGE:
            raise ValueError("a page is missing")
        named, _, flags, lower, _ = HEADER.unpack_from(page)
        if named != number or flags not in (BRANCH, LEAF) or lower > PAGE:
            raise ValueError(f"page {number} is none of the free list")
        children: list[int] = []
        for at in range(HEADER.size, lower, 2):
            node = int.from_bytes(page[at : at + 2], "little")
            if node > PAGE - NODE.size:
                raise ValueError(f"page {number} points outside itself")
            low, high, node_flags, key_size = NODE.unpack_from(page, node)
            if flags == BRANCH:
                children.append(low | high << 16 | node_flags << 32)
                continue
            data = node + NODE.size + key_size
            if key_size != NUMBER.size or data + NUMBER.size > PAGE:
                raise ValueError(f"page {number} holds other rows than the free list has")
            freed_by = NUMBER.unpack_from(page, node + NODE.size)[0]
            if node_flags & BIG_DATA:
                data = NUMBER.unpack_from(page, data)[0] * PAGE + HEADER.size
            else:
                data += number * PAGE
            yield freed_by, data, low | high << 16
        waiting += reversed(children)


def _in_rows(numbers: list[int], row: int) -> int:
    """Return how many of these pages, in order, stand in rows of that length, one after another."""
    found = at = 0
    last = len(numbers) - row
    span = row - 1
    while at <= last:
        if numbers[at + span] - numbers[at] == span:
            found += row
            at += row
        else:
            at += 1
    return found
