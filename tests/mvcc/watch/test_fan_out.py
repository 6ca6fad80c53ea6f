"""A revision for very many watchers, or a huge one, is told in steps of bounded work."""

from __future__ import annotations

from typing import Any

import pytest

from etcdtw.mvcc.watch.bounds import (
    DISMISSED_MAX,
    QUEUED_REVISIONS_MAX,
    REPORTED_MAX,
    SLICE_BYTES_MAX,
)
from etcdtw.wire import etcdserverpb as pb
from tests.support.watch_rig import Client, WatchRig, keys_of

DIRECT_MAX = 8
STEP_COST = 20
WATCHERS = 30


class Counting(dict[int, Any]):
    """Watchers of a stream that tell how often they were looked through."""

    walks = 0

    def values(self) -> Any:
        self.walks += 1
        return super().values()


@pytest.fixture
def rig() -> WatchRig:
    return WatchRig(direct_max=DIRECT_MAX, step_cost=STEP_COST)


def prefix_watchers(rig: WatchRig, count: int = WATCHERS) -> list[Client]:
    clients = [rig.client() for _ in range(count)]
    for client in clients:
        client.create(b"k", b"l")
    return clients


def some_keys(count: int) -> list[tuple[bytes, bytes | None]]:
    return [(b"k%03d" % i, b"v") for i in range(count)]


def is_telling(rig: WatchRig) -> bool:
    return rig.hub.is_telling


def is_full(rig: WatchRig) -> bool:
    return rig.hub.is_full


