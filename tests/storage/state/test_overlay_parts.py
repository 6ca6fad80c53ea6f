"""What a long entry changes lies in several dicts: none grows to where copying it takes long."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from etcdtw.storage.state.attachments import attached_keys, attached_most
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.overlay import (
    MISSING,
    PART_CHANGES_MAX,
    SEND_CHANGES_MAX,
    Generation,
    changed_from,
)
from etcdtw.storage.state.state import LmdbState
from etcdtw.storage.writer.feed import InlineStateWriter
from tests.support.model_backend import encode_varint

KEYS = 2 * PART_CHANGES_MAX + 1
OLD_KEY = b"a"
BURY_ROWS = 7


def record(key: bytes, main: int) -> bytes:
    return b"\x0a" + encode_varint(len(key)) + key + b"\x18" + encode_varint(main)


def change(generation: Generation, main: int, key: bytes, value: bytes | None, lease: int) -> None:
    """Change a key as the state does."""
    if key not in generation.current:
        generation.fresh.append(key)
    generation.current[key] = value
    generation.changes.append((main, len(generation.changes), key, value))
    generation.attached.setdefault(lease, {})[key] = value is not None
    if len(generation.changes) >= generation.due:
        generation.go_on()


@pytest.mark.parametrize(
    ("count", "parts"),
    [(PART_CHANGES_MAX - 1, 1), (PART_CHANGES_MAX, 2), (PART_CHANGES_MAX + 1, 2)],
)
def test_a_part_is_left_when_it_is_full(count: int, parts: int) -> None:
    generation = Generation(1)
    generation.changes = [(2, 0, b"k", None)] * count
    generation.go_on()
    assert len(generation.parts()) == parts
    assert not generation.current


def test_no_dict_of_a_long_entry_is_copied_with_very_many_keys() -> None:
    generation = Generation(1)
    for i in range(5 * PART_CHANGES_MAX // 2):
        change(generation, 2, b"%08d" % i, None, i)
    # A dict is copied whole when two thirds of its table are used.
    table = {i: None for i in range((1 << 16) * 2 // 3)}
    assert len(table) >= PART_CHANGES_MAX + SEND_CHANGES_MAX
    for part in generation.parts():
        assert sys.getsizeof(part.current) <= sys.getsizeof(table)
        assert sys.getsizeof(part.attached) <= sys.getsizeof(table)
    assert len(generation.parts()) == 3


@pytest.mark.parametrize("seed", range(8))
def test_many_parts_answer_as_one_does(seed: int) -> None:
    chance = random.Random(seed)
    whole, parted = Generation(1), Generation(1, 3)
    main = 2
    for _ in range(400):
        main += chance.random() < 0.5 * (seed % 2)  # a long entry is one revision
        key = b"%03d" % chance.randrange(300)
        value = b"%d" % main if chance.random() < 0.7 else None
        lease = chance.randrange(3)
        for generation in (whole, parted):
            change(generation, main, key, value, lease)
        if chance.random() < 0.1:
            parted.go_on()
    assert len(parted.parts()) > 10
    assert len(whole.parts()) == 1
    for i in range(301):
        key = b"%03d" % i
        assert parted.record(key) == whole.current.get(key, MISSING)
        for revision in range(1, main + 1):
            assert parted.version_at(key, revision) == whole.version_at(key, revision)
    assert walked(parted, 5) == walked(whole, 5) == between(parted) == between(whole)
    for lease in range(3):
        assert attached_keys([parted], lease, [b"x"]) == attached_keys([whole], lease, [b"x"])
        assert attached_most([parted], lease) >= attached_most([whole], lease) > 0


def between(generation: Generation) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    generation.between(b"010", b"290", found)
    return found


def walked(generation: Generation, limit: int) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    position: bytes | None = b"010"
    while position is not None:
        some, position = changed_from([generation], position, b"290", limit)
        found.update(some)
    return found


def test_old_views_of_one_revision_need_no_index_of_its_changes() -> None:
    generation = Generation(1)
    for i in range(100):
        change(generation, 5, b"%d" % i, None, 1)
    assert generation.version_at(b"7", 4) is MISSING
    assert generation.version_at(b"7", 5) is None
    assert generation.version_at(b"x", 5) is MISSING
    assert not generation.versions


@pytest.mark.parametrize("leases", [1, 20, 200])
def test_a_generation_of_many_parts_is_freed_in_steps(leases: int) -> None:
    generation = Generation(1, 40)
    for i in range(200):
        change(generation, 2, b"%d" % i, None, i % leases)
        if i % 40 == 0:
            generation.go_on()
    steps = 0
    while True:
        before = rows_of(generation)
        is_done = generation.bury(BURY_ROWS)
        freed = [old - new for old, new in zip(before, rows_of(generation), strict=True)]
        assert max(freed) <= BURY_ROWS
        steps += 1
        if is_done:
            break
    assert not any(rows_of(generation))
    assert steps >= 200 // BURY_ROWS


def rows_of(generation: Generation) -> list[int]:
    """Return how many rows there are of each kind."""
    parts = generation.parts()
    leases = [of_lease for part in parts for of_lease in part.attached.values()]
    return [
        len(generation.changes),
        sum(len(part.current) for part in parts),
        sum(len(of_lease) for of_lease in leases),
        len(leases),
    ]


class Long:
    """A state in the midst of a long entry, with a writer that commits nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = self.open()
        state = self.state
        state.put(2, 0, OLD_KEY, record(OLD_KEY, 2), True)
        state.set_applied(5, 1)
        state.flush(lambda: None)
        assert isinstance(state._writer, InlineStateWriter)
        self.writer = state._writer
        self.writer.is_held = True
        state.reveal()
        state.delete(3, 0, OLD_KEY)
        for i in range(KEYS):
            key = b"k%07d" % i
            state.put(3, i + 1, key, record(key, 3), True)
            if i % 10_000 == 0:
                state.conceal()
                assert not self.is_seen()
                state.reveal()

    def open(self) -> LmdbState:
        return open_state(self.path, pytest.fail, map_size=1 << 28)

    def publish(self) -> None:
        self.state.publish()
        self.state.set_applied(6, 1)

    def is_seen(self) -> bool:
        """Whether the entry is, wherever one looks; a part of it would be a fault."""
        state = self.state
        record_of_old = state.get(OLD_KEY)
        is_seen = record_of_old is None
        assert (state.frame(OLD_KEY) is None) == is_seen
        assert state.get_at(OLD_KEY, 2) == record(OLD_KEY, 2)
        assert (state.get_at(OLD_KEY, 3) is None) == is_seen
        assert state.count(b"", None) == (KEYS if is_seen else 1)
        for i in (0, 1, PART_CHANGES_MAX, KEYS - 1):
            key = b"k%07d" % i
            expected = record(key, 3) if is_seen else None
            assert state.get(key) == state.get_at(key, 3) == expected
            assert state.get_at(key, 2) is None
            assert (state.frame(key) is not None) == is_seen
            assert len(state.keys(key, key + b"\0")) == is_seen
        rows, _ = state.rows(b"k0000003", None, 0, 10, 0)
        assert [key for key, _ in rows] == [b"k%07d" % (3 + i) for i in range(10 * is_seen)]
        return is_seen


@pytest.fixture
def long(tmp_path: Path) -> Iterator[Long]:
    made = Long(tmp_path / "state")
    yield made
    made.state.close()


def test_all_parts_of_a_long_entry_are_seen_at_once_and_committed_at_once(long: Long) -> None:
    state = long.state
    assert len(state._open.parts()) == 3
    state.conceal()
    assert not long.is_seen()
    long.publish()
    assert len(state._closed.generations[0].parts()) == 3
    assert long.is_seen()
    assert state.applied_durable == 5
    commits = [message for message in long.writer._held if message[0] == "commit"]
    assert len(commits) == 1
    long.writer.is_held = False
    long.writer.release()
    assert state.applied_durable == 6
    assert long.is_seen()
    state.close()
    long.state = long.open()
    assert long.is_seen()
    assert long.state.applied_index == 6


@pytest.mark.parametrize("is_published", [False, True])
def test_a_crash_before_the_commit_shows_nothing_of_a_long_entry(
    long: Long, is_published: bool
) -> None:
    if is_published:
        long.publish()
        del long.writer._held[-1]  # the commit itself
        long.writer.release()
    long.state._reader.close()
    long.state = long.open()
    assert not long.is_seen()
    assert long.state.applied_index == 5
