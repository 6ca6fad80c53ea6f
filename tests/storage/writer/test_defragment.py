"""A compact copy takes the place of the state's file, whatever happens on the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest

from etcdtw.storage.disk.directory import DataDirError, open_environment
from etcdtw.storage.rows.codec import RECORD_INLINE_MAX
from etcdtw.storage.rows.tables import (
    DATABASES_MAX,
    Batch,
    Change,
    StateCommitter,
    Tables,
    pack_changes,
)
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state_rebuild import verify
from etcdtw.storage.writer.defragment import (
    COPY_DIRECTORY,
    COPY_OCTETS_MAX,
    DISK_STEPS,
    Defragmentation,
    DiskSteps,
)
from etcdtw.storage.writer.feed import InlineStateWriter
from etcdtw.wire.encode import encode_record

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


def defragment(tables: Tables, path: Path, disk: DiskSteps = DISK_STEPS) -> str:
    """Do all steps at once; return why there is no copy."""
    work = Defragmentation(tables, path, MAP_SIZE, disk=disk)
    while not work.step():
        pass
    return work.error


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
    assert defragment(tables, path) == ""
    assert (path / "data.mdb").stat().st_size < before / 4
    with tables.env.begin(write=True) as txn:
        txn.put(b"x", b"1", db=tables.handles[b"auth"])
    assert defragment(tables, path) == ""
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
    assert defragment(tables, path) == ""
    tables.env.close()
    again = open_state(path, pytest.fail, map_size=MAP_SIZE)
    assert len(again.changes_from(1, 0, 9999, 9999)) == 3000
    assert (again.revision, again.count(b"", None)) == (3001, 1)
    again.close()


class Twins:
    """Two states that are committed the same, of which one is defragmented meanwhile."""

    def __init__(
        self, folder: Path, seed: int, rows_max: int, octets_max: int = COPY_OCTETS_MAX
    ) -> None:
        self._random = Random(seed)
        self._main = 1
        self._committers: list[StateCommitter] = []
        self._tables: list[Tables] = []
        for name in ("plain", "defragmented"):
            (folder / name).mkdir(mode=0o700)
            tables = Tables(open_environment(folder / name, MAP_SIZE, DATABASES_MAX), is_new=True)
            self._tables.append(tables)
            self._committers.append(StateCommitter(tables, MAP_SIZE))
        self.work = Defragmentation(tables, folder / "defragmented", MAP_SIZE, rows_max, octets_max)
        self._committers[1].follower = self.work

    def key(self) -> bytes:
        key = b"k%03d" % self._random.randrange(200)
        return key * 130 if self._random.random() < 0.1 else key

    def commit(self, count: int) -> None:
        """Commit random changes, attachments and rows of the small tables to both."""
        choose = self._random
        changes: list[Change] = []
        for _ in range(count):
            self._main += 1
            key = self.key()
            size = choose.choice((1, 20, RECORD_INLINE_MAX + 1))
            record = encode_record(key, 1, self._main, 1, bytes(size), 0)
            is_put = choose.random() < 0.7
            changes.append((self._main, 0, key, record if is_put else None))
        attached = [(choose.randrange(4), self.key(), choose.random() < 0.6) for _ in range(count)]
        small: list[tuple[bytes, bytes, bytes | None]] = [
            (b"auth", b"a%d" % choose.randrange(9), b"%d" % self._main)
        ]
        fences = [(b"%d" % choose.randrange(9), choose.randrange(99))]
        for committer in self._committers:
            committer.add(pack_changes(changes))
            committer.attach(attached[: count // 2])
            rest = attached[count // 2 :]
            committer.commit(Batch(small, rest, fences, False, self._main, 1, self._main))

    def rows(self) -> list[dict[bytes, list[tuple[bytes, bytes]]]]:
        found = []
        for tables in self._tables:
            with tables.env.begin() as txn:
                handles = tables.handles.items()
                found.append({name: list(txn.cursor(handle)) for name, handle in handles})
        return found

    def close(self) -> None:
        for tables in self._tables:
            tables.env.close()


@pytest.mark.parametrize("seed", range(8))
def test_commits_during_the_copying_are_in_the_copy(tmp_path: Path, seed: int) -> None:
    twins = Twins(tmp_path, seed, rows_max=1 + 7 * seed)
    twins.commit(60)
    steps = 0
    while not twins.work.step():
        steps += 1
        if steps < 100:
            twins.commit(3)
    assert (twins.work.error, steps >= 4) == ("", True)
    twins._committers[1].follower = None
    plain, defragmented = twins.rows()
    assert defragmented == plain
    twins.commit(5)
    plain, defragmented = twins.rows()
    assert defragmented == plain
    twins.close()


def test_a_copy_that_cannot_follow_is_given_up_and_commits_go_on(tmp_path: Path) -> None:
    twins = Twins(tmp_path, 1, rows_max=10)
    twins.commit(60)
    assert not twins.work.step()
    copy = twins.work._copy
    assert copy is not None
    copy.env.close()  # as good as a broken disk
    twins.commit(5)
    assert (twins.work.step(), twins.work.error != "") == (True, True)
    assert not (tmp_path / "defragmented" / COPY_DIRECTORY).exists()
    twins.commit(5)
    plain, same = twins.rows()
    assert same == plain
    twins.close()


def test_a_step_copies_no_more_than_its_bounds(tmp_path: Path) -> None:
    def copied(work: Defragmentation) -> int:
        work.step()
        assert work._copy is not None
        with work._copy.env.begin() as txn:
            return int(txn.stat(work._copy.handles[b"key"])["entries"])

    folders = [tmp_path / name for name in ("rows", "octets")]
    for folder in folders:
        folder.mkdir()
    few = Twins(folders[0], 1, rows_max=10)
    small = Twins(folders[1], 1, rows_max=1000, octets_max=1)
    for twins in (few, small):
        twins.commit(30)
    assert copied(small.work) == 1
    assert copied(few.work) == 10
    few.close()
    small.close()


@pytest.mark.parametrize("step", ["rename", "second rename", "sync_directory", "sync_file"])
def test_a_crash_at_any_step_does_no_harm(path: Path, step: str) -> None:
    calls: list[str] = []

    def stop(*arguments: Any) -> None:
        calls.append("called")
        if step == "second rename" and len(calls) == 1:
            os.rename(*arguments)
        else:
            raise PowerLostError

    tables = open_tables(path)
    with pytest.raises(PowerLostError):
        defragment(tables, path, DISK_STEPS._replace(**{step.removeprefix("second "): stop}))
    tables.env.close()
    check(path)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), lmdb.DiskError("no"), DataDirError("no")]
)
def test_without_room_for_a_copy_everything_stays_as_it_was(path: Path, error: Exception) -> None:
    def fail(file: Path) -> None:
        raise error

    tables = open_tables(path)
    before = (path / "data.mdb").stat()
    assert defragment(tables, path, DISK_STEPS._replace(sync_file=fail)) == str(error)
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
