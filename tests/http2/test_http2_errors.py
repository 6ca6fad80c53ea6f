"""Each breach of RFC 9113 ends in the right error of the connection or of the stream."""

from __future__ import annotations

from struct import pack

import pytest

from etcdtw.http2 import errors, events, frames
from etcdtw.http2.connection import Connection
from etcdtw.http2.events import Event
from etcdtw.http2.frames import encode_frame, encode_settings
from etcdtw.http2.hpack import encode_block
from etcdtw.http2.limits import Limits
from tests.http2.frame_rig import (
    BLOCK,
    END,
    FIELDS,
    HEAD,
    TRAILERS,
    WHOLE,
    data,
    frame,
    headers,
    new_server,
    written,
)


def assert_connection_error(connection: Connection, found: list[Event], code: int) -> None:
    assert found[-1][:2] == (events.CLOSED, code)
    kind, _, stream_id, payload = written(connection)[-1]
    assert (kind, stream_id) == (frames.GOAWAY, 0)
    assert frames.PAIR.unpack_from(payload)[1] == code
    assert connection.is_closed
    assert connection.open_streams == 0
    assert connection.receive(b"anything", 0) == []


def test_a_wrong_preface_closes_the_connection_at_its_first_wrong_octet() -> None:
    server = Connection()
    server.begin()
    assert server.receive(b"PRI * HT", 0) == []
    assert_connection_error(server, server.receive(b"X", 0), errors.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "first",
    [
        encode_frame(frames.SETTINGS, frames.FLAG_ACK, 0),
        frames.encode_ping(b"12345678"),
        headers(1),
        frame(0x77, 0, b""),
    ],
)
def test_rfc9113_3_4_the_first_frame_has_to_be_settings(first: bytes) -> None:
    server = Connection()
    found = server.receive(frames.PREFACE + first, 0)
    assert_connection_error(server, found, errors.PROTOCOL_ERROR)


