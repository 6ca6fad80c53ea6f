"""Contexts of OpenSSL: what both sides of a connection have in common, and what not.

Sessions and tickets are off: a resumed session would skip the check of the other side's
certificate and its revocation.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple

from OpenSSL import SSL

from etcdtw.transport.tls.files import (
    Revocations,
    TlsError,
    load_authorities,
    load_identity,
    load_revocations,
)
from etcdtw.transport.tls.verification import Verification

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


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """Where a listener's policy finds its parts, and how strict it is.

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
    allowed_cns: tuple[str, ...] = ()
    """A client's certificate must have one of these common names; empty: any."""
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


@dataclass(frozen=True, kw_only=True)
class DialFiles:
    """What a dialler shows and whom it believes.

    Without ``trusted_ca_file`` it trusts the system's authorities.  ``verifies`` False
    believes anybody (self-signed certificates, --peer-auto-tls).
    """

    cert_file: str | None = None
    key_file: str | None = None
    trusted_ca_file: str | None = None
    crl_file: str | None = None
    allowed_hostnames: tuple[str, ...] = ()
    """A server's certificate must be valid for one of these too; empty: for its host only."""
    allowed_cns: tuple[str, ...] = ()
    verifies: bool = True
    version_min: str = "TLS1.2"
    version_max: str | None = None
    ciphers: str = CIPHERS
    alpn: tuple[bytes, ...] = ()
    """Protocols to be offered; empty: none is named."""

    def paths(self) -> list[str]:
        """Return the files that are read, in a fixed order."""
        found = (self.cert_file, self.key_file, self.trusted_ca_file, self.crl_file)
        return [path for path in found if path is not None]


class Loaded(NamedTuple):
    """A context and what is known of the files that it came from."""

    context: SSL.Context
    ends: dict[str, datetime]
    """When the certificates of a file end: the first of a chain, the last of a CA bundle."""
    revocations: Revocations


def build_server_context(files: TlsFiles) -> Loaded:
    """Read ``files`` for a listener.  Raises `TlsError`."""
    context = _begin(files.version_min, files.version_max, files.ciphers)
    context.set_session_id(_SESSION_CONTEXT)
    if files.alpn:
        context.set_alpn_select_callback(_AlpnChoice(files.alpn))
    ends = {files.cert_file: load_identity(context, files.cert_file, files.key_file)}
    if not files.demands_client_certificate:
        return Loaded(context, ends, ())
    context.set_verify(
        SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
        Verification(files.allowed_hostnames, files.allowed_cns),
    )
    _trust(context, files.trusted_ca_file, ends)
    if files.trusted_ca_file is not None:
        context.load_client_ca(files.trusted_ca_file.encode())
    lists = () if files.crl_file is None else load_revocations(context, files.crl_file)
    return Loaded(context, ends, lists)


def build_dial_context(files: DialFiles) -> Loaded:
    """Read ``files`` for a dialler.  Raises `TlsError`."""
    context = _begin(files.version_min, files.version_max, files.ciphers)
    if files.alpn:
        context.set_alpn_protos(list(files.alpn))
    ends: dict[str, datetime] = {}
    if files.cert_file is not None and files.key_file is not None:
        ends[files.cert_file] = load_identity(context, files.cert_file, files.key_file)
    if not files.verifies:
        return Loaded(context, ends, ())
    context.set_verify(SSL.VERIFY_PEER, Verification(files.allowed_hostnames, files.allowed_cns))
    _trust(context, files.trusted_ca_file, ends)
    lists = () if files.crl_file is None else load_revocations(context, files.crl_file)
    return Loaded(context, ends, lists)


def _begin(version_min: str, version_max: str | None, ciphers: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_options(
        SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_RENEGOTIATION
        | SSL.OP_NO_TICKET
        | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    for name in (version_min, version_max):
        if name is not None and name not in VERSIONS:
            raise TlsError(f"unknown TLS version {name!r}: use one of {', '.join(VERSIONS)}")
    context.set_min_proto_version(VERSIONS[version_min])
    if version_max is not None:
        if VERSIONS[version_max] < VERSIONS[version_min]:
            raise TlsError(f"TLS versions end ({version_max}) before they begin ({version_min})")
        context.set_max_proto_version(VERSIONS[version_max])
    try:
        context.set_cipher_list(ciphers.encode())
    except SSL.Error as error:
        raise TlsError(f"no usable TLS cipher suite in {ciphers!r}: correct it") from error
    return context


def _trust(context: SSL.Context, path: str | None, ends: dict[str, datetime]) -> None:
    end = load_authorities(context, path)
    if path is not None and end is not None:
        ends[path] = end


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
