"""What TLS reads from the disk: certificates, keys, authorities, revocation lists.

Each fault is a `TlsError` that names the file and the cure.  Knows no connection.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.logger import Logger

_log: Final = Logger()
_CRL_END: Final = b"-----END X509 CRL-----"

Revocations = tuple[tuple[bytes, x509.CertificateRevocationList], ...]
"""Lists by their issuers' octets."""

Fingerprint = tuple[tuple[int, int, int, int], ...]


class TlsError(Exception):
    """TLS files that cannot be used; the text names the file, the fault and the cure."""


def load_identity(context: SSL.Context, cert_file: str, key_file: str) -> datetime:
    """Show the certificates in ``cert_file``; returns when the first of them ends."""
    ends = [one.not_valid_after_utc for one in _certificates(cert_file, "certificate")]
    _read(key_file, "private key")
    mode = stat.S_IMODE(os.stat(key_file).st_mode)
    if mode & stat.S_IROTH:
        _log.warn(
            "the private key {path} can be read by everybody (mode {mode:04o}): chmod 600 {path}",
            path=key_file,
            mode=mode,
        )
    try:
        context.use_certificate_chain_file(cert_file)
    except SSL.Error as error:
        raise TlsError(f"{cert_file} holds no PEM certificate: give one") from error
    try:
        context.use_privatekey_file(key_file)
    except SSL.Error as error:
        if "mismatch" in str(error):
            raise _mismatch(cert_file, key_file) from error
        raise TlsError(
            f"{key_file} holds no PEM private key without passphrase: give one"
        ) from error
    try:
        context.check_privatekey()
    except SSL.Error as error:
        raise _mismatch(cert_file, key_file) from error
    return min(ends)


def load_authorities(context: SSL.Context, path: str | None) -> datetime | None:
    """Trust the certificates in ``path``, or the system's authorities when it is None.

    As in Go, each of them is an authority by itself, also one that another has issued.
    Returns when the last of them ends.
    """
    store = _store(context)
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    if path is None:
        context.set_default_verify_paths()
        return None
    ends = [one.not_valid_after_utc for one in _certificates(path, "CA bundle")]
    try:
        context.load_verify_locations(path)
    except SSL.Error as error:
        raise TlsError(f"{path} holds no PEM certificate: give a CA bundle") from error
    return max(ends)


def load_revocations(context: SSL.Context, path: str) -> Revocations:
    """Refuse the certificates on the lists in ``path``: PEM, one or more, or one in DER.

    Also an authority in between may be on a list.  As in etcd an outdated list still counts,
    and an issuer without a list revokes nothing.
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
    store = _store(context)
    for revoked in lists:
        store.add_crl(revoked)
    store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
    return tuple((revoked.issuer.public_bytes(), revoked) for revoked in lists)


def fingerprint(paths: Iterable[str]) -> Fingerprint:
    """Return what tells a changed file: its times, size and inode.  Raises OSError."""
    found = []
    for path in paths:
        status = os.stat(path)
        found.append((status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino))
    return tuple(found)


def _certificates(path: str, what: str) -> list[x509.Certificate]:
    data = _read(path, what)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise TlsError(f"{path} holds no PEM certificate: give a {what}") from error


def _store(context: SSL.Context) -> crypto.X509Store:
    store = context.get_cert_store()
    assert store is not None
    return store


def _mismatch(cert_file: str, key_file: str) -> TlsError:
    return TlsError(
        f"the key in {key_file} does not belong to the certificate in "
        f"{cert_file}: give the pair that was issued together"
    )


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise TlsError(
            f"cannot read the {what} {path} ({error.strerror}): check the path and its mode"
        ) from error
