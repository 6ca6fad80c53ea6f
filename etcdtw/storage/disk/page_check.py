"""Whether the pages that lead LMDB 0.9 through a file make sense, before it follows them.

LMDB trusts what it reads: an offset that points outside of its page ends the process.  All branch
pages of tables are looked at, and leaves while there are not very many; what is in their rows is
for the checksums.  Knows pages, and no records.

A look goes in steps of some 2 ms, so that it may be had beside commits: a read transaction keeps
the pages of its view from reuse as long.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from operator import le
from pathlib import Path
from typing import BinaryIO, Final

from etcdtw.storage.disk.directory import DATA_FILE, DataDirError
from etcdtw.storage.disk.page_format import (
    BIG_DATA,
    BRANCH,
    DATABASES_AT,
    DEPTH_AT,
    DUPLICATES,
    HEADER,
    LAST_PAGE_AT,
    LEAF,
    LEAF2,
    NO_ROOT,
    NODE,
    NUMBER,
    OVERFLOW,
    PAGE,
    ROOT_AT,
    SUB_DATA,
    transaction,
)

LEAVES_MAX: Final = 4096  # of a file; some 20 us each
STEP_PAGES: Final = 32  # some 70 us each, branch pages of many names
STEP_FREE: Final = 16_384  # numbers of free pages, some 0.08 us each
KEY_SIZE_MAX: Final = 511
DEPTH_MAX: Final = 32  # LMDB's own

_DATABASE_SIZE: Final = 48
_USED: Final = 1  # what is known of a page
_FREE: Final = 2
_MAGIC: Final = bytes.fromhex("dec0efbe 01000000")  # and the data version


class PageError(Exception):
    """A page that leads nowhere good."""


class PagesDamagedError(DataDirError):
    """A page must not be followed.  ``table``: whose tree; empty: of the tables' names, or free."""

    def __init__(self, text: str, table: bytes) -> None:
        super().__init__(text)
        self.table = table


def check_pages(path: Path, leaves_max: int = LEAVES_MAX) -> None:
    """Look at the trees of the environment in ``path``, which nothing writes meanwhile.

    Raises `DataDirError` when a page must not be followed.
    """
    for _ in look_at_pages(path, leaves_max):
        pass


def look_at_pages(path: Path, leaves_max: int, view: int | None = None) -> Generator[None]:
    """Do the same in steps, and yield None between two.

    ``view`` is the number of a transaction whose pages are kept from reuse meanwhile; None: the
    newest.  Nothing is looked at when it is in the file no more.
    """
    file = path / DATA_FILE
    walk: _Walk | None = None
    try:
        with file.open("rb") as stream:
            walk = _Walk(stream, leaves_max, view)
            yield from walk.check()
    except FileNotFoundError:
        return
    except PageError as error:
        table = walk.table if walk is not None else b""
        where = f" of `{table.decode(errors='replace')}`" if table else ""
        raise PagesDamagedError(
            f"{file} is damaged: {error}{where}; remove this member's data directory and let it "
            "join again, or restore a snapshot",
            table,
        ) from error
    except OSError as error:
        raise DataDirError(f"cannot read {file}: {error.strerror}") from error


