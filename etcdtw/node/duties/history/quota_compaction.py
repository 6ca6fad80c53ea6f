"""History that goes by itself before the quota is used up; etcd has nothing of the kind.

Every member notes which revision it had applied when, so that one which begins to lead knows how
old its history is.  The leader proposes, and only in a cluster of etcdtw: operators of real members
expect that nobody compacts unasked.  See ADR 23.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from twisted.logger import Logger

from etcdtw.apply.applier import FIELD_COMPACTION
from etcdtw.cluster.ids import id_text
from etcdtw.cluster.member import Member
from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.store import Store
from etcdtw.node.own_proposals import OwnProposals
from etcdtw.node.standing import Standing
from etcdtw.wire import etcdserverpb as pb

SAMPLES_PER_AGE: Final = 60
"""So often revisions are noted within the age that history has to reach, and so often at the most
it is compacted."""
PATIENCE_MS: Final = 60_000
"""How long an outcome or an answer is waited for before all is asked again."""

ProgramsTold = Callable[[Iterable[int]], None]
AskPrograms = Callable[[Sequence[Member], ProgramsTold], None]
"""Asks members what they are and tells, once, the ids of those that are etcdtw."""


def nobody_says(members: Sequence[Member], told: ProgramsTold) -> None:
    """What a member without peers learns from them."""
    told(())


class RevisionTimes:
    """Which revision was applied when, as far back as ``age_ms``.  Pure."""

    def __init__(self, age_ms: int) -> None:
        self._age_ms = age_ms
        self.interval_ms = max(age_ms // SAMPLES_PER_AGE, 1)
        self._samples: deque[tuple[int, int]] = deque()

    def note(self, now_ms: int, revision: int) -> None:
        """Take the newest revision; at least one sample stays that is old enough."""
        samples = self._samples
        if not samples or now_ms - samples[-1][0] >= self.interval_ms:
            samples.append((now_ms, revision))
        while len(samples) > 1 and samples[1][0] <= now_ms - self._age_ms:
            samples.popleft()

    def old_revision(self, now_ms: int) -> int:
        """Return a revision that was applied ``age_ms`` ago, the newest known; 0: none is."""
        if self._samples and self._samples[0][0] <= now_ms - self._age_ms:
            return self._samples[0][1]
        return 0


class QuotaCompaction:
    """The samples of one member, and what it proposes while it leads.

    ``is_nearly_used``: whether the quota is.  ``age_ms`` 0: nothing is ever compacted.
    """

    log = Logger()

    def __init__(
        self,
        standing: Standing,
        store: Store,
        own: OwnProposals,
        is_nearly_used: Callable[[], bool],
        ask: AskPrograms,
        age_ms: int,
    ) -> None:
        self._standing = standing
        self._store = store
        self._own = own
        self._is_nearly_used = is_nearly_used
        self._ask = ask
        self._age_ms = age_ms
        self._times = RevisionTimes(age_ms)
        self._due_ms = 0
        self._question = 0
        self._ours: frozenset[int] = frozenset()
        """Who has said to be etcdtw.  A member stays what it is: neither program reads the data of
        the other, and a new member has a new id."""
        self.done_total = 0
        """Compactions of this kind that were applied."""

    def look(self, now_ms: int) -> None:
        """Note the revision, and propose a compaction when there is reason (at each tick)."""
        if not self._age_ms:
            return
        self._times.note(now_ms, self._store.revision)
        if now_ms < self._due_ms or not self._standing.is_leader or not self._is_nearly_used():
            return
        if self._times.old_revision(now_ms) <= max(self._store.compact_revision, 1):
            return
        self._due_ms = now_ms + max(PATIENCE_MS, self._times.interval_ms)
        self._question += 1
        question = self._question
        strangers = [one for one in self._standing.others() if one.member_id not in self._ours]
        if strangers:
            self._ask(strangers, lambda ours: self._told(question, now_ms, ours))
        else:
            self._compact(now_ms)

    def _told(self, question: int, now_ms: int, ours: Iterable[int]) -> None:
        others = {one.member_id for one in self._standing.others()}
        self._ours = frozenset(others.intersection(self._ours.union(ours)))
        if question != self._question or not self._standing.is_leader:
            return  # asked again meanwhile, or another leads
        self._due_ms = now_ms + self._times.interval_ms
        strangers = sorted(others - self._ours)
        if strangers:
            self.log.warn(
                "the quota is nearly used, and no history is compacted: {members} "
                "did not say to be etcdtw",
                members=", ".join(id_text(one) for one in strangers),
            )
            return
        self._compact(now_ms)

    def _compact(self, now_ms: int) -> None:
        revision = self._times.old_revision(now_ms)
        age_s = self._age_ms // 1000
        self.log.info(
            "four fifths of the quota are used: compacting what is older than {age_s} s, "
            "up to revision {revision}",
            age_s=age_s,
            revision=revision,
        )

        def done(call: Call, applied: Applied) -> None:
            self._due_ms = now_ms + self._times.interval_ms
            if applied.error is None:
                self.done_total += 1
            else:
                self.log.info("it was not compacted: {why}", why=str(applied.error))

        self._own.propose(FIELD_COMPACTION, pb.CompactionRequest(revision=revision), done)
