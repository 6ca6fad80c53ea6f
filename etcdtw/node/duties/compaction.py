"""Compactions of the log, by every member; those of history are in `duties.history`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from etcdtw.node.duties.lag import LogMarks
from etcdtw.node.duties.snapshots import Snapshots
from etcdtw.node.intake.seams import StateStore
from etcdtw.raft.entry import Snapshot
from etcdtw.raft.raw_node import RawNode
from etcdtw.raft.storage import LogStore

SHORT_ENTRIES: Final = 100
"""What a log keeps at least, and lets go at a time, while its disk is short."""
SILENT_MS: Final = 3_000
"""Nothing is kept for a member that has not answered for so long."""
FOLLOWER_KEPT_MS: Final = 120_000
"""So far back a member keeps entries that does not lead: who lacks which only a leader knows."""
TIGHT_OCTETS_MAX: Final = 32 << 20
"""The most that stays where the log's disk is tight, whatever for: the entries that always stay
(`--snapshot-catchup-entries`) may be more than it holds."""


class LogCompaction:
    """Drops entries that the state covers durably, but for those that peers may lack.

    A follower that takes no entries for a while, as one whose disk is full, is to go on with the
    log: a snapshot may find no room, neither there nor here.  Where the log's disk is tight it
    must not become short of what is kept, and leave those that lag with nothing.

    ``is_tight``, ``is_short``: whether the log's disk has less room than plenty; too little.
    """

    log = Logger()

    def __init__(
        self,
        raw: RawNode,
        log_store: LogStore,
        state: StateStore,
        snapshots: Snapshots,
        marks: LogMarks,
        is_tight: Callable[[], bool],
        is_short: Callable[[], bool],
        *,
        snapshot_count: int,
        catchup_entries: int,
        kept_octets_max: int,
    ) -> None:
        self._raw = raw
        self._log_store = log_store
        self._state = state
        self._snapshots = snapshots
        self._marks = marks
        self._is_tight = is_tight
        self._is_short = is_short
        self._snapshot_count = snapshot_count
        self._catchup_entries = catchup_entries
        self._kept_octets_max = kept_octets_max
        self._answered_ms: dict[int, int] = {}
        """When each member was last known to answer, in this member's term as the leader."""
        self._led_term = 0
        self._found: set[int] = set()
        """Who was a member when this one began to lead; who came later holds nothing."""

    def look(self, now_ms: int) -> None:
        """Compact when enough can go (at each tick)."""
        log = self._log_store
        self._marks.look(now_ms)
        durable_index = self._state.applied_durable
        keep_from, step = durable_index - self._catchup_entries, self._snapshot_count
        is_short = self._is_short()
        is_tight = is_short or self._is_tight()
        bound = self._marks.bound(TIGHT_OCTETS_MAX if is_tight else self._kept_octets_max)
        if is_short:
            # Those at hand, which are of a bounded size.
            keep_from = log.recent_index()
            step = min(step, SHORT_ENTRIES)
        keep_from = min([keep_from, *self._wanted(bound, now_ms, is_short)])
        if is_tight and keep_from <= bound:
            keep_from, step = bound, min(step, SHORT_ENTRIES)
        keep_from = min(keep_from, durable_index - min(SHORT_ENTRIES, self._catchup_entries))
        if keep_from - log.first_index() < step:
            return
        if self._raw.installing_index or self._snapshots.keeps_log(now_ms, is_short=is_short):
            return  # a snapshot is taking the log's place, or its receiver needs the log
        # Whoever lags behind the log's new beginning is sent a snapshot: this mark says so.
        conf_state = self._raw.configuration.conf_state()
        log.put_snapshot(Snapshot(durable_index, log.term(durable_index), conf_state), lambda: None)
        log.compact(keep_from)
        if step == self._snapshot_count:  # etcd's words: tools look for them
            self.log.info("saved snapshot to disk", **{"snapshot-index": durable_index})
            self.log.info("compacted Raft logs", **{"compact-index": keep_from})

    def _wanted(self, bound: int, now_ms: int, is_short: bool) -> list[int]:
        """Return from where on entries are to stay for others, ``bound`` at the earliest."""
        if not self._raw.is_leader:
            # It may have to lead next, and the new leader must still have what the old one kept.
            return [] if is_short else [max(self._marks.before(now_ms - FOLLOWER_KEPT_MS), bound)]
        # Whoever lags further behind needs a snapshot, whatever is kept: nothing is.  0: a new
        # leader has not heard yet what that member holds, and does not while it takes nothing.
        held = self._answering(now_ms)
        return [max(index, bound) for index in held if index >= bound or index == 0]

    def _answering(self, now_ms: int) -> list[int]:
        """Return what the followers hold that answer, as far as this leader knows."""
        if self._led_term != self._raw.term:
            self._led_term = self._raw.term
            self._answered_ms.clear()
            self._found = set(self._raw.progress())
        held: list[int] = []
        for member_id, one in self._raw.progress().items():
            if one.recent_active:
                self._answered_ms[member_id] = now_ms
            is_new = one.match_index == 0 and member_id not in self._found
            if now_ms - self._answered_ms.setdefault(member_id, now_ms) < SILENT_MS and not is_new:
                held.append(one.match_index)
        return held
