"""Calls on the client side."""

from __future__ import annotations

import pytest

from etcdtw.grpc.client import CallClient
from etcdtw.grpc.intake import Fields
from etcdtw.grpc.message import frame_message
from etcdtw.http2 import frames
from etcdtw.http2.connection import Connection
from tests.grpc.grpc_rig import PREFIX, ClientRig


@pytest.fixture
def rig() -> ClientRig:
    return ClientRig()


def test_a_unary_call_returns_its_response(rig: ClientRig) -> None:
    call = rig.unary("Unary", b"hi")
    assert rig.done == [(b"hi", 0, "")]
    assert call.status == (0, "")
    assert rig.client.open_calls == 0


def test_an_error_status_arrives_with_its_text(rig: ClientRig) -> None:
    rig.unary("Raise", "nicht schön: 100%".encode())
    assert rig.done == [(None, 5, "nicht schön: 100%")]


def test_metadata_and_timeout_travel(rig: ClientRig) -> None:
    rig.client.unary(
        PREFIX + "Wait", b"", rig._done, metadata=[(b"x-bin", b"\xff")], timeout_ms=500
    )
    rig.pump()
    call = rig.rig.calls[0]
    assert call.metadata(b"x-bin") == b"\xff"
    assert call.deadline_ms == 1_500


def test_a_stream_goes_both_ways(rig: ClientRig) -> None:
    got: list[bytes] = []
    ends: list[tuple[int, str]] = []
    call = rig.client.open(
        PREFIX + "Bidi", got.append, lambda code, text: ends.append((code, text))
    )
    call.send(b"a")
    rig.pump()
    rig.rig.calls[0].send(b"b")
    rig.pump()
    call.half_close()
    rig.pump()
    assert rig.rig.seen == [b"a", "half-closed"]
    rig.rig.calls[0].finish()
    rig.pump()
    assert got == [b"b"]
    assert ends == [(0, "")]
    call.send(b"late")
    call.half_close()
    call.cancel()
    assert ends == [(0, "")]


def test_a_cancelled_call_ends_on_both_sides(rig: ClientRig) -> None:
    call = rig.unary("Wait", b"")
    call.cancel()
    rig.pump()
    assert rig.done == [(None, 1, "context canceled")]
    assert rig.rig.ended == [0]


def test_a_lost_connection_ends_every_call(rig: ClientRig) -> None:
    rig.unary("Wait", b"")
    rig.unary("Wait", b"")
    rig.client.connection_lost()
    assert [code for _, code, _ in rig.done] == [14, 14]


def test_a_goaway_is_noted(rig: ClientRig) -> None:
    rig.rig.server.drain()
    rig.pump()
    assert rig.client.is_going_away


def test_a_broken_server_ends_every_call(rig: ClientRig) -> None:
    rig.unary("Wait", b"")
    rig.client.receive(b"\0\0\1\x07\0\0\0\0\1x", 0)
    assert rig.done[0][1] == 14


def test_a_stream_without_a_response_is_an_error_for_a_unary_call(rig: ClientRig) -> None:
    rig.unary("Bidi", b"")
    rig.rig.calls[0].finish()
    rig.pump()
    assert rig.done == [(None, 13, "0 responses to a unary call")]


class Answering:
    """A client against a server's bare http2 core, whose answers are written by hand."""

    def __init__(self) -> None:
        self.server = Connection()
        self.server.begin()
        http2 = Connection(client=True)
        http2.begin()
        self._http2 = http2
        self.client = CallClient(http2, on_output=lambda: None)
        self.done: list[tuple[bytes | None, int, str]] = []
        self.pump()
        self.client.unary("/a/b", b"", lambda *result: self.done.append(result))
        self.pump()

    def pump(self) -> None:
        while self.server.has_output or self._http2.has_output:
            self.server.receive(self._http2.take_output(), 0)
            self.client.receive(self.server.take_output(), 0)


