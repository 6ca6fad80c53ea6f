"""Pages that lead LMDB astray are found before it follows them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from struct import pack

import lmdb
import pytest

from etcdtw.storage.disk.directory import DATA_FILE, DataDirError
from etcdtw.storage.disk.page_check import STEP_FREE, STEP_PAGES, check_pages, look_at_pages
from tests.support.page_map import PAGE, pages_in_use
from tests.support.state_rows import make_state

POINTERS_AT = 16


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "state"
    make_state(path, 4)
    check_pages(path)
    return (path / DATA_FILE).read_bytes()


def damaged(sound: bytes, path: Path, at: int, octet: int) -> Path:
    path.mkdir(exist_ok=True)
    octets = bytearray(sound)
    octets[at] = octet
    (path / DATA_FILE).write_bytes(octets)
    return path


def first_page(sound: bytes, folder: Path, title: str) -> int:
    folder.mkdir(exist_ok=True)
    (folder / DATA_FILE).write_bytes(sound)
    return next(page for page, what in pages_in_use(folder / DATA_FILE).items() if what == title)


def child_at(sound: bytes, branch: int, slot: int) -> tuple[int, int]:
    """Return where the number of a page below a branch page stands, and the number."""
    at = branch * PAGE + POINTERS_AT + 2 * slot
    node = branch * PAGE + int.from_bytes(sound[at : at + 2], "little")
    return node, int.from_bytes(sound[node : node + 4], "little")


def free_list(path: Path, numbers: list[int], last: int) -> Path:
    """Write a file without tables, whose free list is one row on pages of its own."""
    row = b"".join([number.to_bytes(8, "little") for number in (len(numbers), *numbers)])
    pages = -(-(16 + len(row)) // PAGE)
    metas = bytearray(2 * PAGE)
    for number in (0, 1):
        at = number * PAGE
        metas[at + 16 : at + 24] = bytes.fromhex("dec0efbe01000000")
        metas[at + 46 : at + 48] = (1).to_bytes(2, "little")
        metas[at + 80 : at + 88] = (2).to_bytes(8, "little")
        metas[at + 128 : at + 136] = b"\xff" * 8
        metas[at + 136 : at + 152] = last.to_bytes(8, "little") + number.to_bytes(8, "little")
    node = PAGE - 24
    leaf = bytearray(PAGE)
    leaf[:18] = pack("<QHHHHH", 2, 0, 2, 18, node, node)
    leaf[node:] = pack("<IHHQQ", len(row), 1, 8, 1, 3)
    value = pack("<QHHI", 3, 0, 4, pages) + row
    path.mkdir()
    with (path / DATA_FILE).open("wb") as stream:
        stream.write(metas + leaf + value.ljust(pages * PAGE, b"\0"))
        stream.truncate((last + 1) * PAGE)
    return path


@pytest.mark.parametrize("title", ["branch", "leaf"])
@pytest.mark.parametrize(
    ("at", "octet", "complaint"),
    [
        (0, 0xEE, "is not one of a tree"),
        (10, 0x40, "is not one of a tree"),
        (13, 0x70, "contradicts itself"),
        (POINTERS_AT + 1, 0xFF, "points outside itself"),
    ],
)
def test_what_leads_nowhere_is_refused(
    sound: bytes, tmp_path: Path, title: str, at: int, octet: int, complaint: str
) -> None:
    page = first_page(sound, tmp_path / "map", title)
    with pytest.raises(DataDirError, match=complaint):
        check_pages(damaged(sound, tmp_path / "state", page * PAGE + at, octet))


def test_leaves_are_looked_at_up_to_the_bound(sound: bytes, tmp_path: Path) -> None:
    first_page(sound, tmp_path / "map", "leaf")
    titles = pages_in_use(tmp_path / "map" / DATA_FILE)
    branch = next(page for page, title in titles.items() if title == "branch")
    page = child_at(sound, branch, 0)[1]
    path = damaged(sound, tmp_path / "state", page * PAGE + POINTERS_AT + 1, 0xFF)
    check_pages(path, leaves_max=0)
    with pytest.raises(DataDirError):
        check_pages(path)


def test_no_flipped_bit_of_a_page_head_ends_the_look(sound: bytes, tmp_path: Path) -> None:
    random = Random(2)
    first_page(sound, tmp_path / "map", "leaf")
    pages = list(pages_in_use(tmp_path / "map" / DATA_FILE))
    for _ in range(200):
        at = random.choice(pages) * PAGE + random.randrange(64)
        path = damaged(sound, tmp_path / "state", at, sound[at] ^ 1 << random.randrange(8))
        try:
            check_pages(path)
        except DataDirError:
            continue


def test_a_branch_that_leads_to_a_page_of_another_is_found_without_any_leaf(
    sound: bytes, tmp_path: Path
) -> None:
    branch = first_page(sound, tmp_path / "map", "branch")
    at, _ = child_at(sound, branch, 0)
    _, other = child_at(sound, branch, 1)
    octets = bytearray(sound)
    octets[at : at + 4] = other.to_bytes(4, "little")
    (tmp_path / "map" / DATA_FILE).write_bytes(octets)
    with pytest.raises(DataDirError, match="has two places"):
        check_pages(tmp_path / "map", leaves_max=0)


@pytest.mark.parametrize("count", [1, STEP_FREE, STEP_FREE + 1, 4 * STEP_FREE + 5])
def test_a_long_free_list_is_looked_at_in_steps(tmp_path: Path, count: int) -> None:
    numbers = list(range(count + 999, 999, -1))
    path = free_list(tmp_path / "free", numbers, count + 1000)
    assert len(list(look_at_pages(path, 0))) == (count - 1) // STEP_FREE
    assert list(look_at_pages(path, 0, 7)) == []  # no such view


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ([1500, 1500], "out of order"),
        ([1500, 1600], "out of order"),
        ([1500, 1], "out of order"),
        ([5000], "out of order"),
        ([1500, 2], "free twice, or is none"),
        ([*range(STEP_FREE + 1500, 1500, -1), 1501], "out of order"),
    ],
)
def test_a_free_list_that_contradicts_itself_is_refused(
    tmp_path: Path, numbers: list[int], complaint: str
) -> None:
    path = free_list(tmp_path / "free", numbers, max(4000, len(numbers) + 1600))
    with pytest.raises(DataDirError, match=complaint):
        check_pages(path)


def test_branch_pages_are_looked_at_in_steps(tmp_path: Path) -> None:
    env = lmdb.open(str(tmp_path), map_size=1 << 30, max_dbs=1, sync=False)
    table = env.open_db(b"key")
    with env.begin(write=True) as txn:
        rows = [(b"%0400d" % number, b"x" * 1500) for number in range(20 * STEP_PAGES)]
        txn.cursor(table).putmulti(rows, append=True)
    with env.begin() as txn:
        branches = txn.stat(table)["branch_pages"]
    env.close()
    assert branches > STEP_PAGES
    assert len(list(look_at_pages(tmp_path, 0))) == (branches + 1) // STEP_PAGES  # and the names'
