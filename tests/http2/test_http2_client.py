"""The client role, and how connections end in both roles."""

from __future__ import annotations

from struct import pack

import pytest

from etcdtw.http2 import errors, events, frames
from etcdtw.http2.connection import Connection
from etcdtw.http2.control import DRAIN_PING
from etcdtw.http2.errors import StreamLimitError
from etcdtw.http2.frames import encode_ping, encode_reset, encode_settings, encode_window_update
from etcdtw.http2.hpack import encode_block
from etcdtw.http2.limits import STREAM_ID_MAX, Limits
from tests.http2.frame_rig import (
    BLOCK,
    END,
    HEAD,
    TRAILERS,
    WHOLE,
    data,
    frame,
    headers,
    new_server,
    written,
)

OPAQUE = b"12345678"


def new_client(settings: tuple[tuple[int, int], ...] = ()) -> Connection:
    """A client that has read its server's SETTINGS, with nothing left to write."""
    client = Connection(client=True)
    client.begin()
    assert client.take_output().startswith(frames.PREFACE)
    assert client.receive(encode_settings(settings), 0) == []
    assert client.take_output() == frames.SETTINGS_ACK
    return client


def request(client: Connection, end_stream: bool = True) -> int:
    stream_id = client.open_stream()
    client.send_headers(stream_id, BLOCK, end_stream)
    return stream_id


def goaway(last_id: int, code: int = 0) -> bytes:
    return frames.encode_goaway(last_id, code, b"why")


def test_stream_ids_are_odd_and_ascend() -> None:
    client = new_client()
    assert [request(client) for _ in range(3)] == [1, 3, 5]
    assert client.open_streams == 3


def test_a_client_offers_no_push() -> None:
    client = Connection(client=True)
    client.begin()
    assert pack(">HI", 2, 0) in client.take_output()


def test_the_peers_stream_limit_holds_and_frees_again() -> None:
    client = new_client(((3, 2),))
    assert [request(client) for _ in range(2)] == [1, 3]
    with pytest.raises(StreamLimitError):
        client.open_stream()
    client.receive(headers(1, HEAD, WHOLE | END), 0)
    assert request(client) == 5


def test_stream_ids_run_out_at_their_maximum() -> None:
    client = new_client()
    client._next_id = STREAM_ID_MAX
    assert request(client) == STREAM_ID_MAX
    with pytest.raises(StreamLimitError):
        client.open_stream()


def test_interim_responses_are_skipped() -> None:
    client = new_client()
    request(client)
    interim = encode_block([(b":status", b"103")])
    found = client.receive(headers(1, interim) + headers(1, HEAD) + data(1, b"x"), 0)
    assert [event[0] for event in found] == [events.HEADERS, events.DATA]
    assert found[1] == (events.DATA, 1, b"x", True)


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (headers(1, encode_block([(b":status", b"103")]), WHOLE | END), errors.PROTOCOL_ERROR),
        (headers(1, encode_block([(b"x", b"")])), errors.PROTOCOL_ERROR),
        (data(1, b"before the head"), errors.PROTOCOL_ERROR),
        (
            headers(1, encode_block([(b":status", b"200"), (b"content-length", b"2")]))
            + data(1, b"x"),
            errors.PROTOCOL_ERROR,
        ),
        (headers(1, HEAD) + headers(1, HEAD, WHOLE | END), errors.PROTOCOL_ERROR),
    ],
)
def test_malformed_responses_cost_their_stream(octets: bytes, code: int) -> None:
    client = new_client()
    request(client)
    assert client.receive(octets, 0)[-1] == (events.RESET, 1, code)
    assert (frames.RST_STREAM, 0, 1, pack(">I", code)) in written(client)
    assert not client.is_closed


