"""Many keys that are longer than LMDB's, with one common beginning: no count may go wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from etcdtw.storage.building.from_bbolt import SnapshotFacts
from etcdtw.storage.disk.directory import open_environment
from etcdtw.storage.rows.codec import KEY_SIZE_MAX, TABLE_FENCES, fence_row
from etcdtw.storage.rows.fences import FENCE_COUNT_ANEW, FENCE_KEY_SIZE_MAX, FenceCutter
from etcdtw.storage.rows.seal import SEALS
from etcdtw.storage.rows.tables import DATABASES_MAX, Tables
from etcdtw.storage.snapshot.export import export
from etcdtw.storage.snapshot.install import load_state
from etcdtw.storage.state_rebuild import rebuild, verify
from etcdtw.wire.mvccpb import KeyValue
from tests.storage.state.test_model import MAP_SIZE, StateRig, check_tables, join
from tests.storage.state.test_row_blocks import cover, delete, settle

P = b"p" * 490
AROUND = (b"a", P[:KEY_SIZE_MAX], P[:KEY_SIZE_MAX] + b"a", P, b"q", b"q" * 500)
BOUNDS = (b"", *AROUND, P + b"3", P + b"59", P + b"7" * 20, P + b"\xff", P[:-1] + b"\xff")


def long_keys(first: int, last: int) -> tuple[bytes, ...]:
    return tuple(P + b"%d" % i for i in range(first, last))


def put(rig: StateRig, keys: tuple[bytes, ...]) -> None:
    """Put new ``keys`` in one revision, as etcd would store them."""
    rig.main += 1
    numbers = {"create_revision": rig.main, "mod_revision": rig.main, "version": 1}
    for sub, key in enumerate(keys):
        record = KeyValue(key=key, value=b"value", **numbers).SerializeToString()
        for backend in rig.backends():
            backend.put(rig.main, sub, key, record, True)
    cover(rig)


def open_tables(path: Path) -> Tables:
    return Tables(open_environment(path, MAP_SIZE, DATABASES_MAX))


def import_again(rig: StateRig) -> None:
    """Go on with a state made from an export of this one."""
    rig.state.close()
    tables = open_tables(rig.path)
    file, path = rig.path.with_name("file"), rig.path.with_name("imported")
    export(tables, file)
    tables.env.close()
    load_state(file, path, MAP_SIZE, SnapshotFacts())
    rig.path = path


def rebuild_in_place(rig: StateRig) -> None:
    rig.state.close()
    rebuild(open_tables(rig.path), rig.path).env.close()


def reopen_as_it_is(rig: StateRig) -> None:
    rig.state.close()


def check_ranges(rig: StateRig) -> None:
    """Compare the model and the state: everything, then ranges with an end amid the long keys."""
    model, state = rig.model, rig.state
    some = [(rig.random.choice(BOUNDS), rig.random.choice((None, *BOUNDS))) for _ in range(12)]
    for start, end in ((b"", None), (b"", P), (P, None), *some):
        assert state.count(start, end) == model.count(start, end)
        assert state.keys(start, end) == model.keys(start, end)
        limit = rig.random.choice((0, 3))
        assert join(state.frames(start, end, limit)) == join(model.frames(start, end, limit))


@pytest.mark.parametrize("make_anew", [import_again, rebuild_in_place, reopen_as_it_is])
@pytest.mark.parametrize("around", [(), AROUND])
def test_long_keys_with_one_beginning_are_counted_through_changes_and_restarts(
    tmp_path: Path, around: tuple[bytes, ...], make_anew: Callable[[StateRig], None]
) -> None:
    rig = StateRig(tmp_path / "state", Random(1))
    put(rig, (*around, *long_keys(0, 600)))
    settle(rig)
    make_anew(rig)
    tables = open_tables(rig.path)
    assert verify(tables) == []
    tables.env.close()
    rig.open()
    check_ranges(rig)
    for i in range(600, 1700, 10):  # far enough for splits to be tried
        put(rig, long_keys(i, i + 10))
    check_ranges(rig)
    delete(rig, long_keys(100, 1300))
    check_ranges(rig)
    rig.reopen()
    check_ranges(rig)
    delete(rig, long_keys(0, 1700))
    check_ranges(rig)
    rig.reopen()
    assert rig.failures == []
    rig.state.close()
    check_tables(rig.path)


def test_a_fence_opens_between_two_beginnings_and_never_amid_one() -> None:
    assert FENCE_KEY_SIZE_MAX <= KEY_SIZE_MAX, "rows of long keys are named by no more of them"
    cut, full = P[:KEY_SIZE_MAX], FENCE_COUNT_ANEW
    for before, group, behind, wanted in (
        (0, 0, 0, [(b"", 0)]),
        (full, 0, 1, [(b"", full), (b"q0000", 1)]),
        (full - 1, 0, 1, [(b"", full)]),
        (0, full + 9, 0, [(b"", full + 9)]),
        (0, full + 9, 1, [(b"", full + 9), (b"q0000", 1)]),
        (1, full + 9, 0, [(b"", full + 10)]),
        (full - 1, 9, 0, [(b"", full + 8)]),
        (full, 9, 0, [(b"", full), (cut, 9)]),
        (full, full + 9, 2, [(b"", full), (cut, full + 9), (b"q0000", 2)]),
    ):
        keys = [b"a%04d" % i for i in range(before)]
        keys += [cut + b"%04d" % i if i else cut for i in range(group)]
        keys += [b"q%04d" % i for i in range(behind)]
        cutter = FenceCutter()
        for key in keys:
            cutter.add(key)
        assert cutter.rows() == wanted


def test_fences_that_an_earlier_build_opened_amid_long_keys_are_found_and_mended(
    tmp_path: Path,
) -> None:
    rig = StateRig(tmp_path / "state", Random(1))
    put(rig, long_keys(0, 600))
    settle(rig)
    rig.state.close()
    tables = open_tables(rig.path)
    with tables.env.begin(write=True) as txn:
        for name, count in (fence_row(b"", 512), fence_row(P[:KEY_SIZE_MAX], 88)):
            sealed = SEALS[TABLE_FENCES].closed(name, count)
            txn.put(name, sealed, db=tables.handles[TABLE_FENCES])
    assert len(verify(tables)) == 2
    tables = rebuild(tables, rig.path)
    assert verify(tables) == []
    tables.env.close()
    rig.open()
    put(rig, long_keys(600, 1700))
    check_ranges(rig)
    rig.state.close()


def test_a_group_of_large_records_is_read_up_to_the_bound(tmp_path: Path) -> None:
    rig = StateRig(tmp_path / "state", Random(1))
    keys = long_keys(10, 30)
    rig.main += 1
    for sub, key in enumerate(keys):
        record = KeyValue(key=key, value=bytes(10_000)).SerializeToString()
        for backend in rig.backends():
            backend.put(rig.main, sub, key, record, True)
    cover(rig)
    settle(rig)
    assert len(rig.state.rows(b"", None, 0, 100, 25_000)[0]) == 3
    assert len(rig.state.frames(b"", None, 0, 25_000)) == 3
    found: list[bytes] = []
    position: bytes | None = b""
    while position is not None:
        rows, position = rig.state.rows(position, None, 0, 100, 25_000)
        found += [key for key, _ in rows]
    assert found == list(keys)
    rig.state.close()
