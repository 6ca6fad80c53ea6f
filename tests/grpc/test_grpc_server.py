"""Calls on the server side, over real http2 cores in memory."""

from __future__ import annotations

import pytest

from etcdtw.grpc.call import RepliesInParts
from etcdtw.grpc.intake import NEVER_MS, Refusal, not_grpc
from etcdtw.grpc.message import frame_message
from etcdtw.grpc.server_call import MANY_REQUESTS, SWEEP_MS, ServerCall, StreamCall
from etcdtw.http2 import events, frames
from tests.grpc.grpc_rig import ServerRig, request_fields


@pytest.fixture
def rig() -> ServerRig:
    return ServerRig()


def test_a_unary_call_is_answered(rig: ServerRig) -> None:
    answer = rig.request("Unary", b"hello")
    assert answer.head == {b":status": b"200", b"content-type": b"application/grpc"}
    assert answer.body == frame_message(b"hello")
    assert answer.trailers == {b"grpc-status": b"0", b"grpc-message": b""}
    assert answer.is_ended
    counts = rig.counts("Unary")
    assert (counts.started, counts.received, counts.sent, counts.handled[0]) == (1, 1, 1, 1)
    assert (counts.received_octets, counts.sent_octets) == (5, 5)


def test_a_unary_call_in_pieces_is_answered_when_it_is_whole(rig: ServerRig) -> None:
    stream_id = rig.begin("Unary")
    wire = frame_message(b"hello")
    for i in range(len(wire) - 1):
        rig.data(stream_id, wire[i : i + 1])
    assert not rig.answers[stream_id].is_ended
    rig.data(stream_id, wire[-1:])
    assert rig.answers[stream_id].body == wire
    assert rig.answers[stream_id].reset == 0, "nobody listens to what follows"
    rig.data(stream_id, b"late")
    assert rig.counts("Unary").received == 1
    assert rig.server.open_calls == 0


def test_a_response_in_parts_is_one_message(rig: ServerRig) -> None:
    answer = rig.request("Wait", b"1")
    call = rig.calls[-1]
    assert isinstance(call, RepliesInParts)
    call.begin_reply(5)
    call.continue_reply(b"hel")
    rig.pump()
    assert not answer.is_ended
    call.continue_reply(b"lo")
    call.end_reply()
    rig.pump()
    assert answer.body == frame_message(b"hello")
    assert answer.status == (0, "")
    counts = rig.counts("Wait")
    assert (counts.sent, counts.sent_octets, counts.handled[0]) == (1, 5, 1)
    for late in (lambda: call.begin_reply(1), lambda: call.continue_reply(b"x"), call.end_reply):
        late()  # means nothing any more
    assert rig.server.open_calls == 0


def test_a_later_answer_marks_the_connection_once(rig: ServerRig) -> None:
    rig.request("Wait", b"1")
    answer = rig.request("Wait", b"2")
    marks = rig.marks
    for call in rig.calls:
        assert call.is_open
        call.reply(b"late")
    assert rig.marks == marks + 1
    rig.pump()
    assert answer.body == frame_message(b"late")
    assert rig.ended == []
    for call in rig.calls:
        assert not call.is_open
        call.reply(b"again")
        call.fail(2, "again")
        assert call.queued == 0
    assert not rig.server_http2.has_output


def test_a_handler_may_answer_before_it_returns(rig: ServerRig) -> None:
    assert rig.request("Inside", b"x").status == (0, "")
    assert rig.server.open_calls == 0


def test_a_status_error_ends_the_call_with_trailers_only(rig: ServerRig) -> None:
    answer = rig.request("Raise", "schön".encode())
    assert answer.head[b":status"] == b"200"
    assert answer.head[b"grpc-message"] == b"sch%C3%B6n"
    assert answer.head[b"grpc-status"] == b"5"
    assert answer.is_ended
    assert answer.reset is None
    assert rig.counts("Raise").handled[5] == 1


def test_a_status_error_after_pieces_ends_the_call_too(rig: ServerRig) -> None:
    stream_id = rig.begin("Raise")
    rig.data(stream_id, frame_message(b"no"))
    rig.data(stream_id, b"", True)
    assert rig.answers[stream_id].status == (5, "no")


