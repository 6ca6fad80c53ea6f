"""One gRPC watch stream and its watchers: requests in, ready responses out.

Knows no gRPC: responses leave through a callable.  Fan-out and catching up are the hub's
(`mvcc.watch.hub`); the states of a watcher are drawn in docs/machines/watch-stream.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from etcdtw.mvcc.watch.octets import (
    CANCELED,
    CREATED,
    encode_compacted,
    encode_reason,
    encode_watch_id,
    fragment_parts,
    fragments,
)
from etcdtw.wire.etcdserverpb import WatchCreateRequest

SYNCED: Final = 0
"""In the hub's index: the next event is delivered live."""
UNSYNCED: Final = 1
"""Behind the present: history is read from ``next_revision`` on."""
COMPACTED: Final = 2
"""Cancelled because its history is gone; the id stays taken until the client cancels it."""
CLOSED: Final = 3
"""Cancelled by the client, or the stream is gone."""

FILTER_PUT: Final = 1
FILTER_DELETE: Final = 2

BATCH_REVISIONS_MAX: Final = 1000
"""Revisions in one response of history, as in etcd; those that a filter leaves out count."""
BATCH_OCTETS_MAX: Final = 16 * 1024 * 1024
"""Octets in one response of history; passed by at most one revision's."""

INVALID_WATCH_ID: Final = -1
"""The id of refused creations and of progress that concerns a whole stream."""

WATCHERS_PER_STREAM_MAX: Final = 100_000
"""About 50 MB of watchers; a client may open more streams."""

REASON_DUPLICATE: Final = "mvcc: duplicate watch ID provided on the WatchStream"
REASON_EMPTY_RANGE: Final = "mvcc: watcher range is empty"
REASON_NEGATIVE: Final = "etcdserver: mvcc: required revision has been compacted"
REASON_TOO_MANY: Final = (
    f"etcdtw: this stream has {WATCHERS_PER_STREAM_MAX} watchers, the most one may have; "
    "open another stream"
)

LARGE_OCTETS_MIN: Final = 1 << 18
"""Octets from which on a response is not joined, where its parts can be sent."""
Send = Callable[[list[bytes]], bool]
"""Sends encoded WatchResponses in order; returns whether the output is now blocked."""


class Batch:
    """Events of history that are gathered for one response of one watcher.

    ``first``: the revision to begin at again if all is dropped.
    """

    __slots__ = ("_began", "_main", "events", "first", "revisions", "size")

    def __init__(self) -> None:
        self.events: list[bytes] = []
        self.first = 0
        self.revisions = 0
        self.size = 0
        self._main = 0
        self._began = (0, 0)  # how many events, of what size, there were before that revision

    def takes(self, main: int) -> bool:
        """Count revision ``main``, if it is another one; False: it belongs to the next response."""
        if main == self._main:
            return True
        if self.revisions >= BATCH_REVISIONS_MAX or self.size >= BATCH_OCTETS_MAX:
            return False
        if not self.revisions:
            self.first = main
        self.revisions += 1
        self._main = main
        self._began = len(self.events), self.size
        return True

    def add(self, event: bytes) -> None:
        """Take one more event of the revision counted last."""
        self.events.append(event)
        self.size += len(event)

    def take_back(self, main: int) -> int:
        """Forget what revision ``main`` has added, if it came last; returns its octets."""
        if main != self._main:
            return 0
        octets = self.size - self._began[1]
        del self.events[self._began[0] :]
        self.size -= octets
        self.revisions -= 1
        self._main = 0
        return octets


def _nobody(responses: list[bytes]) -> bool:
    return False


