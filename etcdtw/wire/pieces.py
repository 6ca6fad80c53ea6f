"""What the reactor's thread is busy with: pieces of work, by kind, as CPU time and as wall time.

A piece is what runs without going back to the reactor; while it does nobody else is served.  None
may take longer than `BUDGET_S`, whatever was asked: long work yields (ADR 11).  Knows no clock:
both are passed in.  Garbage collections within a piece are a kind of their own and no part of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.wire.histogram import Histogram

BUDGET_S: Final = 0.010
"""What one piece may take; then it yields, or has ended."""
WARNING_NS: Final = 25_000_000
"""CPU time of a piece from which on it is reported."""
SHORT_NS: Final = 1_000_000
"""The first of `PIECE_BOUNDS_S`."""
LOOK_NS: Final = 2_000_000
"""How old the last look at the CPU time may be when a piece begins: by so much a long one may be
told too long, but never longer than the time that passed."""
PIECE_BOUNDS_S: Final[tuple[float, ...]] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

TURN: Final = "turn"
"""A whole turn; its phases are `PROPOSE` to `FLUSH`."""
PROPOSE: Final = "propose"
APPEND: Final = "append"
APPLY: Final = "apply"
LONG_ENTRY: Final = "long_entry"
READS: Final = "reads"
WATCHES: Final = "watches"
LEASES: Final = "leases"
"""A part of a promotion, or of a list of all leases."""
FLUSH: Final = "flush"
OCTETS: Final = "octets"
"""What a client's connection received, requests that are answered at once included."""
PEER_OCTETS: Final = "peer_octets"
SLICE: Final = "slice"
"""A part of an answer that is too large for one piece, or what else a service left for later."""
STATE: Final = "state"
"""What the state's writer answers, and what it is given then."""
DUTIES: Final = "duties"
COLLECTION: Final = "collection"
"""A garbage collection."""
KINDS: Final = (
    TURN,
    PROPOSE,
    APPEND,
    APPLY,
    LONG_ENTRY,
    READS,
    WATCHES,
    LEASES,
    FLUSH,
    OCTETS,
    PEER_OCTETS,
    SLICE,
    STATE,
    DUTIES,
    COLLECTION,
)

Report = Callable[[str, int, int], None]
"""Told of a piece that took too long: its kind, CPU time and wall time in ns."""


def _zero() -> int:
    return 0


def _nobody(kind: str, cpu_ns: int, wall_ns: int) -> None:
    pass


class Tally:
    """The pieces of one kind.  Short ones, which nearly all are, cost three additions each."""

    __slots__ = ("cpu_s", "greatest_ns", "short_count", "short_ns", "wall_s")

    def __init__(self) -> None:
        self.cpu_s = Histogram(PIECE_BOUNDS_S)
        self.wall_s = Histogram(PIECE_BOUNDS_S)
        self.greatest_ns = 0
        self.short_count = 0
        self.short_ns = 0

    def settle(self) -> Tally:
        """Count the short pieces, which were only added up."""
        for histogram in (self.cpu_s, self.wall_s):
            histogram.counts[0] += self.short_count
            histogram.total += self.short_ns / 1e9
        self.short_count = self.short_ns = 0
        return self


