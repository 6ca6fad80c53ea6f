"""The KV service over a real store, with a node that applies at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from etcdtw.apply.applier import FIELD_COMPACTION, FIELD_DELETE_RANGE, FIELD_PUT, FIELD_TXN
from etcdtw.apply.errors import LeaderChangedError, RequestTooLargeError
from etcdtw.auth.switch import Switch
from etcdtw.grpc.call import INTERNAL, RESOURCE_EXHAUSTED, MethodTable, StatusError
from etcdtw.grpc.caller import NOBODY_KNOWN, Caller
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.work_bounds import WorkBounds
from etcdtw.rpc.kv.read_queue import WAIT_S, ReadQueue
from etcdtw.rpc.kv.service import KvService
from etcdtw.rpc.kv.sliced_reply import Rendering
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import ResponseHeaders
from etcdtw.wire.requests import Put, Txn, put_of
from tests.support.fake_facade import FakeFacade
from tests.support.model_backend import ModelBackend
from tests.support.records import content

CALLS: dict[str, Any] = {
    "Range": pb.RangeResponse,
    "Put": pb.PutResponse,
    "DeleteRange": pb.DeleteRangeResponse,
    "Txn": pb.TxnResponse,
    "Compact": pb.CompactionResponse,
}


class FakeCall:
    """A unary or streaming call that keeps what it is told."""

    on_message: Callable[[bytes], None] | None = None
    on_half_close: Callable[[], None] | None = None
    on_end: Callable[[], None] | None = None
    on_drain: Callable[[], None] | None = None
    deadline_ms: int | None = None
    caller = NOBODY_KNOWN

    def __init__(self) -> None:
        self.is_open = True
        self.queued = 0
        self.replies: list[bytes] = []
        self.status: tuple[int, str] | None = None

    def metadata(self, name: bytes) -> bytes | None:
        return None

    def reply(self, message: bytes) -> None:
        self.replies.append(message)
        self.finish()

    def send(self, message: bytes) -> None:
        self.replies.append(message)

    def finish(self) -> None:
        assert self.is_open, "ended twice"
        self.is_open = False
        self.status = (0, "")

    def fail(self, code: int, message: str) -> None:
        assert self.is_open, "ended twice"
        self.is_open = False
        self.status = (code, message)


def assert_same(message: bytes, parsed: Any) -> None:
    """``parsed`` is what ``message`` says."""
    if isinstance(parsed, Put):
        assert content(parsed) == content(put_of(pb.PutRequest.FromString(message)))
    elif not isinstance(parsed, Txn):
        assert parsed.SerializeToString() == message


class FakeNode(FakeFacade):
    """Applies proposals at once; reads wait in ``reads`` if ``holds_reads``."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.backend = self.storage = ModelBackend()
        self.store = Store(self.backend, lambda lease_id: lease_id == 7)
        self.headers = ResponseHeaders(1, 2, 3)
        self.fields: list[int] = []
        self.messages: list[bytes] = []
        self.refusal: Exception | None = None
        self.holds_reads = False
        self.reads: list[Callable[[], None]] = []
        self.reads_count = 0

    def header(self, revision: int) -> bytes:
        return self.headers.encode(revision)

    def propose(
        self, field: int, message: bytes, parsed: Any, call: Any, done: Callable[..., None]
    ) -> None:
        assert_same(message, parsed)
        self.fields.append(field)
        self.messages.append(message)
        if self.refusal is not None:
            done(call, Applied(self.store.revision, b"", self.refusal))
            return
        apply: dict[int, Callable[[Any], Applied]] = {
            FIELD_PUT: self.store.apply_put,
            FIELD_DELETE_RANGE: self.store.apply_delete_range,
            FIELD_TXN: self.store.apply_txn,
            FIELD_COMPACTION: self.store.apply_compaction,
        }
        done(call, apply[field](parsed))

    def read(self, call: Any, done: Callable[..., None]) -> None:
        self.reads_count += 1
        if self.holds_reads:
            self.reads.append(lambda: done(call, self.refusal))
        else:
            done(call, self.refusal)


class FakeQuota:
    """Admits costs up to ``left``."""

    is_tight = True

    def __init__(self, left: int) -> None:
        self.left = left
        self.held: list[int] = []

    def admit(self, cost: int) -> bool:
        return cost <= self.left

    def hold(self, cost: int, done: Callable[[Any, Applied], None]) -> Any:
        self.held.append(cost)
        return done


