"""How far a file of LMDB 0.9 must reach: the end of its last page that is in use.

LMDB does not write pages that one transaction both took from the end and freed, so that a sound
file may end before the last page that its head names.  Whether an end is missing can only be told
by walking the trees.  Knows pages, and no records.
"""

from __future__ import annotations

from struct import Struct
from typing import BinaryIO, Final

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
    SUB_DATA,
)

_PAGES: Final = Struct("<I")  # of an overflow page, in the place of lower and upper


def used_size(stream: BinaryIO, meta: bytes) -> int:
    """Return the octets that a file with this meta page needs at least.

    More than the file has means that something is missing: then the walk ends early.  Raises
    `ValueError` when a page is not what its place says.
    """
    pages_used = 2
    pages_in_file = stream.seek(0, 2) // PAGE
    roots = [NUMBER.unpack_from(meta, at + ROOT_AT)[0] for at in DATABASES_AT]
    waiting = [(root, True) for root in roots if root != NO_ROOT]
    while waiting:
        number, is_tree = waiting.pop()
        pages_used = max(pages_used, number + 1)
        if pages_used > pages_in_file:
            break
        stream.seek(number * PAGE)
        page = stream.read(PAGE)
        if is_tree:
            waiting.extend(_children(page, number))
        else:
            pages_used = max(pages_used, number + int(_PAGES.unpack_from(page, 12)[0]))
    return pages_used * PAGE


def _children(page: bytes, number: int) -> list[tuple[int, bool]]:
    """Return the pages that a page of a tree points at, and whether each is of a tree."""
    named, _, flags, lower, _ = HEADER.unpack_from(page)
    if named != number or not flags & (BRANCH | LEAF) or lower > PAGE:
        raise ValueError(f"page {number} is not a page of a tree")
    found: list[tuple[int, bool]] = []
    for at in range(HEADER.size, lower, 2):
        node = int.from_bytes(page[at : at + 2], "little")
        if node > PAGE - NODE.size:
            raise ValueError(f"page {number} points outside itself")
        low, high, node_flags, key_size = NODE.unpack_from(page, node)
        data = node + NODE.size + key_size
        if flags & BRANCH:
            found.append((low | high << 16 | node_flags << 32, True))
        elif node_flags & BIG_DATA:
            found.append((NUMBER.unpack_from(page, data)[0], False))
        elif node_flags & SUB_DATA:
            root = NUMBER.unpack_from(page, data + ROOT_AT)[0]
            if root != NO_ROOT:
                found.append((root, True))
    return found
