"""Spans of calls, without what exports them: names, parents, attributes, ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from etcdtw.grpc.call import (
    BIDI_STREAM,
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    SERVER_STREAM,
    UNARY,
    Call,
    MethodTable,
    StatusError,
)
from etcdtw.rpc.tracing.methods import traced
from etcdtw.rpc.tracing.operations import KEY_SIZE_MAX, operation_of
from etcdtw.rpc.tracing.seams import Attributes
from etcdtw.rpc.tracing.traced_call import SPANS_MAX
from etcdtw.wire import etcdserverpb as pb
from tests.support.recorded_call import BatchingCall, RecordedCall

PUT = "/etcdserverpb.KV/Put"
RANGE_STREAM = "/etcdserverpb.KV/RangeStream"
GRANT = "/etcdserverpb.Lease/LeaseGrant"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
WATCH = "/etcdserverpb.Watch/Watch"
MEMBER_LIST = "/etcdserverpb.Cluster/MemberList"


class RecordedSpan:
    """Implements `rpc.tracing.seams.Span`."""

    def __init__(self, tracer: RecordedTracer, name: str, parent: str = "") -> None:
        self.name = name
        self.parent = parent
        self.attributes: dict[str, Any] = {}
        self.error: str | None = None
        self._tracer = tracer

    def child(self, name: str, attributes: Attributes) -> RecordedSpan:
        span = RecordedSpan(self._tracer, name, self.name)
        span.set(attributes)
        return span

    def set(self, attributes: Attributes) -> None:
        self.attributes.update(attributes)

    def fail(self, text: str) -> None:
        self.error = text

    def end(self) -> None:
        assert self not in self._tracer.ended, "ended twice"
        self._tracer.ended.append(self)


class RecordedTracer:
    """Samples everything, or nothing."""

    def __init__(self) -> None:
        self.is_on = True
        self.ended: list[RecordedSpan] = []

    def begin(self, name: str, call: Call) -> RecordedSpan | None:
        return RecordedSpan(self, name) if self.is_on else None

    @property
    def names(self) -> list[str]:
        """Each span with its parent, as they ended."""
        return [f"{one.parent}>{one.name}" for one in self.ended]

    @property
    def codes(self) -> list[str]:
        found = [one.attributes.get("rpc.response.status_code") for one in self.ended]
        return [one for one in found if one is not None]


class Rig:
    """One method, traced."""

    def __init__(self, path: str, kind: int, service: Callable[..., Any]) -> None:
        self.tracer = RecordedTracer()
        self.now_ms = 0
        methods = MethodTable()
        if kind == UNARY:
            methods.add_unary(path, service)
        elif kind == SERVER_STREAM:
            methods.add_server_stream(path, service)
        else:
            methods.add_bidi_stream(path, service)
        self.table = traced(methods, self.tracer, lambda: self.now_ms)
        method = self.table.find(path.encode())
        assert method is not None
        _, self.method = self.table.screen(method, lambda name: None)

    def ask(self, message: Any, call: RecordedCall | None = None) -> bytes | None:
        call = call or RecordedCall()
        assert self.method.unary is not None
        return self.method.unary(call, message.SerializeToString())

    def open(self, call: RecordedCall) -> RecordedCall:
        assert self.method.opened is not None
        self.method.opened(call)
        return call


def test_a_put_has_its_span_beneath_that_of_its_call_and_no_value() -> None:
    kept: list[Call] = []
    rig = Rig(PUT, UNARY, lambda call, message: kept.append(call))
    call = RecordedCall()
    assert rig.ask(pb.PutRequest(key=b"k", value=b"secret"), call) is None
    assert rig.tracer.names == []
    kept[0].reply(b"done")
    assert call.replies == [b"done"]
    assert rig.tracer.names == ["etcdserverpb.KV/Put>put", ">etcdserverpb.KV/Put"]
    assert [span.attributes for span in rig.tracer.ended] == [
        {"key": "k"},
        {"rpc.response.status_code": "OK"},
    ]
    kept[0].reply(b"again")
    kept[0].fail(INTERNAL, "again")
    assert len(rig.tracer.ended) == 2


def test_an_answer_at_once_ends_the_spans() -> None:
    rig = Rig(MEMBER_LIST, UNARY, lambda call, message: b"reply")
    assert rig.ask(pb.MemberListRequest()) == b"reply"
    assert rig.tracer.names == [">etcdserverpb.Cluster/MemberList"]
    assert rig.tracer.codes == ["OK"]


def test_a_request_that_is_not_begun_has_no_span_of_its_own() -> None:
    def refuse(call: Call, message: bytes) -> None:
        raise StatusError(INVALID_ARGUMENT, "etcdserver: key is not provided")

    rig = Rig(PUT, UNARY, refuse)
    with pytest.raises(StatusError):
        rig.ask(pb.PutRequest())
    assert rig.tracer.names == [">etcdserverpb.KV/Put"]
    assert rig.tracer.codes == ["INVALID_ARGUMENT"]
    assert rig.tracer.ended[0].error is None


@pytest.mark.parametrize(
    ("code", "name", "error"), [(NOT_FOUND, "NOT_FOUND", None), (INTERNAL, "INTERNAL", "why")]
)
def test_only_what_is_the_servers_fault_is_an_error(
    code: int, name: str, error: str | None
) -> None:
    rig = Rig(PUT, UNARY, lambda call, message: call.fail(code, "why"))
    rig.ask(pb.PutRequest(key=b"k"))
    assert (rig.tracer.codes, rig.tracer.ended[-1].error) == ([name], error)


@pytest.mark.parametrize(("now_ms", "name"), [(499, "CANCELLED"), (500, "DEADLINE_EXCEEDED")])
def test_a_call_that_its_client_or_its_deadline_ends(now_ms: int, name: str) -> None:
    told: list[str] = []

    def serve(call: Call, message: bytes) -> None:
        call.on_end = lambda: told.append("ended")

    rig = Rig(PUT, UNARY, serve)
    call = RecordedCall()
    call.deadline_ms = 500
    rig.ask(pb.PutRequest(key=b"k"), call)
    rig.now_ms = now_ms
    call.cancel()
    assert told == ["ended"]
    assert rig.tracer.codes == [name]
    assert rig.tracer.names[0] == "etcdserverpb.KV/Put>put"


def test_a_call_that_is_not_sampled_meets_its_service_itself() -> None:
    kept: list[Call] = []
    rig = Rig(PUT, UNARY, lambda call, message: kept.append(call))
    rig.tracer.is_on = False
    call = RecordedCall()
    rig.ask(pb.PutRequest(key=b"k"), call)
    assert kept == [call]


def test_octets_that_are_no_request_make_no_span_of_their_own() -> None:
    assert operation_of(PUT, b"\xff") is None


def test_a_lease_has_the_id_that_it_was_given() -> None:
    reply = pb.LeaseGrantResponse(ID=77).SerializeToString()
    rig = Rig(GRANT, UNARY, lambda call, message: call.reply(reply))
    rig.ask(pb.LeaseGrantRequest(TTL=5))
    assert rig.tracer.ended[0].attributes == {"id": 77, "ttl": 5}


def test_keys_are_text_whatever_they_hold_and_bounded() -> None:
    """etcd's exporter loses a whole batch for one key that is no UTF-8."""
    operation = operation_of(PUT, pb.PutRequest(key=b"\xff" + b"k" * 5000).SerializeToString())
    assert operation is not None
    key = operation.attributes["key"]
    assert key == "\\xff" + "k" * (KEY_SIZE_MAX - 1)


