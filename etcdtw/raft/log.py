"""One member's log: storage and the unstable tail as a single sequence, with its two marks.

    first_index .. applied_index <= applying_index <= commit_index <= last_index

``applying_index`` is what was handed out to be applied, ``applied_index`` what was reported
back.  Knows no roles and no messages.  Source: Ongaro's thesis, sections 3.5 and 3.6.
"""

from __future__ import annotations

from typing import Final

from etcdtw.raft.entry import Entry, Snapshot
from etcdtw.raft.errors import InvariantError
from etcdtw.raft.storage import CompactedError, Storage, UnavailableError
from etcdtw.raft.unstable import UNKNOWN_TERM, Unstable

NO_LIMIT: Final = 2**64 - 1
ENTRY_OVERHEAD: Final = 24  # octets: term, index and type of a stored entry, rounded up


def payload_size(entries: list[Entry]) -> int:
    """Return the octets of data in ``entries``, without what storing them adds."""
    return sum([len(entry.data) for entry in entries])


def stored_size(entries: list[Entry]) -> int:
    """Return the octets that ``entries`` count against a size limit."""
    return payload_size(entries) + ENTRY_OVERHEAD * len(entries)


def limit_size(entries: list[Entry], size_max: int) -> list[Entry]:
    """Return the longest head of ``entries`` within ``size_max`` octets, at least one entry."""
    if size_max >= NO_LIMIT:
        return entries
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.data) + ENTRY_OVERHEAD
        if size > size_max and count > 0:
            return entries[:count]
    return entries


