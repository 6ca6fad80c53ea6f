"""One generation of the overlay: what was applied and is not yet durable in `state/`.

Writes are O(1); key order is made when a range asks for it.  Knows no LMDB.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

from etcdtw.mvcc.backend import Change
from etcdtw.storage.rows.codec import (
    COMPACTIONS_MAX,
    BucketRow,
    encode_frame,
    encode_tombstone,
)

FRESH_MAX: Final = 64  # keys searched one by one before they are sorted into a run
GENERATION_OCTETS_MAX: Final = 16 << 20
# Each may make three pages dirty in the writer's memory; twice as many cost it a quarter more time.
GENERATION_CHANGES_MAX: Final = 8192
SEND_CHANGES_MAX: Final = 512  # changes in one message; marshalling them takes about 0.1 ms
SEND_OCTETS_MAX: Final = 1 << 20  # octets after which a message is due with fewer changes
CHANGE_OVERHEAD: Final = 300  # octets of Python objects a change costs beside key and record
PART_CHANGES_MAX: Final = 40_960
"""Changes of a part; passed by less than one message of them.

As its dict grows, Python copies the whole of it: with 43,690 keys in 2 ms, with 699,050 in 25 to
80 ms, in one piece.  A part stays below both.
"""

ChangeRow = tuple[int, int, bytes, bytes | None]
"""main, sub, user key, record; None for a tombstone."""


class Missing:
    """The type of `MISSING`: "this generation does not know the key"."""


MISSING: Final = Missing()


class Part:
    """Some of the keys that a generation changes, with their newest records.

    ``runs`` are sorted lists of keys, disjoint, longest first; ``fresh`` keys are in none yet.
    """

    __slots__ = ("attached", "current", "fresh", "runs")

    def __init__(self) -> None:
        self.current: dict[bytes, bytes | None] = {}
        self.fresh: list[bytes] = []
        self.runs: list[list[bytes]] = []
        self.attached: dict[int, dict[bytes, bool]] = {}

    def some_between(
        self, start: bytes, end: bytes | None, limit: int, found: dict[bytes, bytes | None]
    ) -> bytes | None:
        """As `Generation.some_between`."""
        current = self.current
        if len(self.fresh) > FRESH_MAX:
            self.sort_fresh()
        cut: bytes | None = None
        for run in self.runs:
            if run[-1] < start:
                continue
            i = bisect_left(run, start)
            if i + limit < len(run) and (end is None or run[i + limit] < end):
                end = cut = run[i + limit]
                j = i + limit
            else:
                j = len(run) if end is None else bisect_left(run, end, i)
            for key in run[i:j]:
                found[key] = current[key]
        for key in self.fresh:
            if key >= start and (end is None or key < end):
                found[key] = current[key]
        return cut

    def sort_fresh(self) -> None:
        """Make the fresh keys a run; join runs so that there are few, each key moved rarely."""
        if not self.fresh:
            return
        run = sorted(self.fresh)
        self.fresh.clear()
        runs = self.runs
        if runs and runs[-1][-1] < run[0]:
            runs[-1] += run  # keys in order, as a load or a deleted range has them
            return
        while runs and len(runs[-1]) <= 2 * len(run):
            run += runs.pop()
            run.sort()  # two sorted halves: a merge
        runs.append(run)

    def bury(self, rows: int) -> bool:
        """Free up to ``rows`` entries of each kind; True when nothing is left."""
        current, attached = self.current, self.attached
        for keys in (self.fresh, *self.runs):
            del keys[-rows:]
        for _ in range(min(rows, len(current))):
            current.popitem()
        left = rows
        while left > 0 and attached:
            of_lease = attached[next(reversed(attached))]
            count = min(left, len(of_lease))
            for _ in range(count):
                of_lease.popitem()
            if of_lease:
                break
            attached.popitem()  # that lease
            left -= count + 1
        return not (current or attached)


class Generation:
    """Changes between two commits of the state, in memory.  Open first, then closed, then gone.

    Its keys are in ``part``, of which ``current``, ``fresh`` and ``attached`` are, and in older
    parts that are ``full``; only a long entry makes those.
    """

    __slots__ = (
        "_part_changes_max", "_part_due", "attached", "attachments", "bucket_rows", "buckets",
        "changes", "compactions", "current", "due", "excused", "fresh", "full", "indexed", "number",
        "octets", "octets_due", "octets_sent", "part", "sent", "versions",
    )  # fmt: skip

    def __init__(self, number: int, part_changes_max: int = PART_CHANGES_MAX) -> None:
        self.number = number
        self._part_changes_max = part_changes_max
        self.full: list[Part] = []
        """Oldest first."""
        self.changes: list[ChangeRow] = []
        self._begin_part()
        self.octets = 0
        self.buckets: dict[tuple[bytes, bytes], bytes | None] = {}
        self.bucket_rows: list[BucketRow] = []
        """Of those the ones that the writer does not have yet, oldest first."""
        self.attachments: list[tuple[int, bytes, bool]] = []
        """Attachments that the writer does not have yet, oldest first."""
        self.excused = 0
        """Octets that the bound of the overlay leaves out: one long entry's."""
        self.versions: dict[bytes, list[int]] = {}
        self.indexed = 0
        self.compactions: list[int] = []
        self.sent = 0
        """How many changes the writer already has."""
        self.octets_sent = 0
        """The octets that there were when it had all of them."""
        self.due = SEND_CHANGES_MAX
        """With how many changes it is to be told again."""
        self.octets_due = SEND_OCTETS_MAX
        """Or with how many octets."""

    def _begin_part(self) -> None:
        part = self.part = Part()
        self.current = part.current
        self.fresh = part.fresh
        self.attached = part.attached
        self._part_due = len(self.changes) + self._part_changes_max
        """With how many changes the newest part is full."""

    def go_on(self) -> None:
        """Say when the writer is to be told again; leave a part that is full."""
        count = len(self.changes)
        self.due = count + SEND_CHANGES_MAX
        self.octets_due = self.octets + SEND_OCTETS_MAX
        if count >= self._part_due:
            self.part.sort_fresh()
            self.full.append(self.part)
            self._begin_part()

    def parts(self) -> list[Part]:
        """Return all parts, oldest first."""
        return [*self.full, self.part]

    def schedule(self, revision: int) -> None:
        """Compact to ``revision`` once this generation is durable.

        Each on its own, for the hash that it finds; of very many only those remembered.
        """
        self.compactions.append(revision)
        del self.compactions[:-COMPACTIONS_MAX]

    def record(self, key: bytes) -> bytes | Missing | None:
        """Return the newest record of ``key``; None: deleted; MISSING: not changed here."""
        record = self.current.get(key, MISSING)
        return self.older(key) if isinstance(record, Missing) and self.full else record

    def older(self, key: bytes) -> bytes | Missing | None:
        """As `record`, of a key that is not in ``current``."""
        for part in reversed(self.full):
            record = part.current.get(key, MISSING)
            if not isinstance(record, Missing):
                return record
        return MISSING

    def between(self, start: bytes, end: bytes | None, found: dict[bytes, bytes | None]) -> None:
        """Add to ``found`` every changed key in ``[start, end)`` with its newest record."""
        for part in self.parts():
            part.some_between(start, end, len(part.current), found)

    def some_between(
        self, start: bytes, end: bytes | None, limit: int, found: dict[bytes, bytes | None]
    ) -> bytes | None:
        """As `between`, but about ``limit`` keys: return where it ended before ``end``, or None.

        ``found`` may hold some from there on.
        """
        cut: bytes | None = None
        for part in self.parts():
            at = part.some_between(start, end, limit, found)
            if at is not None:
                end = cut = at
        return cut

    def version_at(self, key: bytes, revision: int) -> bytes | Missing | None:
        """Return the record as of ``revision``; None: deleted then; MISSING: not changed here."""
        newest = self.record(key)
        if isinstance(newest, Missing):
            return MISSING
        changes = self.changes
        if changes[0][0] == changes[-1][0]:
            # One revision, as those of very many changes have: there is nothing to look for.
            return newest if changes[0][0] <= revision else MISSING
        versions = self.versions
        for position in range(self.indexed, len(changes)):
            versions.setdefault(changes[position][2], []).append(position)
        self.indexed = len(changes)
        for position in reversed(versions[key]):
            if changes[position][0] <= revision:
                return changes[position][3]
        return MISSING

    def bury(self, rows: int) -> bool:
        """Free up to ``rows`` entries of each kind; True when nothing is left."""
        full = self.full
        if self.part.bury(rows) and full:
            self.part = full.pop()
        indexes: list[dict[Any, Any]] = [self.versions, self.buckets]
        for index in indexes:
            for _ in range(min(rows, len(index))):
                index.popitem()
        del self.changes[-rows:]
        return not (self.changes or full or self.part.current or self.part.attached or any(indexes))

    def is_large(self) -> bool:
        """Whether it should take no more: what one commit may cost the writer is bounded."""
        return len(self.changes) >= GENERATION_CHANGES_MAX or self.octets >= GENERATION_OCTETS_MAX

    def is_empty(self) -> bool:
        return not (self.changes or self.buckets or self.attached)


