"""The sending end of a stream that a peer opened to us: a queue, its encoding, signs of life.

Knows no HTTP beyond chunks: the port has sent the response's head.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from etcdtw.raft.message import Message
from etcdtw.rafthttp.http import encode_chunk
from etcdtw.rafthttp.stream import (
    APPEND_HEARTBEAT,
    MESSAGE_HEARTBEAT,
    AppendWriter,
    MessageWriter,
)
from etcdtw.transport.peer.seams import PeerStats

QUEUE_MESSAGES_MAX: Final = 4096
"""Messages that wait for a peer that does not read; etcd's bound."""
QUEUE_SIZE_MAX: Final = 64 * 1024 * 1024
"""Octets of entries in those messages, which the log may have let go of meanwhile."""
DRAIN_SIZE: Final = 256 * 1024
"""Octets of a write, unless a single message is larger: a peer that reads as much as that has
not stopped reading."""
LINK_HEARTBEAT_S: Final = 1.6
"""A third of the silence after which a peer gives a stream up."""
WRITE_STALL_S: Final = 5.0
"""How long a peer may read nothing while we have something to write; more if a flag says so."""

STREAM_MESSAGE: Final = "message"
STREAM_APPEND: Final = "msgapp"
STREAM_KINDS: Final = (STREAM_MESSAGE, STREAM_APPEND)
"""As they stand in the path."""


class Wire(Protocol):
    """What is wanted of a transport, over TLS or not."""

    def write(self, data: bytes) -> None: ...
    def registerProducer(self, producer: IPushProducer, streaming: bool) -> object: ...
    def unregisterProducer(self) -> object: ...
    def pauseProducing(self) -> object: ...
    def resumeProducing(self) -> object: ...
    def loseConnection(self) -> object: ...
    def abortConnection(self) -> object: ...


@implementer(IPushProducer)
class StreamOutlet:
    """One attached stream.  Owned by its connection, used by the link of the peer.

    ``on_lost`` is called once, when nothing can be sent here any more.
    """

    def __init__(
        self, wire: Wire, clock: IReactorTime, kind: str, stall_s: float = WRITE_STALL_S
    ) -> None:
        """``stall_s``: how long the peer may read nothing (--raft-write-timeout)."""
        assert kind in STREAM_KINDS, kind
        self.kind = kind
        self.stats = PeerStats()
        self.on_lost: Callable[[StreamOutlet], None] = _ignore
        self._wire = wire
        self._clock = clock
        self._stall_s = stall_s
        is_append = kind == STREAM_APPEND
        self._writer = AppendWriter() if is_append else MessageWriter()
        self._heartbeat = encode_chunk(APPEND_HEARTBEAT if is_append else MESSAGE_HEARTBEAT)
        self._queue: deque[Message] = deque()
        self._queued_size = 0  # of what was pushed while the peer did not read
        self._uncounted = 0  # how many at the head were pushed before that
        self._paused_at: float | None = None
        self._is_lost = False
        wire.registerProducer(self, True)
        self._beat: IDelayedCall = clock.callLater(LINK_HEARTBEAT_S, self._send_heartbeat)

    @property
    def queued_count(self) -> int:
        return len(self._queue)

    def push(self, m: Message) -> bool:
        """Queue ``m`` for the next `flush`; returns False when there is no room for it."""
        if self._is_lost:
            return False
        if self._paused_at is not None:
            size = _size_of(m)
            if len(self._queue) >= QUEUE_MESSAGES_MAX or self._queued_size + size > QUEUE_SIZE_MAX:
                return False
            self._queued_size += size
        self._queue.append(m)
        return True

    def flush(self) -> None:
        """Write what was pushed, in one piece if it is small, until the peer reads no more."""
        if self._paused_at is None and self._queue:
            self._uncounted = len(self._queue)
            self._drain()

    def _drain(self) -> None:
        while self._queue and self._paused_at is None and not self._is_lost:
            self._write(self._take_some())

    def close(self) -> None:
        """Drop the connection and what was not written."""
        if not self._is_lost:
            self._wire.abortConnection()
            self.lost()

    def lost(self) -> None:
        """The connection is gone."""
        if self._is_lost:
            return
        self._is_lost = True
        self._beat.cancel()
        self._queue.clear()
        self.on_lost(self)

    def pauseProducing(self) -> None:
        if self._paused_at is None:
            self._paused_at = self._clock.seconds()

    def resumeProducing(self) -> None:
        self._paused_at = None
        self._drain()

    def stopProducing(self) -> None:
        """The transport is closing; `lost` follows."""

    def _take_some(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while self._queue and size < DRAIN_SIZE:
            m = self._queue.popleft()
            if self._uncounted:
                self._uncounted -= 1
            else:
                self._queued_size -= _size_of(m)
            parts.append(self._writer.encode(m))
            size += len(parts[-1])
        return b"".join(parts)

    def _write(self, octets: bytes) -> None:
        self.stats.sent_octets += len(octets)
        self._wire.write(encode_chunk(octets))

    def _send_heartbeat(self) -> None:
        self._beat = self._clock.callLater(LINK_HEARTBEAT_S, self._send_heartbeat)
        if self._paused_at is None:
            self._wire.write(self._heartbeat)
        elif self._clock.seconds() - self._paused_at >= self._stall_s:
            self.close()


def _size_of(m: Message) -> int:
    return sum([len(entry.data) for entry in m.entries])


def _ignore(outlet: StreamOutlet) -> None:
    """Nobody is interested yet."""
