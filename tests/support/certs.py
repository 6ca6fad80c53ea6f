"""A throw-away certificate authority for tests: keys, certificates, revocation lists as files."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


class Issued:
    """A certificate and its key, in memory and as PEM files."""

    def __init__(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, stem: Path
    ) -> None:
        self.certificate = certificate
        self.key = key
        self.cert_file = str(stem.with_suffix(".crt"))
        self.key_file = str(stem.with_suffix(".key"))
        self.write()

    @property
    def cert_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def write(self) -> None:
        """Put both files in place (again), each at one moment."""
        for name, octets in ((self.cert_file, self.cert_pem), (self.key_file, self.key_pem)):
            beside = Path(f"{name}.new")
            beside.touch(mode=0o600)
            beside.write_bytes(octets)
            beside.replace(name)


class Authority:
    """Issues certificates into ``folder``; ``ca_file`` is what others trust."""

    def __init__(self, folder: Path, name: str = "ca", parent: Authority | None = None) -> None:
        self._folder = folder
        self._parent = parent
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._revoked: list[x509.RevokedCertificate] = []
        signer = parent or self
        builder = signer._builder(self._name, self._key, -DAY, DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        builder = builder.add_extension(_usage(is_ca=True), True)
        certificate = builder.sign(signer._key, hashes.SHA256())
        self.issued = Issued(certificate, self._key, folder / name)
        self.ca_file = self.issued.cert_file

    def issue(
        self,
        name: str,
        *,
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        host: str = "localhost",
        address: str = "127.0.0.1",
        usages: tuple[x509.ObjectIdentifier, ...] = (
            ExtendedKeyUsageOID.SERVER_AUTH,
            ExtendedKeyUsageOID.CLIENT_AUTH,
        ),
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> Issued:
        """Return a certificate with ``name`` as its CN; an authority in between stands behind it.

        Empty ``host`` or ``address``: no such alternative name.  With the ``key`` of an earlier
        one it is that one's renewal.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.DNSName(host)] if host else []
        if address:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        builder = (
            self._builder(subject, key, begins, ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
            .add_extension(_usage(is_ca=False), True)
            .add_extension(x509.ExtendedKeyUsage(usages), False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        return self._signed(builder, key, name)

    def _signed(
        self, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, name: str
    ) -> Issued:
        issued = Issued(builder.sign(self._key, hashes.SHA256()), key, self._folder / name)
        if self._parent is not None:
            with open(issued.cert_file, "ab") as file:
                file.write(self.issued.cert_pem)
        return issued

    def revoke(self, issued: Issued) -> None:
        """Put a certificate on the next list."""
        self._revoked.append(
            x509.RevokedCertificateBuilder()
            .serial_number(issued.certificate.serial_number)
            .revocation_date(datetime.now(UTC) - DAY)
            .build()
        )

    def write_crl(self, path: Path, *, der: bool = False, ends: timedelta = DAY) -> str:
        """Write the list of all that is revoked and return its path."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - 3 * DAY)
            .next_update(now + ends)
        )
        for revoked in self._revoked:
            builder = builder.add_revoked_certificate(revoked)
        encoding = serialization.Encoding.DER if der else serialization.Encoding.PEM
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(encoding))
        return str(path)

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        begins: timedelta,
        ends: timedelta,
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False
            )
        )


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )
