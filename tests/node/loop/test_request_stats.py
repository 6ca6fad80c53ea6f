"""Requests that took long: one line each in etcd's words, without values."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer

from etcdtw.apply.applier import FIELD_DELETE_RANGE, FIELD_LEASE_GRANT, FIELD_PUT, FIELD_TXN
from etcdtw.grpc.call import Call
from etcdtw.grpc.caller import Caller
from etcdtw.mvcc.applied import Applied
from etcdtw.node.loop.request_stats import FIRST_MAX, THEN_EACH, RequestStats
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import plain, txn_of
from tests.support.node_rig import NodeRig
from tests.support.recorded_call import RecordedCall

HEADER = pb.ResponseHeader(revision=5)


@pytest.fixture
def rig() -> NodeRig:
    return NodeRig().start()


@pytest.fixture
def lines() -> Iterator[list[LogEvent]]:
    found: list[LogEvent] = []

    @implementer(ILogObserver)
    def observer(event: LogEvent) -> None:
        if formatEvent(event) == "request stats":
            found.append(event)

    globalLogPublisher.addObserver(observer)
    yield found
    globalLogPublisher.removeObserver(observer)


def client(remote: str = "10.0.0.7:4711") -> RecordedCall:
    call = RecordedCall()
    call.caller = Caller("10.0.0.7", "", remote=remote)
    return call


def replied(response: Any) -> Any:
    def done(call: Call, _: object) -> None:
        call.reply(response.SerializeToString())

    return done


def fields_of(event: LogEvent) -> dict[str, object]:
    names = ("remote", "response type", "request count", "request size", "response count")
    return {name: event[name] for name in (*names, "response size", "request content")}


def propose(rig: NodeRig, field: int, request: Any, response: Any, call: Call) -> None:
    parsed = request
    if field == FIELD_PUT:
        parsed = plain(request)
    elif field == FIELD_TXN:
        parsed = txn_of(request)
    rig.node.propose(field, request.SerializeToString(), parsed, call, replied(response))


def held(rig: NodeRig, wait_s: float) -> None:
    """Let the disk take so long for what was proposed."""
    rig.log.holds = True
    rig.run(wait_s)
    rig.log.release()
    rig.run()


def test_a_put_that_waits_for_the_disk_is_told_as_by_etcd(
    rig: NodeRig, lines: list[LogEvent]
) -> None:
    put = pb.PutRequest(key=b'k\xff"x', value=b"secretvalue", lease=7)
    propose(rig, FIELD_PUT, put, pb.PutResponse(header=HEADER), client())
    held(rig, 0.5)
    (line,) = lines
    assert line["log_level"] is LogLevel.warn
    assert line["time spent"].endswith("ms")
    assert line["start time"].endswith("Z")
    assert fields_of(line) == {
        "remote": "10.0.0.7:4711",
        "response type": "/etcdserverpb.KV/Put",
        "request count": 1,
        "request size": put.ByteSize(),
        "response count": 0,
        "response size": 4,
        "request content": 'key:"k\\377\\"x" value_size:11 lease:7 ',
    }


def test_a_delete_tells_how_many_keys_went(rig: NodeRig, lines: list[LogEvent]) -> None:
    delete = pb.DeleteRangeRequest(key=b"k", range_end=b"l")
    response = pb.DeleteRangeResponse(header=HEADER, deleted=3)
    propose(rig, FIELD_DELETE_RANGE, delete, response, client())
    held(rig, 0.5)
    told = fields_of(lines[0])
    assert told["response type"] == "/etcdserverpb.KV/DeleteRange"
    assert (told["request count"], told["request size"], told["response count"]) == (0, 6, 3)
    assert told["request content"] == 'key:"k"  range_end:"l"'


@pytest.mark.parametrize(("succeeded", "count", "size"), [(True, 2, 23), (False, 1, 6)])
def test_a_txn_counts_the_branch_that_was_taken(
    rig: NodeRig, lines: list[LogEvent], succeeded: bool, count: int, size: int
) -> None:
    put = pb.RequestOp(request_put=pb.PutRequest(key=b"p", value=b"secret"))
    a_range = pb.RequestOp(request_range=pb.RangeRequest(key=b"r", limit=1, revision=2))
    delete = pb.RequestOp(request_delete_range=pb.DeleteRangeRequest(key=b"dd"))
    txn = pb.TxnRequest(success=[put, a_range], failure=[delete])
    response = pb.TxnResponse(header=HEADER, succeeded=succeeded)
    propose(rig, FIELD_TXN, txn, response, client())
    held(rig, 0.5)
    told = fields_of(lines[0])
    assert (told["request count"], told["response count"]) == (count, 0)
    assert told["request size"] == sum(
        op.ByteSize() for op in ([put, a_range], [delete])[not succeeded]
    )
    assert "secret" not in str(told)


def test_a_request_below_the_bound_is_not_told(rig: NodeRig, lines: list[LogEvent]) -> None:
    propose(rig, FIELD_PUT, pb.PutRequest(key=b"k"), pb.PutResponse(), client())
    held(rig, 0.2)
    assert lines == []


def test_only_those_of_a_slice_that_took_long_are_told(rig: NodeRig, lines: list[LogEvent]) -> None:
    propose(rig, FIELD_PUT, pb.PutRequest(key=b"old"), pb.PutResponse(), client())
    rig.log.holds = True
    rig.run(0.25)
    propose(rig, FIELD_PUT, pb.PutRequest(key=b"new"), pb.PutResponse(), client())
    rig.run(0.1)
    rig.log.release()
    rig.run()
    assert ["old" in line["request content"] for line in lines] == [True]


def test_a_request_that_becomes_slow_while_it_is_applied_is_told_without_its_answer(
    rig: NodeRig, lines: list[LogEvent]
) -> None:
    def done(call: Call, _: Applied) -> None:
        rig.clock.rightNow += 0.5

    put = pb.PutRequest(key=b"k")
    rig.node.propose(FIELD_PUT, put.SerializeToString(), plain(put), client(), done)
    rig.run()
    assert [line["response size"] for line in lines] == [0]


def test_a_read_that_waits_for_the_others_is_told(rig: NodeRig, lines: list[LogEvent]) -> None:
    response = pb.RangeResponse(header=HEADER, count=4, kvs=[])

    def get(key: bytes, call: Call, error: Exception | None) -> None:
        call.reply(response.SerializeToString())

    def other(message: bytes, call: Call, error: Exception | None) -> None:
        call.reply(b"")

    rig.node.request_stats.tell_reads(get)
    rig.node.read(client(), partial(get, b"key"))
    rig.node.read(client(), partial(other, b"key"))
    rig.clock.rightNow += 0.5
    rig.run()
    assert len(lines) == 1
    told = fields_of(lines[0])
    assert told["response type"] == "/etcdserverpb.KV/Range"
    assert (told["request size"], told["response count"]) == (5, 4)
    assert told["request content"] == 'key:"key"'


def test_a_request_begins_when_it_is_asked_and_not_when_the_last_turn_ran(
    rig: NodeRig, lines: list[LogEvent]
) -> None:
    rig.clock.rightNow += 5.0  # nothing ran for long
    rig.put(b"k")
    rig.read()
    rig.run()
    assert lines == []


def test_what_a_member_asks_of_itself_is_not_told(rig: NodeRig, lines: list[LogEvent]) -> None:
    rig.node.linearize(lambda error: None)
    rig.clock.rightNow += 5.0
    rig.run()
    assert lines == []


def test_of_other_methods_the_time_is_told(lines: list[LogEvent]) -> None:
    stats = RequestStats(0.3, lambda: 0.0, lambda: 1_000_000)
    stats.ended("/etcdserverpb.Lease/LeaseGrant", 300, Caller("", ""))
    assert lines == []
    stats.ended("/etcdserverpb.Lease/LeaseGrant", 301, Caller("", ""))
    assert lines[0]["start time"] == "1970-01-01T00:16:39.699000Z"
    assert fields_of(lines[0]) == {
        "remote": "No remote client info.",
        "response type": "/etcdserverpb.Lease/LeaseGrant",
        "request count": -1,
        "request size": -1,
        "response count": -1,
        "response size": -1,
        "request content": "",
    }


def test_a_field_without_contents_is_left_to_its_method(
    rig: NodeRig, lines: list[LogEvent]
) -> None:
    propose(rig, FIELD_LEASE_GRANT, pb.LeaseGrantRequest(ID=1, TTL=5), pb.PutResponse(), client())
    held(rig, 0.5)
    assert lines == []


def test_many_lines_within_a_second_are_thinned_out(lines: list[LogEvent]) -> None:
    now_s = [10.0]
    stats = RequestStats(0.3, lambda: now_s[0], lambda: 0)
    for _ in range(FIRST_MAX + 2 * THEN_EACH):
        stats.ended("/m", 400, Caller("", ""))
    assert len(lines) == FIRST_MAX + 2
    now_s[0] = 11.0
    stats.ended("/m", 400, Caller("", ""))
    assert len(lines) == FIRST_MAX + 3


def test_of_many_requests_that_waited_some_are_noted(rig: NodeRig, lines: list[LogEvent]) -> None:
    for _ in range(FIRST_MAX + THEN_EACH + 20):
        propose(rig, FIELD_PUT, pb.PutRequest(key=b"k"), pb.PutResponse(), client())
    held(rig, 0.5)
    assert len(lines) == FIRST_MAX + 1


def test_at_debug_level_every_request_is_told(lines: list[LogEvent]) -> None:
    stats = RequestStats(0.3, lambda: 0.0, lambda: 0, tells_all=True)
    stats.ended("/m", 0, Caller("", ""))
    assert lines[0]["log_level"] is LogLevel.debug


class PartsCall(RecordedCall):
    """A call that takes its answer in parts."""

    def __init__(self) -> None:
        super().__init__()
        self.client = "whose it is"
        self.parts: list[bytes] = []

    def begin_reply(self, size: int) -> None:
        self.parts.append(b"%d" % size)

    def continue_reply(self, part: bytes) -> None:
        self.parts.append(part)

    def end_reply(self) -> None:
        self.reply(b"".join(self.parts))


def test_a_read_that_goes_out_in_parts_is_told_when_it_has_gone(lines: list[LogEvent]) -> None:
    now_s = [5.0]
    stats = RequestStats(0.3, lambda: now_s[0], lambda: 0)
    call = PartsCall()
    a_range = pb.RangeRequest(key=b"a", range_end=b"z")
    noted: Any = stats.note_long(call, a_range, 5.0)
    assert stats.note_long(noted, a_range, 5.0) == noted
    assert (noted.client, noted.is_open, noted.queued, noted.deadline_ms) == (
        call.client, True, 0, None,
    )  # fmt: skip
    noted.on_end = print
    assert call.on_end == noted.on_end == print
    noted.begin_reply(100)
    noted.continue_reply(b"keys and values")
    noted.continue_reply(pb.RangeResponse(count=7).SerializeToString())
    now_s[0] = 5.5
    assert lines == []
    noted.end_reply()
    noted.end_reply()
    assert (lines[0]["response count"], lines[0]["response size"]) == (7, 100)
    assert len(lines) == 1
    assert len(call.parts) == 3


def test_a_read_that_failed_is_told_without_its_answer(lines: list[LogEvent]) -> None:
    stats = RequestStats(0.3, lambda: 6.0, lambda: 0)
    txn = txn_of(pb.TxnRequest(success=[pb.RequestOp(request_range=pb.RangeRequest(key=b"k"))]))
    call = RecordedCall(hasleader="true")
    noted = stats.note_long(call, txn, 5.0)
    assert noted.metadata(b"hasleader") == b"true"
    noted.fail(14, "etcdserver: request timed out")
    noted.fail(14, "again")
    assert call.status == (14, "etcdserver: request timed out")
    told = fields_of(lines[0])
    assert told["response type"] == "/etcdserverpb.KV/Txn"
    assert (told["request count"], told["request size"], told["request content"]) == (0, 0, "")


def test_a_put_that_finds_no_leader_is_told_when_its_time_is_over(
    rig: NodeRig, lines: list[LogEvent]
) -> None:
    rig.log.holds = True
    put = pb.PutRequest(key=b"k")

    def done(call: Call, applied: Applied) -> None:
        call.fail(14, str(applied.error))

    rig.node.propose(FIELD_PUT, put.SerializeToString(), plain(put), client(), done)
    rig.run(8.0)
    told = fields_of(lines[0])
    assert (told["response type"], told["response size"]) == ("/etcdserverpb.KV/Put", 0)
