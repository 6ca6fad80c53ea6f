"""The end of the log that the core keeps in memory.

    ... storage ... | offset ...... stable_index ...... in_progress_index ...... last_index
                      durable, kept    being written       not handed out

Entries stay until they are durable *and* handed out for applying, so a commit right after
an append never reads the disk.  Knows neither commit index nor storage.
"""

from __future__ import annotations

from typing import Final

from etcdtw.raft.entry import Entry, Snapshot

# Bounds on what is kept although it is durable.  They are reached only while commits
# stand still (no quorum); what is dropped is read from storage again.
KEPT_ENTRIES_MAX: Final = 8192
KEPT_SIZE_MAX: Final = 32 * 1024 * 1024  # octets of payload

UNKNOWN_TERM: Final = -1


class Unstable:
    """The tail of one log.  Invariant: ``offset - 1 <= stable_index <= in_progress_index``.

    ``snapshot`` is one received from a leader and not yet durable; it stands for all
    entries before ``offset``.
    """

    def __init__(self, last_index: int) -> None:
        self.offset = last_index + 1
        self.entries: list[Entry] = []
        self.stable_index = last_index
        self.in_progress_index = last_index
        self.snapshot: Snapshot | None = None
        self.snapshot_in_progress = False
        self._size = 0  # octets of payload in `entries`
        self._released_index = last_index  # handed out for applying
        self._anchor_term: int = UNKNOWN_TERM  # of index offset - 1

    def last_index(self) -> int:
        return self.offset + len(self.entries) - 1

    def term(self, index: int) -> int:
        """Return the term at ``index``, or `UNKNOWN_TERM` if it is not kept here."""
        position = index - self.offset
        if position >= 0:
            return self.entries[position].term if position < len(self.entries) else UNKNOWN_TERM
        return self._anchor_term if position == -1 else UNKNOWN_TERM

    def next_entries(self) -> list[Entry]:
        """Return the entries that nobody was asked to write yet."""
        return self.entries[self.in_progress_index + 1 - self.offset :]

    def has_next_entries(self) -> bool:
        return self.in_progress_index < self.last_index()

    def has_unstable_entries(self) -> bool:
        return self.stable_index < self.last_index()

    def next_snapshot(self) -> Snapshot | None:
        return None if self.snapshot_in_progress else self.snapshot

    def accept_in_progress(self) -> None:
        """Note that everything is handed out for writing."""
        self.in_progress_index = self.last_index()
        if self.snapshot is not None:
            self.snapshot_in_progress = True

    def append(self, entries: list[Entry]) -> None:
        """Append ``entries``, replacing everything at and behind the first one's index."""
        first = entries[0].index
        end = self.last_index() + 1
        assert first <= end, "a gap in the log"
        if first < end:
            self._truncate(first)
        self.entries.extend(entries)
        self._size += sum([len(entry.data) for entry in entries])

    def _truncate(self, first: int) -> None:
        if first < self.offset:
            self.offset = first
            self.entries = []
            self._anchor_term = UNKNOWN_TERM
        else:
            del self.entries[first - self.offset :]
        self._size = sum([len(entry.data) for entry in self.entries])
        # The disk still holds the old ones; until overwritten, only this tail is right.
        self.stable_index = min(self.stable_index, first - 1)
        self.in_progress_index = min(self.in_progress_index, first - 1)

    def restore(self, snapshot: Snapshot) -> None:
        """Put ``snapshot`` in place of the whole log."""
        self.snapshot = snapshot
        self.snapshot_in_progress = False
        self.offset = snapshot.index + 1
        self.entries = []
        self._size = 0
        self.stable_index = self.in_progress_index = snapshot.index
        self._anchor_term = snapshot.term

    def stable_to(self, index: int, term: int) -> bool:
        """Note that the log up to ``(index, term)`` is durable.

        Returns False, changing nothing, when that entry has been replaced here since:
        the write that replaces it on disk is still to come.
        """
        if index <= self.stable_index:
            return False
        if index > self.last_index() or self.term(index) != term:
            return False
        self.stable_index = index
        self.in_progress_index = max(self.in_progress_index, index)
        self._drop_to(min(index, self._released_index))
        self._enforce_bounds()
        return True

    def stable_snapshot_to(self, index: int) -> None:
        if self.snapshot is not None and self.snapshot.index == index:
            self.snapshot = None
            self.snapshot_in_progress = False

    def release_to(self, index: int) -> None:
        """Note that entries up to ``index`` are handed out for applying."""
        if index > self._released_index:
            self._released_index = index
            self._drop_to(min(index, self.stable_index))

    def _drop_to(self, index: int) -> None:
        count = index + 1 - self.offset
        if count <= 0:
            return
        entries = self.entries
        self._anchor_term = entries[count - 1].term
        self.offset = index + 1
        if count == len(entries):
            self.entries = []
            self._size = 0
            return
        self._size -= sum([len(entry.data) for entry in entries[:count]])
        del entries[:count]

    def _enforce_bounds(self) -> None:
        durable = self.stable_index + 1 - self.offset
        if durable > KEPT_ENTRIES_MAX or self._size > KEPT_SIZE_MAX:
            # Half of it, so that the next append does not come back here.
            self._drop_to(self.stable_index - min(durable, KEPT_ENTRIES_MAX) // 2)
