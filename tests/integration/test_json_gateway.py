"""The JSON gateway over sockets: large bodies, streams that go on, clients that leave."""

from __future__ import annotations

import http.client
import json
import socket
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.integration.test_page_bodies import Http2Client
from tests.support.etcd_client import EtcdClient
from tests.support.processes import RunningMember
from tests.support.websocket_client import WebSocketClient

pytestmark = pytest.mark.integration

TIMEOUT_S = 10.0
MEBIBYTE = 1024 * 1024


def of(octets: bytes) -> str:
    return b64encode(octets).decode()


@pytest.fixture
def connection(member: RunningMember) -> Iterator[http.client.HTTPConnection]:
    opened = http.client.HTTPConnection(member.endpoint, timeout=TIMEOUT_S)
    with closing(opened):
        yield opened


def begin(
    connection: http.client.HTTPConnection, path: str, *messages: Any
) -> http.client.HTTPResponse:
    body = "".join(json.dumps(one) for one in messages)
    connection.request("POST", f"/v3/{path}", body)
    return connection.getresponse()


def ask(connection: http.client.HTTPConnection, path: str, message: Any) -> Any:
    answer = begin(connection, path, message)
    told = json.loads(answer.read())
    assert answer.status == 200, told
    return told


def refusal(connection: http.client.HTTPConnection, path: str, message: Any) -> tuple[int, Any]:
    answer = begin(connection, path, message)
    return answer.status, json.loads(answer.read())


def test_a_connection_serves_one_request_after_another(
    connection: http.client.HTTPConnection,
) -> None:
    for position in range(20):
        key = of(b"one/%d" % position)
        ask(connection, "kv/put", {"key": key, "value": key})
        (found,) = ask(connection, "kv/range", {"key": key})["kvs"]
        assert found["value"] == key
    assert refusal(connection, "kv/put", {})[0] == 400
    assert refusal(connection, "kv/nope", {})[0] == 404
    assert len(ask(connection, "cluster/member/list", {})["members"]) == 1


def test_large_values_go_in_and_come_out(connection: http.client.HTTPConnection) -> None:
    value = bytes(range(256)) * 4 * 1024
    ask(connection, "kv/put", {"key": of(b"large"), "value": of(value)})
    (found,) = ask(connection, "kv/range", {"key": of(b"large")})["kvs"]
    assert b64decode(found["value"]) == value
    larger = {"key": of(b"large"), "value": of(bytes(2_500_000))}
    status, told = refusal(connection, "kv/put", larger)
    assert (status, told["code"]) == (429, 8)


def test_very_many_keys_come_as_one_object(
    connection: http.client.HTTPConnection, client: EtcdClient
) -> None:
    for position in range(3_000):
        client.put(b"many/%d" % position, b"v" * 100)
    told = ask(connection, "kv/range", {"key": of(b"many/"), "range_end": of(b"many0")})
    assert told["count"] == "3000"
    assert len({one["key"] for one in told["kvs"]}) == 3_000


def test_a_watch_goes_on(connection: http.client.HTTPConnection, client: EtcdClient) -> None:
    answer = begin(connection, "watch", {"create_request": {"key": of(b"watched")}})
    assert json.loads(answer.readline())["result"]["created"] is True
    for position in range(5):
        client.put(b"watched", b"%d" % position)
        (event,) = json.loads(answer.readline())["result"]["events"]
        assert b64decode(event["kv"]["value"]) == b"%d" % position
    answer.close()


def test_who_reads_slowly_hears_everything(
    connection: http.client.HTTPConnection, client: EtcdClient
) -> None:
    answer = begin(connection, "watch", {"create_request": {"key": of(b"slow")}})
    answer.readline()
    value = bytes(MEBIBYTE)
    for _ in range(12):
        client.put(b"slow", value)
    time.sleep(0.5)
    seen: list[str] = []
    while len(seen) < 12:
        events = json.loads(answer.readline())["result"]["events"]
        seen += [one["kv"]["version"] for one in events]
    assert seen == [str(version) for version in range(1, 13)]
    answer.close()


def test_a_snapshot_is_lines_of_base64(connection: http.client.HTTPConnection) -> None:
    answer = begin(connection, "maintenance/snapshot", {})
    blobs = [b64decode(json.loads(line)["result"]["blob"]) for line in answer]
    assert len(blobs[-1]) == 32, "the digest"
    assert len(b"".join(blobs[:-1])) % 512 == 0


def test_a_body_of_any_kind_of_octets_is_answered(member: RunningMember) -> None:
    connection = http.client.HTTPConnection(member.endpoint, timeout=TIMEOUT_S)
    with closing(connection):
        for body in (b"[" * 100_000, b'{"a":' * 9_000, b'{"a":[' + b"1," * 90_000, bytes(100)):
            connection.request("POST", "/v3/kv/range", body)
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["code"]) == (400, 3)


# Ours alone: etcd serves HTTP/2 without TLS to gRPC only.


