"""`BboltFile`: an existing file, read through a callable, a page at a time.

Nothing in the file is believed: what is followed is checked first, and what is wrong is a
`BboltError` that says where.  Octets of keys and values carry no checksum of their own; a snapshot
file's seal covers them (`seal`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import unpack_from
from typing import Final

from etcdtw.bbolt.layout import (
    BUCKET_HEAD,
    ELEMENT_BUCKET,
    ELEMENT_SIZE,
    ELEMENTS_MAX,
    FIRST_PAGE,
    FLAG_BRANCH,
    FLAG_LEAF,
    HEAD_SIZE,
    KEY_SIZE_MAX,
    NO_FREELIST,
    PAGE_HEAD,
    PAGE_SIZE_MAX,
    PAGE_SIZE_MIN,
    BboltError,
    Meta,
    decode_meta,
)

DEPTH_MAX: Final = 32  # a branch has two children at least, so no file is deeper
BUCKETS_MAX: Final = 1024  # etcd has a dozen
WHOLE_PAGE_MAX: Final = 1 << 20  # octets; of a larger leaf items are read one at a time
VALUE_SIZE_MAX: Final = 512 << 20  # octets read for one value; etcd's messages end there

ReadAt = Callable[[int, int], bytes]
"""``read_at(offset, size)``: the octets there, fewer only at the end of the file."""
Row = tuple[bytes, bytes]
Rows = list[Row]
Visit = Callable[[int, int], None]
"""``visit(page, pages)``: a page of a tree, before anything in it is followed."""


class Bucket:
    """Where a bucket's items are: a tree, or a leaf page within the bucket's own value."""

    __slots__ = ("inline", "name", "root")

    def __init__(self, name: bytes, root: int, inline: bytes) -> None:
        self.name = name
        self.root = root
        self.inline = inline


class _Step:
    """A branch on the way to the leaf being read."""

    __slots__ = ("at", "ends", "keys", "pages")

    def __init__(self, keys: list[bytes], pages: list[int], end: bytes | None) -> None:
        self.keys = keys
        self.pages = pages
        self.ends: list[bytes | None] = [*keys[1:], end]
        self.at = 0


def _nothing(_page: int, _pages: int) -> None:
    """The visit of a plain reading."""


class BboltFile:
    """One file.  ``size`` is that of the database: without a seal behind it.

    Raises `BboltError` when neither meta can be used, or the newer one's facts do not hold.
    """

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self._read_at = read_at
        self.meta = _newest_meta(read_at, size)
        meta = self.meta
        self.page_size = meta.page_size
        self.size = meta.high_water * meta.page_size
        """Octets in use, as etcd counts them; the file may be longer."""
        if meta.high_water <= FIRST_PAGE or self.size > size:
            raise BboltError(f"the meta tells of {self.size} octets where the file has {size}")
        if not FIRST_PAGE <= meta.root < meta.high_water:
            raise BboltError(f"the root page {meta.root} is outside the file")
        is_listed = FIRST_PAGE <= meta.freelist < meta.high_water
        if not is_listed and meta.freelist != NO_FREELIST:
            raise BboltError(f"the freelist page {meta.freelist} is outside the file")
        self.buckets: dict[bytes, Bucket] = {}
        """By name, in order."""
        self._find_buckets(_nothing)

    def items(self, name: bytes) -> Iterator[Row]:
        """Yield a bucket's (key, value) in order; a bucket that is not there has none.

        Raises `BboltError` where the file is damaged; what came before that is in order.
        """
        for rows in self.leaves(name):
            yield from rows

    def leaves(self, name: bytes, visit: Visit = _nothing) -> Iterator[Rows]:
        """Yield a bucket's items in order, a page's worth at a time."""
        bucket = self.buckets.get(name)
        if bucket is None:
            return
        if bucket.root:
            yield from self._walk(bucket.root, 0, visit, f"bucket {name!r}")
            return
        where = f"the inline page of bucket {name!r}"
        head = bucket.inline[:HEAD_SIZE]
        if len(head) < HEAD_SIZE:
            raise BboltError(f"{where} has no head")
        page, flags, count, overflow = PAGE_HEAD.unpack(head)
        if page or flags != FLAG_LEAF or overflow or count > ELEMENTS_MAX:
            raise BboltError(f"{where} is no leaf")
        rows = _leaf_rows(bucket.inline, count, 0, b"", where)
        if rows:
            yield rows

    def visit_roots(self, visit: Visit) -> None:
        """Show the pages of the tree that names the buckets."""
        self._find_buckets(visit)

    def page_head(self, page: int) -> tuple[int, int, int]:
        """Return flags, count and overflow of a page.  Raises `BboltError` where they cannot be."""
        high_water = self.meta.high_water
        if not FIRST_PAGE <= page < high_water:
            raise BboltError(f"page {page} is outside the file of {high_water} pages")
        found, flags, count, overflow = PAGE_HEAD.unpack(
            self.read(page * self.page_size, HEAD_SIZE)
        )
        if found != page:
            raise BboltError(f"page {page} calls itself page {found}")
        if page + overflow >= high_water:
            raise BboltError(f"page {page} overflows the file by its {overflow} further pages")
        return flags, count, overflow

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` octets."""
        octets = self._read_at(offset, size)
        if len(octets) != size:
            raise BboltError(f"the file ends within the {size} octets at {offset}")
        return octets

    def _find_buckets(self, visit: Visit) -> None:
        buckets: dict[bytes, Bucket] = {}
        for rows in self._walk(self.meta.root, ELEMENT_BUCKET, visit, "the list of buckets"):
            for name, value in rows:
                if not BUCKET_HEAD.size <= len(value) <= BUCKET_HEAD.size + self.page_size:
                    raise BboltError(f"bucket {name!r} has a value of {len(value)} octets")
                root = BUCKET_HEAD.unpack_from(value)[0]
                buckets[name] = Bucket(name, root, b"" if root else value[BUCKET_HEAD.size :])
            if len(buckets) > BUCKETS_MAX:
                raise BboltError(f"there are more than {BUCKETS_MAX} buckets")
        self.buckets = buckets

    def _walk(self, root: int, flags: int, visit: Visit, what: str) -> Iterator[Rows]:
        """Yield the items below ``root``, whose elements have ``flags``.

        Each leaf brings keys behind all before it, so a page that is met twice is an error, and
        the walk ends.
        """
        steps: list[_Step] = []
        page, low, end = root, b"", None
        previous = b""
        while True:
            where = f"page {page} of {what}"
            kind, count, overflow = self.page_head(page)
            visit(page, 1 + overflow)
            if kind == FLAG_BRANCH:
                if len(steps) >= DEPTH_MAX:
                    raise BboltError(f"{where} lies deeper than {DEPTH_MAX} pages")
                keys, pages = self._branch(page, count, overflow, where)
                if keys[0] < low or (end is not None and keys[-1] >= end):
                    raise BboltError(f"{where} holds keys that its parent places elsewhere")
                steps.append(_Step(keys, pages, end))
            elif kind == FLAG_LEAF:
                if not count and steps:
                    raise BboltError(f"{where} is an empty leaf below a branch")
                for rows in self._leaf(page, count, overflow, flags, previous, where):
                    if rows[0][0] < low or (end is not None and rows[-1][0] >= end):
                        raise BboltError(f"{where} holds keys that its parent places elsewhere")
                    previous = rows[-1][0]
                    yield rows
            else:
                raise BboltError(f"{where} is neither branch nor leaf: flags {kind:#x}")
            while steps and steps[-1].at == len(steps[-1].pages):
                steps.pop()
            if not steps:
                return
            step = steps[-1]
            page, low, end = step.pages[step.at], step.keys[step.at], step.ends[step.at]
            step.at += 1

    def _branch(
        self, page: int, count: int, overflow: int, where: str
    ) -> tuple[list[bytes], list[int]]:
        """Return the first keys of the children and their pages."""
        if not 0 < count <= ELEMENTS_MAX:
            raise BboltError(f"{where} is a branch with {count} children")
        size = (1 + overflow) * self.page_size
        table_end = HEAD_SIZE + ELEMENT_SIZE * count
        if size > WHOLE_PAGE_MAX or size < table_end:
            raise BboltError(f"{where} has {size} octets for {count} children")
        octets = self.read(page * self.page_size, size)
        keys: list[bytes] = []
        pages: list[int] = []
        previous = b""
        behind = table_end
        for at in range(HEAD_SIZE, table_end, ELEMENT_SIZE):
            position, key_size, child = unpack_from("<IIQ", octets, at)
            begin = at + position
            end = begin + key_size
            if begin < behind or end > size or not 0 < key_size <= KEY_SIZE_MAX:
                raise BboltError(f"{where}: a key's place is outside the page, or taken")
            key = octets[begin:end]
            if key <= previous:
                raise BboltError(f"{where}: the key {key[:64]!r} follows {previous[:64]!r}")
            keys.append(key)
            pages.append(child)
            previous = key
            behind = end
        return keys, pages

    def _leaf(
        self, page: int, count: int, overflow: int, flags: int, previous: bytes, where: str
    ) -> Iterator[Rows]:
        """Yield a leaf's items, all at once unless it is large."""
        if count > ELEMENTS_MAX:
            raise BboltError(f"{where} is a leaf with {count} items")
        size = (1 + overflow) * self.page_size
        start = page * self.page_size
        if size <= WHOLE_PAGE_MAX:
            rows = _leaf_rows(self.read(start, size), count, flags, previous, where)
            if rows:
                yield rows
            return
        table_end = HEAD_SIZE + ELEMENT_SIZE * count
        table = self.read(start, table_end)
        behind = table_end
        for at in range(HEAD_SIZE, table_end, ELEMENT_SIZE):
            found, position, key_size, value_size = unpack_from("<IIII", table, at)
            begin = at + position
            end = begin + key_size + value_size
            if found != flags:
                raise BboltError(f"{where}: an item with flags {found:#x}")
            if begin < behind or end > size or not 0 < key_size <= KEY_SIZE_MAX:
                raise BboltError(f"{where}: an item's place is outside the page, or taken")
            if value_size > VALUE_SIZE_MAX:
                raise BboltError(f"{where}: a value of {value_size} octets is too large")
            key = self.read(start + begin, key_size)
            if key <= previous:
                raise BboltError(f"{where}: the key {key[:64]!r} follows {previous[:64]!r}")
            previous = key
            behind = end
            yield [(key, self.read(start + begin + key_size, value_size))]


