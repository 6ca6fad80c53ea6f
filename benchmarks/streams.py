"""Loads over long-lived streams: watch fan-out and lease keep-alives.

One thread and epoll, as in `benchmarks.load`; each message that comes back is counted, and looked
at as far as it takes to know that it is the right one.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from benchmarks.load import WARM_UP_S, LoadResult, TrailersChecker, connect
from benchmarks.request_blocks import PlainBlocks
from etcdtw.wire import etcdserverpb as pb
from tests.support import wire_frames as wire
from tests.support.wire_client import WireClient

RECEIVE_OCTETS: Final = 1 << 18
WINDOW_REFILL_OCTETS: Final = 1 << 28
KEEP_ALIVE_TTL_S: Final = 600
WATCHERS: Final = 1000
WATCH_CONNECTIONS: Final = 10
WATCH_STREAMS: Final = 10  # on each connection
PUTS_AHEAD: Final = 8  # puts whose events have not all arrived
READY_TIMEOUT_S: Final = 20.0

Message = Callable[["StreamLink", int, bytes], None]


class StreamLink:
    """One connection with open streams; hands each whole message to ``on_message``."""

    def __init__(self, sock: socket.socket, path: str, authority: str, on_message: Message) -> None:
        self.socket = sock
        self._blocks = PlainBlocks(path, authority, "http")
        self._on_message = on_message
        self._checker = TrailersChecker()
        self._rest = b""
        self._partial: dict[int, bytes] = {}  # of messages longer than a frame
        self._octets = 0
        self._out: list[bytes] = []
        self._unsent = b""
        self._next_stream_id = 1

    def open(self) -> int:
        """Begin a stream and return its id."""
        stream_id = self._next_stream_id
        self._next_stream_id += 2
        block = self._blocks.first if stream_id == 1 else self._blocks.later
        self._out.append(wire.frame(wire.HEADERS, wire.END_HEADERS, stream_id, block))
        return stream_id

    def send(self, frames: bytes) -> None:
        """Put rendered frames behind what waits to be written."""
        self._out.append(frames)

    def flush(self) -> None:
        """Write what waits; the sockets are never full here for longer than a moment."""
        data = self._unsent + b"".join(self._out)
        self._out.clear()
        try:
            sent = self.socket.send(data) if data else 0
        except BlockingIOError:
            sent = 0
        self._unsent = data[sent:]

    def receive(self) -> None:
        """Read once and hand on what is whole."""
        try:
            data = self._rest + self.socket.recv(RECEIVE_OCTETS)
        except BlockingIOError:
            return
        position = 0
        end = len(data)
        unpack = wire.FRAME_HEAD.unpack_from
        while end - position >= 9:
            word, flags, stream_id = unpack(data, position)
            stop = position + 9 + (word >> 8)
            if stop > end:
                break
            if word & 0xFF == wire.DATA:
                self._take_data(stream_id, data[position + 9 : stop])
            else:
                self._control(word & 0xFF, flags, data[position + 9 : stop])
            position = stop
        self._rest = data[position:]

    def _take_data(self, stream_id: int, payload: bytes) -> None:
        self._octets += len(payload)
        if self._octets > WINDOW_REFILL_OCTETS:
            self._out.append(wire.window_update(0, self._octets))
            self._octets = 0
        if stream_id in self._partial:
            payload = self._partial.pop(stream_id) + payload
        start = 0
        while len(payload) - start >= 5:
            stop = start + 5 + int.from_bytes(payload[start + 1 : start + 5], "big")
            if stop > len(payload):
                break
            self._on_message(self, stream_id, payload[start + 5 : stop])
            start = stop
        if start < len(payload):
            self._partial[stream_id] = payload[start:]

    def _control(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == wire.HEADERS:
            complaint = self._checker.complaint(payload)
            assert not complaint and not flags & wire.END_STREAM, f"a stream ended: {complaint}"
        elif kind == wire.SETTINGS and not flags & wire.ACK:
            self._out.append(wire.frame(wire.SETTINGS, wire.ACK, 0))
        elif kind == wire.PING and not flags & wire.ACK:
            self._out.append(wire.frame(wire.PING, wire.ACK, 0, payload))
        elif kind in (wire.GOAWAY, wire.RST_STREAM):
            raise ConnectionResetError(f"frame of kind {kind}: {payload!r}")


class _Links:
    """Reads and writes the links that are ready."""

    def __init__(self, links: list[StreamLink]) -> None:
        self._poll = select.epoll()
        self._links = {link.socket.fileno(): link for link in links}
        for descriptor in self._links:
            self._poll.register(descriptor, select.EPOLLIN)

    def turn(self, wait_s: float) -> None:
        for descriptor, _ in self._poll.poll(wait_s):
            link = self._links[descriptor]
            link.receive()
            link.flush()

    def close(self) -> None:
        self._poll.close()
        for link in self._links.values():
            link.socket.close()


def _request(stream_id: int, message: bytes) -> bytes:
    return wire.data_frames(stream_id, wire.grpc_message(message), end=False)


# -- lease keep-alive --------------------------------------------------------------------------


class KeepAliveLoad:
    """Each stream renews a lease of its own, one renewal after the other."""

    def __init__(self, endpoint: str, connections: int = 100, streams: int = 10) -> None:
        self._endpoint = endpoint
        self._connections = connections
        self._streams = streams
        self._requests: dict[tuple[StreamLink, int], bytes] = {}
        self._sent_s: dict[tuple[StreamLink, int], float] = {}
        self._result = LoadResult()
        self._measuring = False

    def run(self, seconds: float, warm_up_s: float = 0.5) -> LoadResult:
        """Return renewals per second and their latencies."""
        lease_ids = iter(self._grant())
        path = "/etcdserverpb.Lease/LeaseKeepAlive"
        links = [
            StreamLink(connect(self._endpoint), path, self._endpoint, self._answered)
            for _ in range(self._connections)
        ]
        loop = _Links(links)
        for link in links:
            for _ in range(self._streams):
                stream_id = link.open()
                message = pb.LeaseKeepAliveRequest(ID=next(lease_ids)).SerializeToString()
                self._requests[link, stream_id] = _request(stream_id, message)
                self._send(link, stream_id)
            link.flush()
        result = self._result
        self._run_until(loop, time.perf_counter() + warm_up_s)
        self._measuring = True
        started, cpu = time.perf_counter(), time.process_time()
        self._run_until(loop, started + seconds)
        result.seconds = time.perf_counter() - started
        result.generator_cpu_s = time.process_time() - cpu
        loop.close()
        return result

    def _grant(self) -> list[int]:
        client = WireClient(self._endpoint)
        count = self._connections * self._streams
        request = pb.LeaseGrantRequest(TTL=KEEP_ALIVE_TTL_S).SerializeToString()
        streams = client.begin([("/etcdserverpb.Lease/LeaseGrant", request)] * count)
        client.finish(streams)
        client.close()
        return [pb.LeaseGrantResponse.FromString(stream.messages[0]).ID for stream in streams]

    def _send(self, link: StreamLink, stream_id: int) -> None:
        self._sent_s[link, stream_id] = time.perf_counter()
        link.send(self._requests[link, stream_id])

    def _answered(self, link: StreamLink, stream_id: int, message: bytes) -> None:
        if pb.LeaseKeepAliveResponse.FromString(message).TTL != KEEP_ALIVE_TTL_S:
            self._result.fail("a lease was not renewed")
        elif self._measuring:
            self._result.count += 1
            self._result.latencies_s.append(time.perf_counter() - self._sent_s[link, stream_id])
        self._send(link, stream_id)

    @staticmethod
    def _run_until(loop: _Links, deadline: float) -> None:
        while (left_s := deadline - time.perf_counter()) > 0:
            loop.turn(left_s)


# -- watch fan-out -----------------------------------------------------------------------------


class FanOut:
    """Puts of one key, `PUTS_AHEAD` of them going, and the events that `WATCHERS` get of each.

    ``turn``: receives what has come; ``events``: how many came until now.
    """

    def __init__(
        self,
        endpoint: str,
        put: pb.PutRequest,
        turn: Callable[[], None],
        events: Callable[[], int],
    ) -> None:
        self._endpoint = endpoint
        self._put = put.SerializeToString()
        self._turn = turn
        self._events = events

    def run(self, seconds: float, warm_up_s: float = WARM_UP_S) -> LoadResult:
        """Return events per second; the latencies are of a put until its last event."""
        putter = WireClient(self._endpoint)
        result = LoadResult()
        self._run_until(putter, time.perf_counter() + warm_up_s, LoadResult())
        before = self._events()
        started, cpu = time.perf_counter(), time.process_time()
        self._run_until(putter, started + seconds, result)
        result.seconds = time.perf_counter() - started
        result.generator_cpu_s = time.process_time() - cpu
        result.count = self._events() - before
        putter.close()
        return result

    def _run_until(self, putter: WireClient, deadline: float, result: LoadResult) -> None:
        """Keep puts going until ``deadline``, and then wait for their events."""
        base = self._events()
        sent_s: list[float] = []
        streams = []
        completed = 0
        while (now := time.perf_counter()) < deadline or completed < len(sent_s):
            while now < deadline and len(sent_s) - completed < PUTS_AHEAD:
                streams += putter.begin([("/etcdserverpb.KV/Put", self._put)])
                sent_s.append(now)
            self._turn()
            now = time.perf_counter()
            while completed < (self._events() - base) // WATCHERS:
                result.latencies_s.append(now - sent_s[completed])
                completed += 1
            if now > deadline + READY_TIMEOUT_S:
                result.fail("events are missing")
                break
        putter.finish(streams)
        for stream in streams:
            if stream.code != 0:
                result.fail(f"put: {stream.code} {stream.text}")


class FanOutLoad:
    """Puts of one key, each of which goes to all of `WATCHERS` watchers."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._created = 0
        self._events = 0
        self._one_event_octets = 0
        self._key = b"fan-out"

    def run(self, seconds: float, warm_up_s: float = WARM_UP_S) -> LoadResult:
        """Return events per second; the latencies are of a put until its last event."""
        links = [
            StreamLink(
                connect(self._endpoint), "/etcdserverpb.Watch/Watch", self._endpoint, self._received
            )
            for _ in range(WATCH_CONNECTIONS)
        ]
        loop = _Links(links)
        self._create(links, loop)
        put = pb.PutRequest(key=self._key, value=bytes(range(256)))
        fan_out = FanOut(self._endpoint, put, partial(loop.turn, 0.01), lambda: self._events)
        result = fan_out.run(seconds, warm_up_s)
        loop.close()
        return result

    def _create(self, links: list[StreamLink], loop: _Links) -> None:
        create = pb.WatchRequest(create_request=pb.WatchCreateRequest(key=self._key))
        message = create.SerializeToString()
        each = WATCHERS // (WATCH_CONNECTIONS * WATCH_STREAMS)
        for link in links:
            for _ in range(WATCH_STREAMS):
                stream_id = link.open()
                link.send(_request(stream_id, message) * each)
            link.flush()
        deadline = time.perf_counter() + READY_TIMEOUT_S
        while self._created < WATCHERS:
            assert time.perf_counter() < deadline, f"only {self._created} watchers were created"
            loop.turn(0.1)

    def _received(self, link: StreamLink, stream_id: int, message: bytes) -> None:
        if self._one_event_octets and len(message) < self._one_event_octets * 1.5:
            self._events += 1
            return
        response = pb.WatchResponse.FromString(message)
        assert not response.canceled, response
        self._created += response.created
        self._events += len(response.events)
        if len(response.events) == 1:
            self._one_event_octets = len(message)