class Watcher:
    """One watch: what it wants and how far it has come.  Owned by its stream.

    It has been sent every wanted event before ``next_revision``; while synced, every one up
    to the hub's latest revision as well.
    """

    __slots__ = (
        "batch",
        "end",
        "filters",
        "id_octets",
        "is_exact",
        "is_idle",
        "key",
        "next_revision",
        "start_revision",
        "state",
        "stream",
        "wants_fragments",
        "wants_previous",
        "wants_progress",
        "watch_id",
    )

    def __init__(self, stream: WatchStream, watch_id: int, request: WatchCreateRequest) -> None:
        range_end = request.range_end
        self.stream = stream
        self.watch_id = watch_id
        self.id_octets = encode_watch_id(watch_id)
        self.key: bytes = request.key or b"\0"
        self.is_exact = not range_end
        self.end: bytes | None = None if range_end == b"\0" else range_end
        self.filters = 0
        for kind in request.filters:
            # NOPUT is 0 and NODELETE is 1; other numbers filter nothing.
            self.filters |= (FILTER_PUT, FILTER_DELETE)[kind] if kind in (0, 1) else 0
        self.wants_previous: bool = request.prev_kv
        self.wants_fragments: bool = request.fragment
        self.wants_progress: bool = request.progress_notify
        # No event since the last progress tick, so that the next tick reports.
        self.is_idle = True
        self.start_revision: int = request.start_revision
        self.batch: Batch | None = None  # while history is gathered
        self.next_revision = 0
        self.state = CLOSED

    @property
    def keys_size(self) -> int:
        return len(self.key) + len(self.end or b"")

    @property
    def range_end(self) -> bytes:
        """The end of what is watched, in the form of requests."""
        if self.is_exact:
            return b""
        return b"\0" if self.end is None else self.end


class StreamHub(Protocol):
    """What a stream needs of its hub."""

    def header(self, revision: int) -> bytes: ...
    def revision(self) -> int: ...
    def size_max(self) -> int: ...
    @property
    def is_telling(self) -> bool: ...
    def admit(self, watcher: Watcher) -> None: ...
    def dismiss(self, watcher: Watcher) -> None: ...
    def resumed(self, stream: WatchStream) -> None: ...
    def closed(self, stream: WatchStream) -> None: ...
    def expects_progress(self, stream: WatchStream) -> None: ...


