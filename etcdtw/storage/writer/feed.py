"""The seam to the process that owns the write side of `state/`, and the writer within a process.

A message is a tuple whose first item is one of the constants here; an answer likewise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from etcdtw.storage.rows.tables import Tables
from etcdtw.storage.writer.worker import StateWorker

Message = tuple[Any, ...]


class StateWriter(Protocol):
    """Carries messages to the writer, in order, and its answers back to the reactor's thread."""

    def start(self, receive: Callable[[Message], None]) -> None: ...

    def send(self, message: Message) -> None:
        """Take a message; its content may change as soon as this returns."""
        ...

    def soon(self, then: Callable[[], None]) -> None:
        """Call ``then`` when the reactor has served others; not after `close`."""
        ...

    def close(self) -> None:
        """Let the writer finish what it has and end; no answer arrives afterwards."""
        ...


class InlineStateWriter:
    """Does the writer's work at once, in the caller's process.  For tests and small tools.

    ``is_held`` keeps messages until `release`, so that a test decides when they are durable.
    """

    def __init__(self, tables: Tables, map_size: int, is_held: bool = False) -> None:
        self._worker = StateWorker(tables, map_size, self._answer)
        self._receive: Callable[[Message], None] | None = None
        self._held: list[Message] = []
        self.is_held = is_held
        self._is_releasing = False
        self._later: list[Callable[[], None]] = []
        self._is_going_on = False

    def start(self, receive: Callable[[Message], None]) -> None:
        self._receive = receive

    def send(self, message: Message) -> None:
        if message[0] == "attachments":
            message = ("attachments", list(message[1]))
        self._held.append(message)
        if not self.is_held:
            self.release()

    def release(self) -> None:
        """Do what was held back, and all background work that follows from it.

        What an answer makes its receiver send comes behind, as with a writer elsewhere.
        """
        if self._is_releasing:
            return
        self._is_releasing = True
        try:
            while self._held:
                self._worker.receive(self._held.pop(0))
                while self._worker.has_work():
                    self._worker.work()
        finally:
            self._is_releasing = False

    def soon(self, then: Callable[[], None]) -> None:
        """Nobody else is to be served: call it at once, though behind what calls this."""
        self._later.append(then)
        if self._is_going_on:
            return
        self._is_going_on = True
        try:
            while self._later:
                self._later.pop(0)()
        finally:
            self._is_going_on = False

    def close(self) -> None:
        self._receive = None

    def _answer(self, message: Message) -> None:
        if self._receive is not None:
            self._receive(message)