class RaftLog:
    """The log of one member; the only writer of its marks."""

    def __init__(self, storage: Storage, applying_size_max: int) -> None:
        first_index = storage.first_index()
        self._storage = storage
        self.unstable = Unstable(storage.last_index())
        self.commit_index = first_index - 1
        self.applying_index = first_index - 1
        self.applied_index = first_index - 1
        self._applying_size = 0  # octets handed out and not reported back
        self._applying_size_max = applying_size_max
        self._applying_paused = False

    def first_index(self) -> int:
        snapshot = self.unstable.snapshot
        return snapshot.index + 1 if snapshot is not None else self._storage.first_index()

    def last_index(self) -> int:
        return self.unstable.last_index()

    def last_term(self) -> int:
        return self.term(self.last_index())

    def term(self, index: int) -> int:
        """Return the term at ``index``, from ``first_index() - 1`` to ``last_index()``.

        Raises `CompactedError` or `UnavailableError` outside that range.
        """
        term = self.unstable.term(index)
        if term != UNKNOWN_TERM:
            return term
        if index > self.last_index():
            raise UnavailableError
        if index < self.first_index() - 1:
            raise CompactedError
        return self._storage.term(index)

    def match_term(self, index: int, term: int) -> bool:
        """Return whether this log holds an entry of ``term`` at ``index``."""
        try:
            return self.term(index) == term
        except (CompactedError, UnavailableError):
            return False

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Return whether a log ending there is at least as new as this one (thesis 3.6.1)."""
        own_term = self.last_term()
        return last_term > own_term or (last_term == own_term and last_index >= self.last_index())

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """Return the last ``(index, term)`` here, at or before ``index``, with a term <= ``term``.

        No entry behind it can agree with a log whose term at ``index`` is ``term``.  The
        term is 0 when the position is compacted.
        """
        while index > 0:
            try:
                own_term = self.term(index)
            except (CompactedError, UnavailableError):
                return index, 0
            if own_term <= term:
                return index, own_term
            index -= 1
        return 0, 0

    def entries(self, low: int, size_max: int) -> list[Entry]:
        """Return entries from ``low`` to the end, at least one if any, within ``size_max``."""
        return self.slice(low, self.last_index() + 1, size_max)

    def slice(self, low: int, high: int, size_max: int) -> list[Entry]:
        """Return entries ``[low, high)``, at least one, cut at ``size_max`` octets.

        Raises `CompactedError` when ``low`` is no longer there.
        """
        if low >= high:
            return []
        unstable = self.unstable
        offset = unstable.offset
        if low >= offset:
            return limit_size(unstable.entries[low - offset : high - offset], size_max)
        if low < self.first_index():
            raise CompactedError
        cut = min(high, offset)
        stored = self._storage.entries(low, cut, size_max)
        if high <= offset or len(stored) < cut - low:
            return stored
        return limit_size(stored + unstable.entries[: high - offset], size_max)

    def append(self, entries: list[Entry]) -> int:
        """Append ``entries``, which may replace uncommitted ones; return the last index."""
        if entries:
            if entries[0].index <= self.commit_index:
                raise InvariantError(
                    f"entry {entries[0].index} would replace a committed one ({self.commit_index})"
                )
            self.unstable.append(entries)
        return self.last_index()

    def append_after(
        self, index: int, term: int, commit_index: int, entries: list[Entry]
    ) -> int | None:
        """Append what a leader sent behind ``(index, term)`` and follow its commit index.

        Entries that are already here stay.  Returns the last index that now agrees with
        the leader, or None when this log does not hold ``(index, term)``.
        """
        if not self.match_term(index, term):
            return None
        last_new_index = index + len(entries)
        start = 0
        if index != self.last_index():
            start = self._first_difference(entries)
        if start < len(entries):
            self.append(entries[start:] if start else entries)
        self.commit_to(min(commit_index, last_new_index))
        return last_new_index

    def _first_difference(self, entries: list[Entry]) -> int:
        for i, entry in enumerate(entries):
            if not self.match_term(entry.index, entry.term):
                return i
        return len(entries)

    def commit_to(self, index: int) -> None:
        """Raise the commit index to ``index``; it never falls."""
        if index > self.commit_index:
            if index > self.last_index():
                raise InvariantError(
                    f"commit index {index} is beyond the last index {self.last_index()}: "
                    "was the log truncated or lost?"
                )
            self.commit_index = index

    def maybe_commit(self, index: int, term: int) -> bool:
        """Commit up to ``index`` if that is new and of ``term`` (thesis 3.6.2)."""
        if index > self.commit_index and self.match_term(index, term):
            self.commit_index = index
            return True
        return False

    def restore(self, snapshot: Snapshot) -> None:
        """Replace everything by ``snapshot``."""
        self.commit_index = snapshot.index
        self.unstable.restore(snapshot)

    def _appliable_index(self, apply_unstable: bool) -> int:
        if apply_unstable:
            return self.commit_index
        return min(self.commit_index, self.unstable.stable_index)

    def has_committed_entries(self, apply_unstable: bool) -> bool:
        """Return whether `committed_entries` would return any."""
        return (
            not self._applying_paused
            and self.unstable.snapshot is None  # it must be installed before what follows
            and self.applying_index < self._appliable_index(apply_unstable)
        )

    def committed_entries(self, apply_unstable: bool) -> list[Entry]:
        """Return the next entries to apply, within what is left of the size limit."""
        if not self.has_committed_entries(apply_unstable):
            return []
        high = self._appliable_index(apply_unstable) + 1
        size_max = NO_LIMIT
        if self._applying_size_max < NO_LIMIT:
            size_max = self._applying_size_max - self._applying_size
        return self.slice(self.applying_index + 1, high, size_max)

    def accept_applying(self, entries: list[Entry], apply_unstable: bool) -> None:
        """Note that ``entries`` are handed out; pause when the size limit is used up."""
        index = entries[-1].index
        self.applying_index = index
        if self._applying_size_max < NO_LIMIT:
            self._applying_size += stored_size(entries)
            self._applying_paused = (
                self._applying_size >= self._applying_size_max
                or index < self._appliable_index(apply_unstable)
            )
        self.unstable.release_to(index)

    def applied_to(self, index: int, size: int) -> None:
        """Note that everything up to ``index`` is applied, ``size`` octets given back."""
        if not self.applied_index <= index <= self.commit_index:
            raise InvariantError(
                f"applied index {index} is outside {self.applied_index}..{self.commit_index}"
            )
        self.applied_index = index
        self.applying_index = max(self.applying_index, index)
        self.unstable.release_to(index)
        if self._applying_size_max < NO_LIMIT:
            self._applying_size = max(0, self._applying_size - size)
            self._applying_paused = self._applying_size >= self._applying_size_max

    def snapshot(self) -> Snapshot:
        """Return the newest snapshot: the one being installed, else storage's."""
        snapshot = self.unstable.snapshot
        return snapshot if snapshot is not None else self._storage.snapshot()
