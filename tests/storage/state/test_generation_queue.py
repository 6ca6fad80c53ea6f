"""Closed generations go to the writer in pieces, in order, each whole before the next."""

from __future__ import annotations

import marshal
from collections.abc import Callable
from typing import Any

import pytest

from etcdtw.storage.rows.tables import Batch
from etcdtw.storage.state.generation_queue import AHEAD_MAX, PIECE_OCTETS, GenerationQueue
from etcdtw.storage.state.overlay import (
    CHANGE_OVERHEAD,
    FRESH_MAX,
    GENERATION_OCTETS_MAX,
    SEND_CHANGES_MAX,
    SEND_OCTETS_MAX,
    Generation,
)
from etcdtw.storage.writer.worker import ATTACHMENTS, BUCKET_ROWS, CHANGES, COMMIT

VALUE = bytes(10_000)


class Writer:
    """Keeps what it is sent, and what is to be called soon."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.later: list[Callable[[], None]] = []

    def start(self, receive: Callable[[tuple[Any, ...]], None]) -> None:
        raise AssertionError("nothing answers")

    def send(self, message: tuple[Any, ...]) -> None:
        self.sent.append(message)

    def soon(self, then: Callable[[], None]) -> None:
        self.later.append(then)

    def close(self) -> None:
        raise AssertionError("stays open")

    def take(self) -> list[tuple[Any, ...]]:
        sent, self.sent = self.sent, []
        return sent

    def go_on(self) -> None:
        later, self.later = self.later, []
        for then in later:
            then()


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def queue(writer: Writer) -> GenerationQueue:
    return GenerationQueue(writer)


def fill(generation: Generation, octets: int, record: bytes | None = VALUE) -> Generation:
    while generation.octets < octets:
        key = b"%06d" % len(generation.changes)
        generation.current[key] = record
        generation.changes.append((2, len(generation.changes), key, record))
        generation.octets += len(key) + len(record or b"") + CHANGE_OVERHEAD
    return generation


def batch(index: int) -> Batch:
    return Batch([], [], [], False, index, 1, 2)


def close(queue: GenerationQueue, number: int, octets: int) -> Generation:
    generation = fill(Generation(number), octets)
    queue.close(generation, batch(number))
    return generation


def rows_of(messages: list[tuple[Any, ...]]) -> list[Any]:
    return [row for kind, *rest in messages if kind == CHANGES for row in marshal.loads(rest[0])]


def octets_of(messages: list[tuple[Any, ...]]) -> int:
    return sum([len(row[2]) + len(row[3]) + CHANGE_OVERHEAD for row in rows_of(messages)])


def ends_of(messages: list[tuple[Any, ...]]) -> list[int]:
    return [message[1] for message in messages if message[0] == COMMIT]


def test_a_range_has_the_keys_of_two_waiting_generations_to_put_in_order_at_most(
    queue: GenerationQueue,
) -> None:
    unsorted = []
    for number in range(1, 5):
        generation = Generation(number)
        generation.fresh.extend([b"%d" % i for i in range(FRESH_MAX + 1)])
        queue.close(generation, batch(number))
        unsorted.append(len(generation.fresh))
    assert unsorted == [FRESH_MAX + 1, FRESH_MAX + 1, 0, 0]


def test_a_generation_that_waited_goes_in_pieces(writer: Writer, queue: GenerationQueue) -> None:
    for number in range(1, 2 + AHEAD_MAX):
        close(queue, number, 1)
    waited = close(queue, 2 + AHEAD_MAX, GENERATION_OCTETS_MAX)
    assert ends_of(writer.take()) == list(range(1, 2 + AHEAD_MAX))
    assert writer.later == []
    queue.confirm(1)
    queue.advance()
    pieces = [writer.take()]
    while writer.later:
        assert len(writer.later) == 1
        queue.advance()
        assert writer.sent == [], "a piece is under way"
        writer.go_on()
        pieces.append(writer.take())
    largest = len(VALUE) + 1000
    assert all(0 < octets_of(piece) <= PIECE_OCTETS + SEND_OCTETS_MAX for piece in pieces)
    assert all(octets_of([m]) <= SEND_OCTETS_MAX + largest for piece in pieces for m in piece)
    assert len(pieces) >= GENERATION_OCTETS_MAX // (PIECE_OCTETS + SEND_OCTETS_MAX)
    messages = [message for piece in pieces for message in piece]
    assert rows_of(messages) == waited.changes
    assert ends_of(messages) == [waited.number]
    assert messages[-1][0] == COMMIT


@pytest.mark.parametrize("count", [SEND_CHANGES_MAX - 1, 3 * SEND_CHANGES_MAX + 1])
def test_attachments_go_in_messages_of_a_few(
    writer: Writer, queue: GenerationQueue, count: int
) -> None:
    generation = Generation(1)
    attachments = [(7, b"%d" % i, True) for i in range(count)]
    generation.attachments = list(attachments)
    queue.close(generation, batch(1))
    while writer.later:
        writer.go_on()
    sent = [item for kind, *rest in writer.sent if kind == ATTACHMENTS for item in rest[0]]
    assert all(len(m[1]) == SEND_CHANGES_MAX for m in writer.sent if m[0] == ATTACHMENTS)
    assert sent + generation.attachments == attachments
    assert ends_of(writer.sent) == [1]


@pytest.mark.parametrize("count", [SEND_CHANGES_MAX - 1, 3 * SEND_CHANGES_MAX + 1])
def test_rows_of_buckets_go_in_messages_of_a_few(
    writer: Writer, queue: GenerationQueue, count: int
) -> None:
    generation = Generation(1)
    rows = [(b"lease", b"%d" % i, b"x" if i % 2 else None) for i in range(count)]
    generation.bucket_rows = list(rows)
    queue.close(generation, batch(1))
    while writer.later:
        writer.go_on()
    pieces = [item for kind, *rest in writer.sent if kind == BUCKET_ROWS for item in rest]
    assert all(len(piece) == SEND_CHANGES_MAX for piece in pieces)
    assert [row for piece in pieces for row in piece] + writer.sent[-1][2] == rows
    assert ends_of(writer.sent) == [1]


def test_the_next_one_waits_until_the_one_before_is_whole(
    writer: Writer, queue: GenerationQueue
) -> None:
    first = close(queue, 1, 2 * GENERATION_OCTETS_MAX)
    second = fill(Generation(2), 1)
    queue.stream(second)
    queue.close(second, batch(2))
    assert ends_of(writer.sent) == []
    while writer.later:
        writer.go_on()
    assert ends_of(writer.sent) == [1, 2]
    assert rows_of(writer.sent) == [*first.changes, *second.changes]


def test_the_open_one_is_streamed_in_pieces_too_when_its_turn_comes_late(
    writer: Writer, queue: GenerationQueue
) -> None:
    for number in range(1, 2 + AHEAD_MAX):
        close(queue, number, 1)
    late = fill(Generation(2 + AHEAD_MAX), GENERATION_OCTETS_MAX)
    queue.stream(late)
    queue.confirm(1)
    queue.advance()
    writer.take()
    queue.stream(late)
    assert PIECE_OCTETS <= octets_of(writer.sent) <= PIECE_OCTETS + SEND_OCTETS_MAX
    queue.close(late, batch(late.number))
    while writer.later:
        writer.go_on()
    assert rows_of(writer.sent) == late.changes


def test_usual_changes_are_one_message(writer: Writer, queue: GenerationQueue) -> None:
    generation = Generation(1)
    for _ in range(SEND_CHANGES_MAX):
        fill(generation, generation.octets + 1, None)
    queue.stream(generation)
    assert [message[0] for message in writer.sent] == [CHANGES]
    assert rows_of(writer.sent) == generation.changes


def test_before_the_writer_is_closed_it_gets_the_rest_at_once(
    writer: Writer, queue: GenerationQueue
) -> None:
    close(queue, 1, GENERATION_OCTETS_MAX)
    assert ends_of(writer.sent) == []
    queue.finish()
    assert ends_of(writer.sent) == [1]
    writer.go_on()
    assert ends_of(writer.sent) == [1]


def test_when_another_state_is_to_be_adopted_the_writer_gets_nothing_more(
    writer: Writer, queue: GenerationQueue
) -> None:
    close(queue, 1, GENERATION_OCTETS_MAX)
    queue.stop()
    writer.take()
    writer.go_on()
    queue.advance()
    queue.finish()
    assert writer.sent == []
    assert writer.later == []


def test_what_nobody_needs_is_freed_a_few_at_a_time(queue: GenerationQueue) -> None:
    items = [(i,) for i in range(25)]
    queue.let_go(items)
    sizes = []
    for _ in range(4):
        queue.bury(10)
        sizes.append(len(items))
    assert sizes == [15, 5, 0, 0]
