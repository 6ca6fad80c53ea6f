"""Watches: events of keys, in order, none missed and none twice, across servers.

A watch is a stream of its own.  It is pulled: what its user does not take waits at the server,
which is stopped by the stream's window, and holds up no other watch.  When its server is lost it
goes on at another one, from the revision behind the last one that was seen.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from etcdtw.client.calls import Calls, Messages
from etcdtw.client.channel import Metadata
from etcdtw.client.keys import Key, key_range
from etcdtw.client.network import retry_rules
from etcdtw.client.network.retrying import RetryingChannel
from etcdtw.grpc.call import INTERNAL, UNAVAILABLE, StatusError
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import mvccpb

RESUMES_MAX: Final = 100
"""In a row, without a word of any server: about three minutes, and the time that dialling takes."""
RESUME_WAIT_MIN_S: Final = 0.025
RESUME_WAIT_MAX_S: Final = 2.0
NEEDS_LEADER: Final[Metadata] = ((b"hasleader", b"true"),)
"""A server without a leader hears of nothing: it is to say so, and another one is asked."""

_NO_PUTS, _NO_DELETES = 0, 1


class CompactedError(Exception):
    """Events that were asked for are no longer kept.

    Those from ``compact_revision`` on are: read the keys anew, and watch from that revision on.
    """

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"events before revision {compact_revision} have been compacted")
        self.compact_revision = compact_revision


class WatchRefusedError(Exception):
    """The server ended the watch; the text is its reason."""


def watch_request(
    key: Key,
    *,
    range_end: Key | None = None,
    prefix: bool = False,
    from_key: bool = False,
    start_revision: int = 0,
    prev_kv: bool = False,
    no_puts: bool = False,
    no_deletes: bool = False,
    progress_notify: bool = False,
    fragment: bool = False,
) -> pb.WatchCreateRequest:
    """Return a request for the events of ``key``, or of a range (see `keys.key_range`).

    ``start_revision`` 0: those from now on.  ``progress_notify``: empty responses tell at times
    how far the server is.  ``fragment``: a server may send one large response in parts, which are
    put together here.
    """
    first, end = key_range(key, range_end, prefix, from_key)
    filters = [_NO_PUTS] * no_puts + [_NO_DELETES] * no_deletes
    return pb.WatchCreateRequest(
        key=first,
        range_end=end,
        start_revision=start_revision,
        prev_kv=prev_kv,
        filters=filters,
        progress_notify=progress_notify,
        fragment=fragment,
    )


class Watch:
    """One watch.  ``async for`` takes its events one by one; `receive` takes whole responses.

    To be cancelled when it is no longer wanted.  Fails with `CompactedError`,
    `WatchRefusedError`, or with the `StatusError` of a server when it cannot go on.
    """

    def __init__(
        self,
        channel: RetryingChannel,
        request: pb.WatchCreateRequest,
        metadata: Metadata = NEEDS_LEADER,
    ) -> None:
        self._channel = channel
        self._calls = Calls(channel)
        self._request = request
        self._metadata = metadata
        self.next_revision = request.start_revision
        """Where it would go on; 0: the server has not yet told where it begins."""
        self.resumes = 0
        """How often it went on at a server, after it had lost one."""
        self._stream: Messages[pb.WatchRequest, pb.WatchResponse] | None = None
        self._shown: Metadata = ()
        self._failures = 0  # in a row
        self._renewals = 0  # in a row
        self._fragments: pb.WatchResponse | None = None
        self._events: deque[mvccpb.Event] = deque()
        self._is_created = False
        self._ahead: pb.WatchResponse | None = None  # came while `start` waited
        self._has_ended = False
        self._receiving: Deferred[pb.WatchResponse | None] | None = None
        # A watch from now on begins now, and not when somebody first looks.
        self._channel.prepare().addCallbacks(lambda _: self._begin(), lambda _: None)

    def start(self) -> Deferred[int]:
        """Wait until a server has it; return the revision that it begins with."""
        return Deferred.fromCoroutine(self._start())

    def receive(self) -> Deferred[pb.WatchResponse | None]:
        """Return the next response with events, or that tells progress.  One at a time.

        None: the watch was cancelled.  Cancelling the Deferred loses no event.
        """
        assert self._receiving is None, "one at a time"
        receiving = Deferred.fromCoroutine(self._next())
        if not receiving.called:
            self._receiving = receiving
            receiving.addBoth(self._received)
        return receiving

    def cancel(self) -> None:
        """End the watch, here and at its server; who waits is told that there is no more."""
        if self._has_ended:
            return
        self._has_ended = True
        self._events.clear()
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
        if self._receiving is not None:
            self._receiving.cancel()

    def request_progress(self) -> None:
        """Ask the server how far it is; `receive` returns the answer, without events.

        Lost with the server that was asked.
        """
        if self._stream is not None:
            progress = pb.WatchProgressRequest()
            self._stream.send(pb.WatchRequest(progress_request=progress))

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> mvccpb.Event:
        while not self._events:
            response = await self.receive()
            if response is None:
                raise StopAsyncIteration
            self._events.extend(response.events)
        return self._events.popleft()

    def _received(
        self, response: pb.WatchResponse | Failure | None
    ) -> pb.WatchResponse | Failure | None:
        self._receiving = None
        return response

    async def _start(self) -> int:
        while not self._is_created and not self._has_ended:
            self._ahead = await self._step()
        return self.next_revision

    async def _next(self) -> pb.WatchResponse | None:
        response, self._ahead = self._ahead, None
        try:
            while response is None and not self._has_ended:
                response = await self._step()
        except CancelledError:
            if not self._has_ended:
                raise
        return response

    async def _step(self) -> pb.WatchResponse | None:
        """Take one response; return it when it is for the user."""
        if self._stream is None:
            await self._channel.prepare()
            self._begin()
        stream = self._stream
        if stream is None:
            return None
        try:
            response = await stream.receive()
        except StatusError as error:
            if not self._has_ended:
                await self._lost(error)
            return None
        if response is None:
            await self._lost(StatusError(UNAVAILABLE, "the server ended the watch's stream"))
            return None
        self._failures = 0
        if response.canceled:
            await self._refused(response)
            return None
        return self._look(response)

    def _begin(self) -> None:
        if self._has_ended or self._stream is not None:
            return
        request = pb.WatchCreateRequest()
        request.CopyFrom(self._request)
        request.start_revision = self.next_revision
        self._shown = self._channel.token
        self._fragments = None
        self._stream = self._calls.watch(
            pb.WatchRequest(create_request=request), metadata=self._metadata
        )

    def _look(self, response: pb.WatchResponse) -> pb.WatchResponse | None:
        if response.created:
            self._renewals = 0
            self._is_created = True
            if not self.next_revision:
                self.next_revision = response.header.revision + 1
            return None
        if response.fragment or self._fragments is not None:
            whole = self._fragments
            if whole is None:
                whole = self._fragments = response
            else:
                whole.events.extend(response.events)
            if response.fragment:
                return None
            self._fragments = None
            whole.fragment = False
            response = whole
        events = response.events
        last = events[-1].kv.mod_revision if events else response.header.revision
        self.next_revision = max(self.next_revision, last + 1)
        return response

    async def _refused(self, response: pb.WatchResponse) -> None:
        """The server ended the watch: is there a way on?"""
        self._drop()
        if response.compact_revision:
            self._has_ended = True
            raise CompactedError(response.compact_revision)
        reason = response.cancel_reason
        if (
            any(text in reason for text in retry_rules.TOKEN_REFUSALS)
            and self._renewals < retry_rules.RENEWALS_MAX
        ):
            self._renewals += 1
            await self._channel.renew(self._shown)
            return
        self._has_ended = True
        raise WatchRefusedError(reason or "the server gave no reason")

    async def _lost(self, error: StatusError) -> None:
        """The stream is gone: wait a little before the next one."""
        self._drop()
        if retry_rules.is_token_refused(error) and self._renewals < retry_rules.RENEWALS_MAX:
            self._renewals += 1
            await self._channel.renew(self._shown)
            return
        self._failures += 1
        if error.code not in (UNAVAILABLE, INTERNAL) or self._failures > RESUMES_MAX:
            self._has_ended = True
            raise error
        self.resumes += 1
        wait_s = min(RESUME_WAIT_MIN_S * 2 ** (self._failures - 1), RESUME_WAIT_MAX_S)
        await deferLater(self._channel.clock, wait_s * (0.5 + self._channel.random()))

    def _drop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.cancel()
