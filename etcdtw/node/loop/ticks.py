"""Time for one member: ticks of its Raft, then each duty, told the time; then a turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.standing import Standing
from etcdtw.raft.raw_node import RawNode
from etcdtw.wire.pieces import DUTIES, Pieces

LATE_HEARTBEATS: Final = 2
"""Heartbeats due at one tick from which on the leader is late (etcd warns at twice too)."""

Look = Callable[[int], None]
"""A duty's one call: it is told the time in ms."""


class Ticks:
    """The ticks of one member.  ``looks`` are called at each, in this order."""

    log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        raw: RawNode,
        standing: Standing,
        wakeup: Wakeup,
        looks: Sequence[Look],
        pieces: Pieces,
        fail_stop: Callable[[str], None],
        *,
        heartbeat_ms: int,
        election_ticks: int,
    ) -> None:
        self._clock = clock
        self._raw = raw
        self._standing = standing
        self._wakeup = wakeup
        self._looks = [*looks]
        self._pieces = pieces
        self._fail_stop = fail_stop
        self._heartbeat_ms = heartbeat_ms
        self._election_ticks = election_ticks
        self._ticking: IDelayedCall | None = None
        self._last_ms = 0
        self.late_heartbeats_total = 0
        """Ticks at which a leader was more than one heartbeat late."""

    def follow(self, look: Look) -> None:
        """Call ``look``, too, from now on: services come and go while a member ticks."""
        self._looks.append(look)

    def start(self) -> None:
        self._last_ms = self._wakeup.time_ms()
        self._schedule()

    def stop(self) -> None:
        if self._ticking is not None and self._ticking.active():
            self._ticking.cancel()
        self._ticking = None

    def _schedule(self) -> None:
        self._ticking = self._clock.callLater(self._heartbeat_ms / 1000, self._tick)

    def _tick(self) -> None:
        self._schedule()
        piece = self._pieces.begin()
        try:
            self._look_around(self._wakeup.time_ms())
        except Exception:
            # Without its ticks a member neither elects nor expires nor persists its state.
            self.log.failure("a tick failed")
            self._fail_stop("a tick failed; report this with the lines above")
            return
        self._pieces.end(piece, DUTIES)
        self._wakeup.run_now()

    def _look_around(self, now_ms: int) -> None:
        # A stall must not become a burst of ticks, nor no tick at all: at most one less than an
        # election, so that a stalled leader checks its quorum and a follower still listens first.
        due = max(1, (now_ms - self._last_ms) // self._heartbeat_ms)
        self._last_ms = now_ms
        self.late_heartbeats_total += due > LATE_HEARTBEATS and self._raw.is_leader
        for _ in range(min(due, self._election_ticks - 1)):
            self._raw.tick()
        for look in self._looks:
            try:
                look(now_ms)
            except Exception as error:
                if not self._standing.damage:
                    raise
                self.log.debug("left undone, as the state is damaged: {error}", error=error)
