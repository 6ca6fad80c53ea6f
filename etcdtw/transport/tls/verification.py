"""Whom to believe: the decision on a certificate that was shown, and the words for a refusal.

OpenSSL has checked chain, time and revocation; here the findings are judged, then the names.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from twisted.protocols.tls import TLSMemoryBIOProtocol

from etcdtw.transport.tls.files import TlsError

Name = tuple[bytes, int]
"""A certificate as revocation lists name it: its issuer's octets and its serial number."""

NAME_SHOWN_MAX: Final = 100
"""Characters of a stranger's name in a log line."""

# X509_V_ERR_UNABLE_TO_GET_CRL, _CRL_NOT_YET_VALID, _CRL_HAS_EXPIRED: etcd looks at no dates.
_FORGIVEN: Final = frozenset((3, 11, 12))

_UNTRUSTED: Final = "is issued by an authority that is not trusted"
_FINDINGS: Final = {
    2: _UNTRUSTED,
    7: "has a wrong signature",
    9: "is not valid yet",
    10: "has expired",
    18: _UNTRUSTED,
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    23: "is revoked",
    24: "issues certificates without being an authority",
    26: "is not meant for this use (extended key usage)",
}
"""X509_V_ERR_... of OpenSSL, the ones that operators meet."""

NOT_ALLOWED: Final = "client certificate authentication failed"
"""etcd's words for a certificate without an allowed name."""
NO_TLS: Final = "it does not speak TLS"
_REASONS: Final = {
    "peer did not return a certificate": "it showed no certificate",
    "http request": "it speaks HTTP without TLS",
    "https proxy request": "it speaks HTTP without TLS",
    "wrong version number": NO_TLS,
    "unsupported protocol": "it speaks no TLS version that is allowed here",
    "no shared cipher": "it offers no cipher suite that is allowed here",
}
"""Reasons of OpenSSL, the ones that operators meet, by the other side's fault."""

_ALERTS: Final = {
    "unknown ca": "it does not trust the authority of our certificate",
    "certificate required": "it demands a certificate and we showed none",
    "bad certificate": "it refuses our certificate",
    "unsupported certificate": "it finds our certificate not meant for this use",
    "certificate revoked": "it finds our certificate revoked",
    "certificate expired": "it finds our certificate expired",
    "certificate unknown": "it refuses our certificate",
    "handshake failure": "it finds nothing in common with us, or we showed no certificate",
    "protocol version": "it allows none of our TLS versions",
}
"""What the other side finds wrong with us; before the name stands `` alert ``, and before
that the oldest protocol with this alert, in a spelling that OpenSSL changes now and then."""


class Judgement:
    """What is expected of one connection's other side, and why it was refused.

    ``server``: the identity that a dialled server must prove.  ``is_revoked`` asks the
    newest revocation lists; None where there are none.  ``refused`` is empty while nothing
    speaks against the other side.
    """

    __slots__ = ("is_revoked", "refused", "server")

    def __init__(
        self,
        server: DNS_ID | IPAddress_ID | None = None,
        is_revoked: Callable[[Name], bool] | None = None,
    ) -> None:
        self.server = server
        self.is_revoked = is_revoked
        self.refused = ""


class JudgedConnection(SSL.Connection):
    """A connection with its judgement.  The app data of OpenSSL is Twisted's own."""

    judgement: Judgement
    _chain: tuple[Name, ...] = ()

    @classmethod
    def begin(cls, context: SSL.Context, judgement: Judgement) -> JudgedConnection:
        """Return a new connection in memory."""
        connection = cls(context, None)
        connection.judgement = judgement
        return connection

    def remember_chain(self) -> None:
        """Keep what a later revocation list would name: parsing it then, for thousands of
        connections at once, would hold up everybody.
        """
        if self.judgement.is_revoked is not None:
            chain = self.get_verified_chain(as_cryptography=True) or ()
            self._chain = tuple((one.issuer.public_bytes(), one.serial_number) for one in chain)

    @property
    def is_revoked(self) -> bool:
        """Whether the newest lists name one of the other side's certificates."""
        is_revoked = self.judgement.is_revoked
        return is_revoked is not None and any(map(is_revoked, self._chain))