class WatchStream:
    """The watchers of one gRPC stream.

    ``is_paused``: the output is blocked.  Nothing is sent to it on the stream's own account
    then; a watcher that misses an event falls behind and reads it from history later.
    """

    __slots__ = (
        "_hub",
        "_next_id",
        "_send",
        "_send_parts",
        "behind",
        "futures",
        "is_open",
        "is_paused",
        "keys_size",
        "lagging",
        "outgoing",
        "progress_due_ms",
        "watchers",
    )

    def __init__(self, hub: StreamHub, send: Send, send_parts: Send | None) -> None:
        """``send_parts``: sends the one response that is joined from what it gets."""
        self._hub = hub
        self._send = send
        self._send_parts = send_parts
        self._next_id = 0
        self.is_open = True
        self.is_paused = False
        self.watchers: dict[int, Watcher] = {}
        self.keys_size = 0
        """Octets of the keys that the watchers wait for."""
        # Unsynced watchers that the hub has set aside because the stream is paused.
        self.lagging: dict[Watcher, None] = {}
        self.outgoing: list[bytes] = []
        self.progress_due_ms = 0
        self.behind = 0
        """Watchers that are not synced; kept by the hub."""
        self.futures: dict[int, Watcher] = {}
        """Watchers that began in the future, when they were created; by id."""

    # Requests.

    def create(self, request: WatchCreateRequest) -> None:
        """Answer a create request; from now on the watcher's events flow.

        Empty key: the key ``\\0``.  Empty range_end: that key alone; ``\\0``: no end.
        """
        reason = self._refusal(request)
        if reason:
            self.refuse(reason)
            return
        watch_id: int = request.watch_id
        if watch_id == 0:
            while self._next_id in self.watchers:
                self._next_id += 1
            watch_id = self._next_id
            self._next_id += 1
        watcher = Watcher(self, watch_id, request)
        current = self._hub.revision()
        watcher.next_revision = watcher.start_revision or current + 1
        self.watchers[watch_id] = watcher
        if watcher.start_revision > current:
            self.futures[watch_id] = watcher
        self.keys_size += watcher.keys_size
        if watcher.wants_progress:
            self._hub.expects_progress(self)
        # Before admission, so that no event precedes it.
        self._answer(self._hub.header(current) + watcher.id_octets + CREATED)
        if self.is_open:
            self._hub.admit(watcher)

    def _refusal(self, request: WatchCreateRequest) -> str:
        key, range_end = request.key or b"\0", request.range_end
        if request.start_revision < 0:
            return REASON_NEGATIVE
        if range_end not in (b"", b"\0") and range_end <= key:
            return REASON_EMPTY_RANGE
        if request.watch_id in self.watchers and request.watch_id != 0:
            return REASON_DUPLICATE
        if len(self.watchers) >= WATCHERS_PER_STREAM_MAX:
            return REASON_TOO_MANY
        return ""

    def refuse(self, reason: str) -> None:
        """Answer a create request that is denied: created, canceled and the reason."""
        self._answer(
            self._hub.header(self._hub.revision())
            + encode_watch_id(INVALID_WATCH_ID)
            + CREATED
            + CANCELED
            + encode_reason(reason)
        )

    def cancel(self, watch_id: int, reason: str = "") -> None:
        """Answer a cancel request.  An unknown id gets no answer; no event follows one.

        With a reason it is this member that cancels.
        """
        watcher = self.watchers.pop(watch_id, None)
        if watcher is None:
            return
        self.futures.pop(watch_id, None)
        self.keys_size -= watcher.keys_size
        self._hub.dismiss(watcher)
        told = encode_reason(reason) if reason else b""
        self._answer(self._hub.header(self._hub.revision()) + watcher.id_octets + CANCELED + told)

    def request_progress(self) -> None:
        """Answer a progress request if every watcher has been sent all there is.

        Otherwise there is no answer: a client asks again.  Nor is there one without
        watchers (etcd 3.7) or while the output is blocked.
        """
        current = self._hub.revision()
        if self.is_paused or not self.watchers or self.behind or self._hub.is_telling:
            return
        # However many watchers there are, none is looked at twice.
        while self.futures:
            watch_id, watcher = next(iter(self.futures.items()))
            if watcher.start_revision > current:
                return
            del self.futures[watch_id]
        self._answer(self._hub.header(current) + encode_watch_id(INVALID_WATCH_ID))

    def resume(self) -> None:
        """The output has drained: those that fell behind may catch up."""
        if self.is_open and self.is_paused:
            self.is_paused = False
            self._hub.resumed(self)

    def close(self) -> None:
        """The stream is gone; nothing is sent any more."""
        if not self.is_open:
            return
        self.is_open = False
        self.outgoing = []
        self._send = _nobody
        self._send_parts = _nobody
        self._hub.closed(self)
        self.watchers = {}
        self.futures = {}
        self.keys_size = 0

    # For the hub.

    def put_events(self, watcher: Watcher, head: bytes, events: list[bytes]) -> None:
        """Line up the response, or the fragments, with a watcher's events."""
        watcher.is_idle = False
        head += watcher.id_octets
        if watcher.wants_fragments:
            self.outgoing += fragments(head, events, self._hub.size_max())
        else:
            self.outgoing.append(head + b"".join(events))

    def put_parts(self, watcher: Watcher, head: bytes, events: list[bytes]) -> int:
        """As `put_events`; what is large is sent unjoined, at once.  Returns the octets."""
        watcher.is_idle = False
        head += watcher.id_octets
        messages = [[head, *events]]
        if watcher.wants_fragments:
            messages = fragment_parts(head, events, self._hub.size_max())
        total = 0
        for message in messages:
            size = sum(map(len, message))
            total += size
            send_parts = self._send_parts
            if size < LARGE_OCTETS_MIN or send_parts is None:
                self.outgoing.append(b"".join(message))
                continue
            self.flush()  # what is lined up comes first; it may end the stream
            if self.is_open and send_parts(message):
                self.is_paused = True
        return total

    def put_compacted(self, watcher: Watcher, compact_revision: int) -> None:
        """Line up the end of a watcher whose history is gone.  Its header has no revision."""
        watcher.state = COMPACTED
        head = self._hub.header(0) + watcher.id_octets + CANCELED
        self.outgoing.append(head + encode_compacted(compact_revision))

    def flush(self) -> None:
        """Send what is lined up, and learn whether the output is blocked."""
        outgoing = self.outgoing
        if outgoing and self.is_open:
            self.outgoing = []
            # Only `resume` ends a pause, or those set aside would be forgotten.
            if self._send(outgoing):
                self.is_paused = True

    def report_progress(self, head: bytes, current: int, watchers: Iterable[Watcher]) -> None:
        """A progress tick: tell the idle watchers how far they are, the others next time."""
        for watcher in watchers:
            if not watcher.wants_progress or watcher.state == CLOSED:
                continue
            is_reached = watcher.state == SYNCED and watcher.start_revision <= current
            if watcher.is_idle and is_reached and not self.is_paused:
                self.outgoing.append(head + watcher.id_octets)
            watcher.is_idle = True
        self.flush()

    def _answer(self, response: bytes) -> None:
        self.outgoing.append(response)
        self.flush()
