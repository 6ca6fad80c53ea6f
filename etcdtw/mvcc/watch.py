"""The watch hub: what every watcher of a member is sent, live and from history.

Knows no gRPC, clock or reactor: responses leave through each stream's callable, time is an
argument, and `WatchHub.work` is called again while it says that there is more.

A watch is a pure function of its start revision and the log of changes.  A *synced* watcher
is told of each change as it is applied; an *unsynced* one reads history in bounded slices
until it reaches the present.  Nothing waits in memory for a slow reader: a watcher that
misses an event because its stream is paused becomes unsynced at that revision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from etcdtw.mvcc.backend import Change
from etcdtw.mvcc.watch_index import WatcherIndex
from etcdtw.mvcc.watch_octets import encode_event, key_of, tombstone_record
from etcdtw.mvcc.watch_stream import (
    CLOSED,
    FILTER_DELETE,
    FILTER_PUT,
    SYNCED,
    UNSYNCED,
    Batch,
    Send,
    Watcher,
    WatchStream,
)
from etcdtw.wire.mvccpb import KeyValue

SLICE_CHANGES_MAX: Final = 1000
"""Changes read from history at a time; a revision is never split.  etcd: 1000 revisions."""
SLICE_WATCHERS_MAX: Final = 128
"""Unsynced watchers that share what was read."""
SLICE_EVENTS_MAX: Final = 4000
"""Deliveries in one slice: about 4 ms of work; passed by at most one revision's."""
SLICE_BYTES_MAX: Final = 1024 * 1024
"""Octets of events gathered in one slice; passed by at most one revision's."""
BATCHES_OCTETS_MAX: Final = 64 * 1024 * 1024
"""What is gathered for all watchers and not yet sent; beyond, what there is goes out."""

RESPONSE_SIZE_MAX: Final = 1572864 + 512 * 1024
"""Fragments stay below this: etcd's default request limit plus 512 KiB."""

PROGRESS_INTERVAL_MS: Final = 600_000
PROGRESS_INTERVAL_MS_MIN: Final = 100

Event = tuple[bytes, bool, bytes]
"""(key, is_delete, record); of a delete the record holds key and mod_revision."""


class WatchBackend(Protocol):
    """The part of `mvcc.backend.Backend` that watching needs."""

    def get_at(self, key: bytes, revision: int) -> bytes | None: ...
    def changes(self, first: int, last: int, limit: int) -> list[Change]: ...


class WatchSource(Protocol):
    """The store whose changes are watched."""

    has_watchers: bool
    """Set by the hub: whether changes have to be collected for `WatchHub.notify`."""

    @property
    def revision(self) -> int:
        """The latest main revision; `WatchHub.notify` has been told of it."""
        ...

    @property
    def compact_revision(self) -> int: ...

    def take_events(self) -> list[Event]:
        """Return and forget what was collected."""
        ...


