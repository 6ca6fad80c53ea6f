"""`Moment`: the values of a `ById` as they were once, while it goes on changing.

Not compiled: it is referred to weakly, which native classes are not.
"""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class Moment(Generic[V]):
    """The values of one moment, taken later, a dict at a time.

    Taking a million at once would take 40 ms; before a dict changes it is copied.
    """

    __slots__ = ("__weakref__", "_at", "_kept", "_shards", "count")

    def __init__(self, shards: list[dict[int, V]], count: int) -> None:
        self._shards = shards
        self._at = 0
        self._kept: dict[int, list[V]] = {}
        self.count = count

    @property
    def is_done(self) -> bool:
        """Whether all are taken."""
        return self._at == len(self._shards)

    def take(self) -> list[V]:
        """Return some that were not taken before, maybe none."""
        at = self._at
        self._at += 1
        kept = self._kept.pop(at, None)
        return list(self._shards[at].values()) if kept is None else kept

    def keep(self, at: int) -> None:
        """The dict at this place is about to change."""
        if at >= self._at and at not in self._kept:
            self._kept[at] = list(self._shards[at].values())
