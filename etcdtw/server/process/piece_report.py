"""The measured pieces of one process: who hears of long ones, and what is written at the end.

Garbage collections are seen through the interpreter's own hook.  With ``ETCDTW_PIECES_FILE`` set
each piece that took too long is one line of that file: kind, ms of CPU time, ms that passed.
That is how the integration tests know, also of members that are killed.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from etcdtw.wire.pieces import Pieces

WARNING_REST_NS: Final = 10_000_000_000
"""Between two warnings of one kind."""
FILE_VARIABLE: Final = "ETCDTW_PIECES_FILE"


class LongPieces:
    """Warns of pieces that took too long, each kind now and then.

    ``path``: a file that has a line for each; empty: none.
    """

    log = Logger()

    def __init__(self, now_ns: Callable[[], int], path: str = "") -> None:
        self._now_ns = now_ns
        self._path = path
        self._warned_ns: dict[str, int] = {}
        self._unsaid: dict[str, int] = {}

    def report(self, kind: str, cpu_ns: int, wall_ns: int) -> None:
        """Log it, unless the last warning of its kind is not long ago."""
        if self._path:
            with Path(self._path).open("a") as file:
                file.write(f"{kind} {cpu_ns / 1e6:.1f} {wall_ns / 1e6:.1f}\n")
        now_ns = self._now_ns()
        warned_ns = self._warned_ns.get(kind)
        if warned_ns is not None and now_ns - warned_ns < WARNING_REST_NS:
            self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
            return
        self._warned_ns[kind] = now_ns
        self.log.warn(
            "nobody was served for {cpu_ms} ms of CPU time ({wall_ms} ms): {kind}; {unsaid} more "
            "of this kind since the last such line",
            cpu_ms=cpu_ns // 1_000_000,
            wall_ms=wall_ns // 1_000_000,
            kind=kind,
            unsaid=self._unsaid.pop(kind, 0),
        )


def measured_pieces() -> Pieces:
    """Return pieces that are measured in whichever thread asks: the reactor's."""
    told = LongPieces(time.monotonic_ns, os.environ.get(FILE_VARIABLE, ""))
    return Pieces(time.thread_time_ns, time.monotonic_ns, told.report)


def watch_collections(pieces: Pieces) -> None:
    """Count garbage collections of this very thread; those of others are not its work."""
    own = threading.get_ident()
    begun: list[int] = []

    def collecting(phase: str, info: Mapping[str, int]) -> None:
        if threading.get_ident() != own:
            return
        if phase == "start":
            begun.append(pieces.begin())
        elif begun:
            pieces.collection_ended(begun.pop())

    gc.callbacks.append(collecting)
