"""What follows when Raft knows another leader, and when this member begins to lead."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger

from etcdtw.lease.lessor import Lessor
from etcdtw.node.intake.inbox import Inbox
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.standing import Standing


class Leadership:
    """Told by the turn.  ``on_lead``: called when this member leads and has applied an entry of
    its own term."""

    log = Logger()

    def __init__(
        self,
        standing: Standing,
        lessor: Lessor,
        inbox: Inbox,
        wakeup: Wakeup,
        on_lead: Sequence[Callable[[], None]],
    ) -> None:
        self._standing = standing
        self._lessor = lessor
        self._inbox = inbox
        self._wakeup = wakeup
        self._on_lead = tuple(on_lead)
        self._known_id = 0
        self._led_term = 0
        self.changes_total = 0

    def changed(self, leader_id: int) -> None:
        """Raft knows another leader, or none (0)."""
        standing = self._standing
        if leader_id != standing.member_id:
            self._lessor.demote()
        if leader_id == self._known_id:
            return
        self._known_id = leader_id
        self._inbox.leader_changed(leader_id, self._wakeup.time_ms())
        if leader_id == 0:
            self.log.warn("no leader is known at term {term}", term=standing.term)
            return
        self.changes_total += 1
        self.log.info(
            "leader is {leader} at term {term}", leader=f"{leader_id:x}", term=standing.term
        )

    def applied(self, term: int) -> None:
        """An entry of ``term`` is applied."""
        standing = self._standing
        if self._led_term != term == standing.term and standing.is_leader:
            # Everything of earlier terms is applied: now the leases are ours to expire.
            self._led_term = term
            for begin in self._on_lead:
                begin()
