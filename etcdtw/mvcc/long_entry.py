"""Entries that touch very many keys: recognised before their first change, applied in steps.

Whoever applies catches `LongEntryError` and takes the steps; in between everybody reads the
state before the entry, and nothing else is applied.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Final, Protocol

from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.work_bounds import FEW_KEYS_MAX, WorkBounds

STEP_OCTETS_MAX: Final = 1 << 20
"""Octets of records read in one step; passed by at most one record."""


def ends_range(frames: list[bytes], keys_max: int) -> bool:
    """Whether nothing follows ``frames``, read up to ``keys_max`` and `STEP_OCTETS_MAX`."""
    return len(frames) < keys_max and sum(map(len, frames)) < STEP_OCTETS_MAX


class LiveKeys(Protocol):
    """The part of the backend that is asked."""

    def count(self, start: bytes, end: bytes | None) -> int: ...

    def frames(
        self, start: bytes, end: bytes | None, limit: int = 0, octets_max: int = 0
    ) -> list[bytes]: ...


class DeleteLook:
    """What the deletes of one entry touch, looked at before any of them."""

    __slots__ = ("_backend", "_bounds", "_keys", "_octets", "is_long")

    def __init__(self, backend: LiveKeys, bounds: WorkBounds) -> None:
        self._backend = backend
        self._bounds = bounds
        self._keys = self._octets = 0
        self.is_long = False
        """Whether they are, by their keys or by the octets of their records."""

    def add(self, start: bytes, end: bytes | None) -> list[bytes] | None:
        """Look at one range; return all its frames where they had to be read for that."""
        bounds = self._bounds
        count = self._backend.count(start, end)
        self._keys += count
        if self._keys >= bounds.long_keys_min:
            self.is_long = True
        elif count and self._keys > FEW_KEYS_MAX:
            # Nothing is copied to look at them.
            left = bounds.long_octets_min - self._octets
            frames = self._backend.frames(start, end, 0, left)
            self._octets += sum(map(len, frames))
            if self._octets < bounds.long_octets_min:
                return frames
            self.is_long = True
        return None


def is_long_delete(
    backend: LiveKeys, ranges: Iterable[tuple[bytes, bytes | None]], bounds: WorkBounds
) -> bool:
    """Whether deleting ``ranges`` is long, by their keys or by the octets of their records."""
    look = DeleteLook(backend, bounds)
    for start, end in ranges:
        look.add(start, end)
        if look.is_long:
            return True
    return False


Wait = Callable[[Callable[[], None]], None]
"""Calls what it is given when there is something to do again."""
Steps = Generator["Wait | None", None, Applied]
"""Each step is about a millisecond of work; the outcome is what the generator returns.

A step that yields a `Wait` has left the work to others."""


class LongEntryError(Exception):
    """The entry is long.  Nothing was changed; ``steps`` applies it."""

    def __init__(self, steps: Steps) -> None:
        super().__init__("an entry touches very many keys")
        self.steps = steps