def test_a_txn_is_told_by_its_first_keys() -> None:
    txn = pb.TxnRequest(
        compare=[pb.Compare(key=b"c")],
        success=[
            pb.RequestOp(request_txn=pb.TxnRequest()),
            pb.RequestOp(request_put=pb.PutRequest(key=b"p", lease=9, value=b"secret")),
        ],
    )
    operation = operation_of("/etcdserverpb.KV/Txn", txn.SerializeToString())
    assert operation is not None
    assert operation.attributes == {
        "compare_first_key": "c",
        "success_first_key": "p",
        "success_first_type": "txn",
        "success_first_lease": 9,
        "compare_len": 1,
        "success_len": 2,
        "failure_len": 0,
        "read_only": False,
    }


def test_a_stream_of_one_request_has_one_span_for_it() -> None:
    def serve(call: Call) -> None:
        def asked(message: bytes) -> None:
            call.send(b"a part")
            call.finish()

        call.on_message = asked

    rig = Rig(RANGE_STREAM, SERVER_STREAM, serve)
    call = rig.open(RecordedCall())
    call.receive(pb.RangeRequest(key=b"a", range_end=b"b", limit=2).SerializeToString())
    assert call.sent == [b"a part"]
    name = "etcdserverpb.KV/RangeStream"
    assert rig.tracer.names == [f"{name}>range_streaming", f">{name}"]
    assert "keys_only" not in rig.tracer.ended[0].attributes