@pytest.mark.parametrize(
    ("wire", "code", "text"),
    [
        (b"\1\0\0\0\1a", 13, "grpc: compressed flag set with identity or empty encoding"),
        (b"\0\0\0\3\xe9", 8, "grpc: received message larger than max (1001 vs. 1000)"),
        (b"\0\xff\xff\xff\xff", 8, "grpc: received message larger than max (4294967295 vs. 1000)"),
    ],
)
@pytest.mark.parametrize("name", ["Unary", "Server"])
def test_a_request_of_the_wrong_shape_fails(
    rig: ServerRig, name: str, wire: bytes, code: int, text: str
) -> None:
    stream_id = rig.begin(name)
    rig.data(stream_id, wire, True)
    assert rig.answers[stream_id].status == (code, text)
    assert rig.server.open_calls == 0
    assert rig.counts(name).handled[code] == 1


def test_a_message_too_large_is_refused_before_its_body(rig: ServerRig) -> None:
    stream_id = rig.begin("Unary")
    rig.data(stream_id, b"\0\0\0\x10\0")
    assert rig.answers[stream_id].status[0] == 8
    assert rig.answers[stream_id].reset == 0  # NO_ERROR: stop sending
    rig.data(stream_id, b"late octets")
    assert rig.server_http2.open_streams == 0


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"/test.Svc/Nope", "unknown method Nope for service test.Svc"),
        (b"/test.Other/Unary", "unknown service test.Other"),
        (b"/Unary", 'malformed method name: "/Unary"'),
        (b"test.Svc/Unary", 'malformed method name: "test.Svc/Unary"'),
        (b"", 'malformed method name: ""'),
    ],
)
def test_an_unknown_method_is_unimplemented(rig: ServerRig, path: bytes, text: str) -> None:
    fields = tuple((n, path if n == b":path" else v) for n, v in request_fields())
    for _ in range(2):
        stream_id = rig.begin("", fields=fields)
        rig.data(stream_id, frame_message(b""), True)
        assert rig.answers[stream_id].status == (12, text)
    assert rig.server_http2.open_streams == 0


def test_a_request_with_a_foreign_encoding_is_unimplemented(rig: ServerRig) -> None:
    answer = rig.request("Unary", b"x", (b"grpc-encoding", b"deflate"))
    text = 'grpc: Decompressor is not installed for grpc-encoding "deflate"'
    assert answer.status == (12, text)
    assert rig.request("Unary", b"x", (b"grpc-encoding", b"identity")).status == (0, "")


@pytest.mark.parametrize(
    ("content_type", "is_served"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"application/grpc;charset=utf-8", True),
        (b"Application/GRPC", True),
        (b"application/grpc-web", False),
        (b"application/json", False),
        (b"", False),
    ],
)
def test_only_grpc_content_types_are_served(
    rig: ServerRig, content_type: bytes, is_served: bool
) -> None:
    stream_id = rig.begin("", fields=request_fields(content_type=content_type))
    rig.data(stream_id, frame_message(b""), True)
    answer = rig.answers[stream_id]
    assert answer.head[b":status"] == (b"200" if is_served else b"415")
    assert answer.status[0] == (0 if is_served else 3)


def test_a_refusal_of_a_foreign_content_type_names_it() -> None:
    refusal: Refusal = not_grpc(b"text/html")
    assert refusal.message == 'invalid gRPC request content-type "text/html"'


def test_a_verb_other_than_post_is_refused(rig: ServerRig) -> None:
    fields = tuple((n, b"PUT" if n == b":method" else v) for n, v in request_fields())
    stream_id = rig.begin("", fields=fields)
    rig.pump()
    answer = rig.answers[stream_id]
    assert answer.head[b":status"] == b"405"
    assert answer.status[0] == 13
    assert answer.reset == 0


def test_a_malformed_timeout_is_refused(rig: ServerRig) -> None:
    answer = rig.request("Unary", b"", (b"grpc-timeout", b"5x"))
    assert answer.head[b":status"] == b"400"
    assert answer.status == (
        13,
        'malformed grpc-timeout: transport: timeout unit is not recognized: "5x"',
    )


def test_metadata_is_read_by_key(rig: ServerRig) -> None:
    rig.request("Wait", b"", (b"token", b"t1"), (b"token", b"t2"), (b"x-bin", b"AAE"))
    call = rig.calls[0]
    assert call.metadata(b"token") == b"t1"
    assert call.metadata(b"x-bin") == b"\0\1"
    assert call.metadata(b"absent") is None
    assert call.deadline_ms is None


def test_an_overdue_call_fails_and_its_handler_is_told(rig: ServerRig) -> None:
    early = rig.request("Wait", b"", (b"grpc-timeout", b"100m"))
    late = rig.request("Wait", b"", (b"grpc-timeout", b"1S"))
    rig.request("Wait", b"")
    assert rig.calls[0].deadline_ms == 1_100
    assert rig.server.next_deadline_ms == 1_100
    rig.server.expire(1_099)
    assert rig.ended == []
    rig.server.expire(1_100)
    rig.pump()
    assert early.status == (4, "context deadline exceeded")
    assert rig.ended == [0]
    assert rig.server.next_deadline_ms == 2_000
    rig.server.expire(2_500)
    rig.pump()
    assert late.status == (4, "context deadline exceeded")
    assert rig.server.next_deadline_ms == NEVER_MS
    assert rig.counts("Wait").handled[4] == 2
    assert rig.server.open_calls == 1