GRPC: Fields = ((b":status", b"200"), (b"content-type", b"application/grpc"))


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (((b":status", b"503"),), 14),
        (((b":status", b"200"), (b"content-type", b"text/html")), 2),
        (GRPC, 13),
        ((*GRPC, (b"grpc-status", b"x")), 2),
    ],
)
def test_an_answer_that_is_no_grpc_is_an_error(head: Fields, code: int) -> None:
    rig = Answering()
    rig.server.send_headers(1, head, True)
    rig.pump()
    assert [found for _, found, _ in rig.done] == [code]


@pytest.mark.parametrize(
    ("data", "ends", "code"),
    [(frame_message(b"x"), True, 13), (b"\1\0\0\0\0", False, 13), (b"\0\0", False, 13)],
)
def test_a_body_that_breaks_off_or_off_the_rules_is_an_error(
    data: bytes, ends: bool, code: int
) -> None:
    rig = Answering()
    rig.server.send_headers(1, GRPC)
    rig.server.send_data(1, data, ends)
    if not ends:
        rig.server.send_trailers(1, ((b"grpc-status", b"0"),))
    rig.pump()
    assert [found for _, found, _ in rig.done] == [code]


def test_messages_after_the_end_are_dropped() -> None:
    rig = Answering()
    got: list[bytes] = []

    def message_came(message: bytes) -> None:
        got.append(message)
        call.cancel()

    call = rig.client.open("/a/c", message_came, lambda code, text: None)
    rig.pump()
    rig.server.send_headers(3, GRPC)
    rig.server.send_data(3, frame_message(b"1") + frame_message(b"2"))
    rig.pump()
    assert got == [b"1"]


@pytest.mark.parametrize(("error", "code"), [(7, 14), (2, 13)])
def test_a_reset_ends_the_call(error: int, code: int) -> None:
    rig = Answering()
    rig.server.reset(1, error)
    rig.pump()
    assert [found for _, found, _ in rig.done] == [code]


def test_nothing_is_left_of_a_stream_that_its_server_has_ended(rig: ClientRig) -> None:
    ends: list[int] = []
    rig.client.open(PREFIX + "Bidi", lambda _: None, lambda code, text: ends.append(code))
    rig.pump()
    rig.rig.calls[0].finish()
    # What the server says behind its status does not come.
    octets = rig.rig.server.take_output()
    reset = frames.encode_reset(1, 0)
    assert octets.endswith(reset)
    rig.client.receive(octets[: -len(reset)], 0)
    assert ends == [0]
    assert rig.rig.client.open_streams == 0


def test_a_held_stream_gets_no_credit_until_it_is_released(rig: ClientRig) -> None:
    got: list[int] = []
    call = rig.client.open(PREFIX + "Bidi", lambda m: got.append(len(m)), lambda code, text: None)
    rig.pump()
    call.hold()
    rig.rig.calls[0].send(bytes(80_000))
    rig.pump()
    assert got == []
    call.release()
    rig.pump()
    assert got == [80_000]
    call.cancel()
    call.hold()
    call.release()


def test_a_farewell_is_kept(rig: ClientRig) -> None:
    assert rig.client.has_room
    rig.client.receive(frames.encode_goaway(0, 0, b"maintenance"), 0)
    assert rig.client.is_going_away
    assert rig.client.farewell == "maintenance"
    assert not rig.client.has_room


@pytest.mark.parametrize(
    ("reset", "code", "is_refused"),
    [(7, 14, True), (8, 1, False), (11, 8, False), (12, 7, False), (2, 13, False)],
)
def test_a_reset_has_the_code_that_etcds_clients_give_it(
    rig: ClientRig, reset: int, code: int, is_refused: bool
) -> None:
    call = rig.unary("Wait", b"")
    rig.client.receive(frames.encode_reset(call.stream_id, reset), 0)
    assert rig.done == [(None, code, f"stream terminated by RST_STREAM with error code: {reset}")]
    assert call.is_refused is is_refused
