"""One TLS policy for a listener: which certificate, whom to trust, what to refuse.

Files are read again for the first new connection after they change, so certificates, CA
bundles and revocation lists rotate without a restart.  A bad new file keeps the old state.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import (
    CertificateError,
    VerificationError,
)
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import (
    DNS_ID,
    IPAddress_ID,
    verify_service_identity,
)
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

ALPN_CLIENT_PORT: Final = (b"h2", b"http/1.1")

CIPHERS: Final = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)
"""TLS 1.2; those of TLS 1.3 are all sound."""

VERSIONS: Final = {"TLS1.2": SSL.TLS1_2_VERSION, "TLS1.3": SSL.TLS1_3_VERSION}
"""As --tls-min-version and --tls-max-version spell them."""

_SESSION_CONTEXT: Final = b"etcdtw"
_CRL_END: Final = b"-----END X509 CRL-----"

# X509_V_ERR_UNABLE_TO_GET_CRL, _CRL_NOT_YET_VALID, _CRL_HAS_EXPIRED: etcd looks at no dates.
_FORGIVEN: Final = frozenset((3, 11, 12))


class TlsError(Exception):
    """TLS files that cannot be used; the text names the file, the fault and the cure."""


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Where a policy finds its parts, and how strict it is.

    ``trusted_ca_file`` alone already demands client certificates, as in etcd.
    ``client_cert_auth`` without it trusts the system's authorities.
    """

    cert_file: str
    key_file: str
    trusted_ca_file: str | None = None
    crl_file: str | None = None
    client_cert_auth: bool = False
    allowed_hostnames: tuple[str, ...] = ()
    """A client's certificate must be valid for one of these; empty: for anything."""
    version_min: str = "TLS1.2"
    version_max: str | None = None
    ciphers: str = CIPHERS
    alpn: tuple[bytes, ...] = ALPN_CLIENT_PORT

    @property
    def demands_client_certificate(self) -> bool:
        return self.client_cert_auth or self.trusted_ca_file is not None

    def paths(self) -> list[str]:
        """Return the files that are read, in a fixed order."""
        found = (self.cert_file, self.key_file, self.trusted_ca_file, self.crl_file)
        return [path for path in found if path is not None]


_Fingerprint = tuple[tuple[int, int, int], ...]


@implementer(IOpenSSLServerConnectionCreator)
class TlsPolicy:
    """Gives each new connection the newest context.  Shared by all listeners of one kind.

    Raises `TlsError` from the constructor when the files cannot be used.
    """

    log = Logger()

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._context = build_context(files)
        self._fingerprint = _fingerprint(files)
        self.reloads = 0
        self.failed_reloads = 0

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self.refresh()
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        return connection

    def refresh(self) -> None:
        """Read the files again if they changed.  Costs one ``stat`` a file otherwise."""
        try:
            fingerprint = _fingerprint(self._files)
        except OSError as error:
            self._keep(str(error), self._fingerprint)
            return
        if fingerprint == self._fingerprint:
            return
        try:
            self._context = build_context(self._files)
        except TlsError as error:
            self._keep(str(error), fingerprint)
            return
        self._fingerprint = fingerprint
        self.reloads += 1
        self.log.info("TLS files reloaded: {path}", path=self._files.cert_file)

    def _keep(self, why: str, fingerprint: _Fingerprint) -> None:
        """Go on with the old state; the same bad files are not tried again."""
        self.failed_reloads += 1
        if fingerprint != self._fingerprint or self.failed_reloads == 1:
            self.log.error("TLS files changed but cannot be used, old ones stay: {why}", why=why)
        self._fingerprint = fingerprint


class TlsFactory(TLSMemoryBIOFactory):
    """Wraps a client port's factory in TLS.

    Writes go to OpenSSL at once: the flusher has already joined them.  A connection that the
    port refuses is refused before any handshake.
    """

    protocol = TLSMemoryBIOProtocol
    noisy = False

    def __init__(self, policy: TlsPolicy, wrapped: IProtocolFactory, clock: IReactorTime) -> None:
        super().__init__(policy, False, wrapped, clock)

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> TLSMemoryBIOProtocol | None:
        # None is what every reactor takes for "refused"; the base class does not say so.
        inner = self.wrappedFactory.buildProtocol(addr)
        return None if inner is None else self.protocol(self, inner)


