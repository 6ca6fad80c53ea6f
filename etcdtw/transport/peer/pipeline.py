"""Messages to a peer that has no stream open to us: one POST for each, over a few connections.

What waits is bounded and short-lived: when a peer cannot be reached all of it is dropped, and
Raft sends again.  The order of messages is not kept, as in etcd.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final
from typing import Protocol as Seam

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from etcdtw.raft.message import MSG_PROP, Message
from etcdtw.rafthttp.codec import encode_message
from etcdtw.rafthttp.headers import PeerIdentity, is_of_cluster, request_headers
from etcdtw.rafthttp.http import Head
from etcdtw.transport.peer.client import Dial, PeerHttpClient, UrlRing, dial_peer
from etcdtw.transport.peer.dial import PeerTimes
from etcdtw.transport.peer.seams import PeerStats

POST_QUEUE_MAX: Final = 64
CONNECTIONS_MAX: Final = 4
"""To one peer; both are etcd's."""


class PipelineOwner(Seam):
    """Whom a pipeline tells how its messages fared."""

    def messages_lost(self) -> None: ...
    def told_removed(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class PipelineParts:
    """What all posts of one peer share."""

    identity: PeerIdentity
    urls: UrlRing
    dial: Dial
    clock: IReactorTime
    times: PeerTimes
    stats: PeerStats


class Pipeline:
    """The posts to one peer."""

    def __init__(self, parts: PipelineParts, owner: PipelineOwner) -> None:
        self.parts = parts
        self.owner = owner
        self._queue: deque[Message] = deque()
        self._posts: list[Post] = []
        self._is_stopped = False

    def push(self, m: Message) -> bool:
        """Queue ``m``; returns False when there is no room for it."""
        if self._is_stopped or len(self._queue) >= POST_QUEUE_MAX:
            return False
        self._queue.append(m)
        return True

    def flush(self) -> None:
        """Put waiting messages on free connections."""
        while self._queue and not self._is_stopped:
            post = self._free_post()
            if post is None:
                return
            post.send(self._queue.popleft())

    def stop(self) -> None:
        """Drop everything; nothing is reported any more."""
        self._is_stopped = True
        self._queue.clear()
        for post in self._posts:
            post.close()

    def failed(self, is_unreachable: bool) -> None:
        """A message was not taken; if nothing gets there, neither do those that wait."""
        if self._is_stopped:
            return
        self.parts.stats.send_failures += 1
        if is_unreachable:
            self.parts.stats.send_failures += len(self._queue)
            self._queue.clear()
        self.owner.messages_lost()

    def _free_post(self) -> Post | None:
        for post in self._posts:
            if not post.is_busy:
                return post
        if len(self._posts) >= CONNECTIONS_MAX:
            return None
        self._posts.append(Post(self))
        return self._posts[-1]


class Post:
    """One connection of a pipeline, kept for the next message.  Is its `ResponseSink`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._parts = pipeline.parts
        self._body: bytes | None = None  # what is being posted
        self._status = 0
        self._url = ""
        self._connection: PeerHttpClient | None = None
        self._attempt: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None
        self._is_reused = False
        self._is_proposal = False
        self._is_of_cluster = False

    @property
    def is_busy(self) -> bool:
        return self._body is not None

    def send(self, m: Message) -> None:
        assert self._body is None, "one message at a time"
        self._body = encode_message(m)
        self._is_proposal = m.type == MSG_PROP
        self._status = 0
        times = self._parts.times
        self._deadline = self._parts.clock.callLater(times.dial_s + times.post_s, self._too_late)
        if self._connection is None:
            self._dial()
        else:
            self._is_reused = True
            self._request(self._connection, self._body)

    def close(self) -> None:
        """Drop the connection; the pipeline is told nothing."""
        self._body = None
        self._clear()

    def _dial(self) -> None:
        self._is_reused = False
        self._url = self._parts.urls.current
        dialled = dial_peer(self._parts.dial, self._url, self)
        attempt = dialled.addCallbacks(self._connected, self._failed)
        if self._connection is None and self._body is not None:
            self._attempt = attempt

    def _connected(self, connection: PeerHttpClient) -> None:
        self._attempt = None
        if self._body is None:
            connection.abort()
            return
        self._connection = connection
        self._request(connection, self._body)

    def _request(self, connection: PeerHttpClient, body: bytes) -> None:
        headers = request_headers(self._parts.identity)
        headers.append(("Content-Type", "application/protobuf"))
        self._parts.stats.sent_octets += len(body)
        connection.request("POST", "/raft", headers, body)

    def _failed(self, failure: Failure) -> None:
        self._attempt = None
        if self._body is not None:
            self._lose()

    def _too_late(self) -> None:
        self._deadline = None
        self._lose()

    def response_began(self, head: Head) -> None:
        self._status = head.status
        self._is_of_cluster = is_of_cluster(self._parts.identity, head.headers)

    def body_received(self, data: bytes) -> None:
        """The text of a refusal."""

    def response_ended(self, keeps_alive: bool) -> None:
        status = self._status
        self._body = None
        if keeps_alive:
            self._cancel_deadline()
        else:
            self._clear()
        if status in (403, 410) and self._is_of_cluster:  # and not a proxy's
            self._pipeline.owner.told_removed()
        elif status not in (200, 204):
            self._pipeline.failed(is_unreachable=False)
        self._pipeline.flush()

    def connection_broken(self, why: str) -> None:
        self._connection = None
        if self._body is None:
            return
        if self._is_reused and not self._status and not self._is_proposal:
            # Most likely it was closed for being idle, and this message has not been read.  If it
            # has, Raft knows the second one for what it is; but a proposal it would take twice.
            self._dial()
        else:
            self._lose()

    def _lose(self) -> None:
        self._body = None
        self._clear()
        self._parts.urls.rotate(self._url)
        self._pipeline.failed(is_unreachable=True)

    def _clear(self) -> None:
        self._cancel_deadline()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
