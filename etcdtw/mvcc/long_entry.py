"""Entries that touch very many keys: recognised before their first change, applied in steps.

Whoever applies catches `LongEntryError` and takes the steps; in between everybody reads the
state before the entry, and nothing else is applied.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from etcdtw.mvcc.applied import Applied

STEP_OCTETS_MAX: Final = 1 << 20
"""Octets of records read in one step; passed by at most one record."""


def ends_range(frames: list[bytes], keys_max: int) -> bool:
    """Whether nothing follows ``frames``, read up to ``keys_max`` and `STEP_OCTETS_MAX`."""
    return len(frames) < keys_max and sum(map(len, frames)) < STEP_OCTETS_MAX


Steps = Generator[None, None, Applied]
"""Each step is about a millisecond of work; the outcome is what the generator returns."""


class LongEntryError(Exception):
    """The entry is long.  Nothing was changed; ``steps`` applies it."""

    def __init__(self, steps: Steps) -> None:
        super().__init__("an entry touches very many keys")
        self.steps = steps
