"""Peers in memory: a clock, wires that carry octets both ways, receivers that take notes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionRefusedError
from twisted.internet.interfaces import IProtocolFactory, IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.cluster.version import Version
from etcdtw.raft.entry import Entry
from etcdtw.raft.message import MSG_APP, MSG_HEARTBEAT, Message
from etcdtw.rafthttp.headers import PeerIdentity, request_headers
from etcdtw.rafthttp.http import Head, HttpReader, encode_request
from etcdtw.transport.peer.client import Dial
from etcdtw.transport.peer.network import PeerNetwork
from etcdtw.transport.peer.seams import PageAnswer
from etcdtw.transport.peer.snapshot_out import run_here
from etcdtw.transport.peer_port.server import PeerBounds, PeerConnection, PeerPort
from etcdtw.transport.rounds import Rounds

CLUSTER = 0xC1
ONE = 0xA1
TWO = 0xB2
THREE = 0xC3
PEER = IPv4Address("TCP", "127.0.0.1", 1)
BUFFER_SIZE = 64 * 1024
UNIX_NS = 1_700_000_000_123_000_000


def url_of(member_id: int) -> str:
    return f"http://peer-{member_id:x}:2380"


def identity_of(member_id: int, cluster_id: int = CLUSTER) -> PeerIdentity:
    return PeerIdentity(
        cluster_id=cluster_id,
        member_id=member_id,
        version=Version(3, 5, 1),
        peer_urls=(url_of(member_id),),
    )


def heartbeat(to: int, from_id: int, commit: int = 0) -> Message:
    return Message(MSG_HEARTBEAT, to=to, from_id=from_id, term=2, commit=commit)


def append(to: int, from_id: int, index: int, count: int = 1, size: int = 4) -> Message:
    entries = [Entry(2, index + i, 0, b"x" * size) for i in range(1, count + 1)]
    return Message(
        MSG_APP, to=to, from_id=from_id, term=2, log_term=2, index=index, entries=entries
    )


class WireEnd:
    """One end of a connection: what the other end writes arrives at the next turn.

    ``reads`` False: the protocol here takes nothing, and its peer's buffer fills.
    """

    def __init__(self, clock: Clock, piece_size: int) -> None:
        self.clock = clock
        self.piece_size = piece_size
        self.protocol: Protocol | None = None
        self.other: WireEnd = self
        self.producer: IPushProducer | None = None
        self.incoming = bytearray()
        self.reads = True
        self.is_open = True
        self.is_closing = False
        self.writes = 0
        self._is_full = False
        self._is_scheduled = False

    def getPeer(self) -> IPv4Address:
        return PEER

    def write(self, data: bytes) -> None:
        if not self.is_open or self.is_closing:
            return
        self.writes += 1
        self.other.incoming += data
        if len(self.other.incoming) > BUFFER_SIZE and not self._is_full:
            self._is_full = True
            if self.producer is not None:
                self.producer.pauseProducing()
        self.other.schedule()

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        self.producer = producer
        if self._is_full:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reads = False

    def resumeProducing(self) -> None:
        self.reads = True
        self.schedule()

    def loseConnection(self) -> None:
        self.is_closing = True
        self.other.schedule()

    def abortConnection(self) -> None:
        if self.is_open:
            self.other.incoming.clear()
            self.clock.callLater(0, self.break_off)

    def break_off(self) -> None:
        """Both ends learn that the connection is gone."""
        for end, error in ((self, ConnectionAborted()), (self.other, ConnectionDone())):
            if end.is_open:
                end.is_open = False
                assert end.protocol is not None
                end.protocol.connectionLost(Failure(error))

    def schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self.clock.callLater(0, self.pump)

    def pump(self) -> None:
        self._is_scheduled = False
        while self.incoming and self.reads and self.is_open:
            piece = bytes(self.incoming[: self.piece_size])
            del self.incoming[: len(piece)]
            assert self.protocol is not None
            self.protocol.dataReceived(piece)
        other = self.other
        if other._is_full and len(self.incoming) < BUFFER_SIZE:
            other._is_full = False
            if other.producer is not None and other.is_open:
                other.producer.resumeProducing()
        if other.is_closing and not self.incoming and self.is_open:
            other.break_off()


def wire_up(clock: Clock, one: Protocol, two: Protocol, piece_size: int = 65536) -> WireEnd:
    """Connect two protocols; returns the end of the first."""
    ends = [WireEnd(clock, piece_size) for _ in range(2)]
    ends[0].other, ends[1].other = ends[1], ends[0]
    for end, protocol in zip(ends, (one, two), strict=True):
        end.protocol = protocol
    for end, protocol in zip(ends, (one, two), strict=True):
        protocol.makeConnection(end)
    return ends[0]


class Silent(Protocol):
    """Accepts, notes what came and never answers."""

    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


@implementer(IStreamClientEndpoint)
class MemoryEndpoint:
    """The way to whatever stands in ``wires.listeners`` at this URL."""

    def __init__(self, wires: Wires, url: str) -> None:
        self.wires = wires
        self.url = url

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        self.wires.dialled.append((self.wires.clock.seconds(), self.url))
        listener = self.wires.listeners.get(self.url)
        if listener is None:
            return fail(ConnectionRefusedError())
        if listener == "hangs":
            return Deferred()
        server = listener()
        if server is None:
            return fail(ConnectionRefusedError())
        client = cast(Protocol | None, factory.buildProtocol(PEER))
        assert client is not None
        end = wire_up(self.wires.clock, client, server, self.wires.piece_size)
        self.wires.ends.append(end)
        return succeed(client)


class Wires:
    """What is reached by which URL.  ``ends`` are the dialling ends, oldest first."""

    def __init__(self, clock: Clock, piece_size: int = 65536) -> None:
        self.clock = clock
        self.piece_size = piece_size
        self.listeners: dict[str, Any] = {}
        self.dialled: list[tuple[float, str]] = []
        self.ends: list[WireEnd] = []

    def dial(self, url: str) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = MemoryEndpoint(self, url)
        return endpoint

    def open_ends(self) -> list[WireEnd]:
        return [end for end in self.ends if end.is_open]


class NotingReceiver:
    """A `PeerReceiver` that keeps what it is told."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory
        self.messages: list[Message] = []
        self.unreachable: list[int] = []
        self.snapshots: list[tuple[int, bool]] = []
        self.removed_ids: set[int] = set()
        self.removed_count = 0
        self.installed: list[tuple[Message, str]] = []
        self.install: Callable[[], Deferred[None]] = lambda: succeed(None)

    def receive(self, m: Message) -> None:
        self.messages.append(m)

    def report_unreachable(self, member_id: int) -> None:
        self.unreachable.append(member_id)

    def report_snapshot(self, member_id: int, ok: bool) -> None:
        self.snapshots.append((member_id, ok))

    def is_removed(self, member_id: int) -> bool:
        return member_id in self.removed_ids

    def removed(self) -> None:
        self.removed_count += 1

    def snapshot_path(self, index: int) -> str:
        assert self.directory is not None
        return str(self.directory / f"{index:016x}.snap.db")

    def snapshot_received(self, m: Message, path: str) -> Deferred[None]:
        self.installed.append((m, path))
        return self.install()


