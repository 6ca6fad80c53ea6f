"""A member that stood still: for want of a disk, or of the processor.

A leader whose log takes no write for an election timeout steps down, so that a member with a
working disk leads (etcd #13527); so does one whose state takes nothing more.  A state that hangs
for a minute ends the process: what is acknowledged is in the log, and a start says what is wrong.
A leader that was not scheduled for an election timeout may have been replaced, and its clients
could not renew anything meanwhile: it renews no lease and lets none end before it has proved
that it leads, and then gives all of them their whole time again (etcd #15247).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from twisted.logger import Logger

from etcdtw.lease.lessor import Lessor
from etcdtw.node.intake.reads import Linearized
from etcdtw.node.intake.seams import StateStore
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.standing import Standing
from etcdtw.raft.raw_node import RawNode

STATE_STALL_MS: Final = 10_000
"""Without a commit of a state that is full before its leader steps down."""
STATE_HANG_MS: Final = 60_000
"""Without a commit of the state, with one under way, before the process ends."""


class Appends(Protocol):
    """What is at the log's disk (`loop.turn`)."""

    def append_age_ms(self, now_ms: int) -> int: ...


class Stalls:
    """Looks at one member at each tick.

    ``read``: calls what it is given once a read would be linearizable; ``fail_stop`` ends the
    process.
    """

    log = Logger()

    def __init__(
        self,
        standing: Standing,
        raw: RawNode,
        state: StateStore,
        lessor: Lessor,
        appends: Appends,
        wakeup: Wakeup,
        *,
        linearize: Callable[[Linearized], None],
        fail_stop: Callable[[str], None],
        election_timeout_ms: int,
    ) -> None:
        self._standing = standing
        self._raw = raw
        self._state = state
        self._lessor = lessor
        self._appends = appends
        self._wakeup = wakeup
        self._linearize = linearize
        self._fail_stop = fail_stop
        self._election_timeout_ms = election_timeout_ms
        self._last_ms = 0
        self._is_proving = False
        self._is_proof_stale = False  # it was begun before the last standstill
        self._durable_index = 0
        self._uncommitted_ms = 0
        """For how long the state has not committed what is under way."""
        self._is_state_stalled = False
        self.step_downs_total = 0
        """How often this leader stepped down for its disk."""

    def start(self, now_ms: int) -> None:
        """The member begins to tick."""
        self._last_ms = now_ms

    def look(self, now_ms: int) -> None:
        """See at a tick whether anything stands still, or stood since the last one."""
        late_ms = now_ms - self._last_ms
        self._look_at_state(late_ms)
        if self._standing.is_leader:
            writing_ms = self._appends.append_age_ms(now_ms)
            if writing_ms >= self._election_timeout_ms:
                self._step_down("the disk has not taken a write for {age_ms} ms", writing_ms)
            self.stood_still(now_ms)
        self._last_ms = now_ms

    def _look_at_state(self, late_ms: int) -> None:
        state = self._state
        if not state.is_committing or state.applied_durable != self._durable_index:
            self._durable_index = state.applied_durable
            self._uncommitted_ms = 0
            self._is_state_stalled = False
            return
        # While this process stood still an answer could not be heard: that counts little.
        self._uncommitted_ms += min(late_ms, self._election_timeout_ms)
        if self._uncommitted_ms >= STATE_HANG_MS:
            self._fail_stop(
                f"the state has committed nothing for {self._uncommitted_ms} ms; "
                "look after the disk of the data directory, then start this member again"
            )
        elif (
            self._uncommitted_ms >= STATE_STALL_MS
            and state.is_full
            and self._standing.is_leader
            and not self._is_state_stalled
        ):
            self._is_state_stalled = True  # once: perhaps nobody else can lead
            self._step_down("the state has committed nothing for {age_ms} ms", self._uncommitted_ms)

    def _step_down(self, why: str, age_ms: int) -> None:
        if self._standing.other_voters():
            self.step_downs_total += 1
            self.log.error(why + ": another member shall lead", age_ms=age_ms)
            self._raw.step_down()

    def stood_still(self, now_ms: int) -> None:
        """Trust no lease that may be another leader's by now: the last tick may be long ago."""
        late_ms = now_ms - self._last_ms
        if late_ms >= self._election_timeout_ms and self._lessor.is_primary:
            self.log.warn("stood still for {late_ms} ms: no lease ends now", late_ms=late_ms)
            self._lessor.demote()
            self._is_proof_stale = self._is_proving
            self._prove()

    def _prove(self) -> None:
        if not self._is_proving:
            self._is_proving = True
            self._linearize(self._proved)

    def _proved(self, error: Exception | None) -> None:
        is_stale, self._is_proof_stale = self._is_proof_stale, False
        self._is_proving = False
        if self._wakeup.is_stopping or self._lessor.is_primary or not self._standing.is_leader:
            return
        if error is None and not is_stale:
            self._lessor.promote(self._election_timeout_ms)
        else:
            self._prove()
