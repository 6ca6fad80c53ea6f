"""One revision told to many watchers, or a huge one to some, in steps of bounded work.

The changes of a revision reach a watcher in one response, however many they are; but not all
watchers need to be served in one piece.  Watchers of one range share what is encoded, so that
memory grows with the revision, not with the watchers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Final, Protocol

from etcdtw.mvcc.backend import Change
from etcdtw.mvcc.watch.bounds import DIRECT_OCTETS_MAX, LONE_MAX, SLICE_READ_MAX
from etcdtw.mvcc.watch.index import WatcherIndex
from etcdtw.mvcc.watch.octets import encode_event, key_of, tombstone_record
from etcdtw.mvcc.watch.stream import FILTER_DELETE, FILTER_PUT, UNSYNCED, Watcher
from etcdtw.wire.mvccpb import KeyValue

READ_COST: Final = 3
"""What reading a change of history costs, in encoded events."""
RANGES_MAX: Final = 16
"""Ranges whose events are gathered at a time."""
PREVIOUS_COST: Final = 8
"""What looking up an earlier record costs, in encoded events."""
SHARED_RESPONSES_MAX: Final = 4
"""Responses kept for others that want the very same; all first watchers of streams have id 0."""
RESPONSE_COST: Final = 3
"""What a response costs that is lined up for a watcher, in encoded events."""
OCTETS_PER_COST: Final = 512
"""Octets of a response that cost as much as one encoded event."""

Event = tuple[bytes, bool, bytes]
"""(key, is_delete, record); of a delete the record holds key and mod_revision."""
Steps = Generator[int, None, None]
"""Work that is done step by step; each step tells what it has cost, in encoded events."""
Put = Callable[[Watcher, int, "EncodedEvents", dict[bytes, bytes]], int]
"""Lines up a response to a watcher with a revision's events, if it is to have them still; returns
its octets.  The last argument remembers responses by watch id for others that want the same."""
JOINED_MAX: Final = 1 << 16
"""Octets up to which events are joined while they are gathered: a million small ones, joined at
the end, would take 80 ms."""
FREED_MAX: Final = 64
"""Events that are forgotten in one step; a million at once would take 0.1 s."""


class EncodedEvents:
    """Events of one response: ``parts``, each some that follow each other, or a large one."""

    __slots__ = ("_some", "_some_octets", "count", "octets", "parts")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.count = 0
        self.octets = 0
        self._some: list[bytes] = []
        self._some_octets = 0

    def add(self, octets: bytes) -> None:
        size = len(octets)
        self.count += 1
        self.octets += size
        if self._some_octets + size > JOINED_MAX:
            self.end()
        self._some.append(octets)
        self._some_octets += size

    def end(self) -> None:
        """Make what was added a part."""
        if self._some:
            self.parts.append(b"".join(self._some))
            self._some = []
            self._some_octets = 0


class SharedEvent:
    """One event of revision ``main`` and its encodings, made when first wanted."""

    __slots__ = ("blocked", "event", "main", "plain", "with_previous")

    def __init__(self, main: int, event: Event) -> None:
        self.main = main
        self.event = event
        self.blocked = FILTER_DELETE if event[1] else FILTER_PUT
        self.plain: bytes | None = None
        self.with_previous: bytes | None = None


class History(Protocol):
    """The part of the backend that tells of earlier records."""

    def get_at(self, key: bytes, revision: int) -> bytes | None: ...


class Compacted(Protocol):
    """The part of the store that tells what history is left."""

    @property
    def compact_revision(self) -> int: ...


class EventEncoder:
    """Encodes events as watchers want them, each at most once per kind."""

    def __init__(self, source: Compacted, backend: History) -> None:
        self._source = source
        self._backend = backend

    def octets(self, shared: SharedEvent, wants_previous: bool) -> bytes:
        """Return the event with the record before it, or without."""
        key, is_delete, record = shared.event
        if not wants_previous:
            if shared.plain is None:
                shared.plain = encode_event(is_delete, record, None)
            return shared.plain
        if shared.with_previous is None:
            previous = self.previous(key, is_delete, record, shared.main)
            shared.with_previous = encode_event(is_delete, record, previous)
        return shared.with_previous

    def previous(self, key: bytes, is_delete: bool, record: bytes, main: int) -> bytes | None:
        """Return the record before revision ``main``; None: there was none or it is gone.

        A put that creates its key has none, also when the key was deleted earlier in the same
        revision.
        """
        if main - 1 < self._source.compact_revision:
            return None
        if not is_delete and KeyValue.FromString(record).version == 1:
            return None
        return self._backend.get_at(key, main - 1)


def is_too_much(
    encoder: EventEncoder, main: int, event: Event, matching: list[Watcher], direct_max: int
) -> bool:
    """Return whether telling all of ``matching`` of ``event`` is too much to be done at once."""
    count = len(matching)
    if count <= LONE_MAX:
        return False
    octets = len(event[2])
    if any([watcher.wants_previous for watcher in matching]):
        octets += len(encoder.previous(*event, main) or b"")
    return count > direct_max or count * octets > DIRECT_OCTETS_MAX


class FanOut:
    """The changes of revision ``main`` on their way to those of ``index`` that want them.

    ``flush``: lets go what was put.
    """

    def __init__(
        self,
        main: int,
        events: list[Event],
        index: WatcherIndex[Watcher],
        encoder: EventEncoder,
        put: Put,
        flush: Callable[[], None],
    ) -> None:
        self.main = main
        self.size = len(events)
        self._events = events
        self._shared: list[SharedEvent] = []
        self._index = index
        self._encoder = encoder
        self._put = put
        self._flush = flush
        self._steps = self._run()
        self.is_done = False

    def work(self, cost_max: int) -> int:
        """Go on until about ``cost_max`` is spent; return what was."""
        cost = 0
        try:
            while cost < cost_max:
                cost += next(self._steps)
        except StopIteration:
            self.is_done = True
        self._flush()
        return cost

    def _run(self) -> Steps:
        """Those of single keys first, then range after range."""
        exact: dict[bytes, list[SharedEvent]] = {}
        ranges: dict[int, tuple[bytes, bytes | None, dict[Watcher, None]]] = {}
        index = self._index
        cost = 0
        for event in self._events:
            shared = SharedEvent(self.main, event)
            self._shared.append(shared)
            key = event[0]
            if index.exact(key) is not None:
                exact.setdefault(key, []).append(shared)
            cost += 1 + index.ranges_of(key, ranges)
            if cost >= 64:
                yield cost // 2
                cost = 0
        self._events = []
        for key, wanted in exact.items():
            watchers = index.exact(key)
            if watchers is not None:
                yield from self._serve(list(watchers), wanted)
        found = list(ranges.values())
        for first in range(0, len(found), RANGES_MAX):
            yield from self._serve_ranges(found[first : first + RANGES_MAX])
        yield from _forgotten(self._shared)

    def _serve_ranges(self, ranges: list[tuple[bytes, bytes | None, dict[Watcher, None]]]) -> Steps:
        gathered: list[list[SharedEvent]] = [[] for _ in ranges]
        cost = 0
        for shared in self._shared:
            key = shared.event[0]
            for position, (start, end, _) in enumerate(ranges):
                if start <= key and (end is None or key < end):
                    gathered[position].append(shared)
            cost += len(ranges)
            if cost >= 256:
                yield cost // 8
                cost = 0
        for (_, _, watchers), wanted in zip(ranges, gathered, strict=True):
            yield from self._serve(list(watchers), wanted)

    def _serve(self, watchers: Iterable[Watcher], wanted: list[SharedEvent]) -> Steps:
        """Serve watchers of one range: those that want the same share one body."""
        bodies: dict[tuple[int, bool], tuple[EncodedEvents, dict[bytes, bytes]]] = {}
        for watcher in watchers:
            kind = (watcher.filters, watcher.wants_previous)
            body = bodies.get(kind)
            if body is None:
                events = EncodedEvents()
                cost = 0
                for shared in wanted:
                    if shared.blocked & watcher.filters:
                        continue
                    octets = self._encoder.octets(shared, watcher.wants_previous)
                    events.add(octets)
                    cost += 1
                    if watcher.wants_previous:
                        cost += PREVIOUS_COST + len(octets) // OCTETS_PER_COST
                    if cost >= 64:
                        yield cost
                        cost = 0
                events.end()
                body = bodies[kind] = (events, {})
            events, responses = body
            if events.count:
                size = self._put(watcher, self.main, events, responses)
                yield RESPONSE_COST + size // OCTETS_PER_COST
        yield from _forgotten(wanted)


def _forgotten(shared: list[SharedEvent]) -> Steps:
    """Empty a list step by step, but for a few."""
    while len(shared) > FREED_MAX:
        del shared[-FREED_MAX:]
        yield FREED_MAX // 4


class ChangeSource(Protocol):
    """The part of the backend that is read here."""

    def changes_from(
        self, main: int, sub: int, last: int, limit: int, octets_max: int
    ) -> list[Change]: ...


def read_some(
    source: ChangeSource, main: int, sub: int, last: int, limit: int
) -> tuple[list[Change], bool]:
    """Return changes from (main, sub) to ``last``, and whether more of them may follow."""
    changes = source.changes_from(main, sub, last, limit, SLICE_READ_MAX)
    octets = sum([len(one.record) for one in changes])
    return changes, len(changes) >= limit or octets >= SLICE_READ_MAX


class HugeRevision:
    """One revision of history for unsynced ``watchers``, read and told in steps.

    ``changes``: what was read of it, from its beginning; ``limit``: how much is read at a time.
    ``missed``: those that were paused when it was their turn.
    """

    def __init__(
        self,
        main: int,
        watchers: list[Watcher],
        changes: list[Change],
        source: ChangeSource,
        *,
        limit: int,
        encoder: EventEncoder,
        put: Put,
        flush: Callable[[], None],
    ) -> None:
        self.main = main
        self.missed: set[Watcher] = set()
        self._watchers = watchers
        self._source = source
        self._limit = limit
        self._encoder = encoder
        self._put = put
        self._flush = flush
        self._events: list[Event] = []
        self._next_sub = 0
        self._fan: FanOut | None = None
        self._take(changes)

    def waiting(self) -> list[Watcher]:
        """Return those that are still there."""
        return [watcher for watcher in self._watchers if watcher.state == UNSYNCED]

    def work(self, cost_max: int) -> bool:
        """Read once, or spend about ``cost_max``; return whether it has ended."""
        fan = self._fan
        cost = 0
        if fan is None:
            main = self.main
            changes, is_cut = read_some(self._source, main, self._next_sub, main, self._limit)
            self._take(changes)
            if is_cut:
                return False
            cost = READ_COST * len(changes)
            index: WatcherIndex[Watcher] = WatcherIndex()
            for watcher in self.waiting():
                index.add(watcher)
            fan = self._fan = FanOut(
                main, self._events, index, self._encoder, self._put, self._flush
            )
        if cost < cost_max:
            fan.work(cost_max - cost)
        return fan.is_done

    def _take(self, changes: list[Change]) -> None:
        main = self.main
        for change in changes:
            record = change.record
            key = key_of(record)
            if change.is_tombstone:
                record = tombstone_record(record, main)
            self._events.append((key, change.is_tombstone, record))
        if changes:
            self._next_sub = changes[-1].sub + 1