def test_deadlines_are_swept_coarsely(rig: ServerRig) -> None:
    rig.request("Wait", b"", (b"grpc-timeout", b"1m"))
    rig.request("Wait", b"", (b"grpc-timeout", b"3m"))
    rig.server.expire(1_001)
    assert rig.ended == [0]
    assert rig.server.next_deadline_ms == 1_001 + SWEEP_MS


def test_the_end_of_one_overdue_call_may_end_another(rig: ServerRig) -> None:
    for _ in range(2):
        rig.request("Wait", b"", (b"grpc-timeout", b"1m"))
    rig.calls[0].on_end = lambda: rig.calls[1].reply(b"")
    rig.server.expire(2_000)
    assert rig.ended == []


def test_an_overdue_call_needs_nobody_to_tell(rig: ServerRig) -> None:
    answer = rig.request("Wait", b"", (b"grpc-timeout", b"1m"))
    rig.calls[0].on_end = None
    rig.server.expire(2_000)
    rig.pump()
    assert answer.status[0] == 4


def test_an_overdue_call_in_pieces_fails(rig: ServerRig) -> None:
    stream_id = rig.begin("Unary", (b"grpc-timeout", b"1m"))
    rig.data(stream_id, b"\0")
    rig.server.expire(2_000)
    rig.pump()
    assert rig.answers[stream_id].status[0] == 4


def test_a_reset_cancels_the_call(rig: ServerRig) -> None:
    stream_id = rig.begin("Wait")
    rig.data(stream_id, frame_message(b""), True)
    rig.client.reset(stream_id, 8)
    rig.pump()
    assert rig.ended == [0]
    assert rig.counts("Wait").handled[1] == 1
    rig.calls[0].reply(b"too late")
    assert not rig.server_http2.has_output


def test_a_lost_connection_ends_every_call_once(rig: ServerRig) -> None:
    rig.request("Wait", b"")
    rig.begin("Bidi")
    rig.pump()
    rig.server.connection_lost()
    rig.server.connection_lost()
    assert rig.ended == [0, 1]


def test_a_server_stream_gets_its_one_request_and_sends_many(rig: ServerRig) -> None:
    stream_id = rig.begin("Server")
    rig.data(stream_id, frame_message(b"req"), True)
    assert rig.seen == [b"req", "half-closed"]
    for i in range(3):
        rig.calls[0].send(b"%d" % i)
    rig.calls[0].finish()
    rig.calls[0].finish()
    rig.pump()
    answer = rig.answers[stream_id]
    assert answer.body == b"".join(frame_message(b"%d" % i) for i in range(3))
    assert answer.status == (0, "")
    assert answer.reset is None
    assert rig.counts("Server").sent == 3


def test_several_messages_may_be_sent_at_once(rig: ServerRig) -> None:
    stream_id = rig.begin("Bidi")
    rig.pump()
    call = rig.calls[0]
    assert isinstance(call, StreamCall)
    call.send_all([b"a", b"", b"ccc"])
    rig.pump()
    wire = frame_message(b"a") + frame_message(b"") + frame_message(b"ccc")
    assert rig.answers[stream_id].body == wire
    assert (rig.counts("Bidi").sent, rig.counts("Bidi").sent_octets) == (3, 4)


def test_a_bidi_stream_goes_both_ways_until_both_end(rig: ServerRig) -> None:
    stream_id = rig.begin("Bidi")
    rig.data(stream_id, frame_message(b"a") + frame_message(b"b")[:3])
    rig.calls[0].send(b"x")
    rig.data(stream_id, frame_message(b"b")[3:])
    assert rig.seen == [b"a", b"b"]
    rig.data(stream_id, b"", True)
    assert rig.seen[-1] == "half-closed"
    assert rig.calls[0].is_open
    rig.calls[0].finish()
    rig.pump()
    assert rig.answers[stream_id].status == (0, "")
    assert rig.counts("Bidi").received == 2


def test_a_stream_that_sends_nothing_finishes_with_trailers_only(rig: ServerRig) -> None:
    stream_id = rig.begin("Bidi")
    rig.pump()
    rig.calls[0].finish()
    rig.calls[0].send(b"too late")
    rig.pump()
    answer = rig.answers[stream_id]
    assert answer.head[b"grpc-status"] == b"0"
    assert answer.body == b""
    assert answer.reset == 0


