"""The sending end of a stream, and a peer that reads slowly.  No sockets, a fake clock."""

from __future__ import annotations

from twisted.internet.interfaces import IPushProducer
from twisted.internet.task import Clock

from etcdtw.transport.peer.outlet import (
    DRAIN_SIZE,
    LINK_HEARTBEAT_S,
    QUEUE_SIZE_MAX,
    STREAM_APPEND,
    WRITE_STALL_S,
    StreamOutlet,
)
from tests.transport.peer.peer_rig import BUFFER_SIZE, ONE, TWO, append

MIB = 1024 * 1024


class SlowWire:
    """A transport as Twisted's: it asks for a pause when much waits, for more when all is gone."""

    def __init__(self) -> None:
        self.waiting = 0
        self.written = 0
        self.largest = 0
        self.is_aborted = False
        self._producer: IPushProducer | None = None

    def write(self, data: bytes) -> None:
        self.waiting += len(data)
        self.written += len(data)
        self.largest = max(self.largest, len(data))
        if self.waiting > BUFFER_SIZE and self._producer is not None:
            self._producer.pauseProducing()

    def send(self, size: int) -> None:
        """Let the peer read ``size`` octets."""
        while size and self.waiting:
            sent = min(size, self.waiting)
            size -= sent
            self.waiting -= sent
            if not self.waiting and self._producer is not None:
                self._producer.resumeProducing()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None:
        """Nothing comes in."""

    resumeProducing = loseConnection = pauseProducing

    def abortConnection(self) -> None:
        self.is_aborted = True


def test_a_peer_that_reads_slowly_keeps_its_stream() -> None:
    clock, wire = Clock(), SlowWire()
    outlet = StreamOutlet(wire, clock, STREAM_APPEND)
    count = 20
    for i in range(count):
        assert outlet.push(append(TWO, ONE, i, 1, MIB))
    outlet.flush()
    for _ in range(3 * count):
        clock.advance(0.5)
        wire.send(MIB // 2)
    assert not wire.is_aborted
    assert wire.written > count * MIB > 2 * WRITE_STALL_S * MIB
    assert outlet.queued_count == 0
    assert wire.largest < MIB + DRAIN_SIZE


def test_what_one_turn_has_pushed_leaves_room_for_the_next() -> None:
    wire = SlowWire()
    outlet = StreamOutlet(wire, Clock(), STREAM_APPEND)
    one = append(TWO, ONE, 5, 1, QUEUE_SIZE_MAX // 2)
    pushed = [outlet.push(one) for _ in range(4)]  # Raft's window bounds these
    outlet.flush()
    pushed += [outlet.push(one) for _ in range(3)]
    assert pushed == [True] * 6 + [False]
    wire.send(4 * QUEUE_SIZE_MAX)
    assert outlet.queued_count == 0
    outlet.push(one)
    outlet.flush()
    assert [outlet.push(one) for _ in range(3)] == [True, True, False]


def test_how_long_a_peer_may_read_nothing_is_given() -> None:
    for stall_s in (WRITE_STALL_S, 3 * WRITE_STALL_S):
        clock, wire = Clock(), SlowWire()
        outlet = StreamOutlet(wire, clock, STREAM_APPEND, stall_s)
        for i in range(20):
            outlet.push(append(TWO, ONE, i, 1, MIB))
        outlet.flush()
        advanced_s = 0.0
        while not wire.is_aborted and advanced_s < 60:
            clock.advance(0.1)
            advanced_s += 0.1
        assert stall_s <= advanced_s <= stall_s + LINK_HEARTBEAT_S + 0.1