def test_each_keep_alive_lasts_until_it_is_answered() -> None:
    def serve(call: Call) -> None:
        call.on_message = call.send

    rig = Rig(KEEP_ALIVE, BIDI_STREAM, serve)
    call = rig.open(RecordedCall())
    for lease_id in (7, 8):
        call.receive(pb.LeaseKeepAliveRequest(ID=lease_id).SerializeToString())
    assert [span.attributes for span in rig.tracer.ended] == [{"id": 7}, {"id": 8}]
    call.cancel()
    assert rig.tracer.codes == ["CANCELLED"]


def watching() -> tuple[Rig, BatchingCall, list[Any]]:
    """Return a stream of watches, and what its service is given."""
    services: list[Any] = []

    def serve(call: Any) -> None:
        services.append(call)
        call.on_message = lambda message: None

    rig = Rig(WATCH, BIDI_STREAM, serve)
    call = BatchingCall()
    rig.open(call)
    return rig, call, services


def created(rig: Rig, call: BatchingCall, service: Any, watch_id: int, **fields: Any) -> None:
    request = pb.WatchRequest(create_request=pb.WatchCreateRequest(**fields))
    call.receive(request.SerializeToString())
    response = pb.WatchResponse(watch_id=watch_id, created=True)
    service.send_all([response.SerializeToString()])


def test_a_watch_lasts_from_its_creation_to_its_cancellation() -> None:
    rig, call, services = watching()
    created(rig, call, services[0], 4, key=b"w", range_end=b"\0", start_revision=3)
    created(rig, call, services[0], 5, key=b"x")
    assert rig.tracer.names == []
    cancel = pb.WatchRequest(cancel_request=pb.WatchCancelRequest(watch_id=4))
    call.receive(cancel.SerializeToString())
    assert [span.attributes["key"] for span in rig.tracer.ended] == ["w"]
    assert rig.tracer.ended[0].attributes["range_end"] == ""
    call.cancel()
    assert [span.name for span in rig.tracer.ended] == [
        "watch",
        "watch",
        "etcdserverpb.Watch/Watch",
    ]


def test_a_watch_that_is_refused_has_no_span() -> None:
    rig, call, services = watching()
    request = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=b"w"))
    call.receive(request.SerializeToString())
    services[0].send(pb.WatchResponse(created=True, canceled=True).SerializeToString())
    call.cancel()
    assert rig.tracer.names == [">etcdserverpb.Watch/Watch"]


@pytest.mark.parametrize(("asked", "spans"), [(SPANS_MAX, SPANS_MAX), (SPANS_MAX + 1, SPANS_MAX)])
def test_a_stream_has_no_more_open_spans_than_the_bound(asked: int, spans: int) -> None:
    def serve(call: Call) -> None:
        call.on_message = lambda message: None

    rig = Rig(KEEP_ALIVE, BIDI_STREAM, serve)
    call = rig.open(RecordedCall())
    message = pb.LeaseKeepAliveRequest(ID=7).SerializeToString()
    for _ in range(asked):
        call.receive(message)
    call.cancel()
    assert len(rig.tracer.ended) == spans + 1