def test_a_length_without_body_is_fine_in_a_response_head() -> None:
    client = new_client()
    request(client)
    block = encode_block([(b":status", b"200"), (b"content-length", b"2")])
    assert client.receive(headers(1, block, WHOLE | END), 0)[0][3] is True
    assert client.open_streams == 0


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (headers(3, HEAD), errors.PROTOCOL_ERROR),
        (headers(5, HEAD), errors.PROTOCOL_ERROR),
        (headers(2, HEAD), errors.PROTOCOL_ERROR),
        (data(3, b"x"), errors.PROTOCOL_ERROR),
        (data(2, b"x"), errors.PROTOCOL_ERROR),
        (encode_window_update(3, 1), errors.PROTOCOL_ERROR),
        (encode_window_update(5, 1), errors.PROTOCOL_ERROR),
        (frame(frames.PUSH_PROMISE, 1, b"\0\0\0\2" + BLOCK, WHOLE), errors.PROTOCOL_ERROR),
        (encode_settings(((2, 1),)), errors.PROTOCOL_ERROR),
        (headers(1, HEAD, WHOLE | END) + headers(1, HEAD), errors.STREAM_CLOSED),
    ],
)
def test_what_a_server_must_not_send_costs_the_connection(octets: bytes, code: int) -> None:
    client = new_client()
    request(client)
    client.open_stream()  # 3, not begun
    found = client.receive(octets, 0)
    assert found[-1][:2] == (events.CLOSED, code)
    assert client.is_closed


def test_a_server_that_ends_early_may_reset_with_no_error() -> None:
    client = new_client()
    request(client, end_stream=False)
    client.send_data(1, b"part")
    found = client.receive(headers(1, HEAD, WHOLE | END) + encode_reset(1, 0), 0)
    assert found[-1] == (events.RESET, 1, errors.NO_ERROR)
    assert client.open_streams == 0


def test_a_client_may_go_on_after_the_server_ended() -> None:
    client = new_client()
    request(client, end_stream=False)
    client.receive(headers(1, HEAD, WHOLE | END), 0)
    client.take_output()
    client.send_data(1, b"rest", end_stream=True)
    assert written(client) == [(frames.DATA, END, 1, b"rest")]
    assert client.open_streams == 0


def test_a_stream_that_was_never_begun_is_dropped_in_silence() -> None:
    client = new_client()
    stream_id = client.open_stream()
    client.reset(stream_id, errors.CANCEL)
    assert not client.has_output
    assert client.open_streams == 0


def test_goaway_fails_what_the_server_never_saw_and_lets_the_rest_end() -> None:
    client = new_client()
    for _ in range(3):
        request(client)
    assert client.receive(goaway(1), 0) == [
        (events.GOAWAY, 1, 0, b"why"),
        (events.RESET, 3, errors.REFUSED_STREAM),
        (events.RESET, 5, errors.REFUSED_STREAM),
    ]
    with pytest.raises(StreamLimitError):
        client.open_stream()
    assert client.open_streams == 1
    client.receive(headers(1, HEAD, WHOLE | END), 0)
    assert client.is_closed


def test_goaway_without_streams_ends_a_client_at_once() -> None:
    client = new_client()
    assert client.receive(goaway(0, errors.ENHANCE_YOUR_CALM), 0) == [
        (events.GOAWAY, 0, errors.ENHANCE_YOUR_CALM, b"why")
    ]
    assert client.is_closed


def test_a_server_that_hears_goaway_serves_on() -> None:
    server = new_server()
    found = server.receive(headers(1) + goaway(0), 0)
    assert [event[0] for event in found] == [events.HEADERS, events.GOAWAY]
    assert not server.is_closed
    assert server.stats.goaways_in == 1


def test_ping_is_answered_and_our_ping_comes_back() -> None:
    server = new_server()
    server.receive(encode_ping(OPAQUE), 0)
    assert written(server) == [(frames.PING, frames.FLAG_ACK, 0, OPAQUE)]
    server.ping(b"abcdefgh")
    assert written(server) == [(frames.PING, 0, 0, b"abcdefgh")]
    assert server.receive(encode_ping(b"abcdefgh", ack=True), 0) == [(events.PING_ACK, b"abcdefgh")]