class NotingPages:
    """`PeerPages` with an echo, one page that hangs and two that fail."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.cancelled = 0

    def page(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> Deferred[PageAnswer] | None:
        self.asked.append((method, path, body))
        if path == "/echo":
            return succeed(PageAnswer(200, body or b"nothing", (("X-Asked", method),)))
        if path == "/hangs":
            return Deferred(self._cancel)
        if path == "/fails":
            return fail(ZeroDivisionError("a defect"))
        if path == "/raises":
            raise ZeroDivisionError("a defect")
        return None

    def _cancel(self, page: Deferred[PageAnswer]) -> None:
        self.cancelled += 1


class Member:
    """One member of ours on a `Wires`."""

    def __init__(
        self,
        wires: Wires,
        member_id: int,
        directory: Path | None = None,
        *,
        cluster_id: int = CLUSTER,
        bounds: PeerBounds | None = None,
        offload: Any = run_here,
        dial: Dial | None = None,
        is_member: Callable[[str], bool] = lambda _: True,
        proves: bool = False,
    ) -> None:
        self.wires = wires
        self.address = PEER
        self.clock = wires.clock
        self.id = member_id
        self.receiver = NotingReceiver(directory)
        self.pages = NotingPages()
        self.unix_ns = UNIX_NS
        self.network = PeerNetwork(
            identity_of(member_id, cluster_id),
            self.receiver,
            clock=wires.clock,
            dial=dial or wires.dial,
            offload=offload,
            unix_ns=lambda: self.unix_ns,
        )
        self.port = PeerPort(
            self.network,
            self.pages,
            clock=wires.clock,
            offload=offload,
            unix_ns=lambda: self.unix_ns,
            bounds=bounds,
            is_member=is_member,
            proves=proves,
            rounds=Rounds(wires.clock, seconds=lambda: 0.0),
        )
        wires.listeners[url_of(member_id)] = self.accept

    def accept(self) -> PeerConnection | None:
        return self.port.buildProtocol(self.address)


def settle(clock: Clock, turns: int = 30) -> None:
    """Let everything happen that needs no time."""
    for _ in range(turns):
        clock.advance(0)


def pass_time(clock: Clock, seconds: float, step_s: float = 0.05) -> None:
    """Let time pass in small steps."""
    end = clock.seconds() + seconds
    while clock.seconds() < end - 1e-9:
        clock.advance(min(step_s, end - clock.seconds()))
        settle(clock, 4)


class Asker(Protocol):
    """A client that speaks octets to a port and reads responses."""

    def __init__(self) -> None:
        self.reader = HttpReader(is_server=False)
        self.heads: list[Head] = []
        self.bodies: list[bytes] = []
        self.is_closed = False

    def dataReceived(self, data: bytes) -> None:
        self.reader.feed(data)
        while (event := self.reader.next_event()) is not None:
            if isinstance(event, Head):
                self.heads.append(event)
                self.bodies.append(b"")
            else:
                self.bodies[-1] += event

    def connectionLost(self, reason: object = None) -> None:
        self.is_closed = True


class Question:
    """One connection of an `Asker` to a member's port."""

    def __init__(self, member: Member, piece_size: int = 65536) -> None:
        self.member = member
        self.asker = Asker()
        self.server = member.accept()
        assert self.server is not None
        self.end = wire_up(member.clock, self.asker, self.server, piece_size)

    def send(self, octets: bytes) -> None:
        self.end.write(octets)
        settle(self.member.clock)

    def ask(
        self, method: str, path: str, body: bytes = b"", **changes: str | None
    ) -> tuple[int, bytes, dict[str, str]]:
        """Send a request as member `TWO` would, with some headers changed or left out."""
        headers = dict(request_headers(identity_of(TWO), self.member.id))
        for name, value in changes.items():
            header = {
                "server_from": "X-Server-From",
                "version": "X-Server-Version",
                "min_version": "X-Min-Cluster-Version",
                "cluster": "X-Etcd-Cluster-ID",
                "urls": "X-PeerURLs",
                "to": "X-Raft-To",
            }[name]
            if value is None:
                del headers[header]
            else:
                headers[header] = value
        if body:
            headers["Content-Length"] = str(len(body))
        self.send(encode_request(method, path, "peer", headers.items()) + body)
        if not self.asker.heads:
            return 0, b"", {}
        return self.asker.heads[-1].status, self.asker.bodies[-1], self.asker.heads[-1].headers


class Pair:
    """Members `ONE` and `TWO`, each other's peers."""

    def __init__(self, directory: Path, piece_size: int = 65536) -> None:
        self.clock = Clock()
        self.wires = Wires(self.clock, piece_size)
        self.one = Member(self.wires, ONE, directory)
        self.two = Member(self.wires, TWO, directory)
        self.one.network.set_peer(TWO, [url_of(TWO)])
        self.two.network.set_peer(ONE, [url_of(ONE)])
        pass_time(self.clock, 0.3)

    def serving_ends(self, member: Member) -> list[Any]:
        """Return the open serving ends of ``member``'s port."""
        found = []
        for end in self.wires.open_ends():
            if getattr(end.other.protocol, "_port", None) is member.port:
                found.append(end.other)
        return found