def build_context(files: TlsFiles) -> SSL.Context:
    """Read ``files`` and return a server context.  Raises `TlsError`."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_options(
        SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_RENEGOTIATION
        | SSL.OP_NO_TICKET
        | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    # A resumed session would skip the check of the client's certificate and its revocation.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(_SESSION_CONTEXT)
    _set_versions(context, files)
    try:
        context.set_cipher_list(files.ciphers.encode())
    except SSL.Error as error:
        raise TlsError(f"no usable TLS cipher suite in {files.ciphers!r}: correct it") from error
    if files.alpn:
        context.set_alpn_select_callback(_AlpnChoice(files.alpn))
    _load_identity(context, files)
    if files.demands_client_certificate:
        _load_trust(context, files)
    return context


class _AlpnChoice:
    """Chooses our first protocol that the client offers too."""

    def __init__(self, offered: tuple[bytes, ...]) -> None:
        self._offered = offered

    def __call__(
        self, connection: SSL.Connection, protocols: list[bytes]
    ) -> bytes | SSL._NoOverlappingProtocols:
        for protocol in self._offered:
            if protocol in protocols:
                return protocol
        # No common name is no reason to hang up: the first octets decide.
        return SSL.NO_OVERLAPPING_PROTOCOLS


def _set_versions(context: SSL.Context, files: TlsFiles) -> None:
    for name in (files.version_min, files.version_max):
        if name is not None and name not in VERSIONS:
            raise TlsError(f"unknown TLS version {name!r}: use one of {', '.join(VERSIONS)}")
    context.set_min_proto_version(VERSIONS[files.version_min])
    if files.version_max is not None:
        if VERSIONS[files.version_max] < VERSIONS[files.version_min]:
            raise TlsError(
                f"TLS versions end ({files.version_max}) before they begin ({files.version_min})"
            )
        context.set_max_proto_version(VERSIONS[files.version_max])


def _load_identity(context: SSL.Context, files: TlsFiles) -> None:
    _read(files.cert_file, "certificate")
    _read(files.key_file, "private key")
    try:
        context.use_certificate_chain_file(files.cert_file)
    except SSL.Error as error:
        raise TlsError(f"{files.cert_file} holds no PEM certificate: give one") from error
    try:
        context.use_privatekey_file(files.key_file)
    except SSL.Error as error:
        if "mismatch" in str(error):
            raise _mismatch(files) from error
        raise TlsError(
            f"{files.key_file} holds no PEM private key without passphrase: give one"
        ) from error
    try:
        context.check_privatekey()
    except SSL.Error as error:
        raise _mismatch(files) from error


def _mismatch(files: TlsFiles) -> TlsError:
    return TlsError(
        f"the key in {files.key_file} does not belong to the certificate in "
        f"{files.cert_file}: give the pair that was issued together"
    )


def _load_trust(context: SSL.Context, files: TlsFiles) -> None:
    context.set_verify(
        SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _Verification(files.allowed_hostnames)
    )
    if files.trusted_ca_file is None:
        context.set_default_verify_paths()
    else:
        _read(files.trusted_ca_file, "CA bundle")
        try:
            context.load_verify_locations(files.trusted_ca_file)
            context.load_client_ca(files.trusted_ca_file.encode())
        except SSL.Error as error:
            raise TlsError(
                f"{files.trusted_ca_file} holds no PEM certificate: give a CA bundle"
            ) from error
    if files.crl_file is not None:
        _load_revocations(context, files.crl_file)


def _load_revocations(context: SSL.Context, path: str) -> None:
    """Refuse the certificates on the lists in ``path``: PEM, one or more, or one in DER.

    As in etcd an outdated list still counts, and an issuer without a list revokes nothing.
    """
    data = _read(path, "revocation list")
    try:
        if _CRL_END in data:
            blocks = data.split(_CRL_END)[:-1]
            lists = [x509.load_pem_x509_crl(block + _CRL_END + b"\n") for block in blocks]
        else:
            lists = [x509.load_der_x509_crl(data)]
    except ValueError as error:
        raise TlsError(f"{path} holds no certificate revocation list: give one") from error
    store = context.get_cert_store()
    assert store is not None
    for revoked in lists:
        store.add_crl(revoked)
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK)


class _Verification:
    """Decides on each finding of OpenSSL's check of a client's certificate."""

    def __init__(self, allowed_hostnames: tuple[str, ...]) -> None:
        self._allowed = tuple(_identity(name) for name in allowed_hostnames)

    def __call__(
        self,
        connection: SSL.Connection,
        certificate: crypto.X509,
        number: int,
        depth: int,
        is_ok: int,
    ) -> bool:
        if not (is_ok or number in _FORGIVEN):
            return False
        # Depth 0 is the client's own certificate; those above it are authorities.
        return depth > 0 or not self._allowed or self._is_allowed(certificate.to_cryptography())

    def _is_allowed(self, certificate: x509.Certificate) -> bool:
        try:
            patterns = extract_patterns(certificate)
        except CertificateError:
            return False
        for identity in self._allowed:
            try:
                verify_service_identity(patterns, [identity], [])
            except VerificationError:
                continue
            return True
        return False


def _identity(name: str) -> DNS_ID | IPAddress_ID:
    """Return what a subject alternative name is matched with.  Raises `TlsError`."""
    try:
        ip_address(name)
    except ValueError:
        pass
    else:
        return IPAddress_ID(name)
    try:
        return DNS_ID(name)
    except ValueError as error:
        raise TlsError(f"{name!r} is no host name that a certificate can carry") from error


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise TlsError(
            f"cannot read the {what} {path} ({error.strerror}): check the path and its mode"
        ) from error


def _fingerprint(files: TlsFiles) -> _Fingerprint:
    """Return what tells a changed file: its time, size and inode."""
    found = []
    for path in files.paths():
        status = os.stat(path)
        found.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
