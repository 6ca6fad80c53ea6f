"""The keys attached to leases: the durable ones as the generations of the overlay changed them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence

from etcdtw.mvcc.attached_walk import AttachedWalk, AttachedWalks
from etcdtw.storage.state.overlay import Generation
from etcdtw.storage.state.reader import StateReader


class Attachments:
    """Answers for one state.  ``generations``: returns those that are in sight, oldest first."""

    def __init__(self, reader: StateReader, generations: Callable[[], list[Generation]]) -> None:
        self._durable = reader.attached
        self._generations = generations
        self._walks = AttachedWalks()

    def all(self, lease_id: int) -> list[bytes]:
        """Return the keys of a lease, sorted."""
        durable = self._durable(lease_id, b"", sys.maxsize)[0]
        return attached_keys(self._generations(), lease_id, durable)

    def has(self, lease_id: int, count: int) -> bool:
        """Whether a lease has ``count`` keys or more, or had until lately."""
        if attached_most(self._generations(), lease_id) >= count:
            return True
        return len(self._durable(lease_id, b"", count)[0]) >= count

    # Walks.

    def walk(self, lease_id: int) -> AttachedWalk:
        """Begin to read the keys of a lease in steps."""
        recent = attached_since(self._generations(), lease_id)
        return self._walks.begin(lease_id, recent, self._durable)

    def changed(self, lease_id: int, key: bytes, is_attached: bool) -> None:
        """Tell those who read this lease, if there are any."""
        if self._walks.by_lease:
            self._walks.hear(lease_id, key, is_attached)

    def published(self, generation: Generation) -> None:
        """What a long entry changed has come in sight, all at once."""
        for lease_id in list(self._walks.by_lease):
            if attached_most([generation], lease_id):
                self._walks.void(lease_id)

    def replaced(self) -> None:
        """Another state has taken the place of the one that was read."""
        for lease_id in list(self._walks.by_lease):
            self._walks.void(lease_id)


def attached_keys(
    generations: Sequence[Generation], lease_id: int, durable: Sequence[bytes]
) -> list[bytes]:
    """Return the keys of a lease, sorted: the durable ones as ``generations`` changed them."""
    recent = attached_since(generations, lease_id)
    keys = set(durable).difference(recent)
    keys.update([key for key, is_attached in recent.items() if is_attached])
    return sorted(keys)


def attached_most(generations: Sequence[Generation], lease_id: int) -> int:
    """Return how many keys of a lease ``generations`` changed, or a little more."""
    return sum([len(changed) for changed in _attachments(generations, lease_id)])


def attached_since(generations: Sequence[Generation], lease_id: int) -> dict[bytes, bool]:
    """Return which keys came to a lease, or left it, in ``generations``."""
    recent: dict[bytes, bool] = {}
    for changed in _attachments(generations, lease_id):
        recent.update(changed)
    return recent


def _attachments(generations: Sequence[Generation], lease_id: int) -> Iterator[dict[bytes, bool]]:
    """Yield what each part changed of a lease's keys, oldest first."""
    for generation in generations:
        for part in generation.parts():
            if lease_id in part.attached:
                yield part.attached[lease_id]
