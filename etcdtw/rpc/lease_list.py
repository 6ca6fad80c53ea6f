"""LeaseLeases: all leases in one answer, put in order step by step.

One list serves everybody who waited when it was begun; those that come meanwhile wait for the
next.
"""

from __future__ import annotations

from collections.abc import Callable

from etcdtw.grpc.call import Call
from etcdtw.lease.arming import Listing
from etcdtw.lease.lessor import LOOKS_MAX
from etcdtw.node.facade import Facade


class LeaseLists:
    """The lists of one member.  ``header``: returns that of an answer given now."""

    def __init__(self, node: Facade, header: Callable[[], bytes]) -> None:
        self._node = node
        self._header = header
        self._waiting: list[Call] = []
        self._served: list[Call] = []
        self._listing: Listing | None = None

    def answer(self, call: Call) -> bytes | None:
        """Return the answer if the list is short; otherwise it is given later."""
        if self._listing is not None:
            self._waiting.append(call)
            return None
        listing = self._node.lessor.listing()
        listing.step(LOOKS_MAX)
        if listing.is_done:
            return self._header() + listing.statuses()
        self._begin(listing, [call])
        return None

    def _begin(self, listing: Listing, calls: list[Call]) -> None:
        self._served = calls
        self._listing = listing
        self._node.clock.callLater(0, self._step)

    def _step(self) -> None:
        listing = self._listing
        assert listing is not None, "nothing is listed"
        listing.step(LOOKS_MAX)
        if not listing.is_done:
            self._node.clock.callLater(0, self._step)
            return
        self._listing = None
        answer = self._header() + listing.statuses()
        for call in self._served:
            if call.is_open:
                call.reply(answer)
        self._served = []
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._begin(self._node.lessor.listing(), waiting)
