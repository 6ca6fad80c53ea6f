"""Certificates that a member makes for itself (--auto-tls, --peer-auto-tls).

They encrypt and prove nothing.  Place and form are etcd's: ``<data-dir>/fixtures/client`` and
``.../peer``, P-521, O=etcd; what is there already is used, also when it has expired.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from etcdtw.transport.tls.files import TlsError

CERT_NAME: Final = "cert.pem"
KEY_NAME: Final = "key.pem"
_YEAR: Final = timedelta(days=365)


def self_signed_files(
    folder: Path, hosts: Sequence[str], years: int, now: datetime
) -> tuple[str, str]:
    """Return the certificate and key in ``folder``; both are made when one is missing.

    ``hosts``: names and addresses that it is for.  Raises `TlsError`.
    """
    cert_path, key_path = folder / CERT_NAME, folder / KEY_NAME
    if not (cert_path.exists() and key_path.exists()):
        key = ec.generate_private_key(ec.SECP521R1())
        certificate = _certificate(key, hosts, now, now + years * _YEAR)
        try:
            _make_private(folder)
            _write(
                key_path,
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.TraditionalOpenSSL,
                    serialization.NoEncryption(),
                ),
            )
            _write(cert_path, certificate.public_bytes(serialization.Encoding.PEM))
        except OSError as error:
            raise TlsError(
                f"cannot write a self-signed certificate to {folder} ({error.strerror}): "
                "correct its mode and owner"
            ) from error
    return str(cert_path), str(key_path)


def _make_private(folder: Path) -> None:
    """Make ``folder`` and what is missing above it, every one for the owner alone.

    (``mkdir`` with ``parents`` gives its mode to the last one only; one of those above may be
    the data directory, which must not be open to others.)
    """
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _certificate(
    key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], begins: datetime, ends: datetime
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "etcd")])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=True,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            True,
        )
        .add_extension(x509.ExtendedKeyUsage(usages), False)
    )
    names = [_general_name(host) for host in dict.fromkeys(hosts) if host]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    return builder.sign(key, hashes.SHA512())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, data: bytes) -> None:
    """Put ``data`` in place at once, readable by the owner alone."""
    draft = path.with_suffix(".tmp")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
