"""What a generation stores beside its changes: the index that covers all of them, never less."""

from __future__ import annotations

from pathlib import Path

from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.state import LmdbState
from tests.support.model_backend import encode_varint

MAP_SIZE = 1 << 26


def record(key: bytes, main: int) -> bytes:
    return b"\x0a" + encode_varint(len(key)) + key + b"\x18" + encode_varint(main)


def open_at(path: Path) -> LmdbState:
    return open_state(path, lambda reason: None, map_size=MAP_SIZE)


def ignore() -> None:
    pass


def reopened(state: LmdbState, path: Path) -> tuple[int, bytes | None]:
    """Return (applied index, record of the key b"b") after a crash of the member."""
    state._reader.close()
    again = open_at(path)
    found = again.applied_index, again.get(b"b")
    again.close()
    return found


def test_compaction_that_is_waited_for_stores_no_entry_without_its_index(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state = open_at(path)
    state.put(2, 0, b"a", record(b"a", 2), True)
    state.set_applied(5, 1)
    # One turn: a put, and a compaction whose caller waits until it is physical.
    state.put(3, 0, b"b", record(b"b", 3), True)
    state.schedule_compaction(2)
    state.on_compacted(2, ignore)
    index, found = reopened(state, path)
    assert (index, found) == (0, None) or index == 7


def test_compaction_that_is_waited_for_is_done_when_its_entry_is_applied(tmp_path: Path) -> None:
    state = open_at(tmp_path / "state")
    state.put(2, 0, b"a", record(b"a", 2), True)
    state.schedule_compaction(2)
    told: list[int] = []
    state.on_compacted(2, lambda: told.append(2))
    assert told == []
    state.set_applied(7, 1)
    assert told == [2]
    assert state.applied_durable == 7
    state.close()


def test_long_entry_is_not_stored_without_its_index_for_a_flush_that_waits(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state = open_at(path)
    state.put(2, 0, b"a", record(b"a", 2), True)
    state.set_applied(5, 1)
    state.flush(ignore)
    state.reveal()
    state.put(3, 0, b"b", record(b"b", 3), True)
    state.conceal()
    told: list[int] = []
    state.flush(lambda: told.append(1))
    state.reveal()
    state.publish()
    assert told == []
    assert state.applied_durable == 5
    state.set_applied(6, 1)
    assert told == [1]
    index, found = reopened(state, path)
    assert (index, found) == (6, record(b"b", 3))
