"""Generations, bounds, compaction and hashes of `LmdbState`, one clause a test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest

from etcdtw.mvcc.backend import BUCKET_AUTH, BUCKET_LEASE, BUCKET_META, Backend
from etcdtw.storage.disk.directory import open_environment
from etcdtw.storage.rows.codec import encode_tombstone, key_of, revision_key
from etcdtw.storage.rows.compaction import compact
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.overlay import (
    CHANGE_OVERHEAD,
    GENERATION_CHANGES_MAX,
    GENERATION_OCTETS_MAX,
    SEND_CHANGES_MAX,
)
from etcdtw.storage.state.state import OVERLAY_OCTETS_MAX, LmdbState
from etcdtw.storage.state_rebuild import verify
from etcdtw.storage.writer.feed import InlineStateWriter
from etcdtw.wire.record import record_of
from tests.support.model_backend import ModelBackend, encode_frame, encode_varint

MAP_SIZE = 1 << 26


def record(key: bytes, main: int, size: int = 10) -> bytes:
    value = b"\x2a" + encode_varint(size) + bytes(size)
    return b"\x0a" + encode_varint(len(key)) + key + b"\x18" + encode_varint(main) + value


class Rig:
    """A state with a writer that can be held back, and the model."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failures: list[str] = []
        self.told: list[object] = []
        self.model = ModelBackend()
        self.main = 1
        self.open()

    def open(self, *, is_held: bool = False) -> None:
        self.state: LmdbState = open_state(
            self.path, self.failures.append, map_size=MAP_SIZE, is_held=is_held
        )
        assert isinstance(self.state._writer, InlineStateWriter)
        self.writer = self.state._writer

    def put(self, key: bytes, size: int = 10) -> None:
        self.main += 1
        for backend in (self.model, self.state):
            is_new = backend.get(key) is None
            backend.put(self.main, 0, key, record(key, self.main, size), is_new)
            backend.set_applied(self.main, 1)

    def delete(self, key: bytes) -> None:
        self.main += 1
        for backend in (self.model, self.state):
            backend.delete(self.main, 0, key)

    def flush(self) -> None:
        self.state.flush(lambda: None)

    @property
    def size_needed(self) -> int:
        return self.state.size_in_use + self.state.pending[0]

    def hashes(self, revision: int, compacted: int) -> list[object]:
        found: list[object] = []
        self.model.hash_kv(revision, compacted, found.append)
        self.state.hash_kv(revision, compacted, found.append)
        return found

    def tables(self) -> Tables:
        """Return the tables of the closed state."""
        self.state.close()
        return Tables(open_environment(self.path, MAP_SIZE, DATABASES_MAX))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "member" / "state")
    yield made
    made.state.close()


def test_lmdb_state_and_the_model_are_backends(rig: Rig) -> None:
    both: tuple[Backend, Backend] = (rig.state, rig.model)
    assert [backend.count(b"", None) for backend in both] == [0, 0]
    assert (rig.state.revision, rig.state.applied_durable) == (1, 0)


def test_a_generation_closes_a_second_after_it_began(rig: Rig) -> None:
    rig.put(b"a")
    for now_ms in (5000, 5999):
        rig.state.tick(now_ms)
        assert rig.state.applied_durable == 0
    rig.state.tick(6000)
    assert rig.state.applied_durable == 2
    rig.put(b"b")
    rig.state.tick(6001)
    rig.state.tick(7000)
    assert rig.state.applied_durable == 2
    rig.state.tick(7001)
    assert rig.state.applied_durable == 3


def test_a_generation_waits_for_the_one_before_it(rig: Rig) -> None:
    rig.writer.is_held = True
    rig.put(b"a")
    rig.state.flush(lambda: rig.told.append("a"))
    rig.put(b"b")
    rig.state.flush(lambda: rig.told.append("b"))
    assert rig.told == []
    assert rig.state.keys(b"", None) == [b"a", b"b"]
    rig.writer.is_held = False
    rig.writer.release()
    assert rig.told == ["a", "b"]
    assert rig.state.applied_durable == 3


