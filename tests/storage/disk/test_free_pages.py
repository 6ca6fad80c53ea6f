"""What of a file of LMDB can be used again by large values, beside LMDB itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from etcdtw.storage.disk.free_pages import PAGES_MAX, reads, reusable_octets
from etcdtw.storage.disk.page_format import DATABASES_AT, PAGE, ROOT_AT

BIG = 9  # pages of a large value
VALUE = bytes(BIG * PAGE - 100)
SMALL = bytes(3000)


class File:
    """An environment of one table, written one transaction for each call."""

    def __init__(self, path: Path) -> None:
        self.env = lmdb.open(str(path), map_size=1 << 30, sync=False)
        self.file = path / "data.mdb"

    def put(self, keys: list[int], value: bytes) -> None:
        with self.env.begin(write=True) as txn:
            for key in keys:
                txn.put(b"%08d" % key, value)

    def delete(self, keys: list[int]) -> None:
        with self.env.begin(write=True) as txn:
            for key in keys:
                assert txn.delete(b"%08d" % key)

    def commit(self, times: int = 2) -> None:
        """Let so many small transactions pass: what was freed before may be used then."""
        for number in range(times):
            self.put([99_999_999], b"%d" % number)

    def reusable(self, row: int, pages_max: int = PAGES_MAX) -> int:
        return reusable_octets(self.file, row, self.env.readers(), pages_max)

    @property
    def pages(self) -> int:
        return int(self.env.info()["last_pgno"]) + 1


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    found = File(tmp_path)
    yield found
    found.env.close()


def test_a_new_file_has_nothing_to_use_again(file: File) -> None:
    assert file.reusable(1) == 0
    file.put([1], VALUE)
    assert file.reusable(BIG) == 0


def test_pages_of_deleted_values_stand_in_rows(file: File) -> None:
    file.put(list(range(100)), VALUE)
    file.delete(list(range(100)))
    file.commit()
    octets = file.reusable(BIG)
    assert 95 * BIG * PAGE <= octets <= 101 * BIG * PAGE
    before = file.pages
    file.put(list(range(95)), VALUE)
    assert file.pages == before, "LMDB finds them as well"


def test_pages_in_pieces_are_none_for_large_values(file: File) -> None:
    # Each small row has a page of its own beside those of a value of its size.
    file.put(list(range(400)), SMALL)
    file.delete(list(range(0, 400, 2)))
    file.commit()
    assert file.reusable(1) > 150 * PAGE
    assert file.reusable(BIG) < 50 * PAGE
    before = file.pages
    file.put(list(range(1000, 1020)), VALUE)
    assert file.pages > before + 10 * BIG, "LMDB finds none either"


def test_rows_are_found_however_many_pages_in_pieces_were_freed_before(file: File) -> None:
    file.put(list(range(1000)), SMALL)
    file.delete(list(range(0, 1000, 2)))
    file.commit()
    file.put(list(range(2000, 2020)), VALUE)
    file.delete(list(range(2000, 2020)))
    file.commit()
    assert file.reusable(BIG, 200) >= 18 * BIG * PAGE


def test_what_a_reader_may_still_see_is_not_counted(file: File) -> None:
    file.put(list(range(100)), VALUE)
    with file.env.begin():
        file.delete(list(range(100)))
        file.commit()
        assert file.reusable(BIG) == 0
    assert file.reusable(BIG) >= 95 * BIG * PAGE


def test_what_the_newest_transaction_freed_is_not_counted(file: File) -> None:
    file.put(list(range(100)), VALUE)
    file.delete(list(range(100)))
    assert file.reusable(BIG) == 0
    file.commit(1)
    assert file.reusable(BIG) >= 95 * BIG * PAGE


def test_no_value_that_fits_into_half_of_what_is_told_makes_the_file_grow(file: File) -> None:
    chance = random.Random(4)
    held: list[int] = []
    number = 0
    while file.pages < 12_000:
        number += 1
        file.put([number], VALUE if chance.random() < 0.7 else SMALL)
        held.append(number)
    chance.shuffle(held)
    looked = 0
    for _ in range(60):
        gone = [held.pop() for _ in range(chance.randrange(60))]
        file.delete(gone)
        file.commit()
        fits = file.reusable(BIG) // 2 // (BIG * PAGE)
        before = file.pages
        for _ in range(fits):
            number += 1
            file.put([number], VALUE)
            held.append(number)
            # The rows around change as well: pages that break up what stands in a row.
            number += 1
            file.put([number], b"x")
        assert file.pages == before
        looked += fits
    assert looked > 300


def test_a_file_that_makes_no_sense_has_nothing_to_use_again(file: File, tmp_path: Path) -> None:
    file.put(list(range(100)), VALUE)
    file.delete(list(range(100)))
    file.commit()
    octets = (tmp_path / "data.mdb").read_bytes()
    broken = tmp_path / "broken"
    broken.write_bytes(octets[: 2 * PAGE] + bytes(len(octets) - 2 * PAGE))
    assert reusable_octets(broken, BIG, "") == 0
    for root in (3, 1 << 40, (1 << 64) - 2):
        metas = bytearray(octets[: 2 * PAGE])
        for meta in (0, PAGE):
            at = meta + DATABASES_AT[0] + ROOT_AT
            metas[at : at + 8] = root.to_bytes(8, "little")
        broken.write_bytes(bytes(metas) + octets[2 * PAGE :])
        assert reusable_octets(broken, BIG, "") == 0
    broken.write_bytes(b"")
    assert reusable_octets(broken, BIG, "") == 0


def test_who_reads_is_told_by_lmdb(file: File) -> None:
    assert reads(file.env.readers()) == []
    file.put([1], b"x")
    with file.env.begin(), file.env.begin():
        assert reads(file.env.readers()) == [1, 1]
