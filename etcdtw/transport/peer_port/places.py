"""Who holds a place at the peer port, and who makes room for whom.

    a connection comes --> the pool of its address, if a member's URL leads there
                       else, the strangers' pool
    its certificate is verified --> the proved pool

Every pool is bounded; in a full one the newcomer takes the place of whoever has held one
longest and does least with it.  So those who only hold places lose them to those who come, and
strangers cannot take a member's at all.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Protocol

# What a place is used for, the first to be given up first.
UNUSED: Final = 0
"""Nothing is under way: no whole request has come, or it was answered."""
USED: Final = 1
KEPT: Final = 2
"""A stream of Raft: never given up to one of the same address."""

_PROVED: Final = "proved"
_STRANGERS: Final = "strangers"


@dataclass(frozen=True, kw_only=True)
class PlaceBounds:
    """How many connections there may be: in all, of one member's address, of strangers, and of
    one stranger's address."""

    total_max: int = 1024
    address_max: int = 128
    strangers_max: int = 128
    stranger_max: int = 32


class Holder(Protocol):
    """A connection that holds a place."""

    @property
    def use(self) -> int:
        """`UNUSED`, `USED` or `KEPT`."""
        ...

    def drop(self) -> None: ...


class Places:
    """The places of one port.  Pure: ``is_member`` tells whether an address is a member's."""

    def __init__(self, bounds: PlaceBounds, is_member: Callable[[str], bool]) -> None:
        self.bounds = bounds
        self.evicted = 0
        self._is_member = is_member
        self._pools: dict[Hashable, dict[Holder, str]] = {}
        self._pool_of: dict[Holder, Hashable] = {}

    def __len__(self) -> int:
        return len(self._pool_of)

    def take(self, holder: Holder, address: str) -> bool:
        """Give ``holder`` a place, or tell that it must go.  Others may be dropped for it.

        ``address`` without a port; empty for a Unix socket, which only who may write to its
        file can reach.
        """
        bounds = self.bounds
        key: Hashable = _STRANGERS
        bound = bounds.strangers_max
        if not address or self._is_member(address):
            key, bound = ("address", address), bounds.address_max
        pool = self._pools.get(key, {})
        if key == _STRANGERS:
            same = {one: host for one, host in pool.items() if host == address}
            if len(same) >= bounds.stranger_max and not self._make_room(same):
                return False
        if len(pool) >= bound and not self._make_room(pool):
            return False
        # When all is full strangers go first, whatever they do; then who shares the pool.
        if len(self) >= bounds.total_max and not (
            self._make_room(self._pools.get(_STRANGERS, {}), spares=KEPT + 1)
            or self._make_room(self._pools.get(key, {}))
        ):
            return False
        self._put(holder, address, key)
        return True

    def prove(self, holder: Holder) -> None:
        """``holder`` showed a certificate that the members' authority signed."""
        if holder in self._pool_of:
            address = self._pools[self._pool_of[holder]][holder]
            self.leave(holder)
            self._put(holder, address, _PROVED)

    def leave(self, holder: Holder) -> None:
        """``holder`` is gone.  Says nothing when it has no place."""
        key = self._pool_of.pop(holder, None)
        if key is not None:
            pool = self._pools[key]
            del pool[holder]
            if not pool:
                del self._pools[key]

    def is_stranger(self, holder: Holder) -> bool:
        return self._pool_of.get(holder) == _STRANGERS

    def _put(self, holder: Holder, address: str, key: Hashable) -> None:
        self._pools.setdefault(key, {})[holder] = address
        self._pool_of[holder] = key

    def _make_room(self, pool: dict[Holder, str], spares: int = KEPT) -> bool:
        """Drop the longest-held of the least used places of ``pool``; those used ``spares`` or
        more stay."""
        found = None
        least = spares
        for holder in pool:
            if holder.use < least:
                found, least = holder, holder.use
                if not least:
                    break
        if found is None:
            return False
        self.leave(found)
        self.evicted += 1
        found.drop()
        return True
