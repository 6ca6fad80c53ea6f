"""Requests of no message, of several, and cut short: what grpc-go makes of them."""

from __future__ import annotations

import pytest

from etcdtw.grpc.call import SendsInParts
from etcdtw.grpc.message import frame_message
from etcdtw.grpc.server_call import MANY_REQUESTS, NO_REQUEST, NO_STREAM_REQUEST, TRUNCATED
from tests.grpc.grpc_rig import ServerRig


@pytest.fixture
def rig() -> ServerRig:
    return ServerRig()


@pytest.mark.parametrize(
    ("name", "wire", "code", "text"),
    [
        ("Unary", b"", 2, NO_REQUEST),
        ("Unary", b"\0\0\0", 2, NO_REQUEST),
        ("Unary", b"\0\0\0\0\2a", 2, TRUNCATED),
        ("Server", b"", 13, NO_STREAM_REQUEST),
        ("Server", frame_message(b"a") + frame_message(b"b"), 13, MANY_REQUESTS),
        ("Server", b"\0\0\0", 13, NO_STREAM_REQUEST),
        ("Server", b"\0\0\0\0\2a", 13, TRUNCATED),
    ],
)
def test_a_request_of_no_or_many_messages_fails_as_with_grpc_go(
    rig: ServerRig, name: str, wire: bytes, code: int, text: str
) -> None:
    stream_id = rig.begin(name)
    rig.data(stream_id, wire, True)
    assert rig.answers[stream_id].status == (code, text)
    assert rig.server.open_calls == 0
    assert rig.counts(name).handled[code] == 1


@pytest.mark.parametrize("rest", [frame_message(b"b"), b"\0\0", b"\0\0\0\0\2a", b"\7\7\7\7\7"])
def test_what_follows_the_message_of_a_unary_call_is_not_looked_at(
    rig: ServerRig, rest: bytes
) -> None:
    stream_id = rig.begin("Unary")
    rig.data(stream_id, frame_message(b"a"), False)
    rig.data(stream_id, rest, True)
    assert rig.answers[stream_id].body == frame_message(b"a")
    assert rig.answers[stream_id].status == (0, "")
    waiting = rig.begin("Wait")
    rig.data(waiting, frame_message(b"a"))
    rig.data(waiting, rest, True)
    assert rig.server.open_calls == 1
    rig.calls[-1].reply(b"late")
    rig.pump()
    assert rig.answers[waiting].body == frame_message(b"late")


def test_a_message_may_be_sent_in_parts(rig: ServerRig) -> None:
    stream_id = rig.begin("Bidi")
    rig.pump()
    call = rig.calls[0]
    assert isinstance(call, SendsInParts)
    call.send_parts([b"a" * 10, b"b" * 20_000, b"c"])
    call.send(b"d")
    rig.pump()
    message = b"a" * 10 + b"b" * 20_000 + b"c"
    assert rig.answers[stream_id].body == frame_message(message) + frame_message(b"d")
    assert (rig.counts("Bidi").sent, rig.counts("Bidi").sent_octets) == (2, len(message) + 1)
