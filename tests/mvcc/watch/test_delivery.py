"""How events reach watchers: live, from history, to slow readers."""

from __future__ import annotations

import pytest

from etcdtw.mvcc.watch.bounds import SLICE_EVENTS_MAX, SLICE_WATCHERS_MAX
from etcdtw.mvcc.watch.stream import BATCH_OCTETS_MAX, BATCH_REVISIONS_MAX
from etcdtw.wire import etcdserverpb as pb
from tests.support.watch_rig import WatchRig, keys_of


@pytest.fixture
def rig() -> WatchRig:
    return WatchRig()


def test_a_live_event_carries_the_record_and_its_own_revision(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    rig.put(b"k", b"one")
    (response,) = client.take()
    (event,) = response.events
    assert (response.watch_id, response.header.revision) == (0, 2)
    kv = event.kv
    assert (event.type, kv.key, kv.value, kv.version) == (0, b"k", b"one", 1)
    assert (kv.create_revision, kv.mod_revision) == (2, 2)
    assert not event.HasField("prev_kv")


def test_a_delete_event_carries_key_and_mod_revision_alone(rig: WatchRig) -> None:
    client = rig.client()
    rig.put(b"k")
    client.create(b"k")
    client.create(b"k", start_revision=3)
    rig.delete(b"k")
    history = rig.client()
    history.create(b"k", start_revision=3)
    rig.settle()
    for response in client.take() + history.take():
        (event,) = response.events
        assert event.type == 1
        assert event.kv == type(event.kv)(key=b"k", mod_revision=3)


def test_all_events_of_a_revision_come_in_one_response_in_order(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"", b"\0")
    client.create(b"b")
    rig.apply((b"c", b"v"), (b"b", b"v"), (b"a", b"v"))
    seen = [(r.watch_id, r.header.revision, keys_of([r])) for r in client.take()]
    assert seen == [(0, 2, [b"c", b"b", b"a"]), (1, 2, [b"b"])]


def test_responses_for_one_stream_are_sent_together(rig: WatchRig) -> None:
    client, other = rig.client(), rig.client()
    for _ in range(3):
        client.create(b"k")
    other.create(b"k")
    client.batches.clear()
    other.batches.clear()
    rig.put(b"k")
    assert (client.batches, other.batches) == ([3], [1])
    assert rig.hub.events_total == 4


def test_prev_kv_is_the_record_before_except_on_creation(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k", prev_kv=True)
    client.create(b"k", prev_kv=True)
    client.create(b"k", b"l", prev_kv=True, watch_id=0)
    rig.put(b"k", b"one")
    rig.apply((b"k", b"two"), (b"other", b"v"))
    rig.delete(b"k")
    responses = client.take()
    previous = [r.events[0].prev_kv for r in responses if r.watch_id == 1]
    assert [kv.value for kv in previous] == [b"", b"one", b"two"]
    assert [kv.mod_revision for kv in previous] == [0, 2, 3]
    assert not responses[0].events[0].HasField("prev_kv")


def test_prev_kv_is_absent_when_one_revision_deletes_and_creates_the_key(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k", prev_kv=True)
    client.create(b"k", b"l", prev_kv=True)
    rig.put(b"k", b"one")
    rig.apply((b"k", None), (b"k", b"two"))
    events = [event for r in client.take() if r.watch_id == 1 for event in r.events]
    assert [event.type for event in events] == [0, 1, 0]
    assert [event.HasField("prev_kv") for event in events] == [False, True, False]


def test_prev_kv_is_absent_where_it_is_compacted(rig: WatchRig) -> None:
    client = rig.client()
    for value in (b"one", b"two", b"three"):
        rig.put(b"k", value)
    rig.store.compact(3)
    client.create(b"k", prev_kv=True, start_revision=3)
    rig.settle()
    events = [event for r in client.take() for event in r.events]
    assert [event.HasField("prev_kv") for event in events] == [False, True]
    assert events[1].prev_kv.value == b"two"


def test_catching_up_batches_revisions_under_the_current_header(rig: WatchRig) -> None:
    client = rig.client()
    for _ in range(5):
        rig.put(b"k")
    client.create(b"k", start_revision=2)
    rig.settle()
    (response,) = client.take()
    assert [e.kv.mod_revision for e in response.events] == [2, 3, 4, 5, 6]
    assert response.header.revision == 6


def test_history_is_read_in_bounded_slices_and_sent_as_one_response() -> None:
    rig = WatchRig(slice_changes_max=10)
    client = rig.client()
    for i in range(95):
        rig.put(b"k%d" % i)
    client.create(b"k", b"l", start_revision=2)
    assert rig.hub.work(rig.now_ms)
    assert client.take() == []
    assert rig.hub.pending_events == 85
    rig.put(b"k-late")
    assert rig.settle() == 9
    (response,) = client.take()
    assert [e.kv.mod_revision for e in response.events] == list(range(2, 98))
    assert response.header.revision == 97
    assert rig.hub.slow_watchers == 0


@pytest.mark.parametrize("count", [BATCH_REVISIONS_MAX, BATCH_REVISIONS_MAX + 1])
def test_a_response_of_history_holds_the_events_of_at_most_so_many_revisions(count: int) -> None:
    rig = WatchRig(slice_changes_max=300)
    client = rig.client()
    for _ in range(count):
        rig.apply((b"k", b"1"), (b"l", b"2"))
        rig.put(b"elsewhere")
    client.create(b"k", b"m", start_revision=2)
    rig.settle()
    responses = client.take()
    assert [len(r.events) for r in responses] == [2 * BATCH_REVISIONS_MAX, 2][: len(responses)]
    assert len(responses) == 1 + (count > BATCH_REVISIONS_MAX)
    assert {r.header.revision for r in responses} == {1 + 2 * count}
    assert not any(r.fragment for r in responses)


def test_revisions_that_a_filter_leaves_out_count_as_in_etcd() -> None:
    rig = WatchRig()
    client = rig.client()
    for _ in range(700):
        rig.put(b"k")
        rig.delete(b"k")
    client.create(b"k", start_revision=2, filters=[0])
    rig.settle()
    assert [len(r.events) for r in client.take()] == [500, 200]


def test_a_response_of_history_is_cut_between_revisions_when_it_is_large(rig: WatchRig) -> None:
    client = rig.client()
    size = 1 << 20
    for _ in range(BATCH_OCTETS_MAX // size):
        rig.put(b"k", bytes(size))
    client.create(b"k", start_revision=2)
    rig.settle()
    assert [len(r.events) for r in client.take()] == [BATCH_OCTETS_MAX // size]
    rig.put(b"k", bytes(size))
    client.create(b"k", start_revision=2)
    rig.settle()
    assert [len(r.events) for r in client.take()][-2:] == [BATCH_OCTETS_MAX // size, 1]


def test_pieces_of_a_large_response_of_history_carry_the_flag(rig: WatchRig) -> None:
    client = rig.client()
    for _ in range(4):
        rig.put(b"k", bytes(1 << 20))
    client.create(b"k", start_revision=2, fragment=True)
    rig.settle()
    assert [(len(r.events), r.fragment) for r in client.take()] == [(1, True)] * 3 + [(1, False)]


def test_what_is_gathered_for_all_watchers_is_bounded() -> None:
    rig = WatchRig(slice_changes_max=10, batches_octets_max=10_000)
    client = rig.client()
    for i in range(100):
        rig.put(b"k%d" % i, bytes(1000))
    client.create(b"k", b"l", start_revision=2)
    rig.hub.work(rig.now_ms)
    assert [len(r.events) for r in client.take()] == [10]
    rig.settle()
    events = [e.kv.mod_revision for r in client.take() for e in r.events]
    assert events == list(range(12, 102))
    assert rig.hub._batches_octets == 0


@pytest.mark.parametrize("way", ["cancel", "close", "compact"])
def test_what_is_gathered_for_a_watcher_that_ends_is_let_go(way: str) -> None:
    rig = WatchRig(slice_changes_max=10)
    client = rig.client()
    for _ in range(100):
        rig.put(b"k")
    client.create(b"k", start_revision=2)
    rig.hub.work(rig.now_ms)
    assert rig.hub._batches_octets > 0
    if way == "cancel":
        client.stream.cancel(0)
    elif way == "close":
        client.stream.close()
    else:
        rig.store.compact_revision = 90
        rig.settle()
        events, end = client.take()
        assert [e.kv.mod_revision for e in events.events] == list(range(2, 12))
        assert (end.canceled, end.compact_revision) == (True, 90)
    assert rig.hub._batches_octets == 0


def test_a_revision_is_never_split_between_slices() -> None:
    rig = WatchRig(slice_changes_max=3, batches_octets_max=1)
    client = rig.client()
    for _ in range(4):
        rig.apply(*[(b"k%d" % i, b"v") for i in range(5)])
    client.create(b"k", b"l", start_revision=2)
    rig.settle()
    assert [len(r.events) for r in client.take()] == [5, 5, 5, 5]


def test_a_slice_gathers_a_bounded_number_of_events() -> None:
    rig = WatchRig(batches_octets_max=1)
    client = rig.client()
    for _ in range(500):
        rig.put(b"k")
    for _ in range(20):
        client.create(b"k", start_revision=2)
    client.take()
    before = rig.hub.events_total
    assert rig.hub.work(rig.now_ms)
    assert SLICE_EVENTS_MAX <= rig.hub.events_total - before < SLICE_EVENTS_MAX + 20
    rig.settle()
    assert rig.hub.events_total - before == 20 * 500


def test_a_slice_gathers_a_bounded_number_of_octets() -> None:
    rig = WatchRig(batches_octets_max=1)
    client = rig.client()
    for _ in range(10):
        rig.put(b"k", bytes(1_000_000))
    client.create(b"k", start_revision=2)
    assert rig.hub.work(rig.now_ms)
    assert [len(r.events) for r in client.take()] == [2]
    rig.settle()
    assert [len(r.events) for r in client.take()] == [2, 2, 2, 2]


def test_bug_17529_watchers_at_old_revisions_do_not_starve_the_others() -> None:
    rig = WatchRig(slice_changes_max=5)
    old, young = rig.client(), rig.client()
    for _ in range(200):
        rig.put(b"k")
    for _ in range(3):
        old.create(b"k", start_revision=2)
    young.create(b"k", start_revision=200)
    for _ in range(4):
        rig.hub.work(rig.now_ms)
    assert [e.kv.mod_revision for r in young.take() for e in r.events] == [200, 201]


def test_bug_15402_more_watchers_than_a_slice_takes_all_come_up(rig: WatchRig) -> None:
    client = rig.client()
    rig.put(b"k")
    for _ in range(SLICE_WATCHERS_MAX + 1):
        client.create(b"k", start_revision=2)
    client.take()
    assert rig.hub.work(rig.now_ms)
    assert len(client.take()) == SLICE_WATCHERS_MAX
    assert not rig.hub.work(rig.now_ms)
    assert len(client.take()) == 1


def test_bugs_15274_and_17247_nothing_is_delivered_twice_around_catching_up(
    rig: WatchRig,
) -> None:
    client = rig.client()
    rig.put(b"k")
    client.create(b"k", start_revision=2)
    rig.put(b"k")  # while behind: history has it
    rig.settle()
    rig.put(b"k")  # live
    rig.settle()
    assert [e.kv.mod_revision for r in client.take() for e in r.events] == [2, 3, 4]


# Slow readers.


def test_a_paused_stream_is_sent_nothing_and_reads_history_later(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    client.create(b"idle")
    client.block()
    for _ in range(3):
        rig.put(b"k")
    rig.settle()
    assert client.take() == []
    assert rig.hub.slow_watchers == 1
    assert rig.hub.pending_events == 3
    wakes = rig.wakes
    client.unblock()
    assert rig.wakes == wakes + 1
    rig.settle()
    (response,) = client.take()
    assert [e.kv.mod_revision for e in response.events] == [2, 3, 4]
    assert rig.hub.slow_watchers == 0


def test_a_stream_that_blocks_gets_no_more_until_it_drains(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    client.is_slow = True
    rig.put(b"k")
    rig.apply((b"k", b"v"), (b"l", b"v"))
    client.is_slow = False
    rig.put(b"k")
    assert len(client.take()) == 1
    client.unblock()
    rig.settle()
    assert [e.kv.mod_revision for r in client.take() for e in r.events] == [3, 4]


def test_an_answer_that_passes_does_not_end_a_pause(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    client.block()
    rig.put(b"k")
    client.is_slow = False
    client.create(b"x")
    rig.put(b"k")
    assert client.take() == []
    client.unblock()
    rig.settle()
    assert [e.kv.mod_revision for r in client.take() for e in r.events] == [2, 3]


def test_a_stream_that_blocks_while_catching_up_goes_on_where_it_was() -> None:
    rig = WatchRig(slice_changes_max=2, batches_octets_max=1)
    client = rig.client()
    for _ in range(6):
        rig.put(b"k")
    client.create(b"k", start_revision=2)
    client.is_slow = True
    assert rig.hub.work(rig.now_ms)
    assert not rig.hub.work(rig.now_ms)
    assert len(client.responses) == 1
    client.unblock()
    rig.settle()
    assert [e.kv.mod_revision for r in client.take() for e in r.events] == [2, 3, 4, 5, 6, 7]


def test_large_responses_of_history_wait_until_the_stream_has_taken_the_one_before() -> None:
    rig = WatchRig()
    client = rig.client()
    for _ in range(4):
        rig.put(b"k", bytes(1 << 20))
    for _ in range(3):
        client.create(b"k", start_revision=2)
    client.take()
    client.is_slow = True
    for _ in range(3):
        rig.settle()
        assert [len(r.events) for r in client.take()] == [4]
        client.unblock()
        client.is_slow = True
    assert rig.hub._batches_octets == rig.hub.slow_watchers == 0


def test_nothing_that_was_gathered_waits_for_a_slow_reader() -> None:
    rig = WatchRig(slice_changes_max=2)
    client = rig.client()
    for _ in range(6):
        rig.put(b"k")
    client.create(b"k", start_revision=2)
    rig.hub.work(rig.now_ms)
    assert rig.hub._batches_octets > 0
    client.block()
    rig.settle()
    assert rig.hub._batches_octets == 0
    client.unblock()
    rig.settle()
    assert [e.kv.mod_revision for r in client.take() for e in r.events] == [2, 3, 4, 5, 6, 7]


def test_a_slow_reader_does_not_hold_up_the_others(rig: WatchRig) -> None:
    slow, fast = rig.client(), rig.client()
    slow.create(b"k")
    fast.create(b"k")
    slow.block()
    rig.put(b"k")
    assert (len(slow.take()), len(fast.take())) == (0, 1)


def test_a_slow_reader_is_cancelled_when_its_history_is_compacted(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    client.block()
    for _ in range(3):
        rig.put(b"k")
    rig.store.compact(3)
    rig.settle()
    client.unblock()
    rig.settle()
    (canceled,) = client.take()
    assert (canceled.canceled, canceled.compact_revision) == (True, 3)
    rig.put(b"k")
    assert client.take() == []


def test_compaction_does_not_disturb_those_who_have_read_it(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    rig.put(b"k")
    rig.store.compact(2)
    rig.put(b"k")
    rig.settle()
    assert [e.kv.mod_revision for r in client.take() for e in r.events] == [2, 3]


def test_a_stream_closed_by_its_own_output_leaves_nothing_behind(rig: WatchRig) -> None:
    client = rig.client()
    for _ in range(3):
        rig.put(b"k")
    rig.store.compact(3)
    client.create(b"k", start_revision=2)
    client.create(b"k", start_revision=3)
    client.on_response = client.stream.close
    rig.settle()
    assert len(client.take()) == 1
    assert rig.hub.watchers == 0


def test_a_stream_closed_while_it_is_answered_admits_no_watcher(rig: WatchRig) -> None:
    client = rig.client()
    client.on_response = client.stream.close
    client.create(b"k")
    assert rig.hub.watchers == 0


# The hub and its store.


def test_changes_are_collected_only_while_somebody_watches(rig: WatchRig) -> None:
    client = rig.client()
    seen = [(rig.hub.has_watchers, rig.store.has_watchers)]
    client.create(b"k")
    seen.append((rig.hub.has_watchers, rig.store.has_watchers))
    client.stream.close()
    seen.append((rig.hub.has_watchers, rig.store.has_watchers))
    assert seen == [(False, False), (True, True), (False, False)]


def test_events_collected_for_watchers_that_have_gone_reach_nobody(rig: WatchRig) -> None:
    client = rig.client()
    rig.store.uncollected = rig.store.apply([(b"k", b"v")])
    client.create(b"k")
    assert rig.store.take_events() == []


def test_bug_15271_after_a_snapshot_a_watch_goes_on_and_never_back(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    client.create(b"k", start_revision=9)
    rig.put(b"k")
    client.block()
    rig.put(b"k")
    client.unblock()
    rig.settle()
    last = rig.store.revision
    for _ in range(3):
        rig.store.apply([(b"k", b"v")])  # by way of a snapshot: nobody is notified
    rig.hub.store_replaced(last)
    assert rig.hub.slow_watchers == 1
    rig.settle()
    rig.put(b"k")
    revisions = [e.kv.mod_revision for r in client.take() for e in r.events]
    assert revisions == [2, 3, 4, 5, 6, 7]


def test_a_snapshot_without_news_leaves_every_watcher_where_it_was(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    rig.put(b"k")
    rig.hub.store_replaced(rig.store.revision)
    rig.settle()
    rig.put(b"k")
    assert rig.hub.slow_watchers == 0
    assert [e.kv.mod_revision for r in client.take() for e in r.events] == [2, 3]


def test_watchers_of_equal_ids_and_wants_share_one_response(rig: WatchRig) -> None:
    clients = [rig.client() for _ in range(3)]
    rig.put(b"k", b"one")
    for client in clients:
        client.create(b"k", prev_kv=True)
        client.create(b"k")
    sent: list[bytes] = []

    def take(responses: list[bytes]) -> bool:
        sent.extend(responses)
        return False

    for client in clients:
        client.stream._send = take
    rig.put(b"k", b"two")
    assert len(sent) == 6
    assert len({id(octets) for octets in sent}) == 2


# Fragments.


def test_large_responses_are_split_only_for_those_who_asked() -> None:
    rig = WatchRig(response_size_max=1000)
    client = rig.client()
    client.create(b"k", b"l", fragment=True)
    client.create(b"k", b"l")
    operations = [(b"k%d" % i, bytes(300)) for i in range(7)]
    rig.apply(*operations)
    responses = client.take()
    pieces = [r for r in responses if r.watch_id == 0]
    (whole,) = [r for r in responses if r.watch_id == 1]
    assert [r.fragment for r in pieces] == [True, True, False]
    assert all(r.header.revision == 2 and r.ByteSize() < 1000 for r in pieces)
    assert keys_of(pieces) == keys_of([whole]) == [key for key, _ in operations]
    assert not whole.fragment


def test_a_single_event_is_never_split_however_large() -> None:
    rig = WatchRig(response_size_max=1000)
    client = rig.client()
    client.create(b"k", b"l", fragment=True)
    rig.put(b"k", bytes(5000))
    rig.apply((b"k1", bytes(5000)), (b"k2", bytes(5000)))
    assert [(len(r.events), r.fragment) for r in client.take()] == [
        (1, False),
        (1, True),
        (1, False),
    ]


@pytest.mark.parametrize("spare", [0, 1])
def test_a_response_is_split_when_it_reaches_the_limit(spare: int) -> None:
    client = WatchRig().client()
    client.create(b"k", b"l")
    plain = WatchRig()
    measured = plain.client()
    measured.create(b"k", b"l", watch_id=1)
    plain.apply((b"k1", bytes(50)), (b"k2", bytes(50)))
    size = measured.take()[0].ByteSize()
    rig = WatchRig(response_size_max=size + spare)
    client = rig.client()
    client.create(b"k", b"l", watch_id=1, fragment=True)
    rig.apply((b"k1", bytes(50)), (b"k2", bytes(50)))
    assert [len(r.events) for r in client.take()] == ([2] if spare else [1, 1])


def test_unknown_filters_filter_nothing(rig: WatchRig) -> None:
    client = rig.client()
    request = pb.WatchCreateRequest.FromString(b"\x0a\x01k\x28\x05")
    client.stream.create(request)
    rig.put(b"k")
    assert len(client.take()) == 2
