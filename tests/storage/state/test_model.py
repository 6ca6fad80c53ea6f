"""`LmdbState` against the naive model: any mix of writes, commits, restarts and compactions."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcdtw.mvcc.backend import BUCKET_AUTH_USERS, BUCKET_META, BUCKETS
from etcdtw.storage.disk.directory import lock_directory, open_environment
from etcdtw.storage.rows import fences
from etcdtw.storage.rows.boot import read_boot_state
from etcdtw.storage.rows.codec import lease_of
from etcdtw.storage.rows.fences import FENCE_COUNT_MAX
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.state import LmdbState
from etcdtw.storage.state_rebuild import rebuild, verify
from etcdtw.storage.writer.feed import InlineStateWriter
from tests.support.model_backend import ModelBackend, encode_frame, encode_revision, encode_varint

MAP_SIZE = 1 << 26

# Keys that are hard to keep in order: prefixes of one another, and around LMDB's limit.
LONG = b"p" * 480
KEYS = (
    *(b"k%02d" % i for i in range(30)), b"a", b"a\0", b"a\0\0", b"\0", b"\xff", b"\xff" * 481,
    LONG, LONG[:-1], LONG + b"\0", LONG + b"a", LONG + b"b" * 600, LONG + b"b" * 601,
    LONG[:-1] + b"q", LONG[:-1] + b"q" * 300,
)  # fmt: skip
BOUNDS = (*KEYS, b"", b"b", b"k1", LONG + b"\xff", b"q", LONG + b"b" * 599)


def encode_record(key: bytes, main: int, version: int, value: bytes, lease: int = 0) -> bytes:
    """Return a canonical KeyValue."""
    parts = [b"\x0a", encode_varint(len(key)), key, b"\x10\x01"]
    parts += [b"\x18", encode_varint(main), b"\x20", encode_varint(version)]
    if value:
        parts += [b"\x2a", encode_varint(len(value)), value]
    if lease:
        parts += [b"\x30", encode_varint(lease)]
    return b"".join(parts)


class StateRig:
    """The state and the model, fed alike.  ``random`` decides what a step does."""

    def __init__(self, path: Path, random: Random, keys: tuple[bytes, ...] = KEYS) -> None:
        self.path = path
        self.random = random
        self.keys = keys
        self.model = ModelBackend()
        self.main = 1
        self.index = 0
        self.compacted = 0
        self.now_ms = 0
        self.leases: dict[bytes, int] = {}
        self.failures: list[str] = []
        self.open()

    def open(self) -> None:
        self.state: LmdbState = open_state(self.path, self.failures.append, map_size=MAP_SIZE)
        writer = self.state._writer
        assert isinstance(writer, InlineStateWriter)
        self.writer = writer

    def reopen(self) -> None:
        self.writer.is_held = False
        self.writer.release()
        self.state.flush(lambda: None)
        self.state.close()
        self.open()
        assert self.state.revision == self.main
        assert self.state.applied_durable == self.index

    def backends(self) -> tuple[ModelBackend, LmdbState]:
        return self.model, self.state

    def both(self, call: Callable[[ModelBackend | LmdbState], None]) -> None:
        call(self.model)
        call(self.state)

    def write(self) -> None:
        """One transaction of one to four changes to different keys."""
        self.main += 1
        keys = self.random.sample(self.keys, self.random.randint(1, 4))
        for sub, key in enumerate(keys):
            is_live = key in self.model.live
            if is_live and self.random.random() < 0.3:
                for backend in self.backends():
                    backend.delete(self.main, sub, key)
                self.set_lease(key, 0)
            else:
                size = self.random.choice((0, 3, 300, 300, 1100, 5000))
                lease = self.random.choice((0, 0, 7, 8))
                record = encode_record(key, self.main, 1, bytes(size), lease)
                assert lease_of(record) == lease
                for backend in self.backends():
                    backend.put(self.main, sub, key, record, not is_live)
                self.set_lease(key, lease)
        self.index += 1
        self.both(lambda b: b.set_applied(self.index, 1 + self.index // 10))

    def fill(self, keys: list[bytes]) -> None:
        """One transaction of puts to new keys."""
        self.main += 1
        for sub, key in enumerate(keys):
            record = encode_record(key, self.main, 1, b"", 0)
            for backend in self.backends():
                backend.put(self.main, sub, key, record, True)
        self.index += 1
        self.both(lambda b: b.set_applied(self.index, 1))

    def set_lease(self, key: bytes, lease: int) -> None:
        old = self.leases.pop(key, 0)
        if old:
            self.both(lambda b: b.detach(old, key))
        if lease:
            self.leases[key] = lease
            self.both(lambda b: b.attach(lease, key))

    def write_bucket(self) -> None:
        name = b"user%d" % self.random.randint(1, 4)
        if self.random.random() < 0.3:
            self.both(lambda b: b.bucket_delete(BUCKET_AUTH_USERS, name))
        else:
            value = bytes(self.random.randint(0, 9))
            self.both(lambda b: b.bucket_put(BUCKET_AUTH_USERS, name, value))

    def tick(self) -> None:
        self.now_ms += 600
        self.state.tick(self.now_ms)

    def hold(self) -> None:
        self.writer.is_held = True

    def release(self) -> None:
        self.writer.is_held = False
        self.writer.release()

    def compact(self) -> None:
        if self.main <= self.compacted + 1:
            return
        self.compacted = self.random.randint(self.compacted + 1, self.main)
        revision = encode_revision(self.compacted, 0)
        self.state.bucket_put(BUCKET_META, b"scheduledCompactRev", revision)
        self.model.bucket_put(BUCKET_META, b"scheduledCompactRev", revision)
        self.both(lambda b: b.schedule_compaction(self.compacted))

    def step(self) -> None:
        steps = (self.write, self.write_bucket, self.tick, self.hold, self.release,
                 self.compact, self.reopen)  # fmt: skip
        self.random.choices(steps, (60, 5, 12, 4, 8, 2, 2))[0]()

    def check(self) -> None:
        """Compare everything with some random bounds and revisions."""
        model, state, random = self.model, self.state, self.random
        for _ in range(4):
            start = random.choice(BOUNDS)
            end = random.choice((None, random.choice(BOUNDS), start + b"\0"))
            limit = random.choice((0, 0, 1, 3, 10))
            revision = random.randint(max(1, self.compacted), self.main)
            frames = state.frames(start, end, limit)
            assert join(frames) == join(model.frames(start, end, limit))
            pieces, count = state.pieces(start, end, limit)
            assert (join(pieces), count) == (join(frames), len(frames))
            assert state.keys(start, end) == model.keys(start, end)
            assert state.count(start, end) == model.count(start, end)
            assert 0 <= state.count_least(start, end) <= model.count(start, end)
            key = random.choice(self.keys)
            assert state.get(key) == model.get(key)
            assert state.frame(key) == model.frame(key)
            assert state.get_at(key, revision) == model.get_at(key, revision)
            frames_at = state.frames_at(start, end, revision, limit)
            assert join(frames_at) == join(model.frames_at(start, end, revision, limit))
            assert state.count_at(start, end, revision) == model.count_at(start, end, revision)
            self.check_steps(start, end, random.choice((0, revision)))
            first = random.randint(self.compacted + 1, self.main + 1)
            last = random.randint(first, self.main + 1)
            size = random.choice((1, 3, 1000))
            part = (first, random.randrange(3), last, size, random.choice((0, 1, 200)))
            assert state.changes_from(*part) == model.changes_from(*part)
        for lease in (7, 8, 9):
            assert state.attached(lease) == model.attached(lease)
        for bucket in BUCKETS:
            if bucket != BUCKET_META:
                assert state.bucket_items(bucket) == model.bucket_items(bucket)
        assert state.bucket_get(BUCKET_META, b"term") == model.bucket_get(BUCKET_META, b"term")

    def check_steps(self, start: bytes, end: bytes | None, revision: int) -> None:
        """A range read in steps is the range, whatever each step may look at."""
        view = self.model.view_at(revision or self.main)
        keys = sorted(key for key in view if key >= start and (end is None or key < end))
        rows_max, octets_max = self.random.choice((1, 2, 7, 100)), self.random.choice((0, 1, 300))
        found: list[tuple[bytes, bytes]] = []
        position: bytes | None = start
        while position is not None:
            rows, behind = self.state.rows(position, end, revision, rows_max, octets_max)
            assert behind is None or behind > position
            found += rows
            position = behind
        assert found == [(key, encode_frame(view[key])) for key in keys]
        if revision:
            count, position = 0, start
            while position is not None:
                some, position = self.state.count_some(position, end, revision, rows_max)
                count += some
            assert count == len(keys)

    def check_hashes(self) -> None:
        """Compare HashKV at some revisions; settles everything first."""
        self.release()
        self.state.flush(lambda: None)
        for _ in range(3):
            revision = self.random.randint(max(1, self.compacted), self.main)
            found: list[object] = []
            for backend in self.backends():
                backend.hash_kv(revision, self.compacted, found.append)
            assert found[0] == found[1]
        for known in self.state.compaction_hashes.since(-1):
            wanted = self.model.compaction_hashes.find(known.revision)
            # Compactions of one generation become one, which follows an earlier one.
            if wanted is not None and wanted.compact_revision == known.compact_revision:
                assert known == wanted


def join(frames: list[bytes]) -> bytes:
    return b"".join(frames)


def run_steps(seed: int, steps: int, keys: tuple[bytes, ...] = KEYS) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rig = StateRig(Path(folder) / "member" / "state", Random(seed), keys)
        for _ in range(steps):
            rig.step()
            if rig.random.random() < 0.3:
                rig.check()
        rig.check_hashes()
        rig.reopen()
        rig.check()
        assert rig.failures == []
        rig.state.close()
        check_tables(rig.path)


def check_tables(path: Path) -> None:
    """Verify the durable tables; then rebuild the derived ones, and find them the same."""
    tables = Tables(open_environment(path, MAP_SIZE, DATABASES_MAX))
    assert verify(tables) == []
    before = derived_rows(tables)
    tables = rebuild(tables, path)
    assert verify(tables) == []
    assert derived_rows(tables) == before
    read_boot_state(tables, path)
    tables.env.close()


def derived_rows(tables: Tables) -> list[list[tuple[bytes, bytes]]]:
    with tables.env.begin() as txn:
        return [
            [(bytes(name), bytes(value)) for name, value in txn.cursor(tables.handles[table])]
            for table in (b"current", b"history", b"attached")
        ]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_state_answers_as_the_model_does(seed: int) -> None:
    run_steps(seed, 120)


def test_state_answers_as_the_model_does_with_plain_keys_only() -> None:
    run_steps(1, 300, KEYS[:30])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200))
def test_state_answers_as_the_model_does_at_length(seed: int) -> None:
    run_steps(seed, 400)


def test_fences_split_and_stay_exact(tmp_path: Path) -> None:
    keys = tuple(b"%05d" % i for i in range(FENCE_COUNT_MAX * 6))
    rig = StateRig(tmp_path / "state", Random(5), keys)
    shuffled = rig.random.sample(keys, len(keys))
    for first in range(0, len(keys), 64):
        rig.fill(shuffled[first : first + 64])
    for i in range(300):
        rig.write()
        if i % 50 == 0:
            rig.tick()
            start, end = sorted(rig.random.sample(keys, 2))
            assert rig.state.count(start, end) == rig.model.count(start, end)
    assert len(rig.state._fences.starts) > 6
    rig.reopen()
    for _ in range(20):
        start, end = sorted(rig.random.sample(keys, 2))
        assert rig.state.count(start, end) == rig.model.count(start, end)
    rig.state.close()


@given(
    st.lists(st.binary(max_size=3), max_size=20, unique=True),
    st.binary(max_size=3),
    st.none() | st.binary(max_size=3),
)
def test_fences_measure_every_key_once(
    starts: list[bytes], start: bytes, end: bytes | None
) -> None:
    table = fences.Fences(sorted((key, 0) for key in starts))
    keys = [bytes((a, b)) for a in range(0, 256, 37) for b in range(0, 256, 53)]
    for key in keys:
        table.change(key, 1)
    inside = [key for key in keys if start <= key and (end is None or key < end)]
    whole, rest = table.measure(start, end)
    partial = sum(
        1 for low, high in rest for key in keys if low <= key and (high is None or key < high)
    )
    assert whole + partial == len(inside)
    assert len(rest) <= 2


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    rig = StateRig(tmp_path / "state", Random(1))
    with pytest.raises(Exception, match="in use by another process"):
        lock_directory(rig.path)
    rig.state.close()
