"""A member that stood still: for want of a disk, or of the processor.

A leader whose log takes no write for an election timeout steps down, so that a member with a
working disk leads (etcd #13527); so does one whose state takes nothing more.  A state that hangs
for a minute ends the process: what is acknowledged is in the log, and a start says what is wrong.
A leader that was not scheduled for an election timeout may have been replaced, and its clients
could not renew anything meanwhile: it renews no lease and lets none end before it has proved
that it leads, and then gives all of them their whole time again (etcd #15247).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from etcdtw.grpc.call import Call

if TYPE_CHECKING:
    from etcdtw.node.node import Node

STATE_STALL_MS: Final = 10_000
"""Without a commit of a state that is full before its leader steps down."""
STATE_HANG_MS: Final = 60_000
"""Without a commit of the state, with one under way, before the process ends."""


class Stalls:
    """Looks at one node at each tick."""

    log = Logger()

    def __init__(self, node: Node) -> None:
        self._node = node
        self._is_proving = False
        self._is_proof_stale = False  # it was begun before the last standstill
        self._durable_index = 0
        self._uncommitted_ms = 0
        """For how long the state has not committed what is under way."""
        self._is_state_stalled = False
        self.step_downs_total = 0
        """How often this leader stepped down for its disk."""

    def look(self, now_ms: int, late_ms: int) -> None:
        """``late_ms``: how long ago the last tick was."""
        node = self._node
        self._look_at_state(late_ms)
        if not node.is_leader:
            return
        writing_ms = node.append_age_ms(now_ms)
        if writing_ms >= node.config.election_timeout_ms:
            self._step_down("the disk has not taken a write for {age_ms} ms", writing_ms)
        self.stood_still(late_ms)

    def _look_at_state(self, late_ms: int) -> None:
        node = self._node
        state = node.storage
        if not state.is_committing or state.applied_durable != self._durable_index:
            self._durable_index = state.applied_durable
            self._uncommitted_ms = 0
            self._is_state_stalled = False
            return
        # While this process stood still an answer could not be heard: that counts little.
        self._uncommitted_ms += min(late_ms, node.config.election_timeout_ms)
        if self._uncommitted_ms >= STATE_HANG_MS:
            node.parts.fail_stop(
                f"the state has committed nothing for {self._uncommitted_ms} ms; "
                "look after the disk of the data directory, then start this member again"
            )
        elif (
            self._uncommitted_ms >= STATE_STALL_MS
            and state.is_full
            and node.is_leader
            and not self._is_state_stalled
        ):
            self._is_state_stalled = True  # once: perhaps nobody else can lead
            self._step_down("the state has committed nothing for {age_ms} ms", self._uncommitted_ms)

    def _step_down(self, why: str, age_ms: int) -> None:
        node = self._node
        if len(node.members.voters()) > 1:
            self.step_downs_total += 1
            self.log.error(why + ": another member shall lead", age_ms=age_ms)
            node.parts.raw.step_down()

    def stood_still(self, late_ms: int) -> None:
        """Trust no lease that may be another leader's by now.  ``late_ms`` as of `look`."""
        node = self._node
        if late_ms >= node.config.election_timeout_ms and node.lessor.is_primary:
            self.log.warn("stood still for {late_ms} ms: no lease ends now", late_ms=late_ms)
            node.lessor.demote()
            self._is_proof_stale = self._is_proving
            self._prove()

    def _prove(self) -> None:
        if not self._is_proving:
            self._is_proving = True
            self._node.read(self._node.own_call, self._proved)

    def _proved(self, call: Call, error: Exception | None) -> None:
        is_stale, self._is_proof_stale = self._is_proof_stale, False
        self._is_proving = False
        node = self._node
        if node.is_leader and not node.is_stopping and not node.lessor.is_primary:
            if error is None and not is_stale:
                node.lessor.promote(node.config.election_timeout_ms)
            else:
                self._prove()
