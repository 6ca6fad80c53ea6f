"""Closed generations on their way to the writer, oldest first, and the remains of durable ones.

The writer gets one generation ahead of the one it commits and no more: what waits behind that
would lie packed in a socket's queue a second time.  Knows no LMDB and no fences.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from etcdtw.storage.rows.tables import Batch, pack_changes
from etcdtw.storage.state.overlay import (
    CHANGE_OVERHEAD,
    MISSING,
    SEND_CHANGES_MAX,
    SEND_OCTETS_MAX,
    Generation,
    Missing,
    Remains,
)
from etcdtw.storage.writer.feed import StateWriter
from etcdtw.storage.writer.worker import ATTACHMENTS, BUCKET_ROWS, CHANGES, COMMIT

AHEAD_MAX: Final = 1  # generations that the writer gets beside the one it commits
PIECE_OCTETS: Final = 2 * SEND_OCTETS_MAX
"""About what goes to the writer in one piece of work: a whole generation may wait for its turn."""
UNSORTED_MAX: Final = 2  # closed ones whose keys are in no order, besides the open one
BURY_SENT_ROWS: Final = 4 * SEND_CHANGES_MAX  # rows freed when a message is due: keeps ahead
BURY_TICK_ROWS: Final = 16_384  # rows freed at a tick: about 3 ms


class GenerationQueue:
    """Only here does a generation leave the overlay: after the writer confirmed it.

    Invariants: numbers ascend by one; what the writer gets is of the first ``1 + AHEAD_MAX``
    generations, counting the open one, in order, each whole before anything of the next.  It has
    the ends of the first `_ended`.
    """

    def __init__(self, writer: StateWriter) -> None:
        self._writer = writer
        self.generations: list[Generation] = []
        """The closed ones, oldest first."""
        self._batches: list[Batch] = []  # one for each
        self._retired: list[Generation | Remains] = []
        self._ended = 0
        self._is_going_on = False  # `_go_on` is about to be called
        self._is_stopped = False

    # What reads see.

    def record(self, key: bytes, seen: Generation) -> bytes | Missing | None:
        """Return the newest record of ``key``; None: deleted; MISSING: not changed here.

        ``seen``: the generation above; its ``current`` does not have the key.
        """
        if seen.full:
            record = seen.older(key)
            if not isinstance(record, Missing):
                return record
        for generation in reversed(self.generations):
            record = generation.current.get(key, MISSING)
            if not isinstance(record, Missing):
                return record
            if generation.full:
                record = generation.older(key)
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
    def newest_index(self) -> int:
        """The applied index that is durable once all of them are; 0: there is none."""
        return self._batches[-1].index if self._batches else 0

    # On the way.

    def stream(self, generation: Generation) -> None:
        """Hand the writer what it has not seen of the open generation, if its turn has come.

        At least every `SEND_CHANGES_MAX` changes.
        """
        generation.go_on()
        if self._retired:
            self.bury(BURY_SENT_ROWS)
        if self._ended == len(self.generations) <= AHEAD_MAX:
            self._send_some(generation, PIECE_OCTETS)

    def close(self, generation: Generation, batch: Batch) -> None:
        """Take the open generation, now closed, and the end of it.

        While more than one wait for the writer, its keys are put in order now: a range would
        otherwise have to do that for all of them at once, 1.5 ms each.
        """
        if len(self.generations) >= UNSORTED_MAX:
            generation.part.sort_fresh()
        self.generations.append(generation)
        self._batches.append(batch)
        self.advance()

    def confirm(self, number: int) -> tuple[Generation, Batch]:
        """Drop the oldest one, which is durable now; `advance` is to follow."""
        generation, batch = self.generations.pop(0), self._batches.pop(0)
        assert generation.number == number, "an answer out of order"
        self._ended -= 1
        self._retired.append(generation)
        return generation, batch

    def advance(self) -> None:
        """Hand the writer what has its turn: a piece now, the next when others were served."""
        if not (self._is_going_on or self._is_stopped or self._send(PIECE_OCTETS)):
            self._is_going_on = True
            self._writer.soon(self._go_on)

    def _go_on(self) -> None:
        self._is_going_on = False
        self.advance()

    def finish(self) -> None:
        """Hand over, at once, all whose turn has come: the writer is about to be closed."""
        while not (self._is_stopped or self._send(PIECE_OCTETS)):
            pass

    def stop(self) -> None:
        """Hand over nothing more: another state is to be adopted."""
        self._is_stopped = True

    def let_go(self, items: list[Any]) -> None:
        """Free ``items`` behind what is durable, and no faster."""
        self._retired.append(Remains(items))

    def bury(self, rows: int) -> None:
        """Free some of what is durable: a whole generation at once would take tens of ms."""
        if self._retired and self._retired[0].bury(rows):
            self._retired.pop(0)

    def _send(self, left: int) -> bool:
        """Send about ``left`` octets of the closed ones; True: all whose turn has come are sent."""
        while self._ended < min(len(self.generations), 1 + AHEAD_MAX):
            generation = self.generations[self._ended]
            left = self._send_some(generation, left)
            if generation.sent < len(generation.changes) or (
                max(len(generation.attachments), len(generation.bucket_rows)) >= SEND_CHANGES_MAX
            ):
                return False
            batch = self._batches[self._ended]
            batch.attached = generation.attachments
            batch.buckets = generation.bucket_rows
            self._ended += 1  # before the answer, which a writer in this process gives at once
            self._writer.send((COMMIT, generation.number, *batch.as_tuple()))
        return True

    def _send_some(self, generation: Generation, left: int) -> int:
        """Send changes, attachments and rows of buckets; return what is left of ``left`` octets.

        Less than 0 if the last of them were more.

        Nothing of it is committed before its end.
        """
        changes = generation.changes
        count = len(changes)
        octets = generation.octets - generation.octets_sent
        if count - generation.sent <= SEND_CHANGES_MAX and octets <= SEND_OCTETS_MAX:
            if generation.sent < count:
                rest = pack_changes(changes[generation.sent :])
                generation.sent = count
                left -= octets
                self._writer.send((CHANGES, rest))
        else:
            while generation.sent < count and left > 0:
                left -= self._send_message(generation)
        if generation.sent == count:
            generation.octets_sent = generation.octets
        left = self._send_whole(ATTACHMENTS, generation.attachments, left)
        return self._send_whole(BUCKET_ROWS, generation.bucket_rows, left)

    def _send_whole(self, kind: str, rows: list[Any], left: int) -> int:
        """Send the whole messages of ``rows`` and forget them; what is left over goes at the end.

        Each row is three values, the second its key.
        """
        while len(rows) >= SEND_CHANGES_MAX and left > 0:
            some = rows[:SEND_CHANGES_MAX]
            del rows[:SEND_CHANGES_MAX]
            self._writer.send((kind, some))
            for _, key, value in some:
                left -= len(key) + CHANGE_OVERHEAD
                if isinstance(value, bytes):
                    left -= len(value)
        return left

    def _send_message(self, generation: Generation) -> int:
        """Send one message of changes; return its octets."""
        changes = generation.changes
        behind = generation.sent
        end = min(behind + SEND_CHANGES_MAX, len(changes))
        octets = 0
        while behind < end and octets < SEND_OCTETS_MAX:
            change = changes[behind]
            record = change[3]
            octets += len(change[2]) + CHANGE_OVERHEAD
            if record is not None:
                octets += len(record)
            behind += 1
        some = pack_changes(changes[generation.sent : behind])
        generation.sent = behind
        self._writer.send((CHANGES, some))
        return octets


class Flushes:
    """Who waits for a generation to be durable."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Callable[[], None]]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def wait(self, generation: Generation, done: Callable[[], None]) -> None:
        """Call ``done`` when it is durable, and its compactions up to now are ordered."""
        compaction = generation.compactions[-1] if generation.compactions else 0
        self._waiting.append((generation.number, compaction, done))

    def confirm(self, generation: Generation, compact: Callable[[int], None]) -> None:
        """It is durable: ``compact`` its compactions, and tell who waits, in the order asked.

        A hash is of what a compaction deletes when it was asked for before that, and not if later.
        """
        due = [item for item in self._waiting if item[0] <= generation.number]
        self._waiting = [item for item in self._waiting if item[0] > generation.number]
        for _, compaction, done in due:
            if compaction not in generation.compactions:
                done()
        for revision in generation.compactions:
            compact(revision)
            for _, compaction, done in due:
                if compaction == revision:
                    done()

    def take(self) -> list[Callable[[], None]]:
        """Return who waits; nobody does any more."""
        waiting, self._waiting = self._waiting, []
        return [done for _, _, done in waiting]
