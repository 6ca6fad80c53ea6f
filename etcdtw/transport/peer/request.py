"""Asks a peer for one of its pages: /version, /members, /members/hashkv, /leases ...

One connection for each request, which is rare; the answer is kept in memory, bounded.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from etcdtw.rafthttp.http import Head
from etcdtw.transport.peer.client import Dial, PeerHttpClient, dial_peer
from etcdtw.transport.peer.seams import PageAnswer

ANSWER_SIZE_MAX: Final = 4 * 1024 * 1024
"""Octets; etcd's largest page is the list of members, or a lease with all its keys."""
REQUEST_S: Final = 5.0


class PeerRequestError(Exception):
    """No answer came; says why."""


def request_page(
    dial: Dial,
    clock: IReactorTime,
    url: str,
    method: str,
    path: str,
    *,
    headers: list[tuple[str, str]] | None = None,
    body: bytes = b"",
    timeout_s: float = REQUEST_S,
    size_max: int = ANSWER_SIZE_MAX,
) -> Deferred[PageAnswer]:
    """Send one request to the peer at ``url``; any status is an answer.

    The names in the answer's ``headers`` are in lower case.  A body goes with any method, GET
    included.  Fails with `PeerRequestError`; may be cancelled.
    """
    return _PageRequest(clock, url, size_max).start(
        dial, method, path, [*(headers or []), ("Connection", "close")], body, timeout_s
    )


class _PageRequest:
    """One request.  Is its connection's `ResponseSink`."""

    def __init__(self, clock: IReactorTime, url: str, size_max: int) -> None:
        self._clock = clock
        self._url = url
        self._size_max = size_max
        self._answer: Deferred[PageAnswer] = Deferred(lambda _: self._close())
        self._attempt: Deferred[None] | None = None
        self._connection: PeerHttpClient | None = None
        self._deadline: IDelayedCall | None = None
        self._head = Head({}, False)
        self._body: list[bytes] = []
        self._size = 0
        self._is_over = False

    def start(
        self,
        dial: Dial,
        method: str,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes,
        timeout_s: float,
    ) -> Deferred[PageAnswer]:
        def connected(connection: PeerHttpClient) -> None:
            self._attempt = None
            self._connection = connection
            connection.request(method, path, headers, body)

        def failed(failure: Failure) -> None:
            self._attempt = None
            self._fail(failure.getErrorMessage())

        self._deadline = self._clock.callLater(timeout_s, self._too_late, timeout_s)
        attempt = dial_peer(dial, self._url, self).addCallbacks(connected, failed)
        if self._connection is None and not self._is_over:
            self._attempt = attempt
        return self._answer

    def response_began(self, head: Head) -> None:
        self._head = head

    def body_received(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._size_max:
            self._fail(f"the answer has more than {self._size_max} octets")
        else:
            self._body.append(data)

    def response_ended(self, keeps_alive: bool) -> None:
        if not self._is_over:
            self._close()
            headers = tuple(self._head.headers.items())
            self._answer.callback(PageAnswer(self._head.status, b"".join(self._body), headers))

    def connection_broken(self, why: str) -> None:
        self._connection = None
        self._fail(why)

    def _too_late(self, timeout_s: float) -> None:
        self._deadline = None
        self._fail(f"no answer within {timeout_s:g} s")

    def _fail(self, why: str) -> None:
        if not self._is_over:
            self._close()
            self._answer.errback(PeerRequestError(f"{self._url}: {why}"))

    def _close(self) -> None:
        self._is_over = True  # giving the attempt up fails it
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
