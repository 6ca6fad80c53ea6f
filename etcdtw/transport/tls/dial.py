"""Dialling over TLS: a server must prove its name, and sees the certificate that we have.

`PeerDialTls` is one policy for all connections to peers; its files rotate as a listener's do.
"""

from __future__ import annotations

from typing import Final, cast

from OpenSSL import SSL
from service_identity.hazmat import DNS_ID, IPAddress_ID
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.transport.tls.context import DialFiles, build_dial_context
from etcdtw.transport.tls.policy import TlsConnection, cut_revoked
from etcdtw.transport.tls.rotation import RotatingContext, UsesTlsFiles
from etcdtw.transport.tls.verification import (
    NO_TLS,
    JudgedConnection,
    Judgement,
    failure_text,
    identity_of,
)

DIAL_HANDSHAKE_S: Final = 10.0
"""From the TCP connection to the end of the handshake."""


class DialRefusedError(Exception):
    """A TLS handshake with a server failed; the text says whose fault it is, and which."""


class PeerDialTls(UsesTlsFiles):
    """Gives each new connection to a server the newest context.

    Raises `TlsError` from the constructor when the files cannot be used.
    """

    def __init__(self, files: DialFiles, clock: IReactorTime) -> None:
        self.clock = clock
        self._verifies = files.verifies
        self._open: set[TLSMemoryBIOProtocol] = set()
        self._files = RotatingContext(
            files.paths(), lambda: build_dial_context(files), self._cut_revoked
        )
        self._is_revoked = self._files.is_revoked if files.crl_file is not None else None

    def wrap(self, endpoint: IStreamClientEndpoint, host: str) -> TlsClientEndpoint:
        """Return ``endpoint`` with TLS on top; the server must prove to be ``host``.

        ``host`` is the URL's: a name or an address.  Raises `TlsError` when no certificate
        can carry it.
        """
        return TlsClientEndpoint(self, endpoint, host)

    def creator(self, host: str) -> ServerConnectionCreator:
        """Return what Twisted's own TLS wrappers ask for.  Raises as `wrap`."""
        return ServerConnectionCreator(self, identity_of(host))

    def connection(self, server: DNS_ID | IPAddress_ID) -> SSL.Connection:
        """Return the client's side of a new connection to ``server``."""
        self.refresh()
        judgement = Judgement(server if self._verifies else None, self._is_revoked)
        connection = JudgedConnection.begin(self._files.context, judgement)
        if isinstance(server, DNS_ID):  # addresses are no server names (RFC 6066 section 3)
            connection.set_tlsext_host_name(server.hostname)
        connection.set_connect_state()
        return connection

    def refresh(self) -> None:
        """Read the files again if they changed.  Costs one ``stat`` a file otherwise."""
        self._files.refresh()

    def opened(self, wrapper: TLSMemoryBIOProtocol) -> None:
        """A connection that a new revocation list may end."""
        self._open.add(wrapper)

    def closed(self, wrapper: TLSMemoryBIOProtocol) -> None:
        """A connection that is gone."""
        self._open.discard(wrapper)

    def _cut_revoked(self) -> None:
        cut_revoked(list(self._open))


@implementer(IOpenSSLClientConnectionCreator)
class ServerConnectionCreator:
    """Makes connections to one server."""

    def __init__(self, policy: PeerDialTls, server: DNS_ID | IPAddress_ID) -> None:
        self._policy = policy
        self._server = server

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return self._policy.connection(self._server)


@implementer(IStreamClientEndpoint)
class TlsClientEndpoint:
    """An endpoint whose connections are there when the server has proved who it is.

    ``connect`` fails with `DialRefusedError` when the handshake does, within
    `DIAL_HANDSHAKE_S` of the TCP connection; the protocol is not connected then.
    """

    def __init__(self, policy: PeerDialTls, endpoint: IStreamClientEndpoint, host: str) -> None:
        self._policy = policy
        self._endpoint = endpoint
        self._host = host
        self._creator = policy.creator(host)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        shaken: Deferred[IProtocol] = Deferred(lambda _: None)
        wrapping = _DialFactory(self._policy, self._creator, factory, self._host, shaken)
        wrapper = await self._endpoint.connect(wrapping)
        try:
            return await shaken
        except CancelledError:
            cast(TLSMemoryBIOProtocol, wrapper).abortConnection()
            raise


class _DialFactory(TLSMemoryBIOFactory):
    """Builds the one connection of a `TlsClientEndpoint`'s ``connect``."""

    noisy = False
    protocol = TlsConnection

    def __init__(
        self,
        policy: PeerDialTls,
        creator: ServerConnectionCreator,
        wrapped: IProtocolFactory,
        host: str,
        shaken: Deferred[IProtocol],
    ) -> None:
        super().__init__(creator, True, wrapped, policy.clock)
        self._policy = policy
        self._host = host
        self._shaken = shaken

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> TLSMemoryBIOProtocol | None:
        inner = self.wrappedFactory.buildProtocol(addr)
        if inner is None:
            return None
        return self.protocol(self, _Proof(inner, self._policy.clock, self._host, self._shaken))

    def registerProtocol(self, p: TLSMemoryBIOProtocol) -> None:  # noqa: N802 - Twisted's name
        super().registerProtocol(p)
        self._policy.opened(p)

    def unregisterProtocol(self, p: TLSMemoryBIOProtocol) -> None:  # noqa: N802 - Twisted's name
        super().unregisterProtocol(p)
        self._policy.closed(p)


@implementer(IHandshakeListener)
class _Proof(Protocol):
    """Stands in for the dialling protocol until the server has proved who it is."""

    def __init__(
        self, inner: IProtocol, clock: IReactorTime, host: str, shaken: Deferred[IProtocol]
    ) -> None:
        self._inner = inner
        self._clock = clock
        self._host = host
        self._shaken = shaken
        self._timeout: IDelayedCall | None = None
        self._is_late = False

    @property
    def tls(self) -> TLSMemoryBIOProtocol:
        """The TLS layer, which will be the inner protocol's transport."""
        return cast(TLSMemoryBIOProtocol, self.transport)

    def connectionMade(self) -> None:
        self._timeout = self._clock.callLater(DIAL_HANDSHAKE_S, self._too_late)

    def handshakeCompleted(self) -> None:
        self._stop_waiting()
        inner, tls = self._inner, self.tls
        connection = tls.getHandle()
        assert isinstance(connection, JudgedConnection)
        connection.remember_chain()
        if connection.is_revoked:  # the lists have changed since the handshake began
            connection.judgement.refused = "its certificate is revoked by now"
            tls.abortConnection()
            return
        tls.wrappedProtocol = inner
        inner.makeConnection(tls)
        if IHandshakeListener.providedBy(inner):
            inner.handshakeCompleted()
        if not self._shaken.called:
            self._shaken.callback(inner)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_waiting()
        why = failure_text(self.tls.getHandle(), reason.value)
        if self._is_late:
            why = f"no handshake within {DIAL_HANDSHAKE_S:.0f} s"
        if why == NO_TLS:
            why = f"{NO_TLS} (then its URL is http://)"
        if not self._shaken.called:
            self._shaken.errback(DialRefusedError(f"no TLS with {self._host}: {why}"))

    def _too_late(self) -> None:
        self._timeout = None
        self._is_late = True
        self.tls.abortConnection()

    def _stop_waiting(self) -> None:
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
