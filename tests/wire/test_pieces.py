"""Pieces of work: what counts as theirs, what is told of them, and that nothing is lost."""

from __future__ import annotations

from etcdtw.wire.pieces import (
    APPLY,
    COLLECTION,
    FLUSH,
    KINDS,
    LOOK_NS,
    PIECE_BOUNDS_S,
    SHORT_NS,
    TURN,
    UNMEASURED,
    Pieces,
)

MS = 1_000_000


class Clocks:
    cpu_ns = 5 * MS
    wall_ns = 70 * MS

    def pass_ms(self, cpu: int, wall: int = 0) -> None:
        self.cpu_ns += cpu * MS
        self.wall_ns += (wall or cpu) * MS


def rig(warning_ms: int = 25) -> tuple[Clocks, Pieces, list[tuple[str, int, int]]]:
    clocks = Clocks()
    told: list[tuple[str, int, int]] = []
    pieces = Pieces(
        lambda: clocks.cpu_ns,
        lambda: clocks.wall_ns,
        lambda *one: told.append(one),
        warning_ms * MS,
    )
    return clocks, pieces, told


def test_a_piece_counts_processor_and_wall_time_by_its_kind() -> None:
    clocks, pieces, _ = rig()
    piece = pieces.begin()
    clocks.pass_ms(3, 40)
    pieces.end(piece, APPLY)
    assert round(pieces.cpu_s[APPLY].total, 6) == 0.003
    assert round(pieces.wall_s[APPLY].total, 6) == 0.040
    assert pieces.greatest_ns[APPLY] == 3 * MS
    assert all(not pieces.cpu_s[kind].count for kind in KINDS if kind != APPLY)
    assert pieces.cpu_s[APPLY].bounds == PIECE_BOUNDS_S


def test_what_a_piece_has_used_so_far_is_processor_time_without_collections() -> None:
    clocks, pieces, _ = rig()
    turn = pieces.begin()
    clocks.pass_ms(3, 40)
    collection = pieces.begin()
    clocks.pass_ms(30)
    pieces.collection_ended(collection)
    assert pieces.used_s(turn) == 0.003
    clocks.pass_ms(1, 2)
    assert pieces.used_s(turn) == 0.004
    pieces.end(turn, TURN)
    assert pieces.greatest_ns[TURN] == 4 * MS


def test_pieces_within_others_count_for_both() -> None:
    clocks, pieces, _ = rig()
    turn = pieces.begin()
    clocks.pass_ms(1)
    flush = pieces.begin()
    clocks.pass_ms(2)
    pieces.end(flush, FLUSH)
    pieces.end(turn, TURN)
    assert pieces.greatest_ns[TURN] == 3 * MS
    assert pieces.greatest_ns[FLUSH] == 2 * MS


def test_a_garbage_collection_is_no_part_of_the_piece_it_falls_into() -> None:
    clocks, pieces, _ = rig()
    turn = pieces.begin()
    clocks.pass_ms(1)
    collection = pieces.begin()
    clocks.pass_ms(30)
    pieces.collection_ended(collection)
    pieces.end(turn, TURN)
    assert (pieces.greatest_ns[TURN], pieces.greatest_ns[COLLECTION]) == (1 * MS, 30 * MS)


def test_only_pieces_above_the_bound_are_told() -> None:
    clocks, pieces, told = rig(warning_ms=25)
    for cpu_ms in (25, 26):
        piece = pieces.begin()
        clocks.pass_ms(cpu_ms, 90)
        pieces.end(piece, APPLY)
    assert told == [(APPLY, 26 * MS, 90 * MS)]


def test_pieces_that_an_exception_cut_short_disturb_no_other() -> None:
    clocks, pieces, _ = rig()
    turn = pieces.begin()
    pieces.begin()
    clocks.pass_ms(1)
    pieces.end(turn, TURN)
    piece = pieces.begin()
    clocks.pass_ms(2)
    pieces.end(piece, APPLY)
    assert (pieces.greatest_ns[TURN], pieces.greatest_ns[APPLY]) == (1 * MS, 2 * MS)


def test_without_clocks_nothing_takes_time() -> None:
    UNMEASURED.end(UNMEASURED.begin(), TURN)
    assert UNMEASURED.greatest_ns[TURN] == 0


def test_the_processor_time_is_looked_at_for_long_pieces_only() -> None:
    clocks = Clocks()
    looks = 0

    def cpu_ns() -> int:
        nonlocal looks
        looks += 1
        return clocks.cpu_ns

    pieces = Pieces(cpu_ns, lambda: clocks.wall_ns)
    for _ in range(100):
        piece = pieces.begin()
        clocks.wall_ns += SHORT_NS // 100
        clocks.cpu_ns += SHORT_NS // 200
        pieces.end(piece, APPLY)
    assert looks == 1
    assert pieces.cpu_s[APPLY].counts[0] == 100
    assert pieces.greatest_ns[APPLY] == SHORT_NS // 100
    clocks.wall_ns += LOOK_NS
    piece = pieces.begin()
    clocks.pass_ms(7, 50)
    pieces.end(piece, APPLY)
    assert looks == 3
    assert pieces.greatest_ns[APPLY] == 7 * MS
    assert PIECE_BOUNDS_S[0] * 1e9 == SHORT_NS
