"""One generation of the overlay: what was applied and is not yet durable in `state/`.

Writes are O(1); key order is made when a range asks for it.  Knows no LMDB.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final

from etcdtw.mvcc.backend import Change
from etcdtw.storage.state_codec import (
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

ChangeRow = tuple[int, int, bytes, bytes | None]
"""main, sub, user key, record; None for a tombstone."""


class Missing:
    """The type of `MISSING`: "this generation does not know the key"."""


MISSING: Final = Missing()


class Generation:
    """Changes between two commits of the state, in memory.  Open first, then closed, then gone.

    ``runs`` are sorted lists of keys, disjoint, longest first; ``fresh`` keys are in none yet.
    """

    __slots__ = (
        "attached", "attachments", "bucket_rows", "buckets", "changes", "compactions", "current",
        "due", "excused", "fresh", "indexed", "number", "octets", "octets_due", "octets_sent",
        "runs", "sent", "versions",
    )  # fmt: skip

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: dict[bytes, bytes | None] = {}
        self.changes: list[ChangeRow] = []
        self.fresh: list[bytes] = []
        self.runs: list[list[bytes]] = []
        self.octets = 0
        self.buckets: dict[tuple[bytes, bytes], bytes | None] = {}
        self.bucket_rows: list[BucketRow] = []
        """Of those the ones that the writer does not have yet, oldest first."""
        self.attached: dict[int, dict[bytes, bool]] = {}
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

    def schedule(self, revision: int) -> None:
        """Compact to ``revision`` once this generation is durable.

        Each on its own, for the hash that it finds; of very many only those remembered.
        """
        self.compactions.append(revision)
        del self.compactions[:-COMPACTIONS_MAX]

    def between(self, start: bytes, end: bytes | None, found: dict[bytes, bytes | None]) -> None:
        """Add to ``found`` every changed key in ``[start, end)`` with its newest record."""
        self.some_between(start, end, len(self.current), found)

    def some_between(
        self, start: bytes, end: bytes | None, limit: int, found: dict[bytes, bytes | None]
    ) -> bytes | None:
        """As `between`, but about ``limit`` keys: return where it ended before ``end``, or None."""
        current = self.current
        if len(self.fresh) > FRESH_MAX:
            self._sort_fresh()
        cut: bytes | None = None
        for run in self.runs:
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

    def _sort_fresh(self) -> None:
        """Make the fresh keys a run; join runs so that there are few, each key moved rarely."""
        run = sorted(self.fresh)
        self.fresh = []
        runs = self.runs
        if runs and runs[-1][-1] < run[0]:
            runs[-1] += run  # keys in order, as a load or a deleted range has them
            return
        while runs and len(runs[-1]) <= 2 * len(run):
            run += runs.pop()
            run.sort()  # two sorted halves: a merge
        runs.append(run)

    def version_at(self, key: bytes, revision: int) -> bytes | Missing | None:
        """Return the record as of ``revision``; None: deleted then; MISSING: not changed here."""
        if key not in self.current:
            return MISSING
        changes = self.changes
        versions = self.versions
        for position in range(self.indexed, len(changes)):
            versions.setdefault(changes[position][2], []).append(position)
        self.indexed = len(changes)
        for position in reversed(versions[key]):
            if changes[position][0] <= revision:
                return changes[position][3]
        return MISSING

    def bury(self, rows: int) -> bool:
        """Free up to ``rows`` entries of each part; True when nothing is left."""
        for keys in (self.fresh, *self.runs):
            del keys[-rows:]
        indexes: list[dict[Any, Any]] = [
            self.versions, self.current, self.buckets, *self.attached.values()
        ]  # fmt: skip
        for index in indexes:
            for _ in range(min(rows, len(index))):
                index.popitem()
        del self.changes[-rows:]
        return not (self.changes or any(indexes))

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
        if generation.current:
            cut = generation.some_between(start, end, limit, found)
            if cut is not None:
                end = bound = cut
    if bound is not None:
        found = {key: record for key, record in found.items() if key < bound}
    return found, bound


def attached_keys(
    generations: Sequence[Generation], lease_id: int, durable: Sequence[bytes]
) -> list[bytes]:
    """Return the keys of a lease, sorted: the durable ones as ``generations`` changed them."""
    keys = set(durable)
    for generation in generations:
        for key, is_attached in generation.attached.get(lease_id, {}).items():
            if is_attached:
                keys.add(key)
            else:
                keys.discard(key)
    return sorted(keys)


def first_change(generations: Sequence[Generation]) -> tuple[int, int] | None:
    """Return (main, sub) of the first change that ``generations`` hold; None: there is none."""
    for generation in generations:
        if generation.changes:
            main, sub, _, _ = generation.changes[0]
            return main, sub
    return None


def fresh_changes(
    generations: Sequence[Generation], main: int, sub: int, last: int, limit: int
) -> list[Change]:
    """Return up to ``limit`` changes from (main, sub) to main revision ``last``."""
    found: list[Change] = []
    for generation in generations:
        changes = generation.changes
        for position in range(bisect_left(changes, (main, sub), key=_position_of), len(changes)):
            at_main, at_sub, key, record = changes[position]
            if at_main > last or len(found) >= limit:
                return found
            if record is None:
                found.append(Change(at_main, at_sub, True, encode_tombstone(key)))
            else:
                found.append(Change(at_main, at_sub, False, record))
    return found


def _position_of(change: tuple[int, int, bytes, bytes | None]) -> tuple[int, int]:
    return change[0], change[1]
