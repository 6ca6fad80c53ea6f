"""Which files are keys of signed tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from etcdtw.config.auth_token import METHODS
from etcdtw.rpc.auth.token_keys import MISMATCH, MISSING, TokenKeyError, load_key
from tests.support.certs import Authority
from tests.support.token_key_files import key_pair

PAIRED = [method for method in METHODS if not method.startswith("HS")]


@pytest.mark.parametrize("method", PAIRED)
def test_a_private_key_is_enough_and_a_public_one_verifies_only(method: str) -> None:
    private, public = key_pair(method)
    both = load_key(method, private, public)
    assert both.verifying == load_key(method, private, b"").verifying
    verifying = load_key(method, b"", public)
    assert verifying.signing is None
    assert verifying.verifying == both.verifying


def test_an_rsa_key_that_is_only_tried_out_must_work() -> None:
    private, _ = key_pair("RS256")
    key = load_key("RS256", private, b"", is_validated=False)
    assert key.verifying == load_key("RS256", private, b"").verifying
    numbers = key.signing.private_numbers()
    spoilt = rsa.RSAPrivateNumbers(
        numbers.p,
        numbers.q,
        numbers.d,
        numbers.dmp1 ^ 2,
        numbers.dmq1 ^ 2,
        numbers.iqmp,
        rsa.RSAPublicNumbers(65539, numbers.public_numbers.n),
    ).private_key(unsafe_skip_rsa_key_validation=True)
    pem = spoilt.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with pytest.raises(TokenKeyError, match="does not work"):
        load_key("RS256", pem, b"", is_validated=False)


def test_a_certificate_holds_a_public_key(tmp_path: Path) -> None:
    pem = Authority(tmp_path).issue("any").cert_pem
    assert load_key("ES256", b"", pem).verifying.curve.name == "secp256r1"


@pytest.mark.parametrize("method", METHODS)
def test_no_key_is_none(method: str) -> None:
    with pytest.raises(TokenKeyError, match=MISSING):
        load_key(method, b"", b"")


def test_a_secret_is_the_file_as_it_is_even_if_it_looks_like_a_key() -> None:
    private, public = key_pair("RS256")
    assert load_key("HS256", private, b"").signing == private
    with pytest.raises(TokenKeyError, match=MISSING):
        load_key("HS256", b"", public)


@pytest.mark.parametrize("method", PAIRED)
def test_two_keys_that_are_no_pair_are_refused(method: str) -> None:
    private, _ = key_pair(method)
    _, other = key_pair(method, 1)
    with pytest.raises(TokenKeyError, match=MISMATCH):
        load_key(method, private, other)


@pytest.mark.parametrize(
    ("method", "other", "why"),
    [
        ("RS256", "ES256", "RS256 needs an RSA key"),
        ("PS512", "EdDSA", "PS512 needs an RSA key"),
        ("ES256", "RS256", "ES256 needs a key on an elliptic curve"),
        ("ES256", "ES512", "ES256 needs a key on the curve secp256r1"),
        ("EdDSA", "ES256", "EdDSA needs an Ed25519 key"),
    ],
)
def test_a_key_of_another_kind_is_refused(method: str, other: str, why: str) -> None:
    private, public = key_pair(other)
    with pytest.raises(TokenKeyError, match=f"priv-key: {why}"):
        load_key(method, private, b"")
    with pytest.raises(TokenKeyError, match=f"pub-key: {why}"):
        load_key(method, b"", public)


@pytest.mark.parametrize("octets", [b"no key", key_pair("RS256")[1]])
def test_what_is_no_private_key_is_refused(octets: bytes) -> None:
    with pytest.raises(TokenKeyError, match="no private key in PEM"):
        load_key("RS256", octets, b"")


@pytest.mark.parametrize("octets", [b"no key", b"-----BEGIN CERTIFICATE-----\n"])
def test_what_is_no_public_key_is_refused(octets: bytes) -> None:
    with pytest.raises(TokenKeyError, match="no public key or certificate in PEM"):
        load_key("RS256", b"", octets)
