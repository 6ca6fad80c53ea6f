"""The keys: get, put, delete, transactions, compaction; ranges of any size as streams."""

from __future__ import annotations

from typing import Final, Unpack

from twisted.internet.defer import Deferred

from etcdtw.client.calls import Calls
from etcdtw.client.keys import (
    DeleteOptions,
    Key,
    PutOptions,
    RangeOptions,
    delete_request,
    put_request,
    range_request,
)
from etcdtw.client.network.retrying import RetryingChannel
from etcdtw.client.network.server_stream import ServerStream
from etcdtw.client.txn import Txn
from etcdtw.grpc.call import UNIMPLEMENTED, StatusError
from etcdtw.wire import etcdserverpb as pb

_BY_KEY: Final = 0
ASKED: Final = 0
STREAMED: Final = 1
PAGED: Final = 2
OVER: Final = 3

PAGE_COUNT: Final = 500
"""Keys of one part, from servers that send no parts of their own."""


class RangeParts:
    """A range in parts; ``async for`` takes them.  To be read to its end or cancelled.

    Their ``range_response``, merged in order, is the answer.  Servers before 3.7 are asked page
    by page, at the revision of the first one; for another order than that of the keys they are
    asked once.  ``timeout_ms`` is for the stream, or for each page.
    """

    def __init__(
        self, channel: RetryingChannel, request: pb.RangeRequest, timeout_ms: int | None
    ) -> None:
        self._calls = Calls(channel)
        self._timeout_ms = timeout_ms
        self._stream = ServerStream(
            channel, lambda calls: calls.range_stream(request, timeout_ms=timeout_ms)
        )
        self._page = pb.RangeRequest()
        self._page.CopyFrom(request)
        self._state = ASKED
        self._wanted = request.limit
        """How many more keys; 0: all."""
        self._count = 0

    def receive(self) -> Deferred[pb.RangeStreamResponse | None]:
        """Return the next part; None: there are no more.  One at a time."""
        return Deferred.fromCoroutine(self._next())

    def cancel(self) -> None:
        """End it."""
        self._state = OVER
        self._stream.cancel()

    def __aiter__(self) -> RangeParts:
        return self

    async def __anext__(self) -> pb.RangeStreamResponse:
        part = await self._next()
        if part is None:
            raise StopAsyncIteration
        return part

    async def _next(self) -> pb.RangeStreamResponse | None:
        if self._state == ASKED:
            try:
                part = await self._stream.receive()
            except StatusError as error:
                if error.code != UNIMPLEMENTED:
                    raise
                self._state = PAGED
            else:
                self._state = STREAMED
                return part
        if self._state == PAGED:
            return await self._next_page()
        return await self._stream.receive() if self._state == STREAMED else None

    async def _next_page(self) -> pb.RangeStreamResponse:
        page = self._page
        is_whole = page.count_only or (page.sort_target != _BY_KEY or page.sort_order > 1)
        if not is_whole:
            page.limit = min(self._wanted or PAGE_COUNT, PAGE_COUNT)
        answer = await self._calls.range(page, timeout_ms=self._timeout_ms)
        self._count = self._count or answer.count
        answer.count = self._count  # of a page it is what is left
        if is_whole or not answer.more or len(answer.kvs) == self._wanted:
            self._state = OVER
        else:
            self._wanted -= len(answer.kvs) if self._wanted else 0
            page.key = answer.kvs[-1].key + b"\0"
            page.revision = page.revision or answer.header.revision
            answer.more = False
        return pb.RangeStreamResponse(range_response=answer)


class KeyValues:
    """Every method fails with `StatusError`; ``timeout_ms`` None: it takes as long as it takes."""

    def __init__(self, channel: RetryingChannel) -> None:
        self._channel = channel
        self.calls = Calls(channel)
        """All methods of etcd, messages in and out."""

    def get(
        self, key: Key, *, timeout_ms: int | None = None, **options: Unpack[RangeOptions]
    ) -> Deferred[pb.RangeResponse]:
        """Return what stands under ``key``, or in a range: see `keys.range_request`."""
        return self.calls.range(range_request(key, **options), timeout_ms=timeout_ms)

    def put(
        self,
        key: Key,
        value: Key,
        *,
        timeout_ms: int | None = None,
        **options: Unpack[PutOptions],
    ) -> Deferred[pb.PutResponse]:
        """Put ``value`` under ``key``: see `keys.put_request`."""
        return self.calls.put(put_request(key, value, **options), timeout_ms=timeout_ms)

    def delete(
        self, key: Key, *, timeout_ms: int | None = None, **options: Unpack[DeleteOptions]
    ) -> Deferred[pb.DeleteRangeResponse]:
        """Delete ``key``, or a range: see `keys.delete_request`."""
        return self.calls.delete_range(delete_request(key, **options), timeout_ms=timeout_ms)

    def txn(self) -> Txn:
        """Begin a transaction: see `client.txn`."""
        return Txn(self.calls)

    def compact(
        self, revision: int, *, physical: bool = False, timeout_ms: int | None = None
    ) -> Deferred[pb.CompactionResponse]:
        """Forget the history before ``revision``; with ``physical`` wait until it is gone."""
        request = pb.CompactionRequest(revision=revision, physical=physical)
        return self.calls.compact(request, timeout_ms=timeout_ms)

    def range_stream(
        self, key: Key, *, timeout_ms: int | None = None, **options: Unpack[RangeOptions]
    ) -> RangeParts:
        """As `get`, in parts, of one revision, as fast as they are taken."""
        return RangeParts(self._channel, range_request(key, **options), timeout_ms)
