"""LeaseLeases: all leases in one answer, put in order step by step.

One list serves everybody who waited when it was begun; those that come meanwhile wait for the
next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from etcdtw.grpc.call import Call
from etcdtw.lease.arming import Listing
from etcdtw.node.facade import Facade

STEP_LEASES: Final = 1_000
"""Sorted, or listed, before others are served."""


class LeaseLists:
    """The lists of one member.  ``header``: returns that of an answer given now."""

    def __init__(self, node: Facade, header: Callable[[], bytes]) -> None:
        self._node = node
        self._header = header
        self._waiting: list[Call] = []
        self._served: list[Call] = []
        self._listing: Listing | None = None
        self._parts: list[bytes] = []
        """Of the answer: fields of a LeaseLeasesResponse."""

    def answer(self, call: Call) -> bytes | None:
        """Return the answer if the list is short; otherwise it is given later."""
        if self._listing is not None:
            self._waiting.append(call)
            return None
        listing = self._node.lessor.listing()
        part = _statuses(listing)
        if listing.is_done:
            return self._header() + part
        self._begin(listing, [call])
        return None

    def _begin(self, listing: Listing, calls: list[Call]) -> None:
        self._served = calls
        self._listing = listing
        self._node.clock.callLater(0, self._step)

    def _step(self) -> None:
        listing = self._listing
        assert listing is not None, "nothing is listed"
        self._parts.append(_statuses(listing))
        if not listing.is_done:
            self._node.clock.callLater(0, self._step)
            return
        self._listing = None
        answer = self._header() + b"".join(self._parts)
        self._parts = []
        for call in self._served:
            if call.is_open:
                call.reply(answer)
        self._served = []
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._begin(self._node.lessor.listing(), waiting)


def _statuses(listing: Listing) -> bytes:
    return b"".join([lease.status for lease in listing.step(STEP_LEASES)])
