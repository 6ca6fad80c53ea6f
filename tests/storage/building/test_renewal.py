"""A state made anew from its own `key`: takeovers of format 1, and what a crash leaves of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from etcdtw.storage.building import renewal
from etcdtw.storage.building.renewal import RENEWING
from etcdtw.storage.disk.directory import DATA_FILE, DataDirError
from etcdtw.storage.rows.codec import (
    FORMAT,
    FORMAT_BEFORE,
    ROW_FORMAT,
    TABLE_CURRENT,
    TABLE_KEY,
    TABLE_PRIVATE,
    stored_key,
)
from etcdtw.storage.rows.seal import StateDamageError
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state_rebuild import rebuild, verify
from tests.support.state_rows import (
    MAP_SIZE,
    Rows,
    fail,
    flip,
    make_state,
    open_tables,
    rows_of,
    unseal,
)

FENCES = b"fences"


def content(path: Path) -> Rows:
    tables = open_tables(path)
    rows = rows_of(tables)
    assert verify(tables) == []
    tables.env.close()
    del rows[FENCES]  # they are cut anew
    return rows


def format_of(path: Path) -> bytes:
    tables = open_tables(path)
    with tables.env.begin() as txn:
        found = txn.get(ROW_FORMAT, db=tables.handles[TABLE_PRIVATE]) or b""
    tables.env.close()
    return found


@pytest.fixture
def old(tmp_path: Path) -> tuple[Path, Rows]:
    """A state of format 1, and its rows."""
    path = tmp_path / "state"
    make_state(path, 5)
    before = content(path)
    unseal(path)
    assert format_of(path) == FORMAT_BEFORE
    return path, before


def test_a_state_of_format_1_is_taken_over_with_every_row(old: tuple[Path, Rows]) -> None:
    path, before = old
    state = open_state(path, fail, map_size=MAP_SIZE)
    assert state.applied_index == 77
    state.close()
    assert format_of(path) == FORMAT
    assert content(path) == before
    assert not (path / RENEWING).exists()


def test_a_takeover_that_a_kill_cuts_short_begins_anew(old: tuple[Path, Rows]) -> None:
    path, before = old
    (path / RENEWING).mkdir(mode=0o700)
    (path / RENEWING / DATA_FILE).write_bytes(b"half of it")
    open_state(path, fail, map_size=MAP_SIZE).close()
    assert content(path) == before


def test_a_takeover_that_fails_leaves_the_old_state(old: tuple[Path, Rows], tmp_path: Path) -> None:
    path, before = old
    octets = (path / DATA_FILE).read_bytes()
    tables = open_tables(path)

    def fails(table: bytes, rows: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        raise OSError(28, "No space left on device")

    with pytest.raises(DataDirError, match="a second copy of it must fit"):
        renewal.renew(tables, path, MAP_SIZE, fails)
    tables.env.close()
    assert (path / DATA_FILE).read_bytes() == octets
    assert not (path / RENEWING).exists()
    open_state(path, fail, map_size=MAP_SIZE).close()
    assert content(path) == before


def test_damaged_derived_rows_are_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "state"
    make_state(path, 6)
    before = content(path)
    flip(path, TABLE_CURRENT, stored_key(b"k000"))
    tables = open_tables(path)
    assert verify(tables) != []
    rebuild(tables, path).env.close()
    assert content(path) == before


def test_a_damaged_row_of_a_bucket_is_no_ground_to_build_on(tmp_path: Path) -> None:
    path = tmp_path / "state"
    make_state(path, 6)
    tables = open_tables(path)
    with tables.env.begin() as txn:
        name = next(iter(txn.cursor(tables.handles[TABLE_KEY])))[0]
    tables.env.close()
    flip(path, TABLE_KEY, name)
    tables = open_tables(path)
    with pytest.raises(StateDamageError, match="`key`"):
        rebuild(tables, path)
    assert FENCES in tables.handles  # it is open, as it was
    tables.env.close()