class Verification:
    """Decides on each finding of OpenSSL's check of a `JudgedConnection`.

    ``allowed_hostnames`` and ``allowed_cns``: the certificate must carry one of them.
    Raises `TlsError` for a name that no certificate can carry.
    """

    def __init__(self, allowed_hostnames: tuple[str, ...], allowed_cns: tuple[str, ...]) -> None:
        self._hostnames = allowed_hostnames
        self._identities = tuple(identity_of(name) for name in allowed_hostnames)
        self._cns = allowed_cns

    def __call__(
        self,
        connection: SSL.Connection,
        certificate: crypto.X509,
        number: int,
        depth: int,
        is_ok: int,
    ) -> bool:
        assert isinstance(connection, JudgedConnection)
        judgement = connection.judgement
        if not (is_ok or number in _FORGIVEN):
            finding = _FINDINGS.get(number, f"is refused by OpenSSL (verify error {number})")
            judgement.refused = f"the certificate {_shown(certificate)} {finding}"
            return False
        if depth > 0:  # above the other side's own certificate are authorities
            return True
        try:
            fault = self._fault(certificate.to_cryptography(), judgement.server)
        except ValueError:  # octets that OpenSSL lets pass
            fault = "cannot be read"
        if fault:
            judgement.refused = f"the certificate {_shown(certificate)} {fault}"
        return not fault

    def _fault(self, certificate: x509.Certificate, server: DNS_ID | IPAddress_ID | None) -> str:
        if server is not None and not is_valid_for(certificate, server):
            name = server.hostname.decode() if isinstance(server, DNS_ID) else str(server.ip)
            return f"is not valid for {name}: it is for {_names(certificate)}"
        if self._cns and _common_name(certificate) not in self._cns:
            return f"has none of the allowed common names {', '.join(self._cns)}: {NOT_ALLOWED}"
        if self._identities and not any(is_valid_for(certificate, i) for i in self._identities):
            hostnames = ", ".join(self._hostnames)
            return f"is valid for none of the allowed host names {hostnames}: {NOT_ALLOWED}"
        return ""


def is_valid_for(certificate: x509.Certificate, identity: DNS_ID | IPAddress_ID) -> bool:
    """Whether one of the certificate's alternative names is ``identity``."""
    try:
        verify_service_identity(extract_patterns(certificate), [identity], [])
    except (CertificateError, VerificationError):
        return False
    return True


def identity_of(name: str) -> DNS_ID | IPAddress_ID:
    """Return what a subject alternative name is matched with.  Raises `TlsError`."""
    try:
        ip_address(name)
    except ValueError:
        pass
    else:
        return IPAddress_ID(name)
    try:
        return DNS_ID(name.rstrip("."))
    except ValueError as error:
        raise TlsError(f"{name!r} is no host name that a certificate can carry") from error


def failure_text(connection: SSL.Connection | None, error: BaseException | None) -> str:
    """Return why a handshake failed: our judgement, else what OpenSSL says of the other side."""
    if isinstance(connection, JudgedConnection) and connection.judgement.refused:
        return connection.judgement.refused
    if not isinstance(error, SSL.Error):
        return "the connection was lost" if error is None else str(error)
    reasons: list[str] = [entry[2] for entry in error.args[0]] if error.args else []
    if not reasons:
        return "it hung up"
    reason = reasons[0]
    return _REASONS.get(reason) or _ALERTS.get(reason.partition(" alert ")[2]) or reason


def common_name_of(transport: object) -> str | None:
    """Return the common name that the other end of a connection has proved; None: no certificate.

    Empty: a certificate without one.
    """
    if not isinstance(transport, TLSMemoryBIOProtocol):
        return None
    certificate = transport.getPeerCertificate()
    try:
        return None if certificate is None else _common_name(certificate.to_cryptography())
    except ValueError:  # a subject that cannot be read
        return None


def _common_name(certificate: x509.Certificate) -> str:
    """Return the last common name, as Go does; empty when there is none."""
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[-1].value) if found else ""


def _names(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no name at all"
    shown = [*names.get_values_for_type(x509.DNSName)]
    shown += [str(ip) for ip in names.get_values_for_type(x509.IPAddress)]
    return ascii(", ".join(shown)[:NAME_SHOWN_MAX])


def _shown(certificate: crypto.X509) -> str:
    try:
        text = certificate.to_cryptography().subject.rfc4514_string()
    except ValueError:
        text = "?"
    return ascii(text[:NAME_SHOWN_MAX])
