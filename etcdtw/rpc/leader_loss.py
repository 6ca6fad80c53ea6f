"""Streams that asked for a leader (``hasleader``) end when there has been none for a while.

Source: etcd's stream rules: refused at once without a leader, ended with the same error
after three election timeouts without one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall

from etcdtw.grpc.call import UNAVAILABLE, Call
from etcdtw.node.facade import Facade

NO_LEADER: Final = "etcdserver: no leader"
TIMEOUTS_WITHOUT_LEADER_MAX: Final = 3


class LeaderLoss:
    """Looks once per election timeout while it has streams to end.  One per service."""

    def __init__(self, source: Facade, election_timeout_s: float) -> None:
        self._source = source
        self._election_timeout_s = election_timeout_s
        self._streams: dict[Call, Callable[[], None]] = {}
        self._without_leader = 0
        self._check_due: IDelayedCall | None = None

    def admit(self, call: Call, ended: Callable[[], None]) -> bool:
        """Return whether a stream may open; if not it has been failed.

        ``ended`` is called if it is failed later.  `forget` must be called when the stream
        ends otherwise.
        """
        if call.metadata(b"hasleader") != b"true":
            return True
        if not self._source.leader_id:
            call.fail(UNAVAILABLE, NO_LEADER)
            return False
        self._streams[call] = ended
        if self._check_due is None:
            self._without_leader = 0
            self._arm()
        return True

    def forget(self, call: Call) -> None:
        """A stream has ended; does nothing for one that asked for no leader."""
        self._streams.pop(call, None)
        if not self._streams and self._check_due is not None:
            self._check_due.cancel()
            self._check_due = None

    def _arm(self) -> None:
        self._check_due = self._source.clock.callLater(self._election_timeout_s, self._check)

    def _check(self) -> None:
        self._check_due = None
        self._without_leader = 0 if self._source.leader_id else self._without_leader + 1
        if self._without_leader >= TIMEOUTS_WITHOUT_LEADER_MAX:
            streams, self._streams = self._streams, {}
            for call, ended in streams.items():
                call.fail(UNAVAILABLE, NO_LEADER)
                ended()
        if self._streams:
            self._arm()
