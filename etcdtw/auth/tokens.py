"""Simple tokens: a few letters that stand for a user for a while.  Each member keeps its own.

They are handed out through the log, so that all members know them; using one renews it; a restart
forgets them all.  ``letters.index``: whoever has applied the entry behind ``index`` knows it.

Source: etcd v3 api, ``--auth-token simple``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from etcdtw.wire.entry_header import Asker

TOKENS_MAX: Final = 100_000
"""Of one member; past it the one that was used longest ago is forgotten.  About 30 MB."""
RENEWED_MS: Final = 1000
"""How much later a token must end for a use to be noted; it lives that much longer (etcd looks
for those that are over once a second)."""
LETTERS_COUNT: Final = 16
LETTERS: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGITS_MAX: Final = 20
_INDEX_END: Final = 1 << 64


def token_text(letters: str, index: int) -> str:
    """Return the token that the entry behind ``index`` gives."""
    return f"{letters}.{index}"


def index_of(token: str) -> int | None:
    """Return the index that must be applied before this token can be known; None: it is none."""
    _, dot, digits = token.partition(".")
    if not dot or not digits.isascii() or not digits.isdecimal():
        return None
    digits = digits.lstrip("0") or "0"
    if len(digits) > _DIGITS_MAX:
        return None
    index = int(digits)
    return index if index < _INDEX_END else None


class _Token:
    """Whom a token stands for, as he was last asked about, and when it was last used."""

    __slots__ = ("asker", "used_ms")

    def __init__(self, asker: Asker, used_ms: int) -> None:
        self.asker = asker
        self.used_ms = used_ms


class SimpleTokens:
    """The tokens that one member knows.  Implements `seams.TokenEvents` and `seams.Tokens`.

    ``time_ms``: a clock that only goes forward.
    """

    def __init__(
        self, ttl_ms: int, time_ms: Callable[[], int], count_max: int = TOKENS_MAX
    ) -> None:
        self._time_ms = time_ms
        self._life_ms = ttl_ms + RENEWED_MS
        self._count_max = count_max
        # Used longest ago first; all live equally long, so these are over first, too.
        self._tokens: OrderedDict[bytes, _Token] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tokens)

    def assigned(self, token: str, user: str) -> None:
        """Let ``token`` stand for ``user`` from now on."""
        now_ms = self._time_ms()
        self._expire(now_ms)
        octets = token.encode()
        self._tokens[octets] = _Token(Asker(user), now_ms)
        self._tokens.move_to_end(octets)
        if len(self._tokens) > self._count_max:
            self._tokens.popitem(last=False)

    def asker_of(self, token: bytes, revision: int, address: str = "") -> Asker | None:
        """Return on whose behalf a call with ``token`` asks as of ``revision``; None: nobody's.

        Lets it live on.
        """
        found = self._tokens.get(token)
        if found is None:
            return None
        now_ms = self._time_ms()
        if now_ms - found.used_ms >= RENEWED_MS:
            if now_ms - found.used_ms > self._life_ms:
                del self._tokens[token]
                return None
            found.used_ms = now_ms
            self._tokens.move_to_end(token)
        asker = found.asker
        if asker.auth_revision != revision:
            asker = found.asker = Asker(asker.user, revision)
        return asker

    def _expire(self, now_ms: int) -> None:
        while self._tokens:
            token = next(iter(self._tokens))
            if now_ms - self._tokens[token].used_ms <= self._life_ms:
                break
            del self._tokens[token]

    def user_gone(self, user: str) -> None:
        """Forget all tokens of ``user``."""
        for token in [t for t, found in self._tokens.items() if found.asker.user == user]:
            del self._tokens[token]

    def disabled(self) -> None:
        """Forget all."""
        self._tokens.clear()
