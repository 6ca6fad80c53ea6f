"""The way to one server, cell by cell of `docs/machines/client-line.md`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from twisted.internet.defer import Deferred

from etcdtw.client.network.line import CLOSED, DIALLING, IDLE, READY, WAITING, Line
from etcdtw.http2 import frames
from tests.client.network.network_rig import DOWN, HANGS, MUTE, UP, NetworkRig, has_come


class LineRig(NetworkRig):
    """One line, brought into a state."""

    def __init__(self, state: int = IDLE, random: float = 0.5) -> None:
        super().__init__(
            random=lambda: random,
            backoff_min_ms=100,
            backoff_max_ms=1_000,
            dial_timeout_ms=2_000,
        )
        self.server = self.servers[0]
        if state in (DIALLING, WAITING):
            self.server.mode = {DIALLING: MUTE, WAITING: DOWN}[state]
        if state != IDLE:
            self.line.connect()
            self.pump()
        self.server.mode = UP
        if state == CLOSED:
            self.line.close()
            self.pump()
        assert self.line.state == state

    @property
    def line(self) -> Line:
        return self.channel.lines[0]

    def speak(self) -> None:
        """A server that said nothing speaks."""
        link = self.server.link
        link.protocol.dataReceived(link.core.take_output())


def lived(rig: LineRig) -> None:
    rig.clock.advance(1.0)
    rig.server.link.lose()


CELLS: Final[list[tuple[int, str, Callable[[LineRig], object], int]]] = [
    (IDLE, "connect", lambda rig: rig.line.connect(), DIALLING),
    (IDLE, "close", lambda rig: rig.line.close(), CLOSED),
    (DIALLING, "connect", lambda rig: rig.line.connect(), DIALLING),
    (DIALLING, "it opens", lambda rig: rig.speak(), READY),
    (DIALLING, "it is lost", lambda rig: rig.server.link.lose(), WAITING),
    (DIALLING, "too late", lambda rig: rig.clock.advance(2.0), WAITING),
    (DIALLING, "close", lambda rig: rig.line.close(), CLOSED),
    (READY, "connect", lambda rig: rig.line.connect(), READY),
    (READY, "lost soon", lambda rig: rig.server.link.lose(), WAITING),
    (READY, "lost later", lived, DIALLING),
    (READY, "close", lambda rig: rig.line.close(), CLOSED),
    (WAITING, "connect", lambda rig: rig.line.connect(), WAITING),
    (WAITING, "time", lambda rig: rig.clock.advance(0.1), DIALLING),
    (WAITING, "close", lambda rig: rig.line.close(), CLOSED),
    (CLOSED, "connect", lambda rig: rig.line.connect(), CLOSED),
    (CLOSED, "close", lambda rig: rig.line.close(), CLOSED),
]


@pytest.mark.parametrize(
    ("state", "what", "happen", "after"), CELLS, ids=lambda cell: str(cell)[:9]
)
def test_each_cell(state: int, what: str, happen: Callable[[LineRig], object], after: int) -> None:
    rig = LineRig(state)
    happen(rig)
    assert rig.line.state == after
    assert (rig.line.connection is not None) is (after == READY)


def test_a_server_that_goes_away_is_dialled_again_and_its_calls_end() -> None:
    rig = LineRig(READY)
    waiting = rig.unary("Wait")
    rig.clock.advance(1.0)
    rig.server.link.protocol.dataReceived(frames.encode_goaway(1, 0))
    assert rig.server.dials == 2
    rig.pump()
    assert rig.line.connection is not None
    assert not has_come(waiting)
    assert rig.server.open_links == 2
    rig.server.calls[0].reply(b"")
    rig.pump()
    assert has_come(waiting)
    assert rig.server.open_links == 1


def test_a_dial_that_fails_says_why() -> None:
    rig = LineRig(WAITING)
    assert "refused" in rig.line.why


def test_waits_grow_to_their_bound() -> None:
    rig = LineRig(WAITING)
    rig.server.mode = DOWN
    waits_s = []
    for _ in range(10):
        (call,) = rig.clock.getDelayedCalls()
        waits_s.append(call.getTime() - rig.clock.seconds())
        rig.clock.advance(waits_s[-1])
    assert waits_s[:3] == pytest.approx([0.1, 0.16, 0.256])
    assert waits_s[-2:] == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(("random", "wait_s"), [(0.0, 0.08), (1.0, 0.12)])
def test_waits_differ_between_clients(random: float, wait_s: float) -> None:
    rig = LineRig(WAITING, random)
    (call,) = rig.clock.getDelayedCalls()
    assert call.getTime() - rig.clock.seconds() == pytest.approx(wait_s)


def test_a_connection_that_was_good_makes_the_next_wait_short_again() -> None:
    rig = LineRig(WAITING)
    rig.server.mode = DOWN
    rig.advance(5.0)
    rig.server.mode = UP
    rig.advance(2.0)
    assert rig.line.state == READY
    rig.server.mode = DOWN
    lived(rig)
    assert rig.line.state == WAITING
    (call,) = rig.clock.getDelayedCalls()
    assert call.getTime() - rig.clock.seconds() == pytest.approx(0.1)


def test_a_dial_that_hangs_is_given_up() -> None:
    rig = LineRig()
    rig.server.mode = HANGS
    rig.line.connect()
    rig.clock.advance(2.0)
    assert rig.line.state == WAITING
    assert rig.line.why == "no answer within 2000 ms"


def test_closing_waits_for_the_last_connection() -> None:
    rig = LineRig(READY)
    closed: Deferred[None] = rig.line.close()
    assert not closed.called
    rig.pump()
    assert closed.called
