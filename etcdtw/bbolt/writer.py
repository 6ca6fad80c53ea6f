"""`BboltWriter`: a new bbolt file from sorted items, in one pass.

Pages leave as soon as they are full, leaves before the branches above them, so that memory is a
page for each level, whatever the size.  Only the two metas are known last.  There are no holes:
every page is in use (but see `FILE_SIZE_MIN`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from struct import pack
from typing import Final

from etcdtw.bbolt.layout import (
    BUCKET_HEAD,
    ELEMENT_BUCKET,
    ELEMENT_SIZE,
    FIRST_PAGE,
    FLAG_BRANCH,
    FLAG_LEAF,
    HEAD_SIZE,
    INLINE_PART,
    KEY_SIZE_MAX,
    NO_FREELIST,
    PAGE_HEAD,
    PAGE_SIZE,
    PAGE_SIZE_MAX,
    PAGE_SIZE_MIN,
    VALUE_SIZE_MAX,
    BboltError,
    Meta,
    encode_meta,
)

WRITE_SIZE: Final = 1 << 18  # octets joined for one write
FILE_SIZE_MIN: Final = 4096  # octets; bbolt refuses less, so tiny pages get free ones behind
BRANCH_CHILDREN_MIN: Final = 2  # bbolt asserts it when it merges pages
TXID: Final = 2

Item = tuple[bytes, bytes]


def _checked(name: bytes, items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items.  Raises `BboltError` at one that bbolt could not hold there."""
    previous = b""
    for item in items:
        key, value = item
        if key <= previous:
            what = "is empty" if not key else f"follows {previous[:64]!r}"
            raise BboltError(f"bucket {name!r}: the key {key[:64]!r} {what}")
        if len(key) > KEY_SIZE_MAX or len(value) > VALUE_SIZE_MAX:
            raise BboltError(f"bucket {name!r}: the key {key[:64]!r} or its value is too large")
        previous = key
        yield item


def _elements(keys: list[bytes], values: list[bytes], flags: int) -> bytes:
    """Return a leaf's body: the elements, then keys and values in turn."""
    count = len(keys)
    key_sizes = list(map(len, keys))
    value_sizes = list(map(len, values))
    fields = [flags] * (4 * count)
    fields[2::4] = key_sizes
    fields[3::4] = value_sizes
    positions = []
    position = ELEMENT_SIZE * count
    for key_size, value_size in zip(key_sizes, value_sizes, strict=True):
        positions.append(position)
        position += key_size + value_size - ELEMENT_SIZE
    fields[1::4] = positions
    data = [b""] * (2 * count)
    data[::2] = keys
    data[1::2] = values
    return pack(f"<{4 * count}I", *fields) + b"".join(data)


class _Level:
    """The branches at one height: the page being filled, and the full one before it.

    That one waits, so that the last page never stands with a single child.
    """

    __slots__ = ("children", "full", "size")

    def __init__(self) -> None:
        self.full: list[tuple[bytes, int]] = []
        self.children: list[tuple[bytes, int]] = []
        self.size = HEAD_SIZE


