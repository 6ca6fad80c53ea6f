"""A gRPC connection on a Twisted transport: octets in, one write per flush, back-pressure.

Owns no listener and no timer; the client port tells it the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer, IReactorTime
from twisted.logger import Logger
from zope.interface import classImplements

from etcdtw.grpc.server import CallServer
from etcdtw.transport.flusher import Flusher
from etcdtw.transport.rounds import MORE, MORE_AFTER_PAGES, NO_MORE, Rounds
from etcdtw.transport.sockets import plain_socket

UNREAD_OCTETS_MAX: Final = 32 * 1024 * 1024
"""Output held for a client that does not read; one octet more and it is dropped.

Data waits in its streams meanwhile: only heads, refusals and the like come to be so much."""
OUTPUT_SIZE: Final = 4 * 1024 * 1024
"""Octets of data that are framed at once (`Limits.output_octets_max`): clients of gRPC's C core
open windows as large as the message that they expect."""
PIECE_SIZE: Final = 256 * 1024
"""Octets that a transport is given at once: it copies them, and TLS keeps them encrypted too."""
SENT_SIZE: Final = 512 * 1024
"""Octets that a plain socket is offered at once: what the kernel takes costs us no memory."""
FRAMES_MAX: Final = 16
"""Frames, or small requests, that are looked at before the clock."""
CLOSE_LINGER_S: Final = 5.0
"""How long a closing connection may take to write its last octets."""

_log: Final = Logger("etcdtw.transport.client.grpc_channel")


class ChannelTransport(Protocol):
    """What a channel needs of its transport: TCP, a Unix socket or TLS over either."""

    def write(self, data: bytes) -> None: ...
    def loseConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def getPeer(self) -> IAddress: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...


class KeepAlive:
    """When to ask a silent client whether it is there (etcd: --grpc-keepalive-interval)."""

    def __init__(self, interval_ms: int = 7_200_000, timeout_ms: int = 20_000) -> None:
        self.interval_ms = interval_ms
        self.timeout_ms = timeout_ms


class GrpcChannel:
    """The gRPC side of one connection, from its preface to its end.

    ``build_server`` is called with the callable that marks this channel as having output.

    On a plain socket it writes to the socket itself and gives the transport only what the
    kernel does not take: that spares two changes of the poll set and a round of the reactor
    for each write (measured: a third of the time of a lone client's call).
    """

    def __init__(
        self,
        transport: ChannelTransport,
        clock: IReactorTime,
        flusher: Flusher,
        keepalive: KeepAlive,
        rounds: Rounds,
        build_server: Callable[[Callable[[], None]], CallServer],
        unread_octets_max: int = UNREAD_OCTETS_MAX,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._flusher = flusher
        self._keepalive = keepalive
        self._rounds = rounds
        self._is_in_line = False
        self._is_reading = True
        self._is_clogged = False  # pages are asked for, and those before them are not read
        self._received: list[
            bytes
        ] = []  # not looked at yet: two reads of the socket, or a little more
        self._unread_octets_max = unread_octets_max
        self._held: deque[bytes | memoryview] = deque()
        self._held_octets = 0
        self._late_octets = 0  # of those, what came while the transport was paused
        self._rest_octets = 0  # what the transport was given and, while paused, still has
        self._is_paused = False
        self._is_closing = False
        self._is_lost = False
        self._lingering: IDelayedCall | None = None
        self._received_ms = self._now_ms()
        self._pinged_ms = 0  # 0: no ping is out
        self.on_fault: Callable[[], None] | None = None
        """Called when the connection ends because the client broke the rules."""
        self.server = build_server(self._mark)
        self._socket = plain_socket(transport)
        self._at_once = PIECE_SIZE if self._socket is None else SENT_SIZE
        # A pull producer hears whenever all is written, a push one only when it was too much.
        transport.registerProducer(self, self._socket is None)

    @property
    def next_deadline_ms(self) -> int:
        return self.server.next_deadline_ms

    def receive(self, data: bytes) -> None:
        """Take octets from the client, and look at them when it is its turn."""
        if self._is_closing:
            return
        self._received_ms = self._now_ms()
        self._received.append(data)
        if not (self._is_in_line or self._is_clogged):
            self._rounds.serve(self)
        elif self._is_reading:
            # Most are served before they are read again, so pausing waits for a second read.
            self._is_reading = False
            self._transport.pauseProducing()

    def serve(self) -> int:
        """Look at some of what was received; see `Guest`."""
        received = self._received
        if self._is_closing or self._is_lost:
            received.clear()
            return NO_MORE
        server = self.server
        pages = server.pages
        data = received[0] if len(received) == 1 else b"".join(received)
        received.clear()
        try:
            has_more = server.receive(data, self._received_ms, FRAMES_MAX)
        except Exception:
            # A defect of ours: this client's calls are lost, the others' are not.
            _log.failure("a call failed unexpectedly; dropping its connection")
            self.abort()
            return NO_MORE
        if server.is_closed:
            self._mark()
        if server.pages == pages:
            return MORE if has_more else NO_MORE
        # Who asks for many pages is given the next one when it has read those before.
        self._is_clogged = self._is_paused
        return MORE_AFTER_PAGES if has_more and not self._is_clogged else NO_MORE

    def wait(self) -> None:
        """Octets of this client stand in line: read once more at the most."""
        self._is_in_line = True

    def go_on(self) -> None:
        """Read again, until this client has its next turn."""
        self._is_in_line = False
        if not (self._is_reading or self._is_clogged or self._is_closing or self._is_lost):
            self._is_reading = True
            self._transport.resumeProducing()

    def flush_output(self) -> None:
        """Write what there is, at once; or hold it while the client does not read."""
        if self._is_lost or self._is_closing:
            return
        server = self.server
        if self._is_paused:
            self._hold(server.take_parts())
        elif server.unread_octets > self._at_once:
            self._write_pieces(server.take_parts())
        else:
            data = server.take_output()
            if data:
                self._write(data)
        self._settle()
        if server.is_closed:
            self.close()
        elif server.holds_data_back and not self._is_paused and server.resume():
            self._mark()

    def expire(self, now_ms: int) -> None:
        """End overdue calls."""
        self.server.expire(now_ms)

    def keep_alive(self, now_ms: int) -> None:
        """Ping a silent client; drop one that does not answer."""
        if now_ms - self._received_ms < self._keepalive.interval_ms:
            self._pinged_ms = 0
        elif not self._pinged_ms:
            self._pinged_ms = now_ms
            self.server.ping(b"etcdtwka")
        elif now_ms - self._pinged_ms >= self._keepalive.timeout_ms:
            self.abort()

    def drain(self) -> None:
        """Let calls under way end; take no new ones."""
        if not self._is_closing:
            self.server.drain()

    def close(self) -> None:
        """Close after what was written; by force if the client does not read it in time."""
        if self._is_closing or self._is_lost:
            return
        self._is_closing = True
        if self.server.is_at_fault and self.on_fault is not None:
            self.on_fault()
        if self._held_octets <= PIECE_SIZE:
            if self._held:
                self._transport.write(self._next_piece(PIECE_SIZE))
            self._end_writing()
        self._lingering = self._clock.callLater(CLOSE_LINGER_S, self._abort_lingering)

    def abort(self) -> None:
        """Drop the connection at once."""
        self._is_closing = True
        self._let_go()
        self.server.discard()
        self._transport.abortConnection()

    def lost(self) -> None:
        """The connection is gone."""
        self._is_lost = True
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        self._let_go()
        self._end_calls()

    def _end_calls(self) -> None:
        """End the calls of a client that is gone; of very many some in each iteration."""
        self.server.discard()
        if self.server.connection_lost():
            self._clock.callLater(0, self._end_calls)
        else:
            self.server.discard()  # the last ones may have been answered meanwhile
            self.server.release()

    def pauseProducing(self) -> None:
        self._pause()
        # Streams must see that nothing more goes out before anything is held.
        self.server.set_backlog(max(self._held_octets, 1))

    def resumeProducing(self) -> None:
        self._is_paused = False
        self._rest_octets = 0
        self._write_held()
        if self._is_paused:
            self._settle()
            return
        if self._is_closing:
            self._end_writing()
            return
        if self.server.resume():
            self.flush_output()
        if not self._is_closing:
            self._catch_up()

    def _catch_up(self) -> None:
        """The client reads again: go on with what waited for it, unless it is behind already."""
        if self._is_paused:
            return
        self._settle()
        self.server.set_backlog(0)
        if self._is_clogged:
            self._is_clogged = False
            self.go_on()
            self._rounds.serve(self)

    def stopProducing(self) -> None:
        self._pause()

    def _pause(self) -> None:
        self._is_paused = True
        self.server.pause()

    def _write(self, data: bytes) -> None:
        if self._socket is None:
            self._rest_octets = len(data)
            self._transport.write(data)  # pauses us when it is too much
            return
        try:
            sent = self._socket.send(data)
        except OSError:
            # Full, or broken: then the transport will find out and say so.
            sent = 0
        if sent < len(data):
            self._rest_octets = len(data) - sent
            self.pauseProducing()
            self._transport.write(data[sent:])

    def _write_pieces(self, parts: list[bytes | memoryview]) -> None:
        """Write the first piece of much; the rest follows as the transport takes it."""
        self._held.extend(parts)
        self._held_octets = sum(map(len, parts))
        self._write_held()
        if self._is_paused:
            self.server.set_backlog(max(self._held_octets, 1))

    def _write_held(self) -> None:
        """Write what is held until the transport has enough.

        One that pulls gets a second piece at the most: it asks again, and meanwhile the reactor
        serves others.
        """
        if self._held:
            self._write(self._next_piece(self._at_once))
        while self._held and not self._is_paused:
            self._give(self._next_piece(PIECE_SIZE))

    def _next_piece(self, wanted: int) -> bytes:
        """Take about as many octets of what is held, less than twice as many at the most."""
        held = self._held
        parts = []
        size = 0
        while held and size < wanted:
            part = held.popleft()
            if len(part) > wanted:
                view = memoryview(part)
                part = view[:wanted]
                held.appendleft(view[wanted:])
            parts.append(part)
            size += len(part)
        self._held_octets -= size
        self._late_octets = min(self._late_octets, self._held_octets)
        return b"".join(parts)

    def _give(self, piece: bytes) -> None:
        """Let the transport write a piece; one that pulls asks for the next when it has."""
        self._rest_octets = len(piece)
        if self._socket is not None:
            self._pause()
        self._transport.write(piece)  # pauses us when it is too much

    def _hold(self, parts: list[bytes | memoryview]) -> None:
        if not parts:
            return
        octets = sum(map(len, parts))
        self._held.extend(parts)
        self._held_octets += octets
        self._late_octets += octets
        self.server.set_backlog(self._held_octets)
        if self._late_octets > self._unread_octets_max:
            _log.warn(
                "dropping {peer}: {octets} octets of answers unread",
                peer=str(self._transport.getPeer()),
                octets=self._held_octets,
            )
            self.abort()

    def _end_writing(self) -> None:
        if not self._is_lost:
            self._transport.unregisterProducer()
            self._transport.loseConnection()

    def _settle(self) -> None:
        """Count anew what this client leaves unread."""
        if not self._is_closing:
            self.server.settle(self._held_octets + self._rest_octets if self._is_paused else 0)

    def _let_go(self) -> None:
        self._held.clear()
        self._held_octets = self._late_octets = self._rest_octets = 0

    def _mark(self) -> None:
        self._flusher.mark(self)

    def _now_ms(self) -> int:
        return int(self._clock.seconds() * 1000)

    def _abort_lingering(self) -> None:
        self._lingering = None
        self._transport.abortConnection()


# As a decorator it would keep mypyc from making the class native.
classImplements(GrpcChannel, IPushProducer)
