"""What the writer wrote is what the reader reads, and nothing is left over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcdtw.bbolt.check import check
from etcdtw.bbolt.layout import (
    FLAG_BRANCH,
    FLAG_FREELIST,
    KEY_SIZE_MAX,
    PAGE_HEAD,
    PAGE_SIZE_MAX,
    PAGE_SIZE_MIN,
    BboltError,
    Meta,
    encode_meta,
)
from etcdtw.bbolt.reader import WHOLE_PAGE_MAX, BboltFile
from etcdtw.bbolt.writer import WRITE_SIZE, BboltWriter
from tests.support.bbolt_rig import Content, open_octets, read_file, revision_rows, write_file

PAGE_SIZES = [1024, 4096, 16384, 65536]
NAMES = st.binary(min_size=1, max_size=20)
KEYS = st.binary(min_size=1, max_size=40) | st.builds(
    lambda head, size: head + bytes(size), st.binary(min_size=1, max_size=3), st.integers(0, 3000)
)
VALUES = st.binary(max_size=60) | st.integers(0, 9000).map(bytes)
BUCKETS = st.dictionaries(NAMES, st.dictionaries(KEYS, VALUES, max_size=60), max_size=6)


@given(BUCKETS, st.sampled_from(PAGE_SIZES))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_content_comes_back_as_it_was(
    buckets: dict[bytes, dict[bytes, bytes]], page_size: int
) -> None:
    content = {name: sorted(buckets[name].items()) for name in sorted(buckets)}
    octets = write_file(content, page_size)
    assert len(octets) % page_size == 0
    assert read_file(octets) == content
    status = check(open_octets(octets))
    assert status.total_size == len(octets)
    assert status.total_key == sum(map(len, content.values()))


@pytest.mark.parametrize("page_size", [1024, 4096])
@pytest.mark.parametrize("count", [1, 2, 3, 70, 1000, 20_000])
def test_trees_of_every_height_come_back(page_size: int, count: int) -> None:
    content: Content = {b"key": revision_rows(count), b"meta": [(b"a", b"b")]}
    octets = write_file(content, page_size)
    assert read_file(octets) == content
    check(open_octets(octets))


@pytest.mark.parametrize("count", range(2, 40))
def test_every_branch_has_at_least_two_children(count: int) -> None:
    # Keys so large that a branch of 1,024 octets holds two of them: each shape of the last pages.
    rows = [(b"%03d" % i + bytes(600), bytes(900)) for i in range(count)]
    octets = write_file({b"key": rows}, 1024)
    assert read_file(octets) == {b"key": rows}
    page = 2
    branches = 0
    while page * 1024 < len(octets):
        _, flags, children, overflow = PAGE_HEAD.unpack_from(octets, page * 1024)
        assert flags != FLAG_BRANCH or children >= 2
        branches += flags == FLAG_BRANCH
        page += 1 + overflow
    assert branches


def test_a_value_of_many_pages_is_read_alone() -> None:
    rows = [(b"a", b"1"), (b"b", bytes(3 << 20)), (b"c", b"3")]
    octets = write_file({b"key": rows})
    reads: list[int] = []

    def read_at(offset: int, size: int) -> bytes:
        reads.append(size)
        return octets[offset : offset + size]

    assert list(BboltFile(read_at, len(octets)).items(b"key")) == rows
    assert max(reads) == 3 << 20


def test_the_largest_key_comes_back_and_one_octet_more_is_refused() -> None:
    rows = [(b"%d" % i + bytes(KEY_SIZE_MAX - 1), b"") for i in range(9)]
    octets = write_file({b"key": rows})
    assert read_file(octets) == {b"key": rows}
    with pytest.raises(BboltError, match="too large"):
        write_file({b"key": [(bytes(KEY_SIZE_MAX + 1), b"")]})


def test_the_least_and_the_largest_page_are_the_bounds() -> None:
    for page_size in (PAGE_SIZE_MIN // 2, PAGE_SIZE_MAX * 2, 5000):
        with pytest.raises(BboltError, match="page size"):
            BboltWriter(print, page_size)


def test_a_bucket_is_inline_up_to_a_quarter_of_a_page() -> None:
    # 16 octets of head and 16 + 1 + 991 of one item are 1,024: a quarter.
    assert len(write_file({b"b": [(b"k", bytes(991))]})) == 3 * 4096
    assert len(write_file({b"b": [(b"k", bytes(992))]})) == 4 * 4096


def test_a_writer_holds_no_more_than_it_joins() -> None:
    sizes: list[int] = []
    made = 0

    def rows() -> Iterator[tuple[bytes, bytes]]:
        nonlocal made
        for made in range(100_000):
            if made % 1000 == 0:
                assert made * 70 - sum(sizes) < 2 * WRITE_SIZE
            yield made.to_bytes(8, "big"), bytes(46)

    writer = BboltWriter(lambda octets: sizes.append(len(octets)))
    assert writer.add_bucket(b"key", rows()) == 100_000
    writer.finish()
    assert sum(sizes) == writer.size


@pytest.mark.parametrize(
    "keys", [[b"b", b"a"], [b"a", b"a"], [b"", b"a"], [b"%03d" % i for i in range(500)] + [b"4"]]
)
def test_keys_that_do_not_ascend_are_refused(keys: list[bytes]) -> None:
    with pytest.raises(BboltError, match="the key"):
        write_file({b"key": [(key, b"v") for key in [*keys, b"0"]]})


@pytest.mark.parametrize("names", [[b""], [b"b", b"a"], [b"a", b"a"]])
def test_names_that_do_not_ascend_are_refused(names: list[bytes]) -> None:
    writer = BboltWriter(lambda _: None)
    for name in names[:-1]:
        writer.add_bucket(name, [])
    with pytest.raises(BboltError, match="bucket"):
        writer.add_bucket(names[-1], [])


def test_a_bucket_that_is_not_there_has_no_items() -> None:
    assert list(open_octets(write_file({})).items(b"key")) == []


def freed(octets: bytes, ids: list[int], listed: int | None = None) -> bytes:
    """Return a file with a freelist page behind, naming pages that are added behind that."""
    pages = len(octets) // 4096
    root = open_octets(octets).meta.root
    body = b"".join(page.to_bytes(8, "little") for page in ids)
    count = len(ids) if listed is None else listed
    page = PAGE_HEAD.pack(pages, FLAG_FREELIST, count, 0) + body
    meta = Meta(4096, root, pages, pages + 3, 8)
    return encode_meta(meta) + octets[4096:] + page.ljust(4096, b"\0") + bytes(2 * 4096)


def test_a_freelist_must_name_exactly_what_no_tree_reaches() -> None:
    octets = write_file({b"key": revision_rows(200)})
    pages = len(octets) // 4096
    content = {b"key": revision_rows(200)}
    whole = freed(octets, [pages + 1, pages + 2])
    assert read_file(whole) == content
    assert check(open_octets(whole)).total_key == 200
    long = freed(octets, [2, pages + 1, pages + 2], 0xFFFF)
    assert check(open_octets(long)).total_key == 200
    for ids, reason in [
        ([pages + 1], "neither reachable nor free"),
        ([pages + 1, pages + 1], "referenced twice"),
        ([2, pages + 1, pages + 2], "page 2 is referenced twice"),
        ([pages + 3, pages + 1], "outside"),
        ([1, pages + 1], "outside"),
    ]:
        with pytest.raises(BboltError, match=reason):
            check(open_octets(freed(octets, ids)))
    with pytest.raises(BboltError, match="no room"):
        check(open_octets(freed(octets, [600, pages + 1], 0xFFFF)))


def test_a_large_leaf_is_checked_item_by_item() -> None:
    rows = [(b"a", bytes(WHOLE_PAGE_MAX)), (b"b", b"2")]
    octets = bytearray(write_file({b"key": rows}))
    # Two items in one leaf: what bbolt makes of large values, and our writer does not.
    start = 2 * 4096
    assert PAGE_HEAD.unpack_from(octets, start)[2] == 1
    element = octets[start + 16 : start + 32]
    octets[start + 10 : start + 12] = (2).to_bytes(2, "little")
    octets[start + 16 : start + 48] = element + element
    with pytest.raises(BboltError, match="taken"):
        list(open_octets(bytes(octets)).items(b"key"))