def test_a_stream_may_be_answered_by_one_reply(rig: ServerRig) -> None:
    stream_id = rig.begin("Server")
    rig.data(stream_id, frame_message(b""), True)
    rig.calls[0].reply(b"only")
    rig.pump()
    assert rig.answers[stream_id].body == frame_message(b"only")
    assert rig.answers[stream_id].status == (0, "")


def test_a_stream_that_fails_after_sending_ends_with_trailers(rig: ServerRig) -> None:
    stream_id = rig.begin("Bidi")
    rig.pump()
    rig.calls[0].send(b"x")
    rig.calls[0].fail(14, "etcdserver: no leader")
    rig.pump()
    answer = rig.answers[stream_id]
    assert answer.body == frame_message(b"x")
    assert answer.status == (14, "etcdserver: no leader")
    assert answer.reset == 0


def test_a_stream_may_be_refused_as_it_opens(rig: ServerRig) -> None:
    stream_id = rig.begin("Refuse")
    rig.pump()
    assert rig.answers[stream_id].status == (16, "etcdserver: invalid auth token")


@pytest.mark.parametrize(
    ("octets", "end_stream"),
    [
        (b"\1\0\0\0\1x", False),  # compressed, without an encoding
        (b"\0\0\0\4\0", False),  # too large
        (b"\0\0\0\0\2a", True),  # cut short
    ],
)
def test_a_stream_that_breaks_the_framing_fails_and_its_handler_is_told(
    rig: ServerRig, octets: bytes, end_stream: bool
) -> None:
    stream_id = rig.begin("Bidi")
    rig.data(stream_id, frame_message(b"1"))
    rig.data(stream_id, octets, end_stream)
    assert rig.answers[stream_id].status[0] != 0
    assert rig.ended == [0]
    rig.server.connection_lost()
    assert rig.ended == [0]


def test_messages_after_the_one_that_ended_the_call_are_dropped(rig: ServerRig) -> None:
    stream_id = rig.begin("Bidi")
    rig.pump()

    def finish(message: bytes) -> None:
        rig.seen.append(message)
        rig.calls[0].finish()

    rig.calls[0].on_message = finish
    rig.data(stream_id, frame_message(b"1") + frame_message(b"2"), True)
    assert rig.seen == [b"1"]


def test_a_stream_without_callbacks_ignores_what_comes(rig: ServerRig) -> None:
    stream_id = rig.begin("Bidi")
    rig.pump()
    call = rig.calls[0]
    call.on_message = call.on_half_close = call.on_end = call.on_drain = None
    rig.data(stream_id, frame_message(b"1"), True)
    rig.server.connection_lost()
    assert rig.server.open_calls == 0


def test_a_second_request_to_a_server_stream_fails(rig: ServerRig) -> None:
    stream_id = rig.begin("Server")
    rig.data(stream_id, frame_message(b"1"))
    rig.data(stream_id, frame_message(b"2"))
    assert rig.answers[stream_id].status == (13, MANY_REQUESTS)
    assert rig.ended == [0]


def test_request_trailers_end_the_request(rig: ServerRig) -> None:
    stream_id = rig.begin("Unary")
    rig.client.send_data(stream_id, frame_message(b"x"))
    rig.client.send_trailers(stream_id, ((b"x-more", b"1"),))
    rig.pump()
    assert rig.answers[stream_id].status == (0, "")


def test_a_closed_window_queues_and_an_open_one_drains(rig: ServerRig) -> None:
    stream_id = rig.begin("Bidi")
    rig.to_server()
    call = rig.calls[0]
    call.send(b"x" * 100_000)
    assert call.queued == 100_005 - 65_535
    assert rig.seen == []
    rig.pump()  # the client's credit lets the rest out
    assert call.queued == 0
    assert rig.seen == ["drained"]
    assert len(rig.answers[stream_id].body) == 100_005


def test_a_stream_that_sends_again_before_it_heard_that_it_drained_still_hears_it(
    rig: ServerRig,
) -> None:
    stream_id = rig.begin("Bidi")
    rig.to_server()
    call = rig.calls[0]
    call.send(b"x" * 100_000)
    call.on_message = call.send
    # The core takes both frames at once; the message is delivered when all is out already.
    rig.client.send_data(stream_id, frame_message(b"again"))
    credit = frames.encode_window_update(0, 50_000) + frames.encode_window_update(stream_id, 50_000)
    rig.server.receive(rig.client.take_output() + credit, rig.now_ms)
    assert call.queued == 0
    assert rig.seen == ["drained"]


