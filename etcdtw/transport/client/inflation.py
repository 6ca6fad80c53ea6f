"""Turns of the reactor in which compressed requests are inflated, a bounded piece in each."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from etcdtw.grpc.inflating import InflateQueue
from etcdtw.wire.pieces import OCTETS, Pieces

log = Logger()


def inflate_in_turns(clock: IReactorTime, queue: InflateQueue, pieces: Pieces) -> None:
    """Let ``queue`` do its work in turns of ``clock`` from now on, each measured by ``pieces``."""

    def step() -> None:
        piece = pieces.begin()
        try:
            queue.step()
        except Exception:
            # A defect of ours: this call is lost, the others' are not.
            log.failure("a call failed unexpectedly")
        finally:
            pieces.end(piece, OCTETS)
        if queue.has_work:
            clock.callLater(0, step)

    def schedule() -> None:
        clock.callLater(0, step)

    queue.on_work = schedule
