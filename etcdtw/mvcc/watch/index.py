"""Which watchers does a key concern?  Exact keys in dicts, ranges in an interval treap.

Knows nothing of revisions, streams or delivery.  A lookup costs O(log ranges + matches).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Final, Generic, Protocol, TypeVar

EXACT_SHARDS: Final = 64
"""Dicts of single keys.  One of a million keys is copied whole, for tens of ms, as it grows; hashes
of octets are salted per process, so that no client can fill one of these."""


class Ranged(Protocol):
    """What is indexed: it wants ``[key, end)``, or ``key`` alone when ``is_exact``."""

    @property
    def key(self) -> bytes: ...

    @property
    def end(self) -> bytes | None:
        """Exclusive bound; None: to the end of the key space.  Unused when ``is_exact``."""
        ...

    @property
    def is_exact(self) -> bool: ...


W = TypeVar("W", bound=Ranged)
Found = tuple[bytes, "bytes | None", "dict[W, None]"]
"""A range and its watchers; end None: without end."""


class _Range(Generic[W]):
    """One distinct bounded range: a node of the treap ordered by (start, end).

    ``end_max`` is the largest end in the subtree; no child's priority is above its parent's.
    """

    __slots__ = ("end", "end_max", "left", "priority", "right", "start", "watchers")

    def __init__(self, start: bytes, end: bytes) -> None:
        self.start = start
        self.end = end
        self.end_max = end
        # Hashes of bytes are salted per process, so no client can shape the tree; the
        # shape never shows in results, which are in order of (start, end).
        self.priority = hash((start, end))
        self.left: _Range[W] | None = None
        self.right: _Range[W] | None = None
        self.watchers: dict[W, None] = {}


def _refreshed(node: _Range[W]) -> _Range[W]:
    """Recompute ``end_max`` from the children; return the node."""
    end_max = node.end
    left, right = node.left, node.right
    if left is not None and left.end_max > end_max:
        end_max = left.end_max
    if right is not None and right.end_max > end_max:
        end_max = right.end_max
    node.end_max = end_max
    return node


def _split(
    node: _Range[W] | None, start: bytes, end: bytes
) -> tuple[_Range[W] | None, _Range[W] | None]:
    """Cut a tree into the ranges before (start, end) and the rest."""
    if node is None:
        return None, None
    if (node.start, node.end) < (start, end):
        node.right, rest = _split(node.right, start, end)
        return _refreshed(node), rest
    before, node.left = _split(node.left, start, end)
    return before, _refreshed(node)


def _merged(before: _Range[W] | None, after: _Range[W] | None) -> _Range[W] | None:
    """Join two trees, all of ``before`` ordered before all of ``after``."""
    if before is None:
        return after
    if after is None:
        return before
    if before.priority >= after.priority:
        before.right = _merged(before.right, after)
        return _refreshed(before)
    after.left = _merged(before, after.left)
    return _refreshed(after)


def _without(node: _Range[W] | None, gone: _Range[W]) -> _Range[W] | None:
    """Return the tree without one of its nodes."""
    assert node is not None
    if node is gone:
        return _merged(node.left, node.right)
    if (gone.start, gone.end) < (node.start, node.end):
        node.left = _without(node.left, gone)
    else:
        node.right = _without(node.right, gone)
    return _refreshed(node)


def _collect(node: _Range[W] | None, key: bytes, found: list[W]) -> None:
    """Append the watchers of all ranges of the tree that hold ``key``."""
    while node is not None and node.end_max > key:
        _collect(node.left, key, found)
        if node.start > key:
            return
        if key < node.end:
            found.extend(node.watchers)
        node = node.right


def _collect_ranges(node: _Range[W] | None, key: bytes, found: dict[int, Found[W]]) -> int:
    """`_collect` for the ranges themselves; return how many were met, known or not."""
    count = 0
    while node is not None and node.end_max > key:
        count += 1 + _collect_ranges(node.left, key, found)
        if node.start > key:
            return count
        if key < node.end and id(node) not in found:
            found[id(node)] = (node.start, node.end, node.watchers)
        node = node.right
    return count


class WatcherIndex(Generic[W]):
    """Watchers by what they watch.  Watchers of equal ranges keep the order of `add`."""

    def __init__(self) -> None:
        self._exact: list[dict[bytes, dict[W, None]]] = [{} for _ in range(EXACT_SHARDS)]
        self._root: _Range[W] | None = None
        self._ranges: dict[tuple[bytes, bytes], _Range[W]] = {}
        # Open-ended ranges: those of all starts <= key match, so no tree is needed.
        self._open: dict[bytes, dict[W, None]] = {}
        self._open_starts: list[bytes] = []
        self.has_ranges = False
        self.range_watchers = 0

    def add(self, watcher: W) -> None:
        key, end = watcher.key, watcher.end
        if watcher.is_exact:
            self._exact[hash(key) % EXACT_SHARDS].setdefault(key, {})[watcher] = None
            return
        self.has_ranges = True
        self.range_watchers += 1
        if end is None:
            if key not in self._open:
                self._open[key] = {}
                insort(self._open_starts, key)
            self._open[key][watcher] = None
            return
        node = self._ranges.get((key, end))
        if node is None:
            node = self._ranges[key, end] = _Range(key, end)
            before, after = _split(self._root, key, end)
            self._root = _merged(_merged(before, node), after)
        node.watchers[watcher] = None

    def remove(self, watcher: W) -> None:
        """Remove a watcher that was added; nothing may have changed in it since."""
        key, end = watcher.key, watcher.end
        if watcher.is_exact:
            shard = self._exact[hash(key) % EXACT_SHARDS]
            watchers = shard[key]
            del watchers[watcher]
            if not watchers:
                del shard[key]
            return
        self.range_watchers -= 1
        if end is None:
            del self._open[key][watcher]
            if not self._open[key]:
                del self._open[key]
                del self._open_starts[bisect_left(self._open_starts, key)]
        else:
            node = self._ranges[key, end]
            del node.watchers[watcher]
            if not node.watchers:
                del self._ranges[key, end]
                self._root = _without(self._root, node)
        self.has_ranges = bool(self._ranges or self._open)

    def exact(self, key: bytes) -> dict[W, None] | None:
        """Return the watchers of a single key, or None.  They are the index's own."""
        return self._exact[hash(key) % EXACT_SHARDS].get(key)

    def matching(self, key: bytes) -> list[W]:
        """Return the watchers that ``key`` concerns, in a new list."""
        exact = self.exact(key)
        found = list(exact) if exact is not None else []
        if self.has_ranges:
            _collect(self._root, key, found)
            for start in self._open_starts[: bisect_right(self._open_starts, key)]:
                found.extend(self._open[start])
        return found

    def ranges_of(self, key: bytes, found: dict[int, Found[W]]) -> int:
        """Add the ranges that hold ``key`` to ``found``, each once; return what was looked at.

        The watchers are the index's own; they may change when it does.
        """
        if not self.has_ranges:
            return 0
        count = _collect_ranges(self._root, key, found)
        for start in self._open_starts[: bisect_right(self._open_starts, key)]:
            count += 1
            watchers = self._open[start]
            if id(watchers) not in found:
                found[id(watchers)] = (start, None, watchers)
        return count
