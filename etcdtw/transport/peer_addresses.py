"""The addresses that the members' URLs lead to, kept up to date.

Names are looked up when they are new and again every `LOOKUP_INTERVAL_S`; what was found last
counts while a look-up fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from etcdtw.cluster.urls import UrlError, parse_url
from etcdtw.transport.tls_addresses import NameLookup, plain_address

LOOK_INTERVAL_MS: Final = 1_000
"""The members' URLs are compared with what is known this often."""
LOOKUP_INTERVAL_S: Final = 60
NAMES_MAX: Final = 64
"""Host names that are looked up; the rest of a very large cluster are strangers."""


class MemberAddresses:
    """Tells members' addresses from strangers'.  ``urls`` returns the members' of the moment."""

    def __init__(self, lookup: NameLookup, urls: Callable[[], Iterable[str]]) -> None:
        self._lookup = lookup
        self._urls = urls
        self._literals: frozenset[str] = frozenset()
        self._names: dict[str, Sequence[str]] = {}
        self._asked_ms: dict[str, int] = {}
        self._looked_ms = -LOOK_INTERVAL_MS

    def has(self, address: str) -> bool:
        """Whether a member's URL leads to ``address``."""
        return address in self._literals or any(address in found for found in self._names.values())

    def look(self, now_ms: int) -> None:
        """Follow the members' URLs; to be called often."""
        if now_ms - self._looked_ms < LOOK_INTERVAL_MS:
            return
        self._looked_ms = now_ms
        literals, names = _hosts(self._urls())
        self._literals = frozenset(literals)
        kept = names[:NAMES_MAX]
        self._names = {name: self._names.get(name, ()) for name in kept}
        self._asked_ms = {name: at for name, at in self._asked_ms.items() if name in self._names}
        for name in kept:
            asked_ms = self._asked_ms.get(name)
            if asked_ms is None or now_ms - asked_ms >= LOOKUP_INTERVAL_S * 1000:
                self._asked_ms[name] = now_ms
                Deferred.fromCoroutine(self._resolve(name)).addErrback(_unknown)

    async def _resolve(self, name: str) -> None:
        found: Awaitable[Sequence[str]] = self._lookup.addresses_of(name)
        addresses = tuple(await found)
        if name in self._names:
            self._names[name] = addresses


def _hosts(urls: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the addresses and the names in ``urls``, each once, in order."""
    literals: dict[str, None] = {}
    names: dict[str, None] = {}
    for text in urls:
        try:
            url = parse_url(text)
        except UrlError:
            continue
        if url.is_unix or not url.host:
            continue
        try:
            literals[plain_address(url.host)] = None
        except ValueError:
            names[url.host] = None
    return list(literals), list(names)


def _unknown(failure: Failure) -> None:
    """A name that cannot be looked up now: what was known counts on."""
