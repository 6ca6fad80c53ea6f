"""Conf changes that this member's clients asked for, from the proposal to its application.

Raft has room for one change at a time and turns another into an empty entry without a word;
a change can also be lost with its leader.  So they are proposed one after the other, and again
until they are applied or nobody waits: a change that comes twice is refused the second time by
the membership, on every member.  Not so new URLs of a member, which would undo later ones: those
are proposed again only where it is certain that they were lost.  There is no time-out but the
caller's own, as in etcd.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from etcdtw.apply.errors import StoppedError, TooManyRequestsError
from etcdtw.apply.members import Decision
from etcdtw.grpc.call import Call
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.raft.confchange import UPDATE_NODE, ConfChange
from etcdtw.raft.entry import ENTRY_CONF_CHANGE
from etcdtw.raft.errors import ProposalDroppedError
from etcdtw.raft.raw_node import RawNode

CONF_CHANGES_MAX: Final = 64
"""Changes waiting at once, past which new ones are refused."""
RETRY_MS: Final = 1_000

ConfChangeDone = Callable[[Call, Exception | None], None]


class _Waiter:
    """One change and who waits for it."""

    __slots__ = ("call", "change", "done", "due_ms", "taken_at")

    def __init__(self, change: ConfChange, call: Call, done: ConfChangeDone) -> None:
        self.change = change
        self.call = call
        self.done = done
        self.due_ms = 0
        """When to propose it (again)."""
        self.taken_at: tuple[int, int] | None = None
        """The term and index at which this leader took it last; (0, 0): another one did."""


class ConfChanges:
    """The waiting changes of one member, the oldest first."""

    def __init__(self, raw: RawNode, wakeup: Wakeup, next_id: Callable[[], int]) -> None:
        self._raw = raw
        self._wakeup = wakeup
        self._next_id = next_id
        self.waiting: dict[int, _Waiter] = {}

    def propose(
        self, kind: int, member_id: int, context: bytes, call: Call, done: ConfChangeDone
    ) -> None:
        """Ask for a change; ``done(call, error)`` is called when it is applied or refused.

        Takes over ``call.on_end``: nobody is told once the client has gone.
        """
        if self._wakeup.is_stopping:
            done(call, StoppedError())
            return
        if len(self.waiting) >= CONF_CHANGES_MAX:
            done(call, TooManyRequestsError())
            return
        number = self._next_id()
        change = ConfChange(
            ((kind, member_id),), context=context, entry_type=ENTRY_CONF_CHANGE, id=number
        )
        self.waiting[number] = _Waiter(change, call, done)
        call.on_end = lambda: self._forget(number)
        self._wakeup.wake()

    def _forget(self, number: int) -> None:
        self.waiting.pop(number, None)

    def propose_due(self, now_ms: int) -> None:
        """Propose the oldest change, if it is due (the turn's side)."""
        for waiter in self.waiting.values():
            if waiter.due_ms <= now_ms:
                if waiter.taken_at is not None and self._must_come_once(waiter):
                    continue
                waiter.due_ms = now_ms + RETRY_MS
                # Without a leader nothing is taken; it is due again soon.
                with suppress(ProposalDroppedError):
                    raw = self._raw
                    raw.propose_conf_change(waiter.change)
                    waiter.taken_at = (raw.term, raw.last_index) if raw.is_leader else (0, 0)
            return

    def _must_come_once(self, waiter: _Waiter) -> bool:
        """Whether a change that was taken may still come, and must not come again then."""
        (kind, _), *_ = waiter.change.changes
        if kind != UPDATE_NODE:
            return False
        assert waiter.taken_at is not None, "nobody has taken it"
        term, index = waiter.taken_at
        raw = self._raw
        return not (raw.is_leader and raw.term == term and raw.applied_index >= index)

    def applied(self, decision: Decision) -> None:
        """A conf change of whichever member was applied or refused (the turn's side)."""
        change = decision.change
        waiter = self.waiting.get(change.id)
        # A number met again in an old entry of another change answers nobody.
        if waiter is None or waiter.change.context != change.context:
            return
        del self.waiting[change.id]
        waiter.call.on_end = None
        waiter.done(waiter.call, decision.error)
        if self.waiting:
            self._wakeup.wake()

    def fail_all(self, error: Exception) -> None:
        """The member stops."""
        waiters = list(self.waiting.values())
        self.waiting.clear()
        for waiter in waiters:
            waiter.done(waiter.call, error)
