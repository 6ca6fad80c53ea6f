"""Profiles that are asked for by HTTP."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from etcdtw.gateway.pages import Answer
from etcdtw.server.profiles.pages import (
    CPU_S,
    IN_USE,
    MEMORY_S,
    SECONDS_MAX,
    Profiles,
    seconds_of,
)
from etcdtw.server.profiles.pprof import Place, Stack

STACK: Stack = (Place("work", "a.py", 7), Place("main", "b.py", 1))


class Reactor:
    """Keeps what threads want done."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.calls: list[tuple[Any, Any]] = []

    def seconds(self) -> float:
        return 0.0

    def callFromThread(self, call: Any, value: Any) -> None:
        self.calls.append((call, value))
        self.came.set()

    def run(self) -> None:
        assert self.came.wait(10)
        self.came.clear()
        call, value = self.calls.pop()
        call(value)


class Rig:
    """Profiles whose samples are given."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.asked: list[float] = []
        self.stopped = False
        self.waits = False
        self.profiles = Profiles(self.reactor, lambda: 5, self.sample, self.sample)
        self.pages = self.profiles.pages()

    def sample(
        self, seconds: float, stop: threading.Event, now_s: Callable[[], float]
    ) -> dict[Stack, tuple[int, int]]:
        self.asked.append(seconds)
        self.stopped = stop.wait(10) if self.waits else False
        return {STACK: (2, 30)}

    def ask(self, name: bytes, **arguments: bytes) -> Any:
        query = {key.encode(): [value] for key, value in arguments.items()}
        return self.pages[b"/debug/pprof/" + name](query)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_a_profile_is_made_for_as_long_as_asked(rig: Rig) -> None:
    answer = rig.ask(b"profile", seconds=b"2", debug=b"1")
    assert isinstance(answer, Deferred)
    assert not answer.called
    rig.reactor.run()
    assert answer.result == Answer(200, b"main (b.py);work (a.py) 30\n")
    assert rig.asked == [2.0]
    assert isinstance(rig.ask(b"heap"), Deferred)
    rig.reactor.run()
    assert rig.asked == [2.0, MEMORY_S]


def test_it_is_in_the_form_of_pprof(rig: Rig) -> None:
    answer = rig.ask(b"profile")
    rig.reactor.run()
    octets = gzip.decompress(answer.result.body)
    for word in (b"samples", b"count", b"cpu", b"nanoseconds", b"work", b"main", b"a.py"):
        assert word in octets
    assert rig.asked == [CPU_S]


def test_there_is_one_at_a_time(rig: Rig) -> None:
    rig.ask(b"profile")
    assert rig.ask(b"heap") == Answer(500, IN_USE)
    rig.reactor.run()
    assert isinstance(rig.ask(b"heap"), Deferred)
    rig.reactor.run()


def test_who_leaves_ends_it(rig: Rig) -> None:
    rig.waits = True
    answer = rig.ask(b"profile")
    failures: list[Failure] = []
    answer.addErrback(failures.append)
    answer.cancel()
    rig.reactor.run()
    assert rig.stopped
    assert failures[0].check(CancelledError)
    assert isinstance(rig.ask(b"profile"), Deferred)
    rig.profiles.stop()
    rig.reactor.run()


def test_the_other_pages_answer_at_once(rig: Rig) -> None:
    assert b"profile" in rig.ask(b"").body
    assert b"thread MainThread" in rig.ask(b"goroutine").body
    assert rig.ask(b"cmdline").body


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (b"3", 3.0),
        (b"0.5", 0.5),
        (b"0", 9),
        (b"-1", 9),
        (b"x", 9),
        (b"nan", 9),
        (b"1e9", SECONDS_MAX),
    ],
)
def test_seconds_are_bounded(text: bytes, seconds: float) -> None:
    assert seconds_of({b"seconds": [text]}, 9) == seconds
