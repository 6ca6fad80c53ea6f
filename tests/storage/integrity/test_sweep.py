"""The sweep over a state: sound ones have no findings, and each kind of damage has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, cast

import lmdb
import pytest

from etcdtw.storage.disk.directory import DATA_FILE
from etcdtw.storage.integrity.sweep import Finding, mend_current, quick_sweep, row_count, sweep
from etcdtw.storage.rows.codec import (
    REVISION_SIZE,
    TABLE_ATTACHED,
    TABLE_CURRENT,
    TABLE_FENCES,
    TABLE_HISTORY,
    TABLE_KEY,
    encode_u64,
)
from etcdtw.storage.rows.compaction import compact
from etcdtw.storage.rows.seal import SEALS, StateDamageError
from etcdtw.storage.rows.tables import Tables
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.reader import StateReader
from etcdtw.storage.writer.worker import StateWorker
from etcdtw.wire.encode import encode_record
from tests.support.page_map import PAGE, pages_in_use
from tests.support.state_rows import MAP_SIZE, fail, hide_versions, make_state, open_tables

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


def drop(tables: Tables, table: bytes, name: bytes, stored: bytes) -> None:
    change(tables, table, lambda txn, handle: txn.delete(name, stored, db=handle))


def of_key(tables: Tables, table: bytes, name: bytes) -> list[bytes]:
    with tables.env.begin() as txn:
        cursor = txn.cursor(tables.handles[table])
        return [value for found, value in cursor if found == name]


def a_live_name(tables: Tables, versions_min: int) -> bytes:
    with tables.env.begin() as txn:
        names = list(txn.cursor(tables.handles[TABLE_CURRENT]).iternext(True, False))
    return next(name for name in names if len(of_key(tables, TABLE_HISTORY, name)) >= versions_min)


@pytest.mark.parametrize("left", [0, 1])
def test_a_whole_row_is_not_made_older_by_a_history_that_misses_versions(
    tables: Tables, left: int
) -> None:
    name = a_live_name(tables, 2)
    rows = of_key(tables, TABLE_CURRENT, name)
    for version in of_key(tables, TABLE_HISTORY, name)[left:]:
        drop(tables, TABLE_HISTORY, name, version)
    with pytest.raises(StateDamageError, match="version is missing") as error:
        mend_current(tables, name)
    assert error.value.table == TABLE_HISTORY
    assert of_key(tables, TABLE_CURRENT, name) == rows


def test_a_damaged_row_without_any_version_is_not_taken_away(tables: Tables) -> None:
    name = a_live_name(tables, 2)
    for version in of_key(tables, TABLE_HISTORY, name):
        drop(tables, TABLE_HISTORY, name, version)
    change(tables, TABLE_CURRENT, lambda txn, handle: txn.put(name, b"\x12none", db=handle))
    with pytest.raises(StateDamageError, match="version is missing"):
        mend_current(tables, name)


def test_a_row_is_not_made_of_a_history_whose_page_may_hide_versions(tmp_path: Path) -> None:
    """A deleted key would be there again."""
    state = open_state(tmp_path / "state", fail, map_size=MAP_SIZE)
    for main in (2, 3):
        state.put(main, 0, b"k", encode_record(b"k", 2, main, main - 1, b"", 0), main == 2)
    state.delete(4, 0, b"k")
    state.set_applied(4, 1)
    state.flush(lambda: None)
    state.close()
    hide_versions(tmp_path / "state", b"k", 1)
    tables = open_tables(tmp_path / "state")
    with pytest.raises(StateDamageError, match="hidden"):
        mend_current(tables, b"k")
    assert of_key(tables, TABLE_CURRENT, b"k") == []


STEPS_MAX = 2000  # of a sweep with 7 rows a step, which ends


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state in which each large table has a branch page."""
    path = tmp_path_factory.mktemp("wide") / "state"
    state = open_state(path, fail, map_size=MAP_SIZE)
    for main in range(2, 802):
        key = b"a key of a name that is long /%05d" % ((main * 7) % 400)
        is_new = main < 402
        state.put(main, 0, key, encode_record(key, 2, main, 1, b"%050d" % main, 5), is_new)
        if is_new:
            state.attach(5, key)
        state.set_applied(main, 1)
    state.flush(lambda: None)
    state.close()
    return path


