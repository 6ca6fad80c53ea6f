"""What real members answer about ranges that end before they begin.

They keep permissions in an interval tree (Cormen et al., 3rd ed., 14.3) on a red-black tree
(13.3), and their search cuts off branches by rules that hold for ranges with keys in them only.
So the answer for others depends on the tree's form, and this one takes the same form: splits by
the begin, then by the end, equals to the right; the book's insertion.

An empty end is greater than all others.  For all other ranges `ranges` is the shorter way.
"""

from __future__ import annotations

from typing import Final

Rank = tuple[bool, bytes]
"""Compares as real members compare: the empty one is the greatest."""

_LESS: Final = -1
_GREATER: Final = 1
_MEETS: Final = 0


def _rank(key: bytes) -> Rank:
    return not key, key


def _compare(begin: Rank, end: Rank, other_begin: Rank, other_end: Rank) -> int:
    """Tell where the first span lies: before the other, behind it, or meeting it."""
    if begin < other_begin and end <= other_begin:
        return _LESS
    return _GREATER if begin >= other_end else _MEETS


class _Node:
    __slots__ = ("begin", "end", "end_max", "is_red", "left", "parent", "right")

    def __init__(self, begin: Rank, end: Rank, parent: _Node | None) -> None:
        self.begin = begin
        self.end = end
        self.end_max = end
        self.is_red = True
        self.left: _Node | None = None
        self.right: _Node | None = None
        self.parent = parent


class IntervalTree:
    """Spans; each is inserted once for each grant."""

    def __init__(self) -> None:
        self._root: _Node | None = None

    def insert(self, first: bytes, last: bytes) -> None:
        """Add ``[first, last)``."""
        begin, end = _rank(first), _rank(last)
        parent, node = None, self._root
        goes_left = False
        while node is not None:
            parent = node
            goes_left = (begin, end) < (node.begin, node.end)
            node = node.left if goes_left else node.right
        added = _Node(begin, end, parent)
        if parent is None:
            self._root = added
        elif goes_left:
            parent.left = added
        else:
            parent.right = added
        _renew_max(parent)
        self._mend(added)

    def _mend(self, node: _Node) -> None:
        """Restore what makes the tree balanced, behind an insertion."""
        while True:
            parent = node.parent
            if parent is None or not parent.is_red:
                break
            above = parent.parent
            assert above is not None, "the root is black"
            is_left = parent is above.left
            uncle = above.right if is_left else above.left
            if uncle is not None and uncle.is_red:
                uncle.is_red = parent.is_red = False
                above.is_red = True
                node = above
                continue
            if node is (parent.right if is_left else parent.left):
                node = parent
                self._rotate(node, to_left=is_left)
                parent = node.parent
                assert parent is not None, "it was rotated below its child"
            parent.is_red = False
            above.is_red = True
            self._rotate(above, to_left=not is_left)
        assert self._root is not None, "a node was inserted"
        self._root.is_red = False

    def _rotate(self, node: _Node, *, to_left: bool) -> None:
        """Bring ``node`` below its right child (or its left one)."""
        child = node.right if to_left else node.left
        assert child is not None, "it is rotated below this"
        moved = child.left if to_left else child.right
        if to_left:
            node.right = moved
            child.left = node
        else:
            node.left = moved
            child.right = node
        if moved is not None:
            moved.parent = node
        above = node.parent
        child.parent = above
        node.parent = child
        if above is None:
            self._root = child
        elif above.left is node:
            above.left = child
        else:
            above.right = child
        _renew_max(node)

    def intersects(self, first: bytes, last: bytes) -> bool:
        """Whether a span is found that meets ``[first, last)``."""
        begin, end = _rank(first), _rank(last)
        node = self._root
        while node is not None and _compare(begin, end, node.begin, node.end) != _MEETS:
            left = node.left
            node = left if left is not None and left.end_max > begin else node.right
        return node is not None

    def contains(self, first: bytes, last: bytes) -> bool:
        """Whether the spans that are found to meet ``[first, last)`` cover it."""
        begin, end = _rank(first), _rank(last)
        found: list[_Node] = []
        _visit(self._root, begin, end, found)
        if not found:
            return False
        reached = found[0].end
        for node in found:
            if reached < node.begin:
                return False
            reached = max(reached, node.end)
        return reached >= end and found[0].begin <= begin


def _visit(node: _Node | None, begin: Rank, end: Rank, found: list[_Node]) -> None:
    """Gather the nodes that real members visit, in order; as deep as the tree is high."""
    if node is None:
        return
    place = _compare(begin, end, node.begin, node.end)
    if place == _MEETS:
        _visit(node.left, begin, end, found)
        found.append(node)
        _visit(node.right, begin, end, found)
    elif place == _LESS:
        _visit(node.left, begin, end, found)
    elif _compare(node.begin, node.end_max, begin, end) == _MEETS:
        _visit(node.left, begin, end, found)
        _visit(node.right, begin, end, found)


def _renew_max(node: _Node | None) -> None:
    """Work out the greatest end below ``node`` and those above it."""
    while node is not None:
        end_max = node.end
        if node.left is not None:
            end_max = max(end_max, node.left.end_max)
        if node.right is not None:
            end_max = max(end_max, node.right.end_max)
        node.end_max = end_max
        node = node.parent
