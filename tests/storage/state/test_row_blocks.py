"""Pieces against frames: whatever is kept, changed, committed or compacted, they are the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etcdtw.storage.rows.codec import RECORD_INLINE_MAX, encode_frame, key_in
from etcdtw.storage.rows.fences import SPARSE_FENCES_MAX, Fences
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.row_blocks import (
    BLOCK_ROWS_MAX,
    BLOCK_ROWS_MIN,
    COUNTS_MAX,
    RowBlock,
    RowBlocks,
)
from tests.storage.state.test_model import LONG, StateRig, encode_record, join
from tests.support.state_rows import MAP_SIZE, fail

NAMES = tuple(b"k%04d" % i for i in range(0, 6_000, 2))
KEYS = (b"\0", b"a", *NAMES, b"z" * 480)


def piece_rig(path: Path, seed: int) -> StateRig:
    """Return a rig of 3,000 small durable keys under several fences."""
    rig = StateRig(path, Random(seed), KEYS)
    for first in range(0, len(NAMES), 100):
        put(rig, NAMES[first : first + 100], 20)
    settle(rig)
    assert len(rig.state._fences.starts) >= 3
    return rig


def put(rig: StateRig, keys: tuple[bytes, ...], size: int) -> None:
    """Put ``keys`` in one revision."""
    rig.main += 1
    for sub, key in enumerate(keys):
        record = encode_record(key, rig.main, 1, bytes(size))
        is_new = key not in rig.model.live
        rig.both(lambda b: b.put(rig.main, sub, key, record, is_new))  # noqa: B023
    cover(rig)


def delete(rig: StateRig, keys: tuple[bytes, ...]) -> None:
    """Delete those of ``keys`` that live, in one revision."""
    live = [key for key in keys if key in rig.model.live]
    rig.main += bool(live)
    for sub, key in enumerate(live):
        rig.both(lambda b: b.delete(rig.main, sub, key))  # noqa: B023
    cover(rig)


def cover(rig: StateRig) -> None:
    rig.index += 1
    rig.both(lambda b: b.set_applied(rig.index, 1))


def settle(rig: StateRig) -> None:
    """Make everything durable: the reader's transaction is renewed."""
    rig.release()
    rig.state.flush(lambda: None)


def bounds(random: Random) -> tuple[bytes, bytes | None]:
    """Return a start and an end: around keys, between them, far away, or the wrong way round."""
    names = [b"", b"\0", b"k", b"zz", LONG + b"x" * 9, b"k%04d" % random.randrange(6_000)]
    start = random.choice([*names, b"k%04d" % random.randrange(6_000)])
    end = random.choice([*names, None, b"k%04d" % random.randrange(6_000), start + b"\xff"])
    return start, end


def check(rig: StateRig) -> None:
    """Compare pieces with frames for some bounds, limits and sizes."""
    random = rig.random
    for _ in range(8):
        start, end = bounds(random)
        limit = random.choice((0, 0, 1, 2, 63, 500, 1_000, 4_000))
        pieces, count = rig.state.pieces(start, end, limit)
        frames = rig.state.frames(start, end, limit)
        assert (join(pieces), count) == (join(frames), len(frames))
        octets_max = random.choice((1, 40, 5_000, 60_000, 1 << 20))
        pieces, count = rig.state.pieces(start, end, limit, octets_max)
        if len(join(frames)) < octets_max:
            assert (join(pieces), count) == (join(frames), len(frames))
        else:
            assert len(join(pieces)) >= octets_max
            assert join(pieces) == join(frames[:count])
    assert join(rig.state.pieces(b"", None)[0]) == join(rig.model.frames(b"", None))


def write(rig: StateRig) -> None:
    """Put or delete a key, a few, or a stretch of many; rarely put one that is long."""
    random = rig.random
    first = random.randrange(len(KEYS))
    keys = KEYS[first : first + random.choice((1, 1, 5, 700))]
    if random.random() < 0.4:
        delete(rig, keys)
    elif random.random() < 0.05:
        put(rig, (b"k%04d" % random.randrange(6_000) + LONG,), 3)  # from now on has_long
    else:
        size = random.choice((0, 1, 20, 20, RECORD_INLINE_MAX))
        put(rig, keys if size <= 20 else keys[:5], size)