CONNECTION_ERRORS: dict[str, tuple[bytes, int]] = {
    "4.2 frame one octet too large": (
        frame(frames.DATA, 1, b"x" * 16_385),
        errors.FRAME_SIZE_ERROR,
    ),
    "4.3 block does not decode": (headers(1, b"\xff\xff"), errors.COMPRESSION_ERROR),
    "4.3 block of a shortcut does not decode": (
        headers(1, b"\x80") + data(1, b"x"),
        errors.COMPRESSION_ERROR,
    ),
    "5.1 DATA on idle": (data(1), errors.PROTOCOL_ERROR),
    "5.1 DATA on even idle": (data(2), errors.PROTOCOL_ERROR),
    "5.1 RST on idle": (frames.encode_reset(1, 8), errors.PROTOCOL_ERROR),
    "5.1 WINDOW_UPDATE on idle": (frames.encode_window_update(1, 1), errors.PROTOCOL_ERROR),
    "5.1.1 even id": (headers(2), errors.PROTOCOL_ERROR),
    "5.1.1 stream 0": (headers(0), errors.PROTOCOL_ERROR),
    "5.1.1 id below a skipped one": (headers(5) + headers(3), errors.PROTOCOL_ERROR),
    "5.1.1 id below one skipped in a shortcut": (
        headers(5) + data(5, b"x") + headers(3),
        errors.PROTOCOL_ERROR,
    ),
    "6.1 DATA on stream 0": (data(0), errors.PROTOCOL_ERROR),
    "6.1 padding too long": (
        headers(1) + data(1, b"\x05abcd", frames.FLAG_PADDED),
        errors.PROTOCOL_ERROR,
    ),
    "6.1 no pad length": (headers(1) + data(1, b"", frames.FLAG_PADDED), errors.FRAME_SIZE_ERROR),
    "6.2 no room for priority": (
        headers(1, b"\0\0\0\0", WHOLE | frames.FLAG_PRIORITY),
        errors.FRAME_SIZE_ERROR,
    ),
    "6.2 block interrupted by another type": (
        headers(1, BLOCK, 0) + frames.encode_ping(b"12345678"),
        errors.PROTOCOL_ERROR,
    ),
    "6.2 block interrupted by another stream": (
        headers(1, BLOCK, 0) + frame(frames.CONTINUATION, 3, b"", WHOLE),
        errors.PROTOCOL_ERROR,
    ),
    "6.2 block interrupted by a request": (
        headers(1, BLOCK, 0) + headers(3) + data(3, b"x"),
        errors.PROTOCOL_ERROR,
    ),
    "6.3 PRIORITY on stream 0": (frame(frames.PRIORITY, 0, b"\0" * 5), errors.PROTOCOL_ERROR),
    "6.3 PRIORITY too short on idle": (
        frame(frames.PRIORITY, 1, b"\0" * 4),
        errors.FRAME_SIZE_ERROR,
    ),
    "RFC 7540 5.3.1 idle stream depends on itself": (
        frame(frames.PRIORITY, 1, b"\0\0\0\1\0"),
        errors.PROTOCOL_ERROR,
    ),
    "6.4 RST_STREAM on stream 0": (frames.encode_reset(0, 8), errors.PROTOCOL_ERROR),
    "6.4 RST_STREAM size": (
        headers(1) + frame(frames.RST_STREAM, 1, b"\0\0\0"),
        errors.FRAME_SIZE_ERROR,
    ),
    "6.5 SETTINGS on a stream": (frame(frames.SETTINGS, 1, b""), errors.PROTOCOL_ERROR),
    "6.5 SETTINGS size": (frame(frames.SETTINGS, 0, b"\0" * 5), errors.FRAME_SIZE_ERROR),
    "6.5 acknowledgement with payload": (
        frame(frames.SETTINGS, 0, b"\0" * 6, frames.FLAG_ACK),
        errors.FRAME_SIZE_ERROR,
    ),
    "6.5.2 ENABLE_PUSH": (encode_settings(((2, 2),)), errors.PROTOCOL_ERROR),
    "6.5.2 INITIAL_WINDOW_SIZE": (encode_settings(((4, 2**31),)), errors.FLOW_CONTROL_ERROR),
    "6.5.2 MAX_FRAME_SIZE low": (encode_settings(((5, 16_383),)), errors.PROTOCOL_ERROR),
    "6.5.2 MAX_FRAME_SIZE high": (encode_settings(((5, 2**24),)), errors.PROTOCOL_ERROR),
    "6.6 PUSH_PROMISE": (
        headers(1) + frame(frames.PUSH_PROMISE, 1, b"\0\0\0\2"),
        errors.PROTOCOL_ERROR,
    ),
    "6.7 PING on a stream": (frame(frames.PING, 1, b"12345678"), errors.PROTOCOL_ERROR),
    "6.7 PING size": (frame(frames.PING, 0, b"1234567"), errors.FRAME_SIZE_ERROR),
    "6.8 GOAWAY on a stream": (frame(frames.GOAWAY, 1, b"\0" * 8), errors.PROTOCOL_ERROR),
    "6.8 GOAWAY size": (frame(frames.GOAWAY, 0, b"\0" * 7), errors.FRAME_SIZE_ERROR),
    "6.9 WINDOW_UPDATE size": (
        frame(frames.WINDOW_UPDATE, 0, b"\0" * 5),
        errors.FRAME_SIZE_ERROR,
    ),
    "6.9 WINDOW_UPDATE of 0": (frames.encode_window_update(0, 0), errors.PROTOCOL_ERROR),
    "6.9.1 connection window overflow": (
        frames.encode_window_update(0, 2**31 - 1),
        errors.FLOW_CONTROL_ERROR,
    ),
    "6.9.2 stream window overflow by SETTINGS": (
        headers(1)
        + frames.encode_window_update(1, 2**31 - 1 - 65_535)
        + encode_settings(((4, 65_536),)),
        errors.FLOW_CONTROL_ERROR,
    ),
    "6.10 CONTINUATION alone": (
        frame(frames.CONTINUATION, 1, b"", WHOLE),
        errors.PROTOCOL_ERROR,
    ),
    "8.4 HEADERS on a closed stream": (
        headers(1, flags=WHOLE) + frames.encode_reset(1, 8) + headers(1),
        errors.STREAM_CLOSED,
    ),
}


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_rfc9113_connection_error(name: str) -> None:
    octets, code = CONNECTION_ERRORS[name]
    server = new_server()
    assert_connection_error(server, server.receive(octets, 0), code)


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_rfc9113_connection_error_octet_by_octet(name: str) -> None:
    octets, code = CONNECTION_ERRORS[name]
    server = new_server()
    found: list[Event] = []
    for i in range(len(octets)):
        found += server.receive(octets[i : i + 1], 0)
        if server.is_closed:
            break
    assert_connection_error(server, found, code)


