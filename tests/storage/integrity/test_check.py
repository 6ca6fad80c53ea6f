"""What a start does about a state whose last member was killed, or distrusted it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from etcdtw.storage.disk.directory import DATA_FILE, DataDirError
from etcdtw.storage.integrity.check import (
    FULL,
    MARK,
    QUICK,
    RENEW,
    begin_mark,
    check_state,
    clear_mark,
    distrust,
    end_mark,
)
from etcdtw.storage.rows.codec import TABLE_CURRENT, TABLE_HISTORY, TABLE_KEY
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state_rebuild import verify
from tests.support.state_rows import MAP_SIZE, fail, flip, make_state, open_tables

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    make_state(tmp_path / "state", 8, steps=100)
    return tmp_path / "state"


def some_name(path: Path, table: bytes) -> bytes:
    tables = open_tables(path)
    with tables.env.begin() as txn:
        name = next(iter(txn.cursor(tables.handles[table])))[0]
    tables.env.close()
    return name


def complaints(path: Path) -> list[str]:
    tables = open_tables(path)
    found = verify(tables)
    tables.env.close()
    return found


def test_a_mark_lies_there_while_a_member_has_the_state_open(path: Path) -> None:
    assert not (path / MARK).exists()
    state = open_state(path, fail, map_size=MAP_SIZE)
    assert (path / MARK).read_bytes() == b""
    state.close()
    assert not (path / MARK).exists()


def test_a_state_that_is_distrusted_stays_so_until_it_was_looked_at(path: Path) -> None:
    assert begin_mark(path) is None
    distrust(path, "a row is damaged")
    end_mark(path)
    assert begin_mark(path) == "a row is damaged"
    clear_mark(path)
    end_mark(path)
    assert begin_mark(path) is None


@pytest.mark.processes
@pytest.mark.parametrize("mode", [QUICK, FULL])
def test_a_sound_state_passes_and_nothing_is_changed(path: Path, mode: str) -> None:
    before = (path / DATA_FILE).read_bytes()
    assert check_state(path, MAP_SIZE, mode) == ""
    assert (path / DATA_FILE).read_bytes() == before


@pytest.mark.processes
@pytest.mark.parametrize("table", [TABLE_CURRENT, TABLE_HISTORY, b"fences", b"attached"])
def test_after_a_kill_a_damaged_derived_table_is_made_anew(path: Path, table: bytes) -> None:
    flip(path, table, some_name(path, table))
    begin_mark(path)
    state = open_state(path, fail, map_size=MAP_SIZE)
    assert "its checksum is another" in state.damage.mended_at_start
    state.close()
    assert complaints(path) == []


@pytest.mark.processes
@pytest.mark.parametrize("table", [TABLE_KEY, b"lease", b"meta"])
def test_after_a_kill_a_damaged_bucket_is_refused_and_the_next_start_refuses_too(
    path: Path, table: bytes
) -> None:
    flip(path, table, some_name(path, table))
    begin_mark(path)
    for _ in range(2):
        with pytest.raises(DataDirError, match=r"is damaged: .*restore a snapshot"):
            open_state(path, fail, map_size=MAP_SIZE)


@pytest.mark.processes
def test_what_only_a_sweep_finds_is_found_when_the_state_is_distrusted(path: Path) -> None:
    tables = open_tables(path)
    with tables.env.begin(write=True) as txn:
        name, stored = next(iter(txn.cursor(tables.handles[TABLE_HISTORY])))
        txn.delete(name, stored, db=tables.handles[TABLE_HISTORY])
    tables.env.close()
    assert check_state(path, MAP_SIZE, QUICK) == ""
    distrust(path, "a version is missing")
    state = open_state(path, fail, map_size=MAP_SIZE)
    assert "is missing" in state.damage.mended_at_start
    state.close()
    assert complaints(path) == []


@pytest.mark.processes
def test_a_crash_within_lmdb_is_a_childs(path: Path) -> None:
    with (path / DATA_FILE).open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        for page in range(2, size // PAGE):
            file.seek(page * PAGE + 12)  # lower and upper: where a page's free space is
            file.write(b"\x07\xff\x01\x00")
    begin_mark(path)
    with pytest.raises(DataDirError, match="damaged"):
        open_state(path, fail, map_size=MAP_SIZE)


@pytest.mark.processes
def test_to_make_anew_wants_a_sound_key(path: Path) -> None:
    flip(path, TABLE_KEY, some_name(path, TABLE_KEY))
    with pytest.raises(DataDirError, match="`key` is damaged"):
        check_state(path, MAP_SIZE, RENEW)
