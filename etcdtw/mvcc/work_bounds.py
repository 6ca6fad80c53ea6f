"""How much of one entry, or of one answer, is done in one go.  One `WorkBounds` per store."""

from __future__ import annotations

from typing import Final

LONG_KEYS_MIN: Final = 5_000
"""Keys of one delete, or attached to one lease, from which on its entry is long: about 10 ms."""
LONG_OCTETS_MIN: Final = 4 << 20
"""Octets of the records of one delete from which on its entry is long: some 10 ms, too."""
FEW_KEYS_MAX: Final = 4
"""Keys whose records are not looked at: a request put each of them."""
STEP_KEYS_MAX: Final = 500
"""Keys deleted in one step of a long entry: about 1 ms."""
SLICE_KEYS_MAX: Final = 5_000
"""Keys of one slice of an answer: about 2 ms of a cursor and a join."""
SLICE_PAST_KEYS_MAX: Final = 400
"""The same of an old revision, which is looked up key by key, or of parsed records: about 1 ms."""

TXN_ROWS_MAX: Final = 500
"""Keys that compares and ranges of one txn look at in one go: about 1 ms."""


class WorkBounds:
    """Counts of keys, and of octets; the product uses the defaults."""

    __slots__ = (
        "long_keys_min",
        "long_octets_min",
        "slice_keys_max",
        "slice_past_keys_max",
        "step_keys_max",
        "txn_rows_max",
    )

    def __init__(
        self,
        *,
        long_keys_min: int = LONG_KEYS_MIN,
        long_octets_min: int = LONG_OCTETS_MIN,
        step_keys_max: int = STEP_KEYS_MAX,
        slice_keys_max: int = SLICE_KEYS_MAX,
        slice_past_keys_max: int = SLICE_PAST_KEYS_MAX,
        txn_rows_max: int = TXN_ROWS_MAX,
    ) -> None:
        self.long_keys_min = long_keys_min
        self.long_octets_min = long_octets_min
        self.step_keys_max = step_keys_max
        self.slice_keys_max = slice_keys_max
        self.slice_past_keys_max = slice_past_keys_max
        self.txn_rows_max = txn_rows_max
