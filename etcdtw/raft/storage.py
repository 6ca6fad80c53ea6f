"""The seams between Raft and the disk: what the core reads, and where a shell appends.

`Storage` is read by the core, synchronously.  `LogStore` adds the write side, used by the
node only: an append answers through a callback once it is durable, never before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from etcdtw.raft.entry import ConfState, Entry, HardState, Snapshot


class CompactedError(Exception):
    """The asked-for log index lies before the first index kept."""


class UnavailableError(Exception):
    """The asked-for log index lies behind the last index stored."""


class Storage(Protocol):
    """The stable part of the log.

    The dummy position ``first_index() - 1`` keeps its term, so that a leader can still
    match a follower there; entries before it are compacted.
    """

    def initial_state(self) -> tuple[HardState, ConfState]:
        """Return what a restart begins with; zeros and empty for a new member."""
        ...

    def entries(self, low: int, high: int, size_max: int) -> list[Entry]:
        """Return entries ``[low, high)``, at least one, then as many as fit ``size_max`` octets.

        Raises `CompactedError` when ``low < first_index()``, `UnavailableError` when
        ``high > last_index() + 1``.
        """
        ...

    def term(self, index: int) -> int:
        """Return the term of ``index``, from ``first_index() - 1`` to ``last_index()``."""
        ...

    def first_index(self) -> int: ...

    def last_index(self) -> int: ...

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot's mark."""
        ...


class LogStore(Storage, Protocol):
    """The log on disk.  Any failed commit ends the process; no error reaches the caller."""

    def recent_index(self) -> int:
        """Return the first of the newest entries that are at hand; a few MiB of them."""
        ...

    def appended_octets(self) -> int:
        """Return what was found at the start and appended since, with a share for each entry.

        Only the difference of two says something: what lies between them.
        """
        ...

    def append(
        self, hard_state: HardState | None, entries: Sequence[Entry], done: Callable[[], None]
    ) -> None:
        """Make ``hard_state`` and ``entries`` durable in one transaction, then call ``done``.

        The first entry may overwrite: everything at or behind its index is replaced in the
        same transaction.  Calls complete in order.  ``done`` may be called before this
        returns (an inline commit) or later from the reactor; the entries are readable
        through `Storage` at the latest when it is called.
        """
        ...

    def put_snapshot(self, snapshot: Snapshot, done: Callable[[], None]) -> None:
        """Say durably what a snapshot would stand for; before entries up to it are forgotten."""
        ...

    def install_snapshot(
        self, hard_state: HardState, snapshot: Snapshot, done: Callable[[], None]
    ) -> None:
        """Let ``snapshot`` stand for the whole log, in one transaction, then call ``done``."""
        ...

    def compact(self, index: int) -> None:
        """Forget entries up to and including ``index``, in bounded steps."""
        ...
