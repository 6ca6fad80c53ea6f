"""Frames of WebSockets: RFC 6455's own examples, and what is no frame of a client."""

from __future__ import annotations

import pytest

from etcdtw.gateway.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    CONTROL_SIZE_MAX,
    PING,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    FrameReader,
    WebSocketError,
    accept_key,
    asks_for_websocket,
    bearer_of,
    close_frame,
    frame,
    handshake,
)
from tests.support.websocket_client import KEY, masked

SIZE_MAX = 100_000


def read(octets: bytes, piece: int | None = None) -> list[tuple[int, bytes]]:
    reader = FrameReader(SIZE_MAX)
    found = []
    step = piece or len(octets)
    for at in range(0, len(octets), step):
        reader.feed(octets[at : at + step])
        while (message := reader.next()) is not None:
            found.append(message)
    return found


def test_the_key_of_the_rfc() -> None:
    assert accept_key(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_frames_of_the_rfc() -> None:
    assert read(bytes.fromhex("818537fa213d7f9f4d5158")) == [(TEXT, b"Hello")]
    assert frame(TEXT, b"Hello") == bytes.fromhex("810548656c6c6f")
    assert frame(TEXT, b"Hel", False) == bytes.fromhex("010348656c")
    assert frame(CONTINUATION, b"lo") == bytes.fromhex("80026c6f")
    assert frame(PING, b"Hello") == bytes.fromhex("890548656c6c6f")
    assert frame(BINARY, bytes(256))[:4] == bytes.fromhex("827e0100")
    assert frame(BINARY, bytes(65_536))[:10] == bytes.fromhex("827f0000000000010000")
    assert close_frame(1000) == bytes.fromhex("880203e8")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, SIZE_MAX])
def test_messages_of_any_size(size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert read(masked(0x82, payload)) == [(BINARY, payload)]


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
def test_messages_in_parts_and_pings_between(piece: int) -> None:
    octets = masked(0x01, b"a") + masked(0x00, b"") + masked(0x89, b"?") + masked(0x80, b"bc")
    octets += masked(0x81, b"d") + masked(0x88, b"\x03\xe8")
    expected = [(PING, b"?"), (TEXT, b"abc"), (TEXT, b"d"), (CLOSE, b"\x03\xe8")]
    assert read(octets, piece) == expected


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"\x81\x05Hello", PROTOCOL_ERROR),
        (masked(0xC1, b"x"), PROTOCOL_ERROR),
        (masked(0x83, b"x"), PROTOCOL_ERROR),
        (masked(0x8B, b"x"), PROTOCOL_ERROR),
        (masked(0x80, b"x"), PROTOCOL_ERROR),
        (masked(0x01, b"x") + masked(0x81, b"x"), PROTOCOL_ERROR),
        (masked(0x09, b"x"), PROTOCOL_ERROR),
        (masked(0x89, bytes(CONTROL_SIZE_MAX + 1)), PROTOCOL_ERROR),
        (masked(0x81, b"", SIZE_MAX + 1), TOO_BIG),
        (masked(0x01, bytes(SIZE_MAX)) + masked(0x80, b"", 1)[:6], TOO_BIG),
        (masked(0x81, b"", 1 << 63), TOO_BIG),
    ],
)
def test_what_is_no_frame_is_refused(octets: bytes, code: int) -> None:
    with pytest.raises(WebSocketError) as caught:
        read(octets)
    assert caught.value.code == code


def head(**fields: str) -> dict[bytes, bytes]:
    usual = {
        "upgrade": "websocket",
        "connection": "keep-alive, Upgrade",
        "sec_websocket_version": "13",
        "sec_websocket_key": KEY.decode(),
    }
    return {
        name.replace("_", "-").encode(): value.encode() for name, value in (usual | fields).items()
    }


def test_a_handshake() -> None:
    found = handshake(b"GET", head().get)
    assert isinstance(found, bytes)
    assert found.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in found
    assert found.endswith(b"\r\n\r\n")
    assert b"Protocol:" not in found
    bearer = handshake(b"GET", head(sec_websocket_protocol="Bearer, abc").get)
    assert isinstance(bearer, bytes)
    assert b"\r\nSec-WebSocket-Protocol: Bearer\r\n" in bearer


def test_handshakes_that_are_none() -> None:
    assert handshake(b"POST", head().get) == (405, b"Method Not Allowed\n")
    for fields in (
        {"sec_websocket_version": "8"},
        {"sec_websocket_key": ""},
        {"sec_websocket_key": "x"},
        {"sec_websocket_key": "YQ=="},
    ):
        assert handshake(b"GET", head(**fields).get) == (400, b"Bad Request\n")
    assert asks_for_websocket(head().get)
    assert not asks_for_websocket(head(upgrade="h2c").get)
    assert not asks_for_websocket(head(connection="close").get)
    assert not asks_for_websocket(lambda name: None)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"sec_websocket_protocol": "Bearer, abc"}, b"Bearer abc"),
        ({"sec_websocket_protocol": "Bearer,abc "}, b"Bearer abc"),
        ({"sec_websocket_protocol": "chat"}, b""),
        ({"cookie": "a=b; token=def"}, b"Bearer def"),
        ({"cookie": "token=def", "sec_websocket_protocol": "Bearer, abc"}, b"Bearer def"),
    ],
)
def test_the_token_of_a_websocket(fields: dict[str, str], expected: bytes | None) -> None:
    assert bearer_of(head(**fields).get) == expected
