"""Large responses are not joined where their parts can be sent, and made a few values at a time."""

from __future__ import annotations

import pytest

from etcdtw.mvcc.watch.bounds import DIRECT_OCTETS_MAX, SLICE_READ_MAX
from etcdtw.mvcc.watch.octets import fragment_parts, fragments
from etcdtw.mvcc.watch.stream import LARGE_OCTETS_MIN, WatchStream
from etcdtw.wire import etcdserverpb as pb
from tests.support.watch_rig import Client, WatchRig, encode_header, keys_of

VALUE = bytes(1_000)
KEYS_COUNT = LARGE_OCTETS_MIN // len(VALUE) + 1


class Receiver:
    """A stream's other end: what came, in order, as it came."""

    def __init__(self, rig: WatchRig, fragment: bool = False, start_revision: int = 0) -> None:
        self.came: list[tuple[str, bytes]] = []
        self.is_blocked = False
        self.is_closing = False
        self.stream: WatchStream = rig.hub.open(self.send, 0, self.send_parts)
        create = pb.WatchCreateRequest(
            key=b"k", range_end=b"l", fragment=fragment, start_revision=start_revision
        )
        self.stream.create(create)
        self.came.clear()

    def send(self, responses: list[bytes]) -> bool:
        self.came += [("whole", response) for response in responses]
        if self.is_closing:
            self.stream.close()
        return self.is_blocked

    def send_parts(self, parts: list[bytes]) -> bool:
        assert len(parts) > 1
        assert all(parts)
        self.came.append(("parts", b"".join(parts)))
        if self.is_closing:
            self.stream.close()
        return self.is_blocked

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.came]

    def keys(self) -> list[bytes]:
        responses = [pb.WatchResponse.FromString(octets) for _, octets in self.came]
        return [event.kv.key for response in responses for event in response.events]


def change(rig: WatchRig, count: int = KEYS_COUNT) -> list[bytes]:
    keys = [b"k%05d" % i for i in range(count)]
    rig.apply(*[(key, VALUE) for key in keys])
    return keys


@pytest.fixture
def rig() -> WatchRig:
    return WatchRig(direct_max=10)


def test_a_large_response_goes_in_parts_behind_smaller_ones(rig: WatchRig) -> None:
    receiver = Receiver(rig)
    first = change(rig, 20)
    keys = change(rig)
    rig.settle()
    assert receiver.kinds() == ["whole", "parts"]
    assert receiver.keys() == first + keys


def test_parts_are_sent_from_the_bound_on(rig: WatchRig) -> None:
    receiver = Receiver(rig)
    stream = receiver.stream
    (watcher,) = stream.watchers.values()
    rest = len(encode_header(5) + watcher.id_octets) + 1
    for more in (-1, 0):
        part = bytes(LARGE_OCTETS_MIN - rest + more)
        assert stream.put_parts(watcher, encode_header(5), [part, b"x"]) == LARGE_OCTETS_MIN + more
    stream.flush()
    assert receiver.kinds() == ["whole", "parts"]


def test_large_fragments_go_in_parts(rig: WatchRig) -> None:
    rig = WatchRig(direct_max=10, response_size_max=LARGE_OCTETS_MIN + 100_000)
    receiver = Receiver(rig, fragment=True)
    keys = change(rig, 2 * KEYS_COUNT)
    rig.settle()
    assert receiver.kinds() == ["parts", "whole"]
    assert receiver.keys() == keys
    assert max(len(octets) for _, octets in receiver.came) < LARGE_OCTETS_MIN + 100_000


def test_a_blocked_stream_is_paused_by_parts_too(rig: WatchRig) -> None:
    receiver = Receiver(rig)
    receiver.is_blocked = True
    keys = change(rig)
    rig.settle()
    assert receiver.stream.is_paused
    later = change(rig, 3)
    receiver.is_blocked = False
    receiver.stream.resume()
    rig.settle()
    assert receiver.keys() == keys + later


def test_a_stream_that_ends_meanwhile_gets_nothing_more(rig: WatchRig) -> None:
    receiver = Receiver(rig)
    stream = receiver.stream
    (watcher,) = stream.watchers.values()
    stream.outgoing.append(b"")
    receiver.is_closing = True
    stream.put_parts(watcher, encode_header(5), [bytes(LARGE_OCTETS_MIN), b"x"])
    stream.flush()
    assert receiver.kinds() == ["whole"]


def test_fragments_are_their_parts_joined() -> None:
    events = [b"12345678"] * 10
    parts = fragment_parts(b"head", events, 24)
    assert [b"".join(some) for some in parts] == fragments(b"head", events, 24)
    assert len(parts) > 3


