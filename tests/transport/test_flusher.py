"""Connections write once for each turn, and not all of them in one piece if they are many."""

from __future__ import annotations

from twisted.internet.task import Clock

from etcdtw.transport.flusher import FLUSH_S, Flusher


class Connection:
    def __init__(self, clock: Clock, written: list[int], number: int, takes_s: float) -> None:
        self._clock = clock
        self._written = written
        self._number = number
        self._takes_s = takes_s

    def flush_output(self) -> None:
        self._clock.rightNow += self._takes_s
        self._written.append(self._number)


def rig(count: int, takes_s: float) -> tuple[Clock, Flusher, list[int]]:
    clock = Clock()
    flusher = Flusher(clock)
    written: list[int] = []
    flusher.hold()
    for number in range(count):
        flusher.mark(Connection(clock, written, number, takes_s))
    return clock, flusher, written


def test_a_flush_lets_all_connections_write_that_it_has_time_for() -> None:
    _, flusher, written = rig(5, FLUSH_S / 10)
    flusher.flush()
    assert written == [0, 1, 2, 3, 4]


def test_those_for_which_there_is_no_time_write_in_the_next_iterations() -> None:
    clock, flusher, written = rig(5, FLUSH_S / 2)
    flusher.flush()
    assert written == [0, 1]
    (delayed,) = clock.calls
    clock.calls.remove(delayed)
    delayed.func()
    assert written == [0, 1, 2, 3]
    flusher.hold()
    flusher.flush()
    assert written == [0, 1, 2, 3, 4]


def test_who_wants_to_know_is_told_that_the_reactor_has_come_around() -> None:
    told: list[int] = []
    clock = Clock()
    written: list[int] = []
    flusher = Flusher(clock, on_flush=lambda: told.append(len(written)))
    flusher.flush()
    assert told == []  # nobody had read anything
    flusher.mark(Connection(clock, written, 1, 0.0))
    clock.advance(0)
    assert told == [1]
