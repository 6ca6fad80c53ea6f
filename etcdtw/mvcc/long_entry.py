"""Entries that touch very many keys: recognised before their first change, applied in steps.

Whoever applies catches `LongEntryError` and takes the steps; in between everybody reads the
state before the entry, and nothing else is applied.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
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


def is_long_delete(
    backend: LiveKeys, ranges: Iterable[tuple[bytes, bytes | None]], bounds: WorkBounds
) -> bool:
    """Whether deleting ``ranges`` is long, by their keys or by the octets of their records."""
    keys = octets = 0
    for start, end in ranges:
        count = backend.count(start, end)
        keys += count
        if keys >= bounds.long_keys_min:
            return True
        if count > FEW_KEYS_MAX:
            # Nothing is copied to look at them.
            left = bounds.long_octets_min - octets
            octets += sum(map(len, backend.frames(start, end, 0, left)))
            if octets >= bounds.long_octets_min:
                return True
    return False


Steps = Generator[None, None, Applied]
"""Each step is about a millisecond of work; the outcome is what the generator returns."""


class LongEntryError(Exception):
    """The entry is long.  Nothing was changed; ``steps`` applies it."""

    def __init__(self, steps: Steps) -> None:
        super().__init__("an entry touches very many keys")
        self.steps = steps
