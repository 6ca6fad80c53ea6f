"""Signed tokens (JWT): who holds the key says who somebody is, and no member keeps anything.

The method is what the configuration says, whatever a token says of itself.  Nothing of a token is
parsed before its size is known to be small.

Source: etcd v3 api, ``--auth-token jwt``; golang-jwt's rules for times.
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, NamedTuple, NoReturn, Protocol

from jwt.algorithms import HMACAlgorithm
from jwt.api_jws import PyJWS
from jwt.exceptions import PyJWTError

from etcdtw.auth.errors import VerifyOnlyError
from etcdtw.rpc.auth.attempts import Buckets
from etcdtw.rpc.auth.token_keys import HMAC, TokenKey
from etcdtw.wire.entry_header import Asker

TOKEN_SIZE_MAX: Final = 16 * 1024
HEADER_SIZE_MAX: Final = 1024
"""Of the part that is parsed before the signature is known to be good."""
REFUSED_MAX: Final = 20
REFUSED_PER_S: Final = 20.0
"""Bad tokens of one address that are verified at once, and then a second: each takes up to 0.4 ms.
More are refused unseen, as are tokens from there that were not verified before."""
ADDRESSES_MAX: Final = 10_000
KNOWN_MAX: Final = 10_000
"""Tokens that are not verified again as long as they last.  About 10 MB of usual ones."""
SLOW_METHODS: Final = ("RS", "PS", "ES384", "ES512")
"""To sign with RSA takes 0.2 ms at 2048 bits and 1.3 at 4096.  The library holds the interpreter's
lock meanwhile: in a thread each signature is one short stop, instead of all that came at once."""
_REVISION_END: Final = 1 << 64
_HASHES: Final = {
    "HS256": HMACAlgorithm.SHA256,
    "HS384": HMACAlgorithm.SHA384,
    "HS512": HMACAlgorithm.SHA512,
}


class Keys(Protocol):
    """The key of now."""

    def key(self) -> TokenKey:
        """Return it: the same object as long as it is the same key."""
        ...


class _Secret(HMACAlgorithm):
    """A secret may be any octets: no method but this is taken, so that no key can be mistaken."""

    def prepare_key(self, key: str | bytes) -> bytes:
        assert isinstance(key, bytes)
        return key

    def check_key_length(self, key: Any) -> None:
        """etcd takes short ones."""


class _Known(NamedTuple):
    asker: Asker
    from_s: float
    until_s: float


class Signing(NamedTuple):
    """A token that is to be signed."""

    jws: PyJWS
    method: str
    key: TokenKey
    payload: bytes
    known: _Known

    def make(self) -> str:
        """Return the token; in any thread."""
        return self.jws.encode(self.payload, self.key.signing, algorithm=self.method)


class SignedTokens:
    """Signs and verifies.  Implements `seams.Tokens`.

    unix_s   the wall clock
    seconds  a clock that only goes forward
    """

    def __init__(
        self,
        method: str,
        keys: Keys,
        ttl_s: float,
        unix_s: Callable[[], float],
        seconds: Callable[[], float],
        known_max: int = KNOWN_MAX,
    ) -> None:
        self._method = method
        self._keys = keys
        self._key = keys.key()
        self._ttl_s = ttl_s
        self._unix_s = unix_s
        self._seconds = seconds
        self._refused = Buckets(REFUSED_MAX, REFUSED_PER_S, ADDRESSES_MAX)
        self._known_max = known_max
        # Verified longest ago first.
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        if method.startswith(HMAC):
            self._jws = PyJWS(algorithms=[])
            self._jws.register_algorithm(method, _Secret(_HASHES[method]))
        else:
            self._jws = PyJWS(algorithms=[method])

    def __len__(self) -> int:
        """Return how many tokens need not be verified again."""
        return len(self._known)

    @property
    def is_slow(self) -> bool:
        """Whether to sign takes too long for the reactor."""
        return self._method.startswith(SLOW_METHODS)

    def begin(self, user: str, revision: int) -> Signing:
        """Begin a token for ``user`` as of a revision of users and roles.

        Raises `VerifyOnlyError`.
        """
        self._look()
        if self._key.signing is None:
            raise VerifyOnlyError()
        until_s = math.floor(self._unix_s() + self._ttl_s)
        claims = {"username": user, "revision": revision, "exp": until_s}
        payload = json.dumps(claims, separators=(",", ":")).encode()
        known = _Known(Asker(user, revision), -math.inf, until_s)
        return Signing(self._jws, self._method, self._key, payload, known)

    def signed(self, signing: Signing, token: str) -> None:
        """A token is made: it need not be verified when it is shown."""
        self._look()
        if signing.key is self._key:
            self._keep(token.encode(), signing.known)

    def sign(self, user: str, revision: int) -> str:
        """Return a token: `begin`, `Signing.make` and `signed` in one go."""
        signing = self.begin(user, revision)
        token = signing.make()
        self.signed(signing, token)
        return token

    def asker_of(self, token: bytes, revision: int, address: str) -> Asker | None:
        """Return whom ``token`` names, with the revision that it names; None: nobody."""
        self._look()
        known = self._known.get(token) or self._verified_for(address, token)
        if known is None:
            return None
        if known.from_s <= self._unix_s() < known.until_s:
            return known.asker
        self._known.pop(token, None)
        return None

    def _look(self) -> None:
        key = self._keys.key()
        if key is not self._key:
            self._key = key
            self._known.clear()

    def _verified_for(self, address: str, token: bytes) -> _Known | None:
        now_s = self._seconds()
        if self._refused.is_full(address, now_s):
            return None
        known = self._verified(token)
        if known is None:
            self._refused.add(address, now_s)
        return known

    def _verified(self, token: bytes) -> _Known | None:
        if len(token) > TOKEN_SIZE_MAX or not 0 < token.find(b".") <= HEADER_SIZE_MAX:
            return None
        try:
            payload = self._jws.decode(token, self._key.verifying, algorithms=[self._method])
            known = _known(json.loads(payload, parse_constant=_no_number))
        except (PyJWTError, ValueError, OverflowError, RecursionError):
            return None
        if known is not None:
            self._keep(token, known)
        return known

    def _keep(self, token: bytes, known: _Known) -> None:
        self._known[token] = known
        if len(self._known) > self._known_max:
            self._known.popitem(last=False)


def _known(claims: Any) -> _Known | None:
    """Return what a token's claims come to; None: nothing."""
    if not isinstance(claims, dict):
        return None
    user: Any = claims.get("username")
    revision: Any = claims.get("revision")
    until_s, from_s = claims.get("exp", 0), claims.get("nbf", 0)
    if not isinstance(user, str) or not all(map(_is_number, (revision, until_s, from_s))):
        return None
    if not 0 <= revision < _REVISION_END:
        return None
    user.encode()  # half of a pair is nobody's name: a ValueError
    # A time of 0 is none.
    return _Known(
        Asker(user, int(revision)), math.trunc(from_s), math.trunc(until_s) if until_s else math.inf
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")