def test_a_request_that_breaks_a_stream_tells_why() -> None:
    def asked(message: bytes) -> None:
        raise StatusError(INVALID_ARGUMENT, "no")

    def serve(call: Call) -> None:
        call.on_message = asked

    rig = Rig(RANGE_STREAM, SERVER_STREAM, serve)
    call = rig.open(RecordedCall())
    with pytest.raises(StatusError):
        call.receive(b"")
    call.cancel()  # as a transport does then
    assert rig.tracer.codes == ["INVALID_ARGUMENT"]


class WholeCall(BatchingCall):
    """A call that offers all that one may offer besides."""

    def __init__(self) -> None:
        super().__init__(hasleader="true")
        self.client = "whose it is"
        self.kept: list[int] = []

    def keep(self, octets: int) -> bool:
        self.kept.append(octets)
        return True

    def send_parts(self, parts: list[bytes]) -> None:
        self.send(b"".join(parts))

    def begin_reply(self, size: int) -> None:
        self.sent.append(b"%d" % size)

    def continue_reply(self, part: bytes) -> None:
        self.sent.append(part)

    def end_reply(self) -> None:
        self.reply(b"")


def test_a_traced_call_is_as_the_one_that_it_stands_for() -> None:
    kept: list[Any] = []
    rig = Rig(PUT, UNARY, lambda call, message: kept.append(call))
    call = WholeCall()
    call.deadline_ms = 77
    rig.ask(pb.PutRequest(key=b"k"), call)
    (one,) = kept
    assert (one.is_open, one.queued, one.deadline_ms) == (True, 0, 77)
    assert (one.client, one.caller) == (call.client, call.caller)
    assert one.metadata(b"hasleader") == b"true"
    one.begin_reply(3)
    one.continue_reply(b"abc")
    one.end_reply()
    one.end_reply()
    assert call.sent == [b"3", b"abc"]
    assert rig.tracer.codes == ["OK"]


def test_a_traced_stream_is_as_the_one_that_it_stands_for() -> None:
    services: list[Any] = []
    told: list[str] = []

    def serve(call: Any) -> None:
        services.append(call)
        call.on_half_close = lambda: told.append("half closed")
        call.on_drain = lambda: told.append("drained")
        call.on_end = lambda: told.append("ended")

    rig = Rig(WATCH, BIDI_STREAM, serve)
    call = WholeCall()
    call.is_slow = True
    rig.open(call)
    (one,) = services
    one.send_all([b""])
    one.send_parts([b"a", b"b"])
    assert one.keep(5)
    call.drain()
    call.half_close()
    call.receive(b"\xff")  # no request: nobody has a span for it
    call.cancel()
    assert (call.sent, call.kept) == ([b"", b"ab"], [5])
    assert told == ["drained", "half closed", "ended"]
    assert rig.tracer.names == [">etcdserverpb.Watch/Watch"]


def test_a_stream_that_its_service_ends_is_ok() -> None:
    rig = Rig(KEEP_ALIVE, BIDI_STREAM, lambda call: call.finish())
    call = rig.open(RecordedCall())
    assert (call.status, rig.tracer.codes) == ((0, ""), ["OK"])


def test_a_stream_that_is_not_sampled_meets_its_service_itself() -> None:
    kept: list[Call] = []
    rig = Rig(WATCH, BIDI_STREAM, kept.append)
    rig.tracer.is_on = False
    call = rig.open(RecordedCall())
    assert kept == [call]


def test_a_stream_that_is_refused_when_it_opens_tells_why() -> None:
    def refuse(call: Call) -> None:
        raise StatusError(INVALID_ARGUMENT, "no")

    rig = Rig(WATCH, BIDI_STREAM, refuse)
    with pytest.raises(StatusError):
        rig.open(RecordedCall())
    assert rig.tracer.codes == ["INVALID_ARGUMENT"]
