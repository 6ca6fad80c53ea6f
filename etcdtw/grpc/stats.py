"""Counters of calls, plain ints per method; whoever exposes them reads them when asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.grpc.call import BIDI_STREAM, SERVER_STREAM, UNARY, Method, MethodTable
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.grpc.inflating import InflateQueue
from etcdtw.wire.histogram import Histogram

CODES_COUNT: Final = 17

UNFINISHED_CONNECTION_MAX: Final = 128 * 1024 * 1024
"""Octets of requests on their way that one connection may have us hold."""
UNFINISHED_MAX: Final = 512 * 1024 * 1024
"""The same for all connections together."""

UNREAD_MAX: Final = 512 * 1024 * 1024
"""Octets of answers held for all clients of a member that do not read them.

Two dozen of the slowest honest clients fit beside each other."""

KIND_NAMES: Final = {
    UNARY: "unary",
    SERVER_STREAM: "server_stream",
    BIDI_STREAM: "bidi_stream",
}
"""As the label ``grpc_type`` spells them."""


HANDLING_BOUNDS_S: Final[tuple[float, ...]] = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Those of Prometheus' client for Go."""


Ended = Callable[[str, int, Caller], None]
"""Told of the end of a unary call: its method's path, how long it took in ms, and who made it."""


class Handling:
    """How long calls took, for who wants to know (``--metrics=extensive``, and log lines)."""

    __slots__ = ("_now_ms", "_on_ended", "_path", "seconds")

    def __init__(
        self, now_ms: Callable[[], int], path: str = "", on_ended: Ended | None = None
    ) -> None:
        """``now_ms``: the clock by which deadlines of calls are told."""
        self._now_ms = now_ms
        self._path = path
        self._on_ended = on_ended
        self.seconds = Histogram(HANDLING_BOUNDS_S)

    def ended(self, started_ms: int, caller: Caller = NOBODY_KNOWN) -> None:
        """A call has ended."""
        took_ms = max(0, self._now_ms() - started_ms)
        self.seconds.observe(took_ms / 1000)
        if self._on_ended is not None:
            self._on_ended(self._path, took_ms, caller)


class MethodStats:
    """What happened to the calls of one method, on all connections, since the start.

    ``handled[code]`` counts ended calls; ``started - sum(handled)`` are under way.
    ``*_octets`` count message bodies without prefixes and frames.  ``handling`` None: nobody asks
    how long they took.
    """

    __slots__ = (
        "handled",
        "handling",
        "kind",
        "path",
        "received",
        "received_octets",
        "sent",
        "sent_octets",
        "started",
    )

    def __init__(self, path: str, kind: int) -> None:
        self.path = path
        self.kind = kind
        self.started = 0
        self.handled = [0] * CODES_COUNT
        self.handling: Handling | None = None
        self.received = 0
        self.received_octets = 0
        self.sent = 0
        self.sent_octets = 0

    def add(self, other: MethodStats) -> None:
        """Add the counts of ``other``."""
        self.started += other.started
        self.handled = [a + b for a, b in zip(self.handled, other.handled, strict=True)]
        self.received += other.received
        self.received_octets += other.received_octets
        self.sent += other.sent
        self.sent_octets += other.sent_octets


class ServerStats:
    """The `MethodStats` of a server, shared by all its connections."""

    def __init__(
        self,
        *,
        unfinished_max: int = UNFINISHED_MAX,
        unfinished_connection_max: int = UNFINISHED_CONNECTION_MAX,
    ) -> None:
        self._methods: dict[tuple[str, str], MethodStats] = {}
        self._handling: dict[str, Handling] = {}
        self._now_ms: Callable[[], int] | None = None
        self._is_measured = False
        self._on_ended: Ended | None = None
        self._untold: frozenset[str] = frozenset()
        self.unfinished_max = unfinished_max
        self.unfinished_connection_max = unfinished_connection_max
        self.inflations = InflateQueue()
        """What compressed requests still have to be inflated, on all connections."""
        self.unfinished_octets = 0
        """Octets of requests that have begun to arrive, on all connections, now; and of what is
        kept for calls that go on: their header fields, the keys that they watch."""
        self.unread_max = UNREAD_MAX
        self.unread_octets = 0
        """Octets of answers that are made and not written yet, on all connections, now."""
        self.on_unread: Callable[[], None] | None = None
        """Called before an answer is kept that goes beyond `unread_max`: whoever owns the
        connections drops some (`CallServer.discard`)."""

    def of(self, method: Method, label: str = "") -> MethodStats:
        """Return the counters of ``method`` for the callers of one label of the screen.

        Made on first use; bounded by the method table and the labels.
        """
        key = (method.path, label)
        stats = self._methods.get(key)
        if stats is None:
            stats = self._methods[key] = MethodStats(method.path, method.kind)
            now_ms = self._now_ms
            on_ended = self._on_ended
            if method.kind != UNARY or method.path in self._untold:
                on_ended = None
            if now_ms is not None and (self._is_measured or on_ended is not None):
                handling = Handling(now_ms, method.path, on_ended)
                stats.handling = self._handling.setdefault(method.path, handling)
        return stats

    def measure(self, now_ms: Callable[[], int]) -> None:
        """Find out how long calls take; to be said before any is counted."""
        assert not self._methods, "calls were counted"
        self._now_ms = now_ms
        self._is_measured = True

    def tell(self, now_ms: Callable[[], int], on_ended: Ended, untold: frozenset[str]) -> None:
        """Tell of unary calls that end, but for those of the methods ``untold``, which cost
        nothing; to be said before any is counted."""
        assert not self._methods, "calls were counted"
        self._now_ms = now_ms
        self._on_ended = on_ended
        self._untold = untold

    @property
    def is_measured(self) -> bool:
        return self._is_measured

    def handling_s(self, path: str) -> Histogram | None:
        """Return how long the calls of one method took; None: it has not been called."""
        found = self._handling.get(path)
        return None if found is None else found.seconds

    def prepare(self, methods: MethodTable) -> None:
        """Let every method of the table count from zero, used or not."""
        for path in methods.paths():
            method = methods.find(path.encode())
            assert method is not None
            self.of(method)

    def methods(self) -> list[MethodStats]:
        """Return the counters of each method over all labels, in the order of first use.

        To be read at once: those that one label has are the live ones.
        """
        found: dict[str, MethodStats] = {}
        sums: set[str] = set()
        for (path, _), stats in self._methods.items():
            before = found.get(path)
            if before is None:
                found[path] = stats
                continue
            if path not in sums:
                sums.add(path)
                found[path] = MethodStats(path, stats.kind)
                found[path].add(before)
            found[path].add(stats)
        return list(found.values())

    def started_by_label(self) -> dict[tuple[int, str], int]:
        """Return how many calls were started, by (kind of method, label)."""
        found: dict[tuple[int, str], int] = {}
        for (_, label), stats in self._methods.items():
            key = (stats.kind, label)
            found[key] = found.get(key, 0) + stats.started
        return found
