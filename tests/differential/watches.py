"""Watch streams of two members side by side, compared as sequences of events per watcher.

How events are cut into responses, and the revision in the headers of those, is left out.  A
watcher over everything on the left member gives the history, from which follows what each
watcher must have received: so both members missing the same event is found too.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from etcdtw.wire import etcdserverpb as pb
from tests.differential import normalise
from tests.differential.operations import WATCH
from tests.support.wire_client import WireClient, WireStream

SETTLE_TIMEOUT_S: Final = 15.0
POLL_S: Final = 0.002
# Real etcd looks at watchers from the past every 100 ms.  One that is owed nothing yet shows no
# sign of having been looked at, and a compaction before that would cancel it.
CATCH_UP_S: Final = 0.35
PROGRESS_WATCH_ID: Final = -1


class WatchDifferenceError(Exception):
    """Two watch streams disagree; the text says how."""


@dataclass(slots=True)
class Watcher:
    """One watcher as one member has served it."""

    events: list[Any] = field(default_factory=list)
    ends: list[Any] = field(default_factory=list)  # canceled responses


class WatchSide:
    """The watch streams of one member, or spread over the members of one cluster."""

    def __init__(self, name: str, endpoints: Sequence[str], streams: int) -> None:
        self.name = name
        self._clients = [WireClient(endpoint) for endpoint in endpoints]
        self.streams = [self._of_stream(i).open(WATCH) for i in range(streams)]
        self.watchers: list[dict[int, Watcher]] = [{} for _ in range(streams)]
        self.replies: list[list[Any]] = [[] for _ in range(streams)]  # created, progress

    def _of_stream(self, stream: int) -> WireClient:
        return self._clients[stream % len(self._clients)]

    def send(self, stream: int, octets: bytes) -> None:
        self._of_stream(stream).send(self.streams[stream], octets)

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def collect(self, wait_s: float = POLL_S) -> None:
        """Read what has arrived and sort it by watcher."""
        for client in self._clients:
            while client.poll(wait_s):
                wait_s = 0.0
        for i, stream in enumerate(self.streams):
            if stream.is_ended:
                raise WatchDifferenceError(
                    f"{self.name}: the stream ended: {stream.code} {stream.text}"
                )
            for message in stream.take_messages():
                self._take(i, pb.WatchResponse.FromString(message))

    def _take(self, stream: int, response: Any) -> None:
        if response.created or (response.watch_id == PROGRESS_WATCH_ID and not response.canceled):
            self.replies[stream].append(response)
            if response.created and not response.canceled:
                # An id may be used again once its watcher has ended.
                self.watchers[stream][response.watch_id] = Watcher()
        elif response.canceled:
            self.watchers[stream][response.watch_id].ends.append(response)
        elif response.events:
            self.watchers[stream][response.watch_id].events.extend(response.events)

    def reply(self, stream: int, request: Any) -> Any:
        """Wait for the answer to ``request`` (create or progress) on ``stream``."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while not self.replies[stream]:
            if time.monotonic() > deadline:
                raise WatchDifferenceError(f"{self.name} does not answer {request}")
            self.collect()
        return self.replies[stream].pop(0)


@dataclass(slots=True)
class Expected:
    """What a watcher was asked for, and the events that it owes."""

    create: Any
    start_revision: int
    seen: int = 0  # how much of the history has been looked at
    events: list[tuple[int, int, bytes]] = field(default_factory=list)
    is_compacted: bool = False
    caught_up_s: float = 0.0  # when it surely has been, by the monotonic clock


