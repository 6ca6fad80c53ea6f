"""The order in which a role keeps its permissions: by key, and those of one key as etcd has them.

Real members append a permission and sort by key alone, with a sort that is not stable; so
permissions of one key change places, in the state that all members must hold alike.  This is that
sort (pattern-defeating quicksort, as Go's ``sort.Sort`` has it since 1.19), for what it is given
here: a list in order, and one more at its end.
"""

from __future__ import annotations

from typing import Final

from etcdtw.auth.values import Permission

_STABLE_MAX: Final = 12
"""So many are sorted by insertion, which is stable."""
_SHIFTED_MIN: Final = 50
"""From so many on the one that is out of order is shifted, which is stable, too."""
_ALL_64: Final = (1 << 64) - 1


def with_appended(permissions: tuple[Permission, ...], last: Permission) -> tuple[Permission, ...]:
    """Return ``permissions``, which are in order, and ``last`` in the order of real members."""
    found = [*permissions, last]
    count = len(found)
    if _STABLE_MAX < count < _SHIFTED_MIN and found[-2].key > last.key:
        _sort(found, 0, count)
        return tuple(found)
    return tuple(sorted(found, key=_key))


def _key(permission: Permission) -> bytes:
    return permission.key


def _sort(found: list[Permission], first: int, end: int) -> None:
    """Sort ``found[first:end]``, fewer than `_SHIFTED_MIN`, so that nothing is ever shifted."""
    is_balanced = is_partitioned = True
    while True:
        count = end - first
        if count <= _STABLE_MAX:
            found[first:end] = sorted(found[first:end], key=_key)
            return
        if not is_balanced:
            _scatter(found, first, count)
        pivot, is_increasing = _choose(found, first, count)
        if is_balanced and is_partitioned and is_increasing and _is_sorted(found, first, end):
            return
        if first > 0 and not found[first - 1].key < found[pivot].key:
            first = _part_equals(found, first, end, pivot)
            continue
        middle, is_partitioned = _part(found, first, end, pivot)
        left, right = middle - first, end - middle
        is_balanced = min(left, right) >= count // 8
        if left < right:
            _sort(found, first, middle)
            first = middle + 1
        else:
            _sort(found, middle + 1, end)
            end = middle


def _is_sorted(found: list[Permission], first: int, end: int) -> bool:
    return all(found[i - 1].key <= found[i].key for i in range(first + 1, end))


def _swap(found: list[Permission], a: int, b: int) -> None:
    found[a], found[b] = found[b], found[a]


def _part(found: list[Permission], first: int, end: int, pivot: int) -> tuple[int, bool]:
    """Part by one element; return its place, and whether nothing had to move for it."""
    _swap(found, first, pivot)
    key = found[first].key
    low, high = first + 1, end - 1
    swaps = 0
    while True:
        while low <= high and found[low].key < key:
            low += 1
        while low <= high and not found[high].key < key:
            high -= 1
        if low > high:
            break
        _swap(found, low, high)
        swaps += 1
        low += 1
        high -= 1
    _swap(found, high, first)
    return high, swaps == 0


def _part_equals(found: list[Permission], first: int, end: int, pivot: int) -> int:
    """Bring those equal to the least to the front; return where the others begin."""
    _swap(found, first, pivot)
    key = found[first].key
    low, high = first + 1, end - 1
    while True:
        while low <= high and not key < found[low].key:
            low += 1
        while low <= high and key < found[high].key:
            high -= 1
        if low > high:
            return low
        _swap(found, low, high)
        low += 1
        high -= 1


def _scatter(found: list[Permission], first: int, count: int) -> None:
    """Move three elements; "random", and yet the same on every member."""
    number = count
    mask = (1 << count.bit_length()) - 1
    middle = first + count // 4 * 2
    for place in (middle - 1, middle, middle + 1):
        number ^= number << 13 & _ALL_64
        number ^= number >> 7
        number ^= number << 17 & _ALL_64
        other = number & mask
        if other >= count:
            other -= count
        _swap(found, place, first + other)


def _choose(found: list[Permission], first: int, count: int) -> tuple[int, bool]:
    """Return the median of three, and whether the three are in order."""
    a, b, c = (first + count // 4 * part for part in (1, 2, 3))
    swaps = 0
    if found[b].key < found[a].key:
        a, b, swaps = b, a, swaps + 1
    if found[c].key < found[b].key:
        b, c, swaps = c, b, swaps + 1
    if found[b].key < found[a].key:
        a, b, swaps = b, a, swaps + 1
    return b, swaps == 0
