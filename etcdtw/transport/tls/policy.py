"""One TLS policy for listeners of a kind: which certificate, whom to trust, what to refuse.

Files are read again for the first new connection after they change, so certificates, CA
bundles and revocation lists rotate without a restart.  A bad new file keeps the old state.
"""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from etcdtw.transport.rejections import RejectionLog
from etcdtw.transport.tls.addresses import AddressCheck
from etcdtw.transport.tls.admission import Admission
from etcdtw.transport.tls.context import (
    ALPN_CLIENT_PORT,
    CIPHERS,
    VERSIONS,
    TlsFiles,
    build_server_context,
)
from etcdtw.transport.tls.files import TlsError
from etcdtw.transport.tls.rotation import RotatingContext, UsesTlsFiles
from etcdtw.transport.tls.verification import JudgedConnection, Judgement

__all__ = [
    "ALPN_CLIENT_PORT",
    "CIPHERS",
    "CLIENT_ENDPOINT",
    "PEER_ENDPOINT",
    "VERSIONS",
    "TlsError",
    "TlsFactory",
    "TlsFiles",
    "TlsPolicy",
    "cut_revoked",
]

_log = Logger()

CLIENT_ENDPOINT: Final = "client"
PEER_ENDPOINT: Final = "peer"


@implementer(IOpenSSLServerConnectionCreator)
class TlsPolicy(UsesTlsFiles):
    """Gives each new connection the newest context.  Shared by all listeners of one kind.

    ``endpoint`` names the kind in the log.  With ``addresses`` a client's certificate must
    also fit the address that it comes from.
    Raises `TlsError` from the constructor when the files cannot be used.
    """

    def __init__(
        self,
        files: TlsFiles,
        *,
        endpoint: str = CLIENT_ENDPOINT,
        addresses: AddressCheck | None = None,
    ) -> None:
        self.addresses = addresses
        self.rejections = RejectionLog(endpoint)
        self._factories: list[TlsFactory] = []
        self._files = RotatingContext(
            files.paths(), lambda: build_server_context(files), self._cut_revoked
        )
        self._is_revoked = self._files.is_revoked if files.crl_file is not None else None

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self.refresh()
        judgement = Judgement(is_revoked=self._is_revoked)
        connection = JudgedConnection.begin(self._files.context, judgement)
        connection.set_accept_state()
        return connection

    def refresh(self) -> None:
        """Read the files again if they changed.  Costs one ``stat`` a file otherwise."""
        self._files.refresh()

    def attach(self, factory: TlsFactory) -> None:
        """Count ``factory``'s connections among those that a new revocation list may end."""
        self._factories.append(factory)

    def _cut_revoked(self) -> None:
        for factory in self._factories:
            cut_revoked(list(factory.protocols))


class TlsConnection(TLSMemoryBIOProtocol):
    """One connection; when it is lost it leaves nothing to the garbage collector.

    Connections come and go too often for that, and an old one is looked for once an hour.
    """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.disconnecting = False  # nothing is left to be shut down
        self.unregisterProducer()  # which knows this connection

    def _tlsShutdownFinished(self, reason: Failure | None) -> None:  # noqa: N802 - Twisted's
        super()._tlsShutdownFinished(reason)
        if reason is not None and reason.value is not None:
            # One of the frames of its traceback holds it, and this connection.
            reason.tb = reason.value.__traceback__ = None


class TlsFactory(TLSMemoryBIOFactory):
    """Wraps a port's factory in TLS.

    Writes go to OpenSSL at once: the flusher has already joined them.  A connection that the
    port refuses is refused before any handshake; one that the policy refuses sees a lost
    connection and nothing else.
    """

    protocol = TlsConnection
    noisy = False

    def __init__(self, policy: TlsPolicy, wrapped: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(policy, False, wrapped, clock)
        self._policy = policy
        self._clock_of_admission = clock
        policy.attach(self)

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> TLSMemoryBIOProtocol | None:
        # None is what every reactor takes for "refused"; the base class does not say so.
        inner = self.wrappedFactory.buildProtocol(addr)
        if inner is None:
            return None
        policy = self._policy
        gate = Admission(inner, self._clock_of_admission, policy.rejections, policy.addresses)
        return self.protocol(self, gate)


def cut_revoked(connections: list[TLSMemoryBIOProtocol]) -> None:
    """Drop those whose other side showed a certificate that is revoked by now."""
    for wrapper in connections:
        connection = wrapper.getHandle()
        if isinstance(connection, JudgedConnection) and connection.is_revoked:
            _log.warn(
                "dropping the connection of {peer}: its certificate is revoked",
                peer=str(wrapper.getPeer()),
            )
            wrapper.abortConnection()
