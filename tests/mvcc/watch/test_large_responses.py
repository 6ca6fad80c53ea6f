"""A large response of a watcher is never joined where its parts can be sent."""

from __future__ import annotations

import pytest

from etcdtw.mvcc.watch.octets import fragment_parts, fragments
from etcdtw.mvcc.watch.stream import LARGE_OCTETS_MIN, WatchStream
from etcdtw.wire import etcdserverpb as pb
from tests.support.watch_rig import WatchRig, encode_header

VALUE = bytes(1_000)
KEYS_COUNT = LARGE_OCTETS_MIN // len(VALUE) + 1


class Receiver:
    """A stream's other end: what came, in order, as it came."""

    def __init__(self, rig: WatchRig, fragment: bool = False) -> None:
        self.came: list[tuple[str, bytes]] = []
        self.is_blocked = False
        self.is_closing = False
        self.stream: WatchStream = rig.hub.open(self.send, 0, self.send_parts)
        create = pb.WatchCreateRequest(key=b"k", range_end=b"l", fragment=fragment)
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