class WatchHub:
    """All watchers of a member.  One per store.

    ``header``: returns a response's header field for a revision; that of live events is
    their own, that of history the store's.  ``random_unit``: returns a number in [0, 1).
    ``wake``: called when `work` has become worth calling.
    """

    def __init__(
        self,
        source: WatchSource,
        backend: WatchBackend,
        header: Callable[[int], bytes],
        random_unit: Callable[[], float],
        wake: Callable[[], None],
        *,
        progress_interval_ms: int = PROGRESS_INTERVAL_MS,
        response_size_max: int = RESPONSE_SIZE_MAX,
        slice_changes_max: int = SLICE_CHANGES_MAX,
        batches_octets_max: int = BATCHES_OCTETS_MAX,
    ) -> None:
        self._source = source
        self._backend = backend
        self.header = header
        self._random_unit = random_unit
        self._wake = wake
        self._progress_interval_ms = max(progress_interval_ms, PROGRESS_INTERVAL_MS_MIN)
        self._response_size_max = response_size_max
        self._slice_changes_max = slice_changes_max
        self._batches_octets_max = batches_octets_max
        self._batches_octets = 0
        self._now_ms = 0
        self._index: WatcherIndex[Watcher] = WatcherIndex()
        # In turn: whoever was served goes to the end.  None of a paused stream stays here.
        self._unsynced: dict[Watcher, None] = {}
        self._streams: dict[WatchStream, None] = {}
        self._progress_streams: dict[WatchStream, None] = {}
        self._progress_due_ms = 0
        self.watchers = 0
        self.slow_watchers = 0
        self.events_total = 0

    # What the node and the metrics ask.

    @property
    def has_watchers(self) -> bool:
        return self.watchers > 0

    @property
    def has_work(self) -> bool:
        """Whether `work` may have something to do, now or when time has passed."""
        return bool(self._unsynced or self._progress_streams)

    @property
    def streams(self) -> int:
        return len(self._streams)

    @property
    def pending_events(self) -> int:
        """Revisions that slow watchers have yet to read, added up: no events are held."""
        current = self._source.revision
        behind = [w for stream in self._streams for w in stream.lagging]
        behind += self._unsynced
        return sum(max(current + 1 - w.next_revision, 0) for w in behind)

    def revision(self) -> int:
        return self._source.revision

    def size_max(self) -> int:
        return self._response_size_max

    # Streams and their watchers.

    def open(self, send: Send, now_ms: int) -> WatchStream:
        """Return a new stream whose responses go through ``send``."""
        self._now_ms = max(self._now_ms, now_ms)
        stream = WatchStream(self, send)
        self._streams[stream] = None
        return stream

    def admit(self, watcher: Watcher) -> None:
        """A created watcher starts: live, or with history first."""
        self._count(1)
        if watcher.next_revision > self._source.revision:
            watcher.state = SYNCED
            self._index.add(watcher)
            return
        watcher.state = UNSYNCED
        self.slow_watchers += 1
        self._queue(watcher)

    def dismiss(self, watcher: Watcher) -> None:
        """A watcher has been cancelled or its stream closed."""
        if watcher.state == SYNCED:
            self._index.remove(watcher)
            self._count(-1)
        elif watcher.state == UNSYNCED:
            self._forget_unsynced(watcher)
        watcher.state = CLOSED

    def resumed(self, stream: WatchStream) -> None:
        """A stream takes output again."""
        lagging = stream.lagging
        stream.lagging = {}
        for watcher in lagging:
            self._queue(watcher)

    def closed(self, stream: WatchStream) -> None:
        for watcher in stream.watchers.values():
            self.dismiss(watcher)
        self._progress_streams.pop(stream, None)
        del self._streams[stream]

    def expects_progress(self, stream: WatchStream) -> None:
        """A stream has a watcher that wants progress: tick from now on, with jitter."""
        if stream in self._progress_streams:
            return
        jitter_ms = int(self._random_unit() * self._progress_interval_ms / 10)
        stream.progress_due_ms = self._now_ms + self._progress_interval_ms + jitter_ms
        if not self._progress_streams or stream.progress_due_ms < self._progress_due_ms:
            self._progress_due_ms = stream.progress_due_ms
        self._progress_streams[stream] = None

    def store_replaced(self, last_revision: int) -> None:
        """The store's content was replaced (a snapshot): live delivery was interrupted.

        ``last_revision``: the last one told to `notify`.  Every synced watcher reads what
        it missed from the new history.
        """
        for stream in self._streams:
            for watcher in stream.watchers.values():
                if watcher.state == SYNCED and watcher.next_revision <= self._source.revision:
                    self._fall_behind(watcher, max(watcher.next_revision, last_revision + 1))
                    self._queue(watcher)

    # Live delivery.

    def notify(self, main: int, events: list[Event]) -> None:
        """Tell the synced watchers of revision ``main``, as soon as it is applied.

        Until this was called nothing else may be asked of the hub after the apply.
        """
        if len(events) == 1:
            self._notify_one(main, events[0])
        else:
            self._notify_all(main, events)

    def _notify_one(self, main: int, event: Event) -> None:
        """`_notify_all` for one event: of watchers with equal ids and wants, one encoding."""
        key, is_delete, record = event
        matching = self._index.matching(key)
        if not matching:
            return
        blocked = FILTER_DELETE if is_delete else FILTER_PUT
        head = self.header(main)
        tail = encode_event(is_delete, record, None)
        previous_tail = b""
        responses: dict[bytes, bytes] = {}
        previous_responses: dict[bytes, bytes] = {}
        flushed: list[WatchStream] = []
        for watcher in matching:
            if watcher.filters & blocked or watcher.next_revision > main:
                continue
            stream = watcher.stream
            if stream.is_paused:
                self._fall_behind(watcher, main)
                stream.lagging[watcher] = None
                continue
            id_octets = watcher.id_octets
            if watcher.wants_previous:
                if not previous_tail:
                    previous = self._previous(key, is_delete, record, main)
                    previous_tail = encode_event(is_delete, record, previous)
                response = previous_responses.get(id_octets)
                if response is None:
                    response = previous_responses[id_octets] = head + id_octets + previous_tail
            else:
                response = responses.get(id_octets)
                if response is None:
                    response = responses[id_octets] = head + id_octets + tail
            outgoing = stream.outgoing
            if not outgoing:
                flushed.append(stream)
            outgoing.append(response)
            watcher.is_idle = False
            self.events_total += 1
        for stream in flushed:
            stream.flush()

    def _notify_all(self, main: int, events: list[Event]) -> None:
        gathered: dict[Watcher, list[bytes]] = {}
        for event in events:
            shared = _SharedEvent(main, event)
            for watcher in self._index.matching(event[0]):
                if watcher.filters & shared.blocked or watcher.next_revision > main:
                    continue
                if watcher.stream.is_paused:
                    self._fall_behind(watcher, main)
                    watcher.stream.lagging[watcher] = None
                else:
                    gathered.setdefault(watcher, []).append(self._octets(shared, watcher))
        if gathered:
            self._send(self.header(main), gathered)

    def _fall_behind(self, watcher: Watcher, main: int) -> None:
        self._index.remove(watcher)
        watcher.state = UNSYNCED
        watcher.next_revision = main
        self.slow_watchers += 1

    # Catching up.

    def work(self, now_ms: int) -> bool:
        """Do a bounded piece of what is due; return whether there is more to do now."""
        self._now_ms = now_ms
        if self._progress_streams and now_ms >= self._progress_due_ms:
            self._tick_progress(now_ms)
        if self._unsynced:
            self._catch_up()
        return bool(self._unsynced)

    def _catch_up(self) -> None:
        """Read one slice of history where the first in turn stands; share it with others."""
        group = self._next_group()
        if not group:
            return
        first = group[0].next_revision
        last = self._source.revision
        changes: list[Change] = []
        if first <= last:
            changes = self._backend.changes(first, last, self._slice_changes_max)
            if len(changes) >= self._slice_changes_max:
                last = changes[-1].main
        sharing = [w for w in group if first <= w.next_revision <= last + 1]
        full, reached = self._gather(sharing, changes, last)
        self._advance(sharing, full, reached)

    def _advance(self, sharing: list[Watcher], full: dict[Watcher, int], reached: int) -> None:
        """Note how far a slice has brought its watchers, and send what is to be sent."""
        is_too_much = self._batches_octets > self._batches_octets_max
        flushed: dict[WatchStream, None] = {}
        for watcher in sharing:
            stream = watcher.stream
            if watcher.state != UNSYNCED:
                continue  # a flush has closed its stream
            if stream.is_paused:
                self._rewind(watcher)  # a flush has filled it
                continue
            if watcher in full:
                watcher.next_revision = full[watcher]
            elif watcher.next_revision <= reached:
                watcher.next_revision = reached + 1
            is_synced = self._requeue(watcher)
            if is_synced or is_too_much or watcher in full:
                if self._put_batch(watcher) > SLICE_BYTES_MAX:
                    stream.flush()
                else:
                    flushed[stream] = None
        for stream in flushed:
            stream.flush()

    def _requeue(self, watcher: Watcher) -> bool:
        """Put a watcher at the end of the line, or say that it has reached the present."""
        del self._unsynced[watcher]
        if watcher.next_revision <= self._source.revision:
            self._unsynced[watcher] = None
            return False
        watcher.state = SYNCED
        self.slow_watchers -= 1
        self._index.add(watcher)
        return True

    def _next_group(self) -> list[Watcher]:
        """Take up to SLICE_WATCHERS_MAX in turn, after putting aside the paused ones and
        ending those whose history is compacted."""
        compact_revision = self._source.compact_revision
        group: list[Watcher] = []
        ended: dict[WatchStream, None] = {}
        looked_at: list[Watcher] = []
        for watcher in self._unsynced:
            looked_at.append(watcher)
            if len(looked_at) == SLICE_WATCHERS_MAX:
                break
        for watcher in looked_at:
            stream = watcher.stream
            if stream.is_paused:
                del self._unsynced[watcher]
                stream.lagging[watcher] = None
                self._rewind(watcher)
            elif watcher.next_revision < compact_revision:
                self._put_batch(watcher)
                self._forget_unsynced(watcher)
                stream.put_compacted(watcher, compact_revision)
                ended[stream] = None
            else:
                group.append(watcher)
        for stream in ended:
            stream.flush()
        # A flush may have paused or closed a stream of the group.
        return [w for w in group if w.state == UNSYNCED and not w.stream.is_paused]

    def _gather(
        self, sharing: list[Watcher], changes: list[Change], last: int
    ) -> tuple[dict[Watcher, int], int]:
        """Add what each watcher wants of ``changes``, which reach up to ``last``, to its batch.

        Returns the watchers whose batch is full, each with the revision at which it goes on, and
        the revision that the others have reached: below ``last`` when a bound of the slice was
        met.
        """
        index: WatcherIndex[Watcher] = WatcherIndex()
        for watcher in sharing:
            index.add(watcher)
        full: dict[Watcher, int] = {}
        count = size = 0
        reached = last
        main = 0
        for change in changes:
            if change.main != main:
                if count >= SLICE_EVENTS_MAX or size >= SLICE_BYTES_MAX:
                    reached = main
                    break
                main = change.main
            record = change.record
            key = key_of(record)
            matching = index.matching(key)
            if not matching:
                continue
            if change.is_tombstone:
                record = tombstone_record(record, main)
            shared = _SharedEvent(main, (key, change.is_tombstone, record))
            for watcher in matching:
                if watcher.next_revision > main or (full and watcher in full):
                    continue
                batch = watcher.batch
                if batch is None:
                    batch = watcher.batch = Batch()
                if not batch.takes(main):
                    full[watcher] = main
                elif not watcher.filters & shared.blocked:
                    octets = self._octets(shared, watcher)
                    batch.add(octets)
                    count += 1
                    size += len(octets)
        self._batches_octets += size
        return full, reached

    def _put_batch(self, watcher: Watcher) -> int:
        """Line up what was gathered for a watcher; returns how many octets that are."""
        batch = watcher.batch
        if batch is None:
            return 0
        if batch.events:
            self.events_total += len(batch.events)
            watcher.stream.put_events(watcher, self.header(self._source.revision), batch.events)
        self._drop_batch(watcher)
        return batch.size

    def _rewind(self, watcher: Watcher) -> None:
        """Let a watcher read again what was gathered: nothing waits for a slow reader."""
        if watcher.batch is not None:
            watcher.next_revision = watcher.batch.first
            self._drop_batch(watcher)

    def _drop_batch(self, watcher: Watcher) -> None:
        if watcher.batch is not None:
            self._batches_octets -= watcher.batch.size
            watcher.batch = None

    # Both.

    def _octets(self, shared: _SharedEvent, watcher: Watcher) -> bytes:
        """Return the event as this watcher wants it, encoded at most once per kind."""
        key, is_delete, record = shared.event
        if not watcher.wants_previous:
            if shared.plain is None:
                shared.plain = encode_event(is_delete, record, None)
            return shared.plain
        if shared.with_previous is None:
            previous = self._previous(key, is_delete, record, shared.main)
            shared.with_previous = encode_event(is_delete, record, previous)
        return shared.with_previous

    def _previous(self, key: bytes, is_delete: bool, record: bytes, main: int) -> bytes | None:
        """Return the record before revision ``main``; None: there was none or it is gone.

        A put that creates its key has none, also when the key was deleted earlier in the same
        revision.
        """
        if main - 1 < self._source.compact_revision:
            return None
        if not is_delete and KeyValue.FromString(record).version == 1:
            return None
        return self._backend.get_at(key, main - 1)

    def _send(self, head: bytes, gathered: dict[Watcher, list[bytes]]) -> None:
        flushed: dict[WatchStream, None] = {}
        for watcher, events in gathered.items():
            watcher.stream.put_events(watcher, head, events)
            flushed[watcher.stream] = None
            self.events_total += len(events)
        for stream in flushed:
            stream.flush()

    def _queue(self, watcher: Watcher) -> None:
        if not self._unsynced:
            self._wake()
        self._unsynced[watcher] = None

    def _forget_unsynced(self, watcher: Watcher) -> None:
        self._drop_batch(watcher)
        self._unsynced.pop(watcher, None)
        watcher.stream.lagging.pop(watcher, None)
        self.slow_watchers -= 1
        self._count(-1)

    def _count(self, change: int) -> None:
        """Add to the number of watchers; have changes collected while it is not 0."""
        if self.watchers == 0:
            # What was collected for watchers that have gone must not reach new ones.
            self._source.take_events()
        self.watchers += change
        self._source.has_watchers = self.watchers > 0

    def _tick_progress(self, now_ms: int) -> None:
        current = self._source.revision
        head = self.header(current)
        for stream in list(self._progress_streams):
            if stream.progress_due_ms <= now_ms:
                stream.progress_due_ms = now_ms + self._progress_interval_ms
                stream.report_progress(head, current)
        due_ms = [stream.progress_due_ms for stream in self._progress_streams]
        self._progress_due_ms = min(due_ms, default=0)


class _SharedEvent:
    """One event of revision ``main`` and its encodings, made when first wanted."""

    __slots__ = ("blocked", "event", "main", "plain", "with_previous")

    def __init__(self, main: int, event: Event) -> None:
        self.main = main
        self.event = event
        self.blocked = FILTER_DELETE if event[1] else FILTER_PUT
        self.plain: bytes | None = None
        self.with_previous: bytes | None = None
