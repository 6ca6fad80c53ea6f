"""Wrong octets on the client port: each connection ends as it should, the member goes on serving.

Each row of the table is a conversation on a raw socket.  After every one the member must answer
a put and a range of another client, and its memory must stay bounded.
"""

from __future__ import annotations

import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import pytest

from tests.support import wire_frames as wire
from tests.support.etcd_client import EtcdClient, RpcFailedError
from tests.support.processes import RunningMember, memory_kib
from tests.support.wire_client import WireClient

pytestmark = pytest.mark.integration

RANGE_PATH: Final = "/etcdserverpb.KV/Range"
PUT_PATH: Final = "/etcdserverpb.KV/Put"
SOCKET_TIMEOUT_S: Final = 5.0
RSS_GROWTH_MAX_KIB: Final = 150 * 1024
FLOOD_FRAMES: Final = 20_000
PROTOCOL_ERROR: Final = 1
FRAME_SIZE_ERROR: Final = 6
COMPRESSION_ERROR: Final = 9


def connect(member: RunningMember) -> socket.socket:
    host, _, port = member.endpoint.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=SOCKET_TIMEOUT_S)


def read_until_closed(sock: socket.socket, limit_s: float = SOCKET_TIMEOUT_S) -> bytes:
    """Return what the server sends until it closes, or until ``limit_s`` has passed."""
    deadline = time.monotonic() + limit_s
    parts = []
    while (left_s := deadline - time.monotonic()) > 0:
        sock.settimeout(left_s)
        try:
            data = sock.recv(65536)
        except (TimeoutError, ConnectionError):
            break
        if not data:
            break
        parts.append(data)
    return b"".join(parts)


