"""KV.RangeStream: chunks that merge into the range they stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from etcdtw.apply.errors import NoLeaderError
from etcdtw.auth.switch import Switch
from etcdtw.grpc.call import (
    INTERNAL,
    OUT_OF_RANGE,
    SERVER_STREAM,
    UNIMPLEMENTED,
    MethodTable,
    StatusError,
)
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.mvcc.store import WORK_BOUNDS, Store
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.rpc.kv.range_stream import QUEUED_BYTES_MAX
from etcdtw.rpc.kv.read_queue import WAIT_S, ReadQueue
from etcdtw.rpc.kv.service import KvService
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import ResponseHeaders
from etcdtw.wire.requests import put_of
from tests.support.fake_facade import FakeFacade
from tests.support.model_backend import ModelBackend


class StreamCall:
    """A streaming call; ``queued`` is set by the test."""

    on_message: Callable[[bytes], None] | None = None
    on_half_close: Callable[[], None] | None = None
    on_end: Callable[[], None] | None = None
    on_drain: Callable[[], None] | None = None
    caller = NOBODY_KNOWN

    def __init__(self) -> None:
        self.is_open = True
        self.queued = 0
        self.sent: list[bytes] = []
        self.status: tuple[int, str] | None = None

    def send(self, message: bytes) -> None:
        assert self.is_open, "sent behind the end"
        self.sent.append(message)

    def finish(self) -> None:
        assert self.is_open, "ended twice"
        self.is_open = False
        self.status = (0, "")

    def fail(self, code: int, message: str) -> None:
        assert self.is_open, "ended twice"
        self.is_open = False
        self.status = (code, message)

    @property
    def chunks(self) -> list[pb.RangeResponse]:
        return [_range_response(message) for message in self.sent]


def _range_response(message: bytes) -> pb.RangeResponse:
    response: Any = pb.RangeStreamResponse.FromString(message)
    result: pb.RangeResponse = response.range_response
    return result


class StreamRig(FakeFacade):
    """A service with a store of ``count`` keys, and one stream at a time."""

    def __init__(self, count: int = 0, bounds: WorkBounds = WORK_BOUNDS, **options: Any) -> None:
        self.clock = Clock()
        self.backend = ModelBackend()
        self.store = Store(self.backend, lambda lease_id: True, bounds)
        self.refusal: Exception | None = None
        self.reads_count = 0
        methods = MethodTable()
        KvService(self, reads=ReadQueue(self.clock, 0), **options).register(methods)
        method = methods.find(b"/etcdserverpb.KV/RangeStream")
        assert method is not None
        assert method.kind == SERVER_STREAM
        assert method.opened is not None
        self.opened: Callable[[Any], None] = method.opened
        for i in range(count):
            self.put(b"%05d" % i)

    def put(self, key: bytes, value: bytes = b"v") -> None:
        self.store.apply_put(put_of(pb.PutRequest(key=key, value=value, lease=5)))

    def header(self, revision: int) -> bytes:
        return ResponseHeaders(1, 2, 3).encode(revision)

    def propose(self, *arguments: Any) -> None:
        raise AssertionError("a stream proposes nothing")

    def read(self, call: Any, done: Callable[..., None]) -> None:
        self.reads_count += 1
        done(call, self.refusal)

    def open(self, message: bytes) -> StreamCall:
        call = StreamCall()
        self.opened(call)
        assert call.on_message is not None
        call.on_message(message)
        return call

    def stream(self, **fields: Any) -> StreamCall:
        fields.setdefault("key", b"\0")
        fields.setdefault("range_end", b"\0")
        return self.open(pb.RangeRequest(**fields).SerializeToString())

    def run(self, **fields: Any) -> StreamCall:
        call = self.stream(**fields)
        while call.is_open:
            self.clock.advance(0)
        return call


def merged(call: StreamCall) -> pb.RangeResponse:
    whole = pb.RangeResponse()
    for chunk in call.chunks:
        whole.MergeFrom(chunk)
    return whole


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 75])
@pytest.mark.parametrize("limit", [0, 1, 10, 11, 74, 75, 76])
def test_the_chunks_merge_into_the_range(count: int, limit: int) -> None:
    rig = StreamRig(count)
    request = pb.RangeRequest(key=b"\0", range_end=b"\0", limit=limit)
    expected = rig.header(rig.store.revision) + rig.store.range(request)
    assert merged(rig.run(limit=limit)) == pb.RangeResponse.FromString(expected)


def test_only_the_last_chunk_has_header_more_and_count() -> None:
    chunks = StreamRig(75).run(limit=60).chunks
    for chunk in chunks[:-1]:
        assert not chunk.HasField("header")
        assert not chunk.more
        assert not chunk.count
    last = chunks[-1]
    assert (last.header.revision, last.more, last.count) == (76, True, 75)


def test_an_empty_range_is_one_chunk_with_the_header() -> None:
    (chunk,) = StreamRig().run().chunks
    assert chunk == pb.RangeResponse(header=chunk.header)
    assert chunk.header.revision == 1


def test_a_single_key_can_be_streamed() -> None:
    call = StreamRig(3).run(key=b"00001", range_end=b"")
    assert [kv.key for kv in merged(call).kvs] == [b"00001"]


def test_a_chunk_has_ten_keys_and_then_twice_as_many_while_they_are_small() -> None:
    chunks = StreamRig(100).run().chunks
    assert [len(chunk.kvs) for chunk in chunks] == [10, 20, 40, 30]


def test_chunks_of_large_keys_shrink() -> None:
    rig = StreamRig(request_bytes_max=1_000)
    for i in range(30):
        rig.put(b"%05d" % i, b"v" * 300)
    assert [len(chunk.kvs) for chunk in rig.run().chunks][:3] == [10, 5, 5]


def test_count_only_is_one_message() -> None:
    (chunk,) = StreamRig(75).run(count_only=True).chunks
    assert (len(chunk.kvs), chunk.more, chunk.count) == (0, False, 75)


def test_keys_only_drops_values_and_keeps_leases() -> None:
    whole = merged(StreamRig(3).run(keys_only=True))
    assert [(kv.value, kv.lease) for kv in whole.kvs] == [(b"", 5)] * 3


def test_the_stream_stays_at_the_revision_at_which_it_began() -> None:
    rig = StreamRig(30)
    call = rig.stream()
    rig.put(b"00029", b"newer")
    rig.put(b"99999")
    while call.is_open:
        rig.clock.advance(0)
    whole = merged(call)
    assert (len(whole.kvs), whole.kvs[29].value, whole.header.revision) == (30, b"v", 31)


@pytest.mark.parametrize("limit", [0, 5])
def test_a_past_revision_is_streamed_and_counted(limit: int) -> None:
    rig = StreamRig(30)
    whole = merged(rig.run(revision=16, limit=limit))
    assert (len(whole.kvs), whole.count, whole.more) == (limit or 15, 15, bool(limit))


@pytest.mark.parametrize("limit", [0, 5, 9, 10, 11, 14, 15, 16, 30, -1])
@pytest.mark.parametrize("revision", [0, 16])
def test_the_last_chunk_holds_the_keys_that_end_the_range_or_reach_the_limit(
    revision: int, limit: int
) -> None:
    rig = StreamRig(15 if revision == 0 else 30, WorkBounds(slice_past_keys_max=4))
    chunks = rig.run(revision=revision, limit=limit).chunks
    assert all(chunk.kvs for chunk in chunks)
    sent = sum(len(chunk.kvs) for chunk in chunks)
    assert (sent, chunks[-1].count) == (min(limit, 15) if limit > 0 else 15, 15)
    assert chunks[-1].more == (0 < limit < 15)


def test_the_header_tells_the_newest_revision_at_the_start_whatever_revision_is_read() -> None:
    rig = StreamRig(30)
    call = rig.stream(revision=16)
    rig.put(b"newer")
    while call.is_open:
        rig.clock.advance(0)
    assert call.chunks[-1].header.revision == 31


@pytest.mark.parametrize("keys_max", [1, 10_000])
def test_a_sort_target_without_an_order_sorts_ascending(keys_max: int) -> None:
    rig = StreamRig(3, WorkBounds(slice_keys_max=keys_max))
    rig.put(b"00000")
    call = rig.run(sort_target=pb.RangeRequest.MOD)
    assert [kv.key for kv in merged(call).kvs] == [b"00001", b"00002", b"00000"]
    assert all(chunk.kvs for chunk in call.chunks)
    assert (call.chunks[-1].header.revision, call.chunks[-1].count) == (5, 3)


def test_of_a_sort_target_without_an_order_one_key_more_than_the_limit_is_sorted() -> None:
    rig = StreamRig(5)
    rig.put(b"00000")
    whole = merged(rig.run(sort_target=pb.RangeRequest.MOD, limit=2))
    assert ([kv.key for kv in whole.kvs], whole.more) == ([b"00001", b"00002"], True)


def test_a_compaction_behind_the_stream_ends_it() -> None:
    rig = StreamRig(30)
    call = rig.stream()
    rig.put(b"k")
    rig.store.apply_compaction(pb.CompactionRequest(revision=32))
    rig.clock.advance(0)
    assert call.status == (OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted")


def test_a_future_revision_is_refused() -> None:
    status = StreamRig(1).run(revision=9).status
    assert status == (OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision")


def test_a_serializable_stream_asks_nobody() -> None:
    rig = StreamRig(1)
    rig.run(serializable=True)
    assert rig.reads_count == 0
    rig.run()
    assert rig.reads_count == 1


def test_a_failed_read_ends_the_stream() -> None:
    rig = StreamRig(1)
    rig.refusal = NoLeaderError()
    assert rig.run().status == (14, "etcdserver: no leader")


def test_sorting_and_filters_are_unimplemented() -> None:
    rig = StreamRig(1)
    for fields in ({"sort_order": 2}, {"max_mod_revision": 3}):
        status = rig.run(**fields).status
        assert status is not None
        assert status[0] == UNIMPLEMENTED


def test_octets_that_are_no_message_are_internal() -> None:
    status = StreamRig().open(b"\x0a\xff\x01").status
    assert status is not None
    assert status[0] == INTERNAL
    assert status[1].startswith("grpc: failed to unmarshal the received message: ")


def test_a_second_request_is_ignored() -> None:
    rig = StreamRig(1)
    call = rig.stream()
    sent = list(call.sent)
    assert call.on_message is not None
    call.on_message(b"\x0a\x01k")
    assert call.sent == sent


def test_a_slow_reader_holds_the_stream_back() -> None:
    rig = StreamRig(100)
    call = StreamCall()
    call.queued = QUEUED_BYTES_MAX + 1
    rig.opened(call)
    assert call.on_message is not None
    assert call.on_drain is not None
    call.on_message(pb.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString())
    for _ in range(5):
        rig.clock.advance(WAIT_S)
    assert len(call.sent) == 1
    call.queued = QUEUED_BYTES_MAX
    call.on_drain()
    call.on_drain()
    while call.is_open:
        rig.clock.advance(0)
    assert len(merged(call).kvs) == 100


def test_a_stream_stops_when_its_caller_is_gone() -> None:
    rig = StreamRig(100)
    call = rig.stream()
    call.is_open = False
    rig.clock.advance(0)
    assert rig.clock.getDelayedCalls() == []


def test_a_stream_that_only_counts_waits_for_no_reader() -> None:
    rig = StreamRig(30, bounds=WorkBounds(slice_past_keys_max=10))
    call = StreamCall()
    rig.opened(call)
    assert call.on_message is not None
    # What waits are answers of other calls on the connection: nothing of this one drains.
    call.queued = QUEUED_BYTES_MAX + 1
    request = pb.RangeRequest(key=b"\0", range_end=b"\0", revision=30, count_only=True)
    call.on_message(request.SerializeToString())
    for _ in range(5):
        rig.clock.advance(0)
    assert [chunk.count for chunk in call.chunks] == [29]


def test_a_caller_who_may_not_read_gets_no_chunk() -> None:
    class Refused:
        switch = Switch(is_on=True)
        revision = 1

        def read_refusal(self, caller: Caller, request: object) -> Exception | None:
            return StatusError(7, "etcdserver: permission denied")

    call = StreamRig(3, check_read=Refused()).run()
    assert (call.sent, call.status) == ([], (7, "etcdserver: permission denied"))


def test_a_stream_ends_when_users_or_roles_change() -> None:
    class Users:
        switch = Switch(is_on=True)
        revision = 1

        def read_refusal(self, caller: Caller, request: object) -> Exception | None:
            return None

    users = Users()
    rig = StreamRig(100, check_read=users)
    call = rig.stream()
    assert not call.status
    users.revision = 2
    while call.is_open:
        rig.clock.advance(0)
    assert call.status == (3, "etcdserver: revision of auth store is old")
