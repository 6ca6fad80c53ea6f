"""What a watch stream answers to its requests: create, cancel, progress."""

from __future__ import annotations

from itertools import pairwise

import pytest

from etcdtw.mvcc.watch import stream as stream_module
from etcdtw.wire import etcdserverpb as pb
from tests.support.watch_rig import WatchRig, keys_of


@pytest.fixture
def rig() -> WatchRig:
    return WatchRig()


# Creation.


def test_created_answers_with_the_current_revision_and_auto_ids_start_at_zero(
    rig: WatchRig,
) -> None:
    rig.put(b"k")
    client = rig.client()
    first = client.create(b"a")
    second = client.create(b"b")
    assert (first.created, first.canceled, first.watch_id) == (True, False, 0)
    assert first.header.revision == 2
    assert second.watch_id == 1


def test_each_stream_counts_its_own_ids(rig: WatchRig) -> None:
    assert [rig.client().create(b"a").watch_id for _ in range(2)] == [0, 0]


def test_an_auto_id_skips_ids_that_are_in_use(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"a")
    assert client.create(b"a", watch_id=1).watch_id == 1
    assert client.create(b"a", watch_id=-5).watch_id == -5
    assert client.create(b"a").watch_id == 2


def test_an_id_in_use_is_refused_with_id_minus_one(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"a", watch_id=7)
    refused = client.create(b"b", watch_id=7)
    assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)
    assert refused.cancel_reason == "mvcc: duplicate watch ID provided on the WatchStream"


@pytest.mark.parametrize(("key", "range_end"), [(b"b", b"a"), (b"b", b"b")])
def test_an_empty_range_is_refused(rig: WatchRig, key: bytes, range_end: bytes) -> None:
    refused = rig.client().create(key, range_end)
    assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)
    assert refused.cancel_reason == "mvcc: watcher range is empty"


def test_bug_20707_a_negative_start_revision_is_refused_as_compacted(rig: WatchRig) -> None:
    refused = rig.client().create(b"a", start_revision=-1)
    assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)
    assert refused.cancel_reason == "etcdserver: mvcc: required revision has been compacted"
    assert rig.hub.watchers == 0


def test_one_watcher_more_than_the_limit_is_refused_kindly(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"a")
    watcher = client.stream.watchers[0]
    client.stream.watchers.update(
        dict.fromkeys(range(1, stream_module.WATCHERS_PER_STREAM_MAX - 1), watcher)
    )
    assert not client.create(b"a", watch_id=-1).canceled
    refused = client.create(b"a", watch_id=-2)
    assert refused.canceled
    assert "open another stream" in refused.cancel_reason


def test_a_refusal_for_permissions_is_created_and_canceled_with_the_reason(rig: WatchRig) -> None:
    client = rig.client()
    client.stream.refuse("no")
    (refused,) = client.take()
    assert (refused.created, refused.canceled, refused.watch_id) == (True, True, -1)
    assert (refused.cancel_reason, refused.header.revision) == ("no", 1)


def test_responses_to_requests_keep_the_order_of_the_requests(rig: WatchRig) -> None:
    client = rig.client()
    stream = client.stream
    stream.create(pb.WatchCreateRequest(key=b"a"))
    stream.create(pb.WatchCreateRequest(key=b"b", range_end=b"a"))
    stream.cancel(0)
    stream.create(pb.WatchCreateRequest(key=b"c"))
    stream.request_progress()
    seen = [(r.created, r.canceled, r.watch_id) for r in client.take()]
    assert seen == [
        (True, False, 0),
        (True, True, -1),
        (False, True, 0),
        (True, False, 1),
        (False, False, -1),
    ]


def test_events_never_precede_the_created_response(rig: WatchRig) -> None:
    """Even if a change is applied while the answer is on its way out."""
    client = rig.client()

    def interrupt() -> None:
        client.on_response = None
        rig.put(b"a")

    client.on_response = interrupt
    rig.put(b"a")
    client.stream.create(pb.WatchCreateRequest(key=b"a", start_revision=2))
    rig.settle()
    responses = client.take()
    assert responses[0].created
    assert [e.kv.mod_revision for r in responses[1:] for e in r.events] == [2, 3]


# What a watcher covers.


def test_an_empty_key_watches_the_key_zero_only(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"")
    rig.put(b"\0")
    rig.put(b"a")
    assert keys_of(client.take()) == [b"\0"]


def test_an_empty_key_to_zero_watches_everything(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"", b"\0")
    for key in (b"\0", b"a", b"\xff\xff"):
        rig.put(key)
    assert keys_of(client.take()) == [b"\0", b"a", b"\xff\xff"]


def test_range_end_zero_watches_from_the_key_on(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"b", b"\0")
    for key in (b"a", b"b", b"zz"):
        rig.put(key)
    assert keys_of(client.take()) == [b"b", b"zz"]


def test_a_range_excludes_its_end(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"b", b"d")
    for key in (b"a", b"b", b"c\xff", b"d"):
        rig.put(key)
    assert keys_of(client.take()) == [b"b", b"c\xff"]


