"""Watchers that asked for it are told now and then how far they are, while nothing happens."""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.mvcc.watch.bounds import PROGRESS_INTERVAL_MS_MIN, REPORTED_MAX
from etcdtw.mvcc.watch.stream import Watcher, WatchStream


class ProgressTicks:
    """The ticks of all streams of a member, each at times of its own.

    ``random_unit``: returns a number in [0, 1).
    """

    def __init__(self, interval_ms: int, random_unit: Callable[[], float]) -> None:
        self._interval_ms = max(interval_ms, PROGRESS_INTERVAL_MS_MIN)
        self._random_unit = random_unit
        self._streams: dict[WatchStream, None] = {}
        self._due_ms = 0
        self._reporting: list[tuple[WatchStream, list[Watcher]]] = []

    @property
    def is_idle(self) -> bool:
        """Whether no stream ever ticks."""
        return not (self._streams or self._reporting)

    @property
    def has_reports(self) -> bool:
        """Whether `report` has something to do."""
        return bool(self._reporting)

    def expect(self, stream: WatchStream, now_ms: int) -> None:
        """A stream has a watcher that wants progress: tick from now on, with jitter."""
        if stream in self._streams:
            return
        jitter_ms = int(self._random_unit() * self._interval_ms / 10)
        stream.progress_due_ms = now_ms + self._interval_ms + jitter_ms
        if not self._streams or stream.progress_due_ms < self._due_ms:
            self._due_ms = stream.progress_due_ms
        self._streams[stream] = None

    def forget(self, stream: WatchStream) -> None:
        self._streams.pop(stream, None)

    def tick(self, now_ms: int) -> None:
        """Line up the streams whose time it is."""
        if not self._streams or now_ms < self._due_ms:
            return
        for stream in self._streams:
            if stream.progress_due_ms <= now_ms:
                stream.progress_due_ms = now_ms + self._interval_ms
                self._reporting.append((stream, list(stream.watchers.values())))
        self._due_ms = min([stream.progress_due_ms for stream in self._streams])

    def report(self, head: bytes, current: int) -> None:
        """Report on some of the watchers in line, which were told of all up to ``current``."""
        left = REPORTED_MAX
        while self._reporting and left > 0:
            stream, watchers = self._reporting[-1]
            some = watchers[-left:]
            del watchers[-left:]
            left -= len(some)
            if not watchers:
                self._reporting.pop()
            if stream.is_open:
                stream.report_progress(head, current, some)
