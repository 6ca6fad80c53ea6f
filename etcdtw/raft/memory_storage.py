"""A `Storage` in memory, for tests and simulation.  The caller is the disk: it writes here."""

from __future__ import annotations

from etcdtw.raft.entry import ConfState, Entry, HardState, Snapshot
from etcdtw.raft.log import NO_LIMIT, limit_size
from etcdtw.raft.storage import CompactedError, UnavailableError


class MemoryStorage:
    """The stable part of one log.  Begins empty: ``first_index() == 1``, ``last_index() == 0``."""

    def __init__(self) -> None:
        self.hard_state = HardState()
        self._snapshot = Snapshot()
        self._entries: list[Entry] = []
        self._dummy_index = 0  # the position just before the first entry
        self._dummy_term = 0
        self._appended_octets = 0

    def initial_state(self) -> tuple[HardState, ConfState]:
        return self.hard_state, self._snapshot.conf_state

    def first_index(self) -> int:
        return self._dummy_index + 1

    def recent_index(self) -> int:
        """Nothing is at hand that would cost anything."""
        return self.last_index() + 1

    def appended_octets(self) -> int:
        return self._appended_octets

    def last_index(self) -> int:
        return self._dummy_index + len(self._entries)

    def term(self, index: int) -> int:
        position = index - self._dummy_index
        if position < 0:
            raise CompactedError
        if position > len(self._entries):
            raise UnavailableError
        return self._dummy_term if position == 0 else self._entries[position - 1].term

    def entries(self, low: int, high: int, size_max: int = NO_LIMIT) -> list[Entry]:
        if low <= self._dummy_index:
            raise CompactedError
        if high > self.last_index() + 1:
            raise UnavailableError
        first = self._dummy_index + 1
        return limit_size(self._entries[low - first : high - first], size_max)

    def snapshot(self) -> Snapshot:
        return self._snapshot

    def set_hard_state(self, hard_state: HardState) -> None:
        self.hard_state = hard_state

    def append(self, entries: list[Entry]) -> None:
        """Append ``entries``, replacing everything at and behind the first one's index."""
        if not entries:
            return
        position = entries[0].index - self._dummy_index - 1
        assert position <= len(self._entries), "a gap in the log"
        if position < 0:  # its head is compacted here
            entries = entries[-position:]
            position = 0
        if entries:
            self._entries[position:] = entries
            self._appended_octets += sum([len(entry.data) for entry in entries])

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Replace the whole log by ``snapshot``.  Raises `CompactedError` if it is not newer."""
        if snapshot.index <= self._snapshot.index:
            raise CompactedError
        self._snapshot = snapshot
        self._entries = []
        self._dummy_index = snapshot.index
        self._dummy_term = snapshot.term

    def create_snapshot(self, index: int, conf_state: ConfState, data: bytes) -> Snapshot:
        """Record a snapshot of the state at ``index``; the log stays as it is."""
        if index <= self._snapshot.index:
            raise CompactedError
        self._snapshot = Snapshot(index, self.term(index), conf_state, data)
        return self._snapshot

    def compact(self, index: int) -> None:
        """Forget entries up to and including ``index``; its term stays known."""
        if index <= self._dummy_index:
            raise CompactedError
        term = self.term(index)
        del self._entries[: index - self._dummy_index]
        self._dummy_index = index
        self._dummy_term = term