def test_filters_drop_puts_or_deletes_and_an_empty_rest_is_no_message(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k", filters=[pb.WatchCreateRequest.NOPUT])
    client.create(b"k", filters=[pb.WatchCreateRequest.NODELETE])
    client.create(b"k", filters=[0, 1])
    rig.put(b"k")
    assert [r.watch_id for r in client.take()] == [1]
    rig.delete(b"k")
    assert [r.watch_id for r in client.take()] == [0]


def test_filters_hold_in_transactions_and_in_history_too(rig: WatchRig) -> None:
    client = rig.client()
    rig.put(b"a")
    client.create(b"a", b"c", filters=[pb.WatchCreateRequest.NOPUT], start_revision=2)
    rig.apply((b"a", None), (b"b", b"v"))
    rig.settle()
    client.create(b"a", b"c", filters=[pb.WatchCreateRequest.NODELETE])
    client.take()
    rig.apply((b"b", None), (b"a", b"v"))
    seen = [(r.watch_id, keys_of([r])) for r in client.take()]
    assert sorted(seen) == [(0, [b"b"]), (1, [b"a"])]


# Start revisions.


def test_start_zero_delivers_what_follows_the_creation(rig: WatchRig) -> None:
    client = rig.client()
    rig.put(b"k", b"before")
    client.create(b"k")
    rig.put(b"k", b"after")
    assert [e.kv.value for r in client.take() for e in r.events] == [b"after"]
    assert rig.wakes == 0


def test_a_past_start_revision_is_inclusive(rig: WatchRig) -> None:
    client = rig.client()
    for _ in range(3):
        rig.put(b"k")
    client.create(b"k", start_revision=3)
    assert rig.wakes == 1
    rig.settle()
    assert [e.kv.mod_revision for r in client.take() for e in r.events] == [3, 4]


def test_bug_20221_a_future_start_gets_neither_older_events_nor_notifications(
    rig: WatchRig,
) -> None:
    client = rig.client()
    client.create(b"k", start_revision=4, progress_notify=True)
    rig.put(b"k")
    rig.apply((b"k", b"v"), (b"l", b"v"))
    client.stream.request_progress()
    rig.advance(2 * 10_000)
    assert client.take() == []
    rig.put(b"k")
    assert [e.kv.mod_revision for r in client.take() for e in r.events] == [4]
    client.stream.request_progress()
    assert [r.watch_id for r in client.take()] == [-1]


def test_a_compacted_start_is_created_and_then_canceled(rig: WatchRig) -> None:
    client = rig.client()
    for _ in range(4):
        rig.put(b"k")
    rig.store.compact(4)
    created = client.create(b"k", start_revision=3)
    assert (created.created, created.canceled, created.watch_id) == (True, False, 0)
    rig.settle()
    (canceled,) = client.take()
    assert (canceled.created, canceled.canceled, canceled.watch_id) == (False, True, 0)
    assert (canceled.compact_revision, canceled.cancel_reason) == (4, "")
    assert canceled.header.revision == 0
    assert canceled.header.member_id == 2


def test_a_start_at_the_compact_revision_is_allowed(rig: WatchRig) -> None:
    client = rig.client()
    for _ in range(3):
        rig.put(b"k")
    rig.store.compact(3)
    client.create(b"k", start_revision=3)
    rig.settle()
    assert [e.kv.mod_revision for r in client.take() for e in r.events] == [3, 4]


def test_bugs_18089_and_19179_a_delete_at_the_compact_revision_is_delivered(
    rig: WatchRig,
) -> None:
    client = rig.client()
    rig.put(b"k")
    revision = rig.delete(b"k")
    rig.store.compact(revision)
    client.create(b"k", start_revision=revision)
    rig.settle()
    (response,) = client.take()
    (event,) = response.events
    assert (event.type, event.kv.mod_revision) == (1, revision)


# Cancelling.


def test_cancel_is_answered_and_no_event_follows(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k", watch_id=9)
    client.stream.cancel(9)
    rig.put(b"k")
    (canceled,) = client.take()
    assert (canceled.canceled, canceled.created, canceled.watch_id) == (True, False, 9)
    assert (canceled.header.revision, canceled.cancel_reason) == (1, "")
    assert not rig.hub.has_watchers


def test_cancel_of_an_unknown_id_gets_no_response(rig: WatchRig) -> None:
    client = rig.client()
    client.stream.cancel(3)
    assert client.take() == []


def test_bug_14563_watch_id_zero_can_be_cancelled(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    client.stream.cancel(0)
    assert [(r.canceled, r.watch_id) for r in client.take()] == [(True, 0)]


def test_an_id_ended_by_compaction_stays_taken_until_it_is_cancelled(rig: WatchRig) -> None:
    client = rig.client()
    for _ in range(3):
        rig.put(b"k")
    rig.store.compact(4)
    client.create(b"k", start_revision=2, watch_id=5)
    rig.settle()
    client.take()
    assert client.create(b"k", watch_id=5).canceled
    client.stream.cancel(5)
    assert [(r.canceled, r.watch_id, r.compact_revision) for r in client.take()] == [(True, 5, 0)]
    assert not client.create(b"k", watch_id=5).canceled


def test_bug_20067_every_count_returns_to_zero_whatever_ended_a_watcher(rig: WatchRig) -> None:
    client, other = rig.client(), rig.client()
    for _ in range(4):
        rig.put(b"k")
    rig.store.compact(3)
    client.create(b"k", start_revision=2)  # ended by compaction, then cancelled
    client.create(b"k", start_revision=4)  # cancelled while behind
    client.create(b"k")  # cancelled while synced
    other.create(b"k", start_revision=3)  # closed while behind
    other.create(b"a", b"z", progress_notify=True)  # closed while synced
    other.block()
    rig.put(b"k")
    assert (rig.hub.watchers, rig.hub.slow_watchers) == (5, 4)
    client.stream.cancel(1)
    rig.settle()
    for watch_id in (0, 1, 2, 0):
        client.stream.cancel(watch_id)
    other.stream.close()
    other.stream.close()
    client.stream.close()
    counts = (rig.hub.watchers, rig.hub.slow_watchers, rig.hub.streams, rig.hub.pending_events)
    assert counts == (0, 0, 0, 0)
    assert not rig.hub.has_watchers
    assert not rig.store.has_watchers
    assert not rig.hub.has_work


def test_a_closed_stream_is_sent_nothing(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    client.stream.close()
    client.stream.flush()
    client.stream.resume()
    rig.put(b"k")
    assert client.take() == []


# Progress.


def test_manual_progress_answers_for_the_whole_stream(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    client.create(b"a", b"b")
    rig.put(b"other")
    client.stream.request_progress()
    (progress,) = client.take()
    assert (progress.watch_id, progress.header.revision) == (-1, 2)
    assert not progress.created
    assert not progress.canceled
    assert not progress.events


def test_manual_progress_waits_until_every_watcher_is_synced(rig: WatchRig) -> None:
    client = rig.client()
    rig.put(b"k")
    client.create(b"x")
    client.create(b"k", start_revision=1)
    client.stream.request_progress()
    assert client.take() == []
    rig.settle()
    client.take()
    client.stream.request_progress()
    assert [(r.watch_id, r.header.revision) for r in client.take()] == [(-1, 2)]


def test_manual_progress_without_watchers_is_ignored(rig: WatchRig) -> None:
    client = rig.client()
    client.stream.request_progress()
    assert client.take() == []


def test_bug_15220_progress_never_overtakes_events(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k", progress_notify=True)
    client.block()
    rig.put(b"k")
    client.stream.request_progress()
    rig.advance(3 * 10_000)
    assert client.take() == []
    client.unblock()
    client.stream.request_progress()
    assert client.take() == []
    rig.settle()
    client.stream.request_progress()
    seen = [(len(r.events), r.header.revision) for r in client.take()]
    assert seen == [(1, 2), (0, 2)]


def test_bug_17566_an_idle_watcher_is_told_of_progress_every_interval(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k", progress_notify=True)
    client.create(b"k")
    rig.put(b"other")
    rig.advance(10_000 + 499)  # half of the jitter of a tenth
    assert client.take() == []
    rig.advance(1)
    (progress,) = client.take()
    assert (progress.watch_id, progress.header.revision) == (0, 2)
    assert not progress.events
    rig.advance(9_999)
    assert client.take() == []
    rig.advance(1)
    assert [r.watch_id for r in client.take()] == [0]


def test_an_event_skips_the_next_progress_tick_only(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k", progress_notify=True)
    rig.put(b"k")
    client.take()
    rig.advance(10_500)
    assert client.take() == []
    rig.advance(10_000)
    assert len(client.take()) == 1


def test_progress_is_not_reported_while_behind(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k", progress_notify=True)
    client.block()
    rig.put(b"k")
    rig.now_ms += 10_500
    client.is_slow = False
    client.stream.is_paused = False
    rig.hub.progress.tick(rig.now_ms)
    rig.hub.progress.report(b"", rig.store.revision)
    assert client.take() == []


def test_progress_intervals_have_a_floor_and_streams_their_own_ticks() -> None:
    rig = WatchRig(progress_interval_ms=1)
    first, second = rig.client(), rig.client()
    first.create(b"a", progress_notify=True)
    rig.now_ms += 50
    rig.hub.work(rig.now_ms)
    second.create(b"a", progress_notify=True)
    second.create(b"b", progress_notify=True)
    rig.advance(54)
    assert (len(first.take()), len(second.take())) == (0, 0)
    rig.advance(1)
    assert (len(first.take()), len(second.take())) == (1, 0)
    rig.advance(50)
    assert (len(first.take()), len(second.take())) == (0, 2)
    first.stream.close()
    second.stream.close()
    rig.advance(1000)
    assert not rig.hub.has_work


def test_progress_revisions_never_go_back(rig: WatchRig) -> None:
    client = rig.client()
    client.create(b"k")
    seen = []
    for _ in range(5):
        rig.put(b"k")
        client.stream.request_progress()
        seen += [r.header.revision for r in client.take()]
    assert all(a <= b for a, b in pairwise(seen))
