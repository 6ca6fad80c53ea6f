"""Compactions that nobody asks for: of the history, by a leader; of the log, by every member."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from twisted.logger import Logger

from etcdtw.apply.applier import FIELD_COMPACTION
from etcdtw.mvcc.store import Store
from etcdtw.node.duties.auto_compaction import AutoCompaction
from etcdtw.node.duties.snapshots import Snapshots
from etcdtw.node.intake.seams import StateStore
from etcdtw.node.own_proposals import OwnProposals
from etcdtw.node.standing import Standing
from etcdtw.raft.entry import Snapshot
from etcdtw.raft.raw_node import RawNode
from etcdtw.raft.storage import LogStore
from etcdtw.wire import etcdserverpb as pb

SHORT_ENTRIES: Final = 100
"""What a log keeps at least, and lets go at a time, while its disk is short."""


SILENT_MS: Final = 3_000
"""Nothing is kept for a member that has not answered for so long."""
FOLLOWER_KEPT_MS: Final = 120_000
"""So far back a member keeps entries that does not lead: who lacks which only a leader knows."""
MARKS_MAX: Final = 64


class HistoryCompaction:
    """The leader's compactions by age or number of revisions.  ``policy`` None: none."""

    log = Logger()

    def __init__(
        self, standing: Standing, store: Store, own: OwnProposals, policy: AutoCompaction | None
    ) -> None:
        self._standing = standing
        self._store = store
        self._own = own
        self.policy = policy

    def look(self, now_ms: int) -> None:
        """Propose a compaction when it is time (at each tick)."""
        if self.policy is None or not self._standing.is_leader:
            return
        revision = self.policy.due(now_ms, self._store.revision)
        if revision is not None:
            self.log.info("compacting the history up to {revision}", revision=revision)
            self._own.propose(FIELD_COMPACTION, pb.CompactionRequest(revision=revision))


class Mark(NamedTuple):
    """Where the log ended at a time, and the octets appended until then."""

    last_index: int
    octets: int
    ms: int


class LogCompaction:
    """Drops entries that the state covers durably, but for those that peers may lack.

    A follower that takes no entries for a while, as one whose disk is full, is to go on with the
    log: a snapshot may find no room, neither there nor here.

    ``is_short``: whether the log's disk has too little room to keep many of them.
    ``kept_octets_max``: of the newest entries, the most that stays for others; 0: none does.
    """

    def __init__(
        self,
        raw: RawNode,
        log_store: LogStore,
        state: StateStore,
        snapshots: Snapshots,
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
        self._is_short = is_short
        self._snapshot_count = snapshot_count
        self._catchup_entries = catchup_entries
        self._kept_octets_max = kept_octets_max
        self._mark_octets = max(1, kept_octets_max // MARKS_MAX)
        self._answered_ms: dict[int, int] = {}
        """When each member was last known to answer, in this member's term as the leader."""
        self._led_term = 0
        # What was found at the start is one piece: when it came is not known.
        self._marks: deque[Mark] = deque([Mark(log_store.first_index() - 1, 0, 0)])
        """Oldest first; behind the first there are no more octets than may be kept."""

    def look(self, now_ms: int) -> None:
        """Compact when enough can go (at each tick)."""
        log = self._log_store
        self._mark(now_ms)
        answering = self._answering(now_ms)
        durable_index = self._state.applied_durable
        catchup_from, step = durable_index - self._catchup_entries, self._snapshot_count
        if self._is_short():
            # Those at hand, which are of a bounded size, stay with what the followers lack.
            recent = [durable_index - SHORT_ENTRIES, log.recent_index()]
            keep_from = max(min([*recent, *answering]), catchup_from)
            step = min(step, SHORT_ENTRIES)
        else:
            keep_from = min([catchup_from, *self._lacked(answering, now_ms)])
        if keep_from - log.first_index() < step:
            return
        if self._raw.installing_index or self._snapshots.keeps_log(now_ms):
            return  # a snapshot is taking the log's place, or its receiver needs the log
        # Whoever lags behind the log's new beginning is sent a snapshot: this mark says so.
        conf_state = self._raw.configuration.conf_state()
        log.put_snapshot(Snapshot(durable_index, log.term(durable_index), conf_state), lambda: None)
        log.compact(keep_from)

    def _mark(self, now_ms: int) -> None:
        """Note where the log ends now, and forget what is too far back to be kept."""
        marks, octets = self._marks, self._log_store.appended_octets()
        if not marks or octets - marks[-1].octets >= self._mark_octets:
            marks.append(Mark(self._log_store.last_index(), octets, now_ms))
        while marks and octets - marks[0].octets > self._kept_octets_max:
            marks.popleft()

    def _answering(self, now_ms: int) -> list[int]:
        """Return what the followers hold that answer, as far as this leader knows."""
        if not self._raw.is_leader:
            return []
        if self._led_term != self._raw.term:
            self._led_term = self._raw.term
            self._answered_ms.clear()
        held: list[int] = []
        for member_id, one in self._raw.progress().items():
            if one.recent_active:
                self._answered_ms[member_id] = now_ms
            if now_ms - self._answered_ms.setdefault(member_id, now_ms) < SILENT_MS:
                held.append(one.match_index)
        return held

    def _lacked(self, answering: list[int], now_ms: int) -> list[int]:
        """Return from where on entries are to stay for others, within the bound of octets.

        Whoever lags further behind needs a snapshot, whatever is kept: nothing is.
        """
        if not self._marks:
            return []
        bound = self._marks[0].last_index
        if not self._raw.is_leader:
            # It may have to lead next, and the new leader must still have what the old one kept.
            old = [one.last_index for one in self._marks if now_ms - one.ms >= FOLLOWER_KEPT_MS]
            return [old[-1] if old else bound]
        # 0: a new leader has not heard yet what that member holds, and does not while it takes
        # nothing.
        return [max(index, bound) for index in answering if index >= bound or index == 0]
