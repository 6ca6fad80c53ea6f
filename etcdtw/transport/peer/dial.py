"""Opens one stream to a peer and keeps it open: dials, reads, notices silence, dials again.

The states stand in ``docs/machines/peer-stream.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from typing import Protocol as Seam

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from etcdtw.cluster.ids import id_text
from etcdtw.raft.message import Message
from etcdtw.rafthttp.headers import (
    PeerIdentity,
    is_of_cluster,
    mismatch_text,
    request_headers,
)
from etcdtw.rafthttp.http import Head
from etcdtw.rafthttp.stream import AppendReader, MessageReader, PeerStreamError
from etcdtw.transport.peer.client import Dial, PeerHttpClient, UrlRing, dial_peer
from etcdtw.transport.peer.outlet import STREAM_APPEND
from etcdtw.transport.peer.seams import PeerStats

STOPPED: Final = 0
WAITING: Final = 1
DIALLING: Final = 2
OPENING: Final = 3
ATTACHED: Final = 4
STATE_NAMES: Final = ("stopped", "waiting", "dialling", "opening", "attached")


@dataclass(frozen=True, kw_only=True)
class PeerTimes:
    """How long what may take, in seconds.

    ``dial_s`` runs from the first packet to the response's head; etcd takes 1 s and an
    election timeout.  ``silence_s``: how long a stream may bring nothing (--raft-read-timeout).
    """

    dial_s: float = 2.0
    redial_s: float = 0.1
    silence_s: float = 5.0
    post_s: float = 5.0


class StreamOwner(Seam):
    """Whom a dialler tells what came and what happened."""

    def messages_received(self, messages: list[Message]) -> None: ...
    def stream_attached(self, kind: str) -> None: ...
    def stream_lost(self, kind: str) -> None: ...

    def told_removed(self) -> None:
        """The peer says that we are no member any more."""
        ...


class StreamDialler:
    """One stream of one peer, over all its connections.  Is its connections' `ResponseSink`."""

    log = Logger()

    def __init__(
        self,
        kind: str,
        remote_id: int,
        *,
        identity: PeerIdentity,
        urls: UrlRing,
        dial: Dial,
        clock: IReactorTime,
        times: PeerTimes,
        stats: PeerStats,
        owner: StreamOwner,
    ) -> None:
        self.kind = kind
        self.state = STOPPED
        self.urls = urls
        self._remote_id = remote_id
        self._identity = identity
        self._dial = dial
        self._clock = clock
        self._times = times
        self._stats = stats
        self._owner = owner
        self._attempt: Deferred[None] | None = None
        self._connection: PeerHttpClient | None = None
        # The one timer: the next dial, the end of an attempt, or silence.
        self._timer: IDelayedCall | None = None
        self._reader: MessageReader | AppendReader = MessageReader()
        self._url = ""
        self._dialled_at = 0.0
        self._heard_at = 0.0
        self._told = ""  # the last failure that was logged

    def start(self) -> None:
        """Dial, and go on until `stop`."""
        if self.state == STOPPED:
            self._begin()

    def stop(self) -> None:
        """Close what is open; the owner is told nothing more."""
        self.state = STOPPED
        self._clear()

    def _begin(self) -> None:
        self.state = DIALLING
        self._url = self.urls.current
        self._dialled_at = self._clock.seconds()
        self._timer = self._clock.callLater(self._times.dial_s, self._too_late)
        attempt = dial_peer(self._dial, self._url, self).addCallbacks(self._connected, self._failed)
        if self.state == DIALLING:
            self._attempt = attempt

    def _connected(self, connection: PeerHttpClient) -> None:
        self._attempt = None
        if self.state != DIALLING:
            connection.abort()
            return
        self.state = OPENING
        self._connection = connection
        connection.request(
            "GET",
            f"/raft/stream/{self.kind}/{id_text(self._identity.member_id)}",
            request_headers(self._identity, self._remote_id),
        )

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        if self.state == DIALLING:
            self._lose(failure.getErrorMessage())

    def _too_late(self) -> None:
        self._timer = None
        self._lose(f"no answer within {self._times.dial_s:g} s")

    # -- the response --------------------------------------------------------------------------

    def response_began(self, head: Head) -> None:
        if head.status == 410 and is_of_cluster(self._identity, head.headers):
            self.log.error(
                "peer {peer} says that this member was removed", peer=id_text(self._remote_id)
            )
            self.stop()
            self._owner.told_removed()
            return
        cluster_id = id_text(self._identity.cluster_id)
        if head.headers.get("x-etcd-cluster-id", cluster_id).lower() != cluster_id:
            self._lose(mismatch_text(self._identity, head.headers))
        elif head.status != 200:
            self._lose(f"status {head.status}")
        else:
            self._attach()

    def _attach(self) -> None:
        self.state = ATTACHED
        self._reader = (
            AppendReader(self._identity.member_id, self._remote_id)
            if self.kind == STREAM_APPEND
            else MessageReader()
        )
        self._cancel_timer()
        self._heard_at = self._clock.seconds()
        self._timer = self._clock.callLater(self._times.silence_s, self._check_silence)
        if self._told:
            self._told = ""
            self.log.info(
                "stream {kind} from peer {peer} is up",
                kind=self.kind,
                peer=id_text(self._remote_id),
            )
        self._owner.stream_attached(self.kind)

    def body_received(self, data: bytes) -> None:
        if self.state != ATTACHED:
            return  # the text of a refusal
        self._heard_at = self._clock.seconds()
        self._stats.received_octets += len(data)
        try:
            messages = self._reader.feed(data)
        except PeerStreamError as error:
            self._stats.receive_failures += 1
            self._lose(str(error))
            return
        if messages:
            self._owner.messages_received(messages)

    def response_ended(self, keeps_alive: bool) -> None:
        self._lose("the peer ended the stream")

    def connection_broken(self, why: str) -> None:
        self._connection = None
        self._lose(why)

    # -- endings -------------------------------------------------------------------------------

    def _check_silence(self) -> None:
        """Look at the clock once in a while, not at each octet."""
        left_s = self._heard_at + self._times.silence_s - self._clock.seconds()
        if left_s > 0:
            self._timer = self._clock.callLater(left_s, self._check_silence)
        else:
            self._timer = None
            self._lose(f"silent for {self._times.silence_s:g} s")

    def _lose(self, why: str) -> None:
        """Give the connection or the attempt up and dial again, not too soon."""
        if self.state == STOPPED:
            return
        was_attached = self.state == ATTACHED
        self.state = WAITING
        self._clear()
        if not was_attached:
            self.urls.rotate(self._url)
        if why != self._told:
            self._told = why
            self.log.warn(
                "stream {kind} from peer {peer} at {url}: {why}",
                kind=self.kind,
                peer=id_text(self._remote_id),
                url=self._url,
                why=why,
            )
        since_s = self._clock.seconds() - self._dialled_at
        wait_s = max(self._times.redial_s - since_s, 0.0)
        self._timer = self._clock.callLater(wait_s, self._redial)
        if was_attached:
            self._owner.stream_lost(self.kind)

    def _redial(self) -> None:
        self._timer = None
        self._begin()

    def _clear(self) -> None:
        self._cancel_timer()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
