"""Whether the page on which a key's versions lie shows all of them.

LMDB 0.9 keeps values of one size one behind the other behind a head of 16 octets, on a page of
their own or, while they are few, on an inner page within a row.  The head says how many there are,
and by how much the free room has shrunk: a damaged one that hides versions contradicts itself.
py-lmdb shows no heads, so they are read from the map, around a value that lies there.
"""

from __future__ import annotations

import ctypes
from typing import Final

from etcdtw.storage.disk.page_format import DUPLICATES, HEADER, LEAF, LEAF2, NODE, PAGE
from etcdtw.storage.rows.seal import SEAL_SIZE

VALUE_SIZE: Final = 17 + SEAL_SIZE  # of a version with its seal

_SUB_PAGE: Final = 0x40


class _Buffer(ctypes.Structure):
    """CPython's `Py_buffer`."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("owner", ctypes.py_object),
        ("size", ctypes.c_ssize_t),
        ("item_size", ctypes.c_ssize_t),
        ("is_readonly", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


def page_around(value: memoryview) -> tuple[bytes, int]:
    """Return the page of the map on which ``value`` lies, and where there.

    ``value`` is of a transaction with ``buffers`` that is still open.
    """
    buffer = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(value), ctypes.byref(buffer), 0)
    address = int(buffer.address)
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(buffer))
    at = address % PAGE
    return ctypes.string_at(address - at, PAGE), at


def shows_all(page: bytes, at: int, name: bytes) -> bool:
    """Whether the head over the version at ``at`` of a page hides none; ``name`` is its row's."""
    _, _, flags, lower, upper = HEADER.unpack_from(page)
    if flags & LEAF2:
        return _is_whole(page, 0) and (at - HEADER.size) % VALUE_SIZE == 0
    if not flags & LEAF or not HEADER.size <= lower <= upper <= PAGE:
        return False
    for slot in range(HEADER.size, lower, 2):
        node = int.from_bytes(page[slot : slot + 2], "little")
        if not upper <= node <= PAGE - NODE.size:
            return False
        low, high, node_flags, name_size = NODE.unpack_from(page, node)
        begin = node + NODE.size + name_size
        if begin <= at < begin + (low | high << 16) and page[begin - name_size : begin] == name:
            inner = page[begin : begin + (low | high << 16)]
            if not node_flags & DUPLICATES:
                return len(inner) == VALUE_SIZE  # a single one
            return len(inner) > HEADER.size and _is_whole(inner, _SUB_PAGE)
    return False


def _is_whole(page: bytes, flags_more: int) -> bool:
    _, value_size, flags, lower, upper = HEADER.unpack_from(page)
    wanted = LEAF | LEAF2 | flags_more
    count, odd = divmod(lower - HEADER.size, 2)
    return (
        flags & wanted == wanted
        and value_size == VALUE_SIZE
        and count > 0
        and not odd
        and upper - lower == len(page) - HEADER.size - count * VALUE_SIZE
    )
