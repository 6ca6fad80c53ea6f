"""How fast the writer compacts, hashes and deletes beside its commits, and what it reports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from etcdtw.storage.disk.directory import open_environment
from etcdtw.storage.disk.old_file import SHRINK_OCTETS
from etcdtw.storage.rows.codec import COMPACTIONS_MAX
from etcdtw.storage.rows.tables import DATABASES_MAX, Batch, Change, Tables, pack_changes
from etcdtw.storage.writer.hashes import HASH_ROWS_MAX
from etcdtw.storage.writer.worker import COMMITTED, COMPACTED, COMPACTION_STEP, Pace, StateWorker
from etcdtw.wire.encode import encode_record

ROWS = 10


class Worker:
    """A worker over ten versions of one key; time stands still until it is moved.

    Or it moves by ``tick_s`` whenever it is looked at.
    """

    def __init__(self, folder: Path, pace: Pace, hash_rows_max: int = HASH_ROWS_MAX) -> None:
        self.now_s = 100.0
        self.tick_s = 0.0
        self.answers: list[tuple[Any, ...]] = []
        path = folder / "state"
        path.mkdir(mode=0o700)
        tables = Tables(open_environment(path, 1 << 24, DATABASES_MAX), is_new=True)
        self.worker = StateWorker(
            tables,
            1 << 24,
            self.answers.append,
            pace,
            self.seconds,
            lambda: 7.0,
            hash_rows_max=hash_rows_max,
        )
        rows: list[Change] = [
            (2 + i, 0, b"k", encode_record(b"k", 2, 2 + i, 1 + i, b"", 0)) for i in range(ROWS)
        ]
        self.worker.receive(("changes", pack_changes(rows)))
        batch = Batch([], [], [], False, 1, 1, 1 + ROWS)
        self.worker.receive(("commit", 1, *batch.as_tuple()))

    def seconds(self) -> float:
        self.now_s += self.tick_s
        return self.now_s

    def steps(self) -> list[int]:
        """Return how many rows each reported step deleted."""
        return [answer[1] for answer in self.answers if answer[0] == COMPACTION_STEP]


def test_step_looks_at_no_more_rows_than_the_limit(tmp_path: Path) -> None:
    rig = Worker(tmp_path, Pace(4, 0.0))
    rig.worker.receive(("compact", 1 + ROWS))
    while rig.worker.has_work():
        rig.worker.work()
    assert rig.steps() == [4, 4, 1]
    assert rig.answers[-1] == (COMPACTED, 1 + ROWS, 0.0, 7.0)
    assert rig.answers[0] == (COMMITTED, 1, 0.0)


@pytest.mark.parametrize("is_one_begun", [False, True])
def test_of_very_many_compactions_that_wait_the_oldest_are_left_out(
    tmp_path: Path, is_one_begun: bool
) -> None:
    rig = Worker(tmp_path, Pace(4, 0.0))
    for _ in range(is_one_begun):
        rig.worker.receive(("compact", 1))
        rig.worker.work()
    for revision in range(2, 2 + COMPACTIONS_MAX + 3):
        rig.worker.receive(("compact", revision))
    while rig.worker.has_work():
        rig.worker.work()
    done = [answer[1] for answer in rig.answers if answer[0] == COMPACTED]
    assert done == [1] * is_one_begun + list(range(5, 5 + COMPACTIONS_MAX))


def test_worker_rests_between_two_steps(tmp_path: Path) -> None:
    rig = Worker(tmp_path, Pace(4, 0.5))
    rig.worker.receive(("compact", 1 + ROWS))
    rig.worker.work()
    assert (rig.steps(), rig.worker.rest_s) == ([4], 0.5)
    rig.now_s += 0.25
    rig.worker.work()
    assert (rig.steps(), rig.worker.rest_s) == ([4], 0.25)
    rig.now_s += 0.25
    rig.worker.work()
    assert rig.steps() == [4, 4]
    rig.now_s += 0.5
    rig.worker.work()
    rig.now_s += 0.5
    while rig.worker.has_work():
        rig.worker.work()
    # What it took holds the rests too.
    assert rig.answers[-1][:3] == (COMPACTED, 1 + ROWS, 1.5)
    assert rig.worker.rest_s == 0.0


def test_hash_behind_a_compaction_does_not_rest(tmp_path: Path) -> None:
    rig = Worker(tmp_path, Pace(100, 0.5))
    rig.worker.receive(("compact", 1 + ROWS))
    rig.worker.work()
    rig.now_s += 0.5
    rig.worker.receive(("hash_kv", 3, 1 + ROWS, 1 + ROWS))
    while rig.worker.has_work():
        rig.worker.work()
    assert rig.answers[-1][:2] == ("hash", 3)


def test_hash_rests_as_long_as_each_step_took(tmp_path: Path) -> None:
    rig = Worker(tmp_path, Pace(), hash_rows_max=4)
    rig.worker.receive(("hash_kv", 3, 1 + ROWS, 0))
    rig.tick_s = 2.0
    rig.worker.work()
    rig.tick_s = 0.0
    assert rig.worker.rest_s == 2.0
    rig.worker.work()
    assert rig.worker.rest_s == 2.0  # nothing was done
    while rig.worker.has_work():
        rig.now_s += rig.worker.rest_s
        rig.worker.work()
    assert rig.answers[-1][:2] == ("hash", 3)
    assert rig.worker.rest_s == 0.0


def test_a_file_nobody_needs_goes_in_steps_before_other_jobs(tmp_path: Path) -> None:
    file = tmp_path / "1.out.db"
    rig = Worker(tmp_path, Pace(4, 0.0))
    with file.open("wb") as made:
        made.truncate(2 * SHRINK_OCTETS + 1)
        rig.worker.receive(("compact", 1 + ROWS))
        rig.worker.work()
        rig.worker.receive(("dispose", str(file)))
        assert not file.exists()
        left = []
        for _ in range(3):
            rig.worker.work()
            left.append(os.fstat(made.fileno()).st_size)
    assert left == [SHRINK_OCTETS + 1, 1, 0]
    assert rig.steps() == [4]
    while rig.worker.has_work():
        rig.worker.work()
    assert rig.steps() == [4, 4, 1]


def test_a_file_that_is_gone_already_is_no_failure(tmp_path: Path) -> None:
    rig = Worker(tmp_path, Pace())
    rig.worker.receive(("dispose", str(tmp_path / "none")))
    assert not rig.worker.has_work()


def test_a_file_goes_without_rests_while_a_snapshot_waits_to_be_adopted(tmp_path: Path) -> None:
    file = tmp_path / "1.out.db"
    file.write_bytes(b"")
    os.truncate(file, 3 * SHRINK_OCTETS)
    rig = Worker(tmp_path, Pace())
    rig.worker.receive(("dispose", str(file)))
    rig.tick_s = 2.0
    rig.worker.work()
    rig.tick_s = 0.0
    assert rig.worker.rest_s == 2.0
    rig.worker.receive(("adopt", 9))
    rig.tick_s = 2.0
    rig.worker.work()
    rig.tick_s = 0.0
    assert rig.worker.rest_s == 0.0
