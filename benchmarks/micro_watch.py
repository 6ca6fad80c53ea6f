"""What one watch response, one renewal and one slice of history cost, without any I/O.

Run: python benchmarks/micro_watch.py
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from etcdtw.lease.lessor import Lessor
from etcdtw.mvcc.backend import Change
from etcdtw.mvcc.watch.fan_out import Event
from etcdtw.mvcc.watch.hub import WatchHub
from etcdtw.rpc.lease.service import LeaseService
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import mvccpb

HEADER = b"\x0a\x18" + bytes(24)
RECORD: bytes = mvccpb.KeyValue(
    key=b"key", create_revision=2, mod_revision=300_000, version=9, value=bytes(256)
).SerializeToString()


class Source:
    """A store and backend with nothing but numbers and one record."""

    has_watchers = False
    compact_revision = -1

    def __init__(self) -> None:
        self.revision = 1

    def take_events(self) -> list[Event]:
        return []

    def get_at(self, key: bytes, revision: int) -> bytes | None:
        return RECORD

    def changes_from(
        self, main: int, sub: int, last: int, limit: int, octets_max: int = 0
    ) -> list[Change]:
        last = min(last, main + limit - 1)
        return [Change(main, 0, False, RECORD) for main in range(main, last + 1)]


class QuietCall:
    """A call that takes everything at once."""

    on_message: Callable[[bytes], None]
    on_half_close = on_end = on_drain = None
    is_open = True
    queued = 0
    deadline_ms = None

    def metadata(self, name: bytes) -> bytes | None:
        return None

    def send(self, message: bytes) -> None:
        pass


class QuietNode:
    """As much of a node as a renewal needs."""

    leader_id = 1

    @property
    def now_ms(self) -> int:
        return int(self.clock.seconds() * 1000)

    def __init__(self) -> None:
        self.clock: Any = Clock()
        self.lessor = Lessor(2)
        self.lessor.promote(0)
        self.store = Source()

    def current_lessor(self) -> Lessor:
        return self.lessor

    def header(self, revision: int) -> bytes:
        return HEADER


def best_us(work: Callable[[], None], count: int, repeats: int = 7) -> float:
    """Return the least CPU time of one of ``count`` pieces of ``work``, in microseconds."""
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best / count * 1e6


def hub_with(source: Source) -> WatchHub:
    """Return a hub that answers nobody and tells nobody."""
    return WatchHub(source, source, lambda revision: HEADER, random.Random(1).random, lambda: None)


def fan_out(streams: int, per_stream: int, **options: Any) -> float:
    """Return the cost of one response when one key has many watchers."""
    source = Source()
    hub = hub_with(source)
    for _ in range(streams):
        stream = hub.open(lambda responses: False, 0)
        for _ in range(per_stream):
            stream.create(pb.WatchCreateRequest(key=b"key", **options))

    def work() -> None:
        for _ in range(50):
            source.revision += 1
            hub.notify(source.revision, [(b"key", False, RECORD)])
            while hub.work(0):  # very many watchers are told in steps
                pass

    return best_us(work, 50 * streams * per_stream)


def disjoint_ranges(count: int) -> float:
    """Return the cost of an event that concerns one of ``count`` range watchers."""
    source = Source()
    hub = hub_with(source)
    stream = hub.open(lambda responses: False, 0)
    for i in range(count):
        stream.create(pb.WatchCreateRequest(key=b"%06d/" % i, range_end=b"%06d0" % i))
    keys = [b"%06d/x" % random.Random(2).randrange(count) for _ in range(1000)]

    def work() -> None:
        for key in keys:
            source.revision += 1
            hub.notify(source.revision, [(key, False, RECORD)])

    return best_us(work, len(keys))


def catch_up() -> float:
    """Return the cost of one event read from history and delivered."""
    source = Source()
    source.revision = 50_001
    hub = hub_with(source)

    def work() -> None:
        stream = hub.open(lambda responses: False, 0)
        stream.create(pb.WatchCreateRequest(key=b"key", start_revision=2))
        while hub.work(0):
            pass
        stream.close()

    return best_us(work, 50_000, repeats=3)


def keep_alive() -> float:
    """Return the cost of one renewal over the service."""
    node: Any = QuietNode()
    ids = [random.Random(3).getrandbits(63) for _ in range(10_000)]
    for lease_id in ids:
        if not node.lessor.exists(lease_id):
            node.lessor.grant(lease_id, 60)
    call: Any = QuietCall()
    LeaseService(node, random.Random(4).getrandbits, 1.0).keep_alive(call)
    messages = [pb.LeaseKeepAliveRequest(ID=lease_id).SerializeToString() for lease_id in ids]

    def work() -> None:
        for message in messages:
            call.on_message(message)

    return best_us(work, len(messages))


def main() -> None:
    """Print every figure."""
    print(f"fan-out, 100 streams x 10 watchers   {fan_out(100, 10):6.2f} us per response")
    print(f"fan-out, 1000 streams x 1            {fan_out(1000, 1):6.2f} us per response")
    previous = fan_out(100, 10, prev_kv=True)
    print(f"the same with prev_kv, 100 x 10      {previous:6.2f} us per response")
    print(f"one event among 10,000 ranges        {disjoint_ranges(10_000):6.2f} us per event")
    print(f"catching up                          {catch_up():6.2f} us per event")
    print(f"keep-alive, 10,000 leases            {keep_alive():6.2f} us per request")


if __name__ == "__main__":
    main()
