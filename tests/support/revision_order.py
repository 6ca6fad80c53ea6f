"""Is a history of clients linearizable?  Revisions make the answer cheap (O(n log n)).

Every write of etcd has a revision, and a watch from the beginning tells the whole log: what each
revision changed.  So nothing has to be searched for.  What must hold (reliability.md, 4.3):

- an acknowledged write stands in the log, whole and alone, at the revision that was told;
- a write of unknown outcome stands there whole and once, or never;
- nothing else stands there;
- an operation that began after another had ended has a revision not below that one's, and a
  write a higher one;
- a read tells the state that the log gives at the revision of its answer; so does a compare.

Knows no connection and no clock: times are numbers of one clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

PROBLEMS_MAX: Final = 20  # of one check; what parted once differs everywhere

Change = tuple[bytes, bytes | None]  # a key and its value, None when it was deleted


@dataclass(slots=True)
class Write:
    """A write that a client made.  ``revision`` is 0 when its outcome is unknown.

    Every value is written once in a history; a write that only deletes has no value, and when
    its outcome is unknown any delete of its keys may be it.  ``expected`` is what a compare
    demanded of keys (None: absent) before the write; `CompareFailed` is how a refusal is noted.
    """

    call_s: float
    return_s: float
    changes: Sequence[Change]
    revision: int
    expected: Sequence[Change] = ()
    who: str = ""


@dataclass(slots=True)
class CompareFailed:
    """A txn whose compare was refused at ``revision``: one of ``expected`` was not so."""

    call_s: float
    return_s: float
    expected: Sequence[Change]
    revision: int
    who: str = ""


@dataclass(slots=True)
class Read:
    """A read of one key: the value (None: absent) and its mod_revision, at ``revision``.

    One that is not linearizable may tell any past, but one that was.
    """

    call_s: float
    return_s: float
    key: bytes
    value: bytes | None
    mod_revision: int
    revision: int
    is_linearizable: bool = True
    who: str = ""


Operation = Write | CompareFailed | Read


@dataclass(slots=True)
class LogEntry:
    """All that one revision changed, as a watch told it."""

    revision: int
    changes: list[Change] = field(default_factory=list)


class RevisionOrderChecker:
    """Takes a history in stretches: the operations that ended, and the log since the last one.

    Between two stretches no operation may be under way, but the writes of unknown outcome: they
    stay open and may stand anywhere later in the log.
    """

    def __init__(self) -> None:
        self.revision = 1  # up to which the log is known
        self.problems: list[str] = []
        self.open_writes: dict[bytes, Write] = {}  # of unknown outcome, by each of their values
        self._open_deletes: dict[bytes, list[Write]] = {}  # of unknown outcome, by their key
        self._histories: dict[bytes, tuple[list[int], list[bytes | None]]] = {}
        self._floor = 0  # the highest revision that was told so far
        self.resolved = 0  # writes of unknown outcome that were found in the log

    def check(self, operations: Sequence[Operation], log: Iterable[LogEntry]) -> list[str]:
        """Check one stretch and return what is wrong with it."""
        problems_before = len(self.problems)
        entries = self._take_log(log)
        claimed = self._check_writes(operations, entries)
        self._check_unclaimed(entries, claimed)
        self._check_order(operations)
        for operation in operations:
            if isinstance(operation, Read):
                self._check_read(operation)
            elif operation.revision:
                self._check_compare(operation)
        return self.problems[problems_before:]

    def forget_below(self, revision: int) -> None:
        """Drop what was overwritten at or below ``revision`` (it has been compacted)."""
        for key, (revisions, values) in list(self._histories.items()):
            cut = bisect_right(revisions, revision) - 1
            if cut > 0:
                self._histories[key] = (revisions[cut:], values[cut:])

    def value_at(self, key: bytes, revision: int) -> tuple[bytes | None, int]:
        """Return the value of ``key`` at ``revision`` and its mod_revision: (None, 0) if absent."""
        revisions, values = self._histories.get(key, ([], []))
        at = bisect_right(revisions, revision) - 1
        if at < 0 or values[at] is None:
            return None, 0
        return values[at], revisions[at]

    def _complain(self, text: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(text)

    # -- the log -------------------------------------------------------------------------------

    def _take_log(self, log: Iterable[LogEntry]) -> dict[int, LogEntry]:
        entries: dict[int, LogEntry] = {}
        for entry in log:
            if entry.revision != self.revision + 1:
                self._complain(f"the log goes from revision {self.revision} to {entry.revision}")
            self.revision = max(self.revision, entry.revision)
            entries[entry.revision] = entry
            for key, value in entry.changes:
                revisions, values = self._histories.setdefault(key, ([], []))
                revisions.append(entry.revision)
                values.append(value)
        return entries

    def _check_writes(
        self, operations: Sequence[Operation], entries: dict[int, LogEntry]
    ) -> set[int]:
        """Find every acknowledged write in the log; returns the revisions that are explained."""
        claimed: dict[int, Write] = {}
        for write in operations:
            if not isinstance(write, Write):
                continue
            if not write.revision:
                self._open(write)
                continue
            entry = entries.get(write.revision)
            if entry is None:
                self._complain(f"LOST: {write} is not in the log")
            elif sorted(entry.changes, key=_by_key) != sorted(write.changes, key=_by_key):
                self._complain(f"WRONG: {write} is in the log as {entry.changes}")
            elif write.revision in claimed:
                self._complain(f"TWO at one revision: {write} and {claimed[write.revision]}")
            claimed[write.revision] = write
        return set(claimed)

    def _open(self, write: Write) -> None:
        values = [value for _, value in write.changes if value is not None]
        for value in values:
            self.open_writes[value] = write
        if not values:
            for key, _ in write.changes:
                self._open_deletes.setdefault(key, []).append(write)

    def _check_unclaimed(self, entries: dict[int, LogEntry], claimed: set[int]) -> None:
        """What no acknowledged write explains must be one of unknown outcome, whole and once."""
        for revision, entry in entries.items():
            if revision in claimed:
                continue
            write = self._claimant(entry)
            if write is None:
                self._complain(f"INVENTED: nobody wrote {entry}, or it was applied twice")
                continue
            self.resolved += 1
            write.revision = revision
            if sorted(entry.changes, key=_by_key) != sorted(write.changes, key=_by_key):
                self._complain(f"TORN: {write} is in the log as {entry.changes}")
            self._check_compare(write)

    def _claimant(self, entry: LogEntry) -> Write | None:
        found: Write | None = None
        for key, value in entry.changes:
            if value is not None:
                found = found or self.open_writes.get(value)
                self.open_writes.pop(value, None)
            elif found is None and self._open_deletes.get(key):
                found = self._open_deletes[key].pop(0)
        return found

    # -- time ----------------------------------------------------------------------------------

    def _check_order(self, operations: Sequence[Operation]) -> None:
        """Compare each operation with the highest revision told before it began."""
        # Unknown outcomes that were found have a revision, but nobody was told it: they must not
        # be too early, and set no floor.
        ends = sorted((op.return_s, op.revision) for op in operations if op.revision and _told(op))
        floors: list[int] = []
        highest = self._floor
        for _, revision in ends:
            highest = max(highest, revision)
            floors.append(highest)
        times = [end for end, _ in ends]
        for operation in operations:
            if not operation.revision:
                continue
            if isinstance(operation, Read) and not operation.is_linearizable:
                continue
            at = bisect_left(times, operation.call_s) - 1
            floor = floors[at] if at >= 0 else self._floor
            is_write = isinstance(operation, Write)
            if operation.revision < floor or (is_write and operation.revision == floor):
                self._complain(f"STALE: {operation} began after revision {floor} had been told")
        self._floor = highest

    # -- state ---------------------------------------------------------------------------------

    def _check_read(self, read: Read) -> None:
        if read.revision > self.revision:
            self._complain(f"FUTURE: {read} tells a revision above {self.revision}")
            return
        stands = self.value_at(read.key, read.revision)
        if stands != (read.value, read.mod_revision):
            self._complain(f"WRONG: {read}, but there stood {stands}")

    def _check_compare(self, operation: Write | CompareFailed) -> None:
        is_refused = isinstance(operation, CompareFailed)
        before = operation.revision if is_refused else operation.revision - 1
        if not operation.expected:
            return
        held = all(self.value_at(key, before)[0] == value for key, value in operation.expected)
        if held == is_refused:
            stands = [self.value_at(key, before) for key, _ in operation.expected]
            self._complain(f"COMPARE: {operation}, but there stood {stands}")


def _by_key(change: Change) -> tuple[bytes, bytes]:
    return change[0], change[1] or b""


def _told(operation: Operation) -> bool:
    return operation.return_s != float("inf")
