"""The keys: get, put, delete, transactions, compaction; ranges of any size as streams."""

from __future__ import annotations

from typing import Unpack

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
from etcdtw.wire import etcdserverpb as pb


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
    ) -> ServerStream[pb.RangeStreamResponse]:
        """As `get`, in parts, of one revision, as fast as they are taken.

        ``range_response`` of the parts, merged in order, is the answer.
        """
        request = range_request(key, **options)
        return ServerStream(
            self._channel, lambda calls: calls.range_stream(request, timeout_ms=timeout_ms)
        )
