"""LeaseLeases: all leases in one answer, put in order step by step.

One list serves everybody who waited when it was begun; those that come meanwhile wait for the
next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from etcdtw.grpc.call import Call
from etcdtw.lease.arming import Listing
from etcdtw.node.facade import Facade
from etcdtw.rpc.errors import fail
from etcdtw.rpc.kv.read_queue import ReadQueue

STEP_LEASES: Final = 1_000
"""Sorted, or listed, before others are served."""


class LeaseLists:
    """The lists of one member.  ``header``: returns that of an answer given now.

    Implements `read_queue.ReadTask`: the list that is being made waits in ``reads``.
    """

    def __init__(self, node: Facade, reads: ReadQueue, header: Callable[[], bytes]) -> None:
        self._node = node
        self._reads = reads
        self._header = header
        self._waiting: deque[Call] = deque()
        self._served: deque[Call] = deque()
        self._listing: Listing | None = None
        self._parts: list[bytes] = []
        """Of the answer: fields of a LeaseLeasesResponse."""
        self._answer = b""

    def answer(self, call: Call) -> bytes | None:
        """Return the answer if the list is short; otherwise it is given later."""
        if self._served:
            self._waiting.append(call)
            return None
        listing = self._node.lessor.listing()
        part = _statuses(listing)
        if listing.is_done:
            return self._header() + part
        self._served.append(call)
        self._listing = listing
        self._reads.work_on(self)
        return None

    @property
    def is_blocked(self) -> bool:
        """Never: the answers are given whether they are taken or not."""
        return False

    def start(self) -> None:
        """Nothing is to be done first."""

    def step(self) -> bool:
        """List some more, or answer one call; return whether there is more to do."""
        listing = self._listing
        if listing is not None:
            self._parts.append(_statuses(listing))
            if listing.is_done:
                self._listing = None
                self._answer = self._header() + b"".join(self._parts)
                self._parts = []
            return True
        call = self._served.popleft()
        if call.is_open:
            call.reply(self._answer)
        if not self._served:
            self._answer = b""
            if self._waiting:
                self._served, self._waiting = self._waiting, self._served
                self._listing = self._node.lessor.listing()
        return bool(self._served)

    def give_up(self, error: Exception) -> None:
        """A defect: nobody who waits gets a list."""
        calls = [*self._served, *self._waiting]
        self._served.clear()
        self._waiting.clear()
        self._listing = None
        self._parts, self._answer = [], b""
        for call in calls:
            fail(call, error)


def _statuses(listing: Listing) -> bytes:
    return b"".join([lease.status for lease in listing.step(STEP_LEASES)])