class KvRig:
    """A `KvService` with its node."""

    def __init__(self, **options: Any) -> None:
        self.node = FakeNode()
        self.methods = MethodTable()
        self.service = KvService(self.node, reads=ReadQueue(self.node.clock, 0), **options)
        self.service.register(self.methods)

    def start(self, name: str, message: bytes) -> FakeCall:
        call = FakeCall()
        method = self.methods.find(b"/etcdserverpb.KV/" + name.encode())
        assert method is not None
        assert method.unary is not None
        try:
            reply = method.unary(call, message)
        except StatusError as error:
            call.fail(error.code, error.message)
        else:
            if reply is not None:
                call.reply(reply)
        return call

    def run(self, name: str, request: Any) -> Any:
        """Return the response, or the status if the call failed."""
        call = self.start(name, request.SerializeToString())
        if not call.replies:
            return call.status
        return CALLS[name].FromString(call.replies[0])

    def put(self, key: bytes, value: bytes = b"v") -> None:
        self.run("Put", pb.PutRequest(key=key, value=value))


@pytest.fixture
def rig() -> KvRig:
    return KvRig()


def read(key: bytes, **fields: Any) -> pb.RequestOp:
    return pb.RequestOp(request_range=pb.RangeRequest(key=key, **fields))


def test_a_put_answers_with_the_header_of_its_revision(rig: KvRig) -> None:
    response = rig.run("Put", pb.PutRequest(key=b"k", value=b"v"))
    header = pb.ResponseHeader(cluster_id=1, member_id=2, revision=2, raft_term=3)
    assert response == pb.PutResponse(header=header)
    assert rig.node.fields == [FIELD_PUT]


def test_a_put_returns_the_previous_pair_when_asked(rig: KvRig) -> None:
    rig.put(b"k", b"old")
    response = rig.run("Put", pb.PutRequest(key=b"k", prev_kv=True))
    assert response.prev_kv.value == b"old"
    assert response.header.revision == 3


@pytest.mark.parametrize("serializable", [True, False])
@pytest.mark.parametrize("key", [b"k", b"k" * 127, b"k" * 128, b"nothing"])
def test_a_range_of_one_key_is_the_same_on_every_path(
    rig: KvRig, key: bytes, serializable: bool
) -> None:
    for present in (b"k", b"k" * 127, b"k" * 128):
        rig.put(present)
    short = rig.run("Range", pb.RangeRequest(key=key, serializable=serializable))
    # The limit keeps this one off the short way.
    long = rig.run("Range", pb.RangeRequest(key=key, serializable=serializable, limit=2))
    assert short == long
    assert short.header.revision == 4
    assert short.count == len(short.kvs) == (0 if key == b"nothing" else 1)


def test_a_serializable_range_asks_nobody(rig: KvRig) -> None:
    rig.run("Range", pb.RangeRequest(key=b"k", serializable=True))
    rig.run("Range", pb.RangeRequest(key=b"k", range_end=b"z", serializable=True))
    assert rig.node.reads_count == 0
    rig.run("Range", pb.RangeRequest(key=b"k"))
    rig.run("Range", pb.RangeRequest(key=b"k", range_end=b"z"))
    assert rig.node.reads_count == 2


def test_a_linearizable_range_sees_what_was_applied_while_it_waited(rig: KvRig) -> None:
    rig.node.holds_reads = True
    calls = [
        rig.start("Range", pb.RangeRequest(key=b"k").SerializeToString()),
        rig.start("Range", pb.RangeRequest(key=b"k", range_end=b"z").SerializeToString()),
    ]
    rig.put(b"k", b"new")
    for answer in rig.node.reads:
        answer()
    for call in calls:
        response = pb.RangeResponse.FromString(call.replies[0])
        assert response.kvs[0].value == b"new"
        assert response.header.revision == 2


def test_a_range_of_the_past_has_the_header_of_now(rig: KvRig) -> None:
    rig.put(b"k", b"1")
    rig.put(b"k", b"2")
    response = rig.run("Range", pb.RangeRequest(key=b"k", revision=2))
    assert response.kvs[0].value == b"1"
    assert response.header.revision == 3


def test_a_failed_read_fails_the_call(rig: KvRig) -> None:
    rig.node.refusal = LeaderChangedError()
    status = (14, "etcdserver: leader changed")
    assert rig.run("Range", pb.RangeRequest(key=b"k")) == status
    assert rig.run("Range", pb.RangeRequest(key=b"k", range_end=b"z")) == status
    assert rig.run("Txn", pb.TxnRequest(success=[read(b"k")])) == status


