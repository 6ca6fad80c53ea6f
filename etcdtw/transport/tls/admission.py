"""The gate between TLS and a port's protocol: nobody speaks before the handshake is done.

    shaking --handshake--> checking --address fits--> open
       |                      |
       +--- too late, refused, lost ---> closed

``checking`` is there only where certificates are compared with addresses; what a client sends
meanwhile waits here.
"""

from __future__ import annotations

from typing import Final, cast

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IProtocol,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.transport.rejections import RejectionLog, remote_text
from etcdtw.transport.tls.addresses import AddressCheck
from etcdtw.transport.tls.verification import JudgedConnection, failure_text

HANDSHAKE_S: Final = 10.0
"""From the accepted connection to its admission."""
UNCHECKED_OCTETS_MAX: Final = 128 * 1024
"""What a client may send before its address is checked."""


@implementer(IHandshakeListener)
class Admission(Protocol):
    """The gate of one connection.  Once open it takes itself out of the way."""

    def __init__(
        self,
        inner: IProtocol,
        clock: IReactorTime,
        rejections: RejectionLog,
        addresses: AddressCheck | None,
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._rejections = rejections
        self._addresses = addresses
        self._timeout: IDelayedCall | None = None
        self._checking: Deferred[str] | None = None
        self._early: list[bytes] = []
        self._early_size = 0
        self._why = ""

    @property
    def tls(self) -> TLSMemoryBIOProtocol:
        """The TLS layer, which is this protocol's transport and will be the inner one's."""
        return cast(TLSMemoryBIOProtocol, self.transport)

    def connectionMade(self) -> None:
        self._timeout = self._clock.callLater(HANDSHAKE_S, self._too_late)
        self._inner.makeConnection(self.tls)

    def handshakeCompleted(self) -> None:
        connection = self.tls.getHandle()
        assert isinstance(connection, JudgedConnection)
        connection.remember_chain()
        if connection.is_revoked:  # the lists have changed since the handshake began
            self._refuse("its certificate is revoked by now")
            return
        certificate = None
        if self._addresses is not None:
            certificate = connection.get_peer_certificate(as_cryptography=True)
        host = getattr(self.tls.getPeer(), "host", None)  # a Unix socket has none
        if self._addresses is None or certificate is None or host is None:
            self._open()
            return
        self._checking = self._addresses.check(certificate, host)
        self._checking.addCallbacks(self._checked, self._check_failed)

    def dataReceived(self, data: bytes) -> None:
        if not self._early:
            self.tls.pauseProducing()
        self._early.append(data)
        self._early_size += len(data)
        if self._early_size > UNCHECKED_OCTETS_MAX:
            self._refuse("it does not wait for its address to be checked")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone before it was let in."""
        self._stop_waiting()
        # Who comes and goes without a word (a load balancer's probe) is not worth a line.
        is_silent = reason.check(ConnectionDone, ConnectionLost, ConnectionAborted) is not None
        if self._why or not is_silent:
            why = self._why or failure_text(self.tls.getHandle(), reason.value)
            self._rejections.rejected(remote_text(self.tls), why, self._clock.seconds())
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()
        self._inner.connectionLost(reason)

    def _checked(self, fault: str) -> None:
        if fault:
            self._refuse(fault)
        else:
            self._open()

    def _check_failed(self, failure: Failure) -> None:
        if self._checking is not None:
            self._refuse(f"its address could not be checked: {failure.getErrorMessage()}")

    def _open(self) -> None:
        self._stop_waiting()
        self._checking = None
        tls, inner = self.tls, self._inner
        tls.wrappedProtocol = inner
        if IHandshakeListener.providedBy(inner):
            inner.handshakeCompleted()
        if self._early:
            early, self._early = self._early, []
            tls.resumeProducing()
            inner.dataReceived(b"".join(early))

    def _refuse(self, why: str) -> None:
        self._why = self._why or why
        self._early.clear()
        self._early_size = 0
        self.tls.abortConnection()

    def _too_late(self) -> None:
        self._timeout = None
        self._refuse(f"no handshake within {HANDSHAKE_S:.0f} s")

    def _stop_waiting(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