class Pieces:
    """The pieces of one process.  Pieces may lie within others.

    ``cpu_ns``: CPU time of the reactor's thread; ``wall_ns``: a monotonic time.  Without them
    nothing takes any time.
    """

    def __init__(
        self,
        cpu_ns: Callable[[], int] = _zero,
        wall_ns: Callable[[], int] = _zero,
        report: Report = _nobody,
        warning_ns: int = WARNING_NS,
    ) -> None:
        self._cpu_ns = cpu_ns
        self._wall_ns = wall_ns
        self._report = report
        self._warning_ns = warning_ns
        self._begun: list[tuple[int, int]] = []
        # The last look at the CPU time, and when that was: it costs ten looks at the wall clock.
        self._seen_cpu_ns = 0
        self._seen_wall_ns = -LOOK_NS
        self._collected_cpu_ns = 0
        self._collected_wall_ns = 0
        self._tallies: dict[str, Tally] = {kind: Tally() for kind in KINDS}

    @property
    def cpu_s(self) -> dict[str, Histogram]:
        """CPU time, by kind."""
        return {kind: tally.settle().cpu_s for kind, tally in self._tallies.items()}

    @property
    def wall_s(self) -> dict[str, Histogram]:
        """Wall time, by kind."""
        return {kind: tally.settle().wall_s for kind, tally in self._tallies.items()}

    @property
    def greatest_ns(self) -> dict[str, int]:
        """CPU time of the longest piece of each kind."""
        return {kind: tally.greatest_ns for kind, tally in self._tallies.items()}

    def begin(self) -> int:
        """A piece begins; give what is returned to `end`."""
        wall_ns = self._wall_ns()
        if wall_ns - self._seen_wall_ns >= LOOK_NS:
            self._seen_wall_ns = wall_ns
            self._seen_cpu_ns = self._cpu_ns()
        begun = self._begun
        begun.append(
            (
                self._seen_cpu_ns - self._collected_cpu_ns,
                wall_ns - self._collected_wall_ns,
            )
        )
        return len(begun)

    def used_s(self, piece: int) -> float:
        """Return the CPU time so far of a piece that goes on.  A look at it is a system call."""
        began_cpu_ns, began_wall_ns = self._begun[piece - 1]
        now_ns = self._wall_ns()
        wall_ns = now_ns - self._collected_wall_ns - began_wall_ns
        return min(self._cpu_since(began_cpu_ns, now_ns), wall_ns) / 1e9

    def end(self, piece: int, kind: str) -> None:
        """It has ended; those within it that an exception cut short are forgotten."""
        begun = self._begun
        if len(begun) > piece:
            del begun[piece:]
        began_cpu_ns, began_wall_ns = begun.pop()
        now_ns = self._wall_ns()
        wall_ns = now_ns - self._collected_wall_ns - began_wall_ns
        if wall_ns < SHORT_NS:
            # No longer than that in CPU time either; nearly all are so short.
            tally = self._tallies[kind]
            tally.short_count += 1
            tally.short_ns += wall_ns
            if wall_ns > tally.greatest_ns:
                tally.greatest_ns = wall_ns
            return
        self._note(kind, self._cpu_since(began_cpu_ns, now_ns), wall_ns)

    def collection_ended(self, piece: int) -> None:
        """A garbage collection that `begin` was called for has ended."""
        began_cpu_ns, began_wall_ns = self._begun[piece - 1]
        del self._begun[piece - 1 :]
        now_ns = self._wall_ns()
        wall_ns = now_ns - self._collected_wall_ns - began_wall_ns
        cpu_ns = min(self._cpu_since(began_cpu_ns, now_ns), wall_ns)
        self._collected_cpu_ns += cpu_ns
        self._collected_wall_ns += wall_ns
        self._note(COLLECTION, cpu_ns, wall_ns)

    def _cpu_since(self, began_cpu_ns: int, now_ns: int) -> int:
        self._seen_cpu_ns = self._cpu_ns()
        self._seen_wall_ns = now_ns
        return self._seen_cpu_ns - self._collected_cpu_ns - began_cpu_ns

    def _note(self, kind: str, cpu_ns: int, wall_ns: int) -> None:
        cpu_ns = min(cpu_ns, wall_ns)
        tally = self._tallies[kind]
        tally.cpu_s.observe(cpu_ns / 1e9)
        tally.wall_s.observe(wall_ns / 1e9)
        tally.greatest_ns = max(tally.greatest_ns, cpu_ns)
        if cpu_ns > self._warning_ns:
            self._report(kind, cpu_ns, wall_ns)


UNMEASURED: Final = Pieces()
"""For those whom nobody measures: tests, tools."""
