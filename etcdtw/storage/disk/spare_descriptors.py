"""Descriptors kept for the moment when the process has no other left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

SPARE_COUNT: Final = 4
"""What reading the state anew needs at most: its data and lock files, their directory, a look
at the file's head."""


class SpareDescriptors:
    """A few descriptors that can be let go when a file must be opened."""

    def __init__(self, count: int = SPARE_COUNT) -> None:
        self._count = count
        self._fds: list[int] = []
        self._fill()

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let go of them meanwhile; afterwards take back what can be had."""
        self.close()
        try:
            yield
        finally:
            self._fill()

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _fill(self) -> None:
        try:
            while len(self._fds) < self._count:
                self._fds.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            pass  # none is left: the next time will do