def misled(sound: Path, path: Path, slot: int, octet: int) -> Iterator[None]:
    """Write the state once for each branch page, which leads to other places.

    The name at ``slot`` is changed in an octet, or for ``octet`` 0 its page is another's.
    """
    octets = (sound / DATA_FILE).read_bytes()
    path.mkdir()
    for page, what in pages_in_use(sound / DATA_FILE).items():
        begin = page * PAGE
        count = (int.from_bytes(octets[begin + 12 : begin + 14], "little") - 16) // 2
        if what != "branch" or slot >= count:
            continue
        spoilt = bytearray(octets)
        nodes = [
            begin + int.from_bytes(octets[begin + 16 + 2 * at : begin + 18 + 2 * at], "little")
            for at in range(count)
        ]
        one, before = nodes[slot], nodes[slot - 1]
        if octet:
            spoilt[one + 8 + int.from_bytes(octets[one + 6 : one + 8], "little") - octet] ^= 0x80
        else:
            spoilt[one : one + 6] = octets[before : before + 6]
            spoilt[before : before + 6] = octets[one : one + 6]
        (path / DATA_FILE).write_bytes(spoilt)
        yield


@pytest.mark.parametrize("octet", [0, 1, 2, 12])
@pytest.mark.parametrize("slot", [1, 2, 5])
def test_a_sweep_ends_wherever_branch_pages_lead(
    wide: Path, tmp_path: Path, slot: int, octet: int
) -> None:
    cases = 0
    for _ in misled(wide, tmp_path / "state", slot, octet):
        tables = open_tables(tmp_path / "state")
        steps = list(islice(sweep(tables, 7), STEPS_MAX))
        assert len(steps) < STEPS_MAX
        assert any(step is not None for step in steps)
        assert len(list(islice(quick_sweep(tables), STEPS_MAX))) < STEPS_MAX
        tables.env.close()
        cases += 1
    assert cases >= 4


@pytest.mark.parametrize("octet", [0, 1, 2, 12])
@pytest.mark.parametrize("slot", [1, 2, 5])
def test_a_compaction_ends_wherever_branch_pages_lead(
    wide: Path, tmp_path: Path, slot: int, octet: int
) -> None:
    refused = 0
    for _ in misled(wide, tmp_path / "state", slot, octet):
        tables = open_tables(tmp_path / "state")
        try:
            steps = list(islice(compact(tables, 700, fail_to_grow, 100), STEPS_MAX))
        except StateDamageError:
            refused += 1
        else:
            assert len(steps) < STEPS_MAX
        tables.env.close()
    assert refused >= 1 or octet


def fail_to_grow() -> None:
    raise AssertionError


@pytest.mark.parametrize("octet", [0, 1, 2, 12])
@pytest.mark.parametrize("slot", [1, 2, 5])
def test_a_read_in_pieces_ends_wherever_branch_pages_lead(
    wide: Path, tmp_path: Path, slot: int, octet: int
) -> None:
    def ends(read: Callable[[Any], Any], begin: Any) -> None:
        position = begin
        for _ in range(STEPS_MAX):
            try:
                position = read(position)
            except StateDamageError:
                return
            if not position:
                return
        raise AssertionError("it goes round")

    def row_behind(at: bytes) -> bytes | None:
        return reader.rows(at, None, 7)[1]

    def key_behind(at: bytes) -> bytes | None:
        return reader.known_keys(at, None, 7)[1]

    def attachment_behind(at: bytes) -> bytes:
        return reader.attached(5, at, 7)[1]

    def change_behind(place: tuple[int, int]) -> tuple[int, int] | None:
        found = reader.changes_from(*place, 1000, 7)
        return (found[-1][0], found[-1][1] + 1) if found else None

    for _ in misled(wide, tmp_path / "state", slot, octet):
        reader = StateReader(open_tables(tmp_path / "state"))
        ends(row_behind, b"a")
        ends(key_behind, b"a")
        ends(attachment_behind, b"")
        ends(change_behind, (1, 0))
        reader.close()


class Astray:
    """A background job that meets a page."""

    old_file = None
    error = ""

    def __init__(self, met: Exception) -> None:
        self.met = met

    def step(self) -> bool:
        raise self.met


@pytest.mark.parametrize(
    "met", [lmdb.PageNotFoundError("MDB_PAGE_NOTFOUND"), lmdb.CorruptedError("MDB_CORRUPTED")]
)
def test_a_page_that_lmdb_cannot_read_takes_the_state_out_of_service(
    tables: Tables, met: lmdb.Error
) -> None:
    """The process ended, and with it the member."""
    answers: list[tuple[object, ...]] = []
    worker = StateWorker(
        tables, MAP_SIZE, answers.append, defragmentation=lambda *_: cast("Any", Astray(met))
    )
    worker.receive(("defragment", 1))
    worker.work()
    assert [answer[0] for answer in answers] == ["damaged"]
    assert not worker.has_work()


def test_a_disk_that_cannot_be_written_still_ends_the_process(tables: Tables) -> None:
    met = lmdb.DiskError("mdb_txn_commit: Input/output error")
    worker = StateWorker(
        tables, MAP_SIZE, lambda _: None, defragmentation=lambda *_: cast("Any", Astray(met))
    )
    worker.receive(("defragment", 1))
    with pytest.raises(lmdb.DiskError):
        worker.work()