def test_rfc9113_6_8_a_server_drains_in_two_steps() -> None:
    server = new_server()
    server.receive(headers(1) + data(1, b"x"), 0)
    server.drain()
    server.drain()
    assert written(server) == [
        (frames.GOAWAY, 0, 0, pack(">II", STREAM_ID_MAX, 0)),
        (frames.PING, 0, 0, DRAIN_PING),
    ]
    # A request that was on its way is still served.
    assert server.receive(headers(3) + data(3, b"x"), 0)[0][:2] == (events.REQUEST, 3)
    assert server.receive(encode_ping(DRAIN_PING, ack=True), 0) == []
    assert written(server) == [(frames.GOAWAY, 0, 0, pack(">II", 3, 0))]
    # What comes later is not, and costs nothing.
    assert server.receive(headers(5) + data(5, b"x"), 0) == []
    assert not server.has_output
    server.reply(1, HEAD, b"y", TRAILERS)
    assert server.open_streams == 1
    server.reply(3, HEAD, b"y", TRAILERS)
    assert server.is_closed
    assert len(written(server)) == 6
    assert server.receive(b"more", 0) == []


def test_an_idle_server_drains_at_the_answer_of_its_ping() -> None:
    server = new_server()
    server.drain()
    assert len(written(server)) == 2
    server.receive(encode_ping(DRAIN_PING, ack=True), 0)
    assert server.is_closed


def test_rfc9113_6_8_the_last_stream_id_never_grows() -> None:
    server = new_server()
    server.receive(headers(1), 0)
    server.drain()
    server.receive(encode_ping(DRAIN_PING, ack=True) + headers(3), 0)
    server.take_output()
    server.close(errors.NO_ERROR, b"bye")
    assert written(server) == [(frames.GOAWAY, 0, 0, pack(">II", 1, 0) + b"bye")]


def test_a_client_drains_by_ending_what_it_began() -> None:
    client = new_client()
    request(client)
    client.take_output()
    client.drain()
    assert written(client) == [(frames.GOAWAY, 0, 0, pack(">II", 0, 0))]
    with pytest.raises(StreamLimitError):
        client.open_stream()
    client.receive(headers(1, HEAD, WHOLE | END), 0)
    assert client.is_closed


def test_close_ends_everything_at_once() -> None:
    server = new_server()
    server.receive(headers(1), 0)
    server.close(errors.ENHANCE_YOUR_CALM, b"enough")
    assert server.is_closed
    assert server.open_streams == 0
    payload = pack(">II", 1, errors.ENHANCE_YOUR_CALM) + b"enough"
    assert written(server) == [(frames.GOAWAY, 0, 0, payload)]


def test_late_response_heads_of_a_cancelled_request_are_ignored() -> None:
    client = new_client()
    request(client)
    client.reset(1, errors.CANCEL)
    client.take_output()
    late = headers(1, HEAD) + data(1, b"x") + headers(1, TRAILERS, WHOLE | END)
    assert client.receive(late, 0) == []
    assert not client.has_output


def test_wrong_order_of_calls_is_a_programmers_error() -> None:
    server = new_server()
    with pytest.raises(AssertionError):
        server.open_stream()
    client = new_client()
    stream_id = client.open_stream()
    with pytest.raises(AssertionError):
        client.send_data(stream_id, b"x")
    with pytest.raises(AssertionError):
        client.ping(b"short")
    client.send_headers(stream_id, BLOCK, end_stream=True)
    with pytest.raises(AssertionError):
        client.send_data(stream_id, b"x")


def test_limits_name_the_window_of_the_first_settings() -> None:
    client = Connection(client=True, limits=Limits(stream_window=70_000))
    client.begin()
    assert pack(">HI", 4, 70_000) in client.take_output()
