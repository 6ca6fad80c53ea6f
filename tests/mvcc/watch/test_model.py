"""A watch is a pure function of its start revision and the log, whatever happens meanwhile.

Random histories of puts, deletes and transactions interleave with compactions, slow readers,
slices of catching up, snapshots and cancellations.  Afterwards what every watcher was sent is
compared with what the log says it had to be sent.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from etcdtw.wire import etcdserverpb as pb
from tests.support.watch_rig import Client, WatchRig

KEYS = [b"a", b"ab", b"b", b"c"]
SPANS = [(b"a", b""), (b"b", b""), (b"a", b"b"), (b"a", b"c"), (b"ab", b"\0"), (b"", b"\0")]


class Watch:
    """One created watch: what was asked and what was answered so far."""

    def __init__(self, client: int, request: Any, created_at: int) -> None:
        self.client = client
        self.request = request
        self.start = request.start_revision or created_at + 1
        self.cancelled_at: int | None = None
        self.was_synced_at_cancel = False
        self.responses: list[Any] = []

    def wants(self, key: bytes, is_delete: bool) -> bool:
        request = self.request
        if (1 if is_delete else 0) in request.filters:
            return False
        start = request.key or b"\0"
        if not request.range_end:
            return bool(key == start)
        is_open = request.range_end == b"\0"
        return bool(start <= key and (is_open or key < request.range_end))


class Model:
    """The rig with three clients and what each of their watches must become."""

    def __init__(self, bounds: tuple[int, int] = (4000, 3000)) -> None:
        """``bounds``: deliveries made at once, and what a step of more of them may cost."""
        self.rig = WatchRig(
            slice_changes_max=3,
            response_size_max=70,
            direct_max=bounds[0],
            step_cost=bounds[1],
        )
        self.clients: list[Client] = [self.rig.client() for _ in range(3)]
        self.watches: dict[tuple[int, int], Watch] = {}

    def collect(self) -> None:
        for number, client in enumerate(self.clients):
            for response in client.take():
                if response.watch_id == -1:
                    self.check_progress(number, response.header.revision)
                else:
                    self.watches[number, response.watch_id].responses.append(response)

    def create(self, number: int, span: int, start: int, options: int) -> None:
        self.collect()
        revision = self.rig.store.revision
        key, range_end = SPANS[span]
        request = pb.WatchCreateRequest(
            key=key,
            range_end=range_end,
            start_revision=0 if start == 0 else max(1, revision + 3 - start),
            prev_kv=bool(options & 1),
            fragment=bool(options & 2),
            progress_notify=bool(options & 4),
            filters=[0] if options & 24 == 8 else [1] if options & 24 == 16 else [],
        )
        self.clients[number].stream.create(request)
        watch_id = len([1 for client, _ in self.watches if client == number])
        self.watches[number, watch_id] = Watch(number, request, revision)

    def cancel(self, number: int, watch_id: int) -> None:
        watch = self.watches.get((number, watch_id))
        if watch is None or watch.cancelled_at is not None:
            return
        self.clients[number].stream.cancel(watch_id)
        watch.cancelled_at = self.rig.store.revision

    def step(self, what: int, a: int, b: int, c: int) -> None:
        rig = self.rig
        if what <= 3:
            rig.put(KEYS[a % 4], b"%d" % b)
        elif what == 4:
            rig.delete(KEYS[a % 4])
        elif what == 5:
            keys = KEYS[: 1 + a % 4]
            rig.apply(*[(key, None if (b >> i) & 1 else b"t") for i, key in enumerate(keys)])
        elif what == 6:
            span = rig.store.revision - max(rig.store.compact_revision, 0)
            if c % 3 == 0 and span > 0:
                rig.store.compact(rig.store.revision - a % span)
        elif what == 7:
            self.create(a % 3, b % len(SPANS), c % 12, b % 32)
        elif what == 8:
            self.cancel(a % 3, b % 4)
        elif what == 9:
            self.clients[a % 3].block()
        elif what == 10:
            self.clients[a % 3].unblock()
        elif what == 11:
            rig.hub.work(rig.now_ms)
        elif what == 12:
            self.collect()
            self.clients[a % 3].stream.request_progress()
            rig.advance(c * 1000)
        else:
            self.replace_store()

    def replace_store(self) -> None:
        last = self.rig.store.revision
        for value in (b"s1", b"s2"):
            self.rig.store.apply([(b"ab", value)])
        self.rig.hub.store_replaced(last)

    def finish(self) -> None:
        for client in self.clients:
            client.unblock()
        self.rig.settle()
        self.collect()
        for watch in self.watches.values():
            self.check(watch)
        live = [w for w in self.watches.values() if w.cancelled_at is None]
        assert self.rig.hub.slow_watchers == 0
        assert self.rig.hub.watchers == len([w for w in live if not self.was_compacted(w)])

    @staticmethod
    def was_compacted(watch: Watch) -> bool:
        return any(response.compact_revision for response in watch.responses)

    def expected(self, watch: Watch, last: int) -> list[tuple[int, bytes, bool, bytes, Any]]:
        return [
            change
            for change in self.rig.store.log
            if watch.start <= change[0] <= last and watch.wants(change[1], change[2])
        ]

    def check_progress(self, number: int, revision: int) -> None:
        for (client, _), watch in self.watches.items():
            if client == number and watch.cancelled_at is None:
                if self.was_compacted(watch):
                    raise AssertionError("progress on a stream with a compacted watcher")
                seen = sum(len(response.events) for response in watch.responses)
                assert seen >= len(self.expected(watch, revision))

    def check(self, watch: Watch) -> None:
        responses = list(watch.responses)
        assert responses[0].created
        responses = responses[1:]
        ends = [i for i, response in enumerate(responses) if response.canceled]
        compacted = [r.compact_revision for r in responses if r.compact_revision]
        if ends:
            # No event after the first cancellation; at most one for each reason.
            assert all(not response.events for response in responses[ends[0] :])
            assert len(ends) == len(compacted) + (watch.cancelled_at is not None)
        seen = [event for response in responses for event in response.events]
        self.check_order(watch, responses)
        last = self.rig.store.revision if watch.cancelled_at is None else watch.cancelled_at
        expected = self.expected(watch, last)
        if compacted:
            missing = expected[len(seen) :]
            assert not missing or missing[0][0] <= max(compacted[0], last)
            expected = expected[: len(seen)]
        elif watch.cancelled_at is not None:
            # Cancelled while behind: a beginning of it, whole revisions only.
            missing = expected[len(seen) :]
            assert not missing or not seen or missing[0][0] > seen[-1].kv.mod_revision
            expected = expected[: len(seen)]
        assert len(seen) == len(expected)
        for event, (main, key, is_delete, record, previous) in zip(seen, expected, strict=True):
            assert (event.kv.mod_revision, event.kv.key) == (main, key)
            assert event.type == int(is_delete)
            assert event.kv.SerializeToString() == record
            if event.HasField("prev_kv"):
                assert watch.request.prev_kv
                assert event.prev_kv.SerializeToString() == previous
            elif watch.request.prev_kv and previous is not None:
                assert main - 1 < self.rig.store.compact_revision

    @staticmethod
    def check_order(watch: Watch, responses: list[Any]) -> None:
        """Progress is never ahead of events; a revision is split only into fragments."""
        reached = 0
        is_continued = False
        for response in responses:
            revisions = [event.kv.mod_revision for event in response.events]
            if not revisions:
                if not response.canceled:
                    assert watch.request.progress_notify
                    reached = max(reached, response.header.revision)
                continue
            assert revisions == sorted(revisions)
            assert revisions[0] >= reached if is_continued else revisions[0] > reached
            reached = revisions[-1]
            is_continued = response.fragment
            assert watch.request.fragment or not response.fragment
        assert not is_continued


STEPS = st.tuples(st.integers(0, 13), st.integers(0, 11), st.integers(0, 31), st.integers(0, 20))


BOUNDS = st.sampled_from([(4000, 3000), (0, 1), (1, 4), (2, 40)])


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=80), BOUNDS)
def test_every_watch_is_sent_exactly_what_the_log_says(
    steps: list[tuple[int, int, int, int]], bounds: tuple[int, int]
) -> None:
    model = Model(bounds)
    for step in steps:
        model.step(*step)
    model.finish()


def test_the_model_sees_every_kind_of_ending() -> None:
    """The property is worth something only if its steps reach the rare endings."""
    endings: Counter[str] = Counter()
    for seed in range(120):
        model = Model((4000, 3000) if seed % 2 else (0, 1))
        dice = Random(seed)
        for _ in range(60):
            step = (dice.randrange(14), dice.randrange(12), dice.randrange(32), dice.randrange(21))
            model.step(*step)
        model.finish()
        for watch in model.watches.values():
            endings["compacted"] += model.was_compacted(watch)
            endings["cancelled"] += watch.cancelled_at is not None
            endings["fragments"] += any(response.fragment for response in watch.responses)
            endings["previous"] += any(
                event.HasField("prev_kv") for r in watch.responses for event in r.events
            )
    for name in ("compacted", "cancelled", "fragments", "previous"):
        assert endings[name] > 5, endings