def _leaf_rows(octets: bytes, count: int, flags: int, previous: bytes, where: str) -> Rows:
    """Return the items of a leaf page that is in memory."""
    size = len(octets)
    table_end = HEAD_SIZE + ELEMENT_SIZE * count
    if table_end > size:
        raise BboltError(f"{where} has no room for its {count} items")
    fields = unpack_from(f"<{4 * count}I", octets, HEAD_SIZE)
    if fields[::4].count(flags) != count:
        wrong = next(found for found in fields[::4] if found != flags)
        raise BboltError(f"{where}: an item with flags {wrong:#x}")
    rows: Rows = []
    at = HEAD_SIZE
    behind = table_end
    for position, key_size, value_size in zip(
        fields[1::4], fields[2::4], fields[3::4], strict=True
    ):
        begin = at + position
        middle = begin + key_size
        end = middle + value_size
        if begin < behind or end > size or not 0 < key_size <= KEY_SIZE_MAX:
            raise BboltError(f"{where}: an item's place is outside the page, or taken")
        key = octets[begin:middle]
        if key <= previous:
            raise BboltError(f"{where}: the key {key[:64]!r} follows {previous[:64]!r}")
        rows.append((key, octets[middle:end]))
        previous = key
        behind = end
        at += ELEMENT_SIZE
    return rows


def _newest_meta(read_at: ReadAt, size: int) -> Meta:
    """Return the valid meta with the higher txid, whatever the page size is.

    Raises `BboltError` with the reason of the first one's refusal when there is none.
    """
    if size < 2 * PAGE_SIZE_MIN:
        raise BboltError(f"a file of {size} octets is no bbolt database")
    refusal: BboltError | None = None
    first: Meta | None = None
    try:
        first = decode_meta(read_at(0, PAGE_SIZE_MIN))
    except BboltError as error:
        refusal = error
    page_size = first.page_size if first is not None else PAGE_SIZE_MIN
    while page_size <= PAGE_SIZE_MAX:
        try:
            second = decode_meta(read_at(page_size, PAGE_SIZE_MIN))
        except BboltError:
            second = None
        if second is not None and second.page_size == page_size:
            return second if first is None or second.txid > first.txid else first
        if first is not None:
            return first
        page_size *= 2
    assert refusal is not None
    raise refusal
