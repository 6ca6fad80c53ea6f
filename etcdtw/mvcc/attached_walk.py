"""The keys of one lease, read in steps while puts and deletes go on.

A lease may have a million keys, and nobody is served while they are read.  What changes meanwhile
is told to the walk, so that at its end its list is the one of that moment.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

ReadDurable = Callable[[int, bytes, int], "tuple[list[bytes], bytes]"]
"""Returns up to so many of a lease's durable keys from a position on, and where to go on; the
position is empty at first, and at the end."""


class AttachedWalk:
    """One reading of a lease's keys.  Whoever began it ends it: `close`.

    ``recent``: the keys that came or went since what ``read`` reads, and which of it they did.
    """

    def __init__(
        self,
        lease_id: int,
        recent: dict[bytes, bool],
        read: ReadDurable,
        closed: Callable[[AttachedWalk], None],
    ) -> None:
        self.lease_id = lease_id
        self._recent = recent
        self._read = read
        self._closed = closed
        self._fresh = iter(recent.items())
        self._is_fresh_over = not recent
        self._is_read = False
        self._position = b""
        self._came: list[bytes] = []
        self._changed: dict[bytes, bool] = {}
        self.is_void = False
        """What was read is of no use: the state, or very much of it, was replaced at once."""

    def hear(self, key: bytes, is_attached: bool) -> None:
        """A key comes to the lease or leaves it."""
        self._changed[key] = is_attached
        if is_attached:
            self._came.append(key)

    @property
    def is_done(self) -> bool:
        """Whether every key that the lease has now was returned by a step."""
        return self._is_read and not self._came

    def step(self, limit: int) -> list[bytes]:
        """Return some more keys: about ``limit``, and those that came since the last step."""
        found = self.take_came()
        left = limit
        if not self._is_fresh_over:
            some = list(islice(self._fresh, limit))
            found += [key for key, is_attached in some if is_attached]
            left -= len(some)
            self._is_fresh_over = left > 0
        if left > 0 and not self._is_read:
            keys, self._position = self._read(self.lease_id, self._position, left)
            self._is_read = not self._position
            recent = self._recent
            found += [key for key in keys if key not in recent] if recent else keys
        return found

    def take_came(self) -> list[bytes]:
        """Return the keys that came since the last step."""
        came, self._came = self._came, []
        return came

    def kept(self, keys: list[bytes]) -> list[bytes]:
        """Return those of ``keys`` that neither came nor went since the walk began."""
        changed = self._changed
        return [key for key in keys if key not in changed] if changed else keys

    def came_to_stay(self) -> list[bytes]:
        """Return the keys that came since the walk began and are still there."""
        return [key for key, is_attached in self._changed.items() if is_attached]

    def close(self) -> None:
        """Hear no more."""
        self._closed(self)


class AttachedWalks:
    """The walks under way on one state."""

    def __init__(self) -> None:
        self.by_lease: dict[int, list[AttachedWalk]] = {}

    def begin(self, lease_id: int, recent: dict[bytes, bool], read: ReadDurable) -> AttachedWalk:
        """Begin to read the keys of a lease."""
        walk = AttachedWalk(lease_id, recent, read, self._forget)
        self.by_lease.setdefault(lease_id, []).append(walk)
        return walk

    def hear(self, lease_id: int, key: bytes, is_attached: bool) -> None:
        """Tell those who read this lease."""
        for walk in self.by_lease.get(lease_id, ()):
            walk.hear(key, is_attached)

    def void(self, lease_id: int) -> None:
        """The keys of a lease changed without a word of it."""
        for walk in self.by_lease.pop(lease_id, ()):
            walk.is_void = True

    def _forget(self, walk: AttachedWalk) -> None:
        walks = self.by_lease.get(walk.lease_id)
        if walks is not None and walk in walks:
            walks.remove(walk)
            if not walks:
                del self.by_lease[walk.lease_id]
