"""A compact copy takes the place of the state's file, whatever happens on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest

from etcdtw.storage import state_defragment
from etcdtw.storage.directory import DataDirError, open_environment
from etcdtw.storage.state_defragment import COPY_DIRECTORY, defragment
from etcdtw.storage.state_feed import InlineStateWriter
from etcdtw.storage.state_open import open_state
from etcdtw.storage.state_rebuild import verify
from etcdtw.storage.state_tables import DATABASES_MAX, Tables

MAP_SIZE = 1 << 26
KEYS = 300


class PowerLostError(Exception):
    """The machine stops here."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A state with some keys, of which most are deleted and compacted."""
    directory = tmp_path / "state"
    state = open_state(directory, pytest.fail, map_size=MAP_SIZE)
    for i in range(KEYS):
        key = b"k%03d" % i
        state.put(2 + i, 0, key, b"\x0a\x04" + key + bytes(3000), True)
    state.flush(lambda: None)
    for i in range(KEYS - 1):
        state.delete(2 + KEYS + i, 0, b"k%03d" % i)
    last = 2 * KEYS
    state.bucket_put(b"meta", b"scheduledCompactRev", last.to_bytes(8, "big") + b"_" + bytes(8))
    state.schedule_compaction(last)
    state.set_applied(5, 1)
    state.flush(lambda: None)
    state.close()
    return directory


def open_tables(path: Path) -> Tables:
    return Tables(open_environment(path, MAP_SIZE, DATABASES_MAX))


def check(path: Path) -> None:
    """The state opens and holds what it held; nothing lies around."""
    state = open_state(path, pytest.fail, map_size=MAP_SIZE)
    assert (state.applied_durable, state.keys(b"", None)) == (5, [b"k%03d" % (KEYS - 1)])
    assert not (path / COPY_DIRECTORY).exists()
    state.close()
    tables = open_tables(path)
    assert verify(tables) == []
    tables.env.close()


def test_the_file_shrinks_and_writing_goes_on(path: Path) -> None:
    before = (path / "data.mdb").stat().st_size
    tables = open_tables(path)
    assert defragment(tables, path, MAP_SIZE) == ""
    assert (path / "data.mdb").stat().st_size < before / 4
    with tables.env.begin(write=True) as txn:
        txn.put(b"x", b"1", db=tables.handles[b"auth"])
    assert defragment(tables, path, MAP_SIZE) == ""
    with tables.env.begin() as txn:
        assert txn.get(b"x", db=tables.handles[b"auth"]) == b"1"
    tables.env.close()
    check(path)


def test_a_key_with_very_many_versions_survives(tmp_path: Path) -> None:
    """LMDB's own compacting copy crashes on its pages."""
    path = tmp_path / "state"
    state = open_state(path, pytest.fail, map_size=MAP_SIZE)
    for main in range(2, 3002):
        state.put(main, 0, b"k", b"\x0a\x01k" + bytes(30), main == 2)
    state.set_applied(5, 1)
    state.flush(lambda: None)
    state.close()
    tables = open_tables(path)
    assert defragment(tables, path, MAP_SIZE) == ""
    tables.env.close()
    again = open_state(path, pytest.fail, map_size=MAP_SIZE)
    assert len(again.changes(1, 9999, 9999)) == 3000
    assert (again.revision, again.count(b"", None)) == (3001, 1)
    again.close()


@pytest.mark.parametrize("step", ["rename", "second rename", "sync_directory", "_sync_file"])
def test_a_crash_at_any_step_does_no_harm(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    calls: list[str] = []
    rename = os.rename

    def stop(*arguments: Any) -> None:
        calls.append("called")
        if step == "second rename" and len(calls) == 1:
            rename(*arguments)
        else:
            raise PowerLostError

    tables = open_tables(path)
    with monkeypatch.context() as patch:
        if "rename" in step:
            patch.setattr("etcdtw.storage.state_defragment.os.rename", stop)
        else:
            patch.setattr(state_defragment, step, stop)
        with pytest.raises(PowerLostError):
            defragment(tables, path, MAP_SIZE)
    tables.env.close()
    check(path)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), lmdb.DiskError("no"), DataDirError("no")]
)
def test_without_room_for_a_copy_everything_stays_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(file: Path) -> None:
        raise error

    tables = open_tables(path)
    before = (path / "data.mdb").stat()
    with monkeypatch.context() as patch:
        patch.setattr(state_defragment, "_sync_file", fail)
        assert defragment(tables, path, MAP_SIZE) == str(error)
    assert (path / "data.mdb").stat().st_ino == before.st_ino
    with tables.env.begin(write=True) as txn:
        txn.put(b"x", b"1", db=tables.handles[b"auth"])
    tables.env.close()
    check(path)


def test_a_state_within_one_process_has_nothing_to_copy(path: Path) -> None:
    state = open_state(path, pytest.fail, map_size=MAP_SIZE)
    assert isinstance(state._writer, InlineStateWriter)
    told: list[str] = []
    done: Callable[[str], None] = told.append
    state.defragment(done)
    assert told == [""]
    state.close()
