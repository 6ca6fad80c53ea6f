"""A leader that stood still: for want of its disk, or of the processor.

One whose disk takes no write for an election timeout steps down, so that a member with a working
one leads (etcd #13527).  One that was not scheduled for as long may have been replaced, and its
clients could not renew anything meanwhile: it lets no lease end before it has proved that it
leads, and then gives all of them their whole time again (etcd #15247).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

from etcdtw.grpc.call import Call

if TYPE_CHECKING:
    from etcdtw.node.node import Node


class Stalls:
    """Looks at one node at each tick."""

    log = Logger()

    def __init__(self, node: Node) -> None:
        self._node = node
        self._is_proving = False
        self.step_downs_total = 0
        """How often this leader stepped down for its disk."""

    def look(self, now_ms: int, late_ms: int) -> None:
        """``late_ms``: how long ago the last tick was."""
        node = self._node
        if not node.is_leader:
            return
        limit_ms = node.config.election_timeout_ms
        writing_ms = node.append_age_ms(now_ms)
        if writing_ms >= limit_ms and len(node.members.voters()) > 1:
            self.step_downs_total += 1
            self.log.error(
                "the disk has not taken a write for {age_ms} ms: another member shall lead",
                age_ms=writing_ms,
            )
            node.parts.raw.step_down()
        elif late_ms >= limit_ms and node.lessor.is_primary:
            self.log.warn("stood still for {late_ms} ms: no lease ends now", late_ms=late_ms)
            node.lessor.demote()
            self._prove()

    def _prove(self) -> None:
        if not self._is_proving:
            self._is_proving = True
            self._node.read(self._node.own_call, self._proved)

    def _proved(self, call: Call, error: Exception | None) -> None:
        self._is_proving = False
        node = self._node
        if node.is_leader and not node.is_stopping and not node.lessor.is_primary:
            if error is None:
                node.lessor.promote(node.config.election_timeout_ms)
            else:
                self._prove()
