"""A member's TLS: who is shown what, and believed, in each of its roles.

client listeners    TlsPolicy
peer listeners      TlsPolicy, without ALPN, certificates compared with addresses
dialled peers       PeerDialTls
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from twisted.internet.interfaces import IReactorTime

from etcdtw.cluster.urls import MemberUrl
from etcdtw.config.config import ClientTls, Config, PeerTls
from etcdtw.config.tls_names import openssl_ciphers
from etcdtw.server.doors.self_signed import self_signed_files
from etcdtw.transport.tls.addresses import AddressCheck, NameLookup
from etcdtw.transport.tls.context import DialFiles
from etcdtw.transport.tls.dial import PeerDialTls
from etcdtw.transport.tls.policy import CIPHERS, CLIENT_ENDPOINT, PEER_ENDPOINT, TlsFiles, TlsPolicy

FIXTURES: Final = "fixtures"


class PeerTlsRoles(NamedTuple):
    """TLS between members.  ``listens`` is None when no certificate is configured.

    ``proves_members``: who completes a handshake has shown a certificate of their authority.
    """

    listens: TlsPolicy | None
    dials: PeerDialTls
    proves_members: bool = False


def client_policy(config: Config, now: datetime) -> TlsPolicy | None:
    """Return the policy of the client listeners, None without a certificate.

    Raises `TlsError`, as do the others here, when the files cannot be used.
    """
    tls = config.client_tls
    urls = (*config.listen_client_urls, *config.listen_client_http_urls)
    cert, key = _identity(config, tls, CLIENT_ENDPOINT, urls, now)
    if not cert:
        return None
    return TlsPolicy(
        TlsFiles(
            cert_file=cert,
            key_file=key,
            trusted_ca_file=tls.trusted_ca_file or None,
            crl_file=tls.crl_file or None,
            client_cert_auth=tls.client_cert_auth,
            allowed_hostnames=tls.allowed_hostnames,
            allowed_cns=tls.allowed_cns,
            version_min=tls.version_min or "TLS1.2",
            version_max=tls.version_max or None,
            ciphers=openssl_ciphers(tls.cipher_suites) or CIPHERS,
        )
    )


def peer_roles(
    config: Config, clock: IReactorTime, now: datetime, lookup: NameLookup
) -> PeerTlsRoles:
    """Return TLS of both sides of the connections between members."""
    tls = config.peer_tls
    cert, key = _identity(config, tls, PEER_ENDPOINT, config.listen_peer_urls, now)
    ciphers = openssl_ciphers(tls.cipher_suites) or CIPHERS
    listens = None
    if cert:
        addresses = AddressCheck(lookup, clock)
        listens = TlsPolicy(
            TlsFiles(
                cert_file=cert,
                key_file=key,
                trusted_ca_file=tls.trusted_ca_file or None,
                crl_file=tls.crl_file or None,
                client_cert_auth=tls.client_cert_auth,
                allowed_hostnames=tls.allowed_hostnames,
                allowed_cns=tls.allowed_cns,
                version_min=tls.version_min,
                version_max=tls.version_max or None,
                ciphers=ciphers,
                alpn=(),
            ),
            endpoint=PEER_ENDPOINT,
            addresses=None if tls.skips_client_addresses else addresses,
        )
    files = DialFiles(
        cert_file=tls.client_cert_file or cert or None,
        key_file=tls.client_key_file or key or None,
        trusted_ca_file=tls.trusted_ca_file or None,
        crl_file=tls.crl_file or None,
        allowed_hostnames=tls.allowed_hostnames,
        allowed_cns=tls.allowed_cns,
        verifies=not tls.self_signed_years,
        version_min=tls.version_min,
        version_max=tls.version_max or None,
        ciphers=ciphers,
    )
    proves = listens is not None and bool(tls.trusted_ca_file or tls.client_cert_auth)
    return PeerTlsRoles(listens, PeerDialTls(files, clock), proves)


def _identity(
    config: Config, tls: ClientTls | PeerTls, kind: str, urls: Sequence[MemberUrl], now: datetime
) -> tuple[str, str]:
    """Return certificate and key, made here if that is asked for; empty texts for none."""
    if not tls.self_signed_years:
        return tls.cert_file, tls.key_file
    folder = Path(config.data_dir) / FIXTURES / kind
    hosts = [url.host for url in urls if not url.is_unix]
    return self_signed_files(folder, hosts, tls.self_signed_years, now)
