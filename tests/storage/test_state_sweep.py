"""The sweep over a state: sound ones have no findings, and each kind of damage has one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etcdtw.storage.state_codec import (
    REVISION_SIZE,
    TABLE_ATTACHED,
    TABLE_CURRENT,
    TABLE_FENCES,
    TABLE_HISTORY,
    TABLE_KEY,
    encode_u64,
)
from etcdtw.storage.state_seal import SEALS
from etcdtw.storage.state_sweep import Finding, mend_current, quick_sweep, row_count, sweep
from etcdtw.storage.state_tables import Tables
from tests.support.state_rows import make_state, open_tables

STEPS = (1, 7, 256)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    make_state(tmp_path / "state", 3)
    return open_tables(tmp_path / "state")


def findings(tables: Tables, rows_max: int = 256) -> list[Finding]:
    return [one for one in sweep(tables, rows_max) if one is not None]


def first(tables: Tables, table: bytes, skip: int = 0) -> tuple[bytes, bytes]:
    with tables.env.begin() as txn:
        return list(txn.cursor(tables.handles[table]))[skip]


def change(tables: Tables, table: bytes, work: Callable[[Any, Any], object]) -> None:
    with tables.env.begin(write=True) as txn:
        work(txn, tables.handles[table])


@pytest.mark.parametrize("rows_max", STEPS)
def test_a_sound_state_has_no_findings(tables: Tables, rows_max: int) -> None:
    assert findings(tables, rows_max) == []
    assert list(quick_sweep(tables)).count(None) == len(list(quick_sweep(tables)))


def test_a_sweep_looks_at_every_row_in_steps(tables: Tables) -> None:
    steps = list(sweep(tables, 10))
    assert len(steps) > row_count(tables) / 10


@pytest.mark.parametrize("rows_max", STEPS)
@pytest.mark.parametrize(
    "table", [TABLE_CURRENT, TABLE_KEY, TABLE_HISTORY, TABLE_ATTACHED, TABLE_FENCES, b"lease"]
)
def test_a_flipped_bit_is_found_in_every_table(tables: Tables, table: bytes, rows_max: int) -> None:
    name, stored = first(tables, table)

    def flip(txn: Any, handle: Any) -> None:
        txn.delete(name, stored, db=handle)
        txn.put(name, bytes((stored[0] ^ 1,)) + stored[1:], db=handle)

    change(tables, table, flip)
    assert any(one[:2] == (table, name) for one in findings(tables, rows_max))
    assert any(one is not None for one in quick_sweep(tables))


@pytest.mark.parametrize("table", [TABLE_CURRENT, TABLE_KEY, TABLE_HISTORY, TABLE_ATTACHED])
@pytest.mark.parametrize("skip", [0, 5, -1])
def test_a_row_that_has_gone_is_found(tables: Tables, table: bytes, skip: int) -> None:
    name, stored = first(tables, table, skip)
    change(tables, table, lambda txn, handle: txn.delete(name, stored, db=handle))
    assert any(one.table == table for one in findings(tables))


def test_an_older_version_in_the_place_of_the_newest_is_found(tables: Tables) -> None:
    name, stored = first(tables, TABLE_CURRENT)
    value = SEALS[TABLE_CURRENT].opened(name, stored)
    sealed = SEALS[TABLE_CURRENT].closed(name, value + b"\x30\x01")
    change(tables, TABLE_CURRENT, lambda txn, handle: txn.put(name, sealed, db=handle))
    assert (TABLE_CURRENT, name, "it is not the newest version") in findings(tables)


def test_a_row_that_no_version_bears_out_is_found(tables: Tables) -> None:
    sealed = SEALS[TABLE_CURRENT].closed(b"nobody", b"\x12\x00")
    change(tables, TABLE_CURRENT, lambda txn, handle: txn.put(b"nobody", sealed, db=handle))
    assert (TABLE_CURRENT, b"nobody", "no version of it is live") in findings(tables)


def test_a_wrong_count_is_found(tables: Tables) -> None:
    name, _ = first(tables, TABLE_FENCES)
    sealed = SEALS[TABLE_FENCES].closed(name, encode_u64(3))
    change(tables, TABLE_FENCES, lambda txn, handle: txn.put(name, sealed, db=handle))
    found = findings(tables)
    assert [one.table for one in found] == [TABLE_FENCES, TABLE_FENCES]
    assert found[1].name == name


def test_a_row_of_the_present_is_mended_from_history(tables: Tables) -> None:
    name, stored = first(tables, TABLE_CURRENT, 3)
    change(tables, TABLE_CURRENT, lambda txn, handle: txn.put(name, stored[:-1], db=handle))
    assert findings(tables) != []
    mend_current(tables, name)
    assert findings(tables) == []
    assert first(tables, TABLE_CURRENT, 3) == (name, stored)


def test_what_is_told_is_the_true_cause(tables: Tables) -> None:
    """The newest version's record has gone: nothing has another checksum."""
    with tables.env.begin() as txn:
        records = list(txn.cursor(tables.handles[TABLE_KEY]))
    place, stored = next(row for row in reversed(records) if len(row[0]) == REVISION_SIZE)
    change(tables, TABLE_KEY, lambda txn, handle: txn.delete(place, stored, db=handle))
    found = findings(tables)
    assert (TABLE_KEY, place, "it is missing") in found
    assert {one.why for one in found} <= {"it is missing", "it is not the newest version"}
