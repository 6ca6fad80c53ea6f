"""May a user have the list of all leases?  Only if he may read each key of each of them."""

from __future__ import annotations

from collections import deque
from typing import Final

from etcdtw.auth.errors import OldRevisionError
from etcdtw.grpc.call import Call
from etcdtw.mvcc.attached_walk import AttachedWalk
from etcdtw.node.facade import Facade
from etcdtw.rpc.errors import fail
from etcdtw.rpc.guard import Guard
from etcdtw.rpc.lease.listing import LeaseLists

STEP_LEASES: Final = 100
"""Taken from the list of all at once."""
STEP_KEYS: Final = 1_000
"""Looked at before others are served."""
LEASE_COST_KEYS: Final = 10
"""To begin with a lease takes as long as to look at so many keys."""


class LeaseCheck:
    """The look at all leases for one call; implements `read_queue.ReadTask`."""

    def __init__(self, node: Facade, guard: Guard, call: Call, lists: LeaseLists) -> None:
        self._node = node
        self._guard = guard
        self._call = call
        self._lists = lists
        self._listing = node.lessor.listing()
        self._leases: deque[int] = deque()
        self._walk: AttachedWalk | None = None
        self._check = guard.listing_check(call.caller)
        self._revision = guard.store.revision

    @property
    def is_blocked(self) -> bool:
        """Never: nothing is sent."""
        return False

    def start(self) -> None:
        """Nothing is to be done first."""

    def step(self) -> bool:
        """Look at some more; behind the last one answer.  Return whether there is more to do."""
        call = self._call
        if not call.is_open:
            self._close()
            return False
        if not self._leases and self._walk is None and not self._listing.is_done:
            self._leases += [lease.lease_id for lease in self._listing.step(STEP_LEASES)]
        refusal = self._look()
        if refusal is not None:
            self.give_up(refusal)
            return False
        if self._leases or self._walk is not None or not self._listing.is_done:
            return True
        answer = self._lists.answer(call)
        if answer is not None:
            call.reply(answer)
        return False

    def _look(self) -> Exception | None:
        """Look at so many keys; say why they may not be told."""
        check = self._check
        if isinstance(check, Exception):
            return check
        if self._revision != self._guard.store.revision:
            return OldRevisionError()
        left = STEP_KEYS
        while check is not None and left > 0:
            walk = self._walk
            if walk is None or walk.is_void:
                if walk is None and not self._leases:
                    break
                lease_id = self._leases.popleft() if walk is None else walk.lease_id
                walk = self._walk = self._node.storage.walk_attached(lease_id)
            keys = walk.step(left)
            refusal = check.refusal(keys)
            if refusal is not None:
                return refusal
            left -= len(keys) + LEASE_COST_KEYS
            if walk.is_done:
                self._close()
        return None

    def _close(self) -> None:
        walk, self._walk = self._walk, None
        if walk is not None:
            walk.close()

    def give_up(self, error: Exception) -> None:
        """Somebody may not have it, or there is no place for it."""
        self._close()
        fail(self._call, error)