def test_a_range_out_of_history_is_out_of_range(rig: KvRig) -> None:
    rig.put(b"k")
    rig.put(b"k")
    rig.run("Compact", pb.CompactionRequest(revision=3))
    assert rig.run("Range", pb.RangeRequest(key=b"k", revision=2)) == (
        11,
        "etcdserver: mvcc: required revision has been compacted",
    )
    assert rig.run("Range", pb.RangeRequest(key=b"k", revision=4)) == (
        11,
        "etcdserver: mvcc: required revision is a future revision",
    )
    assert rig.run("Range", pb.RangeRequest(key=b"k", revision=3)).count == 1


@pytest.mark.parametrize("name", sorted(CALLS))
def test_octets_that_are_no_message_are_internal(rig: KvRig, name: str) -> None:
    call = rig.start(name, b"\x0a\xff\x01")
    assert call.status is not None
    assert call.status[0] == INTERNAL
    assert call.status[1].startswith("grpc: error unmarshalling request: ")


@pytest.mark.parametrize("name", ["Range", "Put", "DeleteRange"])
def test_an_empty_key_is_refused(rig: KvRig, name: str) -> None:
    for message in (b"", b"\x0a\x00"):
        assert rig.start(name, message).status == (3, "etcdserver: key is not provided")
    assert rig.node.fields == []


def test_what_the_node_refuses_fails_the_call(rig: KvRig) -> None:
    rig.node.refusal = RequestTooLargeError()
    status = (3, "etcdserver: request is too large")
    assert rig.run("Put", pb.PutRequest(key=b"k")) == status
    assert rig.run("DeleteRange", pb.DeleteRangeRequest(key=b"k")) == status


def test_a_delete_counts_and_returns_what_it_deleted(rig: KvRig) -> None:
    rig.put(b"a")
    rig.put(b"b")
    request = pb.DeleteRangeRequest(key=b"a", range_end=b"\0", prev_kv=True)
    response = rig.run("DeleteRange", request)
    assert (response.deleted, response.header.revision) == (2, 4)
    assert [kv.key for kv in response.prev_kvs] == [b"a", b"b"]
    again = rig.run("DeleteRange", request)
    assert (again.deleted, again.header.revision) == (0, 4)


def test_a_txn_that_may_write_goes_through_the_log(rig: KvRig) -> None:
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"k"))
    response = rig.run("Txn", pb.TxnRequest(success=[read(b"k")], failure=[put]))
    assert response.succeeded
    assert response.header.revision == 1
    nested = pb.RequestOp(request_txn=pb.TxnRequest(success=[read(b"k")]))
    rig.run("Txn", pb.TxnRequest(success=[nested]))
    assert rig.node.fields == [FIELD_TXN, FIELD_TXN]


def test_what_is_proposed_holds_no_octets_that_members_read_differently(rig: KvRig) -> None:
    skipped = b"\x08\x01"  # the key's field, of another type
    rig.start("Put", skipped + b"\x0a\x01k")
    rig.start("DeleteRange", skipped + b"\x0a\x01k")
    rig.start("Txn", b"\x12\x07\x12\x05" + skipped + b"\x0a\x01k")
    rig.start("Compact", b"\x0a\x00\x08\x01")
    put = pb.PutRequest(key=b"k")
    assert rig.node.messages == [
        put.SerializeToString(),
        pb.DeleteRangeRequest(key=b"k").SerializeToString(),
        pb.TxnRequest(success=[pb.RequestOp(request_put=put)]).SerializeToString(),
        pb.CompactionRequest(revision=1).SerializeToString(),
    ]


def test_a_txn_of_ranges_stays_out_of_the_log(rig: KvRig) -> None:
    rig.put(b"k")
    rig.node.fields.clear()
    response = rig.run("Txn", pb.TxnRequest(success=[read(b"k")]))
    assert response.responses[0].response_range.count == 1
    assert (rig.node.reads_count, rig.node.fields) == (1, [])


@pytest.mark.parametrize(
    ("txn", "reads_count"),
    [
        (pb.TxnRequest(compare=[pb.Compare(key=b"k")]), 0),
        (pb.TxnRequest(success=[read(b"k", serializable=True)]), 0),
        (pb.TxnRequest(success=[read(b"k", serializable=True)], failure=[read(b"k")]), 1),
    ],
)
def test_a_read_only_txn_is_local_when_every_range_is(
    rig: KvRig, txn: pb.TxnRequest, reads_count: int
) -> None:
    rig.run("Txn", txn)
    assert rig.node.reads_count == reads_count


def test_the_budget_of_operations_can_be_set() -> None:
    rig = KvRig(txn_ops_max=1)
    txn = pb.TxnRequest(success=[read(b"a"), read(b"b")])
    assert rig.run("Txn", txn) == (3, "etcdserver: too many operations in txn request")


