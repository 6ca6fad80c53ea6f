"""A load generator for unary gRPC: one thread, epoll, raw sockets, requests rendered beforehand.

Keeps a fixed number of requests in flight on each connection (closed loop), or starts them at a
fixed rate (open loop, `rate_max`).  Of the answers only frame heads are looked at, and the
trailers: each call must end with grpc-status 0, decoded by the `hpack` library (blocks that
leave the table as it is are decoded once).  SETTINGS, PING and flow control are answered.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import hpack

from benchmarks.request_blocks import PlainBlocks, TimeoutBlocks, timeout_values
from tests.support import wire_frames as wire

RECEIVE_OCTETS: Final = 1 << 16
WINDOW_REFILL_OCTETS: Final = 1 << 29
CACHED_BLOCKS_MAX: Final = 256
TIMEOUT_VALUES: Final = 10_000
NO_ERROR: Final = bytes(4)
WARM_UP_S: Final = 0.5
DRAIN_S: Final = 20.0  # how long the last answers may take
ERROR_TEXTS_MAX: Final = 5
Identity = tuple[str, str]
"""The files of a client's certificate and key."""
TLS_NAME: Final = "localhost"  # what the certificates of the benchmarks are issued for


@dataclass(slots=True)
class Work:
    """What to send: one method, and the messages that connections go through in turn."""

    path: str
    messages: Sequence[bytes]  # with gRPC's prefix
    has_timeouts: bool = False
    token: str = ""  # of a user, shown with each request; not with `has_timeouts`


@dataclass(slots=True)
class LoadResult:
    """What came back."""

    seconds: float = 0.0
    count: int = 0
    octets: int = 0  # of DATA frames
    errors: int = 0
    error_texts: list[str] = field(default_factory=list)
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    finished_s: array[float] = field(default_factory=lambda: array("d"))  # only when asked for
    generator_cpu_s: float = 0.0

    @property
    def rate(self) -> float:
        """Calls per second that ended with grpc-status 0."""
        return self.count / self.seconds if self.seconds else 0.0

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latency, in milliseconds; 0 of nothing."""
        return percentile(sorted(self.latencies_s), percent) * 1000

    def fail(self, text: str) -> None:
        self.errors += 1
        if len(self.error_texts) < ERROR_TEXTS_MAX:
            self.error_texts.append(text)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the value below which ``percent`` of ``ordered`` (ascending) lie; 0 of nothing."""
    if not ordered:
        return 0.0
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


