"""The space quota: refuses what would grow the state beyond it, and raises the alarm.

Counted on octets in use, which deletes and compactions give back at once; etcd counts the
allocated file, which only a defragmentation shrinks.  See ``docs/departures.md``.
"""

from __future__ import annotations

from typing import Final

from etcdtw.apply.applier import FIELD_ALARM
from etcdtw.node.node import Node
from etcdtw.wire import etcdserverpb as pb

MEASURE_EVERY_MS: Final = 500
"""Between two looks at the state what was admitted is added up instead."""
TIGHT_BYTES: Final = 256 * 1024 * 1024
"""With more room than this nothing is added up: no member takes in so much between two looks."""


class SpaceQuota:
    """Admits requests by their cost.  ``limit_bytes`` None: everything.

    ``is_tight`` says whether `admit` has to be asked at all; it is what the path of a put looks at.
    """

    def __init__(self, node: Node, limit_bytes: int | None) -> None:
        self._node = node
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._measured_ms = -MEASURE_EVERY_MS
        self._alarmed_ms = -MEASURE_EVERY_MS
        self.is_tight = limit_bytes is not None
        if limit_bytes is not None:
            self.measure(node.now_ms)
            node.on_tick.append(self.measure)

    def measure(self, now_ms: int) -> None:
        """Look at the state again when it is time."""
        assert self._limit_bytes is not None
        if now_ms - self._measured_ms >= MEASURE_EVERY_MS:
            self._measured_ms = now_ms
            self._used_bytes = self._node.storage.size_in_use
            self.is_tight = self._used_bytes + TIGHT_BYTES >= self._limit_bytes

    def admit(self, cost: int) -> bool:
        """Return whether ``cost`` more octets fit; costs are etcd's (`mvcc.cost`).

        A refusal raises this member's NOSPACE alarm through the log.  Nothing that costs
        nothing is ever refused: deletes, compactions and revokes must pass.
        """
        if self._limit_bytes is None or cost == 0:
            return True
        if self._used_bytes + cost < self._limit_bytes:
            self._used_bytes += cost
            return True
        self._raise_alarm(self._node.now_ms)
        return False

    def _raise_alarm(self, now_ms: int) -> None:
        node = self._node
        is_raised = (node.member_id, pb.NOSPACE) in node.alarms.active(pb.NOSPACE)
        if is_raised or now_ms - self._alarmed_ms < MEASURE_EVERY_MS:
            return
        self._alarmed_ms = now_ms
        request = pb.AlarmRequest(
            action=pb.AlarmRequest.ACTIVATE, memberID=node.member_id, alarm=pb.NOSPACE
        )
        node.propose_own(FIELD_ALARM, request)
