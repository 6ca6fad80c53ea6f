"""Applies that took too long: noted while a turn runs, logged once at its end, without values.

Looked at once for each slice of entries, never for each request.  The message is etcd's, and so are
the fields that it has: tools look for them.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from etcdtw.apply.applier import NAMES
from etcdtw.node.intake.requests import Waiter
from etcdtw.raft.entry import Entry


class Slowness:
    """The slow applies of one member.

    ``apply_s``: what is longer is slow (--warning-apply-duration).
    """

    log = Logger()

    def __init__(self, apply_s: float) -> None:
        self.apply_s = apply_s
        self.slow_applies_total = 0
        self.has_news = False
        self._apply: tuple[float, Sequence[Entry], str] | None = None

    def applied(self, took_s: float, entries: Sequence[Entry], oldest: Waiter | None) -> None:
        """A slice of entries took longer than ``apply_s``."""
        self.slow_applies_total += 1
        self.has_news = True
        if self._apply is None or took_s > self._apply[0]:
            what = "" if oldest is None else NAMES[oldest.field]
            self._apply = (took_s, entries, what)

    def report(self) -> None:
        """Log the slowest since the last report."""
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
        self._apply = None


def _shown(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
