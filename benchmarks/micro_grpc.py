"""Microseconds of one unary call through http2, grpc and the client port, without sockets.

    python -m benchmarks.micro_grpc            in memory, one connection, batches of calls
    python -m benchmarks.micro_grpc --deadline each request with its own grpc-timeout

Prints the cost of http2 alone, then of what grpc and transport add.  For figures over
sockets: ``python -m tests.transport.echo_server URL`` under h2load.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from etcdtw.grpc.call import Call, MethodTable
from etcdtw.grpc.intake import HEAD_BLOCK
from etcdtw.grpc.message import frame_message
from etcdtw.grpc.server_call import OK_BLOCK
from etcdtw.grpc.stats import ServerStats
from etcdtw.http2 import events
from etcdtw.http2.connection import Connection
from etcdtw.transport.client.port import ClientPort
from etcdtw.transport.flusher import Flusher

ROUNDS = 7
BATCHES = 200
BATCH = 50
MESSAGE = b"k" * 64


def request_batches(count: int, size: int, *, has_deadline: bool) -> list[bytes]:
    """Return what a client sends: the preface, then ``count`` batches of ``size`` calls."""
    client = Connection(client=True)
    client.begin()
    server = Connection()
    server.begin()
    preface = client.take_output()
    server.receive(preface, 0)
    client.receive(server.take_output(), 0)
    batches = [preface + client.take_output()]
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", b"/test.Echo/Unary"),
        (b":authority", b"127.0.0.1:2379"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"user-agent", b"grpc-go/1.71.0"),
    ]
    number = 0
    for _ in range(count):
        for _ in range(size):
            number += 1
            stream_id = client.open_stream()
            more = [(b"grpc-timeout", b"%du" % (4_000_000 + number))] if has_deadline else []
            client.send_headers(stream_id, tuple(fields + more))
            client.send_data(stream_id, frame_message(MESSAGE), True)
            client.reset(stream_id, 8)
        batches.append(client.take_output())
    return [_without_resets(batch) for batch in batches]


def _without_resets(batch: bytes) -> bytes:
    """Drop the RST_STREAM frames that only kept the client's stream count low."""
    if batch.startswith(b"PRI "):
        return batch
    kept = []
    start = 0
    while start < len(batch):
        end = start + 9 + int.from_bytes(batch[start : start + 3], "big")
        if batch[start + 3] != 3:
            kept.append(batch[start:end])
        start = end
    return b"".join(kept)


def run_http2(batches: list[bytes]) -> Callable[[], int]:
    """Return the work of http2 alone: each request answered with its own octets."""
    connection = Connection()
    connection.begin()
    connection.receive(batches[0], 0)

    def work() -> int:
        answered = 0
        for batch in batches[1:]:
            for event in connection.receive(batch, 0):
                if event[0] == events.REQUEST:
                    connection.reply(event[1], HEAD_BLOCK, event[3], OK_BLOCK)
                    answered += 1
            connection.take_output()
        return answered

    return work


def run_port(batches: list[bytes], *, is_late: bool) -> Callable[[], int]:
    """Return the work of the whole port: handlers answer at once, or all at the turn's end."""
    clock = Clock()
    flusher = Flusher(clock)
    stats = ServerStats()
    waiting: list[tuple[Call, bytes]] = []
    methods = MethodTable()

    def later(call: Call, message: bytes) -> None:
        waiting.append((call, message))

    methods.add_unary("/test.Echo/Unary", later if is_late else lambda call, message: message)
    port = ClientPort(clock, methods, stats, flusher)
    protocol = port.buildProtocol(None)
    assert protocol is not None
    transport = StringTransport()
    protocol.makeConnection(transport)
    protocol.dataReceived(batches[0])

    def work() -> int:
        for batch in batches[1:]:
            flusher.hold()
            protocol.dataReceived(batch)
            clock.advance(0)  # octets that wait for their turn
            for call, message in waiting:
                call.reply(message)
            waiting.clear()
            flusher.flush()
            transport.clear()
        return stats.methods()[0].handled[0]

    return work


def measure(build: Callable[[], Callable[[], int]], calls: int) -> float:
    """Return the median microseconds of one call."""
    found = []
    for _ in range(ROUNDS):
        work = build()
        begun = time.perf_counter()
        assert work() == calls
        found.append((time.perf_counter() - begun) / calls * 1e6)
    return statistics.median(found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--deadline", action="store_true", help="a new grpc-timeout in each call")
    parser.add_argument("--batch", type=int, default=BATCH, help="calls in one read")
    arguments = parser.parse_args()
    count = max(1, BATCHES * BATCH // arguments.batch)
    batches = request_batches(count, arguments.batch, has_deadline=arguments.deadline)
    calls = count * arguments.batch
    http2 = measure(lambda: run_http2(batches), calls)
    at_once = measure(lambda: run_port(batches, is_late=False), calls)
    later = measure(lambda: run_port(batches, is_late=True), calls)
    print(f"{calls} calls, {arguments.batch} in one read, deadline: {arguments.deadline}")
    print(f"http2 alone                    {http2:6.2f} us")
    print(f"with grpc, answered at once    {at_once:6.2f} us  (+{at_once - http2:.2f})")
    print(f"with grpc, answered in a turn  {later:6.2f} us  (+{later - http2:.2f})")


if __name__ == "__main__":
    main()
