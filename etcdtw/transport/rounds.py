"""Whose octets are looked at now, and whose wait: clients take turns.

What arrives is served at once while the reactor's budget lasts.  Who has more than a share of it
at once, or comes when it is spent, stands in line; the line is served at the next iterations of
the reactor, so that writes, timers and peers come in between.  In line those go first who have
just come: a client that asks for much waits behind itself.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime

from etcdtw.wire.pieces import BUDGET_S, OCTETS, UNMEASURED, Pieces

FIRST_SHARE_S: Final = 0.005
"""For one client that has just come: a read of the socket full of small puts, and so one flush
of the log for them all."""
SHARE_S: Final = 0.002
"""For one client in line, before the next one has its turn."""

NO_MORE: Final = 0
MORE: Final = 1
MORE_AFTER_PAGES: Final = 2
"""What `Guest.serve` says.  Pages gain nothing from being answered together, and what many of them
make goes out in one piece: after each their client stands in line."""


class Guest(Protocol):
    """A connection, or a request, that octets have come for."""

    def serve(self) -> int:
        """Look at a few requests.  Not `NO_MORE`: there are more."""
        ...

    def wait(self) -> None:
        """It stands in line now: let it not send much more."""
        ...

    def go_on(self) -> None:
        """It was served, and may send again."""
        ...


class Rounds:
    """The line of one process.

    All clients together have `BUDGET_S` before others have their turn; ``seconds`` measures it.
    """

    def __init__(
        self,
        clock: IReactorTime,
        pieces: Pieces = UNMEASURED,
        seconds: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._clock = clock
        self._pieces = pieces
        self._seconds = seconds
        self._used_s = 0.0
        self._is_spent = False
        self._is_scheduled = False
        self._fresh: deque[Guest] = deque()
        self._heavy: deque[Guest] = deque()

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return len(self._fresh) + len(self._heavy)

    def renew(self) -> None:
        """The reactor has come around: writes, timers and peers had their turn.

        Without it what is used adds up over iterations, and ends in a round that nobody needs.
        """
        if not self._is_scheduled:
            self._used_s = 0.0

    def serve(self, guest: Guest) -> None:
        """Serve ``guest``, who does not stand in line, or let it stand there."""
        if self._is_spent:
            self._line_up(guest, self._fresh)
            return
        if self._run(guest, FIRST_SHARE_S):
            self._line_up(guest, self._heavy)
        if self._used_s >= BUDGET_S:
            self._is_spent = True
            self._schedule()

    def _run(self, guest: Guest, share_s: float) -> bool:
        """Serve it for its share of the time; True: it has more."""
        seconds = self._seconds
        began_s = seconds()
        rest = guest.serve()
        used_s = seconds() - began_s
        while rest == MORE and used_s < share_s:
            rest = guest.serve()
            used_s = seconds() - began_s
        self._used_s += used_s
        return rest != NO_MORE

    def _line_up(self, guest: Guest, line: deque[Guest]) -> None:
        line.append(guest)
        guest.wait()
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(0, self._round)

    def _round(self) -> None:
        piece = self._pieces.begin()
        try:
            self._serve_line()
        finally:
            self._pieces.end(piece, OCTETS)

    def _serve_line(self) -> None:
        """A budget's worth of it: who has just come, then the others in turn, one at least."""
        self._is_scheduled = False
        self._used_s = 0.0
        self._is_spent = False
        fresh, self._fresh = self._fresh, deque()
        while fresh and self._used_s < BUDGET_S:
            self._serve_next(fresh.popleft())
        # Those who come while the line is served stand behind it.
        fresh.extend(self._fresh)
        self._fresh = fresh
        for position in range(len(self._heavy)):
            if position and self._used_s >= BUDGET_S:
                break
            self._serve_next(self._heavy.popleft())
        self._is_spent = self._used_s >= BUDGET_S
        if self.waiting or self._is_spent:
            self._schedule()

    def _serve_next(self, guest: Guest) -> None:
        if self._run(guest, SHARE_S):
            self._heavy.append(guest)
        else:
            guest.go_on()
