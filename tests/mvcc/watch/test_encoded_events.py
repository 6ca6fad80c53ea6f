"""The events of a huge revision are joined as they are gathered, and forgotten step by step."""

from __future__ import annotations

import pytest

from etcdtw.mvcc.watch.fan_out import FREED_MAX, JOINED_MAX, EncodedEvents
from etcdtw.wire import etcdserverpb as pb
from tests.support.watch_rig import WatchRig

KEYS_COUNT = 6_000


@pytest.mark.parametrize(("size", "parts"), [(JOINED_MAX - 1, 1), (JOINED_MAX, 1), (1, 2)])
def test_events_are_joined_up_to_the_bound(size: int, parts: int) -> None:
    events = EncodedEvents()
    events.add(b"a" * size)
    events.add(b"b" * (JOINED_MAX - size if parts == 1 else JOINED_MAX))
    events.end()
    assert events.count == 2
    assert len(events.parts) == parts
    assert b"".join(events.parts).strip(b"b") == b"a" * size


def test_a_large_event_is_a_part_of_its_own() -> None:
    events = EncodedEvents()
    large = bytes(JOINED_MAX + 1)
    for octets in (b"x", large, b"y", b"z"):
        events.add(octets)
    events.end()
    assert events.parts == [b"x", large, b"yz"]


def test_a_response_without_events_has_no_parts() -> None:
    events = EncodedEvents()
    events.end()
    assert (events.parts, events.count) == ([], 0)


@pytest.mark.parametrize("fragment", [False, True])
def test_a_huge_revision_comes_whole_and_is_forgotten_step_by_step(fragment: bool) -> None:
    rig = WatchRig(response_size_max=JOINED_MAX + 1_000)
    received: list[pb.WatchResponse] = []

    def send(responses: list[bytes]) -> bool:
        received.extend(map(pb.WatchResponse.FromString, responses))
        return False

    stream = rig.hub.open(send, 0)
    stream.create(pb.WatchCreateRequest(key=b"k", range_end=b"l", fragment=fragment))
    received.clear()
    keys = [b"k%06d" % i for i in range(KEYS_COUNT)]
    rig.apply(*[(key, b"v") for key in keys])
    rig.apply(*[(key, None) for key in keys])
    before = rig.hub.events_total
    while rig.hub._fans:
        fan = rig.hub._fans[0]
        shared = len(fan._shared)
        fan.work(1)
        assert shared - len(fan._shared) <= FREED_MAX
        if fan.is_done:
            assert len(fan._shared) <= FREED_MAX
            rig.hub._fans.popleft()
    assert rig.hub.events_total - before == 2 * KEYS_COUNT
    assert [event.kv.key for response in received for event in response.events] == 2 * keys
    assert [response.fragment for response in received].count(False) == 2
    assert (len(received) > 2) == fragment
