"""bbolt files in memory: written by our writer, read back through `read_at`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from etcdtw.bbolt.layout import PAGE_SIZE
from etcdtw.bbolt.reader import BboltFile, ReadAt
from etcdtw.bbolt.writer import BboltWriter

Content = dict[bytes, list[tuple[bytes, bytes]]]


def write_file(
    content: Mapping[bytes, Iterable[tuple[bytes, bytes]]], page_size: int = PAGE_SIZE
) -> bytes:
    """Return a file with these buckets, which must be in order."""
    parts: list[bytes] = []
    writer = BboltWriter(parts.append, page_size)
    for name, items in content.items():
        writer.add_bucket(name, items)
    head = writer.finish()
    octets = b"".join(parts)
    assert len(octets) == writer.size
    return head + octets[len(head) :]


def read_from(octets: bytes) -> ReadAt:
    """Return a ``read_at`` over octets."""
    return lambda offset, size: octets[offset : offset + size]


def open_octets(octets: bytes) -> BboltFile:
    return BboltFile(read_from(octets), len(octets))


def read_file(octets: bytes) -> Content:
    """Return everything in a file."""
    file = open_octets(octets)
    return {name: list(file.items(name)) for name in file.buckets}


def revision_rows(count: int, value: bytes = b"value") -> list[tuple[bytes, bytes]]:
    """Return as many rows as etcd's bucket ``key`` would have them."""
    return [((main + 2).to_bytes(8, "big") + b"_" + bytes(8), value) for main in range(count)]
