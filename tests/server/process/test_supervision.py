"""What systemd is told, with a clock and a node that are given."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from twisted.internet.task import Clock

from etcdtw.server.process.supervision import (
    EXTEND_EVERY_S,
    EXTEND_S,
    OPENING_S,
    STATUS_EVERY_MS,
    Supervision,
    watchdog_interval_ms,
)

NOTIFIED = {"NOTIFY_SOCKET": "/run/notify"}
WATCHED = {**NOTIFIED, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(os.getpid())}


class Supervised:
    """A member's life as its supervisor hears it."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.heard: list[str] = []
        self.clock = Clock()
        self.looks: list[Callable[[int], None]] = []
        self.node = SimpleNamespace(
            term=2, leader_id=0, is_leader=False, is_learner=False,
            applied_index=5, commit_index=9,
        )  # fmt: skip
        self.supervision = Supervision(self.clock, environment, self.send)

    def send(self, environment: Mapping[str, str], message: bytes) -> bool:
        if "NOTIFY_SOCKET" in environment:
            self.heard.append(message.decode())
        return True

    def start(self) -> None:
        self.supervision.startService()
        self.supervision.opening()
        ticks = SimpleNamespace(follow=self.looks.append)
        self.supervision.joining(cast(Any, self.node), cast(Any, ticks))

    def new(self) -> list[str]:
        heard, self.heard = self.heard, []
        return heard

    def look(self, now_ms: int) -> list[str]:
        for look in self.looks:
            look(now_ms)
        return self.new()


def test_a_start_extends_its_time_until_it_serves() -> None:
    told = Supervised(NOTIFIED)
    told.start()
    extension = f"EXTEND_TIMEOUT_USEC={EXTEND_S}000000"
    assert told.new() == [
        extension,
        f"EXTEND_TIMEOUT_USEC={OPENING_S}000000",
        "STATUS=opening the data",
        "STATUS=starting at applied index 5",
    ]
    told.clock.advance(EXTEND_EVERY_S)
    assert told.new() == [extension]
    told.supervision.serving()
    told.clock.advance(EXTEND_EVERY_S)
    assert told.new() == ["READY=1"]
    told.supervision.stopping()
    assert told.new() == ["STOPPING=1", "STATUS=stopping", extension]
    told.supervision.stopService()
    assert not told.clock.getDelayedCalls()


def test_status_is_said_when_it_changes() -> None:
    told = Supervised(NOTIFIED)
    told.start()
    told.new()
    now_ms = STATUS_EVERY_MS
    assert told.look(now_ms) == ["STATUS=waiting for a leader at term 2"]
    assert told.look(now_ms + STATUS_EVERY_MS) == []
    told.node.leader_id = 1
    assert told.look(now_ms + 2 * STATUS_EVERY_MS - 1) == []
    assert told.look(now_ms + 2 * STATUS_EVERY_MS) == ["STATUS=follower: applying entry 5 of 9"]
    told.supervision.serving()
    told.new()
    assert told.look(now_ms + 3 * STATUS_EVERY_MS) == ["STATUS=serving as follower at term 2"]


def test_watchdog_hears_from_the_tick_twice_as_often_as_it_must() -> None:
    told = Supervised(WATCHED)
    told.start()
    told.new()
    told.node.leader_id = 1
    heard = [told.look(now_ms).count("WATCHDOG=1") for now_ms in range(0, 10_000, 100)]
    assert sum(heard) == 4


@pytest.mark.parametrize(
    ("environment", "interval_ms"),
    [
        ({}, 0),
        ({"WATCHDOG_USEC": "x"}, 0),
        ({"WATCHDOG_USEC": "60000000"}, 30_000),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, 0),
        (WATCHED, 2000),
    ],
)
def test_watchdogs_interval_is_read(environment: dict[str, str], interval_ms: int) -> None:
    assert watchdog_interval_ms(environment) == interval_ms


def test_nobody_is_told_where_nobody_asked() -> None:
    told = Supervised({})
    told.start()
    told.supervision.serving()
    told.supervision.stopping()
    assert (told.heard, told.looks, told.clock.getDelayedCalls()) == ([], [], [])


def test_supervisor_that_is_gone_stops_nothing() -> None:
    def gone(environment: Mapping[str, str], message: bytes) -> bool:
        raise OSError("gone")

    supervision = Supervision(Clock(), NOTIFIED, gone)
    supervision.startService()
    supervision.opening()
    supervision.stopping()
    supervision.stopService()
