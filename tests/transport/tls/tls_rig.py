"""Two ends of TLS in memory: a listener's factory, a dialler's endpoint, and the wire between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.transport.tls.addresses import AddressCheck
from etcdtw.transport.tls.context import DialFiles
from etcdtw.transport.tls.dial import PeerDialTls
from etcdtw.transport.tls.policy import PEER_ENDPOINT, TlsFactory, TlsFiles, TlsPolicy
from tests.support.certs import Authority

REMOTE = "127.0.0.1"


class End(StringTransport):
    """One end of the wire; what it writes waits for `Wire.carry`."""

    def __init__(self, remote: str) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", remote, 4000))
        self.is_closing = False
        self.is_reset = False
        self.is_paused = False
        self.is_gone = False
        self.protocol: Protocol

    def loseConnection(self) -> None:
        self.is_closing = True

    def abortConnection(self) -> None:
        self.is_closing = self.is_reset = True

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False


class Speaker(Protocol):
    """What stands behind TLS: remembers what it hears."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.heard = b""
        self.made = 0
        self.lost: Failure | None = None
        self._greeting = greeting

    def connectionMade(self) -> None:
        self.made += 1
        if self._greeting and self.transport is not None:
            self.transport.write(self._greeting)

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Speakers(Factory):
    """Builds speakers, and refuses everybody when ``refuses``."""

    noisy = False

    def __init__(self, greeting: bytes = b"", *, refuses: bool = False) -> None:
        self.built: list[Speaker] = []
        self._greeting = greeting
        self._refuses = refuses

    def buildProtocol(self, addr: IAddress | None) -> Speaker | None:
        if self._refuses:
            return None
        self.built.append(Speaker(self._greeting))
        return self.built[-1]


@implementer(IStreamClientEndpoint)
class Wire:
    """A TCP connection in memory to ``server``; ``None``: somebody who never answers."""

    def __init__(self, server: IProtocolFactory | None, remote: str = REMOTE) -> None:
        self._server = server
        self.near, self.far = End("10.0.0.9"), End(remote)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        far: IProtocol | None = Protocol()
        if self._server is not None:
            far = self._server.buildProtocol(self.far.getPeer())
        near = protocolFactory.buildProtocol(self.near.getPeer())
        if far is None or near is None:
            return fail(ConnectionDone())
        for end, protocol in ((self.far, far), (self.near, near)):
            end.protocol = protocol  # type: ignore[assignment]
            protocol.makeConnection(end)
        return succeed(near)

    def carry(self) -> None:
        """Carry all there is in both directions, and the ends of the connection."""
        is_moving = True
        while is_moving:
            is_moving = False
            for source, target in ((self.near, self.far), (self.far, self.near)):
                data = source.value()
                if data and not target.is_gone and not target.is_paused:
                    is_moving = True
                    source.clear()
                    target.protocol.dataReceived(data)
        for source, target in ((self.near, self.far), (self.far, self.near)):
            if source.is_closing:
                for end in (source, target):
                    if not end.is_gone:
                        end.is_gone = True
                        is_reset = source.is_reset and end is source
                        why = ConnectionAborted() if is_reset else ConnectionDone()
                        end.protocol.connectionLost(Failure(why))


class Lookup:
    """Names and addresses as a test has them; ``waits``: answers come when the test says."""

    def __init__(self, reverse: dict[str, list[str]], forward: dict[str, list[str]]) -> None:
        self._reverse = reverse
        self._forward = forward
        self.asked: list[str] = []
        self.waiting: list[Deferred[Sequence[str]]] = []
        self.waits = False

    def names_of(self, address: str) -> Deferred[Sequence[str]]:
        return self._answer(address, self._reverse)

    def addresses_of(self, name: str) -> Deferred[Sequence[str]]:
        return self._answer(name, self._forward)

    def _answer(self, asked: str, known: dict[str, list[str]]) -> Deferred[Sequence[str]]:
        self.asked.append(asked)
        if self.waits:
            self.waiting.append(Deferred())
            return self.waiting[-1]
        return succeed(known[asked]) if asked in known else fail(OSError("Unknown host"))


class Meeting:
    """What came of one attempt to connect."""

    def __init__(self, wire: Wire, server: Speaker | None, result: list[object]) -> None:
        self.wire = wire
        self.server = server
        self._result = result

    @property
    def client(self) -> Speaker:
        assert isinstance(self._result[0], Speaker), self._result
        return self._result[0]

    @property
    def fault(self) -> str:
        """Why the dialler gave up; empty when it did not."""
        first = self._result[0] if self._result else None
        return str(first.value) if isinstance(first, Failure) else ""

    @property
    def is_pending(self) -> bool:
        return not self._result

    @property
    def works(self) -> bool:
        """Whether octets go both ways."""
        if self.is_pending or self.fault or self.server is None or self.server.lost:
            return False
        before = len(self.client.heard), len(self.server.heard)
        for speaker in (self.client, self.server):
            assert speaker.transport is not None
            speaker.transport.write(b"ping")
        self.wire.carry()
        return (len(self.client.heard), len(self.server.heard)) == (before[0] + 4, before[1] + 4)


class PeerRig:
    """An authority, certificates of two members, and both sides' policies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = Clock()
        self.authority = Authority(folder)
        self.server = self.authority.issue("server", host="m1.test", address="10.0.0.9")
        self.client = self.authority.issue("client", host="m2.test", address=REMOTE)
        self.lookup = Lookup({}, {})
        self.listen_files = TlsFiles(
            cert_file=self.server.cert_file,
            key_file=self.server.key_file,
            trusted_ca_file=self.authority.ca_file,
            alpn=(),
        )
        self.dial_files = DialFiles(
            cert_file=self.client.cert_file,
            key_file=self.client.key_file,
            trusted_ca_file=self.authority.ca_file,
        )

    def listener(self, files: TlsFiles | None = None) -> TlsFactory:
        policy = TlsPolicy(
            files or self.listen_files,
            endpoint=PEER_ENDPOINT,
            addresses=AddressCheck(self.lookup, self.clock),
        )
        return TlsFactory(policy, Speakers(), self.clock)

    def dialler(self, files: DialFiles | None = None) -> PeerDialTls:
        return PeerDialTls(files or self.dial_files, self.clock)

    def meet(
        self,
        listener: TlsFactory | None = None,
        dialler: PeerDialTls | None = None,
        *,
        host: str = "m1.test",
        remote: str = REMOTE,
        greeting: bytes = b"",
    ) -> Meeting:
        """Dial, and carry everything until nothing moves."""
        listener = listener or self.listener()
        dialler = dialler or self.dialler()
        wire = Wire(listener, remote)
        result: list[object] = []
        dialled = dialler.wrap(wire, host).connect(Speakers(greeting))
        dialled.addBoth(result.append)
        wire.carry()
        assert isinstance(listener.wrappedFactory, Speakers)
        built = listener.wrappedFactory.built
        return Meeting(wire, built[-1] if built else None, result)


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """Collect what is logged meanwhile, as text; of rejections who was turned away, and why."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        text = formatEvent(event)
        if "remote-addr" in event:
            text += f" from {event['remote-addr']}: {event['error']}"
        lines.append(text)

    globalLogPublisher.addObserver(observe)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observe)
