"""May a user have the list of all leases?  Only if he may read each key of each of them."""

from __future__ import annotations

from typing import Final

from etcdtw.auth.errors import OldRevisionError
from etcdtw.grpc.call import Call
from etcdtw.node.facade import Facade
from etcdtw.rpc.errors import fail
from etcdtw.rpc.guard import Guard
from etcdtw.rpc.lease.listing import LeaseLists

STEP_LEASES: Final = 100
"""Looked at before others are served."""


class LeaseCheck:
    """The look at all leases for one call; implements `read_queue.ReadTask`."""

    def __init__(self, node: Facade, guard: Guard, call: Call, lists: LeaseLists) -> None:
        self._guard = guard
        self._call = call
        self._lists = lists
        self._listing = node.lessor.listing()
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
            return False
        for lease in self._listing.step(STEP_LEASES):
            refusal = self._guard.lease_keys_refusal(call.caller, lease.lease_id)
            if refusal is not None:
                fail(call, refusal)
                return False
        if not self._listing.is_done:
            return True
        if self._revision != self._guard.store.revision:
            fail(call, OldRevisionError())
            return False
        answer = self._lists.answer(call)
        if answer is not None:
            call.reply(answer)
        return False

    def give_up(self, error: Exception) -> None:
        """There is no place for it."""
        fail(self._call, error)
