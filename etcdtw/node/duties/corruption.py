"""What a leader does to find members whose keys differ, and to have them stand aside.

    compactions   every minute: hashes of the last compactions, where no client is waited for
    cut           when asked for by a flag: the hash of everything, around a linearizable read

Whoever is found gets etcd's alarm CORRUPT, through the log: from then on nobody takes changes,
and the accused member serves nobody.  If it leads, it hands the leadership over.
Source: etcd's peer contract, section 8; the judging is in `cluster.divergence`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Final, NamedTuple

from twisted.logger import Logger

from etcdtw.apply.alarms import Alarms
from etcdtw.cluster.divergence import (
    UNKNOWN_MEMBER,
    KeyHash,
    Verdict,
    judge,
    judge_cut,
    revision_to_ask,
)
from etcdtw.cluster.ids import id_text
from etcdtw.cluster.member import Member
from etcdtw.mvcc.compaction_hashes import CompactionHash
from etcdtw.mvcc.errors import MvccError
from etcdtw.node.duties.key_hashes import KeyHashes
from etcdtw.node.duties.leader_transfer import LeaderTransfers
from etcdtw.node.intake.inbox import Inbox
from etcdtw.node.intake.seams import StateStore
from etcdtw.node.own_proposals import OwnProposals
from etcdtw.node.standing import Standing
from etcdtw.storage.state.errands import ErrandError
from etcdtw.wire import etcdserverpb as pb

PATIENCE_MS: Final = 120_000
"""How long a check may take before it is given up: peers that hash much are waited for."""
ASKED_MAX: Final = 3
"""Checks in which one compaction is asked for while not everybody can tell its hash."""

COMPACTIONS: Final = "compactions"
CUT: Final = "cut"
AGREED: Final = "agreed"
DIFFERED: Final = "differed"
INCOMPLETE: Final = "incomplete"
CHECKS: Final = (COMPACTIONS, CUT)
RESULTS: Final = (AGREED, DIFFERED, INCOMPLETE)

HashesTold = Callable[[Mapping[int, KeyHash]], None]
AskHashes = Callable[[Sequence[Member], int, HashesTold], None]
"""Asks members for the hash at a revision (0: their newest); tells once what those said that
answered."""


def nobody_answers(members: Sequence[Member], revision: int, told: HashesTold) -> None:
    """What a member without peers learns from them."""
    told({})


class CheckIntervals(NamedTuple):
    """How often each check is made; 0: never."""

    compactions_ms: int = 0
    cut_ms: int = 0


NO_CHECKS: Final = CheckIntervals()


class _Run:
    """One check under way; a late answer of another one is told by it."""


class CorruptionChecks:
    """The checks of one member; only while it leads it asks anybody."""

    log = Logger()

    def __init__(
        self,
        standing: Standing,
        alarms: Alarms,
        state: StateStore,
        hashes: KeyHashes,
        inbox: Inbox,
        own: OwnProposals,
        transfers: LeaderTransfers,
        *,
        ask: AskHashes,
        intervals: CheckIntervals,
        election_timeout_ms: int,
    ) -> None:
        self._standing = standing
        self._alarms = alarms
        self._state = state
        self._hashes = hashes
        self._inbox = inbox
        self._own = own
        self._transfers = transfers
        self._election_timeout_ms = election_timeout_ms
        self.ask = ask
        self.cut_interval_ms = intervals.cut_ms
        self.compactions_interval_ms = intervals.compactions_ms
        self.results: dict[tuple[str, ...], int] = dict.fromkeys(product(CHECKS, RESULTS), 0)
        """(check, result) -> how many"""
        self._due_ms: dict[str, int] = {}
        self._running: _Run | None = None
        self._given_up_ms = 0
        self._checked_revision = 0
        self._asked: dict[int, int] = {}
        self._hands_over_ms = 0

    def look(self, now_ms: int) -> None:
        """Begin what is due (at each tick)."""
        if not self._standing.is_leader:
            self._running = None
            self._due_ms.clear()
            return
        if self._standing.is_quarantined and now_ms >= self._hands_over_ms:
            self._hands_over_ms = now_ms + self._election_timeout_ms
            self._hand_over()
        if self._running is not None and now_ms >= self._given_up_ms:
            self._running = None
        for check, interval_ms in (
            (COMPACTIONS, self.compactions_interval_ms),
            (CUT, self.cut_interval_ms),
        ):
            if not interval_ms:
                continue
            due_ms = self._due_ms.setdefault(check, now_ms + interval_ms)
            if now_ms >= due_ms and self._running is None:
                self._due_ms[check] = now_ms + interval_ms
                self._begin(check, now_ms)

    def _begin(self, check: str, now_ms: int) -> None:
        others = self._standing.others()
        if not others:
            return
        self._given_up_ms = now_ms + PATIENCE_MS
        self._running = running = _Run()
        if check == CUT:
            self._check_cut(running, others)
        else:
            hashes = self._state.compaction_hashes.since(self._checked_revision)
            self._asked = {one.revision: self._asked.get(one.revision, 0) for one in hashes}
            wanted = [one for one in hashes if self._asked[one.revision] < ASKED_MAX]
            self._check_compactions(running, others, wanted)

    def _is_over(self, running: _Run) -> bool:
        is_running = running is self._running and not self._inbox.is_stopping
        return not (is_running and self._standing.is_leader)

    def _end(self, check: str, result: str) -> None:
        self._running = None
        self.results[check, result] += 1

    # Hashes of compactions.

    def _check_compactions(
        self, running: _Run, others: Sequence[Member], hashes: list[CompactionHash]
    ) -> None:
        """Compare the newest of ``hashes``, and older ones as long as not everybody knows one."""
        if not hashes:
            self._running = None
            return
        newest, *older = hashes
        self._asked[newest.revision] += 1

        def told(answers: Mapping[int, KeyHash]) -> None:
            if self._is_over(running):
                return
            own = KeyHash(newest.value, newest.compact_revision, 0, newest.revision)
            verdict = judge(self._standing.member_id, own, answers, len(others) + 1)
            if verdict.accused:
                self._asked.pop(newest.revision, None)
                self._found(COMPACTIONS, newest.revision, own, answers, verdict)
            elif len(verdict.compared) == len(others):
                self._checked_revision = max(newest.revision, self._checked_revision)
                self._end(COMPACTIONS, AGREED)
            elif older:
                self._check_compactions(running, others, older)
            else:
                self._end(COMPACTIONS, INCOMPLETE)

        self.ask(others, newest.revision, told)

    # The hash of everything.

    def _check_cut(self, running: _Run, others: Sequence[Member]) -> None:
        def first_hashed(first: KeyHash) -> None:
            self.ask(others, revision_to_ask(first), lambda answers: told(first, answers))

        def told(first: KeyHash, answers: Mapping[int, KeyHash]) -> None:
            if not self._is_over(running):
                self._inbox.linearize(lambda error: has_read(first, answers, error))

        def has_read(
            first: KeyHash, answers: Mapping[int, KeyHash], error: Exception | None
        ) -> None:
            if self._is_over(running):
                return
            if error is not None:
                self._end(CUT, INCOMPLETE)
                return
            self._hash_own(running, lambda second: second_hashed(first, answers, second))

        def second_hashed(first: KeyHash, answers: Mapping[int, KeyHash], second: KeyHash) -> None:
            verdict = judge_cut(self._standing.member_id, first, second, answers, len(others) + 1)
            if verdict.accused:
                self._found(CUT, first.hash_revision, first, answers, verdict)
            elif len(verdict.compared) == len(others):
                self._end(CUT, AGREED)
            else:
                self._end(CUT, INCOMPLETE)

        self._hash_own(running, first_hashed)

    def _hash_own(self, running: _Run, hashed: Callable[[KeyHash], None]) -> None:
        """Call ``hashed`` with this member's newest hash; when there is none the cut ends."""

        def done(found: KeyHash | ErrandError | MvccError) -> None:
            if self._is_over(running):
                return
            if not isinstance(found, KeyHash):
                self._end(CUT, INCOMPLETE)
            else:
                hashed(found)

        self._hashes.compute(0, done)

    # What follows.

    def _found(
        self,
        check: str,
        revision: int,
        own: KeyHash,
        answers: Mapping[int, KeyHash],
        verdict: Verdict,
    ) -> None:
        self._end(check, DIFFERED)
        told = {self._standing.member_id: own, **answers}
        self.log.error(
            "the members' keys differ at revision {revision} ({check}): {accused}; "
            "hashes and compact revisions: {hashes}",
            revision=revision,
            check=check,
            accused=_accusation(verdict.accused),
            hashes=", ".join(
                f"{id_text(one)} {told[one].value:08x} {told[one].compact_revision}"
                for one in sorted(told)
            ),
        )
        for member_id in verdict.accused:
            if not self._alarms.is_active(member_id, pb.CORRUPT):
                self._own.ask_alarm(pb.AlarmRequest.ACTIVATE, member_id, pb.CORRUPT)

    def _hand_over(self) -> None:
        """A leader that is corrupt could pass its state on in a snapshot: let another one lead."""
        target = self._transfers.hand_over()
        if target is not None:
            self.log.warn(
                "this member is corrupt and hands the leadership over to {target}",
                target=id_text(target),
            )


def _accusation(accused: Sequence[int]) -> str:
    if UNKNOWN_MEMBER in accused:
        return "no majority agrees, so that nobody knows which member is corrupt"
    return "corrupt: " + ", ".join(id_text(one) for one in accused)