@pytest.mark.parametrize("is_drained_first", [False, True])
def test_a_stream_that_the_peer_has_reset_takes_no_more(
    rig: ServerRig, is_drained_first: bool
) -> None:
    """Its reset is told behind what came before in the same read: who pumps must find an end."""
    stream_id = rig.begin("Bidi")
    rig.to_server()
    call = rig.calls[0]
    sent: list[int] = []

    def pump(message: bytes = b"") -> None:
        while call.is_open and not call.queued:
            call.send(bytes(1000))
            sent.append(1)
            assert len(sent) < 1000, "this never ends"

    call.on_drain = call.on_message = pump
    if is_drained_first:
        pump()
        octets = frames.encode_window_update(0, 500) + frames.encode_window_update(stream_id, 500)
    else:
        rig.client.send_data(stream_id, frame_message(b"go on"))
        octets = rig.client.take_output()
    sent.clear()
    rig.server.receive(octets + frames.encode_reset(stream_id, 8), rig.now_ms)
    assert rig.ended == [0]
    assert len(sent) < 100


def test_a_call_that_fails_with_octets_queued_tells_the_client_after_them(rig: ServerRig) -> None:
    stream_id = rig.begin("Bidi")
    rig.to_server()
    rig.calls[0].send(b"x" * 100_000)
    rig.calls[0].fail(14, "gone")
    rig.pump()
    answer = rig.answers[stream_id]
    assert len(answer.body) == 100_005
    assert answer.status == (14, "gone")
    assert rig.server_http2.open_streams == 0


def test_a_backlog_of_the_transport_counts_as_queued(rig: ServerRig) -> None:
    rig.begin("Bidi")
    rig.begin("Bidi")
    rig.pump()
    first, second = rig.calls
    rig.server.set_backlog(7)
    first.send(b"x")
    assert first.queued == 7
    assert rig.seen == []
    rig.server.set_backlog(0)
    assert rig.seen == ["drained"]  # the second had sent nothing
    rig.server.set_backlog(0)
    assert rig.seen == ["drained"]
    assert second.queued == 0


def test_nothing_is_unread_by_a_client_who_is_gone(rig: ServerRig) -> None:
    rig.begin("Bidi")
    rig.pump()
    (call,) = rig.calls
    assert isinstance(call, ServerCall)
    client = call.client
    assert client is not None
    rig.server.set_backlog(7)
    call.send(b"x")
    assert client.unread >= 7
    rig.server.discard()
    assert client.unread == 0
    assert rig.seen == []  # nobody is told to go on


def test_a_drained_server_asks_clients_to_go(rig: ServerRig) -> None:
    rig.request("Wait", b"")
    rig.server.drain()
    rig.pump()
    assert any(event[0] == events.GOAWAY for event in rig.client_events)
    was_closed = rig.server.is_closed
    assert not was_closed
    rig.calls[0].reply(b"done")
    rig.pump()
    assert rig.server.is_closed
    assert rig.answers[1].status == (0, "")


def test_a_ping_is_answered(rig: ServerRig) -> None:
    rig.server.ping(b"12345678")
    rig.pump()
    rig.client.ping(b"abcdefgh")
    rig.pump()
    assert (events.PING_ACK, b"abcdefgh") in rig.client_events


def test_a_broken_connection_ends_its_calls(rig: ServerRig) -> None:
    rig.request("Wait", b"")
    rig.server.receive(b"\0\0\1\x07\0\0\0\0\1x", 0)  # a GOAWAY on a stream
    assert rig.server.is_closed
    assert rig.ended == [0]


def test_a_clients_goaway_is_noted(rig: ServerRig) -> None:
    rig.client.close()
    rig.pump()
    assert rig.server.goaway_received


def test_unary_calls_neither_stream_nor_finish(rig: ServerRig) -> None:
    rig.request("Wait", b"")
    with pytest.raises(AssertionError):
        rig.calls[0].send(b"")
    with pytest.raises(AssertionError):
        rig.calls[0].finish()


def test_counters_list_each_method_used(rig: ServerRig) -> None:
    rig.request("Unary", b"")
    rig.request("Unary", b"")
    rig.request("Wait", b"")
    found = [(stats.path, stats.started) for stats in rig.stats.methods()]
    assert found == [("/test.Svc/Unary", 2), ("/test.Svc/Wait", 1)]


def test_prepared_counters_start_at_zero(rig: ServerRig) -> None:
    rig.stats.prepare(rig.methods)
    found = {stats.path: stats.started for stats in rig.stats.methods()}
    assert found == dict.fromkeys(rig.methods.paths(), 0)
