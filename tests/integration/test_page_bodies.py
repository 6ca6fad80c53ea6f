"""Pages with bodies and streams over real sockets: http.client and the h2 package as clients."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import h2.connection
import h2.events
import pytest

from tests.gateway.page_rig import BODY_SIZE_MAX, PART_SIZE
from tests.support.ports import free_port

pytestmark = pytest.mark.integration

TIMEOUT_S = 10.0
GIVEN_MAX = 16 * 1024 * 1024
"""What sockets of this machine take of an answer that nobody reads, and more."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    number = free_port()
    command = [sys.executable, "-m", "tests.gateway.page_server", f"http://127.0.0.1:{number}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield number
        process.terminate()


def ask(port: int, verb: str, target: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    with closing(connection):
        connection.request(verb, target, body)
        answer = connection.getresponse()
        return answer.status, answer.read()


class Http2Client:
    """One connection of HTTP/2 with prior knowledge."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self.core = h2.connection.H2Connection()
        self.core.initiate_connection()
        self.socket.sendall(self.core.data_to_send())

    def ask(self, verb: str, target: str, body: bytes = b"") -> int:
        stream_id: int = self.core.get_next_available_stream_id()
        head = {":method": verb, ":scheme": "http", ":path": target, ":authority": "a"}
        self.core.send_headers(stream_id, list(head.items()), end_stream=not body)
        self.socket.sendall(self.core.data_to_send())
        while body:
            room = min(self.core.local_flow_control_window(stream_id), 16_384)
            if not room:
                self._receive()
                continue
            piece, body = body[:room], body[room:]
            self.core.send_data(stream_id, piece, end_stream=not body)
            self.socket.sendall(self.core.data_to_send())
        return stream_id

    def _receive(self) -> list[object]:
        data = self.socket.recv(65_536)
        assert data, "the server closed the connection"
        found = self.core.receive_data(data)
        for event in found:
            if isinstance(event, h2.events.DataReceived):
                size = event.flow_controlled_length
                self.core.acknowledge_received_data(size, event.stream_id)
        self.socket.sendall(self.core.data_to_send())
        return list(found)

    def answer(self, stream_id: int, size: int | None = None) -> tuple[int, bytes, int]:
        """Return status, body and its number of frames; of about ``size`` octets if given."""
        status, body, frames = 0, bytearray(), 0
        while size is None or len(body) < size:
            for event in self._receive():
                if getattr(event, "stream_id", 0) != stream_id:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                    frames += 1
                elif isinstance(event, h2.events.StreamEnded):
                    return status, bytes(body), frames
        return status, bytes(body), frames


def given(port: int) -> tuple[int, int]:
    """Return the octets that the newest source gave, and how often it was cancelled."""
    octets, cancels = ask(port, "GET", "/given")[1].split()
    return int(octets), int(cancels)


def until_it_stands(port: int) -> int:
    before = -1
    deadline_s = time.monotonic() + TIMEOUT_S
    while (now := given(port)[0]) != before:
        assert time.monotonic() < deadline_s, "it goes on and on"
        before = now
        time.sleep(0.2)
    return now


def until_cancelled(port: int) -> None:
    deadline_s = time.monotonic() + TIMEOUT_S
    while given(port)[1] != 1:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.mark.parametrize("size", [0, 1, 70_000, BODY_SIZE_MAX])
def test_a_body_comes_back(port: int, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert ask(port, "POST", "/echo", body) == (200, body)
    client = Http2Client(port)
    with closing(client.socket):
        assert client.answer(client.ask("POST", "/echo", body))[:2] == (200, body)


def test_a_body_that_is_too_large_is_refused(port: int) -> None:
    body = bytes(BODY_SIZE_MAX + 1)
    assert ask(port, "POST", "/echo", body) == (413, b"")
    client = Http2Client(port)
    with closing(client.socket):
        assert client.answer(client.ask("POST", "/echo", body))[0] == 413
        assert client.answer(client.ask("POST", "/echo", b"small"))[:2] == (200, b"small")


def test_other_verbs_and_pages_are_as_before(port: int) -> None:
    assert ask(port, "GET", "/echo") == (405, b"Method Not Allowed\n")
    assert ask(port, "POST", "/stream", b"x") == (405, b"Method Not Allowed\n")
    assert ask(port, "POST", "/none", b"x") == (404, b"404 page not found\n")


def test_a_stream_is_read_while_it_goes_on_and_ends_with_its_client(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    connection.request("GET", "/flood")
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.getheader("Transfer-Encoding") == "chunked"
    assert len(answer.read(100 * PART_SIZE)) == 100 * PART_SIZE
    answer.close()
    connection.close()
    until_cancelled(port)
    client = Http2Client(port)
    with closing(client.socket):
        status, body, frames = client.answer(client.ask("GET", "/flood"), 100 * PART_SIZE)
        assert status == 200
        assert len(body) >= 100 * PART_SIZE
        assert frames > 10
        assert given(port)[1] == 0
    until_cancelled(port)


def test_who_does_not_read_is_given_no_more(port: int) -> None:
    with closing(socket.create_connection(("127.0.0.1", port))) as silent:
        silent.sendall(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.2)
        assert until_it_stands(port) < GIVEN_MAX
    until_cancelled(port)
    client = Http2Client(port)
    with closing(client.socket):
        client.ask("GET", "/flood")
        time.sleep(0.2)
        assert until_it_stands(port) <= 65_535 + 65_536 + PART_SIZE, "its window and one share"
    until_cancelled(port)
