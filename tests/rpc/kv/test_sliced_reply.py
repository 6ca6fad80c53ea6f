"""Large answers to a call that takes them in parts, over a store on disk."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from etcdtw.mvcc.slices import SLICE_OCTETS_MAX, RangeSlices
from etcdtw.mvcc.store import Store
from etcdtw.rpc.kv.read_queue import LIGHT_S, RUNNING_MAX, WAIT_S, ReadQueue
from etcdtw.rpc.kv.sliced_reply import QUEUED_BYTES_MAX, STALLED_S, Rendering, SlicedReply
from etcdtw.storage.state.open import open_state
from etcdtw.storage.state.state import LmdbState
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import put_of
from tests.support.fake_facade import FakeFacade
from tests.support.recorded_call import RecordedCall

VALUE_SIZE = 60_000
KEYS = 120
EVERYTHING = pb.RangeRequest(key=b"\0", range_end=b"\0")


class OneClient:
    """A connection that reads all."""

    unread = 0


class PartsCall(RecordedCall):
    """A call that takes a response in parts.  ``is_slow`` keeps them queued."""

    announced = 0
    client: OneClient | None = None

    def begin_reply(self, size: int) -> None:
        self.announced = size

    def continue_reply(self, part: bytes) -> None:
        self.send(part)

    def end_reply(self) -> None:
        self.finish()


class ReplyNode(FakeFacade):
    """As much of a member as an answer needs."""

    def __init__(self, store: Store) -> None:
        self.clock = Clock()
        self.store = store
        self.reads = ReadQueue(self.clock, share_s=0)

    def header(self, revision: int) -> bytes:
        return b""


OLD = (3, "etcdserver: revision of auth store is old")


@pytest.fixture
def state(tmp_path: Path) -> Iterator[LmdbState]:
    made = open_state(tmp_path / "state", pytest.fail, map_size=1 << 27)
    yield made
    made.close()


@pytest.fixture
def node(state: LmdbState) -> ReplyNode:
    store = Store(state, lambda lease_id: True)
    for i in range(KEYS):
        store.apply_put(put_of(pb.PutRequest(key=b"%03d" % i, value=bytes(VALUE_SIZE))))
    state.set_applied(1, 1)
    state.flush(lambda: None)
    return ReplyNode(store)


def start(node: ReplyNode, rendering: Rendering, call: PartsCall) -> None:
    slices = node.store.open_range(EVERYTHING)
    assert isinstance(slices, RangeSlices)
    task = SlicedReply(node, rendering, call, slices, node.store.revision)
    assert node.reads.go_on(call, task)


def test_a_large_answer_goes_out_in_parts_that_make_it_up(node: ReplyNode) -> None:
    call, rendering = PartsCall(), Rendering()
    start(node, rendering, call)
    while call.is_open:
        node.clock.advance(0)
    assert b"".join(call.sent) == node.store.range(EVERYTHING)
    assert call.announced == sum(map(len, call.sent))
    assert max(map(len, call.sent)) <= SLICE_OCTETS_MAX
    assert (rendering.size, rendering.replies) == (0, [])


def test_no_more_is_queued_than_a_slow_client_may_have_waiting(node: ReplyNode) -> None:
    call, rendering = PartsCall(), Rendering()
    call.is_slow = True
    start(node, rendering, call)
    for _ in range(KEYS):
        node.clock.advance(WAIT_S)
    assert QUEUED_BYTES_MAX < call.queued <= QUEUED_BYTES_MAX + SLICE_OCTETS_MAX
    # What it holds still counts, but it is in nobody's way.
    assert rendering.size > 0
    assert rendering.replies == []
    call.drain()
    while call.is_open:
        node.clock.advance(WAIT_S)
    assert rendering.size == 0


def test_answers_that_nobody_reads_are_given_up_when_they_hold_all_there_is(
    node: ReplyNode,
) -> None:
    unread, other = PartsCall(), PartsCall()
    rendering = Rendering(rendered_max=0, sending_max=0)
    unread.is_slow = True
    start(node, rendering, unread)
    for _ in range(KEYS):
        node.clock.advance(WAIT_S)
    start(node, rendering, other)
    held = rendering.size
    for _ in range(KEYS):
        node.clock.advance(WAIT_S)
    assert (rendering.size, other.sent, unread.is_open) == (held, [], True)
    for _ in range(int(STALLED_S / WAIT_S) + KEYS):
        node.clock.advance(WAIT_S)
    assert not unread.is_open
    assert b"".join(other.sent) == node.store.range(EVERYTHING)
    assert (rendering.size, rendering.sending_size, rendering.replies) == (0, 0, [])


def test_an_answer_without_a_place_is_never_the_one_that_may_go_on(node: ReplyNode) -> None:
    rendering = Rendering(rendered_max=0)
    calls = [PartsCall() for _ in range(RUNNING_MAX + 1)]
    client = OneClient()
    for call in calls:
        call.client = client
    node.reads.spend(LIGHT_S)

    def begin(call: PartsCall) -> SlicedReply:
        slices = node.store.open_range(EVERYTHING)
        assert isinstance(slices, RangeSlices)
        return SlicedReply(node, rendering, call, slices, node.store.revision)

    for call in calls[:-1]:
        assert node.reads.add(call, 0, partial(begin, call))
    assert node.reads.go_on(calls[-1], begin(calls[-1]))  # made before the others begin
    for _ in range(20):
        node.clock.advance(WAIT_S)
    assert [call.is_open for call in calls] == [False] * len(calls)
    assert (rendering.size, rendering.replies) == (0, [])


def test_what_a_client_that_left_held_is_let_go(node: ReplyNode) -> None:
    call, rendering = PartsCall(), Rendering()
    call.is_slow = True
    start(node, rendering, call)
    for _ in range(KEYS):
        node.clock.advance(WAIT_S)
    call.cancel()
    node.clock.advance(WAIT_S)
    assert rendering.size == 0
    assert node.clock.getDelayedCalls() == []


def test_a_bounded_range_reads_little_more_than_its_bound(
    state: LmdbState, node: ReplyNode
) -> None:
    for frames in (
        state.frames(b"", None, 0, SLICE_OCTETS_MAX),
        state.frames_at(b"", None, KEYS, 0, SLICE_OCTETS_MAX),
    ):
        assert len(frames) == SLICE_OCTETS_MAX // VALUE_SIZE + 1
    state.put(KEYS + 2, 0, b"x" * 500, b"\x0a\x01x", True)  # a long key: groups of rows
    state.flush(lambda: None)
    assert len(state.frames(b"", None, 0, SLICE_OCTETS_MAX)) <= 16
    assert len(state.frames(b"", None)) == KEYS + 1


def test_nothing_is_sent_when_users_or_roles_have_changed_meanwhile(node: ReplyNode) -> None:
    revisions = [3]
    for now, status in ((3, (0, "")), (4, OLD), (0, OLD)):
        revisions[0] = 3
        call, rendering = PartsCall(), Rendering()
        slices = node.store.open_range(EVERYTHING)
        assert isinstance(slices, RangeSlices)
        task = SlicedReply(
            node,
            rendering,
            call,
            slices,
            node.store.revision,
            users_revision=lambda: revisions[0],
        )
        revisions[0] = now
        assert node.reads.go_on(call, task)
        while call.is_open:
            node.clock.advance(0)
        assert call.status == status
        assert bool(call.sent) == (status == (0, ""))
