"""Ranges of keys that are permitted together: merged, and asked whether they cover another one.

etcd's forms of ``range_end``: empty for one key, ``\\0`` for everything from the key on, else the
first key behind the range.

Ranges that end before they begin hold no key, and yet real members answer for them, from the form
of a tree (`interval_tree`): a txn may stand or fall by it, so the answer must be theirs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from etcdtw.auth.interval_tree import IntervalTree

OPEN_END: Final = b"\0"

Span = tuple[bytes, bytes | None]
"""``[first, last)`` of keys; None: to the end of the key space."""


def span_of(key: bytes, range_end: bytes) -> Span:
    """Return the keys that etcd's ``key`` and ``range_end`` mean."""
    if not range_end:
        return key, key + b"\0"
    return key, None if range_end == OPEN_END else range_end


def is_grantable(key: bytes, range_end: bytes) -> bool:
    """Whether a permission may be given on this range: it holds at least one key."""
    return bool(key) and (not range_end or range_end == OPEN_END or key < range_end)


class Ranges:
    """Spans that are permitted together.  Does not change.

    ``spans`` come in the order of their grants, which real members' trees depend on.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        self._spans = list(spans)
        self._tree: IntervalTree | None = None
        proper = [span for span in self._spans if _is_proper(span)]
        # States of earlier versions may hold others.
        self._is_odd = len(proper) != len(self._spans)
        self._begins: list[bytes] = []
        self._ends: list[bytes | None] = []
        for begin, end in sorted(proper, key=_begin):
            self._add(begin, end)

    def _add(self, begin: bytes, end: bytes | None) -> None:
        """Take a span that begins at or behind all others; those that touch become one."""
        if self._ends:
            last = self._ends[-1]
            if last is None:
                return
            if begin <= last:
                if end is None or end > last:
                    self._ends[-1] = end
                return
        self._begins.append(begin)
        self._ends.append(end)

    @property
    def merged(self) -> list[Span]:
        """The spans as they are asked: in order, none touches another."""
        return list(zip(self._begins, self._ends, strict=True))

    def has(self, key: bytes) -> bool:
        """Whether ``key`` is in one of them."""
        if self._is_odd or not key:
            return self._in_tree.intersects(key, key + b"\0")
        at = bisect_right(self._begins, key) - 1
        if at < 0:
            return False
        end = self._ends[at]
        return end is None or key < end

    def covers(self, key: bytes, range_end: bytes) -> bool:
        """Whether all keys of a request's range are in them."""
        if not range_end and not self._is_odd and key:
            at = bisect_right(self._begins, key) - 1
            if at < 0:
                return False
            end = self._ends[at]
            return end is None or key < end
        if not range_end:
            return self.has(key)
        end = None if range_end == OPEN_END else range_end
        if self._is_odd or not key or (end is not None and end < key):
            return self._in_tree.contains(key, end or b"")
        at = bisect_right(self._begins, key) - 1
        if at < 0:
            return False
        last = self._ends[at]
        if last is None:
            return True
        return end is not None and end <= last and key < last

    @property
    def _in_tree(self) -> IntervalTree:
        tree = self._tree
        if tree is None:
            tree = self._tree = IntervalTree()
            for begin, end in self._spans:
                tree.insert(begin, end or b"")
        return tree


def _is_proper(span: Span) -> bool:
    begin, end = span
    return bool(begin) and (end is None or begin < end)


def _begin(span: Span) -> bytes:
    return span[0]