class Remains:
    """A long list that nobody needs, to be freed as a durable generation is."""

    __slots__ = ("_items",)

    def __init__(self, items: list[Any]) -> None:
        self._items = items

    def bury(self, rows: int) -> bool:
        """Free up to ``rows`` items; True when nothing is left."""
        del self._items[-rows:]
        return not self._items


def pending_of(generations: Sequence[Generation]) -> tuple[int, int]:
    """Return the octets and the changes that ``generations`` hold."""
    octets = sum([generation.octets for generation in generations])
    return octets, sum([len(generation.changes) for generation in generations])


def merge_rows(
    rows: list[tuple[bytes, bytes]], changed: dict[bytes, bytes | None], limit: int, octets_max: int
) -> list[tuple[bytes, bytes]]:
    """Return durable (key, frame) rows with the overlay's changes in them, in key order.

    Ends behind ``limit`` rows, and behind the one that reaches ``octets_max``; 0: no bound.  A
    slice of a range must not encode all that the overlay holds of the rest.
    """
    durable = dict(rows)
    found: list[tuple[bytes, bytes]] = []
    size = 0
    for key in sorted(durable.keys() | changed.keys()):
        if key in changed:
            record = changed[key]
            if record is None:
                continue
            frame = encode_frame(record)
        else:
            frame = durable[key]
        found.append((key, frame))
        size += len(frame)
        if len(found) == limit or 0 < octets_max <= size:
            break
    return found


