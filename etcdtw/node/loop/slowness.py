"""What took too long: noted while a turn runs, logged once at its end, without values.

Looked at once for each slice of entries and for each turn's reads, never for each request: the
first request of a slice is its oldest, so if that one was quick all were.  The messages are
etcd's, and so are the fields that it has: tools look for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from twisted.logger import Logger

from etcdtw.apply.applier import NAMES
from etcdtw.node.intake.requests import Waiter
from etcdtw.node.no_call import NoCall
from etcdtw.raft.entry import Entry

READ: Final = "linearizable read"


class Slowness:
    """The slow applies and requests of one member.

    ``apply_s``, ``request_s``: what is longer is slow (--warning-apply-duration and
    --warning-unary-request-duration).
    """

    log = Logger()

    def __init__(self, apply_s: float, request_s: float) -> None:
        self.apply_s = apply_s
        self.request_s = request_s
        self.slow_applies_total = 0
        self.has_news = False
        self._apply: tuple[float, Sequence[Entry], str] | None = None
        self._request: tuple[float, str, int] | None = None

    def applied(self, took_s: float, entries: Sequence[Entry], oldest: Waiter | None) -> None:
        """A slice of entries took longer than ``apply_s``."""
        self.slow_applies_total += 1
        self.has_news = True
        if self._apply is None or took_s > self._apply[0]:
            what = "" if oldest is None else NAMES[oldest.field]
            self._apply = (took_s, entries, what)

    def answered(self, took_s: float, oldest: Waiter | None) -> None:
        """A request was answered after more than ``request_s``; None: a read.

        What the member asks of itself while it waits for the others is nobody's loss.
        """
        if oldest is not None and isinstance(oldest.call, NoCall):
            return
        self.has_news = True
        if self._request is None or took_s > self._request[0]:
            what, size = (READ, 0) if oldest is None else (NAMES[oldest.field], len(oldest.data))
            self._request = (took_s, what, size)

    def report(self) -> None:
        """Log the slowest of each kind since the last report."""
        self.has_news = False
        if self._apply is not None:
            took_s, entries, what = self._apply
            self.log.warn(
                "apply request took too long",
                **{
                    "took": _shown(took_s),
                    "expected-duration": _shown(self.apply_s),
                    "first request": what or "another member's",
                    "entries": len(entries),
                    "index": entries[0].index,
                    "size": sum(len(entry.data) for entry in entries),
                },
            )
        if self._request is not None:
            took_s, what, size = self._request
            self.log.warn(
                "request stats",  # of the oldest of those that were answered together
                **{
                    "time spent": _shown(took_s),
                    "expected-duration": _shown(self.request_s),
                    "request": what,
                    "request size": size,
                },
            )
        self._apply = self._request = None


def _shown(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
