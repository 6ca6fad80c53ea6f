"""The addresses that the members' URLs lead to, kept up to date.

Names are looked up when they are new and again every `LOOKUP_INTERVAL_S`; what was found last
counts while a look-up fails.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from twisted.internet.defer import Deferred

from etcdtw.cluster.urls import UrlError, parse_url
from etcdtw.transport.tls.addresses import NameLookup, TooManyLookupsError, plain_address

LOOK_INTERVAL_MS: Final = 1_000
"""The members' URLs are compared with what is known this often."""
LOOKUP_INTERVAL_S: Final = 60
LOOKUPS_AT_ONCE_MAX: Final = 4
"""Look-ups under way at once: dials and certificates need some, too."""
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
        self._running: set[str] = set()

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
        self._ask()

    def _ask(self) -> None:
        """Look up the names that are due, as many as may be at once: new ones, then the oldest."""
        asked_ms = self._asked_ms
        before_ms = self._looked_ms - LOOKUP_INTERVAL_S * 1000
        due = [name for name in self._names if asked_ms.get(name, before_ms) <= before_ms]
        due.sort(key=lambda name: asked_ms.get(name, -1))
        for name in due:
            if len(self._running) >= LOOKUPS_AT_ONCE_MAX:
                return
            if name not in self._running and asked_ms.get(name, before_ms) <= before_ms:
                asked_ms[name] = self._looked_ms
                self._running.add(name)
                Deferred.fromCoroutine(self._resolve(name))

    async def _resolve(self, name: str) -> None:
        try:
            found: Awaitable[Sequence[str]] = self._lookup.addresses_of(name)
            addresses = tuple(await found)
        except TooManyLookupsError:
            self._asked_ms.pop(name, None)  # it is due at the next look
            return
        except (OSError, ValueError):
            pass  # what was known counts on
        else:
            if name in self._names:
                self._names[name] = addresses
        finally:
            self._running.discard(name)
        self._ask()


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
