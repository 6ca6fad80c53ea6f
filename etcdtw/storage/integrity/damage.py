"""What was found damaged in a running member's state, and what follows.

A row of `current` is answered from `history` and mended by the writer.  Anything else proves that
this state must not be served any more: nothing is applied to it or committed from then on, its
directory says so to the next start, and who listens hears of it.  Another state, received as a
snapshot, is trusted again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from twisted.logger import Logger

from etcdtw.storage.integrity.check import distrust
from etcdtw.storage.integrity.sweep import Finding
from etcdtw.storage.integrity.sweeper import DAMAGED, MEND, MENDED, SWEPT
from etcdtw.storage.rows.codec import TABLE_CURRENT
from etcdtw.storage.rows.seal import PageDamageError, StateDamageError

MENDS_MAX: Final = 64
"""Rows that wait to be mended; a sweep finds the others."""


class StateDamage:
    """The damage of one state."""

    log = Logger()

    def __init__(
        self,
        path: Path,
        send: Callable[[tuple[Any, ...]], None],
        frozen: Callable[[], None],
    ) -> None:
        """``send``: to the writer.  ``frozen`` is called when nothing more is to be expected."""
        self._path = path
        self._send = send
        self._frozen = frozen
        self._mending: set[bytes] = set()
        self.proved = ""
        """Why this state must not be served; empty: nothing is known."""
        self._proved: Callable[[], None] = _nobody_hears
        self.mended_at_start = ""
        """What was found before anything was read, and made anew; empty: nothing."""
        self.rows_total = 0
        """Damaged rows that were read or swept."""
        self.mended_total = 0
        self.sweeps_total = 0

    def listen(self, proved: Callable[[], None]) -> None:
        """Call ``proved`` as soon as `proved` is known, before anything is answered."""
        self._proved = proved

    def hear(self, error: StateDamageError) -> None:
        """A read met a damaged row."""
        self.rows_total += 1
        if error.table != TABLE_CURRENT or isinstance(error, PageDamageError):
            self.prove(str(error))
        elif error.name not in self._mending and len(self._mending) < MENDS_MAX:
            self._mending.add(error.name)
            self._send((MEND, error.name))

    def receive(self, message: tuple[Any, ...]) -> None:
        """The writer tells what it mended, found or looked through."""
        kind = message[0]
        if kind == MENDED:
            self._mended(message[1], message[2])
        elif kind == DAMAGED:
            self.rows_total += 1
            self.prove(Finding(*message[1:]).text())
        elif kind == SWEPT:
            self.sweeps_total += 1

    def prove(self, why: str) -> None:
        """This state must not be served any more."""
        if self.proved:
            return
        self.proved = why
        with suppress(OSError):  # the disk may be full; a sweep would find it again
            distrust(self._path, why)
        self._frozen()
        self._proved()

    def forget(self) -> None:
        """It is another state from now on."""
        self._mending.clear()
        if self.proved:
            self.proved = ""
            with suppress(OSError):
                distrust(self._path, "")

    def _mended(self, name: bytes, error: str) -> None:
        self._mending.discard(name)
        if error:
            self.prove(error)
            return
        self.mended_total += 1
        self.log.warn(
            "a damaged row of the state was made anew from the key's history: {name}; "
            "look after this member's disk and memory",
            name=repr(name[:64]),
        )


KINDS: Final = (MENDED, DAMAGED, SWEPT)


def _nobody_hears() -> None:
    pass