class BboltWriter:
    """Writes one file.  Call `add_bucket` with ascending names, then `finish` once.

    ``write`` takes the octets from offset 0 on, in order; the first two pages are zeros until
    the caller puts the octets of `finish` over them.
    """

    def __init__(self, write: Callable[[bytes], object], page_size: int = PAGE_SIZE) -> None:
        if not PAGE_SIZE_MIN <= page_size <= PAGE_SIZE_MAX or page_size & (page_size - 1):
            raise BboltError(f"page size {page_size} is not supported")
        self._write = write
        self._page_size = page_size
        self._next = FIRST_PAGE
        self._parts: list[bytes] = [bytes(FIRST_PAGE * page_size)]
        self._parts_size = FIRST_PAGE * page_size
        self._buckets: list[Item] = []

    @property
    def size(self) -> int:
        """Octets of the file so far; after `finish`, of all of it."""
        return self._next * self._page_size

    def add_bucket(self, name: bytes, items: Iterable[Item]) -> int:
        """Write a bucket with ``items`` in the order of their keys, and return their number.

        Raises `BboltError` when keys or names do not ascend; the file is useless then.
        """
        if not name or len(name) > KEY_SIZE_MAX:
            raise BboltError(f"no name for a bucket: {name[:64]!r}")
        if self._buckets and name <= self._buckets[-1][0]:
            raise BboltError(f"bucket {name!r} follows {self._buckets[-1][0]!r}")
        rest = _checked(name, items)
        keys: list[bytes] = []
        values: list[bytes] = []
        size = HEAD_SIZE
        for key, value in rest:
            keys.append(key)
            values.append(value)
            size += ELEMENT_SIZE + len(key) + len(value)
            if size > self._page_size // INLINE_PART:
                first = list(zip(keys, values, strict=True))
                root, count = self._write_tree(chain(first, rest), 0)
                self._buckets.append((name, BUCKET_HEAD.pack(root, 0)))
                return count
        page = PAGE_HEAD.pack(0, FLAG_LEAF, len(keys), 0) + _elements(keys, values, 0)
        self._buckets.append((name, BUCKET_HEAD.pack(0, 0) + page))
        return len(keys)

    def finish(self) -> bytes:
        """Write what is left; return the metas, to be put at the beginning of the file."""
        root, _ = self._write_tree(self._buckets, ELEMENT_BUCKET)
        if self.size < FILE_SIZE_MIN:
            self._parts.append(bytes(FILE_SIZE_MIN - self.size))
            self._next = FILE_SIZE_MIN // self._page_size
        self._write(b"".join(self._parts))
        self._parts = []
        return b"".join(
            encode_meta(Meta(self._page_size, root, NO_FREELIST, self._next, txid))
            for txid in (TXID, TXID - 1)
        )

    def _write_tree(self, items: Iterable[Item], flags: int) -> tuple[int, int]:
        """Write leaves and branches; return the root's id and the number of items."""
        page_size = self._page_size
        levels: list[_Level] = [_Level()]
        keys: list[bytes] = []
        values: list[bytes] = []
        size = HEAD_SIZE
        count = 0
        for key, value in items:
            size += ELEMENT_SIZE + len(key) + len(value)
            if size > page_size and keys:
                self._add_leaf(levels, keys, values, flags)
                count += len(keys)
                keys = []
                values = []
                size = HEAD_SIZE + ELEMENT_SIZE + len(key) + len(value)
            keys.append(key)
            values.append(value)
        self._add_leaf(levels, keys, values, flags)
        return self._finish_levels(levels), count + len(keys)

    def _add_leaf(
        self, levels: list[_Level], keys: list[bytes], values: list[bytes], flags: int
    ) -> None:
        body = _elements(keys, values, flags)
        page = self._add_page(FLAG_LEAF, len(keys), body)
        self._add_child(levels, 0, keys[0] if keys else b"", page)

    def _add_child(self, levels: list[_Level], height: int, key: bytes, page: int) -> None:
        """Tell the branches at ``height`` of a page below them."""
        if height == len(levels):
            levels.append(_Level())
        level = levels[height]
        size = ELEMENT_SIZE + len(key)
        if level.size + size > self._page_size and len(level.children) >= BRANCH_CHILDREN_MIN:
            if level.full:
                self._add_branch(levels, height, level.full)
            level.full = level.children
            level.children = []
            level.size = HEAD_SIZE
        level.children.append((key, page))
        level.size += size

    def _add_branch(
        self, levels: list[_Level], height: int, children: list[tuple[bytes, int]]
    ) -> None:
        keys = [key for key, _ in children]
        parts: list[bytes] = []
        position = ELEMENT_SIZE * len(children)
        for key, page in children:
            parts.append(pack("<IIQ", position, len(key), page))
            position += len(key) - ELEMENT_SIZE
        written = self._add_page(FLAG_BRANCH, len(children), b"".join(parts + keys))
        self._add_child(levels, height + 1, keys[0], written)

    def _finish_levels(self, levels: list[_Level]) -> int:
        """Write the branches that are left, lowest first; return the root's id."""
        height = 0
        while True:
            level = levels[height]
            if not level.full and len(level.children) == 1 and height == len(levels) - 1:
                return level.children[0][1]
            if level.full:
                if len(level.children) < BRANCH_CHILDREN_MIN:
                    # Two pages, the last with two children; or one, if there are only three.
                    spare = len(level.full) > BRANCH_CHILDREN_MIN
                    level.children = level.full[-1 if spare else 0 :] + level.children
                    level.full = level.full[:-1] if spare else []
                if level.full:
                    self._add_branch(levels, height, level.full)
            self._add_branch(levels, height, level.children)
            height += 1

    def _add_page(self, flags: int, count: int, body: bytes) -> int:
        """Take the next ids for a page, write it, and return its id."""
        page = self._next
        page_size = self._page_size
        size = HEAD_SIZE + len(body)
        pages = -(-size // page_size)
        self._parts += (
            PAGE_HEAD.pack(page, flags, count, pages - 1),
            body,
            bytes(pages * page_size - size),
        )
        self._parts_size += pages * page_size
        self._next += pages
        if self._parts_size >= WRITE_SIZE:
            self._write(b"".join(self._parts))
            self._parts = []
            self._parts_size = 0
        return page
