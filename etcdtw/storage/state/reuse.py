"""What of the state's file can be used again by large values, as its writer says when asked."""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.storage.disk.room import state_need
from etcdtw.storage.writer.worker import MEASURE


class Reuse:
    """Asks once at a time; what is committed since an answer may have used up what that told."""

    def __init__(self, send: Callable[[tuple[str, int]], None]) -> None:
        self._send = send
        self._row = 0
        self._octets = 0
        """In rows of that many pages."""
        self._is_asked = False

    def octets(self, row: int) -> int:
        """Return what there is in rows of so many pages, at the least, and ask for the next time.

        0 before the first answer for so many.
        """
        if not self._is_asked:
            self._is_asked = True
            self._send((MEASURE, row))
        return self._octets if row <= self._row else 0

    def told(self, row: int, octets: int) -> None:
        self._is_asked = False
        self._row, self._octets = row, octets

    def committed(self, octets: int, changes: int, in_use: int) -> None:
        """Take off what these changes may have used."""
        if self._octets:
            self._octets = max(0, self._octets - state_need(octets, changes, in_use))