def test_a_large_response_of_history_is_sent_in_parts_and_may_end_its_stream() -> None:
    rig = WatchRig()
    for i in range(12):
        rig.put(b"k%02d" % i, bytes(SLICE_READ_MAX // 5))
    receiver, other = Receiver(rig, start_revision=1), Receiver(rig, start_revision=1)
    other.is_closing = True
    rig.settle()
    assert receiver.kinds() == ["parts"]
    assert other.kinds() == ["parts"]
    rig.put(b"k", b"later")
    assert receiver.keys() == [*[b"k%02d" % i for i in range(12)], b"k"]
    assert other.keys() == receiver.keys()[:-1]
    assert (rig.hub.watchers, rig.hub.slow_watchers) == (1, 0)


def many_on_one_stream(rig: WatchRig, count: int) -> Client:
    client = rig.client()
    for _ in range(count):
        client.create(b"k", b"l")
    return client


def test_a_large_put_for_many_watchers_of_one_stream_is_told_in_steps() -> None:
    rig = WatchRig()
    client = many_on_one_stream(rig, 100)
    rig.put(b"k", bytes(SLICE_READ_MAX // 2))
    assert rig.hub.is_telling
    assert client.responses == []
    rig.settle()
    assert [one.watch_id for one in client.take()] == list(range(100))


def test_a_large_txn_for_many_watchers_is_told_in_steps() -> None:
    rig = WatchRig()
    client = many_on_one_stream(rig, 100)
    rig.apply((b"k1", bytes(DIRECT_OCTETS_MAX // 150)), (b"k2", bytes(DIRECT_OCTETS_MAX // 150)))
    assert rig.hub.is_telling
    assert client.responses == []
    rig.settle()
    assert keys_of(client.take()) == [b"k1", b"k2"] * 100


@pytest.mark.parametrize("is_live", [True, False])
@pytest.mark.parametrize("watchers", [1, 3])
def test_a_delete_tells_what_was_there_a_few_values_at_a_time(is_live: bool, watchers: int) -> None:
    rig = WatchRig()
    keys = [b"k%02d" % i for i in range(40)]
    for key in keys:
        rig.put(key, bytes(DIRECT_OCTETS_MAX // 12))
    clients = [rig.client() for _ in range(watchers)]
    read = rig.store.backend.octets_read
    if is_live:
        for client in clients:
            client.create(b"k", b"l", prev_kv=True)
    read.clear()
    rig.apply(*[(key, None) for key in keys])
    assert sum(read) < DIRECT_OCTETS_MAX * 1.2
    if not is_live:
        for client in clients:
            client.create(b"k", b"l", prev_kv=True, start_revision=2)
    while True:
        read.clear()
        has_more = rig.hub.work(rig.now_ms)
        assert sum(read) < DIRECT_OCTETS_MAX + SLICE_READ_MAX * 1.5
        if not has_more:
            break
    for client in clients:
        events = [event for one in client.take() for event in one.events][-40:]
        assert [event.kv.key for event in events] == keys
        assert all(len(event.prev_kv.value) == DIRECT_OCTETS_MAX // 12 for event in events)


@pytest.mark.parametrize("puts", [1, 12], ids=["each of its own", "twelve to a revision"])
@pytest.mark.parametrize("watchers", [1, 3])
def test_large_values_of_history_are_read_a_few_at_a_time(puts: int, watchers: int) -> None:
    rig = WatchRig()
    size = SLICE_READ_MAX // 5
    for i in range(0, 24, puts):
        rig.apply(*[(b"k%02d" % n, bytes(size)) for n in range(i, i + puts)])
    read = rig.store.backend.octets_read
    clients = [rig.client() for _ in range(watchers)]
    for client in clients:
        client.create(b"k", b"l", start_revision=1)
    while True:
        read.clear()
        has_more = rig.hub.work(rig.now_ms)
        assert sum(read) < SLICE_READ_MAX + 2 * size
        if not has_more:
            break
    for client in clients:
        assert keys_of(client.take()) == [b"k%02d" % i for i in range(24)]


def test_a_put_larger_than_what_is_read_at_a_time_is_told() -> None:
    rig = WatchRig()
    for _ in range(3):
        rig.put(b"k", bytes(SLICE_READ_MAX))
    client = rig.client()
    client.create(b"k", start_revision=1)
    rig.settle()
    assert [event.kv.version for one in client.take() for event in one.events] == [1, 2, 3]
