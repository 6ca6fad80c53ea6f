"""Pages that lead LMDB astray are found before it follows them."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from etcdtw.storage.directory import DATA_FILE, DataDirError
from etcdtw.storage.page_check import check_pages
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
    page = first_page(sound, tmp_path / "map", "leaf")
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
