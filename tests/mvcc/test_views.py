"""A view shows one revision, whatever is written, compacted or forgotten meanwhile."""

from __future__ import annotations

from random import Random

import pytest

from etcdtw.mvcc.errors import CompactedError
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.views import (
    TOUCHED_KEY_SIZE_MAX,
    TOUCHED_KEYS_MAX,
    Touched,
    View,
    Writes,
    WrittenView,
)
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import put_of
from tests.support.model_backend import ModelBackend, encode_frame

KEYS = [b"%02d" % i for i in range(30)]
SMALL = WorkBounds(slice_keys_max=7, slice_past_keys_max=4)


class ViewRig:
    """A store of some keys with a past."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.backend = ModelBackend()
        self.store = Store(self.backend, lambda lease_id: True, SMALL)
        for key in random.sample(KEYS, 20):
            self.put(key)
        self.write(5)

    def put(self, key: bytes) -> None:
        value = b"%d" % self.random.randint(0, 9)
        self.store.apply_put(put_of(pb.PutRequest(key=key, value=value)))

    def write(self, count: int) -> None:
        for _ in range(count):
            key = self.random.choice(KEYS)
            if self.random.random() < 0.3:
                self.store.apply_delete_range(pb.DeleteRangeRequest(key=key))
            else:
                self.put(key)

    def drain(self, view: View, writes_max: int) -> list[tuple[bytes, bytes]]:
        """Read all of it in steps, with writes in between."""
        found: list[tuple[bytes, bytes]] = []
        position: bytes | None = b"\0"
        while position is not None:
            rows, position = view.rows(position, None, 3, 0)
            found += rows
            self.write(self.random.randint(0, writes_max))
        return found

    def expected(self, revision: int) -> list[tuple[bytes, bytes]]:
        view = self.backend.view_at(revision)
        return [(key, encode_frame(view[key])) for key in sorted(view)]


@pytest.mark.parametrize("seed", range(30))
def test_a_view_is_not_changed_by_later_writes(seed: int) -> None:
    rig = ViewRig(Random(seed))
    for writes_max in (0, 1, 9):
        revision = rig.store.revision
        view = rig.store.open_view(revision)
        assert rig.drain(view, writes_max) == rig.expected(revision)
        assert view.count(b"\0", None) in (len(rig.expected(revision)), None)
        view.close()


def test_a_view_of_which_too_much_was_written_is_read_from_history() -> None:
    rig = ViewRig(Random(1))
    revision = rig.store.revision
    view = rig.store.open_view(revision)
    rig.write(3)
    rig.put(b"k" * (TOUCHED_KEY_SIZE_MAX + 1))
    assert view.count(b"\0", None) is None
    assert rig.drain(view, 2) == rig.expected(revision)


def test_only_so_many_keys_are_noted() -> None:
    touched = Touched()
    for _ in range(TOUCHED_KEYS_MAX):
        touched.add(b"k")
    assert touched.is_whole
    touched.add(b"k")
    assert (touched.is_whole, touched.keys) == (False, [])


def test_nothing_is_noted_when_no_view_is_left() -> None:
    rig = ViewRig(Random(1))
    writer = rig.store._writer
    one, other = rig.store.open_view(rig.store.revision), rig.store.open_view(rig.store.revision)
    one.close()
    one.close()
    rig.put(KEYS[0])
    assert writer.touched is not None
    other.close()
    rig.put(KEYS[0])
    assert writer.touched is None


def test_a_view_of_another_state_is_read_from_history() -> None:
    rig = ViewRig(Random(1))
    revision = rig.store.revision
    view = rig.store.open_view(revision)
    rig.store.restore(revision)
    assert view.count(b"\0", None) == len(rig.expected(revision))
    rig.write(9)
    assert rig.drain(view, 2) == rig.expected(revision)


def test_what_an_entry_wrote_itself_lies_over_its_view() -> None:
    rig = ViewRig(Random(1))
    revision = rig.store.revision
    rows = rig.expected(revision)
    writes = Writes()
    writes.puts = {b"new": b"\x0a\x03new", rows[3][0]: b"gone", rows[9][0]: b"\x0a\x01n"}
    writes.delete(rows[2][0], rows[5][0])
    view = WrittenView(rig.store.open_view(revision), writes)
    found = rig.drain(view, 2)
    put = [(rows[9][0], encode_frame(b"\x0a\x01n")), (b"new", encode_frame(b"\x0a\x03new"))]
    assert found == sorted([*rows[:2], *rows[5:9], *rows[10:], *put])
    view.close()


def test_a_compacted_view_cannot_be_read() -> None:
    rig = ViewRig(Random(1))
    view = rig.store.open_view(rig.store.revision)
    rig.put(KEYS[0])
    rig.store.apply_compaction(pb.CompactionRequest(revision=rig.store.revision))
    with pytest.raises(CompactedError):
        view.rows(b"\0", None, 3, 0)
    with pytest.raises(CompactedError):
        view.count(b"\0", None)


@pytest.mark.parametrize(("count", "ends"), [(4, True), (5, False)])
def test_a_step_looks_at_no_more_changed_keys_than_history_allows(count: int, ends: bool) -> None:
    rig = ViewRig(Random(1))
    rig.store.apply_delete_range(pb.DeleteRangeRequest(key=b"\0", range_end=b"\0"))
    view = rig.store.open_view(rig.store.revision)
    for key in KEYS[:count]:
        rig.put(key)
    rows, behind = view.rows(b"\0", None, 100, 0)
    assert (rows, behind) == ([], None if ends else KEYS[4])
