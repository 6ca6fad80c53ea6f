"""A stream that one request asks for: opened again elsewhere as long as nothing has come of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from etcdtw.client.calls import Calls, Messages
from etcdtw.client.network import retry_rules
from etcdtw.client.network.retrying import RetryingChannel
from etcdtw.grpc.call import CANCELLED, UNAVAILABLE, StatusError

Answered = TypeVar("Answered")

OPENINGS_MAX: Final = 10


class ServerStream(Generic[Answered]):
    """``async for`` takes the messages; to be read to its end or cancelled.

    ``open_stream`` begins the call.  Once a message has come a failure is told: who reads knows
    what to do with a half.
    """

    def __init__(
        self,
        channel: RetryingChannel,
        open_stream: Callable[[Calls], Messages[Any, Answered]],
    ) -> None:
        self._channel = channel
        self._open = open_stream
        self._stream: Messages[Any, Answered] | None = None
        self._has_begun = False
        self._is_cancelled = False

    def receive(self) -> Deferred[Answered | None]:
        """Return the next message; None: there are no more.  One at a time."""
        if self._has_begun and self._stream is not None:
            return self._stream.receive()
        return Deferred.fromCoroutine(self._first())

    def cancel(self) -> None:
        """End it."""
        self._is_cancelled = True
        if self._stream is not None:
            self._stream.cancel()

    def __aiter__(self) -> ServerStream[Answered]:
        return self

    async def __anext__(self) -> Answered:
        answer = await self.receive()
        if answer is None:
            raise StopAsyncIteration
        return answer

    async def _first(self) -> Answered | None:
        channel = self._channel
        renewals = 0
        for attempt in range(1, OPENINGS_MAX + 1):
            await channel.prepare()
            if self._is_cancelled:
                raise StatusError(CANCELLED, "context canceled")
            shown = channel.token
            self._stream = self._open(Calls(channel))
            try:
                answer = await self._stream.receive()
            except StatusError as error:
                if attempt == OPENINGS_MAX:
                    raise
                if retry_rules.is_token_refused(error) and renewals < retry_rules.RENEWALS_MAX:
                    renewals += 1
                    await channel.renew(shown)
                elif error.code != UNAVAILABLE:
                    raise
                else:
                    wait_s = retry_rules.wait_s(attempt, channel.servers, channel.random())
                    await deferLater(channel.clock, wait_s)
            else:
                self._has_begun = True
                return answer
        raise AssertionError("an attempt returns or raises")
