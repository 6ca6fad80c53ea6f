"""`ById`: a dict of ids that grows and goes in small pieces, however many there are."""

from __future__ import annotations

from typing import Final, Generic, TypeVar
from weakref import ref

from etcdtw.lease.moment import Moment

SHARDS: Final = 251  # a prime: all bits of a hash count
"""Dicts.  Python copies a dict whole as it grows: one of a million ids in 25 to 80 ms, one of
these, of 4,000, in 0.1 ms."""
# Clients choose ids.  Hashes of bytes are salted per process, so that none can fill one dict.
_SALT: Final = hash(b"lease")

V = TypeVar("V")


class ById(Generic[V]):
    """As a dict of ints, but for the order, of which nothing may depend."""

    __slots__ = ("_moments", "_shards", "count")

    def __init__(self) -> None:
        self._shards: list[dict[int, V]] = [{} for _ in range(SHARDS)]
        self.count = 0
        self._moments: list[ref[Moment[V]]] = []

    def __len__(self) -> int:
        return self.count

    def __contains__(self, key: int) -> bool:
        return key in self._shards[hash((_SALT, key)) % SHARDS]

    def __getitem__(self, key: int) -> V:
        return self._shards[hash((_SALT, key)) % SHARDS][key]

    def __setitem__(self, key: int, value: V) -> None:
        at = hash((_SALT, key)) % SHARDS
        if self._moments:
            self._keep(at)
        shard = self._shards[at]
        before = len(shard)
        shard[key] = value
        self.count += len(shard) - before

    def get(self, key: int) -> V | None:
        return self._shards[hash((_SALT, key)) % SHARDS].get(key)

    def pop(self, key: int) -> V | None:
        """Take one away; None: there was none."""
        at = hash((_SALT, key)) % SHARDS
        if self._moments:
            self._keep(at)
        value = self._shards[at].pop(key, None)
        if value is not None:
            self.count -= 1
        return value

    def _keep(self, at: int) -> None:
        """A dict is about to change: let those keep it who have yet to take it."""
        for moment in self._living():
            moment.keep(at)

    def _living(self) -> list[Moment[V]]:
        """Return the moments that somebody still takes from, and forget the others."""
        living = [moment for one in self._moments if (moment := one()) is not None]
        if len(living) < len(self._moments):
            self._moments = [ref(moment) for moment in living]
        return living

    def moment(self) -> Moment[V]:
        """Return the values of now, to be taken one after the other."""
        moment = Moment(self._shards, self.count)
        self._living()
        self._moments.append(ref(moment))
        return moment

    def bury(self, count: int) -> bool:
        """Free up to ``count``; True when nothing is left.  For one that is not used any more.

        What somebody still takes from is freed when that ends.
        """
        if self._living():
            return True
        shards = self._shards
        while shards:
            shard = shards[-1]
            some = min(count, len(shard))
            for _ in range(some):
                shard.popitem()
            if shard:
                return False
            shards.pop()
            count -= some
        return True