@pytest.mark.parametrize(("left", "is_admitted"), [(258, True), (257, False)])
def test_a_put_costs_its_octets_and_256_more(left: int, is_admitted: bool) -> None:
    rig = KvRig(quota=FakeQuota(left))
    put = pb.PutRequest(key=b"k", value=b"v")
    txn = pb.TxnRequest(failure=[pb.RequestOp(request_put=put)])
    refused = (RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded")
    assert (rig.run("Put", put) == refused) is not is_admitted
    assert (rig.run("Txn", txn) == refused) is not is_admitted


def test_the_quota_is_asked_before_the_request_is_checked() -> None:
    rig = KvRig(quota=FakeQuota(-1))
    assert rig.run("Put", pb.PutRequest())[0] == RESOURCE_EXHAUSTED


def test_only_what_is_proposed_is_held_against_the_quota() -> None:
    quota = FakeQuota(1000)
    rig = KvRig(quota=quota)
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"k", value=b"v"))
    assert rig.run("Put", pb.PutRequest()) == (3, "etcdserver: key is not provided")
    assert rig.run("Txn", pb.TxnRequest(success=[put, put]))[0] == 3
    assert quota.held == []
    rig.put(b"k")
    rig.run("Txn", pb.TxnRequest(success=[put]))
    rig.run("Txn", pb.TxnRequest())
    assert quota.held == [258, 258]


def test_deletes_and_reads_pass_a_full_quota() -> None:
    rig = KvRig(quota=FakeQuota(-1))
    assert rig.run("DeleteRange", pb.DeleteRangeRequest(key=b"k")).deleted == 0
    delete = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"k"))
    assert rig.run("Txn", pb.TxnRequest(success=[delete])).succeeded


def test_a_compaction_is_answered_with_the_current_revision(rig: KvRig) -> None:
    rig.put(b"k")
    response = rig.run("Compact", pb.CompactionRequest(revision=2))
    assert response.header.revision == 2
    assert rig.run("Compact", pb.CompactionRequest(revision=2)) == (
        11,
        "etcdserver: mvcc: required revision has been compacted",
    )
    assert rig.run("Compact", pb.CompactionRequest(revision=3, physical=True))[0] == 11


def test_a_physical_compaction_waits_until_history_is_gone() -> None:
    waiting: list[tuple[int, Callable[[], None]]] = []

    class Compactions:
        def on_compacted(self, revision: int, done: Callable[[], None]) -> None:
            waiting.append((revision, done))

    rig = KvRig()
    rig.node.storage = Compactions()
    rig.put(b"k")
    call = rig.start("Compact", pb.CompactionRequest(revision=2, physical=True).SerializeToString())
    assert call.is_open
    ((revision, done),) = waiting
    assert revision == 2
    done()
    assert pb.CompactionResponse.FromString(call.replies[0]).header.revision == 2


# Answers too large for one go.


def fill(rig: KvRig, count: int) -> None:
    for i in range(count):
        rig.node.store.apply_put(Put(b"%05d" % i, b"v" * 100))


@pytest.fixture
def sliced(rig: KvRig) -> None:
    small_slices(rig)


def small_slices(rig: KvRig) -> None:
    rig.node.store.bounds = WorkBounds(slice_keys_max=3, slice_past_keys_max=3)


@pytest.mark.usefixtures("sliced")
def test_a_large_range_comes_in_slices_and_as_of_one_revision(rig: KvRig) -> None:
    fill(rig, 10)
    everything = pb.RangeRequest(key=b"\0", range_end=b"\0")
    expected = pb.RangeResponse.FromString(rig.node.store.range(everything))
    call = rig.start("Range", everything.SerializeToString())
    assert call.replies == []
    rig.put(b"00009", b"newer")
    while call.is_open:
        rig.node.clock.advance(0)
    response = pb.RangeResponse.FromString(call.replies[0])
    assert response.header.revision == 11
    assert (response.kvs, response.count) == (expected.kvs, 10)


@pytest.mark.usefixtures("sliced")
def test_a_large_range_of_now_starts_over_when_it_is_compacted(rig: KvRig) -> None:
    fill(rig, 10)
    call = rig.start("Range", pb.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString())
    rig.put(b"00000", b"newer")
    rig.run("Compact", pb.CompactionRequest(revision=12))
    while call.is_open:
        rig.node.clock.advance(0)
    response = pb.RangeResponse.FromString(call.replies[0])
    assert response.header.revision == 12
    assert response.kvs[0].value == b"newer"
    assert len(response.kvs) == 10


