"""What one client may do to a member over JSON; see `benchmarks.attackers`."""

from __future__ import annotations

import json
import socket
import time
from base64 import b64encode
from typing import Final

from benchmarks.attackers import (
    CALL_TIMEOUT_S,
    IDLE_S,
    KV,
    Pace,
    Target,
    connect,
    drain_for,
    pour,
    repeat,
)
from etcdtw.wire import etcdserverpb as pb
from tests.support.websocket_client import masked
from tests.support.wire_client import ConnectionFailedError, WireClient

DEPTH: Final = 1_000_000
LARGE_OCTETS: Final = 2_000_000
SOCKET_MESSAGES: Final = 2_000  # in one packet
SLOW_READERS: Final = 10_000
WATCHED: Final = b"watched by the slow"
WATCHED_OCTETS: Final = 20_000
TEXT: Final = 0x81
REQUEST_FIELDS: Final = b"Host: x\r\nContent-Type: application/json\r\n"
SOCKET_FIELDS: Final = (
    b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + b64encode(bytes(16)) + b"\r\n"
)


def _posted(path: bytes, body: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (path, REQUEST_FIELDS, len(body))
    return head + body


def _bodies(target: Target, pace: Pace, octets: bytes) -> None:
    def once(sock: socket.socket) -> bool:
        return pour(sock, octets, pace) and drain_for(sock, 4 * IDLE_S, pace)

    repeat(target.client, once, pace, connect)


def deep_json(target: Target, pace: Pace) -> None:
    """Bodies that are a million lists within each other."""
    body = b'{"key":' + b"[" * DEPTH + b"]" * DEPTH + b"}"
    _bodies(target, pace, _posted(b"/v3/kv/range", body))


def large_bodies(target: Target, pace: Pace) -> None:
    """Txns of 2 MB of small compares, more than etcd takes."""
    compare = json.dumps({"key": "YQ==", "target": "VALUE", "value": "YQ=="}).encode()
    compares = b",".join([compare] * (LARGE_OCTETS // (len(compare) + 1)))
    _bodies(target, pace, _posted(b"/v3/kv/txn", b'{"compare":[%b]}' % compares))


def socket_flood(target: Target, pace: Pace) -> None:
    """Small messages without end on a WebSocket at /v3/watch."""
    opened = b"GET /v3/watch HTTP/1.1\r\n" + SOCKET_FIELDS + b"\r\n"
    message = b'{"cancel_request":{"watch_id":"5"}}'
    flood = masked(TEXT, message) * SOCKET_MESSAGES

    def once(sock: socket.socket) -> bool:
        return pour(sock, opened, pace) and all(pour(sock, flood, pace) for _ in range(1_000))

    repeat(target.client, once, pace, connect)


def slow_readers(target: Target, pace: Pace) -> None:
    """10,000 watches over JSON that never read what they are told each second."""
    create = {"create_request": {"key": b64encode(WATCHED).decode()}}
    octets = _posted(b"/v3/watch", json.dumps(create).encode())
    held: list[socket.socket] = []
    host, _, port = target.client.rpartition(":")
    for _ in range(SLOW_READERS):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(5.0)
        try:
            sock.connect((host, int(port)))
            sock.sendall(octets)
            held.append(sock)
        except OSError:
            pace.cut_off += 1
            sock.close()
    pace.begin()
    put = pb.PutRequest(key=WATCHED, value=bytes(WATCHED_OCTETS)).SerializeToString()
    client: WireClient | None = None
    while pace.goes_on():
        try:
            client = client or WireClient(target.client, CALL_TIMEOUT_S)
            client.call(f"{KV}Put", put)
        except (OSError, ConnectionFailedError):
            pace.cut_off += 1
            client = None
        time.sleep(1.0)
    for sock in held:
        sock.close()
