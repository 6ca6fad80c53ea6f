"""The syntax of ``--auth-token``: ``simple``, or ``jwt`` with its options.

Source: etcd's ``--auth-token``; its errors end in its texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from etcdtw.config.flags import FlagError
from etcdtw.config.govalues import NS_PER_S, ValueTextError, parse_duration_ns

SIMPLE: Final = "simple"
JWT: Final = "jwt"
METHODS: Final = (
    *(f"{family}{size}" for family in ("RS", "PS", "ES", "HS") for size in (256, 384, 512)),
    "EdDSA",
)
JWT_TTL_S: Final = 300.0
_KNOWN: Final = frozenset(("sign-method", "pub-key", "priv-key", "ttl"))
_INVALID_OPTIONS: Final = "auth: invalid auth options"


@dataclass(frozen=True)
class AuthToken:
    """What tokens are.  All but ``kind`` is about ``jwt``; files are paths, empty for none.

    ``unknown``: options that mean nothing.
    """

    kind: str
    sign_method: str = ""
    public_key_file: str = ""
    private_key_file: str = ""
    ttl_s: float = JWT_TTL_S
    unknown: tuple[str, ...] = ()


def parse_auth_token(text: str) -> AuthToken:
    """Parse the flag's value.  Raises `FlagError`."""
    kind, *options = text.split(",")
    given: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or "=" in value:
            raise _refused(f"each option is name=value, which {option!r} is not")
        if name in given:
            raise _refused(f"{name} is given twice")
        given[name] = value
    if kind == SIMPLE:
        return AuthToken(SIMPLE)
    if kind != JWT:
        raise _refused(f"{kind!r} is no kind of tokens: {SIMPLE} or {JWT}")
    try:
        ttl_ns = parse_duration_ns(given["ttl"]) if given.get("ttl") else None
    except ValueTextError as error:
        raise _refused(f"ttl is a duration as 10m, which {given['ttl']!r} is not") from error
    method = given.get("sign-method", "")
    if method not in METHODS:
        raise _refused(f"sign-method is {method!r}, and must be one of {', '.join(METHODS)}")
    return AuthToken(
        JWT,
        method,
        given.get("pub-key", ""),
        given.get("priv-key", ""),
        JWT_TTL_S if ttl_ns is None else ttl_ns / NS_PER_S,
        tuple(name for name in given if name not in _KNOWN),
    )


def _refused(why: str) -> FlagError:
    return FlagError(f"--auth-token: {why} ({_INVALID_OPTIONS})")