@pytest.fixture(scope="module")
def ours() -> Iterator[RunningMember]:
    with RunningMember("etcdtw") as running:
        yield running
        assert "Traceback" not in running.stderr(), running.stderr()[-4000:]


def test_http2_reaches_the_same_pages(ours: RunningMember) -> None:
    client = Http2Client(ours.client_port)
    with closing(client.socket):
        put = json.dumps({"key": of(b"h2"), "value": of(bytes(MEBIBYTE))}).encode()
        assert client.answer(client.ask("POST", "/v3/kv/put", put))[0] == 200
        key = json.dumps({"key": of(b"h2")}).encode()
        status, body, _ = client.answer(client.ask("POST", "/v3/kv/range", key))
        assert status == 200
        assert len(b64decode(json.loads(body)["kvs"][0]["value"])) == MEBIBYTE
        assert client.answer(client.ask("GET", "/v3/kv/range"))[0] == 501
        watch = json.dumps({"create_request": {"key": of(b"h2"), "start_revision": 1}}).encode()
        status, body, _ = client.answer(client.ask("POST", "/v3/watch", watch), 100)
        assert status == 200
        assert b'"created":true' in body


def test_who_leaves_takes_its_watches_along(ours: RunningMember) -> None:
    def watchers() -> float:
        connection = http.client.HTTPConnection(ours.endpoint, timeout=TIMEOUT_S)
        with closing(connection):
            connection.request("GET", "/metrics")
            for line in connection.getresponse().read().decode().splitlines():
                if line.startswith("etcd_debugging_mvcc_watcher_total "):
                    return float(line.split()[1])
        raise AssertionError("no such metric")

    before = watchers()
    body = json.dumps({"create_request": {"key": of(b"left")}}).encode()
    head = b"POST /v3/watch HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    with closing(socket.create_connection(("127.0.0.1", ours.client_port))) as opened:
        opened.sendall(head + body)
        assert opened.recv(65_536)
        assert watchers() == before + 1
    deadline_s = time.monotonic() + TIMEOUT_S
    while watchers() != before:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_body_that_is_far_too_large_is_not_read(ours: RunningMember) -> None:
    with closing(socket.create_connection(("127.0.0.1", ours.client_port))) as opened:
        opened.settimeout(TIMEOUT_S)
        head = b"POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n"
        opened.sendall(head)
        assert opened.recv(65_536).startswith(b"HTTP/1.1 413 ")


def test_the_gateway_can_be_switched_off() -> None:
    with RunningMember("etcdtw", flags=["--enable-grpc-gateway=false"]) as running:
        connection = http.client.HTTPConnection(running.endpoint, timeout=TIMEOUT_S)
        with closing(connection):
            connection.request("POST", "/v3/kv/range", "{}")
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (404, b"404 page not found\n")


# WebSockets.


def test_a_websocket_carries_a_watch(member: RunningMember, client: EtcdClient) -> None:
    opened = WebSocketClient(member.endpoint, "/v3/watch")
    with closing(opened):
        assert opened.status == 101
        assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in opened.head
        opened.send({"create_request": {"key": of(b"ws")}})
        assert opened.message()["result"]["created"] is True
        for size in (1, 100, 100_000):
            client.put(b"ws", bytes(size))
            (event,) = opened.message()["result"]["events"]
            assert len(b64decode(event["kv"]["value"])) == size
        opened.send({"create_request": {"key": of(b"other"), "watch_id": "5"}})
        assert opened.message()["result"]["watch_id"] == "5"
        opened.send({"cancel_request": {"watch_id": "5"}})
        assert opened.message()["result"]["canceled"] is True


def test_a_websocket_renews_leases(member: RunningMember) -> None:
    opened = WebSocketClient(
        member.endpoint, "/v3/lease/keepalive", Sec_WebSocket_Protocol="Bearer, abc"
    )
    with closing(opened):
        assert b"\r\nSec-WebSocket-Protocol: Bearer" in opened.head
        for lease_id in (1, 2):
            opened.send({"ID": lease_id})
            assert opened.message()["result"]["ID"] == str(lease_id)
        opened.send(b"{bad")
        assert opened.message() is None


def test_what_a_websocket_is_refused_with(member: RunningMember) -> None:
    refused: list[tuple[str, dict[str, str], int]] = [
        ("/v3/watch", {"Sec_WebSocket_Version": "8"}, 400),
        ("/v3/watch", {"Sec_WebSocket_Key": "x"}, 400),
        ("/health", {}, 200),
    ]
    for path, fields, status in refused:
        opened = WebSocketClient(member.endpoint, path, **fields)
        with closing(opened):
            assert opened.status == status
    nowhere = WebSocketClient(member.endpoint, "/v3/nope")
    with closing(nowhere):
        assert nowhere.status == 101
        assert nowhere.message() == {"code": 5, "message": "Not Found"}
        assert nowhere.message() is None
