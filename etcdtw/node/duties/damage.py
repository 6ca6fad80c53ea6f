"""A member whose own state is proved damaged: it serves nobody, and goes on with its log.

    sound       nothing is known of damage
    damaged     every call is refused, nothing is applied, it never campaigns; a leader hands over
                (`corruption`, as with the alarm); entries are stored, acknowledged and voted about
    sound       again once a leader's snapshot has taken the state's place

Why that is safe: ADR 10.  The damage is found, and the state frozen, in `storage.integrity.damage`.
"""

from __future__ import annotations

from twisted.logger import Logger

from etcdtw.node.intake.seams import Damage
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.standing import Standing
from etcdtw.raft.raw_node import RawNode


class DamageDuty:
    """Takes one member out of service, and back."""

    log = Logger()

    def __init__(self, standing: Standing, raw: RawNode, damage: Damage, wakeup: Wakeup) -> None:
        self._standing = standing
        self._raw = raw
        self._damage = damage
        self._wakeup = wakeup
        damage.listen(self._found)

    def look(self, now_ms: int) -> None:
        """See whether the state is another one by now (at each tick)."""
        if self._standing.damage and not self._damage.proved:
            self._standing.damage = ""
            self._raw.bar(False)
            self.log.warn("another state has taken the damaged one's place; serving again")

    def trouble(self) -> str:
        """Return what a readiness check says; empty while nothing is known."""
        return self._standing.damage and f"the state is damaged: {self._standing.damage}"

    def _found(self) -> None:
        """From here on nobody is answered from this state."""
        self._standing.damage = self._damage.proved
        self._raw.bar(True)
        self.log.critical(
            "THIS MEMBER'S STATE IS DAMAGED and it serves no client any more: {why}. It goes on "
            "voting and storing the log. The other members are not concerned. Restart it: what "
            "follows from its history is made anew; where that is damaged itself, remove the "
            "member and let it join again, or restore a snapshot (docs/guide/operate.md)",
            why=self._damage.proved,
        )
        self._wakeup.wake()
