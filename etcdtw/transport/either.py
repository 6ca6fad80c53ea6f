"""An address that is spoken to with TLS and without: the first octet of a connection decides.

undecided  --first octet--> plain or TLS
           --FIRST_OCTET_S, or an UNDECIDED_MAX-th after it--> dropped
"""

from __future__ import annotations

from typing import Final, cast

from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

HANDSHAKE: Final = b"\x16"
"""What a TLS connection begins with (RFC 8446, 5.1); no HTTP request does."""
FIRST_OCTET_S: Final = 10.0
UNDECIDED_MAX: Final = 1024
"""Connections that have not sent anything yet; the one that waits longest gives way."""


class Undecided(Protocol):
    """One connection until its first octet."""

    def __init__(self, factory: EitherFactory, address: IAddress | None) -> None:
        self._factory = factory
        self._address = address
        self._timeout: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._timeout = self._factory.clock.callLater(FIRST_OCTET_S, self.drop)
        self._factory.wait(self)

    def dataReceived(self, data: bytes) -> None:
        self._decided()
        wrapped = self._factory.behind(data)
        protocol = wrapped.buildProtocol(cast(IAddress, self._address))
        if protocol is None:
            self.drop()
            return
        transport = cast("ITCPTransport", self.transport)
        transport.protocol = protocol  # type: ignore[attr-defined]  # who hears of it from now on
        protocol.makeConnection(transport)
        protocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._decided()

    def drop(self) -> None:
        """Close at once."""
        self._decided()
        cast("ITCPTransport", self.transport).abortConnection()

    def _decided(self) -> None:
        self._factory.decided(self)
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        self._timeout = None


class EitherFactory(Factory):
    """Gives each connection to the one of two factories that speaks what it speaks."""

    noisy = False

    def __init__(
        self,
        plain: IProtocolFactory,
        over_tls: IProtocolFactory,
        clock: IReactorTime,
        undecided_max: int = UNDECIDED_MAX,
    ) -> None:
        self.clock = clock
        self._plain = plain
        self._over_tls = over_tls
        self._undecided_max = undecided_max
        self._undecided: dict[Undecided, None] = {}

    @property
    def undecided_count(self) -> int:
        return len(self._undecided)

    def buildProtocol(self, addr: IAddress | None) -> IProtocol | None:  # type: ignore[override]
        return cast(IProtocol, Undecided(self, addr))

    def behind(self, data: bytes) -> IProtocolFactory:
        """Return whose connection it is that begins with ``data``."""
        return self._over_tls if data.startswith(HANDSHAKE) else self._plain

    def wait(self, connection: Undecided) -> None:
        """Keep a connection that has said nothing."""
        self._undecided[connection] = None
        if len(self._undecided) > self._undecided_max:
            next(iter(self._undecided)).drop()

    def decided(self, connection: Undecided) -> None:
        """Forget it."""
        self._undecided.pop(connection, None)