def run_steps(path: Path, seed: int, steps: int) -> None:
    rig = piece_rig(path, seed)
    random = rig.random
    for _ in range(3):
        check(rig)
    assert rig.state._reader.blocks.octets > 0
    for _ in range(steps):
        change = random.choices(
            (write, settle, StateRig.tick, StateRig.compact, StateRig.hold, StateRig.reopen),
            (13, 8, 4, 2, 1, 1),
        )[0]
        change(rig)
        for _ in range(random.choice((0, 1, 3))):
            check(rig)
    assert rig.failures == []
    rig.state.close()


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_pieces_are_the_frames_whatever_happens_in_between(seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_steps(Path(folder) / "state", seed, 25)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100))
def test_pieces_are_the_frames_at_length(tmp_path: Path, seed: int) -> None:
    run_steps(tmp_path / "state", seed, 150)


def test_a_renewed_transaction_shows_the_new_content(tmp_path: Path) -> None:
    rig = piece_rig(tmp_path / "state", 1)
    before = [rig.state.pieces(b"k", b"l") for _ in range(3)][-1]
    assert rig.state._reader.blocks.octets > 0
    put(rig, NAMES[40:41], 9)
    delete(rig, NAMES[50:52])
    changed = rig.state.pieces(b"k", b"l")
    assert changed[1] == before[1] - 2
    settle(rig)
    for _ in range(3):
        pieces, count = rig.state.pieces(b"k", b"l")
        assert (join(pieces), count) == (join(changed[0]), changed[1])
        assert join(pieces) == join(rig.model.frames(b"k", b"l"))
    rig.state.close()


def test_pieces_of_a_long_entry_stay_out_of_sight(tmp_path: Path) -> None:
    rig = piece_rig(tmp_path / "state", 1)
    before = [join(rig.state.pieces(b"", None)[0]) for _ in range(3)][-1]
    rig.state.reveal()
    delete(rig, NAMES[:2_000])
    assert rig.state.pieces(b"", None)[1] == len(NAMES) - 2_000
    rig.state.conceal()
    assert join(rig.state.pieces(b"", None)[0]) == before
    rig.state.publish()
    assert join(rig.state.pieces(b"", None)[0]) == join(rig.model.frames(b"", None))
    rig.state.close()


def test_a_single_pass_fills_nothing(tmp_path: Path) -> None:
    rig = piece_rig(tmp_path / "state", 1)
    for first in range(0, len(NAMES), 150):
        rig.state.pieces(NAMES[first], None, 150)
    assert rig.state._reader.blocks.octets == 0
    pieces, _ = rig.state.pieces(b"", None)
    assert rig.state._reader.blocks.octets > 0
    assert len(pieces) < len(rig.state._fences.starts) + BLOCK_ROWS_MIN
    rig.state.close()


def test_large_records_make_no_block(tmp_path: Path) -> None:
    rig = piece_rig(tmp_path / "state", 1)
    put(rig, NAMES[::200], RECORD_INLINE_MAX)  # some under each fence
    settle(rig)
    for _ in range(4):
        assert join(rig.state.pieces(b"", None)[0]) == join(rig.model.frames(b"", None))
    assert rig.state._reader.blocks.octets == 0
    rig.state.close()


@pytest.mark.parametrize(("surplus", "is_kept"), [(0, True), (-1, False)])
def test_blocks_are_kept_up_to_their_bound(surplus: int, is_kept: bool) -> None:
    frames = frames_of(100)
    size = RowBlock((b"", None), frames).size
    blocks = RowBlocks(2 * size + surplus)
    first = blocks.add((b"", b"a"), frames)
    second = blocks.add((b"a", b"b"), frames)
    assert blocks.get((b"", b"a")) is first
    assert blocks.get((b"a", b"b")) is (second if is_kept else None)
    assert blocks.octets == (2 * size if is_kept else size)
    blocks.add((b"b", None), frames)
    blocks.note((b"c", None), 100)
    assert not blocks.is_due((b"c", None), 100), "full: nothing more is filled"
    blocks.clear()
    blocks.note((b"c", None), 100)
    assert blocks.is_due((b"c", None), 100)


