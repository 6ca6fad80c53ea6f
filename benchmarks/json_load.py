"""Loads over the JSON gateway, HTTP/1.1: puts and ranges, and one key watched by very many.

One thread and epoll, raw sockets, requests rendered beforehand, as in `benchmarks.load`.
"""

from __future__ import annotations

import errno
import json
import re
import select
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from benchmarks.load import WARM_UP_S, LoadResult
from benchmarks.streams import READY_TIMEOUT_S, WATCHERS, FanOut
from benchmarks.workloads import KEYS, SEED, VALUE_OCTETS, key
from etcdtw.wire import etcdserverpb as pb

CONNECTIONS: Final = 64
REQUESTS: Final = 20_000
RECEIVE_OCTETS: Final = 1 << 18
EVENT: Final = b'"mod_revision"'
_LENGTH: Final = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


def _octets(text: bytes) -> str:
    return b64encode(text).decode()


def posted(path: str, body: dict[str, object]) -> bytes:
    """Return a request as a program that is written with some care sends it."""
    octets = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(octets)}\r\n\r\n"
    )
    return head.encode() + octets


def puts() -> list[bytes]:
    """Return puts of random keys."""
    random = Random(SEED)
    return [
        posted(
            "/v3/kv/put",
            {
                "key": _octets(key(random.randrange(KEYS))),
                "value": _octets(random.randbytes(VALUE_OCTETS)),
            },
        )
        for _ in range(REQUESTS)
    ]


def ranges() -> list[bytes]:
    """Return ranges of one random key, agreed on by a quorum."""
    random = Random(SEED)
    return [
        posted("/v3/kv/range", {"key": _octets(key(random.randrange(KEYS)))})
        for _ in range(REQUESTS)
    ]


def _connect(endpoint: str) -> socket.socket:
    host, _, port = endpoint.rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=READY_TIMEOUT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class _Asker:
    """One connection with one request in flight."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.sent_s = 0.0
        self._rest = b""

    def ask(self, request: bytes) -> None:
        self.sent_s = time.perf_counter()
        self.socket.sendall(request)

    def answer(self) -> bytes:
        """Return the head of the answer once it is whole; nothing before that."""
        data = self._rest + self.socket.recv(RECEIVE_OCTETS)
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
        head, end, body = data.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        is_whole = bool(end) and (
            len(body) >= int(found[1]) if found else body.endswith(b"\r\n0\r\n\r\n")
        )
        self._rest = b"" if is_whole else data
        return head if is_whole else b""


class JsonLoad:
    """Requests in turn, one in flight on each of `CONNECTIONS` connections."""

    def __init__(self, endpoint: str, requests: Sequence[bytes]) -> None:
        self._endpoint = endpoint
        self._requests = requests
        self._next = 0

    def run(self, seconds: float) -> LoadResult:
        """Return answers per second and their latencies."""
        askers = [_Asker(_connect(self._endpoint)) for _ in range(CONNECTIONS)]
        with select.epoll() as poll:
            by_descriptor = {asker.socket.fileno(): asker for asker in askers}
            for descriptor, asker in by_descriptor.items():
                poll.register(descriptor, select.EPOLLIN)
                asker.ask(self._request())
            self._run_until(poll, by_descriptor, time.perf_counter() + WARM_UP_S, LoadResult())
            result = LoadResult()
            started, cpu = time.perf_counter(), time.process_time()
            self._run_until(poll, by_descriptor, started + seconds, result)
            result.seconds = time.perf_counter() - started
            result.generator_cpu_s = time.process_time() - cpu
        for asker in askers:
            asker.socket.close()
        return result

    def _request(self) -> bytes:
        self._next = (self._next + 1) % len(self._requests)
        return self._requests[self._next]

    def _run_until(
        self, poll: select.epoll, askers: dict[int, _Asker], deadline_s: float, result: LoadResult
    ) -> None:
        while (left_s := deadline_s - time.perf_counter()) > 0:
            for descriptor, _ in poll.poll(left_s):
                asker = askers[descriptor]
                head = asker.answer()
                if not head:
                    continue
                if head.startswith(b"HTTP/1.1 200 "):
                    result.count += 1
                    result.latencies_s.append(time.perf_counter() - asker.sent_s)
                else:
                    result.fail(head.partition(b"\r\n")[0].decode())
                asker.ask(self._request())


def json_puts(endpoint: str) -> JsonLoad:
    """Puts of random keys."""
    return JsonLoad(endpoint, puts())


def json_ranges(endpoint: str) -> JsonLoad:
    """Ranges of random keys."""
    return JsonLoad(endpoint, ranges())


class JsonFanOut:
    """Puts of one key, each of which goes to all of `WATCHERS` watches over JSON."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._key = b"fan-out"
        self._events = 0
        self._tails: dict[int, bytes] = {}  # of what came: an event may be cut in two

    def run(self, seconds: float) -> LoadResult:
        """Return events per second; the latencies are of a put until its last event."""
        create = posted("/v3/watch", {"create_request": {"key": _octets(self._key)}})
        watchers = {}
        for _ in range(WATCHERS):
            sock = _connect(self._endpoint)
            sock.sendall(create)
            head = b""
            while b'"created":true' not in head:
                head += sock.recv(RECEIVE_OCTETS)
            watchers[sock.fileno()] = sock
        put = pb.PutRequest(key=self._key, value=bytes(VALUE_OCTETS))
        with select.epoll() as poll:
            for descriptor in watchers:
                poll.register(descriptor, select.EPOLLIN)
            turn = self._turn(poll, watchers)
            result = FanOut(self._endpoint, put, turn, lambda: self._events).run(seconds)
        for sock in watchers.values():
            sock.close()
        return result

    def _turn(self, poll: select.epoll, watchers: dict[int, socket.socket]) -> Callable[[], None]:
        tails = self._tails

        def turn() -> None:
            for descriptor, _ in poll.poll(0.01):
                data = tails.get(descriptor, b"") + watchers[descriptor].recv(RECEIVE_OCTETS)
                self._events += data.count(EVENT)
                tails[descriptor] = data[max(data.rfind(EVENT) + 1, len(data) - len(EVENT)) :]

        return turn
