"""The listener that clients connect to: gRPC and HTTP/1.x on one socket, plain or over TLS.

One `ClientPort` serves any number of listening sockets; it owns the connections and their
timers.  Knows no
services: methods and routes are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.grpc.call import MethodTable
from etcdtw.grpc.caller import Caller
from etcdtw.grpc.message import MESSAGE_SIZE_MAX
from etcdtw.grpc.plain import PlainRequest, reads_no_body
from etcdtw.grpc.server import CallServer
from etcdtw.grpc.stats import ServerStats
from etcdtw.http2.connection import Connection
from etcdtw.http2.limits import Limits, for_offender
from etcdtw.http2.sniffing import HTTP1, HTTP2, SPEAKS_TLS, TLS, UNDECIDED, sniff
from etcdtw.transport.client.grpc_channel import (
    OUTPUT_SIZE,
    UNREAD_OCTETS_MAX,
    ChannelTransport,
    GrpcChannel,
    KeepAlive,
)
from etcdtw.transport.client.http1 import Http1Channel
from etcdtw.transport.client.http1_site import HttpSite
from etcdtw.transport.client.http2_routes import Http2Request
from etcdtw.transport.client.offenders import Offenders
from etcdtw.transport.client.places import ClientPlaces
from etcdtw.transport.flusher import Flusher
from etcdtw.transport.rejections import RejectionLog, remote_text
from etcdtw.transport.rounds import Rounds
from etcdtw.transport.sockets import address_of, end_of, tune_socket
from etcdtw.transport.tls.verification import common_name_of
from etcdtw.wire.pieces import OCTETS, UNMEASURED, Pieces

SWEEP_S: Final = 0.05
"""Deadlines of calls are looked at this often."""
EXPIRING_MAX: Final = 4
"""Connections whose overdue calls are ended at once; each ends `ENDED_MAX` at the most."""
KEEP_ALIVE_SWEEPS: Final = 20
"""Silent connections are looked for once in so many sweeps."""
DRAIN_POLL_S: Final = 0.05


@dataclass(frozen=True, kw_only=True)
class PortBounds:
    """What one client port grants its clients.  Times in seconds, sizes in octets."""

    first_octets_s: float = 10.0
    unread_octets_max: int = UNREAD_OCTETS_MAX
    message_size_max: int = MESSAGE_SIZE_MAX


class UnreadTotal:
    """The clients of all ports of a member, and what they leave unread together.

    Bounds `ServerStats.unread_octets`: before more is kept, those who hold most are dropped.
    """

    log = Logger()

    def __init__(self, stats: ServerStats) -> None:
        self._stats = stats
        self._ports: list[ClientPort] = []
        stats.on_unread = self._bound

    def add(self, port: ClientPort) -> None:
        """Count the clients of ``port``, too; a member's ports stay."""
        self._ports.append(port)

    def _bound(self) -> None:
        """Drop the clients that leave most unread until the others are within the bound."""
        stats = self._stats
        holders = [
            (octets, port, abort) for port in self._ports for octets, abort in port.holders()
        ]
        holders.sort(key=lambda holder: holder[0], reverse=True)
        before = stats.unread_octets
        count = 0
        for octets, port, abort in holders:
            if stats.unread_octets <= stats.unread_max or not octets:
                break
            count += 1
            port.stats.unread += 1
            abort()
        if count:
            self.log.warn(
                "dropped {count} clients that left most unread ({octets} octets): all together "
                "hold more than is granted",
                count=count,
                octets=before - stats.unread_octets,
            )


