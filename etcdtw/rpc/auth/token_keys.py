"""Keys of signed tokens, from the files that ``--auth-token=jwt`` names.

Source: etcd v3 api, ``--auth-token jwt``: PEM, of the kind that the method needs; a secret of HS is
the whole file as it is.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

MISSING: Final = "auth: missing key data"
MISMATCH: Final = "auth: public and private keys don't match"
HMAC: Final = "HS"
"""The methods' family in which one key signs and verifies."""

_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_KINDS: Final[dict[str, tuple[type, type, str]]] = {
    "RS": (rsa.RSAPrivateKey, rsa.RSAPublicKey, "an RSA key"),
    "PS": (rsa.RSAPrivateKey, rsa.RSAPublicKey, "an RSA key"),
    "ES": (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey, "a key on an elliptic curve"),
    "Ed": (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey, "an Ed25519 key"),
}
_CURVES: Final = {"ES256": "secp256r1", "ES384": "secp384r1", "ES512": "secp521r1"}


class TokenKeyError(Exception):
    """Key files of signed tokens that cannot be used; the text says which and why."""


class TokenKey(NamedTuple):
    """What verifies tokens, and what signs them; None: this member only verifies."""

    verifying: Any
    signing: Any


def load_key(method: str, private: bytes, public: bytes, *, is_validated: bool = True) -> TokenKey:
    """Return the key in the octets of two files, either of which may be empty.

    ``is_validated`` False: a private RSA key is tried out instead of having its primes looked at,
    which takes 20 ms and more.  Raises `TokenKeyError`.
    """
    if method.startswith(HMAC):
        if not private:
            raise TokenKeyError(f"{method} needs priv-key, a file with the secret ({MISSING})")
        return TokenKey(private, private)
    private_kind, public_kind, kind = _KINDS[method[:2]]
    signing = verifying = None
    if private:
        signing = _checked(_private(private, is_validated), private_kind, "priv-key", method, kind)
        verifying = signing.public_key()
    if public:
        found = _checked(_public(public), public_kind, "pub-key", method, kind)
        if verifying is not None and found != verifying:
            raise TokenKeyError(f"pub-key and priv-key are no pair ({MISMATCH})")
        verifying = found
    if verifying is None:
        raise TokenKeyError(f"{method} needs priv-key, or pub-key to verify only ({MISSING})")
    if not is_validated and isinstance(signing, rsa.RSAPrivateKey):
        _try_out(signing)
    return TokenKey(verifying, signing)


def _try_out(key: rsa.RSAPrivateKey) -> None:
    form, digest = padding.PKCS1v15(), hashes.SHA256()
    try:
        key.public_key().verify(key.sign(b"", form, digest), b"", form, digest)
    except (ValueError, InvalidSignature, InternalError) as error:
        raise TokenKeyError("priv-key holds an RSA key that does not work") from error


def _private(octets: bytes, is_validated: bool) -> Any:
    try:
        return serialization.load_pem_private_key(
            octets, password=None, unsafe_skip_rsa_key_validation=not is_validated
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TokenKeyError("priv-key holds no private key in PEM without a password") from error


def _public(octets: bytes) -> Any:
    try:
        if _CERTIFICATE in octets:
            return x509.load_pem_x509_certificate(octets).public_key()
        return serialization.load_pem_public_key(octets)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TokenKeyError("pub-key holds no public key or certificate in PEM") from error


def _checked(key: Any, wanted: type, option: str, method: str, kind: str) -> Any:
    curve = _CURVES.get(method)
    if not isinstance(key, wanted):
        raise TokenKeyError(f"{option}: {method} needs {kind}")
    if curve is not None and key.curve.name != curve:  # type: ignore[attr-defined]
        raise TokenKeyError(f"{option}: {method} needs a key on the curve {curve}")
    return key
