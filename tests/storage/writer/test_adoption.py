"""A snapshot is adopted while the state is defragmented: etcd's PR 20650, at every step of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from etcdtw.storage.building.from_bbolt import SnapshotFacts
from etcdtw.storage.building.swap import has_built, swap_in
from etcdtw.storage.disk.directory import open_environment
from etcdtw.storage.rows.tables import DATABASES_MAX, Batch, Change, Tables, pack_changes
from etcdtw.storage.snapshot.install import build_state
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state_rebuild import verify
from etcdtw.storage.writer.defragment import COPY_DIRECTORY, Defragmentation
from etcdtw.storage.writer.hashes import HASH_ROWS_MAX
from etcdtw.storage.writer.worker import SUPERSEDED, StateWorker
from etcdtw.wire.encode import encode_record
from tests.support.bbolt_rig import Content, write_file
from tests.support.state_rows import MAP_SIZE, fail, make_state

INDEX = 500
ROW = ((9).to_bytes(8, "big") + b"_" + bytes(8), encode_record(b"new", 9, 9, 1, b"", 0))
SNAPSHOT: Content = {
    b"key": [ROW],
    b"meta": [(b"consistent_index", INDEX.to_bytes(8, "big")), (b"term", bytes(7) + b"\x05")],
}


class WorkerRig:
    """The writer's work on a state of some hundred rows, beside which another one is built."""

    def __init__(self, folder: Path, hash_rows_max: int = HASH_ROWS_MAX) -> None:
        self.path = folder / "state"
        make_state(self.path, 1, 60)
        (folder / "source").write_bytes(write_file(SNAPSHOT))
        build_state(folder / "source", self.path, MAP_SIZE, SnapshotFacts(INDEX))
        self.answers: list[tuple[Any, ...]] = []
        self.main = 10_000
        self.tables = self._open(MAP_SIZE)
        self.worker = StateWorker(
            self.tables,
            MAP_SIZE,
            self.answers.append,
            defragmentation=lambda tables, size: Defragmentation(tables, self.path, size, 40),
            adopt=self._adopt,
            hash_rows_max=hash_rows_max,
        )

    def _open(self, map_size: int) -> Tables:
        return Tables(open_environment(self.path, map_size, DATABASES_MAX))

    def _adopt(self, index: int, map_size: int) -> Tables:
        swap_in(self.path, index)
        return self._open(map_size)

    def add(self) -> None:
        """Send a change of the generation under way."""
        self.main += 1
        record = encode_record(b"k", self.main, self.main, 1, b"", 0)
        changes: list[Change] = [(self.main, 0, b"k", record)]
        self.worker.receive(("changes", pack_changes(changes)))

    def commit(self) -> None:
        self.add()
        batch = Batch([], [], [(b"", 99)], False, self.main, 1, self.main)
        self.worker.receive(("commit", self.main, *batch.as_tuple()))

    def work(self) -> None:
        while self.worker.has_work():
            self.worker.work()

    def outcomes(self) -> list[tuple[Any, ...]]:
        return [answer for answer in self.answers if answer[0] != "committed"]

    def check_adopted(self) -> None:
        """The adopted state is there, as it was built, and nothing lies around."""
        self.tables.env.close()
        assert not (self.path / COPY_DIRECTORY).exists()
        assert not has_built(self.path)
        state = open_state(self.path, fail, map_size=MAP_SIZE)
        assert (state.applied_index, state.keys(b"", None)) == (INDEX, [b"new"])
        state.close()
        tables = self._open(MAP_SIZE)
        assert verify(tables) == []
        tables.env.close()


def test_a_defragmentation_under_way_gives_way_to_an_adoption(tmp_path: Path) -> None:
    is_moved = False
    steps = 0
    while not is_moved:
        rig = WorkerRig(tmp_path / str(steps))
        rig.worker.receive(("defragment", 7))
        for _ in range(steps):
            rig.worker.work()
            rig.commit()
        is_moved = bool(rig.outcomes())
        rig.add()
        rig.worker.receive(("adopt", INDEX))
        rig.work()
        assert rig.outcomes() == [
            ("defragmented", 7, is_moved, "" if is_moved else SUPERSEDED),
            ("adopted",),
        ]
        rig.worker.receive(("reopened", 7 if is_moved else 0))
        rig.work()
        rig.check_adopted()
        steps += 1
    assert steps > 8


def test_hashes_give_way_to_an_adoption(tmp_path: Path) -> None:
    rig = WorkerRig(tmp_path, hash_rows_max=4)
    rig.worker.receive(("hash_kv", 1, 10_000, 0))
    rig.worker.work()
    for number in range(2, 10):
        rig.worker.receive(("hash_all", number))
    rig.worker.receive(("adopt", INDEX))
    steps = 0
    while not rig.outcomes():
        rig.worker.work()
        steps += 1
    assert rig.outcomes() == [("adopted",)]
    assert steps <= 2 * 9 + 1
    rig.worker.receive(("hash_all", 10))
    rig.work()
    assert rig.outcomes()[1][:2] == ("hash", 10)
    rig.check_adopted()


def test_an_adopted_state_is_defragmented_behind_the_adoption(tmp_path: Path) -> None:
    rig = WorkerRig(tmp_path)
    rig.worker.receive(("adopt", INDEX))
    rig.worker.receive(("defragment", 8))
    rig.work()
    assert rig.outcomes() == [("adopted",), ("defragmented", 8, True, "")]
    rig.worker.receive(("reopened", 8))
    rig.work()
    rig.check_adopted()


def test_only_files_that_the_member_has_left_are_shrunk(tmp_path: Path) -> None:
    rig = WorkerRig(tmp_path)
    with (rig.path / "data.mdb").open("rb") as first:
        rig.worker.receive(("defragment", 1))
        rig.work()
        with (rig.path / "data.mdb").open("rb") as second:
            rig.worker.receive(("defragment", 2))
            rig.work()
            sizes = []
            for number in (0, 1, 2):
                rig.worker.receive(("reopened", number))
                rig.work()
                sizes.append([file.seek(0, 2) > 0 for file in (first, second)])
    assert sizes == [[True, True], [False, True], [False, False]]
    rig.worker.receive(("adopt", INDEX))
    rig.work()
    rig.check_adopted()