class PortStats:
    """What happened at one port; plain ints."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.handshakes_failed = 0
        self.garbage = 0
        self.silent = 0
        self.unread = 0


def _ignore(data: bytes) -> None:
    """The connection is closing."""


@implementer(IHandshakeListener)
class ClientConnection(Protocol):
    """One accepted connection: waits for its first octets, then is what they say."""

    def __init__(self, port: ClientPort, is_tls: bool) -> None:
        self._port = port
        self._is_shaken = not is_tls
        self._first = b""
        self.address = ""
        self._timeout: IDelayedCall | None = None
        self.http: Http1Channel | None = None
        self._receive: Callable[[bytes], None] = self._sniff
        self.channel: GrpcChannel | None = None

    @property
    def tcp(self) -> ITCPTransport:
        """The transport; over TLS the wrapper, which offers the same."""
        return cast(ITCPTransport, self.transport)

    def connectionMade(self) -> None:
        tune_socket(self.transport)
        delay_s = self._port.delay_s(self.address)
        if delay_s:
            cast(IPushProducer, self.transport).pauseProducing()
            self._timeout = self._port.clock.callLater(delay_s, self._let_in)
        else:
            self._begin()

    def _let_in(self) -> None:
        self._timeout = None
        cast(IPushProducer, self.transport).resumeProducing()
        self._begin()

    def _begin(self) -> None:
        if self._is_shaken:  # over TLS the time of the handshake is `tls.admission`'s to limit
            self._wait(self._port.bounds.first_octets_s)

    def handshakeCompleted(self) -> None:
        self._is_shaken = True
        self._wait(self._port.bounds.first_octets_s)

    def dataReceived(self, data: bytes) -> None:
        pieces = self._port.pieces
        piece = pieces.begin()
        try:
            self._receive(data)
        finally:
            pieces.end(piece, OCTETS)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_waiting()
        self._receive = _ignore
        if not self._is_shaken:
            self._port.stats.handshakes_failed += 1
            self._port.offended(self.address)
        if self.channel is not None:
            self.channel.lost()
        if self.http is not None:
            self.http.lost()
            self.http = None
        self._port.forget(self)

    def drop(self) -> None:
        """Close at once."""
        self.tcp.abortConnection()

    def drain(self) -> None:
        """Take nothing new; close when what is under way has ended."""
        if self.channel is not None:
            self.channel.drain()
        elif self.http is not None:
            self.http.drain()
        else:
            self.tcp.loseConnection()

    @property
    def is_busy(self) -> bool:
        """Whether something is under way here."""
        if self.channel is not None:
            return not self.channel.server.is_closed
        return self.http is not None and self.http.is_busy

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timeout = self._port.clock.callLater(seconds, self._too_late)

    def _stop_waiting(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None

    def _too_late(self) -> None:
        self._timeout = None
        self._port.stats.silent += 1
        self.tcp.abortConnection()

    def _sniff(self, data: bytes) -> None:
        self._first += data
        kind = sniff(self._first)
        if kind == UNDECIDED:
            return
        self._stop_waiting()
        data, self._first = self._first, b""
        if kind == HTTP2:
            self._port.places.spoke(self)
            self.channel = self._port.build_channel(self)
            self._receive = self.channel.receive
        elif kind == HTTP1 and self._port.site is not None:
            self._port.places.spoke(self)
            self.http = self._port.build_http(self)
            self._receive = self.http.receive
        else:
            # TLS on a plain port, no protocol at all, or HTTP/1.x where there is none.
            self._port.stats.garbage += 1
            self._port.offended(self.address)
            if kind == TLS:
                self._port.reject(self, SPEAKS_TLS)
            self._receive = _ignore
            self.tcp.loseConnection()
            self._wait(self._port.bounds.first_octets_s)
            return
        self._receive(data)


class ClientPort(Factory):
    """Builds and keeps the connections of client listeners: all over TLS, or none.

    ``site`` None: no HTTP routes here (etcd: --listen-client-http-urls).  ``methods`` are
    shared by all ports, as are ``stats``, ``flusher``, ``unread``, ``places``
    and ``rounds``.
    """

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        methods: MethodTable,
        stats: ServerStats,
        flusher: Flusher,
        *,
        site: HttpSite | None = None,
        limits: Limits | None = None,
        bounds: PortBounds | None = None,
        keepalive: KeepAlive | None = None,
        unread: UnreadTotal | None = None,
        places: ClientPlaces | None = None,
        pieces: Pieces = UNMEASURED,
        rounds: Rounds | None = None,
        offenders: Offenders | None = None,
        is_tls: bool = False,
    ) -> None:
        self.clock = clock
        self.site = site
        self.bounds = bounds or PortBounds()
        self.stats = PortStats()
        self._methods = methods
        self._call_stats = stats
        self._flusher = flusher
        self._limits = replace(limits or Limits(), output_octets_max=OUTPUT_SIZE)
        self._offender_limits = for_offender(self._limits)
        self._offenders = offenders or Offenders()
        self._keepalive = keepalive or KeepAlive()
        (unread or UnreadTotal(stats)).add(self)
        self.places = places or ClientPlaces()
        self.pieces = pieces
        self.rounds = rounds or Rounds(clock)
        self._is_tls = is_tls
        self._rejections = RejectionLog("client")
        self._connections: set[ClientConnection] = set()
        self._sweep: IDelayedCall | None = None
        self._sweep_count = 0
        self._drained: Deferred[None] | None = None
        self._drain_ends = 0.0

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def reject(self, connection: ClientConnection, why: str) -> None:
        """Log that somebody was turned away."""
        self._rejections.rejected(remote_text(connection.tcp), why, self.clock.seconds())

    def buildProtocol(self, addr: IAddress | None) -> ClientConnection | None:
        """Return the protocol of a new connection; None closes it at once."""
        connection = ClientConnection(self, self._is_tls)
        if self._drained is not None or not self.places.take(connection):
            self.stats.refused += 1
            return None
        self.stats.accepted += 1
        connection.address = address_of(addr)
        self._connections.add(connection)
        if self._sweep is None:
            self._sweep = self.clock.callLater(SWEEP_S, self._swept)
        return connection

    def offended(self, address: str) -> None:
        """A connection from ``address`` was cut off for what came from it."""
        self._offenders.note(address, self.clock.seconds())

    def delay_s(self, address: str) -> float:
        """Return how long a new connection from ``address`` must wait."""
        now_s = self.clock.seconds()
        if not self._offenders.is_offender(address, now_s):
            return 0.0
        return self._offenders.admit(address, now_s)

    def channels(self) -> list[GrpcChannel]:
        """Return those that speak gRPC."""
        return [found.channel for found in self._connections if found.channel is not None]

    def holders(self) -> Iterator[tuple[int, Callable[[], None]]]:
        """Yield what each client leaves unread, and what drops it."""
        for connection in self._connections:
            if connection.channel is not None:
                yield connection.channel.server.unread_octets, connection.channel.abort
            elif connection.http is not None:
                yield connection.http.unread_octets, connection.http.abort

    def forget(self, connection: ClientConnection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self.places.leave(connection)
        if not self._connections:
            if self._sweep is not None:
                self._sweep.cancel()
                self._sweep = None
            self._finish_drain()

    def build_channel(self, connection: ClientConnection) -> GrpcChannel:
        """Return the gRPC side of ``connection``, its preface begun."""

        def build_server(mark: Callable[[], None]) -> CallServer:
            is_offender = self._offenders.is_offender(connection.address, self.clock.seconds())
            http2 = Connection(limits=self._offender_limits if is_offender else self._limits)
            http2.begin()
            name = common_name_of(connection.tcp)
            remote, local = connection.tcp.getPeer(), connection.tcp.getHost()
            return CallServer(
                http2,
                self._methods,
                self._call_stats,
                on_output=mark,
                on_plain=on_plain if self.site is not None else None,
                message_size_max=self.bounds.message_size_max,
                body_size_max=reads_no_body if self.site is None else self.site.body_size_max,
                caller=Caller(
                    connection.address,
                    name or "",
                    is_certified=name is not None,
                    remote=end_of(remote),
                    local=end_of(local),
                ),
            )

        def on_plain(request: PlainRequest) -> None:
            assert self.site is not None
            self.site.routes.serve(Http2Request(request, connection.tcp, self.site.date))

        channel = GrpcChannel(
            cast(ChannelTransport, connection.transport),
            self.clock,
            self._flusher,
            self._keepalive,
            self.rounds,
            build_server,
            self.bounds.unread_octets_max,
        )
        channel.on_fault = partial(self.offended, connection.address)
        return channel

    def build_http(self, connection: ClientConnection) -> Http1Channel:
        """Return the HTTP/1.x side of ``connection``."""
        assert self.site is not None
        return Http1Channel(self.site, cast(ChannelTransport, connection.transport), self.rounds)

    def drop_calls(self) -> None:
        """Drop every connection that speaks gRPC, with all its calls."""
        for channel in self.channels():
            channel.abort()

    def drain(self, seconds: float) -> Deferred[None]:
        """Refuse new connections, let calls end, close.

        Fires when all connections are gone: after ``seconds`` they are dropped.
        """
        assert self._drained is None, "drained twice"
        self._drained = Deferred()
        drained = self._drained
        self._drain_ends = self.clock.seconds() + seconds
        for connection in list(self._connections):
            connection.drain()
        self._poll_drain()
        return drained

    def _poll_drain(self) -> None:
        if not self._connections:
            self._finish_drain()
            return
        is_over = self.clock.seconds() >= self._drain_ends
        for connection in list(self._connections):
            if is_over:
                connection.tcp.abortConnection()
            elif connection.channel is None and not connection.is_busy:
                connection.drain()
        if not is_over:
            self.clock.callLater(DRAIN_POLL_S, self._poll_drain)

    def _finish_drain(self) -> None:
        drained = self._drained
        if drained is not None and not drained.called:
            drained.callback(None)

    def _swept(self) -> None:
        """End overdue calls; now and then look for silent clients."""
        self._sweep = self.clock.callLater(SWEEP_S, self._swept)
        now_ms = int(self.clock.seconds() * 1000)
        self._sweep_count += 1
        channels = self.channels()
        overdue = [channel for channel in channels if channel.next_deadline_ms <= now_ms]
        for channel in overdue[:EXPIRING_MAX]:
            channel.expire(now_ms)
        if any(channel.next_deadline_ms <= now_ms for channel in overdue):
            self._sweep.reset(0)  # the others follow when somebody else was served
        if self._sweep_count % KEEP_ALIVE_SWEEPS == 0:
            for channel in channels:
                channel.keep_alive(now_ms)
