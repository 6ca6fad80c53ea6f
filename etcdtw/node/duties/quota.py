"""The space quota: refuses what would grow the state beyond it, raises the alarm, and clears it.

Counted on octets in use, which deletes and compactions give back at once; etcd counts the
allocated file, which only a defragmentation shrinks (`QuotaRules.counts_allocated`).
See ``docs/departures.md`` and ADR 23.

What is measured is exact at each request: what is committed, what is applied and not committed,
and what this member has proposed and not applied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from etcdtw.apply.alarms import Alarms
from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.node.intake.requests import Done
from etcdtw.wire import etcdserverpb as pb

ALARM_EVERY_MS: Final = 500
"""The alarm is asked for again after so long, if it is not there by then."""
TIGHT_BYTES: Final = 256 * 1024 * 1024
"""With more room than this nothing is asked: no member takes in so much between two ticks."""
COMPACTION_GRACE_MS: Final = 10_000
"""So long after the first refusal a compaction under way keeps the alarm from being raised."""
CLEAR_EVERY_MS: Final = 10_000
"""The alarm is cleared so often at the most, and not within that time of the start.

A writer that fills each room at once makes for a few entries a minute, and whether the disk is
short is known by then.
"""
FREE_PART: Final = 20
"""A twentieth of the quota (5 %) has to be free before the alarm is cleared."""


@dataclass(frozen=True, kw_only=True)
class QuotaRules:
    """How much space there is, and what is done about it unasked."""

    limit_bytes: int | None = None
    """None: anything."""
    counts_allocated: bool = False
    """etcd's measure: the file, which does not shrink by itself."""
    disarms: bool = True
    """Clear this member's NOSPACE alarm when there is room again; etcd leaves it."""
    compact_after_ms: int = 3_600_000
    """At four fifths of the limit a leader compacts history older than this; 0: never, as etcd."""


NO_QUOTA: Final = QuotaRules()


class Measured(Protocol):
    """What of the state is looked at."""

    @property
    def size_in_use(self) -> int: ...
    @property
    def size_allocated(self) -> int:
        """Octets of the file."""
        ...

    @property
    def pending(self) -> tuple[int, int]:
        """Octets and changes that are applied and not committed."""
        ...

    @property
    def is_compacting(self) -> bool:
        """Whether room is on its way."""
        ...


class Proposes(Protocol):
    """The member's own proposals (`node.own_proposals`)."""

    def ask_alarm(self, action: int, member_id: int, alarm: int) -> None: ...


def _say_nothing(words: str) -> None:
    """Nobody listens."""