class _Walk:
    """One look at a file."""

    def __init__(self, stream: BinaryIO, leaves_max: int, view: int | None) -> None:
        self._stream = stream
        self._leaves_left = leaves_max
        self._view = view
        self._places = bytearray()
        """What is known of each page that is in the file."""
        self._free_rows: list[tuple[int, int]] = []
        """Where rows of the free list lie that were not looked at, and their sizes."""
        self._pages_left = STEP_PAGES
        self._free_left = STEP_FREE
        self._end = 0
        self.table = b""
        """Whose tree is being looked at."""

    def check(self) -> Iterator[None]:
        metas = [self._read(0), self._read(1)]
        if any(meta[16:24] != _MAGIC or len(meta) < PAGE for meta in metas):
            return  # `directory` says what it is
        if self._view is not None:
            metas = [meta for meta in metas if transaction(meta) == self._view]
            if not metas:
                return
        meta = max(metas, key=transaction)
        self._end = NUMBER.unpack_from(meta, LAST_PAGE_AT)[0] + 1
        in_file = os.fstat(self._stream.fileno()).st_size // PAGE
        self._places = bytearray(min(self._end, in_file))
        for at, is_free in zip(DATABASES_AT, (True, False), strict=True):
            root = NUMBER.unpack_from(meta, at + ROOT_AT)[0]
            levels = int.from_bytes(meta[at + DEPTH_AT : at + DEPTH_AT + 2], "little")
            if root != NO_ROOT:
                yield from self._check_tree(root, levels, is_free)

    def _is_known(self, number: int) -> bool:
        return number < len(self._places) and self._places[number] != 0

    def _use(self, number: int) -> None:
        if number < len(self._places):
            self._places[number] = _USED

    def _read(self, number: int) -> bytes:
        self._stream.seek(number * PAGE)
        return self._stream.read(PAGE)

    def _check_tree(self, root: int, levels: int, is_free: bool) -> Iterator[None]:
        waiting = [(root, levels, b"")]
        while waiting:
            number, levels, self.table = waiting.pop()
            if not 2 <= number < self._end:
                raise PageError(f"page {number} is none of the {self._end} of the file")
            if self._is_known(number):
                raise PageError(f"page {number} has two places")
            if not 0 < levels <= DEPTH_MAX:
                raise PageError(f"page {number} lies deeper than its tree is")
            self._use(number)
            if levels == 1 and not self._leaves_left and self.table:
                continue
            if not self._pages_left:
                self._pages_left = STEP_PAGES
                yield None
            self._pages_left -= 1
            page = self._read(number)
            if len(page) < PAGE:
                return  # `directory` tells what is missing
            _, _, flags, lower, upper = HEADER.unpack_from(page)
            _check_head(page, number, levels)
            if flags & BRANCH:
                below = levels - 1
                waiting += [
                    (child, below, self.table) for child in self._children(page, number, lower)
                ]
            elif not flags & LEAF2:
                self._leaves_left = max(0, self._leaves_left - 1)
                waiting += self._subtrees(page, number, lower, upper, is_free)
                for place, size in self._free_rows:
                    yield from self._note_free(place, size)
                self._free_rows.clear()
        self.table = b""

    def _children(self, page: bytes, number: int, lower: int) -> list[int]:
        if lower < HEADER.size + 2:
            raise PageError(f"page {number} leads nowhere")
        children: list[int] = []
        before = b""
        for at in range(HEADER.size, lower, 2):
            node = int.from_bytes(page[at : at + 2], "little")
            if not lower <= node <= PAGE - NODE.size:
                raise PageError(f"page {number} points outside itself")
            low, high, highest, key_size = NODE.unpack_from(page, node)
            begin = node + NODE.size
            if key_size > KEY_SIZE_MAX or begin + key_size > PAGE:
                raise PageError(f"a name of page {number} ends outside it")
            name = page[begin : begin + key_size]
            if at > HEADER.size + 2 and name == before:
                raise PageError(f"page {number} names a page twice")
            before = name
            children.append(low | high << 16 | highest << 32)
        return children

    def _subtrees(
        self, page: bytes, number: int, lower: int, upper: int, is_free: bool
    ) -> list[tuple[int, int, bytes]]:
        """Check a leaf's nodes; return root, levels and table of the trees that hang there."""
        roots: list[tuple[int, int, bytes]] = []
        for at in range(HEADER.size, lower, 2):
            node = int.from_bytes(page[at : at + 2], "little")
            if not upper <= node <= PAGE - NODE.size:
                raise PageError(f"page {number} points outside itself")
            low, high, flags, key_size = NODE.unpack_from(page, node)
            size = low | high << 16
            begin = node + NODE.size + key_size
            stored = NUMBER.size if flags & BIG_DATA else size
            if key_size > KEY_SIZE_MAX or begin + stored > PAGE:
                raise PageError(f"a row of page {number} ends outside it")
            if flags & BIG_DATA:
                first = NUMBER.unpack_from(page, begin)[0]
                self._check_overflow(first, size)
                if is_free:
                    self._free_rows.append((first * PAGE + HEADER.size, size))
            elif is_free:
                self._free_rows.append((number * PAGE + begin, size))
            elif flags & SUB_DATA:
                if size != _DATABASE_SIZE:
                    raise PageError(f"page {number} describes no table where it should")
                root = NUMBER.unpack_from(page, begin + ROOT_AT)[0]
                levels = int.from_bytes(page[begin + DEPTH_AT : begin + DEPTH_AT + 2], "little")
                if root != NO_ROOT:
                    name = page[node + NODE.size : node + NODE.size + key_size]
                    roots.append((root, levels, self.table or name))
            elif flags & DUPLICATES:
                self._check_subpage(page[begin : begin + size], number)
        return roots

    def _note_free(self, place: int, size: int) -> Iterator[None]:
        """Take a row of the free list: how many pages, and which, the highest first."""
        if size < NUMBER.size:
            raise PageError("a row of the free list is too short")
        self._stream.seek(place)
        left = int.from_bytes(self._stream.read(NUMBER.size), "little")
        if size < NUMBER.size * (left + 1):
            raise PageError("a row of the free list is shorter than it says")
        place += NUMBER.size
        behind = self._end
        while left:
            if not self._free_left:
                self._free_left = STEP_FREE
                yield None
            self._stream.seek(place)
            octets = self._stream.read(NUMBER.size * min(left, self._free_left))
            numbers = memoryview(octets[: len(octets) & -NUMBER.size]).cast("Q").tolist()
            if not numbers:
                return  # `directory` tells what is missing
            self._note_free_numbers(behind, numbers)
            behind = numbers[-1]
            place += len(octets)
            left -= len(numbers)
            self._free_left -= len(numbers)

    def _note_free_numbers(self, behind: int, numbers: list[int]) -> None:
        """Take numbers that must fall, from below ``behind``, and of pages that are in no use."""
        if numbers[0] >= behind or numbers[-1] < 2 or any(map(le, numbers, numbers[1:])):
            raise PageError(f"the free list is out of order near page {numbers[0]}")
        places = self._places
        for number in numbers:
            if number >= len(places):
                continue  # LMDB never wrote it
            if places[number]:
                raise PageError(f"page {number} is free twice, or is none")
            places[number] = _FREE

    def _check_subpage(self, page: bytes, number: int) -> None:
        """A page within a row: several values of one name."""
        if len(page) < HEADER.size:
            raise PageError(f"a row of page {number} is too short")
        _, pad, flags, lower, upper = HEADER.unpack_from(page)
        is_fixed = bool(flags & LEAF2)
        count = (lower - HEADER.size) // 2
        if not flags & LEAF or lower < HEADER.size or lower > len(page) or upper > len(page):
            raise PageError(f"a row of page {number} contradicts itself")
        if is_fixed and (not pad or upper - lower != len(page) - HEADER.size - count * pad):
            raise PageError(f"a row of page {number} holds other values than it says")

    def _check_overflow(self, number: int, size: int) -> None:
        if not 2 <= number < self._end or self._is_known(number):
            raise PageError(f"page {number} is none of the {self._end} of the file, or is taken")
        self._use(number)
        self._stream.seek(number * PAGE)
        head = self._stream.read(HEADER.size)
        if len(head) < HEADER.size:
            return  # `directory` tells what is missing
        named, _, flags, low, high = HEADER.unpack(head)
        pages = low | high << 16
        needed = (HEADER.size + size + PAGE - 1) // PAGE
        if named != number or not flags & OVERFLOW or pages < needed:
            raise PageError(f"page {number} is not the value it should be")
        if number + pages > self._end:
            raise PageError(f"the value at page {number} ends outside the file")


def _check_head(page: bytes, number: int, levels: int) -> None:
    named, _, flags, lower, upper = HEADER.unpack_from(page)
    if named != number or flags & ~LEAF2 not in (BRANCH, LEAF):
        raise PageError(f"page {number} is not one of a tree")
    if lower < HEADER.size or lower % 2 or lower > upper or upper > PAGE:
        raise PageError(f"page {number} contradicts itself")
    if bool(flags & BRANCH) != (levels > 1):
        raise PageError(f"page {number} is not on its level")
