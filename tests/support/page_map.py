"""Which pages of an LMDB 0.9 file are in use, and for what.  Little-endian, 4096 octets."""

from __future__ import annotations

from pathlib import Path
from struct import Struct

PAGE = 4096
_HEADER = Struct("<QHHHH")  # page number, padding, flags, lower, upper
_NODE = Struct("<HHHH")
_NUMBER = Struct("<Q")
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4
_BIG_DATA, _SUB_DATA = 1, 2
_NO_ROOT = (1 << 64) - 1


def pages_in_use(file: Path) -> dict[int, str]:
    """Return number -> what it is: ``meta``, ``free list``, ``branch``, ``leaf``, ``overflow``."""
    octets = file.read_bytes()
    metas = [octets[:PAGE], octets[PAGE : 2 * PAGE]]
    newest = max((0, 1), key=lambda i: _NUMBER.unpack_from(metas[i], 144)[0])
    found = {newest: "meta"}
    for at, title in ((40, "free list"), (88, "")):
        root = _NUMBER.unpack_from(metas[newest], at + 40)[0]
        waiting = [root] if root != _NO_ROOT else []
        while waiting:
            number = waiting.pop()
            page = octets[number * PAGE : (number + 1) * PAGE]
            _, _, flags, lower, _ = _HEADER.unpack_from(page)
            is_branch = bool(flags & _BRANCH)
            found[number] = title or ("branch" if is_branch else "leaf")
            if flags & 0x20:  # of values alone, all of one size
                continue
            for slot in range(_HEADER.size, lower, 2):
                node = int.from_bytes(page[slot : slot + 2], "little")
                low, high, node_flags, key_size = _NODE.unpack_from(page, node)
                data = node + _NODE.size + key_size
                if is_branch:
                    waiting.append(low | high << 16 | node_flags << 32)
                elif node_flags & _BIG_DATA:
                    first = _NUMBER.unpack_from(page, data)[0]
                    head = octets[first * PAGE + 12 : first * PAGE + 16]
                    for more in range(int.from_bytes(head, "little")):
                        found[first + more] = title or "overflow"
                elif node_flags & _SUB_DATA:
                    sub = _NUMBER.unpack_from(page, data + 40)[0]
                    if sub != _NO_ROOT:
                        waiting.append(sub)
    return found


def free_space(file: Path, page: int) -> tuple[int, int]:
    """Return where the free space of a tree's page begins and ends, from the page's beginning."""
    with file.open("rb") as stream:
        stream.seek(page * PAGE)
        _, pad, flags, lower, upper = _HEADER.unpack(stream.read(_HEADER.size))
    if flags & 0x20:  # of values alone: they lie one behind the other
        return _HEADER.size + pad * ((lower - _HEADER.size) // 2), PAGE
    return lower, upper