def frames_of(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return (kind, flags, stream id, payload) of each whole frame in ``data``."""
    frames = []
    position = 0
    while len(data) - position >= 9:
        word, flags, stream_id = wire.FRAME_HEAD.unpack_from(data, position)
        stop = position + 9 + (word >> 8)
        frames.append((word & 0xFF, flags, stream_id, data[position + 9 : stop]))
        position = stop
    return frames


def goaway_code(data: bytes) -> int | None:
    """Return the error code of the last GOAWAY in ``data``."""
    codes = [
        struct.unpack(">I", payload[4:8])[0]
        for kind, _, _, payload in frames_of(data)
        if kind == wire.GOAWAY
    ]
    return codes[-1] if codes else None


def say(member: RunningMember, octets: bytes, limit_s: float = SOCKET_TIMEOUT_S) -> bytes:
    """Send ``octets`` on a new connection and return all that comes back."""
    with closing(connect(member)) as sock:
        with suppress(ConnectionError):  # the server may be quicker to give up
            sock.sendall(octets)
        return read_until_closed(sock, limit_s)


def opened(octets: bytes) -> bytes:
    """Return ``octets`` behind a correct opening of a connection."""
    return wire.PREFACE + wire.settings({}) + octets


def request_headers(stream_id: int, path: str = RANGE_PATH, flags: int = wire.END_HEADERS) -> bytes:
    block = wire.header_block(wire.grpc_fields(path, "localhost"))
    return wire.frame(wire.HEADERS, flags, stream_id, block)


@pytest.fixture(autouse=True)
def serving(member: RunningMember, client: EtcdClient) -> object:
    """After each test the member serves others as before, in about as much memory."""
    client.put(b"bad-input", b"before")
    before_kib = memory_kib(member.pids)
    yield
    client.put(b"bad-input", b"after")
    assert client.range(b"bad-input").kvs[0].value == b"after"
    assert memory_kib(member.pids) - before_kib < RSS_GROWTH_MAX_KIB


# -- the beginning of a connection -------------------------------------------------------------


def test_a_wrong_preface_ends_the_connection(member: RunningMember) -> None:
    answer = say(member, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n" + wire.settings({}))
    assert wire.DATA not in [kind for kind, *_ in frames_of(answer)]


def test_octets_of_no_protocol_end_the_connection(member: RunningMember) -> None:
    with closing(connect(member)) as sock:
        sock.sendall(bytes(range(256)) * 8)
        read_until_closed(sock)


def test_http_1_0_is_answered_by_the_http_routes(member: RunningMember) -> None:
    answer = say(member, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
    status, _, rest = answer.partition(b"\r\n")
    assert status.split()[1] == b"200"
    assert b'"health":"true"' in rest.replace(b" ", b"")


def test_tls_to_the_plain_port_fails_at_once(member: RunningMember) -> None:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with closing(connect(member)) as sock, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(sock)


def test_a_client_that_says_nothing_disturbs_nobody(
    member: RunningMember, client: EtcdClient
) -> None:
    silent = [connect(member) for _ in range(50)]
    for i, sock in enumerate(silent):
        sock.sendall(wire.PREFACE[: i % len(wire.PREFACE)])
    client.put(b"bad-input", b"meanwhile")
    for sock in silent:
        sock.close()


# -- frames ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 8, 9, 20])
def test_a_truncated_frame_is_waited_for_and_then_dropped(member: RunningMember, cut: int) -> None:
    with closing(connect(member)) as sock:
        sock.sendall(opened(request_headers(1)[:cut]))
        sock.shutdown(socket.SHUT_WR)
        answer = read_until_closed(sock)
    assert wire.HEADERS not in [kind for kind, *_ in frames_of(answer)]


def test_an_oversize_frame_is_a_frame_size_error(member: RunningMember) -> None:
    head = wire.FRAME_HEAD.pack(0xFFFFFF << 8 | wire.DATA, 0, 1)
    answer = say(member, opened(request_headers(1) + head + bytes(1024)))
    assert goaway_code(answer) in (FRAME_SIZE_ERROR, PROTOCOL_ERROR, None)


def test_headers_on_an_even_stream_are_a_protocol_error(member: RunningMember) -> None:
    assert goaway_code(say(member, opened(request_headers(2)))) in (PROTOCOL_ERROR, None)


def test_continuation_without_headers_is_a_protocol_error(member: RunningMember) -> None:
    answer = say(member, opened(wire.frame(wire.CONTINUATION, wire.END_HEADERS, 1, b"\x82")))
    assert goaway_code(answer) in (PROTOCOL_ERROR, None)


def test_a_bad_header_block_is_a_compression_error(member: RunningMember) -> None:
    block = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
    answer = say(member, opened(wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block)))
    assert goaway_code(answer) in (COMPRESSION_ERROR, None)


@pytest.mark.parametrize("block", [b"\xc0", b"\x00\x85abc", b"\x40\x01a\xff\xff\xff\xff\xff\x0f"])
def test_impossible_header_blocks_hurt_nobody(member: RunningMember, block: bytes) -> None:
    say(member, opened(wire.frame(wire.HEADERS, wire.END_HEADERS, 1, block)), 1.0)


@pytest.mark.parametrize("kind", range(12))
def test_every_kind_of_frame_with_a_senseless_payload(member: RunningMember, kind: int) -> None:
    for stream_id in (0, 1, 2):
        say(member, opened(wire.frame(kind, 0xFF, stream_id, b"\xff\xff\xff")), 0.3)


def test_a_window_beyond_its_limit(member: RunningMember) -> None:
    wide = wire.window_update(0, wire.WINDOW_MAX)
    say(member, opened(wide + wide), 1.0)
    say(member, opened(wire.window_update(0, 0)), 1.0)


# -- floods ------------------------------------------------------------------------------------


def flood(member: RunningMember, octets: bytes) -> None:
    """Send ``octets`` without reading, until all is sent or the server has had enough."""
    with closing(connect(member)) as sock:
        sock.settimeout(SOCKET_TIMEOUT_S)
        try:
            sock.sendall(opened(octets))
        except OSError:
            return
        read_until_closed(sock, 0.5)


def _resets() -> bytes:
    reset = struct.pack(">I", 8)
    return b"".join(
        request_headers(stream_id) + wire.frame(wire.RST_STREAM, 0, stream_id, reset)
        for stream_id in range(1, FLOOD_FRAMES, 2)
    )


def _header_list() -> bytes:
    fields = [(b"x-%d" % i, b"v" * 1000) for i in range(15)]
    block = wire.header_block([*wire.grpc_fields(RANGE_PATH, "localhost"), *fields])
    frames = [wire.frame(wire.HEADERS, 0, 1, block)]
    frames += [wire.frame(wire.CONTINUATION, 0, 1, wire.header_block(fields))] * 1000
    return b"".join(frames)


FLOODS: Final[dict[str, Callable[[], bytes]]] = {
    "resets": _resets,
    "headers": _header_list,
    "pings": lambda: wire.frame(wire.PING, 0, 0, bytes(8)) * FLOOD_FRAMES,
    "settings": lambda: wire.settings({}) * FLOOD_FRAMES,
    "empty data": lambda: request_headers(1) + wire.frame(wire.DATA, 0, 1) * FLOOD_FRAMES,
    "continuations": lambda: (
        request_headers(1, flags=0) + wire.frame(wire.CONTINUATION, 0, 1) * FLOOD_FRAMES
    ),
    "open streams": lambda: b"".join(request_headers(i) for i in range(1, FLOOD_FRAMES, 2)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_stays_bounded(member: RunningMember, name: str) -> None:
    flood(member, FLOODS[name]())


def test_answers_that_nobody_reads_stay_bounded(member: RunningMember, client: EtcdClient) -> None:
    client.put(b"bad-input-large", bytes(1_000_000))
    with closing(connect(member)) as sock:
        body = wire.grpc_message(b"\n\x0fbad-input-large")
        requests = [
            request_headers(stream_id) + wire.data_frames(stream_id, body, end=True)
            for stream_id in range(1, 129, 2)
        ]
        sock.sendall(opened(wire.window_update(0, wire.WINDOW_MAX - 65535) + b"".join(requests)))
        time.sleep(0.5)
        client.put(b"bad-input", b"meanwhile")


# -- calls -------------------------------------------------------------------------------------


def test_a_half_closed_call_without_a_message_fails_alone(member: RunningMember) -> None:
    with closing(connect(member)) as sock:
        sock.sendall(opened(request_headers(1, flags=wire.END_HEADERS | wire.END_STREAM)))
        answer = read_until_closed(sock, 1.0)
    kinds = [kind for kind, _, stream_id, _ in frames_of(answer) if stream_id == 1]
    assert set(kinds) <= {wire.HEADERS, wire.RST_STREAM}


def test_invalid_protobuf_is_an_internal_error(client: EtcdClient) -> None:
    with pytest.raises(RpcFailedError) as caught:
        client.raw_unary(PUT_PATH, b"\xff\xff\xff\xff")
    assert caught.value.code in (13, 3)


def test_a_gigantic_message_is_refused_before_it_is_read(member: RunningMember) -> None:
    client = WireClient(member.endpoint)
    stream = client.open(PUT_PATH)
    # The length says 2 GiB; nothing of it follows.
    client._socket.sendall(wire.frame(wire.DATA, 0, stream.stream_id, b"\0\x7f\xff\xff\xff"))
    client.finish([stream])
    client.close()
    assert stream.code == 8
    assert "grpc: received message larger than max (2147483647 vs. 2097152)" in stream.text


def test_both_limits_of_size_have_their_own_error(client: EtcdClient) -> None:
    with pytest.raises(RpcFailedError) as caught:
        client.put(b"k", bytes(1_600_000))
    assert (caught.value.code, caught.value.text) == (3, "etcdserver: request is too large")
    with pytest.raises(RpcFailedError) as caught:
        client.put(b"k", bytes(2_200_000))
    assert caught.value.code == 8
    assert "grpc: received message larger than max" in caught.value.text


def test_an_unknown_method_is_unimplemented(client: EtcdClient) -> None:
    for path in ("/etcdserverpb.KV/Nothing", "/no.Service/Range"):
        with pytest.raises(RpcFailedError) as caught:
            client.raw_unary(path, b"")
        assert caught.value.code == 12


def test_a_compressed_message_without_an_encoding_is_refused(member: RunningMember) -> None:
    client = WireClient(member.endpoint)
    stream = client.open(PUT_PATH)
    octets = b"\x01" + wire.grpc_message(b"\n\x01a")[1:]
    client._socket.sendall(wire.frame(wire.DATA, wire.END_STREAM, stream.stream_id, octets))
    client.finish([stream])
    client.close()
    assert stream.code in (12, 13)


@pytest.mark.parametrize(
    ("name", "fields", "code", "text"),
    [
        ("put", {"value": b"x"}, 3, "etcdserver: key is not provided"),
        ("range", {}, 3, "etcdserver: key is not provided"),
        ("delete_range", {}, 3, "etcdserver: key is not provided"),
        (
            "put",
            {"key": b"k", "value": b"v", "ignore_value": True},
            3,
            "etcdserver: value is provided",
        ),
        (
            "put",
            {"key": b"k", "lease": 5, "ignore_lease": True},
            3,
            "etcdserver: lease is provided",
        ),
        ("put", {"key": b"no", "ignore_value": True}, 3, "etcdserver: key not found"),
        ("put", {"key": b"k", "lease": 77}, 5, "etcdserver: requested lease not found"),
        (
            "range",
            {"key": b"k", "revision": 10**9},
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            "compact",
            {"revision": 10**9},
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            "hash_kv",
            {"revision": 10**9},
            11,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        ("lease_revoke", {"ID": 77}, 5, "etcdserver: requested lease not found"),
        ("lease_grant", {"TTL": 9_000_000_001}, 11, "etcdserver: too large lease TTL"),
    ],
)
def test_validation_errors_have_etcds_code_and_text(
    client: EtcdClient, name: str, fields: dict[str, object], code: int, text: str
) -> None:
    with pytest.raises(RpcFailedError) as caught:
        client.invoke(name, **fields)
    assert (caught.value.code, caught.value.text) == (code, text)


# -- other programs ----------------------------------------------------------------------------


def test_curl_reads_the_version_over_http_1_1(member: RunningMember) -> None:
    done = subprocess.run(
        ["curl", "-sS", f"{member.client_url}/version"], capture_output=True, text=True, check=True
    )
    assert "etcdserver" in done.stdout


def test_curl_with_prior_knowledge_speaks_grpc(member: RunningMember) -> None:
    done = subprocess.run(
        [
            *("curl", "-sS", "--http2-prior-knowledge", "-D", "-", "-o", "/dev/null"),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            *("--data-binary", "@-", f"{member.client_url}{RANGE_PATH}"),
        ],
        input=wire.grpc_message(b"\n\x03foo"),
        capture_output=True,
        check=True,
    )
    assert b"HTTP/2 200" in done.stdout
    assert b"grpc-status: 0" in done.stdout


def test_h2load_gets_an_answer_to_every_request(member: RunningMember, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(wire.grpc_message(b"\n\x03foo"))
    try:
        done = subprocess.run(
            [
                *("h2load", "-n", "2000", "-c", "10", "-m", "10", "-d", str(body)),
                *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                f"{member.client_url}{RANGE_PATH}",
            ],
            capture_output=True,
            check=True,
        )
    except FileNotFoundError:
        pytest.skip("h2load (nghttp2-client) is not installed")
    assert b"2000 succeeded, 0 failed, 0 errored" in done.stdout
