"""Compactions that nobody asks for: of the history, by a leader; of the log, by every member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

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


class LogCompaction:
    """Drops entries that the state covers durably, but for those that peers may lack.

    ``is_short``: whether the log's disk has too little room to keep many of them.
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
    ) -> None:
        self._raw = raw
        self._log_store = log_store
        self._state = state
        self._snapshots = snapshots
        self._is_short = is_short
        self._snapshot_count = snapshot_count
        self._catchup_entries = catchup_entries
        self._answered_ms: dict[int, int] = {}
        """When each member was last known to answer, while the disk is short."""

    def look(self, now_ms: int) -> None:
        """Compact when enough can go (at each tick)."""
        log = self._log_store
        durable_index = self._state.applied_durable
        keep_from, step = durable_index - self._catchup_entries, self._snapshot_count
        if self._is_short():
            keep_from = self._least_kept(durable_index, now_ms)
            step = min(step, SHORT_ENTRIES)
        if keep_from - log.first_index() < step:
            return
        if self._raw.installing_index or self._snapshots.keeps_log(now_ms):
            return  # a snapshot is taking the log's place, or its receiver needs the log
        # Whoever lags behind the log's new beginning is sent a snapshot: this mark says so.
        conf_state = self._raw.configuration.conf_state()
        log.put_snapshot(Snapshot(durable_index, log.term(durable_index), conf_state), lambda: None)
        log.compact(keep_from)

    def _least_kept(self, durable_index: int, now_ms: int) -> int:
        """Return from where on entries stay while the log's disk is short.

        Those at hand, which are of a bounded size, and what followers lack that answer: a snapshot
        for them may find no room.
        """
        wanted = [durable_index - SHORT_ENTRIES, self._log_store.recent_index()]
        if self._raw.is_leader:
            for member_id, one in self._raw.progress().items():
                if one.recent_active:
                    self._answered_ms[member_id] = now_ms
                if now_ms - self._answered_ms.setdefault(member_id, now_ms) < SILENT_MS:
                    wanted.append(one.match_index)
        return max(min(wanted), durable_index - self._catchup_entries)
