"""Closed generations on their way to the writer, oldest first, and the remains of durable ones.

The writer gets one generation ahead of the one it commits and no more: what waits behind that
would lie packed in a socket's queue a second time.  Knows no LMDB and no fences.
"""

from __future__ import annotations

from typing import Final

from etcdtw.storage.overlay import MISSING, SEND_CHANGES_MAX, Generation, Missing
from etcdtw.storage.state_feed import StateWriter
from etcdtw.storage.state_tables import Batch, pack_changes
from etcdtw.storage.state_worker import ATTACHMENTS, CHANGES, COMMIT

AHEAD_MAX: Final = 1  # generations that the writer gets beside the one it commits
BURY_SENT_ROWS: Final = 4 * SEND_CHANGES_MAX  # rows freed when a message is due: keeps ahead
BURY_TICK_ROWS: Final = 16_384  # rows freed at a tick: about 3 ms


class GenerationQueue:
    """Only here does a generation leave the overlay: after the writer confirmed it.

    Invariants: numbers ascend by one; the writer has all of the first ``1 + AHEAD_MAX``
    generations, counting the open one, as far as `stream` was called, and nothing of the others.
    """

    def __init__(self, writer: StateWriter) -> None:
        self._writer = writer
        self.generations: list[Generation] = []
        """The closed ones, oldest first."""
        self._batches: list[Batch] = []  # one for each
        self._retired: list[Generation] = []

    # What reads see.

    def record(self, key: bytes) -> bytes | Missing | None:
        """Return the newest record of ``key``; None: deleted; MISSING: not changed here."""
        for generation in reversed(self.generations):
            record = generation.current.get(key, MISSING)
            if not isinstance(record, Missing):
                return record
        return MISSING

    def version_at(self, key: bytes, revision: int) -> bytes | Missing | None:
        """Return the record as of ``revision``; None: deleted then; MISSING: not changed here."""
        for generation in reversed(self.generations):
            record = generation.version_at(key, revision)
            if not isinstance(record, Missing):
                return record
        return MISSING

    def between(self, start: bytes, end: bytes | None, found: dict[bytes, bytes | None]) -> None:
        """Add to ``found`` every changed key in ``[start, end)`` with its newest record."""
        for generation in self.generations:
            generation.between(start, end, found)

    @property
    def octets(self) -> int:
        """What counts for the bound of the overlay."""
        return sum(generation.octets - generation.excused for generation in self.generations)

    @property
    def newest_number(self) -> int:
        return self.generations[-1].number

    @property
    def newest_index(self) -> int:
        """The applied index that is durable once all of them are; 0: there is none."""
        return self._batches[-1].index if self._batches else 0

    # On the way.

    def stream(self, generation: Generation) -> None:
        """Hand the writer what it has not seen of the open generation, if its turn has come."""
        if self._retired:
            self.bury(BURY_SENT_ROWS)
        if len(self.generations) <= AHEAD_MAX:
            self._send_changes(generation)

    def close(self, generation: Generation, batch: Batch) -> None:
        """Take the open generation, now closed, and the end of it."""
        self.generations.append(generation)
        self._batches.append(batch)
        if len(self.generations) <= 1 + AHEAD_MAX:
            self._send_all(len(self.generations) - 1)

    def confirm(self, number: int) -> tuple[Generation, Batch]:
        """Drop the oldest one, which is durable now; `advance` is to follow."""
        generation, batch = self.generations.pop(0), self._batches.pop(0)
        assert generation.number == number, "an answer out of order"
        self._retired.append(generation)
        return generation, batch

    def advance(self) -> None:
        """Hand the writer the generation whose turn has come by a confirmation."""
        if len(self.generations) > AHEAD_MAX:
            self._send_all(AHEAD_MAX)

    def bury(self, rows: int) -> None:
        """Free some of what is durable: a whole generation at once would take tens of ms."""
        if self._retired and self._retired[0].bury(rows):
            self._retired.pop(0)

    def _send_changes(self, generation: Generation) -> None:
        """Nothing of it is committed before its end."""
        changes = generation.changes
        while generation.sent < len(changes):
            behind = generation.sent + SEND_CHANGES_MAX
            self._writer.send((CHANGES, pack_changes(changes[generation.sent : behind])))
            generation.sent = min(behind, len(changes))
        if len(generation.attachments) >= SEND_CHANGES_MAX:
            self._writer.send((ATTACHMENTS, generation.attachments))
            generation.attachments = []

    def _send_all(self, position: int) -> None:
        generation = self.generations[position]
        self._send_changes(generation)
        batch = self._batches[position]
        batch.attached = generation.attachments
        self._writer.send((COMMIT, generation.number, *batch.as_tuple()))