class SpaceQuota:
    """Admits requests by their cost.

    ``is_tight`` says whether `admit` has to be asked at all; it is what the path of a put looks at.
    What is admitted and proposed is to be held: it counts until its outcome is known.
    """

    def __init__(
        self,
        member_id: int,
        alarms: Alarms,
        own: Proposes,
        state: Measured,
        rules: QuotaRules,
        time_ms: Callable[[], int],
        warn: Callable[[str], None] = _say_nothing,
    ) -> None:
        self._member_id = member_id
        self._alarms = alarms
        self._own = own
        self._state = state
        self._time_ms = time_ms
        self._warn = warn
        self._rules = rules
        self._limit_bytes = rules.limit_bytes
        self._held_bytes = 0
        self._is_blocked = False
        self._alarmed_ms = -ALARM_EVERY_MS
        self._cleared_ms = time_ms()
        self._refused_ms: int | None = None
        """When the first of the refusals came that found a compaction under way."""
        self._committed_bytes = self._size_committed()
        self.is_tight = False
        self.raised_total = 0
        """How often this member asked for its alarm."""
        self.cleared_total = 0
        """How often it asked for the alarm's end."""
        self._see_room()

    def look(self, now_ms: int) -> None:
        """See at a tick whether requests have to ask, and what is to become of the alarm."""
        self._see_room()
        if self._is_blocked:
            return  # whoever found the disk short decides about the alarm
        if self.is_tight:
            self._judge_growth(now_ms)
        if self._alarms.no_space and self._rules.disarms:
            self._clear_alarm(now_ms)

    def _see_room(self) -> None:
        limit_bytes = self._limit_bytes
        self.is_tight = self._is_blocked or (
            limit_bytes is not None and self._size_needed() + TIGHT_BYTES >= limit_bytes
        )

    def is_nearly_used(self) -> bool:
        """Whether four fifths of the limit are in use, whichever way it is measured.

        What is allocated and not in use a compaction does not change.
        """
        limit_bytes = self._limit_bytes
        return limit_bytes is not None and 5 * self._size_in_use() >= 4 * limit_bytes

    def block(self, is_blocked: bool) -> None:
        """Refuse all that costs something, or do so no longer; the disk is short of space.

        The alarm is not raised for that: whether it must be is decided elsewhere.
        """
        if is_blocked is not self._is_blocked:
            self._is_blocked = is_blocked
            self.is_tight = is_blocked or self._limit_bytes is not None

    def admit(self, cost: int) -> bool:
        """Return whether ``cost`` more octets fit; costs are etcd's (`mvcc.cost`).

        A refusal raises this member's NOSPACE alarm through the log.  Nothing that costs
        nothing is ever refused: deletes, compactions and revokes must pass.
        """
        if cost == 0:
            return True
        if self._is_blocked:
            return False
        if self._limit_bytes is None:
            return True
        if self._size_needed() + cost < self._limit_bytes:
            self._refused_ms = None
            return True
        self._raise_alarm(self._time_ms())
        return False

    def hold(self, cost: int, done: Done) -> Done:
        """Count ``cost`` from now until the call of what is returned, which calls ``done``.

        A request whose client was told of a time-out is let go then, and counts again as applied.
        """
        self._held_bytes += cost

        def let_go(call: Call, applied: Applied) -> None:
            self._held_bytes -= cost
            done(call, applied)

        return let_go

    def _size_in_use(self) -> int:
        """Octets in use once everything applied is committed."""
        return self._state.size_in_use + self._state.pending[0]

    def _size_needed(self) -> int:
        """What is measured, once everything that was admitted is committed."""
        needed = self._size_in_use() + self._held_bytes
        if self._rules.counts_allocated:
            # What is free within the file is used before it grows.
            return max(self._state.size_allocated, needed)
        return needed

    def _size_committed(self) -> int:
        state = self._state
        return state.size_allocated if self._rules.counts_allocated else state.size_in_use

    def _judge_growth(self, now_ms: int) -> None:
        """Raise the alarm where what was applied has passed the limit, whoever admitted it.

        Another member holds more, or may; or several admitted at once what one alone would have.
        """
        before, self._committed_bytes = self._committed_bytes, self._size_committed()
        limit_bytes = self._limit_bytes
        if limit_bytes is not None and self._committed_bytes >= max(limit_bytes, before + 1):
            self._raise_alarm(now_ms)

    def _raise_alarm(self, now_ms: int) -> None:
        is_raised = self._alarms.is_active(self._member_id, pb.NOSPACE)
        if is_raised or now_ms - self._alarmed_ms < ALARM_EVERY_MS:
            return
        if self._state.is_compacting:
            if self._refused_ms is None:
                self._refused_ms = now_ms
            if now_ms - self._refused_ms < COMPACTION_GRACE_MS:
                return
        self._refused_ms = None
        self._alarmed_ms = now_ms
        self.raised_total += 1
        self._warn("message exceeded backend quota; raising alarm")  # etcd's words
        self._own.ask_alarm(pb.AlarmRequest.ACTIVATE, self._member_id, pb.NOSPACE)

    def _clear_alarm(self, now_ms: int) -> None:
        """Clear this member's alarm where a part of the quota is free."""
        limit_bytes = self._limit_bytes
        if now_ms - self._cleared_ms < CLEAR_EVERY_MS:
            return
        if not self._alarms.is_active(self._member_id, pb.NOSPACE):
            return
        if limit_bytes is not None:
            free_bytes = limit_bytes - self._size_needed()
            if free_bytes * FREE_PART < limit_bytes:
                return
        self._cleared_ms = now_ms
        self.cleared_total += 1
        self._warn("there is room in the quota again; clearing the alarm NOSPACE")
        self._own.ask_alarm(pb.AlarmRequest.DEACTIVATE, self._member_id, pb.NOSPACE)