def test_few_deliveries_are_made_at_once(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k", b"l")
    rig.apply(*some_keys(DIRECT_MAX // 2))
    assert len(client.take()) == 1
    assert not is_telling(rig)


def test_a_revision_for_many_watchers_is_told_in_steps(rig: WatchRig) -> None:
    clients = prefix_watchers(rig)
    rig.apply(*some_keys(5))
    assert is_telling(rig)
    served = []
    while is_telling(rig):
        rig.hub.work(rig.now_ms)
        served.append(sum(bool(client.responses) for client in clients))
    steps = [later - earlier for earlier, later in zip([0, *served], served, strict=False)]
    assert served[-1] == WATCHERS
    assert max(steps) <= STEP_COST // 3 + 1
    for client in clients:
        (response,) = client.take()
        assert keys_of([response]) == [key for key, _ in some_keys(5)]


def test_watchers_of_one_range_share_one_response(rig: WatchRig) -> None:
    sent: list[bytes] = []

    def send(responses: list[bytes]) -> bool:
        sent.extend(responses)
        return False

    for _ in range(3):
        rig.hub.open(send, 0).create(pb.WatchCreateRequest(key=b"k", range_end=b"l"))
    sent.clear()
    rig.apply(*some_keys(DIRECT_MAX))
    rig.settle()
    assert len(sent) == 3
    assert len({id(octets) for octets in sent}) == 1


def test_later_revisions_wait_behind_it_in_order(rig: WatchRig) -> None:
    clients = prefix_watchers(rig)
    first = rig.apply(*some_keys(5))
    for i in range(3):
        rig.put(b"k%03d" % i)
    rig.settle()
    for client in clients:
        mains = [event.kv.mod_revision for r in client.take() for event in r.events]
        assert mains == [first] * 5 + [first + 1, first + 2, first + 3]


def test_a_watcher_created_meanwhile_is_told_of_nothing_earlier(rig: WatchRig) -> None:
    prefix_watchers(rig)
    rig.apply(*some_keys(5))
    late = rig.client()
    late.create(b"k", b"l")
    last = rig.put(b"k000")
    rig.settle()
    assert [e.kv.mod_revision for r in late.take() for e in r.events] == [last]


def test_no_progress_is_claimed_while_it_is_told(rig: WatchRig) -> None:
    *_, last = clients = prefix_watchers(rig)
    rig.apply(*some_keys(5))
    last.stream.request_progress()
    assert last.take() == []
    rig.settle()
    for client in clients:
        client.take()
    last.stream.request_progress()
    (progress,) = last.take()
    assert progress.header.revision == rig.store.revision


def test_a_huge_revision_of_history_is_read_and_told_in_steps() -> None:
    rig = WatchRig(direct_max=DIRECT_MAX, step_cost=STEP_COST, slice_changes_max=10)
    main = rig.apply(*some_keys(95))
    clients = [rig.client() for _ in range(3)]
    for client in clients:
        client.create(b"k", b"l", start_revision=main)
    assert rig.settle() >= 95 * 3 // STEP_COST // 2
    for client in clients:
        (response,) = client.take()
        assert keys_of([response]) == [key for key, _ in some_keys(95)]
    rig.put(b"k000")
    rig.settle()
    assert all(len(client.take()) == 1 for client in clients)


def test_so_much_waits_behind_it_that_the_hub_takes_no_more(rig: WatchRig) -> None:
    prefix_watchers(rig)
    rig.apply(*some_keys(5))
    for _ in range(QUEUED_REVISIONS_MAX - 1):
        rig.put(b"k000")
    assert not is_full(rig)
    rig.put(b"k000")
    assert is_full(rig)
    rig.hub.store_replaced(rig.store.revision)
    assert not is_full(rig)


def test_a_progress_request_looks_at_no_watcher(rig: WatchRig) -> None:
    client = rig.client()
    for _ in range(20):
        client.create(b"k", b"l")
    far = client.create(b"k", b"l", start_revision=1000)
    watchers = Counting(client.stream.watchers)
    client.stream.watchers = watchers
    for _ in range(10):
        client.stream.request_progress()
    assert client.take() == []
    client.stream.cancel(far.watch_id)
    client.take()
    for _ in range(10):
        client.stream.request_progress()
    assert len(client.take()) == 10
    assert watchers.walks == 0


def test_progress_waits_for_those_that_fell_behind_and_for_no_other(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    client.create(b"x")
    client.block()
    rig.put(b"k")
    client.unblock()
    client.stream.request_progress()
    assert client.take() == []
    rig.settle()
    client.take()
    client.stream.request_progress()
    (progress,) = client.take()
    assert progress.header.revision == rig.store.revision
    client.stream.cancel(0)
    client.stream.cancel(1)
    assert client.stream.behind == 0


def test_the_watchers_of_a_stream_that_has_ended_are_forgotten_in_pieces(rig: WatchRig) -> None:
    client = rig.client()
    for i in range(2 * DISMISSED_MAX + 1):
        client.create(b"k%d" % i)
    other = rig.client()
    other.create(b"k0")
    client.stream.close()
    rig.put(b"k0")
    assert client.take() == []
    pieces = 0
    while rig.hub.work(rig.now_ms):
        pieces += 1
        rig.put(b"k%d" % pieces)
    assert pieces == 2
    assert (rig.hub.watchers, rig.hub.slow_watchers) == (1, 0)
    assert client.take() == []
    assert len(other.take()) == 1


def test_progress_of_very_many_watchers_is_reported_in_pieces() -> None:
    rig = WatchRig(progress_interval_ms=1000)
    client = rig.client()
    count = 2 * REPORTED_MAX + 1
    for _ in range(count):
        client.create(b"k", progress_notify=True)
    rig.now_ms += 1200
    told = []
    while rig.hub.work(rig.now_ms):
        told.append(len(client.responses))
    assert told == [REPORTED_MAX, 2 * REPORTED_MAX]
    ids = {response.watch_id for response in client.take()}
    assert ids == set(range(count))


def test_a_watch_from_before_a_huge_first_revision_is_told_of_it() -> None:
    rig = WatchRig(slice_changes_max=3)
    main = rig.apply(*some_keys(9))
    client = rig.client()
    client.create(b"k", b"l", start_revision=1)
    rig.settle()
    (response,) = client.take()
    assert keys_of([response]) == [key for key, _ in some_keys(9)]
    assert response.events[0].kv.mod_revision == main


def test_batches_of_history_go_out_a_bounded_piece_at_a_time() -> None:
    rig = WatchRig()
    for i in range(3):
        rig.put(b"k%d" % i, bytes(SLICE_BYTES_MAX // 4))
    clients = [rig.client() for _ in range(6)]
    for client in clients:
        client.create(b"k", b"l", start_revision=2)
    served = []
    while rig.hub.work(rig.now_ms):
        served.append(sum(bool(client.responses) for client in clients))
        if len(served) == 1:
            rig.put(b"k9")  # nothing live may come before what was gathered
    steps = [later - earlier for earlier, later in zip([0, *served], served, strict=False)]
    assert max(steps) <= 2
    for client in clients:
        assert keys_of(client.take()) == [b"k0", b"k1", b"k2", b"k9"]