class WatchPair:
    """The same watchers on two members, or on one and a cluster: ``right`` has its endpoints."""

    def __init__(self, left: str, right: Sequence[str], streams: int) -> None:
        self.sides = (WatchSide("left", [left], streams), WatchSide("right", right, streams))
        self.expected: list[dict[int, Expected]] = [{} for _ in range(streams)]
        # Ended by a compaction, but until they are cancelled their ids are taken.
        self._lingering: list[set[int]] = [set() for _ in range(streams)]
        self._history: list[tuple[int, int, bytes]] = []  # (revision, type, key)
        self._revisions: list[int] = []  # of `_history`, for searching
        self._observer = WireClient(left)
        self._observed: WireStream = self._observer.open(WATCH)
        everything = pb.WatchCreateRequest(key=b"\0", range_end=b"\0", start_revision=1)
        self._observer.send(self._observed, _octets(pb.WatchRequest(create_request=everything)))

    def close(self) -> None:
        self._observer.close()
        for side in self.sides:
            side.close()

    def active(self) -> list[tuple[int, int]]:
        """Return (stream, watch id) of every watcher that can be cancelled."""
        return [
            (i, watch_id)
            for i, table in enumerate(self.expected)
            for watch_id in (*table, *sorted(self._lingering[i]))
        ]

    def run(self, operation: Any, revision: int, compact_revision: int) -> None:
        """Do one watch operation on both members; raises `WatchDifferenceError`."""
        request, stream = operation.request, operation.stream
        kind = request.WhichOneof("request_union")
        if kind == "create_request":
            self._create(request, stream, revision, compact_revision)
        elif kind == "cancel_request":
            self._cancel(request, stream)
        elif self._answers_progress(stream, revision):
            self._send(request, stream)
            left, right = (side.reply(stream, request) for side in self.sides)
            if not normalise.created_agree(left, right) or left.header.revision != revision:
                raise WatchDifferenceError(f"progress:\nleft {left}\nright {right}")

    def _send(self, request: Any, stream: int) -> None:
        for side in self.sides:
            side.send(stream, _octets(request))

    def _answers_progress(self, stream: int, revision: int) -> bool:
        # 3.5.1 always answers.  3.7 does not with no watcher, with one from the future, or with
        # one that a compaction has ended: it counts as not synced until it is cancelled.
        table = self.expected[stream].values()
        if not table or self._lingering[stream]:
            return False
        return all(watcher.start_revision <= revision for watcher in table)

    def _create(self, request: Any, stream: int, revision: int, compact_revision: int) -> None:
        create = request.create_request
        self._send(request, stream)
        left, right = (side.reply(stream, request) for side in self.sides)
        if not normalise.created_agree(left, right):
            raise WatchDifferenceError(f"{request}\nleft {left}\nright {right}")
        if left.canceled:
            return
        start_revision = create.start_revision or revision + 1
        expected = Expected(create, start_revision)
        expected.seen = bisect_left(self._revisions, start_revision)
        expected.is_compacted = start_revision < compact_revision
        if start_revision <= revision:
            expected.caught_up_s = time.monotonic() + CATCH_UP_S
        self.expected[stream][left.watch_id] = expected

    def _cancel(self, request: Any, stream: int) -> None:
        watch_id = request.cancel_request.watch_id
        self._send(request, stream)
        if self.expected[stream].pop(watch_id, None) is None:
            if watch_id not in self._lingering[stream]:
                return
            self._lingering[stream].discard(watch_id)
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while not all(side.watchers[stream][watch_id].ends for side in self.sides):
            if time.monotonic() > deadline:
                raise WatchDifferenceError(f"no answer to {request}")
            self._collect()
        self._compare_ended(stream, watch_id)

    def _collect(self) -> None:
        for side in self.sides:
            side.collect()

    def settle(self, revision: int) -> None:
        """Wait until every watcher on both sides has all it is owed, and compare it."""
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        self._observe(revision, deadline)
        self._wait_for_catch_up()
        differences = []
        for stream, table in enumerate(self.expected):
            for watch_id, expected in list(table.items()):
                while not all(self._is_served(side, stream, watch_id) for side in self.sides):
                    if time.monotonic() > deadline:
                        self._compare(stream, watch_id, expected)
                        raise WatchDifferenceError(f"watcher {watch_id} lacks events on both sides")
                    self._collect()
                try:
                    self._compare(stream, watch_id, expected)
                except WatchDifferenceError as error:
                    differences.append(str(error))
                    self._forget(stream, watch_id, expected)
        if differences:
            raise WatchDifferenceError("\n".join(differences))

    def _forget(self, stream: int, watch_id: int, expected: Expected) -> None:
        """Drop what has come in, so that one difference is told once."""
        expected.events.clear()
        for side in self.sides:
            side.watchers[stream][watch_id].events.clear()
            side.watchers[stream][watch_id].ends.clear()

    def _wait_for_catch_up(self) -> None:
        watchers = [expected for table in self.expected for expected in table.values()]
        for expected in watchers:
            self._extend(expected)
        waits = [expected.caught_up_s for expected in watchers if not expected.events]
        time.sleep(max(0.0, max(waits, default=0.0) - time.monotonic()))

    def _observe(self, revision: int, deadline: float) -> None:
        while revision > 1 and (not self._revisions or self._revisions[-1] < revision):
            if time.monotonic() > deadline:
                raise WatchDifferenceError(f"the observer does not reach revision {revision}")
            self._observer.poll(POLL_S)
            for message in self._observed.take_messages():
                for event in pb.WatchResponse.FromString(message).events:
                    self._history.append((event.kv.mod_revision, event.type, event.kv.key))
                    self._revisions.append(event.kv.mod_revision)

    def _extend(self, expected: Expected) -> None:
        if expected.is_compacted:
            return
        create = expected.create
        key, range_end = create.key or b"\0", create.range_end
        for i in range(expected.seen, len(self._history)):
            event = self._history[i]
            if event[0] < expected.start_revision or event[1] in create.filters:
                continue
            if not _covers(key, range_end, event[2]):
                continue
            expected.events.append(event)
        expected.seen = len(self._history)

    def _is_served(self, side: WatchSide, stream: int, watch_id: int) -> bool:
        watcher = side.watchers[stream][watch_id]
        expected = self.expected[stream][watch_id]
        if watcher.ends or expected.is_compacted:
            return bool(watcher.ends)
        events = watcher.events
        return len(events) >= len(expected.events)

    def _compare(self, stream: int, watch_id: int, expected: Expected) -> None:
        left, right = (side.watchers[stream][watch_id] for side in self.sides)
        name = f"stream {stream} watcher {watch_id}: {expected.create}"
        if left.events != right.events:
            raise WatchDifferenceError(f"{name}\n{first_difference(left.events, right.events)}")
        got = [(event.kv.mod_revision, event.type, event.kv.key) for event in left.events]
        if got != expected.events:
            raise WatchDifferenceError(
                f"{name}\nboth sides against the history:\n{first_difference(got, expected.events)}"
            )
        if expected.events:
            expected.caught_up_s = 0.0
        expected.events.clear()
        left.events.clear()
        right.events.clear()
        if left.ends or right.ends:
            self._compare_ended(stream, watch_id)
            self._lingering[stream].add(watch_id)
            del self.expected[stream][watch_id]

    def _compare_ended(self, stream: int, watch_id: int) -> None:
        left, right = (side.watchers[stream][watch_id].ends for side in self.sides)
        if len(left) != len(right) or not all(map(normalise.canceled_agree, left, right)):
            raise WatchDifferenceError(f"ends of watcher {watch_id}:\nleft {left}\nright {right}")
        left.clear()
        right.clear()


def _covers(key: bytes, range_end: bytes, candidate: bytes) -> bool:
    if not range_end:
        return candidate == key
    return candidate >= key and (range_end == b"\0" or candidate < range_end)


def first_difference(left: list[Any], right: list[Any]) -> str:
    """Return where two lists of events part."""
    for i, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return f"event {i}:\nleft {one}\nright {other}"
    longer = max(left, right, key=len)
    rest = longer[min(len(left), len(right)) :][:3]
    return f"left has {len(left)} events, right {len(right)}; the rest begins {rest}"


def _octets(message: Any) -> bytes:
    octets: bytes = message.SerializeToString()
    return octets
