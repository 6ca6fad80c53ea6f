"""HTTP/2 requests that are not gRPC: how they are collected and answered."""

from __future__ import annotations

from etcdtw.grpc.plain import PLAIN_BODY_SIZE_MAX
from tests.grpc.grpc_rig import PlainRig, request_fields


def test_a_request_that_is_not_grpc_goes_to_the_routes() -> None:
    rig = PlainRig()
    stream_id = rig.get()
    request = rig.plain[0]
    assert request.body == b""
    assert request.intake.value(b":path") == b"/health"
    assert rig.server.open_calls == 1
    request.respond(200, ((b"x-a", b"1"),), b"fine")
    request.respond(200, (), b"twice")
    rig.pump()
    answer = rig.answers[stream_id]
    assert answer.head == {b":status": b"200", b"x-a": b"1"}
    assert answer.body == b"fine"
    assert answer.is_ended
    assert rig.server.open_calls == 0


def test_a_get_without_body_octets_is_whole_at_once() -> None:
    rig = PlainRig()
    stream_id = rig.client.open_stream()
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/health"))
    rig.client.send_headers(stream_id, fields, True)
    rig.to_server()
    assert len(rig.plain) == 1


def test_a_body_is_collected_up_to_its_bound() -> None:
    rig = PlainRig()
    stream_id = rig.begin("", fields=request_fields(content_type=b"text/plain"))
    rig.data(stream_id, b"ab")
    rig.data(stream_id, b"c", True)
    assert rig.plain[0].body == b"abc"
    stream_id = rig.begin("", fields=request_fields(content_type=b"text/plain"))
    rig.data(stream_id, bytes(PLAIN_BODY_SIZE_MAX))
    assert not rig.answers[stream_id].is_ended
    rig.data(stream_id, b"x")
    assert rig.answers[stream_id].head == {b":status": b"413"}
    assert rig.answers[stream_id].reset == 0
    assert len(rig.plain) == 1


def test_a_client_that_goes_cancels_its_request() -> None:
    rig = PlainRig()
    rig.get()
    rig.get()
    rig.get()
    rig.plain[0].on_end = lambda: rig.ended.append(0)
    rig.client.reset(1, 8)
    rig.pump()
    assert rig.ended == [0]
    rig.plain[1].respond(200, (), b"")
    rig.plain[2].on_end = lambda: rig.ended.append(2)
    rig.server.connection_lost()
    assert rig.ended == [0, 2]
    rig.plain[2].cancelled()
    assert rig.ended == [0, 2]