def with_fields(*extra: tuple[bytes, bytes]) -> bytes:
    return encode_block([*FIELDS, *extra])


STREAM_ERRORS: dict[str, tuple[bytes, int]] = {
    "5.1 DATA half closed": (
        headers(1, flags=WHOLE | END) + data(1, b"x"),
        errors.STREAM_CLOSED,
    ),
    "5.1 HEADERS half closed": (headers(1, flags=WHOLE | END) + headers(1), errors.STREAM_CLOSED),
    "5.1 DATA closed": (
        headers(1) + frames.encode_reset(1, 8) + data(1, b"x"),
        errors.STREAM_CLOSED,
    ),
    "6.3 PRIORITY too short": (
        headers(1) + frame(frames.PRIORITY, 1, b"\0" * 4),
        errors.FRAME_SIZE_ERROR,
    ),
    "RFC 7540 5.3.1 open stream depends on itself": (
        headers(1) + frame(frames.PRIORITY, 1, b"\x80\0\0\1\0"),
        errors.PROTOCOL_ERROR,
    ),
    "RFC 7540 5.3.1 HEADERS depend on themselves": (
        headers(1, b"\0\0\0\1\0" + BLOCK, WHOLE | frames.FLAG_PRIORITY),
        errors.PROTOCOL_ERROR,
    ),
    "6.9 WINDOW_UPDATE of 0": (
        headers(1) + frames.encode_window_update(1, 0),
        errors.PROTOCOL_ERROR,
    ),
    "6.9.1 stream window overflow": (
        headers(1) + frames.encode_window_update(1, 2**31 - 1),
        errors.FLOW_CONTROL_ERROR,
    ),
    "8.1 trailers that do not end the stream": (
        headers(1) + headers(1, TRAILERS),
        errors.PROTOCOL_ERROR,
    ),
    "8.1 trailers with a pseudo-field": (
        headers(1) + headers(1, BLOCK, WHOLE | END),
        errors.PROTOCOL_ERROR,
    ),
    "8.1.1 body longer than announced": (
        headers(1, with_fields((b"content-length", b"3"))) + data(1, b"four"),
        errors.PROTOCOL_ERROR,
    ),
    "8.1.1 body shorter than announced": (
        headers(1, with_fields((b"content-length", b"5"))) + data(1, b"four"),
        errors.PROTOCOL_ERROR,
    ),
    "8.1.1 body announced and missing": (
        headers(1, with_fields((b"content-length", b"5")), WHOLE | END),
        errors.PROTOCOL_ERROR,
    ),
    "8.1.1 body missing before trailers": (
        headers(1, with_fields((b"content-length", b"5"))) + headers(1, TRAILERS, WHOLE | END),
        errors.PROTOCOL_ERROR,
    ),
    "8.2.1 upper case": (headers(1, BLOCK + b"\x00\x01A\x01v"), errors.PROTOCOL_ERROR),
    "8.2.1 upper case in a shortcut": (
        headers(1, BLOCK + b"\x00\x01A\x01v") + data(1, b"x"),
        errors.PROTOCOL_ERROR,
    ),
    "8.3 no path": (headers(1, encode_block(FIELDS[:2])), errors.PROTOCOL_ERROR),
    "8.2.2 connection": (headers(1, with_fields((b"upgrade", b"x"))), errors.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_rfc9113_stream_error(name: str) -> None:
    octets, code = STREAM_ERRORS[name]
    server = new_server()
    found = server.receive(octets, 0)
    assert (frames.RST_STREAM, 0, 1, pack(">I", code)) in written(server)
    assert not server.is_closed
    assert server.open_streams == 0
    announced = any(event[0] == events.HEADERS for event in found)
    known = "closed" not in name or "half" in name
    assert ((events.RESET, 1, code) in found) == (announced and known)
    # The connection serves on.
    (after,) = server.receive(headers(3) + data(3, b"x"), 0)
    assert after[:2] == (events.REQUEST, 3)


TOLERATED = {
    "WINDOW_UPDATE on closed": frames.encode_window_update(1, 10),
    "RST on closed": frames.encode_reset(1, 8),
    "PRIORITY on closed": frame(frames.PRIORITY, 1, b"\0" * 5),
    "PRIORITY on idle": frame(frames.PRIORITY, 9, b"\0" * 5),
    "unknown type": frame(0xAA, 1, b"whatever"),
    "unknown setting": encode_settings(((0xAA, 1),)),
    "settings acknowledgement": frames.SETTINGS_ACK,
    "reserved bit": frames.HEADER.pack(8 << 8 | frames.PING, 0, 1 << 31) + b"12345678",
    "unknown flags": frame(frames.PING, 0, b"12345678", 0xFE),
}


@pytest.mark.parametrize("name", TOLERATED)
def test_rfc9113_harmless_frames_are_tolerated(name: str) -> None:
    server = new_server()
    (_request,) = server.receive(headers(1) + data(1, b"x"), 0)
    server.reply(1, HEAD, b"y", TRAILERS)
    assert server.receive(TOLERATED[name], 0) == []
    assert not server.is_closed


@pytest.mark.parametrize("late", [data(1, b"x" * 9, 0), headers(1, TRAILERS, WHOLE | END), data(1)])
def test_late_frames_of_a_stream_we_reset_are_ignored(late: bytes) -> None:
    server = new_server()
    server.receive(headers(1), 0)
    server.reset(1, errors.CANCEL)
    assert written(server) == [(frames.RST_STREAM, 0, 1, pack(">I", errors.CANCEL))]
    assert server.receive(late, 0) == []
    assert written(server) == []


def test_the_memory_of_reset_streams_is_bounded() -> None:
    server = new_server(Limits(reset_memory_count_max=2))
    for stream_id in (1, 3, 5):
        server.receive(headers(stream_id), 0)
        server.reset(stream_id, errors.CANCEL)
    server.take_output()
    server.receive(data(3, b"x") + data(5, b"x"), 0)
    assert written(server) == []
    server.receive(data(1, b"x"), 0)
    assert written(server) == [(frames.RST_STREAM, 0, 1, pack(">I", errors.STREAM_CLOSED))]


def test_a_server_that_answered_first_resets_with_no_error_and_ignores_the_rest() -> None:
    server = new_server()
    server.receive(headers(1), 0)
    server.send_headers(1, TRAILERS, end_stream=True)
    assert written(server)[-1] == (frames.RST_STREAM, 0, 1, pack(">I", errors.NO_ERROR))
    assert server.receive(data(1, b"late"), 0) == []
    assert server.open_streams == 0


def test_calls_for_a_stream_that_is_gone_do_nothing() -> None:
    server = new_server()
    server.receive(headers(1) + frames.encode_reset(1, 8), 0)
    server.reply(1, HEAD, b"x", TRAILERS)
    server.send_headers(1, HEAD)
    server.send_data(1, b"x")
    server.send_trailers(1, TRAILERS)
    server.reset(1, errors.CANCEL)
    assert server.queued(1) == 0
    assert not server.has_output
    server.close()
    server.take_output()
    server.close()
    server.ping(b"12345678")
    server.drain()
    server.reply(3, HEAD, b"x", TRAILERS)
    assert not server.has_output