@pytest.mark.parametrize(
    ("puts", "size"), [(8, GENERATION_OCTETS_MAX // 8), (GENERATION_CHANGES_MAX, 10)]
)
def test_a_large_generation_closes_with_the_batch_that_made_it_so(
    rig: Rig, puts: int, size: int
) -> None:
    for _ in range(puts - 1):
        rig.put(b"k", size)
    assert rig.state.applied_durable == 0
    rig.put(b"k", size)
    assert rig.state.applied_durable == rig.main


def test_large_generations_queue_and_the_writer_gets_two_of_them(rig: Rig) -> None:
    rig.writer.is_held = True
    for i in range(24):
        rig.put(b"k%d" % (i * 7 % 9))
        if i % 6 == 5:
            rig.delete(b"k%d" % (i * 7 % 9))
            rig.state._open.octets += GENERATION_OCTETS_MAX  # as if the records were large
    assert [message[0] for message in rig.writer._held] == ["changes", "commit"] * 2
    assert len(rig.state._closed.generations) == 3
    same_answers(rig)
    rig.flush()
    rig.state.flush(lambda: rig.told.append(rig.state.applied_durable))
    assert rig.told == []
    rig.writer.is_held = False
    rig.writer.release()
    assert (rig.told, rig.state._closed.generations) == ([rig.state.applied_index], [])
    same_answers(rig)
    rig.state.close()
    rig.open()
    same_answers(rig)


def same_answers(rig: Rig) -> None:
    """The state shows at every revision what the model shows."""
    state, model = rig.state, rig.model
    assert state.keys(b"", None) == model.keys(b"", None)
    assert state.frames(b"", None) == model.frames(b"", None)
    assert [state.get(b"k%d" % i) for i in range(9)] == [model.get(b"k%d" % i) for i in range(9)]
    for i in range(9):
        assert state.frame(b"k%d" % i) == model.frame(b"k%d" % i)
    assert state.changes_from(1, 0, rig.main, 99) == model.changes_from(1, 0, rig.main, 99)
    for main in range(1, rig.main + 1):
        assert state.frames_at(b"", None, main) == model.frames_at(b"", None, main)


@pytest.mark.parametrize(("missing", "is_full"), [(1, False), (0, True)])
def test_the_overlay_is_full_at_its_bound(rig: Rig, missing: int, is_full: bool) -> None:
    rig.writer.is_held = True
    rig.put(b"a", 1000)
    closed = rig.state._open.octets
    rig.flush()
    large = bytes(OVERLAY_OCTETS_MAX // 16)  # one object for all: the overlay counts, memory not
    for i in range(15):
        rig.state.put(rig.main + 1 + i, 0, b"b%02d" % i, large, True)
    rest = OVERLAY_OCTETS_MAX - closed - rig.state._open.octets - CHANGE_OVERHEAD - len(b"c")
    rig.state.put(rig.main + 16, 0, b"c", bytes(rest - missing), True)
    assert rig.state.is_full is is_full
    rig.writer.is_held = False
    rig.writer.release()
    assert not rig.state.is_full


def test_an_applied_index_without_changes_becomes_durable_too(rig: Rig) -> None:
    rig.state.set_applied(9, 4)
    rig.flush()
    assert rig.state.applied_durable == 9
    rig.state.close()
    rig.open()
    assert (rig.state.applied_index, rig.state.applied_term) == (9, 4)
    assert rig.state.bucket_get(BUCKET_META, b"consistent_index") == (9).to_bytes(8, "big")


def test_a_failed_writer_stops_the_member_once(rig: Rig) -> None:
    rig.state._receive(("failed", "no disk"))
    rig.state._receive(("failed", "no disk"))
    assert rig.failures == ["no disk"]


def test_a_compaction_starts_only_when_its_mark_is_durable(rig: Rig) -> None:
    for _ in range(5):
        rig.put(b"a")
    rig.writer.is_held = True
    rig.state.bucket_put(BUCKET_META, b"scheduledCompactRev", revision_key(4, 0))
    rig.state.schedule_compaction(4)
    rig.state.on_compacted(4, lambda: rig.told.append("done"))
    rig.state.set_applied(rig.main + 1, 1)
    assert (rig.told, rig.state.changes_from(2, 0, 9, 9)[0].main) == ([], 2)
    rig.writer.is_held = False
    rig.writer.release()
    assert rig.told == ["done"]
    assert rig.state.changes_from(2, 0, 9, 9)[0].main == 4
    assert rig.state.bucket_get(BUCKET_META, b"finishedCompactRev") == revision_key(4, 0)
    rig.state.on_compacted(4, lambda: rig.told.append("at once"))
    assert rig.told == ["done", "at once"]


def test_a_tombstone_at_the_compaction_stays_until_the_next_one(rig: Rig) -> None:
    rig.put(b"a")
    rig.delete(b"a")
    rig.put(b"b")
    rig.state.schedule_compaction(3)
    rig.flush()
    assert [(c.main, c.is_tombstone) for c in rig.state.changes_from(1, 0, 9, 9)] == [
        (3, True),
        (4, False),
    ]
    rig.state.schedule_compaction(4)
    rig.state.bucket_put(BUCKET_AUTH, b"x", b"y")
    rig.flush()
    assert [c.main for c in rig.state.changes_from(1, 0, 9, 9)] == [4]


@pytest.mark.parametrize("steps", range(8))
def test_a_compaction_cut_short_leaves_every_view_right_and_is_resumed(
    rig: Rig, steps: int
) -> None:
    for i in range(40):
        key = b"k%d" % (i * 7 % 11)
        if i % 4 == 3 and rig.model.get(key) is not None:
            rig.delete(key)
        else:
            rig.put(key)
    rig.state.bucket_put(BUCKET_META, b"scheduledCompactRev", revision_key(30, 0))
    rig.flush()
    tables = rig.tables()
    job = compact(tables, 30, lambda: None, rows_max=5)
    for _ in range(steps):
        next(job, None)
    del job
    tables.env.close()
    # First before the resumption: every allowed view must be right as it stands.
    rig.open(is_held=True)
    for revision in range(30, rig.main + 1):
        expected = rig.model.frames_at(b"", None, revision)
        assert rig.state.frames_at(b"", None, revision) == expected
    rig.writer.release()
    rig.model.schedule_compaction(30)
    assert rig.state.changes_from(1, 0, rig.main, 999) == rig.model.changes_from(
        1, 0, rig.main, 999
    )
    assert rig.state.frames(b"", None) == rig.model.frames(b"", None)
    tables = rig.tables()
    assert verify(tables) == []
    tables.env.close()
    rig.open()


def test_hash_kv_where_nothing_is_left_alive_filters_nothing(rig: Rig) -> None:
    rig.put(b"a")
    rig.put(b"b")
    rig.delete(b"a")
    rig.delete(b"b")
    rig.flush()
    for compacted in (0, 2, 3, 4, 5):
        for revision in range(max(2, compacted), rig.main + 1):
            first, second = rig.hashes(revision, compacted)
            assert first == second


def test_hash_is_not_made_of_what_a_later_compaction_has_left(rig: Rig) -> None:
    for _ in range(3):
        rig.put(b"a")
    found: list[object] = []
    rig.model.hash_kv(rig.main, 2, found.append)
    rig.writer.is_held = True
    rig.flush()
    rig.state.bucket_put(BUCKET_AUTH, b"x", b"y")  # what follows has to wait for the next flush
    rig.state.hash_kv(rig.main, 2, found.append)
    rig.state.schedule_compaction(4)
    rig.writer.is_held = False
    rig.writer.release()
    assert found[1] == found[0]
    assert [change.main for change in rig.state.changes_from(1, 0, 9, 9)] == [4]


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_hash_that_was_asked_for_after_a_compaction_is_made_after_it(
    rig: Rig, is_closed: bool
) -> None:
    rig.writer.is_held = True
    rig.flush()
    rig.put(b"a")
    rig.delete(b"a")
    rig.put(b"b")
    rig.delete(b"b")  # where nothing is alive a hash shows what was deleted
    rig.state.schedule_compaction(3)
    if is_closed:
        rig.flush()
    found: list[object] = []
    rig.state.hash_kv(rig.main, 3, found.append)
    rig.writer.is_held = False
    rig.writer.release()
    rig.model.schedule_compaction(3)
    assert [change.main for change in rig.state.changes_from(1, 0, 9, 9)] == [3, 4, 5]
    rig.state.hash_kv(rig.main, 3, found.append)
    assert found[0] == found[1]


def test_hash_all_covers_every_bucket_but_the_positions(rig: Rig) -> None:
    rig.put(b"a")
    rig.state.bucket_put(BUCKET_AUTH, b"authRevision", b"\0" * 8)
    rig.state.bucket_put(BUCKET_META, b"confState", b"{}")
    found: list[object] = []
    rig.state.hash_all(found.append)
    stored = revision_key(2, 0) + record(b"a", 2)
    octets = (
        b"alarm" b"auth" b"authRevision" + b"\0" * 8 + b"authRoles" b"authUsers" b"cluster"
        b"key" + stored + b"lease" b"members" b"members_removed" b"meta" b"confState{}"
    )  # fmt: skip
    assert found == [google_crc32c.value(octets)]


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 129, 1000, 1024, 1025, 16_383, 16_384])
def test_records_of_any_size_come_back(rig: Rig, size: int) -> None:
    rig.put(b"key", size)
    for _ in range(2):
        stored = record(b"key", 2, size)
        assert rig.state.get(b"key") == stored
        assert rig.state.frames(b"", None) == [encode_frame(stored)]
        assert record_of(encode_frame(stored)) == stored
        assert key_of(stored) == key_of(encode_tombstone(b"key")) == b"key"
        rig.flush()


def test_sizes_tell_the_file_and_the_pages_in_use(rig: Rig) -> None:
    rig.put(b"key", 50_000)
    rig.flush()
    assert 50_000 < rig.state.size_in_use <= rig.state.size_allocated


def test_large_records_are_known_without_reading_them_and_small_ones_do_not_count(rig: Rig) -> None:
    for i in range(50):
        rig.put(b"small%d" % i, 1500)
    rig.flush()
    assert rig.state.large_octets() == 0
    for _ in range(3):
        rig.put(b"large", 50_000)
        rig.put(b"medium", 2500)
    assert rig.state.large_octets() == 0, "what is in memory counts only once it is durable"
    rig.flush()
    assert 3 * 52_500 <= rig.state.large_octets() <= 3 * 60_000


@pytest.mark.processes
def test_stopping_the_process_says_why_and_fails() -> None:
    program = "from etcdtw.storage.disk.failure import stop_process; stop_process('disk on fire')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 74
    assert "disk on fire" in done.stderr


def test_the_size_needed_counts_what_is_not_committed_yet(rig: Rig) -> None:
    rig.writer.is_held = True
    committed = rig.state.size_in_use
    assert rig.size_needed == committed
    rig.put(b"open", 1_000_000)
    assert rig.size_needed - committed > 1_000_000
    rig.flush()  # closed, and on its way
    rig.put(b"more", 1_000_000)
    assert rig.state.size_in_use == committed
    assert rig.size_needed - committed > 2_000_000
    rig.writer.is_held = False
    rig.writer.release()
    rig.flush()
    assert rig.size_needed == rig.state.size_in_use > committed + 2_000_000


def test_room_that_a_compaction_makes_is_seen_when_it_is_done(rig: Rig) -> None:
    for _ in range(5):
        rig.put(b"k", 1_000_000)
    rig.flush()
    before = rig.size_needed
    rig.state.schedule_compaction(rig.main)
    assert rig.state.is_compacting
    seen: list[int] = []
    rig.state.on_compacted(rig.main, lambda: seen.append(rig.size_needed))
    rig.put(b"other")
    rig.flush()
    assert len(seen) == 1
    assert before - seen[0] > 3_900_000


def test_a_compaction_uses_its_own_free_pages_again(rig: Rig) -> None:
    for _ in range(3):
        for number in range(8000):
            rig.put(b"%07d" % (number * 7919 % 8000), 60)
    rig.flush()
    before = rig.state.size_allocated
    rig.state.schedule_compaction(rig.main)
    rig.put(b"other")
    rig.flush()
    assert not rig.state.is_compacting
    assert rig.state.size_allocated - before < 4_000_000


def test_very_many_rows_of_a_bucket_are_durable_in_their_order(rig: Rig) -> None:
    count = 3 * SEND_CHANGES_MAX
    for round_ in range(2):
        for i in range(count):
            rig.state.bucket_put(BUCKET_LEASE, b"%d" % i, b"%d" % round_)
        for i in range(0, count, 3):
            rig.state.bucket_delete(BUCKET_LEASE, b"%d" % i)
    expected = sorted((b"%d" % i, b"1") for i in range(count) if i % 3)
    assert rig.state.bucket_items(BUCKET_LEASE) == expected
    rig.main += 1
    rig.state.set_applied(rig.main, 1)
    rig.flush()
    rig.state.close()
    rig.open()
    assert rig.state.bucket_items(BUCKET_LEASE) == expected
