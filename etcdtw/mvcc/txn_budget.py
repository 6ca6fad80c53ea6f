"""How much the compares and ranges of one txn may look at before the rest is left for later."""

from __future__ import annotations

from typing import Final

TXN_OCTETS_MAX: Final = 1 << 18
"""Octets of records that a txn looks at in one go; passed by at most one record."""


class TooMuchError(Exception):
    """The compares of a txn look at more than its budget: they have to take steps."""


class Budget:
    """What is left of it.  One per `Transactor`, filled for each txn."""

    __slots__ = ("octets_left", "rows_left")

    def __init__(self) -> None:
        self.rows_left = 0
        self.octets_left = 0

    def fill(self, rows_max: int) -> None:
        self.rows_left = rows_max
        self.octets_left = TXN_OCTETS_MAX
