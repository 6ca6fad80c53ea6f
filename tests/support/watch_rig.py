"""A watch hub over a small store of its own, and clients that can stop reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from etcdtw.mvcc.watch.fan_out import Event
from etcdtw.mvcc.watch.hub import WatchHub
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import mvccpb
from tests.support.model_backend import ModelBackend

PROGRESS_INTERVAL_MS = 10_000


def encode_header(revision: int) -> bytes:
    """Return the header field of a response as a node makes it."""
    octets: bytes = pb.ResponseHeader(
        cluster_id=1, member_id=2, revision=revision, raft_term=3
    ).SerializeToString()
    return b"\x0a" + bytes((len(octets),)) + octets


class SmallStore:
    """Puts and deletes by revision.  ``log`` remembers what compaction removes."""

    def __init__(self) -> None:
        self.backend = ModelBackend()
        self.revision = 1
        self.compact_revision = -1
        self.has_watchers = False
        self.uncollected: list[Event] = []
        self.log: list[tuple[int, bytes, bool, bytes, bytes | None]] = []
        """(main, key, is_delete, record, previous record)."""

    def take_events(self) -> list[Event]:
        events, self.uncollected = self.uncollected, []
        return events

    def apply(self, operations: list[tuple[bytes, bytes | None]]) -> list[Event]:
        """Do puts and deletes (value None) in one revision; return what changed."""
        main = self.revision + 1
        events: list[Event] = []
        for key, value in operations:
            old = self.backend.get(key)
            sub = len(events)
            if value is None:
                if old is None:
                    continue
                record = mvccpb.KeyValue(key=key, mod_revision=main).SerializeToString()
                self.backend.delete(main, sub, key)
            else:
                before = mvccpb.KeyValue.FromString(old) if old is not None else None
                record = mvccpb.KeyValue(
                    key=key,
                    create_revision=before.create_revision if before else main,
                    mod_revision=main,
                    version=before.version + 1 if before else 1,
                    value=value,
                ).SerializeToString()
                self.backend.put(main, sub, key, record, old is None)
            events.append((key, value is None, record))
            self.log.append((main, key, value is None, record, old))
        if events:
            self.revision = main
        return events

    def compact(self, revision: int) -> None:
        self.compact_revision = revision
        self.backend.schedule_compaction(revision)


class Client:
    """The far end of one watch stream.  While ``is_slow`` its output counts as blocked."""

    def __init__(self, hub: WatchHub, now_ms: int) -> None:
        self.is_slow = False
        self.responses: list[Any] = []
        self.batches: list[int] = []
        """How many responses came with each send."""
        self.on_response: Callable[[], None] | None = None
        self.stream = hub.open(self._take, now_ms)

    def _take(self, responses: list[bytes]) -> bool:
        self.batches.append(len(responses))
        self.responses += [pb.WatchResponse.FromString(octets) for octets in responses]
        if self.on_response is not None:
            self.on_response()
        return self.is_slow

    def create(self, key: bytes, range_end: bytes = b"", **options: Any) -> Any:
        """Ask for a watch; return the answer, which is taken off ``responses``."""
        place = len(self.responses)
        self.stream.create(pb.WatchCreateRequest(key=key, range_end=range_end, **options))
        return self.responses.pop(place)

    def take(self) -> list[Any]:
        """Return and forget what has arrived."""
        responses, self.responses = self.responses, []
        return responses

    def block(self) -> None:
        """Stop reading, with something on the way."""
        self.is_slow = True
        self.stream.is_paused = True

    def unblock(self) -> None:
        """Read all that is on the way."""
        self.is_slow = False
        self.stream.resume()


class WatchRig:
    """A store, its hub and a time that the test moves."""

    def __init__(self, **options: Any) -> None:
        self.store = SmallStore()
        self.now_ms = 1_000_000
        self.wakes = 0
        options.setdefault("progress_interval_ms", PROGRESS_INTERVAL_MS)
        self.hub = WatchHub(
            self.store, self.store.backend, encode_header, lambda: 0.5, self._wake, **options
        )

    def _wake(self) -> None:
        self.wakes += 1

    def client(self) -> Client:
        return Client(self.hub, self.now_ms)

    def apply(self, *operations: tuple[bytes, bytes | None]) -> int:
        """Do puts and deletes (value None) in one revision, as the node would."""
        events = self.store.apply(list(operations))
        if events and self.store.has_watchers:
            self.hub.notify(self.store.revision, events)
        return self.store.revision

    def put(self, key: bytes, value: bytes = b"v") -> int:
        return self.apply((key, value))

    def delete(self, key: bytes) -> int:
        return self.apply((key, None))

    def settle(self) -> int:
        """Work until nothing is left; return how many times it took."""
        count = 1
        while self.hub.work(self.now_ms):
            count += 1
            assert count < 10_000, "work never ends"
        return count

    def advance(self, ms: int) -> None:
        self.now_ms += ms
        self.hub.work(self.now_ms)


def keys_of(responses: list[Any]) -> list[bytes]:
    """Return the keys of all events in order."""
    return [event.kv.key for response in responses for event in response.events]