def changed_from(
    generations: Sequence[Generation], start: bytes, end: bytes | None, limit: int
) -> tuple[dict[bytes, bytes | None], bytes | None]:
    """Return the first changed keys in ``[start, end)`` with their newest records, and a bound.

    About ``limit`` keys of each generation (oldest first); nothing is missing before the bound,
    which is None when nothing is missing at all.
    """
    found: dict[bytes, bytes | None] = {}
    bound: bytes | None = None
    for generation in generations:
        if generation.current or generation.full:
            cut = generation.some_between(start, end, limit, found)
            if cut is not None:
                end = bound = cut
    if bound is not None:
        found = {key: record for key, record in found.items() if key < bound}
    return found, bound


def first_change(generations: Sequence[Generation]) -> tuple[int, int] | None:
    """Return (main, sub) of the first change that ``generations`` hold; None: there is none."""
    for generation in generations:
        if generation.changes:
            main, sub, _, _ = generation.changes[0]
            return main, sub
    return None


def add_fresh_changes(
    found: list[Change],
    generations: Sequence[Generation],
    main: int,
    sub: int,
    last: int,
    limit: int,
    octets_max: int,
) -> None:
    """Add to ``found`` the changes of ``generations`` from (main, sub) to main revision ``last``.

    Ends with the one that makes them ``limit``, or with which all records hold ``octets_max``
    (0: no bound).
    """
    octets = sum([len(change.record) for change in found])
    for generation in generations:
        changes = generation.changes
        for position in range(bisect_left(changes, (main, sub), key=_position_of), len(changes)):
            at_main, at_sub, key, record = changes[position]
            if at_main > last or len(found) >= limit or 0 < octets_max <= octets:
                return
            is_tombstone = record is None
            if record is None:
                record = encode_tombstone(key)
            found.append(Change(at_main, at_sub, is_tombstone, record))
            octets += len(record)


def _position_of(change: tuple[int, int, bytes, bytes | None]) -> tuple[int, int]:
    return change[0], change[1]
