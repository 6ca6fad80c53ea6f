"""Files that were damaged, cut or made by an enemy end in a `BboltError`, nothing else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etcdtw.bbolt.check import check
from etcdtw.bbolt.layout import PAGE_HEAD, BboltError, Meta, encode_meta
from etcdtw.bbolt.reader import DEPTH_MAX
from etcdtw.bbolt.seal import has_seal, seal_of, verify_seal
from tests.support.bbolt_rig import (
    Content,
    open_octets,
    read_file,
    read_from,
    revision_rows,
    write_file,
)

CONTENT: Content = {
    b"alarm": [],
    b"key": revision_rows(900),
    b"large": [(b"a", bytes(9000)), (b"b", bytes(3000)), (b"c", b"")],
    b"meta": [(b"consistent_index", bytes(8)), (b"term", bytes(8))],
}
FILE = write_file(CONTENT, 1024)
SEALED = FILE + seal_of(read_from(FILE), len(FILE))


def read_and_check(octets: bytes) -> Content | None:
    """Return the content; None: refused."""
    try:
        check(open_octets(octets))
        return read_file(octets)
    except BboltError:
        return None


def heads_and_tables() -> list[int]:
    """Return offsets of octets that are structure, not data."""
    offsets = list(range(96))
    page = 2
    while page * 1024 < len(FILE):
        _, _, count, overflow = PAGE_HEAD.unpack_from(FILE, page * 1024)
        offsets += range(page * 1024, page * 1024 + 16 * (1 + count))
        page += 1 + overflow
    return offsets


STRUCTURE = heads_and_tables()


@given(st.sampled_from(STRUCTURE), st.integers(0, 255))
@settings(max_examples=400, deadline=None)
def test_a_changed_octet_of_the_structure_is_refused_or_harmless(at: int, octet: int) -> None:
    damaged = FILE[:at] + bytes([octet]) + FILE[at + 1 :]
    read_and_check(damaged)


@given(st.lists(st.tuples(st.sampled_from(STRUCTURE), st.integers(0, 255)), max_size=30))
@settings(max_examples=200, deadline=None)
def test_many_changed_octets_are_refused_or_harmless(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(FILE)
    for at, octet in changes:
        damaged[at] = octet
    read_and_check(bytes(damaged))


@given(st.integers(0, len(FILE) - 1))
@settings(max_examples=100, deadline=None)
def test_a_file_that_is_cut_is_refused(size: int) -> None:
    assert read_and_check(FILE[:size]) is None


@given(st.binary(max_size=8192))
@settings(max_examples=100, deadline=None)
def test_octets_that_are_no_file_are_refused(octets: bytes) -> None:
    assert read_and_check(octets) is None


@given(st.integers(0, len(SEALED) * 8 - 1))
@settings(max_examples=100, deadline=None)
def test_a_seal_notices_any_flipped_bit(bit: int) -> None:
    damaged = bytearray(SEALED)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(BboltError, match=r"expected sha256 \[\d+ .*\], got \[\d+ "):
        verify_seal(read_from(bytes(damaged)), len(damaged))


def test_a_seal_is_told_by_the_size_and_holds_for_the_whole_file() -> None:
    assert has_seal(len(SEALED))
    assert not has_seal(len(FILE))
    assert verify_seal(read_from(SEALED), len(SEALED)) == len(FILE)
    with pytest.raises(BboltError, match="snapshot missing hash but --skip-hash-check=false"):
        verify_seal(read_from(FILE), len(FILE))
    with pytest.raises(BboltError, match="ends at"):
        seal_of(read_from(FILE), len(FILE) + 1)
    copied: list[bytes] = []
    assert seal_of(read_from(FILE), len(FILE), copied.append) == SEALED[-32:]
    assert b"".join(copied) == FILE


def test_the_second_meta_serves_when_the_first_is_damaged() -> None:
    for page_size in (1024, 4096, 65536):
        octets = write_file(CONTENT, page_size)
        assert read_file(bytes(20) + octets[20:]) == CONTENT
        assert read_file(octets[:page_size] + bytes(page_size) + octets[2 * page_size :]) == CONTENT
        both = bytes(20) + octets[20:page_size] + bytes(page_size) + octets[2 * page_size :]
        with pytest.raises(BboltError, match="magic"):
            read_file(both)


def test_the_newer_meta_counts() -> None:
    root = open_octets(FILE).meta.root
    older = Meta(1024, 2**40, 2**64 - 1, len(FILE) // 1024, 1)
    newer = Meta(1024, root, 2**64 - 1, len(FILE) // 1024, 4)
    octets = encode_meta(newer) + encode_meta(older) + FILE[2048:]
    assert read_file(octets) == CONTENT
    newest = Meta(1024, 2**40, 2**64 - 1, len(FILE) // 1024, 5)
    with pytest.raises(BboltError, match="root page"):
        read_file(encode_meta(newer) + encode_meta(newest) + FILE[2048:])


def page(number: int, flags: int, count: int, body: bytes, overflow: int = 0) -> bytes:
    return (PAGE_HEAD.pack(number, flags, count, overflow) + body).ljust(1024, b"\0")


def made(*pages: bytes, freelist: int = 2**64 - 1) -> bytes:
    """Return a file of hand-made pages from id 3 on; its bucket ``key`` has the root 3."""
    bucket = struct.pack("<IIII", 1, 16, 3, 16) + b"key" + struct.pack("<QQ", 3, 0)
    octets = page(2, 2, 1, bucket) + b"".join(pages)
    meta = Meta(1024, 2, freelist, 2 + len(octets) // 1024, 2)
    return encode_meta(meta) + encode_meta(meta) + octets


def leaf(number: int, *keys: bytes) -> bytes:
    elements = b""
    position = 16 * len(keys)
    for key in keys:
        elements += struct.pack("<IIII", 0, position, len(key), 0)
        position += len(key) - 16
    return page(number, 2, len(keys), elements + b"".join(keys))


def branch(number: int, *children: tuple[bytes, int]) -> bytes:
    elements = b""
    position = 16 * len(children)
    for key, child in children:
        elements += struct.pack("<IIQ", position, len(key), child)
        position += len(key) - 16
    return page(number, 1, len(children), elements + b"".join(key for key, _ in children))


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (made(branch(3, (b"a", 3))), "deeper"),
        (made(branch(3, (b"a", 4), (b"b", 4)), leaf(4, b"a")), "follows|elsewhere"),
        (made(branch(3, (b"a", 4), (b"b", 4)), leaf(4)), "empty leaf"),
        (made(branch(3, (b"a", 4), (b"c", 5)), leaf(4, b"a", b"d"), leaf(5, b"c")), "elsewhere"),
        (made(branch(3, (b"b", 4), (b"c", 5)), leaf(4, b"a"), leaf(5, b"c")), "elsewhere"),
        (made(branch(3, (b"b", 4), (b"a", 5)), leaf(4, b"a"), leaf(5, b"c")), "follows"),
        (made(branch(3, (b"a", 2**60))), "outside the file"),
        (made(branch(3, (b"a", 1))), "outside the file"),
        (made(branch(3)), "0 children"),
        (made(leaf(3, b"b", b"a")), "follows"),
        (made(leaf(3, b"a", b"a")), "follows"),
        (made(page(3, 2, 1, struct.pack("<IIII", 0, 16, 0, 4))), "place"),
        (made(page(3, 2, 1, struct.pack("<IIII", 0, 0, 3, 4))), "place"),
        (made(page(3, 2, 1, struct.pack("<IIII", 0, 16, 3, 2000))), "place"),
        (made(page(3, 2, 1, struct.pack("<IIII", 0, 2**32 - 1, 3, 4))), "place"),
        (made(page(3, 2, 1, struct.pack("<IIII", 1, 16, 3, 4))), "flags 0x1"),
        (made(page(3, 2, 64, b"")), "no room"),
        (made(page(3, 2, 0xFFFF, b"")), "65535 items"),
        (made(page(3, 1, 64, b"")), "octets for 64 children"),
        (made(page(3, 4, 0, b"")), "neither branch nor leaf"),
        (made(page(3, 3, 0, b"")), "neither branch nor leaf"),
        (made(page(4, 2, 0, b"")), "calls itself page 4"),
        (made(page(3, 2, 0, b"", 1)), "overflows"),
        (made(leaf(3, b"a"), freelist=3), "flags 0x2"),
        (made(leaf(3, b"a"), freelist=9), "freelist page 9"),
    ],
)
def test_a_page_that_lies_is_refused_with_its_reason(octets: bytes, reason: str) -> None:
    def read_and_pass() -> None:
        read_file(octets)
        check(open_octets(octets))

    with pytest.raises(BboltError, match=reason):
        read_and_pass()


def test_a_page_of_two_buckets_is_read_but_not_passed() -> None:
    element = struct.pack("<IIII", 1, 32, 1, 16) + struct.pack("<IIII", 1, 33, 1, 16)
    root = struct.pack("<QQ", 3, 0)
    octets = page(2, 2, 2, element + b"a" + root + b"b" + root) + leaf(3, b"k")
    meta = encode_meta(Meta(1024, 2, 2**64 - 1, 4, 2))
    assert read_file(meta + meta + octets) == {b"a": [(b"k", b"")], b"b": [(b"k", b"")]}
    with pytest.raises(BboltError, match="page 3 is referenced twice"):
        check(open_octets(meta + meta + octets))


def test_the_deepest_tree_is_read_and_one_level_more_is_refused() -> None:
    def chain(depth: int) -> bytes:
        pages = [branch(3 + i, (b"a", 4 + i)) for i in range(depth)]
        return made(*pages, leaf(3 + depth, b"a"))

    assert read_file(chain(DEPTH_MAX)) == {b"key": [(b"a", b"")]}
    with pytest.raises(BboltError, match="deeper"):
        read_file(chain(DEPTH_MAX + 1))


def test_a_bucket_whose_inline_page_lies_is_refused() -> None:
    good = write_file({b"b": [(b"k", b"v")]}, 1024)
    at = good.index(struct.pack("<QQ", 0, 0), 2048)
    for offset, octet in [(16, 9), (24, 1), (26, 70), (28, 1)]:
        damaged = bytearray(good)
        damaged[at + offset] = octet
        with pytest.raises(BboltError, match="inline page"):
            read_file(bytes(damaged))
