"""Signed tokens: what is believed of them, and what is not."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from etcdtw.auth.errors import VerifyOnlyError
from etcdtw.config.auth_token import METHODS
from etcdtw.rpc.auth.signed_tokens import (
    HEADER_SIZE_MAX,
    REFUSED_MAX,
    REFUSED_PER_S,
    TOKEN_SIZE_MAX,
    SignedTokens,
)
from etcdtw.rpc.auth.token_keys import TokenKey, load_key
from etcdtw.wire.entry_header import Asker
from tests.support.token_key_files import key_pair

NOW_S = 1_000_000.5
TTL_S = 300.0


class Rig:
    """Tokens under a key and a clock that can be turned.  Implements `signed_tokens.Keys`."""

    def __init__(self, method: str = "HS256", *, known_max: int = 10) -> None:
        self.method = method
        self.now_s = NOW_S
        self.mono_s = 5.0
        self.current = load_key(method, key_pair(method)[0], b"")
        self.tokens = self.another(known_max)

    def another(self, known_max: int = 10) -> SignedTokens:
        """Return what another member with the same key has."""
        unix_s = lambda: self.now_s  # noqa: E731
        return SignedTokens(self.method, self, TTL_S, unix_s, lambda: self.mono_s, known_max)

    def key(self) -> TokenKey:
        return self.current

    def user_of(self, token: str | bytes, address: str = "a") -> str | None:
        octets = token.encode() if isinstance(token, str) else token
        asker = self.tokens.asker_of(octets, 99, address)
        return None if asker is None else asker.user


def encoded(octets: bytes) -> bytes:
    return urlsafe_b64encode(octets).rstrip(b"=")


def made(claims: Any, header: Any = None) -> bytes:
    """Return a token of HS256 with any claims; octets stand for themselves."""
    header = {"alg": "HS256", "typ": "JWT"} if header is None else header
    parts = [p if isinstance(p, bytes) else json.dumps(p).encode() for p in (header, claims)]
    signed = b".".join(encoded(part) for part in parts)
    return signed + b"." + encoded(hmac.digest(key_pair("HS256")[0], signed, "sha256"))


@pytest.mark.parametrize("method", METHODS)
def test_what_a_member_signs_it_believes_with_the_revision_it_was_signed_under(
    method: str,
) -> None:
    rig = Rig(method)
    token = rig.tokens.sign("ann", 7).encode()
    assert rig.another().asker_of(token, 99, "") == Asker("ann", 7)
    # As long as it lives, verified once or not.
    rig.now_s = int(NOW_S) + TTL_S - 0.001
    assert rig.user_of(token) == "ann"
    rig.now_s += 0.001
    assert rig.user_of(token) is None
    assert Rig(method).user_of(token) == "ann"


@pytest.mark.parametrize("method", METHODS)
def test_who_has_the_public_key_only_verifies(method: str) -> None:
    rig = Rig(method)
    token = rig.tokens.sign("ann", 7)
    _, public = key_pair(method)
    if not public:
        return
    rig.current = load_key(method, b"", public)
    assert rig.user_of(token) == "ann"
    with pytest.raises(VerifyOnlyError):
        rig.tokens.sign("ann", 7)


@pytest.mark.parametrize("method", METHODS)
def test_a_changed_or_foreign_token_is_nobody_s(method: str) -> None:
    rig = Rig(method)
    token = rig.tokens.sign("ann", 7)
    header, claims, signature = token.split(".")
    assert rig.user_of(f"{header}.{claims[:-2]}AA.{signature}") is None
    assert rig.user_of(f"{header}.{claims}.{signature[:-4]}") is None
    assert rig.user_of(f"{header}.{claims}.") is None
    assert rig.user_of(f"{header}.{claims}") is None
    rig.current = load_key(method, key_pair(method, 1)[0], b"")
    assert rig.user_of(token) is None


@pytest.mark.parametrize("other", [m for m in METHODS if m != "HS256"] + ["none", "hs256"])
def test_a_token_does_not_choose_its_method(other: str) -> None:
    rig = Rig()
    claims = {"username": "ann", "revision": 7}
    assert rig.user_of(made(claims)) == "ann"
    assert rig.user_of(made(claims, {"alg": other})) is None


def test_a_public_key_is_no_secret() -> None:
    """The oldest trick: HS with the octets of the public key."""
    rig = Rig("RS256")
    public = key_pair("RS256")[1]
    parts = encoded(b'{"alg":"HS256"}') + b"." + encoded(b'{"username":"root","revision":9}')
    assert rig.user_of(parts + b"." + encoded(hmac.digest(public, parts, "sha256"))) is None


@pytest.mark.parametrize(
    "token",
    [
        "", ".", "..", "...", "letters.17", "a.b.c", "é.b.c", "\0.\0.\0",
        encoded(b"{}") + b"..", encoded(b"[" * 700) + b".e30.AAAA",
    ],
)  # fmt: skip
def test_what_is_no_token_at_all_is_nobody_s(token: str | bytes) -> None:
    assert Rig().user_of(token) is None


def test_sizes_are_looked_at_before_anything_is_parsed() -> None:
    rig = Rig()

    def with_header_of(size: int) -> bytes:
        room = size * 3 // 4 - len(b'{"alg":"HS256","x":""}')
        token = made(
            {"username": "ann", "revision": 7}, b'{"alg":"HS256","x":"%b"}' % (b"x" * room)
        )
        assert token.index(b".") == size
        return token

    assert rig.user_of(with_header_of(HEADER_SIZE_MAX)) == "ann"
    assert rig.user_of(with_header_of(HEADER_SIZE_MAX + 2)) is None

    def of(size: int) -> bytes:
        rest = len(made({"username": "ann", "revision": 7, "x": ""}))
        return made({"username": "ann", "revision": 7, "x": "x" * ((size - rest) * 3 // 4)})

    assert TOKEN_SIZE_MAX - 4 < len(of(TOKEN_SIZE_MAX)) <= TOKEN_SIZE_MAX
    assert rig.user_of(of(TOKEN_SIZE_MAX)) == "ann"
    assert rig.user_of(of(TOKEN_SIZE_MAX + 8)) is None
    assert rig.user_of(b"x" * 8_000_000) is None


NAMED = {"username": "ann", "revision": 7}


@pytest.mark.parametrize(
    "claims",
    [
        NAMED,
        {**NAMED, "revision": 7.9},
        {**NAMED, "exp": 0},
        {**NAMED, "exp": 1_000_001},
        {**NAMED, "nbf": 1_000_000.9},
        {**NAMED, "nbf": 0},
        {**NAMED, "aud": "others", "iss": 3, "iat": 9e9, "sub": None},
    ],
)
def test_claims_that_real_members_believe(claims: dict[str, Any]) -> None:
    assert Rig().tokens.asker_of(made(claims), 99, "") == Asker("ann", 7)


@pytest.mark.parametrize(
    "claims",
    [
        b"", b"null", b"[]", b"no json", b'{"username":"ann","revision":NaN}', b"[" * 5000,
        b'{"username":"ann","revision":1e999}', b'{"username":"\\ud800","revision":7}',
        b'{"username":"ann","revision":1' + b"0" * 400 + b"}",
        {}, {"username": "ann"}, {"revision": 7}, {"username": 1, "revision": 7},
        {"username": None, "revision": 7}, {"username": "ann", "revision": "7"},
        {"username": "ann", "revision": True}, {"username": "ann", "revision": -1},
        {"username": "ann", "revision": 1 << 64},
        {**NAMED, "exp": "9999999999"}, {**NAMED, "exp": None}, {**NAMED, "exp": 1_000_000},
        {**NAMED, "exp": 1_000_000.9}, {**NAMED, "exp": -1}, {**NAMED, "nbf": 1_000_001},
        {**NAMED, "nbf": "1"},
    ],
)  # fmt: skip
def test_claims_that_are_not_believed(claims: Any) -> None:
    assert Rig().user_of(made(claims)) is None


def test_another_key_ends_what_was_verified_with_the_old_one() -> None:
    rig = Rig()
    token = rig.tokens.sign("ann", 7)
    assert rig.user_of(token) == "ann"
    rig.current = load_key("HS256", b"another", b"")
    assert rig.user_of(token) is None
    assert rig.user_of(rig.tokens.sign("ann", 7)) == "ann"


def test_no_more_than_so_many_verified_tokens_are_kept() -> None:
    rig = Rig(known_max=2)
    signer = rig.another()
    tokens = [signer.sign(name, 1) for name in ("ann", "bob", "cec")]
    assert [rig.user_of(token) for token in tokens] == ["ann", "bob", "cec"]
    assert len(rig.tokens) == 2
    assert [rig.user_of(token) for token in tokens] == ["ann", "bob", "cec"]


def test_a_token_that_is_over_is_not_kept() -> None:
    rig = Rig()
    token = rig.tokens.sign("ann", 7)
    assert rig.user_of(token) == "ann"
    rig.now_s += TTL_S + 1
    assert rig.user_of(token) is None
    assert len(rig.tokens) == 0


def test_bad_tokens_of_an_address_are_verified_now_and_then_only() -> None:
    rig = Rig()
    signer = rig.another()
    good, late = signer.sign("ann", 7), signer.sign("bob", 7)
    assert rig.user_of(good) == "ann"
    for number in range(REFUSED_MAX):
        assert rig.user_of(f"a.b.{number}") is None
    # What was verified stays so; from elsewhere everything is looked at.
    assert rig.user_of(good) == "ann"
    assert rig.user_of(late) is None
    assert rig.user_of(late, "b") == "bob"
    assert rig.user_of(late) == "bob"
    other = signer.sign("cec", 7)
    assert rig.user_of(other) is None
    rig.mono_s += 1 / REFUSED_PER_S
    assert rig.user_of(other) == "cec"


def test_who_was_given_a_token_here_is_known_whatever_others_try() -> None:
    rig = Rig()
    for number in range(REFUSED_MAX):
        assert rig.user_of(f"a.b.{number}") is None
    assert rig.user_of(rig.tokens.sign("ann", 7)) == "ann"
