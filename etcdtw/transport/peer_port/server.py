"""The listener that peers connect to: Raft's messages, streams and snapshots, and some pages.

One `PeerPort` serves any number of listening sockets; it owns the connections and their timers.
HTTP/1.1 only, whatever TLS agreed on: that is what etcd's peer port speaks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.rafthttp.headers import mismatch_text, sender_of
from etcdtw.rafthttp.http import Head, HttpError, HttpReader, encode_response
from etcdtw.transport.peer.network import PeerNetwork
from etcdtw.transport.peer.outlet import WRITE_STALL_S, StreamOutlet, Wire
from etcdtw.transport.peer.seams import PageAnswer, PeerPages, PeerStats
from etcdtw.transport.peer.snapshot_out import Offload
from etcdtw.transport.peer_port.answers import (
    NOT_FOUND,
    PATH_MESSAGES,
    PATH_PROBING,
    PATH_SNAPSHOT,
    PATH_STREAMS,
    OtherCluster,
    PeerAnswers,
    probe,
    refuse,
    stream_of,
)
from etcdtw.transport.peer_port.places import KEPT, UNUSED, USED, PlaceBounds, Places
from etcdtw.transport.peer_port.snapshot_in import ReceptionRoom, SnapshotIntake, SnapshotSaves
from etcdtw.transport.rejections import RejectionLog, remote_text
from etcdtw.transport.rounds import Rounds
from etcdtw.transport.sockets import address_of, tune_socket

# What a connection is in the middle of.
IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
ANSWERING: Final = 3
STREAM: Final = 4
CLOSED: Final = 5


@dataclass(frozen=True, kw_only=True)
class PeerBounds:
    """What the port grants its peers.  Times in seconds, sizes in octets.

    ``head_s`` includes the TLS handshake of a new connection.  ``silence_s``: between two pieces
    of a snapshot.  ``stall_s``: how long the reader of a stream may read nothing.  ``stranger_s``:
    instead of ``head_s`` and ``idle_s`` for who is not known to be a member.
    ``bodies_size_max``: all bodies together that are being collected.
    """

    places: PlaceBounds = field(default_factory=PlaceBounds)
    head_s: float = 10.0
    idle_s: float = 60.0
    stranger_s: float = 5.0
    body_s: float = 60.0
    silence_s: float = 10.0
    stall_s: float = WRITE_STALL_S
    page_s: float = 30.0
    install_s: float = 300.0
    post_size_max: int = 64 * 1024 * 1024
    page_size_max: int = 64 * 1024
    bodies_size_max: int = 256 * 1024 * 1024
    discarded_size_max: int = 256 * 1024
    unread_size_max: int = 64 * 1024


class PortCounts:
    """What happened at the peer port; plain ints."""

    def __init__(self) -> None:
        self.accepted = 0
        self.refused = 0
        self.garbage = 0
        self.silent = 0


def _everybody(address: str) -> bool:
    return True


class PeerPort(Factory):
    """Builds and keeps the connections of the peer listeners.

    ``unix_ns`` is the wall clock: peers compare theirs with it.  ``is_member``: whether an
    address is one that a member's URL leads to.  ``proves``: whoever completes a TLS handshake
    here has shown a certificate of the members' authority.  ``room``: on the disk, for snapshots.
    """

    noisy = False

    def __init__(
        self,
        network: PeerNetwork,
        pages: PeerPages,
        *,
        clock: IReactorTime,
        offload: Offload,
        unix_ns: Callable[[], int],
        bounds: PeerBounds | None = None,
        is_member: Callable[[str], bool] = _everybody,
        proves: bool = False,
        room: ReceptionRoom | None = None,
        saves: SnapshotSaves | None = None,
        rounds: Rounds | None = None,
    ) -> None:
        self.room = room
        self.saves = saves or SnapshotSaves()
        self.network = network
        self.pages = pages
        self.answers = PeerAnswers(network)
        self.clock = clock
        self.offload = offload
        self.unix_ns = unix_ns
        self.bounds = bounds or PeerBounds()
        self.counts = PortCounts()
        self.rejections = RejectionLog("peer")
        self.proves = proves
        self.places = Places(self.bounds.places, is_member)
        self.rounds = rounds or Rounds(clock)
        self.collected_size = 0
        self._serial = 0
        self._connections: set[PeerConnection] = set()
        self._is_closed = False

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    def buildProtocol(self, addr: IAddress | None) -> PeerConnection | None:
        """Return the protocol of a new connection; None closes it at once."""
        connection = PeerConnection(self)
        if self._is_closed or not self.places.take(connection, address_of(addr)):
            self.counts.refused += 1
            return None
        self.counts.accepted += 1
        self._connections.add(connection)
        return connection

    def forget(self, connection: PeerConnection) -> None:
        """A connection is gone."""
        self._connections.discard(connection)
        self.places.leave(connection)

    def close(self) -> None:
        """Drop all connections and take no new ones."""
        self._is_closed = True
        for connection in list(self._connections):
            connection.drop()

    def next_serial(self) -> int:
        """Return a number that no other snapshot of this process has."""
        self._serial += 1
        return self._serial


@implementer(IPushProducer, IHandshakeListener)
class PeerConnection(Protocol):
    """One accepted connection: requests one after the other, or a stream to its end."""

    log = Logger()

    def __init__(self, port: PeerPort) -> None:
        self.state = HEAD
        self._port = port
        self._reader = HttpReader(is_server=True)
        self._timer: IDelayedCall | None = None
        self._is_reading = False  # somewhere up the stack
        self._is_in_line = False  # what was received waits for its turn
        self._is_clogged = False  # the peer does not read our answers
        self._is_held = False  # a snapshot is being written: nothing more may come
        # The request that is being read or answered.
        self._head = Head({}, False)
        self._refusal: PageAnswer | None = None
        self._body: list[bytes] = []
        self._body_size = 0
        self._intake: SnapshotIntake | None = None
        self._intake_began_s = 0.0
        self._sender_stats = PeerStats()  # of whoever sends a snapshot
        self._page: Deferred[None] | None = None
        self._outlet: StreamOutlet | None = None

    @property
    def wire(self) -> Wire:
        return cast(Wire, self.transport)

    @property
    def use(self) -> int:
        """What this connection does with its place."""
        if self.state == STREAM:
            return KEPT
        return UNUSED if self.state in (IDLE, HEAD) else USED

    def connectionMade(self) -> None:
        tune_socket(self.transport)
        self.wire.registerProducer(self, True)
        self._wait_for_head()

    def handshakeCompleted(self) -> None:
        if self._port.proves:
            self._port.places.prove(self)
            self._wait_for_head()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.state = CLOSED
        self._stop_waiting()
        self._forget_body()
        self._port.forget(self)
        if self._outlet is not None:
            self._outlet.lost()
        if self._intake is not None:
            self._intake.abandon()
            self._count_snapshot(False)
        if self._page is not None:
            self._page.cancel()

    def drop(self) -> None:
        """Close at once."""
        self.wire.abortConnection()

    def pauseProducing(self) -> None:
        self._is_clogged = True

    def resumeProducing(self) -> None:
        self._is_clogged = False
        self._look()

    def stopProducing(self) -> None:
        """The transport is closing; `connectionLost` follows."""

    # -- in ------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        if self.state in (STREAM, CLOSED):
            return  # whoever opened a stream has nothing more to say on it
        if self.state == IDLE:
            self.state = HEAD
            self._wait_for_head()
        self._reader.feed(data)
        self._look()
        # One read of the socket may bring more than the bound; a peer that goes on may not.
        if self._reader.unread > self._port.bounds.unread_size_max + len(data):
            self.drop()

    def _look(self) -> None:
        """Look at what was received, when it is this connection's turn."""
        if not self._is_in_line:
            self._port.rounds.serve(self)

    def serve(self) -> bool:
        """Read up to the end of a request; True: there may be another."""
        if self._is_reading:
            return False
        self._is_reading = True
        try:
            while self.state in (HEAD, BODY) and not self._is_clogged:
                event = self._reader.next_event()
                if event is None:
                    break
                if isinstance(event, Head):
                    self._begin(event)
                elif event:
                    self._take(event)
                else:
                    self._end()
                    return self.state == HEAD
        except HttpError as error:
            self._port.counts.garbage += 1
            self._reject(str(error))
            self._answer(refuse(error.status, str(error)), closes=True)
        finally:
            self._is_reading = False
        return False

    def _reject(self, why: str) -> None:
        now_s = self._port.clock.seconds()
        self._port.rejections.rejected(remote_text(self.wire), why, now_s)

    def wait(self) -> None:
        """Let nothing more come while what came stands in line."""
        self._is_in_line = True
        if not self._is_held:
            self.wire.pauseProducing()

    def go_on(self) -> None:
        self._is_in_line = False
        if self.state != CLOSED and not self._is_held:
            self.wire.resumeProducing()

    def _begin(self, head: Head) -> None:
        bounds = self._port.bounds
        self.state = BODY
        self._head = head
        self._refusal = self._port.answers.refuse_head(head)
        if isinstance(self._refusal, OtherCluster):
            self._reject(mismatch_text(self._port.network.identity, head.headers))
        is_snapshot = head.path == PATH_SNAPSHOT and self._refusal is None
        if is_snapshot:
            self._intake = self._build_intake(head)
        elif int(head.headers.get("content-length", "0")) > self._size_max(head):
            self._refusal = refuse(413, "request body too large")
        self._wait(bounds.silence_s if is_snapshot else bounds.body_s)
        if head.headers.get("expect", "").lower() == "100-continue":
            if self._refusal is None:
                self.wire.write(encode_response(100, ()))
            else:
                self._answer(self._refusal, closes=True)

    def _size_max(self, head: Head) -> int:
        bounds = self._port.bounds
        return bounds.post_size_max if head.path == PATH_MESSAGES else bounds.page_size_max

    def _build_intake(self, head: Head) -> SnapshotIntake:
        self._sender_stats = self._port.network.stats_of(sender_of(head.headers))
        self._sender_stats.snapshots_in.begin()
        self._intake_began_s = self._port.clock.seconds()
        return SnapshotIntake(
            self._port.network.receiver,
            self._port.offload,
            local_id=self._port.network.identity.member_id,
            sender_id=sender_of(head.headers),
            serial=self._port.next_serial(),
            answer=self._answer_snapshot,
            pause=self._hold,
            resume=self._release,
            room=self._port.room,
            saves=self._port.saves,
            seconds=self._port.clock.seconds,
        )

    def _count_snapshot(self, ok: bool) -> None:
        took_s = self._port.clock.seconds() - self._intake_began_s
        self._sender_stats.snapshots_in.end(ok, took_s)

    def _take(self, piece: bytes) -> None:
        """Take a piece of the body."""
        bounds = self._port.bounds
        if self._intake is not None:
            if not self._is_held:
                self._wait(bounds.silence_s)
            self._sender_stats.received_octets += len(piece)
            self._intake.feed(piece)
            return
        self._body_size += len(piece)
        if self._refusal is not None:
            # A short rest is read, so that the peer gets the answer and keeps the connection.
            if self._body_size > bounds.discarded_size_max:
                self._answer(self._refusal, closes=True)
            return
        self._port.collected_size += len(piece)
        self._body.append(piece)
        if self._body_size > self._size_max(self._head):
            self._answer(refuse(413, "request body too large"), closes=True)
        elif self._port.collected_size > bounds.bodies_size_max:
            self._answer(refuse(503, "too much is being received"), closes=True)

    def _end(self) -> None:
        """The request is complete."""
        head = self._head
        if self._refusal is not None:
            self._answer(self._refusal)
        elif self._intake is not None:
            self.state = ANSWERING
            self._wait(self._port.bounds.install_s)
            self._intake.end()
        elif head.path.startswith(PATH_STREAMS):
            self._open_stream()
        elif head.path == PATH_MESSAGES:
            answer = self._port.answers.take_message(head, b"".join(self._body))
            self._answer(answer, closes=answer.status == 500)
        elif head.path == PATH_PROBING:
            self._answer(probe(self._port.unix_ns()))
        else:
            self._ask_page()

    # -- out -----------------------------------------------------------------------------------

    def _ask_page(self) -> None:
        head = self._head
        body = b"".join(self._body)
        try:
            page = self._port.pages.page(head.method, head.path, head.headers, body)
        except Exception:
            self.log.failure("page {path} failed", path=head.path)
            page = None
            self._answer(refuse(500, "Internal Server Error"))
        else:
            if page is None:
                self._answer(NOT_FOUND)
        if page is None:
            return
        self.state = ANSWERING
        self._wait(self._port.bounds.page_s)
        waiting = page.addCallbacks(self._answer_page, self._page_failed)
        if self.state == ANSWERING:
            self._page = waiting

    def _answer_page(self, answer: PageAnswer) -> None:
        self._page = None
        self._answer(answer)
        self._look()

    def _page_failed(self, failure: Failure) -> None:
        self._page = None
        if self.state == CLOSED and failure.check(CancelledError):
            return
        self.log.failure("page {path} failed", failure, path=self._head.path)
        self._answer(refuse(500, "Internal Server Error"))
        self._look()

    def _answer_snapshot(self, status: int, text: str) -> None:
        was_reading_body = self.state == BODY
        self._intake = None
        self._count_snapshot(status == 204)
        self._answer(self._port.answers.snapshot(status, text), closes=was_reading_body)
        self._release()
        self._look()

    def _answer(self, answer: PageAnswer, *, closes: bool = False) -> None:
        """Write ``answer``; ``closes``: what follows it on the connection cannot be read."""
        if self.state == CLOSED:
            return
        self._forget_body()
        closes = closes or not self._head.keeps_alive
        headers = list(answer.headers)
        if answer.status != 204:
            headers.append(("Content-Length", str(len(answer.body))))
        if closes:
            headers.append(("Connection", "close"))
        self.wire.write(encode_response(answer.status, headers) + answer.body)
        if closes:
            self.state = CLOSED
            self.wire.unregisterProducer()
            self.wire.loseConnection()
            self._wait(self._port.bounds.silence_s)  # for the peer to read it
        elif self._reader.unread:
            self.state = HEAD
            self._wait_for_head()
        else:
            self.state = IDLE
            self._wait(self._bound(self._port.bounds.idle_s))

    def _open_stream(self) -> None:
        refusal = self._port.answers.refuse_head(self._head)
        if refusal is not None:  # who asks was removed while it asked
            self._answer(refusal)
            return
        kind, sender_id = stream_of(self._head)
        self._stop_waiting()
        self.state = STREAM
        headers = [*self._port.answers.stream_headers, ("Transfer-Encoding", "chunked")]
        self.wire.write(encode_response(200, headers))
        self.wire.unregisterProducer()
        self._outlet = StreamOutlet(self.wire, self._port.clock, kind, self._port.bounds.stall_s)
        self._port.network.attach(sender_id, self._outlet)

    # -- time and memory -----------------------------------------------------------------------

    def _hold(self) -> None:
        """Let nothing more come while the disk is busy."""
        if not self._is_held:
            self._is_held = True
            if self.state == BODY:
                self._stop_waiting()
            self.wire.pauseProducing()

    def _release(self) -> None:
        if self._is_held:
            self._is_held = False
            if self.state == BODY:
                self._wait(self._port.bounds.silence_s)
            if not self._is_in_line:
                self.wire.resumeProducing()

    def _forget_body(self) -> None:
        if self._refusal is None:
            self._port.collected_size -= self._body_size
        self._body = []
        self._body_size = 0
        self._refusal = None

    def _bound(self, seconds: float) -> float:
        """Return ``seconds``, or less for a stranger."""
        port = self._port
        return min(seconds, port.bounds.stranger_s) if port.places.is_stranger(self) else seconds

    def _wait_for_head(self) -> None:
        self._wait(self._bound(self._port.bounds.head_s))

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self._port.clock.callLater(seconds, self._too_late)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_late(self) -> None:
        self._timer = None
        self._port.counts.silent += 1
        self.drop()
