"""A built state takes the place of the running one, whatever crashes when."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from etcdtw.bbolt.layout import BboltError
from etcdtw.bbolt.seal import seal_of
from etcdtw.raft.entry import Entry, HardState, Snapshot
from etcdtw.storage.building.from_bbolt import SnapshotFacts
from etcdtw.storage.building.swap import BUILDING, built_file, has_built, swap_in
from etcdtw.storage.disk.directory import DataDirError
from etcdtw.storage.snapshot.install import build_state, load_state
from etcdtw.storage.state.open import open_state
from etcdtw.wire.mvccpb import KeyValue
from tests.support.bbolt_rig import Content, read_from, write_file
from tests.support.journal_rig import JournalRig, write_image
from tests.support.state_rows import INDEX, MAP_SIZE, fail, make_state

NEW_INDEX = 500
NEW: Content = {
    b"key": [],
    b"meta": [(b"consistent_index", NEW_INDEX.to_bytes(8, "big")), (b"term", bytes(7) + b"\x05")],
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A snapshot of an empty store at `NEW_INDEX`."""
    file = tmp_path / "source"
    file.write_bytes(write_file(NEW))
    return file


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A state at `INDEX`."""
    make_state(tmp_path / "state", 1, 20)
    return tmp_path / "state"


def applied_after_start(path: Path, compacted: int) -> int:
    """Start over a log that has forgotten ``compacted`` entries; nothing may lie around then."""
    state = open_state(path, fail, map_size=MAP_SIZE, compacted=compacted)
    applied = state.applied_index
    assert bool(state.keys(b"", None)) == (applied == INDEX)
    state.close()
    assert not has_built(path)
    return applied


def build(source: Path, path: Path) -> None:
    built = build_state(source, path, MAP_SIZE, SnapshotFacts(NEW_INDEX))
    assert (built.index, built.term) == (NEW_INDEX, 5)
    assert built_file(path, NEW_INDEX).exists()
    assert not (path / BUILDING).exists()


@pytest.mark.parametrize("last_call", [1, 2])
def test_a_crash_while_building_leaves_the_old_state(
    source: Path, path: Path, last_call: int
) -> None:
    record = KeyValue(key=b"a", create_revision=2, mod_revision=2, version=1)
    row = ((2).to_bytes(8, "big") + b"_" + bytes(8), record.SerializeToString())
    source.write_bytes(write_file({**NEW, b"key": [row]}))
    calls = 0

    def crash() -> None:
        nonlocal calls
        calls += 1
        if calls == last_call:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_state(source, path, MAP_SIZE, SnapshotFacts(NEW_INDEX), crash)
    assert (path / BUILDING).exists()
    assert applied_after_start(path, 3) == INDEX


def test_a_crash_before_the_log_is_told_leaves_the_old_state(source: Path, path: Path) -> None:
    build(source, path)
    assert applied_after_start(path, 3) == INDEX


def test_a_crash_after_the_log_was_told_brings_the_new_state(source: Path, path: Path) -> None:
    build(source, path)
    assert applied_after_start(path, NEW_INDEX) == NEW_INDEX
    assert applied_after_start(path, NEW_INDEX) == NEW_INDEX


def test_a_crash_between_the_renaming_and_the_lock_file_brings_the_new_state(
    source: Path, path: Path
) -> None:
    build(source, path)
    os.rename(built_file(path, NEW_INDEX), path / "data.mdb")
    assert (path / "lock.mdb").exists()
    assert applied_after_start(path, NEW_INDEX) == NEW_INDEX


def test_a_crash_after_the_renaming_brings_the_new_state(source: Path, path: Path) -> None:
    build(source, path)
    swap_in(path, NEW_INDEX)
    assert not (path / "lock.mdb").exists()
    assert applied_after_start(path, NEW_INDEX) == NEW_INDEX


@pytest.mark.parametrize("is_told", [False, True])
def test_the_log_decides_which_state_a_start_finds(
    source: Path, path: Path, tmp_path: Path, is_told: bool
) -> None:
    rig = JournalRig(tmp_path / "wal")
    rig.append([Entry(1, index) for index in range(1, INDEX + 1)])
    build(source, path)
    if is_told:
        told: list[int] = []
        snapshot = Snapshot(NEW_INDEX, 5)
        rig.log.install_snapshot(HardState(5, 0, NEW_INDEX), snapshot, lambda: told.append(1))
        rig.turn_until(lambda: told != [])
    image = rig.image()  # nothing of it may be in LMDB yet
    rig.close()
    write_image(tmp_path / "crashed", image)
    rig = JournalRig(tmp_path / "crashed")
    applied = applied_after_start(path, rig.log.first_index() - 1)
    assert applied == (NEW_INDEX if is_told else INDEX)
    assert rig.log.term(applied) == (5 if is_told else 1)
    rig.close()


def test_a_built_state_of_another_index_is_not_taken(source: Path, path: Path) -> None:
    build(source, path)
    assert applied_after_start(path, NEW_INDEX - 1) == INDEX


def test_a_state_that_is_newer_than_the_built_one_stays(source: Path, path: Path) -> None:
    build(source, path)
    shutil.copy(built_file(path, NEW_INDEX), built_file(path, INDEX))
    assert applied_after_start(path, INDEX) == INDEX


def test_a_build_replaces_what_an_earlier_one_left(source: Path, path: Path) -> None:
    (path / BUILDING).mkdir()
    (path / BUILDING / "data.mdb").write_bytes(b"torn")
    built_file(path, 9).write_bytes(b"earlier")
    build(source, path)
    assert not built_file(path, 9).exists()


def test_a_state_is_loaded_into_a_new_directory_and_never_over_one(
    source: Path, tmp_path: Path
) -> None:
    built = load_state(source, tmp_path / "loaded", MAP_SIZE, SnapshotFacts())
    assert built.index == NEW_INDEX
    assert applied_after_start(tmp_path / "loaded", 0) == NEW_INDEX
    with pytest.raises(DataDirError, match="holds a state already"):
        load_state(source, tmp_path / "loaded", MAP_SIZE, SnapshotFacts())


def test_a_seal_is_checked_where_there_is_one(source: Path, tmp_path: Path) -> None:
    octets = source.read_bytes()
    sealed = octets + seal_of(read_from(octets), len(octets))
    source.write_bytes(sealed)
    assert load_state(source, tmp_path / "a", MAP_SIZE, SnapshotFacts()).index == NEW_INDEX
    source.write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(BboltError, match="expected sha256"):
        load_state(source, tmp_path / "b", MAP_SIZE, SnapshotFacts())
    assert not (tmp_path / "b" / "data.mdb").exists()