def test_new_blocks_take_the_room_of_stale_ones() -> None:
    frames = frames_of(100)
    size = RowBlock((b"", None), frames).size
    blocks = RowBlocks(2 * size)
    for _ in range(3):
        for interval in ((b"", b"a"), (b"a", None)):
            assert blocks.get(interval) is None
            blocks.add(interval, frames)
            assert blocks.get(interval) is not None
            assert blocks.octets <= 2 * size
        blocks.clear()


def test_parts_of_fences_are_counted_once_and_anew_after_a_commit(tmp_path: Path) -> None:
    state = open_state(tmp_path / "state", fail, map_size=MAP_SIZE)

    def put(main: int) -> None:
        key = b"k%03d" % main
        state.put(main, 0, key, encode_record(key, main, 1, b"v"), True)
        state.set_applied(main, 1)

    for main in range(2, 42):
        put(main)
    assert state.count(b"k010", b"k020") == 10  # all of them in the overlay
    state.flush(lambda: None)
    assert [state.count(b"k010", b"k020") for _ in range(2)] == [10, 10]
    state.delete(42, 0, b"k015")
    state.set_applied(42, 1)
    assert state.count(b"k010", b"k020") == 9
    state.flush(lambda: None)
    assert [state.count(b"k010", b"k020") for _ in range(2)] == [9, 9]
    state.close()


def test_no_more_counts_are_remembered_than_the_bound() -> None:
    blocks = RowBlocks()
    for i in range(COUNTS_MAX + 1):
        blocks.note_count((b"%d" % i, None), i)
    assert blocks.count((b"0", None)) is None
    assert blocks.count((b"%d" % COUNTS_MAX, None)) == COUNTS_MAX


def test_a_block_is_due_when_as_many_rows_were_read_as_it_has() -> None:
    blocks = RowBlocks()
    blocks.note((b"", None), 99)
    assert not blocks.is_due((b"", None), 100)
    blocks.note((b"", None), 1)
    assert blocks.is_due((b"", None), 100)
    blocks.refuse((b"", None))
    assert not blocks.is_due((b"", None), 100)


def test_a_fence_of_too_many_rows_makes_no_block(tmp_path: Path) -> None:
    rig = StateRig(tmp_path / "state", Random(1), KEYS)
    put(rig, tuple(b"%05d" % i for i in range(BLOCK_ROWS_MAX + 1)), 5)
    settle(rig)
    reader = rig.state._reader
    assert reader.fill((b"", None)) is None
    assert reader.blocks.octets == 0
    assert reader.fill((b"00001", None)) is not None
    rig.state.close()


def frames_of(count: int) -> list[bytes]:
    return [encode_frame(encode_record(b"%03d" % i, 5, 1, bytes(i))) for i in range(count)]


@given(
    st.sampled_from([b"", b"005", b"0055", b"050"]),
    st.sampled_from([None, b"02", b"050", b"0505", b"099", b"1"]),
    st.integers(0, 120),
)
def test_a_block_is_cut_at_any_key(start: bytes, end: bytes | None, limit: int) -> None:
    frames = frames_of(100)
    wanted = [f for f in frames if key_in(f, 0) >= start and (end is None or key_in(f, 0) < end)]
    wanted = wanted[:limit] if limit else wanted
    for interval in ((b"", None), (b"0", b"1")):
        block = RowBlock(interval, frames)
        assert block.cut(start, end, limit) == (join(wanted), len(wanted))
    assert RowBlock((b"", None), []).cut(start, end, limit) == (b"", 0)


def test_sparse_fences_are_passed_in_one_step_up_to_a_bound() -> None:
    counts = [1] * (SPARSE_FENCES_MAX + 5)
    fences = Fences([(b"%03d" % i if i else b"", count) for i, count in enumerate(counts)])
    assert fences.next_dense(0, 2) == b"%03d" % SPARSE_FENCES_MAX
    assert fences.next_dense(5, 2) is None
    fences.counts[9] = 2
    assert fences.next_dense(0, 2) == b"009"
    assert fences.next_dense(len(counts) - 1, 2) is None
