"""HTTP/1.x on the client port: the core of `etcdtw.http1` on a Twisted transport, with bounds.

A body that no route reads is counted against its bound, and dropped.  One that is read counts
as an unfinished request, as those of gRPC do, until it is answered.  The next request of a
connection waits until the answers before are written: whoever sends many and reads nothing gets
no more.

Knows no routes; they are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from twisted.internet.interfaces import IPushProducer, ITCPTransport
from twisted.logger import Logger
from zope.interface import classImplements

from etcdtw.grpc.intake import HEAVY_OCTETS_MIN
from etcdtw.grpc.message import CHUNK_OVERHEAD
from etcdtw.http1.answers import (
    CONTINUE,
    LAST_CHUNK,
    NO_LENGTH,
    UNKNOWN_LENGTH,
    Fields,
    chunk,
    closing,
    refusal,
)
from etcdtw.http1.head import VERSION_1_1, Head, HttpError
from etcdtw.http1.reader import BODY, BROKEN, END, HEAD, NEED_MORE, RequestReader
from etcdtw.transport.client.deadline import Deadline
from etcdtw.transport.client.grpc_channel import ChannelTransport
from etcdtw.transport.client.http1_site import HttpSite
from etcdtw.transport.client.seams import Successor
from etcdtw.transport.rounds import MORE, NO_MORE, Rounds
from etcdtw.transport.sockets import plain_socket

BODY_SIZE_MAX: Final = 2 * 1024 * 1024
"""Octets of a body that no route reads."""
RECEIVED_SIZE_MAX: Final = 65_536
"""Octets of requests that wait for those before them; one more, and no more are read."""
BODY_TURN_SIZE: Final = 16_384
"""Octets at once from which on a body takes turns with others."""
EVENTS_MAX: Final = 256
"""Pieces of a body that are taken before the clock is looked at."""
REQUEST_HEADER_S: Final = 10.0
"""From the first octet of a request to the end of its header."""
IDLE_S: Final = 60.0
"""Without an octet between or within requests."""
LINGER_S: Final = 0.5
"""How long a client that was refused may go on sending: else it never reads why."""
TOO_LARGE: Final = 413

# What a channel is in the middle of.
_READING: Final = 0
_ANSWERING: Final = 1
_TAKEN: Final = 2
_CLOSING: Final = 3
_LOST: Final = 4

_log: Final = Logger("etcdtw.transport.client.http1")


class Http1Request:
    """One request and its answer; implements `seams.HttpRequest`."""

    def __init__(self, channel: Http1Channel, head: Head) -> None:
        self._channel: Http1Channel | None = channel
        self._head = head
        self._is_chunked = False
        self.verb = head.verb
        self.path = head.path
        self.query = head.query
        self.body = b""
        self.broken = ""
        self.connection = channel.connection
        self.on_end: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None

    @property
    def host(self) -> bytes:
        return self._head.host

    @property
    def is_secure(self) -> bool:
        channel = self._channel
        return channel is not None and channel.is_secure

    @property
    def is_full(self) -> bool:
        channel = self._channel
        return channel is not None and channel.is_clogged

    def header(self, name: bytes) -> bytes | None:
        return self._head.fields.get(name.lower())

    def respond(self, status: int, fields: Fields, body: bytes) -> None:
        channel = self._channel
        if channel is None:
            return
        length = len(body)
        if self.verb == b"HEAD":
            length = length or NO_LENGTH
            body = b""
        head = channel.head(self._head.version, status, fields, length)
        channel.write(head + body)
        self._ended(channel)

    def begin(self, status: int, fields: Fields) -> None:
        channel = self._channel
        if channel is None:
            return
        self.let_go()
        version = self._head.version
        self._is_chunked = version >= VERSION_1_1
        if not self._is_chunked:
            channel.keeps_alive = False
        channel.write(channel.head(version, status, fields, UNKNOWN_LENGTH))

    def send(self, piece: bytes) -> None:
        channel = self._channel
        if channel is not None and piece and self.verb != b"HEAD":
            channel.write(chunk(piece) if self._is_chunked else piece)

    def finish(self) -> None:
        channel = self._channel
        if channel is not None:
            if self._is_chunked and self.verb != b"HEAD":
                channel.write(LAST_CHUNK)
            self._ended(channel)

    def break_off(self) -> None:
        channel = self._channel
        if channel is not None:
            channel.keeps_alive = False
            self._ended(channel)

    def let_go(self) -> None:
        self.body = b""
        if self._channel is not None:
            self._channel.release()

    def take_over(self, successor: Successor, head: bytes) -> bool:
        channel = self._channel
        if channel is not None:
            self._forget()
            channel.take_over(successor, head)
        return True

    def lost(self) -> None:
        """The client is gone."""
        on_end = self.on_end
        self._forget()
        if on_end is not None:
            on_end()

    def _ended(self, channel: Http1Channel) -> None:
        self._forget()
        channel.answered()

    def _forget(self) -> None:
        """It is over: no circle is left for the collector."""
        self._channel = None
        self.on_end = self.on_drain = None


class Http1Channel:
    """An HTTP/1.x connection, from its first request to its end; and `seams.TakenLine` then.

    On a plain socket it writes to the socket itself and gives the transport only what the kernel
    does not take, as `GrpcChannel` does, and why.
    """

    def __init__(self, site: HttpSite, transport: ChannelTransport, rounds: Rounds) -> None:
        self.transport = transport
        self.connection = cast(ITCPTransport, transport)
        self.keeps_alive = True
        self.is_clogged = False
        self.unread_octets = 0  # of answers, while it is clogged
        self.is_secure = hasattr(transport, "getPeerCertificate")
        self._site = site
        self._rounds = rounds
        self._clock = site.clock
        self._reader = RequestReader()
        self._state = _READING
        self._socket = plain_socket(transport)
        self._request: Http1Request | None = None
        # Of the request whose body comes.
        self._is_whole = False  # and waits for its turn, or for the client to read
        self._body: list[bytes] = []
        self._body_size = 0
        self._kept_size_max = 0
        self._held = 0  # octets that count as unfinished
        self._is_in_line = False
        self._is_serving = False
        self._is_draining = False
        self._is_reading = True
        self._reads_later = False
        self._successor: Successor | None = None  # who speaks here now
        self._deadline = Deadline(site.clock, self._timed_out)
        self._is_in_head = False
        # A pull producer hears whenever all is written, a push one only when it was too much.
        transport.registerProducer(self, self._socket is None)
        self._wait(IDLE_S)

    @property
    def is_busy(self) -> bool:
        """Whether a request is under way here."""
        return self._request is not None or self._reader.is_in_body or self._successor is not None

    # What comes.

    def receive(self, data: bytes) -> None:
        """Take octets from the client, and look at them when it is its turn."""
        if self._successor is not None:
            self._successor.received(data)
            return
        if self._state >= _TAKEN:
            if self._state == _TAKEN:
                self._reader.feed(data)
            return  # who was refused may send more, which nobody reads
        reader = self._reader
        reader.feed(data)
        self._look()
        if self._state == _READING:
            self._wait_on()
            if self._is_in_head and reader.unread >= HEAVY_OCTETS_MIN:
                self._hold(reader.unread - self._held)  # a large head that is not whole
            if len(data) >= BODY_TURN_SIZE and reader.is_in_body and self._is_reading:
                self._read_in_turn()
        self._bound_received()

    def _look(self) -> None:
        """Look at what was received, unless it waits for something."""
        if self._state == _READING and not (self._is_in_line or self._is_serving):
            self._rounds.serve(self)

    def serve(self) -> int:
        """Read on to the end of a request, and answer it; see `Guest`."""
        if self._state != _READING:
            return NO_MORE
        self._is_serving = True
        try:
            rest = self._read() if not self._is_whole else END
            if rest == END:
                rest = self._answer()
        except HttpError as error:
            self._end_with(refusal(error.status, error.text))
            rest = NO_MORE
        except Exception:
            # A defect of ours: this client is dropped, others are served.
            _log.failure("a request failed unexpectedly; dropping its connection")
            self.abort()
            rest = NO_MORE
        self._is_serving = False
        return rest

    def wait(self) -> None:
        """What came stands in line; what comes meanwhile is bounded."""
        self._is_in_line = True

    def go_on(self) -> None:
        self._is_in_line = False
        if self._is_whole or self._reader.unread:
            self._look()
        self._bound_received()

    def _read(self) -> int:
        """Return `END` behind a request, or what `serve` returns."""
        reader = self._reader
        for _ in range(EVENTS_MAX):
            event = reader.next_event()
            if event == NEED_MORE:
                return NO_MORE
            if event == HEAD:
                if self._begin(reader.head):
                    return END
                if self._state != _READING:
                    return NO_MORE
            elif event == BODY:
                self._take(reader.piece)
                if self._state != _READING:
                    return NO_MORE
            elif event == BROKEN:
                self.keeps_alive = False
                assert self._request is not None, "it has begun"
                self._request.broken = reader.broken
                break
            else:
                break
        else:
            return MORE
        self._is_whole = True
        return END

    def _begin(self, head: Head) -> bool:
        """Begin a request; return whether it is answered before its body has come."""
        self.release()
        self.keeps_alive = head.keeps_alive and not self._is_draining
        self._request = Http1Request(self, head)
        if not head.length:
            return False
        self._body_size = 0
        kept = self._kept_size_max = self._site.body_size_max(head.verb, head.path)
        if head.length > (kept or BODY_SIZE_MAX):
            self._refuse(TOO_LARGE)
            return False
        if head.expects_continue:
            if not kept:
                # The body will not come: nobody asked for it.
                self.keeps_alive = False
                self._is_whole = True
                return True
            self.write(CONTINUE)
        return False

    def _take(self, piece: bytes) -> None:
        """Take a piece of the body."""
        size = len(piece)
        self._body_size += size
        kept = self._kept_size_max
        if self._body_size > (kept or BODY_SIZE_MAX):
            self._refuse(TOO_LARGE)
        elif kept:
            self._body.append(piece)
            self._hold(size + CHUNK_OVERHEAD)

    def _hold(self, octets: int) -> None:
        """Count what is kept of a request; together with all others it may be too much."""
        self._held += octets
        stats = self._site.stats
        stats.unfinished_octets += octets
        if octets > 0 and stats.unfinished_octets > stats.unfinished_max:
            self._refuse(TOO_LARGE)

    def release(self) -> None:
        """What was kept of the body counts no longer."""
        if self._held:
            self._site.stats.unfinished_octets -= self._held
            self._held = 0

    # What is answered.

    def _answer(self) -> int:
        """Let the request be answered; the client may have to read those before."""
        if self.is_clogged:
            return NO_MORE
        request = self._request
        assert request is not None, "it is whole"
        self._is_whole = False
        body = self._body
        if body:
            request.body = body[0] if len(body) == 1 else b"".join(body)
            self._body = []
        self._state = _ANSWERING
        self._deadline.lift()
        if request.path != b"*" or not self._answer_for_all(request):
            self._site.routes.serve(request)
        if self._state == _READING and self._reader.unread and not self.is_clogged:
            return MORE
        return NO_MORE

    def _answer_for_all(self, request: Http1Request) -> bool:
        """Answer a question about the whole server as Go does; False: it is another."""
        if request.verb == b"OPTIONS":
            request.respond(200, (), b"")
            return True
        self.keeps_alive = False
        return False

    def head(self, version: int, status: int, fields: Fields, length: int) -> bytes:
        """Return the head of an answer."""
        site = self._site
        return site.heads.head(
            version, status, fields, site.date(), length, closes=not self.keeps_alive
        )

    def answered(self) -> None:
        """The request is over; the next one may be looked at."""
        self._request = None
        self.release()
        if self._state != _ANSWERING:
            return
        if not self.keeps_alive:
            self._close()
            return
        self._state = _READING
        self._wait(IDLE_S)
        if self._reader.unread:
            self._wait_on()
            self._look()
        self._bound_received()

    def write(self, data: bytes) -> None:
        """Write what the client is told."""
        if self._state >= _CLOSING:
            return
        if self._socket is None or self.is_clogged:
            self.transport.write(data)
            if self.is_clogged:
                self._owe(len(data))
            return
        try:
            sent = self._socket.send(data)
        except OSError:
            sent = 0  # full, or broken: then the transport will find out and say so
        if sent < len(data):
            self.pauseProducing()
            self.transport.write(data[sent:])
            self._owe(len(data) - sent)

    def _owe(self, octets: int) -> None:
        """Count octets more (or less) that the client leaves unread; whoever owns all
        connections drops those that leave most, if it is too much."""
        self.unread_octets += octets
        stats = self._site.stats
        stats.unread_octets += octets
        if stats.unread_octets > stats.unread_max and stats.on_unread is not None:
            stats.on_unread()

    def pauseProducing(self) -> None:
        """The client does not read."""
        self.is_clogged = True
        if self._successor is not None:
            self._successor.clogged()

    def resumeProducing(self) -> None:
        """All was written."""
        if not self.is_clogged:
            return
        self.is_clogged = False
        self._owe(-self.unread_octets)
        if self._successor is not None:
            self._successor.drained()
        elif self._request is not None and self._request.on_drain is not None:
            self._request.on_drain()
        elif self._state == _READING and (self._is_whole or self._reader.unread):
            self._look()
            self._bound_received()

    def stopProducing(self) -> None:
        self.is_clogged = True

    # How it ends.

    def drain(self) -> None:
        """Close now, or behind the request that is under way."""
        self._is_draining = True
        self.keeps_alive = False
        if not self.is_busy:
            self._close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._state = _CLOSING
        self._owe(-self.unread_octets)
        self.transport.abortConnection()

    def lost(self) -> None:
        """The connection is gone."""
        self._state = _LOST
        self._owe(-self.unread_octets)
        self._deadline.stop()
        self._reader.clear()
        self._body = []
        self.release()
        successor, self._successor = self._successor, None
        if successor is not None:
            successor.lost()
        request, self._request = self._request, None
        if request is not None:
            request.lost()

    def _refuse(self, status: int) -> None:
        self._end_with(closing(status))

    def _end_with(self, answer: bytes) -> None:
        """Say why nothing more is answered, and close."""
        self._request = None
        self._body = []
        self.release()
        self.write(answer)
        self._close()

    def _close(self) -> None:
        """Close behind what was written.

        Octets that nobody reads would make the kernel forget the answer; for a while they are
        read and dropped.
        """
        if self._state >= _CLOSING:
            return
        unread = self._reader.unread or not self._reader.is_between
        self._state = _CLOSING
        self._reader.clear()
        half_close = getattr(self.transport, "loseWriteConnection", None)
        may_linger = self._socket is not None and not self.is_clogged
        if unread and may_linger and half_close is not None:
            self._go_on_reading()
            self.transport.unregisterProducer()
            half_close()
            self._wait(LINGER_S)
        else:
            self.end()
            self._wait(IDLE_S)

    def end(self) -> None:
        """Close behind what was written."""
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # Another protocol.

    def take_over(self, successor: Successor, head: bytes) -> None:
        """Give the connection away; ``head`` is the last that is said in HTTP."""
        self._request = None
        self.release()
        self._state = _TAKEN
        self._deadline.lift()
        self.write(head)
        self._clock.callLater(0, self._hand_over, successor)

    def _hand_over(self, successor: Successor) -> None:
        if self._state != _TAKEN:
            return
        rest = self._reader.take_rest()
        self._successor = successor
        self._go_on_reading()
        successor.began(self)
        if self.is_clogged:
            successor.clogged()
        if rest:
            successor.received(rest)

    def pause(self) -> None:
        """See `seams.TakenLine`."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """See `seams.TakenLine`."""
        self.transport.resumeProducing()

    # What is read of the socket.

    def _read_in_turn(self) -> None:
        self._reads_later = True
        self._stop_reading()
        self._site.body_turns.wait(self._read_on)

    def _read_on(self) -> None:
        self._reads_later = False
        if self._successor is None and self._state <= _ANSWERING:
            self._bound_received()

    def _bound_received(self) -> None:
        """Read nothing more while there is enough to do."""
        if self._state > _ANSWERING or self._reads_later:
            return
        if self._reader.unread > RECEIVED_SIZE_MAX:
            self._stop_reading()
        else:
            self._go_on_reading()

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self.transport.pauseProducing()

    def _go_on_reading(self) -> None:
        if not self._is_reading:
            self._is_reading = True
            self.transport.resumeProducing()

    # Time.

    def _wait(self, seconds: float) -> None:
        """Allow so much more time."""
        self._is_in_head = False
        self._deadline.set(seconds)

    def _wait_on(self) -> None:
        """Octets have come: a head has its time from its first one, a body from its last."""
        if self._is_whole or self._reader.is_in_body or self._reader.is_between:
            self._wait(IDLE_S)
        elif not self._is_in_head:
            self._wait(REQUEST_HEADER_S)
            self._is_in_head = True

    def _timed_out(self) -> None:
        if self._is_in_head or self._state == _CLOSING:
            self.transport.abortConnection()
        else:
            self._close()


# As a decorator it would keep mypyc from making the class native.
classImplements(Http1Channel, IPushProducer)