@pytest.mark.usefixtures("sliced")
def test_a_large_range_that_starts_over_may_have_become_small(rig: KvRig) -> None:
    fill(rig, 10)
    call = rig.start("Range", pb.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString())
    rig.run("DeleteRange", pb.DeleteRangeRequest(key=b"00001", range_end=b"\0"))
    rig.run("Compact", pb.CompactionRequest(revision=12))
    rig.node.clock.advance(0)
    assert pb.RangeResponse.FromString(call.replies[0]).count == 1


@pytest.mark.usefixtures("sliced")
def test_a_large_range_of_the_past_fails_when_it_is_compacted(rig: KvRig) -> None:
    fill(rig, 10)
    request = pb.RangeRequest(key=b"\0", range_end=b"\0", revision=10)
    call = rig.start("Range", request.SerializeToString())
    rig.run("Compact", pb.CompactionRequest(revision=11))
    rig.node.clock.advance(0)
    assert call.status == (11, "etcdserver: mvcc: required revision has been compacted")


@pytest.mark.usefixtures("sliced")
def test_a_large_range_stops_when_its_caller_is_gone(rig: KvRig) -> None:
    fill(rig, 10)
    call = rig.start("Range", pb.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString())
    call.is_open = False
    rig.node.clock.advance(0)
    assert rig.node.clock.getDelayedCalls() == []
    assert not call.replies


@pytest.mark.parametrize(("spare", "is_sent"), [(0, True), (-1, False)])
def test_a_reply_has_a_largest_size(spare: int, is_sent: bool) -> None:
    everything = pb.RangeRequest(key=b"\0", range_end=b"\0")
    filled = KvRig()
    fill(filled, 10)
    size = len(filled.node.store.range(everything))
    rig = KvRig(rendering=Rendering(reply_max=size + spare))
    small_slices(rig)
    fill(rig, 10)
    call = rig.start("Range", everything.SerializeToString())
    while call.is_open:
        rig.node.clock.advance(0)
    assert bool(call.replies) is is_sent
    if not is_sent:
        assert call.status == (3, "etcdserver: request is too large")


def test_only_the_oldest_goes_on_while_too_much_is_being_rendered() -> None:
    rig = KvRig(rendering=Rendering(rendered_max=0))
    small_slices(rig)
    fill(rig, 10)
    everything = pb.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString()
    first, second, third = (rig.start("Range", everything) for _ in range(3))
    assert first.is_open
    assert second.replies == third.replies == []
    second.is_open = False  # its caller goes away while it is held back
    rig.node.clock.advance(0)
    assert first.replies
    for _ in range(10):
        rig.node.clock.advance(WAIT_S)
    assert not second.replies
    assert third.replies == first.replies
    assert rig.node.clock.getDelayedCalls() == []


@pytest.mark.usefixtures("sliced")
def test_answers_are_rendered_side_by_side_while_there_is_room(rig: KvRig) -> None:
    fill(rig, 10)
    everything = pb.RangeRequest(key=b"\0", range_end=b"\0").SerializeToString()
    calls = [rig.start("Range", everything) for _ in range(3)]
    for _ in range(5):
        rig.node.clock.advance(0)
    assert [len(call.replies) for call in calls] == [1, 1, 1]


READS = {
    "a key": ("Range", pb.RangeRequest(key=b"k")),
    "a key, serializable": ("Range", pb.RangeRequest(key=b"k", serializable=True)),
    "a span": ("Range", pb.RangeRequest(key=b"k", range_end=b"l")),
    "a span, serializable": ("Range", pb.RangeRequest(key=b"k", range_end=b"l", serializable=True)),
    "a txn": (
        "Txn",
        pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))]),
    ),
}


@pytest.mark.parametrize("name", READS)
def test_every_form_of_a_read_asks_the_same_question(name: str) -> None:
    asked: list[Caller] = []

    class OnceRefused:
        switch = Switch(is_on=True)
        revision = 1

        def read_refusal(self, caller: Caller, request: object) -> Exception | None:
            asked.append(caller)
            return StatusError(7, "etcdserver: permission denied") if len(asked) == 1 else None

        def range_refusal(self, caller: Caller, key: bytes, range_end: bytes) -> Exception | None:
            assert (key, range_end) == (b"k", b"")
            return self.read_refusal(caller, None)

    rig = KvRig(check_read=OnceRefused())
    method, request = READS[name]
    assert rig.start(method, request.SerializeToString()).status == (
        7,
        "etcdserver: permission denied",
    )
    assert rig.start(method, request.SerializeToString()).status == (0, "")
    assert asked == [NOBODY_KNOWN] * 2