class TrailersChecker:
    """Tells whether a header block ends a call well; one for each connection."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._verdicts: dict[bytes, str] = {}

    def complaint(self, block: bytes) -> str:
        """Return an empty text when grpc-status is 0 (or the block has none), else what it is."""
        verdict = self._verdicts.get(block)
        if verdict is not None:
            return verdict
        decoded: list[Any] = list(self._decoder.decode(block))
        fields = {str(item[0]): str(item[1]) for item in decoded}
        status = fields.get("grpc-status", "0")
        verdict = "" if status == "0" else f"grpc-status {status} {fields.get('grpc-message', '')}"
        if fields.get(":status", "200") != "200":
            verdict = f"HTTP status {fields[':status']}"
        if wire.changes_table(block):  # which the cached ones may refer to
            self._verdicts.clear()
        elif len(self._verdicts) < CACHED_BLOCKS_MAX:
            self._verdicts[block] = verdict
        return verdict


def connect(
    endpoint: str, ca_file: str | None = None, identity: Identity | None = None
) -> socket.socket:
    """Open a connection, send the preface with wide windows, and make it non-blocking."""
    host, _, port = endpoint.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=20.0)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection: socket.socket = plain
    if ca_file is not None:
        context = ssl.create_default_context(cafile=ca_file)
        context.set_alpn_protocols(["h2"])
        if identity is not None:
            context.load_cert_chain(*identity)
        connection = context.wrap_socket(plain, server_hostname=TLS_NAME)
    connection.sendall(
        wire.PREFACE
        + wire.settings({wire.SETTINGS_INITIAL_WINDOW_SIZE: wire.WINDOW_MAX})
        + wire.window_update(0, wire.WINDOW_MAX - wire.WINDOW_DEFAULT)
    )
    connection.setblocking(False)
    return connection


class Rendering:
    """Renders requests for all connections of one run."""

    def __init__(self, work: Work, authority: str, scheme: str) -> None:
        self.messages = work.messages
        self.plain = PlainBlocks(work.path, authority, scheme, work.token)
        self.timeouts = TimeoutBlocks(work.path, authority, scheme) if work.has_timeouts else None
        self._values = timeout_values(TIMEOUT_VALUES)
        self._requests = 0

    def block(self, n: int) -> bytes:
        """Return the header block of the nth request (from 0) of a connection."""
        if self.timeouts is not None:
            self._requests += 1
            value = self._values[self._requests % TIMEOUT_VALUES]
            return self.timeouts.before_value(n) + value
        return self.plain.later if n else self.plain.first


class LoadConnection:
    """One connection with its requests in flight."""

    def __init__(self, sock: socket.socket, rendering: Rendering, at: int, run: LoadRun) -> None:
        self.socket = sock
        self._rendering = rendering
        self._run = run
        self._message_at = at
        self._sent = 0
        self._stream_id = 1
        self._started: dict[int, float] = {}
        self._checker = TrailersChecker()
        self._rest = b""
        self._skip = 0  # octets of a DATA frame that have not arrived yet
        self._octets = 0  # since the window was last opened
        self._window = wire.WINDOW_DEFAULT
        self._held = 0  # requests that wait for the server's window
        self._out: list[bytes] = []
        self.unsent = b""

    @property
    def in_flight(self) -> int:
        return len(self._started) + self._held

    def request(self, now: float, count: int = 1) -> None:
        """Put ``count`` requests behind what waits to be written."""
        rendering = self._rendering
        messages = rendering.messages
        out = self._out
        for _ in range(count):
            message = messages[self._message_at]
            if self._window < len(message):
                self._held += 1
                continue
            self._message_at = (self._message_at + 1) % len(messages)
            self._window -= len(message)
            block = rendering.block(self._sent)
            stream_id = self._stream_id
            out += (
                wire.FRAME_HEAD.pack(len(block) << 8 | 1, wire.END_HEADERS, stream_id),
                block,
                wire.FRAME_HEAD.pack(len(message) << 8, wire.END_STREAM, stream_id),
                message,
            )
            self._sent += 1
            self._stream_id += 2
            self._started[stream_id] = now

    def flush(self) -> bool:
        """Write what waits; False when the socket takes no more now."""
        data = self.unsent + b"".join(self._out) if self.unsent else b"".join(self._out)
        self._out.clear()
        try:
            sent = self.socket.send(data) if data else 0
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        self.unsent = data[sent:]
        return not self.unsent

    def receive(self) -> bool:
        """Read once and take it in; False when nothing was there."""
        try:
            data = self.socket.recv(RECEIVE_OCTETS)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
        now = time.perf_counter()
        ended = self._take(data, now)
        run = self._run
        if run.refills and ended:
            self.request(now, ended)
        return True

    def _take(self, data: bytes, now: float) -> int:
        """Go through the frames of ``data``; returns how many calls ended."""
        position = 0
        if self._skip:
            if self._skip >= len(data):
                self._skip -= len(data)
                return 0
            position, self._skip = self._skip, 0
        elif self._rest:
            data, self._rest = self._rest + data, b""
        end = len(data)
        ended = 0
        octets = 0
        unpack = wire.FRAME_HEAD.unpack_from
        while end - position >= 9:
            word, flags, stream_id = unpack(data, position)
            stop = position + 9 + (word >> 8)
            kind = word & 0xFF
            if kind == 0:
                octets += word >> 8
                if flags & 1:
                    ended += self._end(stream_id, now, "ended without trailers")
                if stop > end:
                    self._skip = stop - end
                    position = end
                    break
            elif stop > end:
                break
            elif kind == 1:
                complaint = self._checker.complaint(data[position + 9 : stop])
                if flags & 1:
                    ended += self._end(stream_id, now, complaint)
            else:
                ended += self._control(kind, flags, stream_id, data[position + 9 : stop], now)
            position = stop
        self._rest = data[position:]
        self._count(octets)
        return ended

    def _end(self, stream_id: int, now: float, complaint: str) -> int:
        self._run.ended(now, now - self._started.pop(stream_id), complaint)
        return 1

    def _count(self, octets: int) -> None:
        self._octets += octets
        self._run.result.octets += octets
        if self._octets > WINDOW_REFILL_OCTETS:
            self._out.append(wire.window_update(0, self._octets))
            self._octets = 0

    def _control(self, kind: int, flags: int, stream_id: int, payload: bytes, now: float) -> int:
        if kind == wire.WINDOW_UPDATE:
            if stream_id == 0:
                self._window += int.from_bytes(payload, "big")
                held, self._held = self._held, 0
                self.request(now, held)
        elif kind == wire.PING and not flags & wire.ACK:
            self._out.append(wire.frame(wire.PING, wire.ACK, 0, payload))
        elif kind == wire.SETTINGS and not flags & wire.ACK:
            table = wire.parse_settings(payload).get(wire.SETTINGS_HEADER_TABLE_SIZE, 4096)
            assert table >= 4096, "the rendered blocks need a table of 4096 octets"
            self._out.append(wire.frame(wire.SETTINGS, wire.ACK, 0))
        elif kind == wire.RST_STREAM:
            if stream_id not in self._started and payload == NO_ERROR:
                return 0  # behind the trailers: a server may say so that it reads no more
            return self._end(stream_id, now, f"stream reset: {payload.hex()}")
        elif kind == wire.GOAWAY:
            raise ConnectionResetError(errno.ECONNRESET, f"GOAWAY {payload!r}")
        return 0


class LoadRun:
    """One run of one `Work` against one endpoint."""

    def __init__(self, work: Work, *, keep_times: bool = False) -> None:
        self._work = work
        self.result = LoadResult()
        self.refills = True  # a call that ends is followed by another
        self._measuring = False
        self._keep_times = keep_times

    def ended(self, now: float, latency_s: float, complaint: str) -> None:
        """Count the end of one call."""
        result = self.result
        if complaint:
            result.fail(complaint)
        elif self._measuring:
            result.count += 1
            result.latencies_s.append(latency_s)
            if self._keep_times:
                result.finished_s.append(now)

    def _connect(
        self, endpoint: str, count: int, ca_file: str | None, identity: Identity | None = None
    ) -> list[LoadConnection]:
        rendering = Rendering(self._work, endpoint, "https" if ca_file else "http")
        size = len(self._work.messages)
        return [
            LoadConnection(connect(endpoint, ca_file, identity), rendering, i * size // count, self)
            for i in range(count)
        ]

    def closed_loop(
        self,
        endpoint: str,
        *,
        connections: int,
        streams: int,
        seconds: float,
        warm_up_s: float = WARM_UP_S,
        ca_file: str | None = None,
        identity: Identity | None = None,
    ) -> LoadResult:
        """Keep ``streams`` calls in flight on each connection for ``seconds``."""
        links = self._connect(endpoint, connections, ca_file, identity)
        with select.epoll() as poll:
            loop = _Loop(poll, links)
            now = time.perf_counter()
            for link in links:
                link.request(now, streams)
                loop.flush(link)
            loop.run_until(time.perf_counter() + warm_up_s)
            self._measuring = True
            self.result.octets = 0
            started, cpu = time.perf_counter(), time.process_time()
            loop.run_until(started + seconds)
            self._measuring = False
            self.result.seconds = time.perf_counter() - started
            self.result.generator_cpu_s = time.process_time() - cpu
            self._finish(loop, links)
        return self.result

    def exhaust(self, endpoint: str, *, connections: int, streams: int) -> LoadResult:
        """Send every message once, ``streams`` in flight on each connection."""
        left = len(self._work.messages)
        links = self._connect(endpoint, connections, None)
        self.refills = False
        self._measuring = True
        started, cpu = time.perf_counter(), time.process_time()
        with select.epoll() as poll:
            loop = _Loop(poll, links)
            share = -(-left // connections)
            budgets = [max(0, min(share, left - i * share)) for i in range(connections)]
            for i, link in enumerate(links):
                link._message_at = min(i * share, left - 1)
            while any(budgets) or any(link.in_flight for link in links):
                now = time.perf_counter()
                for i, link in enumerate(links):
                    more = min(streams - link.in_flight, budgets[i])
                    if more > 0:
                        budgets[i] -= more
                        link.request(now, more)
                        loop.flush(link)
                loop.run_once(0.05)
        self.result.seconds = time.perf_counter() - started
        self.result.generator_cpu_s = time.process_time() - cpu
        for link in links:
            link.socket.close()
        return self.result

    def open_loop(
        self, endpoint: str, *, connections: int, rate: float, seconds: float
    ) -> LoadResult:
        """Start ``rate`` calls a second, evenly, whatever the answers do; count all of them."""
        links = self._connect(endpoint, connections, None)
        self.refills = False
        self._measuring = True
        started, cpu = time.perf_counter(), time.process_time()
        sent = 0
        with select.epoll() as poll:
            loop = _Loop(poll, links)
            while (now := time.perf_counter()) < started + seconds:
                due = int((now - started) * rate)
                for i in range(sent, due):
                    link = links[i % connections]
                    # Counted from when it was due, so that a stall is not hidden.
                    link.request(started + i / rate)
                    loop.flush(link)
                sent = max(sent, due)
                loop.run_once(min(1 / rate, 0.002))
            self.result.seconds = time.perf_counter() - started
            self.result.generator_cpu_s = time.process_time() - cpu
            self._finish(loop, links)
        return self.result

    def _finish(self, loop: _Loop, links: list[LoadConnection]) -> None:
        self.refills = False
        deadline = time.perf_counter() + DRAIN_S
        while any(link.in_flight for link in links) and time.perf_counter() < deadline:
            loop.run_once(0.05)
        for link in links:
            if link.in_flight:
                self.result.fail(f"{link.in_flight} calls without an answer after {DRAIN_S} s")
            link.socket.close()


class _Loop:
    """Reads and writes the connections that are ready."""

    def __init__(self, poll: select.epoll, links: list[LoadConnection]) -> None:
        self._poll = poll
        self._links = {link.socket.fileno(): link for link in links}
        for descriptor in self._links:
            poll.register(descriptor, select.EPOLLIN)

    def run_until(self, deadline: float) -> None:
        while (left_s := deadline - time.perf_counter()) > 0:
            self.run_once(left_s)

    def run_once(self, wait_s: float) -> None:
        for descriptor, events in self._poll.poll(wait_s):
            link = self._links[descriptor]
            if events & ~select.EPOLLOUT:
                # TLS holds back decrypted octets that the descriptor does not show.
                while link.receive() and isinstance(link.socket, ssl.SSLSocket):
                    pass
            self.flush(link)

    def flush(self, link: LoadConnection) -> None:
        had_unsent = bool(link.unsent)
        is_flushed = link.flush()
        if had_unsent == is_flushed:
            wanted = select.EPOLLIN if is_flushed else select.EPOLLIN | select.EPOLLOUT
            self._poll.modify(link.socket.fileno(), wanted)
