"""Compactions of history by a leader, by age or number of revisions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.logger import Logger

from etcdtw.apply.applier import FIELD_COMPACTION
from etcdtw.config.govalues import duration_text
from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.errors import CompactedError
from etcdtw.mvcc.store import Store
from etcdtw.node.duties.history.auto_compaction import NS_PER_MS, AutoCompaction
from etcdtw.node.own_proposals import OwnProposals
from etcdtw.node.standing import Standing
from etcdtw.wire import etcdserverpb as pb


class HistoryCompaction:
    """The leader's compactions by age or number of revisions.  ``policy`` None: none.

    What it says is etcd's: tools look for it.
    """

    log = Logger()

    def __init__(
        self,
        standing: Standing,
        store: Store,
        own: OwnProposals,
        policy: AutoCompaction | None,
        time_ms: Callable[[], int],
    ) -> None:
        self._standing = standing
        self._store = store
        self._own = own
        self._time_ms = time_ms
        self.policy = policy
        self._is_waiting = False

    def look(self, now_ms: int) -> None:
        """Propose a compaction when it is time (at each tick)."""
        policy = self.policy
        if policy is None or self._is_waiting:
            return
        revision = policy.due(now_ms, self._store.revision, is_leader=self._standing.is_leader)
        if revision is None:
            return
        self._is_waiting = True
        self.log.info(
            "starting auto {mode} compaction", mode=policy.mode, revision=revision, **policy.facts
        )
        request = pb.CompactionRequest(revision=revision)
        self._own.propose(FIELD_COMPACTION, request, partial(self._done, policy, revision, now_ms))

    def _done(
        self, policy: AutoCompaction, revision: int, began_ms: int, call: Call, applied: Applied
    ) -> None:
        self._is_waiting = False
        now_ms = self._time_ms()
        if applied.error is None or isinstance(applied.error, CompactedError):
            policy.compacted(now_ms, revision)
            self.log.info(
                "completed auto {mode} compaction",
                mode=policy.mode,
                revision=revision,
                took=duration_text((now_ms - began_ms) * NS_PER_MS),
                **policy.facts,
            )
        else:
            self.log.warn(
                "failed auto {mode} compaction: {error}",
                mode=policy.mode,
                revision=revision,
                error=str(applied.error),
                **policy.facts,
            )
