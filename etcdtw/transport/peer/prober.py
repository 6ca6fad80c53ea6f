"""Asks a peer every few seconds whether it is there and what time it is; notes how long it took.

One connection of its own, kept; measured is from the request to the end of the answer, so that
neither handshakes nor queues of Raft are in it.  Source: etcd's peer contract, 3.4.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from etcdtw.cluster.ids import id_text
from etcdtw.rafthttp.http import Head
from etcdtw.transport.peer.client import Dial, PeerHttpClient, UrlRing, dial_peer
from etcdtw.transport.peer.seams import PeerStats

PROBE_S: Final = 4.0
"""Between two probes, and how long one may take; etcd's number."""
DRIFT_S: Final = 1.0
"""Leases and certificates mind when clocks differ by more; etcd's number."""
ANSWER_SIZE_MAX: Final = 1024
PATH: Final = "/raft/probing"

STOPPED: Final = 0
IDLE: Final = 1
DIALLING: Final = 2
ASKING: Final = 3

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class PeerProber:
    """The probes of one peer.  Is its connection's `ResponseSink`.

    ``unix_ns`` is the wall clock.  That a peer cannot be reached is said by its streams.
    """

    log = Logger()

    def __init__(
        self,
        member_id: int,
        *,
        urls: UrlRing,
        dial: Dial,
        clock: IReactorTime,
        unix_ns: Callable[[], int],
        stats: PeerStats,
    ) -> None:
        self.state = STOPPED
        self.is_drifting = False
        self._member_id = member_id
        self._urls = urls
        self._dial = dial
        self._clock = clock
        self._unix_ns = unix_ns
        self._stats = stats
        self._timer: IDelayedCall | None = None
        self._attempt: Deferred[None] | None = None
        self._connection: PeerHttpClient | None = None
        self._asked_s = 0.0
        self._asked_unix_ns = 0
        self._status = 0
        self._body = b""

    def start(self) -> None:
        """Probe from now on, until `stop`."""
        if self.state == STOPPED:
            self.state = IDLE
            self._timer = self._clock.callLater(PROBE_S, self._probe)

    def stop(self) -> None:
        self.state = STOPPED
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._drop()

    def _probe(self) -> None:
        self._timer = self._clock.callLater(PROBE_S, self._probe)
        if self.state != IDLE:
            self._drop()  # the last one was not answered in time
        if self._connection is not None:
            self._ask(self._connection)
            return
        self.state = DIALLING
        dialled = dial_peer(self._dial, self._urls.current, self)
        attempt = dialled.addCallbacks(self._connected, self._failed)
        if self.state == DIALLING:
            self._attempt = attempt

    def _connected(self, connection: PeerHttpClient) -> None:
        self._attempt = None
        if self.state != DIALLING:
            connection.abort()
            return
        self._connection = connection
        self._ask(connection)

    def _failed(self, _: Failure) -> None:
        self._attempt = None
        if self.state == DIALLING:
            self.state = IDLE

    def _ask(self, connection: PeerHttpClient) -> None:
        self.state = ASKING
        self._body = b""
        self._asked_s = self._clock.seconds()
        self._asked_unix_ns = self._unix_ns()
        connection.request("GET", PATH, [])

    # -- the response --------------------------------------------------------------------------

    def response_began(self, head: Head) -> None:
        self._status = head.status

    def body_received(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > ANSWER_SIZE_MAX:
            self._drop()

    def response_ended(self, keeps_alive: bool) -> None:
        if self.state != ASKING:
            return
        self.state = IDLE
        if self._status == 200:
            round_trip_s = max(self._clock.seconds() - self._asked_s, 0.0)
            self._stats.round_trip_s.observe(round_trip_s)
            theirs_ns = told_unix_ns(self._body)
            if theirs_ns is not None:
                ours_ns = self._asked_unix_ns + int(round_trip_s / 2 * 1e9)
                self._compare((theirs_ns - ours_ns) / 1e9)
        if not keeps_alive:
            self._drop()

    def connection_broken(self, why: str) -> None:
        self._connection = None
        if self.state == ASKING:
            self.state = IDLE

    def _compare(self, drift_s: float) -> None:
        """Say it once when clocks have drifted apart, and once when they are together again."""
        is_drifting = abs(drift_s) > DRIFT_S
        if is_drifting == self.is_drifting:
            return
        self.is_drifting = is_drifting
        peer = id_text(self._member_id)
        if is_drifting:
            self.log.warn(
                "the clock of peer {peer} differs from ours by {drift_s:+.3f} s: "
                "synchronize the clocks of all members",
                peer=peer,
                drift_s=drift_s,
            )
        else:
            self.log.info("the clock of peer {peer} agrees with ours again", peer=peer)

    def _drop(self) -> None:
        """Forget the connection or the attempt; the next probe dials."""
        if self.state != STOPPED:
            self.state = IDLE
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()


def told_unix_ns(body: bytes) -> int | None:
    """Return the time that an answer tells, to the microsecond; None: it tells none."""
    try:
        now = datetime.fromisoformat(json.loads(body)["Now"])
        return (now - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
