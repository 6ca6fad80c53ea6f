"""The watch hub: what every watcher of a member is sent, live and from history.

Knows no gRPC, clock or reactor: responses leave through each stream's callable, time is an
argument, and `WatchHub.work` is called again while it says that there is more.

A watch is a pure function of its start revision and the log of changes.  A *synced* watcher
is told of each change as it is applied; an *unsynced* one reads history in bounded slices
until it reaches the present.  Nothing waits in memory for a slow reader: a watcher that
misses an event because its stream is paused becomes unsynced at that revision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from etcdtw.mvcc.backend import Change
from etcdtw.mvcc.watch.bounds import (
    BATCHES_OCTETS_MAX,
    DIRECT_MAX,
    DIRECT_OCTETS_MAX,
    DISMISSED_MAX,
    HEAVY_MAX,
    PROGRESS_INTERVAL_MS,
    QUEUED_EVENTS_MAX,
    QUEUED_REVISIONS_MAX,
    RESPONSE_SIZE_MAX,
    SLICE_BYTES_MAX,
    SLICE_CHANGES_MAX,
    SLICE_WATCHERS_MAX,
    STEP_COST,
)
from etcdtw.mvcc.watch.fan_out import (
    SHARED_RESPONSES_MAX,
    EncodedEvents,
    Event,
    EventEncoder,
    FanOut,
    HugeRevision,
    SharedEvent,
    is_too_much,
    read_some,
)
from etcdtw.mvcc.watch.history import gather
from etcdtw.mvcc.watch.index import WatcherIndex
from etcdtw.mvcc.watch.octets import encode_event
from etcdtw.mvcc.watch.progress import ProgressTicks
from etcdtw.mvcc.watch.source import WatchBackend, WatchSource
from etcdtw.mvcc.watch.stream import (
    CLOSED,
    COMPACTED,
    FILTER_DELETE,
    FILTER_PUT,
    LARGE_OCTETS_MIN,
    SYNCED,
    UNSYNCED,
    Send,
    Watcher,
    WatchStream,
)


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
        direct_max: int = DIRECT_MAX,
        step_cost: int = STEP_COST,
    ) -> None:
        self._source = source
        self._backend = backend
        self.header = header
        self._wake = wake
        self.progress = ProgressTicks(progress_interval_ms, random_unit)
        self._response_size_max = response_size_max
        self._slice_changes_max = slice_changes_max
        self._batches_octets_max = batches_octets_max
        self._batches_octets = 0
        self._direct_max = direct_max
        self._step_cost = step_cost
        self._now_ms = 0
        self._index: WatcherIndex[Watcher] = WatcherIndex()
        # In turn: whoever was served goes to the end.  None of a paused stream stays here.
        self._unsynced: dict[Watcher, None] = {}
        # Revisions on their way to the synced watchers, in order; the first is being told.
        self._fans: deque[FanOut] = deque()
        self._queued_events = 0
        self._huge: HugeRevision | None = None
        self._encoder = EventEncoder(source, backend)
        self._leaving: list[Watcher] = []
        # Unsynced watchers whose batches are to go out.
        self._sending: deque[Watcher] = deque()
        self._lined_up: dict[WatchStream, None] = {}
        self._heavy: deque[int] = deque(maxlen=HEAVY_MAX)  # revisions that are told in steps
        self._streams: dict[WatchStream, None] = {}
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
        return self._has_more or not self.progress.is_idle

    @property
    def _has_more(self) -> bool:
        if self._fans or self._unsynced or self._sending or self._leaving:
            return True
        return self._huge is not None or self.progress.has_reports

    @property
    def is_telling(self) -> bool:
        """Whether synced watchers have yet to hear of a revision that was applied."""
        return bool(self._fans)

    @property
    def is_full(self) -> bool:
        """Whether so much waits to be told that nothing more should be applied."""
        return self._queued_events > QUEUED_EVENTS_MAX or len(self._fans) > QUEUED_REVISIONS_MAX

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

    def open(self, send: Send, now_ms: int, send_parts: Send | None = None) -> WatchStream:
        """Return a new stream whose responses go through ``send``, large ones in parts."""
        self._now_ms = max(self._now_ms, now_ms)
        stream = WatchStream(self, send, send_parts)
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
        watcher.stream.behind += 1
        self.slow_watchers += 1
        self._queue(watcher)

    def dismiss(self, watcher: Watcher) -> None:
        """A watcher has been cancelled or its stream closed."""
        if watcher.state == SYNCED:
            self._index.remove(watcher)
            self._count(-1)
        elif watcher.state == UNSYNCED:
            self._forget_unsynced(watcher)
        if watcher.state in (UNSYNCED, COMPACTED):
            watcher.stream.behind -= 1
        watcher.state = CLOSED

    def resumed(self, stream: WatchStream) -> None:
        """A stream takes output again."""
        lagging = stream.lagging
        stream.lagging = {}
        for watcher in lagging:
            self._queue(watcher)

    def closed(self, stream: WatchStream) -> None:
        self.progress.forget(stream)
        del self._streams[stream]
        if len(stream.watchers) <= DISMISSED_MAX:
            for watcher in stream.watchers.values():
                self.dismiss(watcher)
            return
        stream.is_paused = True  # what happens meanwhile is told to nobody
        if not self._leaving:
            self._wake()
        self._leaving.extend(stream.watchers.values())

    def expects_progress(self, stream: WatchStream) -> None:
        """A stream has a watcher that wants progress."""
        self.progress.expect(stream, self._now_ms)

    def store_replaced(self, last_revision: int) -> None:
        """The store's content was replaced (a snapshot): live delivery was interrupted.

        ``last_revision``: the last one told to `notify`.  Every synced watcher reads what
        it missed from the new history.
        """
        told = self._fans[0].main if self._fans else last_revision + 1
        self._fans.clear()
        self._queued_events = 0
        if self._huge is not None:
            self._unsynced.update(dict.fromkeys(self._huge.waiting()))
            self._huge = None
        for stream in self._streams:
            for watcher in stream.watchers.values():
                if watcher.state == SYNCED and watcher.next_revision <= self._source.revision:
                    self._fall_behind(watcher, max(watcher.next_revision, told))
                    self._queue(watcher)

    # Live delivery.

    def notify(self, main: int, events: list[Event]) -> None:
        """Tell the synced watchers of revision ``main``, as soon as it is applied.

        Until this was called nothing else may be asked of the hub after the apply.
        """
        count = len(events)
        if self._fans or (
            count > 1 and count * (1 + self._index.range_watchers) > self._direct_max
        ):
            self._line_behind(main, events)
        elif count == 1:
            self._notify_one(main, events[0])
        else:
            self._notify_all(main, events)

    def _line_behind(self, main: int, events: list[Event]) -> None:
        """Tell the watchers of ``main`` in steps, after what waits already."""
        if self._fans:
            self._queued_events += len(events)
        else:
            self._wake()
        self._fans.append(
            FanOut(main, events, self._index, self._encoder, self._put_live, self._flush)
        )

    def _put_live(
        self, watcher: Watcher, main: int, events: EncodedEvents, responses: dict[bytes, bytes]
    ) -> int:
        """`fan_out.Put` for synced watchers."""
        if watcher.state != SYNCED or watcher.next_revision > main:
            return 0  # gone, or it begins later
        stream = watcher.stream
        if stream.is_paused:
            self._fall_behind(watcher, main)
            stream.lagging[watcher] = None
            return 0
        watcher.next_revision = main + 1
        return self._line_up(watcher, self.header(main), events, responses)

    def _put_history(
        self, watcher: Watcher, main: int, events: EncodedEvents, responses: dict[bytes, bytes]
    ) -> int:
        """`fan_out.Put` for unsynced watchers."""
        if watcher.state != UNSYNCED:
            return 0  # gone
        if watcher.stream.is_paused:
            assert self._huge is not None, "nothing is told of history"
            self._huge.missed.add(watcher)
            return 0
        watcher.next_revision = main + 1
        return self._line_up(watcher, self.header(self._source.revision), events, responses)

    def _line_up(
        self, watcher: Watcher, head: bytes, events: EncodedEvents, responses: dict[bytes, bytes]
    ) -> int:
        stream = watcher.stream
        self._lined_up[stream] = None
        self.events_total += events.count
        if watcher.wants_fragments or events.octets >= LARGE_OCTETS_MIN:
            return stream.put_parts(watcher, head, events.parts)
        watcher.is_idle = False
        head += watcher.id_octets
        response = responses.get(head)
        if response is None:
            if len(responses) >= SHARED_RESPONSES_MAX:
                responses.clear()
            response = responses[head] = b"".join((head, *events.parts))
        stream.outgoing.append(response)
        return len(response)

    def _flush(self) -> None:
        lined_up, self._lined_up = self._lined_up, {}
        for stream in lined_up:
            stream.flush()

    def _notify_one(self, main: int, event: Event) -> None:
        """`_notify_all` for one event: of watchers with equal ids and wants, one encoding."""
        key, is_delete, record = event
        matching = self._index.matching(key)
        if not matching:
            return
        if is_too_much(self._encoder, main, event, matching, self._direct_max):
            self._line_behind(main, [event])
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
                    previous = self._encoder.previous(key, is_delete, record, main)
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
        made = 0
        for event in events:
            shared = SharedEvent(main, event)
            for watcher in self._index.matching(event[0]):
                if watcher.filters & shared.blocked or watcher.next_revision > main:
                    continue
                if watcher.stream.is_paused:
                    self._fall_behind(watcher, main)
                    watcher.stream.lagging[watcher] = None
                    continue
                octets = self._encoder.octets(shared, watcher.wants_previous)
                gathered.setdefault(watcher, []).append(octets)
                made += len(octets)
            if made > DIRECT_OCTETS_MAX:
                self._line_behind(main, events)
                return
        head = self.header(main)
        for watcher, parts in gathered.items():
            watcher.stream.put_events(watcher, head, parts)
            self.events_total += len(parts)
        for stream in {watcher.stream: None for watcher in gathered}:
            stream.flush()

    def _fall_behind(self, watcher: Watcher, main: int) -> None:
        self._index.remove(watcher)
        watcher.state = UNSYNCED
        watcher.next_revision = main
        watcher.stream.behind += 1
        self.slow_watchers += 1

    # Catching up.

    def work(self, now_ms: int) -> bool:
        """Do a bounded piece of what is due; return whether there is more to do now."""
        self._now_ms = now_ms
        cost = 0
        while self._fans and cost < self._step_cost:
            fan = self._fans[0]
            cost += fan.work(self._step_cost - cost)
            if fan.is_done:
                self._fans.popleft()
                self._queued_events -= self._fans[0].size if self._fans else 0
        self.progress.tick(now_ms)
        if self.progress.has_reports and not self._fans:
            current = self._source.revision
            self.progress.report(self.header(current), current)
        if self._huge is not None:
            self._work_on_huge(self._huge)
        elif self._unsynced and not self._sending:
            self._catch_up()
        if self._sending:
            self._send_batches()
        for _ in range(min(DISMISSED_MAX, len(self._leaving))):
            self.dismiss(self._leaving.pop())
        return self._has_more

    def _work_on_huge(self, huge: HugeRevision) -> None:
        if not huge.work(self._step_cost):
            return
        self._huge = None
        for watcher in huge.waiting():
            if watcher not in huge.missed:
                watcher.next_revision = max(watcher.next_revision, huge.main + 1)
                self._rejoin(watcher)
            elif watcher.stream.is_paused:
                watcher.stream.lagging[watcher] = None
            else:
                self._unsynced[watcher] = None

    def _rejoin(self, watcher: Watcher) -> None:
        """Let a watcher that is in no line go on: live, or at the end of the line."""
        if watcher.next_revision <= self._source.revision:
            self._unsynced[watcher] = None
            return
        watcher.state = SYNCED
        watcher.stream.behind -= 1
        self.slow_watchers -= 1
        self._index.add(watcher)

    def _catch_up(self) -> None:
        """Read one slice of history where the first in turn stands; share it with others."""
        group = self._next_group()
        if not group:
            return
        first = group[0].next_revision
        last = self._source.revision
        changes: list[Change] = []
        if first <= last:
            limit = self._slice_changes_max + 1
            changes, is_cut = read_some(self._backend, first, 0, last, limit)
            if is_cut:
                # The last revision may be cut.
                last = changes[-1].main - 1
                if last < first:
                    self._begin_huge(first, first, group, changes)
                    return
                while changes and changes[-1].main > last:
                    changes.pop()
        sharing = [w for w in group if first <= w.next_revision <= last + 1]
        if changes and changes[0].main in self._heavy:
            self._begin_huge(first, changes[0].main, sharing, [])
            return
        full, reached, size, heavy = gather(self._encoder, sharing, changes, last, self._direct_max)
        if heavy:
            self._heavy.append(heavy)
        self._batches_octets += size
        self._advance(sharing, full, reached)

    def _advance(self, sharing: list[Watcher], full: dict[Watcher, int], reached: int) -> None:
        """Note how far a slice has brought its watchers, and line up those that are to be sent.

        Until it is sent a watcher is in no other line: what is live would come before.
        """
        is_too_much = self._batches_octets > self._batches_octets_max
        for watcher in sharing:
            if watcher in full:
                watcher.next_revision = full[watcher]
            elif watcher.next_revision <= reached:
                watcher.next_revision = reached + 1
            del self._unsynced[watcher]
            is_reached = watcher.next_revision > self._source.revision
            if watcher.batch is not None and (is_reached or is_too_much or watcher in full):
                self._sending.append(watcher)
            else:
                self._rejoin(watcher)

    def _send_batches(self) -> None:
        """Send about `SLICE_BYTES_MAX` of what was gathered; passed by at most one batch."""
        size = 0
        flushed: dict[WatchStream, None] = {}
        while self._sending and size < SLICE_BYTES_MAX:
            watcher = self._sending.popleft()
            stream = watcher.stream
            if watcher.state != UNSYNCED:
                continue  # it is gone
            if stream.is_paused:
                self._rewind(watcher)
                stream.lagging[watcher] = None
                continue
            size += self._put_batch(watcher)
            flushed[stream] = None
            if watcher.state == UNSYNCED:  # what is large was sent, which may end the stream
                self._rejoin(watcher)
        for stream in flushed:
            stream.flush()

    def _begin_huge(
        self, first: int, main: int, group: list[Watcher], changes: list[Change]
    ) -> None:
        """Tell those of ``group`` of revision ``main`` in steps that have come to ``first``.

        Nothing happened between the two.  ``changes``: the beginning of ``main``, if it was read.
        """
        sharing = [w for w in group if first <= w.next_revision <= main]
        for watcher in sharing:
            watcher.next_revision = main
            del self._unsynced[watcher]
            if self._put_batch(watcher):
                self._lined_up[watcher.stream] = None
        self._flush()
        self._huge = HugeRevision(
            main,
            sharing,
            changes,
            self._backend,
            limit=self._slice_changes_max,
            encoder=self._encoder,
            put=self._put_history,
            flush=self._flush,
        )

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

    def _put_batch(self, watcher: Watcher) -> int:
        """Line up what was gathered for a watcher; returns how many octets that are."""
        batch = watcher.batch
        if batch is None:
            return 0
        if batch.events:
            self.events_total += len(batch.events)
            watcher.stream.put_parts(watcher, self.header(self._source.revision), batch.events)
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
