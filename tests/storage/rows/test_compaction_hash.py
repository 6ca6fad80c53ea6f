"""The hash of a compaction is HashKV's, as if the compaction before were still the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lmdb
import pytest

from etcdtw.mvcc.backend import BUCKET_META, Change
from etcdtw.mvcc.compaction_hashes import COMPACTION_HASHES_MAX, CompactionHash
from etcdtw.mvcc.hash_kv import hash_kv
from etcdtw.storage.disk.directory import open_environment
from etcdtw.storage.rows.codec import COMPACTIONS_MAX, META_SCHEDULED, revision_key
from etcdtw.storage.rows.compaction import compact
from etcdtw.storage.rows.compaction_hash import RunningHash
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.state import LmdbState
from etcdtw.storage.writer.feed import InlineStateWriter
from etcdtw.wire.encode import encode_record

MAP_SIZE = 1 << 26


class Rig:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.main = 1
        self.open()

    def open(self) -> None:
        self.state: LmdbState = open_state(self.path, pytest.fail, map_size=MAP_SIZE)
        assert isinstance(self.state._writer, InlineStateWriter)
        self.writer = self.state._writer

    def put(self, key: bytes, size: int = 5) -> None:
        self.main += 1
        is_new = self.state.get(key) is None
        row = encode_record(key, self.main, self.main, 1, bytes(size), 0)
        self.state.put(self.main, 0, key, row, is_new)
        self.state.set_applied(self.main, 1)

    def delete(self, key: bytes) -> None:
        self.main += 1
        self.state.delete(self.main, 0, key)
        self.state.set_applied(self.main, 1)

    def compact(self, revision: int) -> None:
        self.state.bucket_put(BUCKET_META, META_SCHEDULED, revision_key(revision, 0))
        self.state.schedule_compaction(revision)
        self.state.set_applied(self.state.applied_index + 1, 1)
        self.state.flush(lambda: None)

    def rows(self) -> list[Change]:
        self.state.flush(lambda: None)
        return self.state.changes_from(1, 0, self.main, 1 << 30)

    @property
    def known(self) -> list[CompactionHash]:
        return self.state.compaction_hashes.since(-1)


def test_each_compaction_is_hashed_over_what_the_one_before_left(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "state")
    for key in (b"a", b"b", b"a", b"c", b"b"):
        rig.put(key)
    rig.delete(b"c")
    first = hash_kv(rig.rows(), 5, -1)
    rig.compact(5)
    assert rig.known == [CompactionHash(5, -1, first)]
    rig.put(b"a")
    rig.delete(b"b")
    rig.put(b"d")
    second = hash_kv(rig.rows(), 9, 5)
    rig.compact(9)  # at a tombstone
    third = hash_kv(rig.rows(), 10, 9)
    rig.compact(10)
    assert rig.known == [
        CompactionHash(10, 9, third),
        CompactionHash(9, 5, second),
        CompactionHash(5, -1, first),
    ]
    rig.state.close()


def test_restart_forgets_and_the_next_compaction_is_hashed_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "state")
    rig.put(b"a")
    rig.put(b"a")
    rig.compact(3)
    rig.state.close()
    rig.open()
    assert rig.known == []
    rig.put(b"a")
    wanted = hash_kv(rig.rows(), 4, 3)
    rig.compact(4)
    assert rig.known == [CompactionHash(4, 3, wanted)]
    rig.state.close()


def test_compaction_that_a_crash_interrupted_has_no_hash(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "state")
    rig.put(b"a")
    rig.put(b"a")
    rig.state.flush(lambda: None)
    rig.state.bucket_put(BUCKET_META, META_SCHEDULED, revision_key(3, 0))
    rig.state.set_applied(rig.state.applied_index + 1, 1)
    rig.state.flush(lambda: None)
    rig.state.close()
    rig.open()
    assert rig.state.bucket_get(BUCKET_META, b"finishedCompactRev") == revision_key(3, 0)
    assert rig.known == []
    rig.put(b"a")
    wanted = hash_kv(rig.rows(), 4, 3)
    rig.compact(4)
    assert rig.known == [CompactionHash(4, 3, wanted)]
    rig.state.close()


def all_known(rig: Rig) -> dict[int, tuple[int, int, bool]]:
    found = [rig.state.compaction_hashes.find(revision) for revision in range(rig.main + 1)]
    return {one.revision: one[1:] for one in found if one is not None}


def test_a_compaction_that_keeps_a_tombstone_only_hashes_what_etcd_does(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "state")
    for change in (rig.put, rig.put, rig.delete, rig.put, rig.delete):
        change(b"a")
    rows = rig.rows()  # puts at 2, 3, 5; tombstones at 4, 6
    rig.compact(5)
    first = hash_kv(rows[:4], 5, -1)
    rows = rig.rows()
    assert [row.main for row in rows] == [5, 6]
    rig.compact(6)
    kept_only = hash_kv(rows[1:], 6, -1)
    assert all_known(rig) == {5: (-1, first, True), 6: (5, kept_only, False)}
    # The tombstone of the last compaction is left out; without anything to keep, nothing else.
    rig.put(b"b")
    rig.delete(b"b")
    rig.put(b"c")
    rig.delete(b"c")
    rig.main += 1
    rows = rig.rows()
    assert [row.main for row in rows] == [6, 7, 8, 9, 10]
    rig.compact(11)
    assert all_known(rig)[11] == (6, hash_kv(rows[1:], 11, -1), False)
    assert [one.revision for one in rig.known] == [5], "for older members it is another hash"
    rig.state.close()


def test_each_compaction_of_one_generation_is_hashed_on_its_own(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "state")
    for _ in range(4):
        rig.put(b"a")
    first = hash_kv(rig.rows(), 3, -1)
    second = hash_kv(rig.rows(), 5, 3)
    compact_held(rig, [3, 5])
    assert rig.known == [CompactionHash(5, 3, second), CompactionHash(3, -1, first)]
    rig.state.close()


@pytest.mark.parametrize("count", [COMPACTIONS_MAX, COMPACTIONS_MAX + 1])
def test_of_many_compactions_of_one_generation_only_the_last_are_done(
    tmp_path: Path, count: int
) -> None:
    rig = Rig(tmp_path / "state")
    for _ in range(count + 1):
        rig.put(b"a")
    compact_held(rig, list(range(2, count + 2)))
    assert len(rig.known) == COMPACTION_HASHES_MAX == COMPACTIONS_MAX - 1
    assert {one.revision - one.compact_revision for one in rig.known} == {1}
    assert [row.main for row in rig.rows()] == [count + 1, count + 2]
    rig.state.close()


def test_a_compaction_at_revision_zero_is_done_too(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "state")
    rig.put(b"a")
    told: list[int] = []
    rig.state.bucket_put(BUCKET_META, META_SCHEDULED, revision_key(0, 0))
    rig.state.schedule_compaction(0)
    rig.state.on_compacted(0, lambda: told.append(0))
    rig.state.set_applied(rig.state.applied_index + 1, 1)
    rig.state.flush(lambda: None)
    assert told == [0]
    rig.state.close()


def compact_held(rig: Rig, revisions: list[int]) -> None:
    rig.writer.is_held = True
    for revision in revisions:
        rig.state.bucket_put(BUCKET_META, META_SCHEDULED, revision_key(revision, 0))
        rig.state.schedule_compaction(revision)
    rig.state.set_applied(rig.state.applied_index + 1, 1)
    rig.state.flush(lambda: None)
    rig.writer.is_held = False
    rig.writer.release()


class _Full:
    """An environment whose next write transactions find no room."""

    def __init__(self, environment: Any, failures: int) -> None:
        self.environment = environment
        self.failures = failures

    def begin(self, write: bool = False) -> Any:
        if self.failures:
            self.failures -= 1
            raise lmdb.MapFullError("full")
        return self.environment.begin(write=write)


def test_step_that_is_done_again_counts_its_rows_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path / "state")
    for number in range(9):
        rig.put(b"%d" % (number % 3))
    wanted = hash_kv(rig.rows(), 9, -1)
    rig.state.close()
    tables = Tables(open_environment(tmp_path / "state", MAP_SIZE, DATABASES_MAX))
    env: Any = _Full(tables.env, 1)
    tables.env = env
    grown: list[int] = []
    running = RunningHash(-1)
    for deleted in compact(tables, 9, lambda: grown.append(1), 4, running):
        env.failures = int(deleted > 0 and len(grown) < 3)
    assert (running.value, running.has_live, len(grown) > 1) == (wanted, True, True)
    env.environment.close()
