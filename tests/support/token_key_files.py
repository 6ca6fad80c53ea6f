"""Keys of signed tokens, one pair for each of etcd's methods."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

SECRET: Final = b"\x00any octets\nat all\xff"
_CURVES: Final[dict[str, Any]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
}


@cache
def key_pair(method: str, number: int = 0) -> tuple[bytes, bytes]:
    """Return a private and a public key in PEM for ``method``; of HS the secret and nothing.

    ``number``: another one gives another pair.
    """
    if method.startswith("HS"):
        return SECRET + b"%d" % number, b""
    key: Any
    if method in _CURVES:
        key = ec.generate_private_key(_CURVES[method]())
    elif method == "EdDSA":
        key = ed25519.Ed25519PrivateKey.generate()
    else:
        return _rsa_pair(number)
    return _pem_of(key)


@cache
def _rsa_pair(number: int) -> tuple[bytes, bytes]:
    return _pem_of(rsa.generate_private_key(65537, 2048))


def _pem_of(key: Any) -> tuple[bytes, bytes]:
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return private, public
