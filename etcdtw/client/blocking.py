"""The client for scripts: every call waits for its answer; no reactor to be seen.

    with BlockingClient("localhost:2379") as client:
        client.put("key", "value")

The reactor runs in a thread of its own, one for all clients of a process, from the first one on.
A process whose main thread runs the reactor has no use for this: it would wait for itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Generic, TypeVar, Unpack, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import blockingCallFromThread
from twisted.python.threadable import isInIOThread

from etcdtw.client.client import Client
from etcdtw.client.elections import Election
from etcdtw.client.keys import DeleteOptions, Key, PutOptions, RangeOptions, WatchOptions
from etcdtw.client.lease import Lease
from etcdtw.client.locks import Lock
from etcdtw.client.txn import Txn
from etcdtw.client.watch import Watch
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import mvccpb

Answer = TypeVar("Answer")

START_S: Final = 10.0


class ReactorThread:
    """The thread that the reactor runs in."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reactor: Any = None

    def reactor(self) -> Any:
        """Return the reactor, which runs.  Raises `RuntimeError` when it cannot."""
        with self._lock:
            if self._reactor is None:
                self._reactor = self._start()
        if isInIOThread():
            raise RuntimeError("the reactor runs in this thread: use etcdtw.client.client.Client")
        return self._reactor

    def _start(self) -> Any:
        from twisted.internet import reactor  # noqa: TID251 - scripts have no other

        loop: Any = reactor
        if loop.running:
            return loop
        running = threading.Event()
        loop.callWhenRunning(running.set)
        thread = threading.Thread(
            target=loop.run,
            kwargs={"installSignalHandlers": False},
            name="etcdtw client",
            daemon=True,
        )
        thread.start()
        if not running.wait(START_S):
            raise RuntimeError(f"the reactor did not start within {START_S:.0f} s")
        return loop


_thread: Final = ReactorThread()


def running_reactor() -> Any:
    """Return the reactor, which runs in a thread of its own from now on.

    Raises `RuntimeError` in that thread, which nobody may block.
    """
    return _thread.reactor()


class Pulled(Generic[Answer]):
    """What comes one after the other; to be read to its end or closed."""

    def __init__(
        self,
        wait: Callable[[Callable[[], Deferred[Answer | None]]], Answer | None],
        receive: Callable[[], Deferred[Answer | None]],
        cancel: Callable[[], None],
    ) -> None:
        self._wait = wait
        self._receive = receive
        self._cancel = cancel

    def close(self) -> None:
        """End it."""
        self._wait(lambda: _done(self._cancel))

    def __iter__(self) -> Iterator[Answer]:
        while True:
            answer = self._wait(self._receive)
            if answer is None:
                return
            yield answer

    def __enter__(self) -> Pulled[Answer]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _done(called: Callable[[], None]) -> Deferred[Any]:
    called()
    return succeed(None)


class BlockingLock:
    """See `Lock`; ``with`` takes and releases it."""

    def __init__(self, client: BlockingClient, lock: Lock) -> None:
        self._client = client
        self._lock = lock

    @property
    def token(self) -> int:
        """The fencing token."""
        return self._lock.token

    @property
    def is_held(self) -> bool:
        """Whether we hold it, as far as can be known here."""
        return self._lock.is_held

    def acquire(self, *, timeout_ms: int | None = None) -> int:
        """See `Lock.acquire`."""
        return self._client.wait(lambda: self._lock.acquire(timeout_ms=timeout_ms))

    def try_acquire(self) -> int:
        """See `Lock.try_acquire`."""
        return self._client.wait(self._lock.try_acquire)

    def release(self) -> None:
        """See `Lock.release`."""
        self._client.wait(self._lock.release)

    def __enter__(self) -> BlockingLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class BlockingClient:
    """As `Client`, whose arguments it takes (but for the reactor).  Safe for threads.

    `wait` does with any other method of `Client`, which is ``client``, what the methods here do.
    """

    def __init__(self, servers: Any, **more: Any) -> None:
        self._reactor = running_reactor()
        self.client: Client = self.wait(
            lambda: _made(lambda: Client(self._reactor, servers, **more))
        )

    def wait(self, ask: Callable[[], Deferred[Answer]]) -> Answer:
        """Call ``ask`` in the reactor's thread, and return what its Deferred brings.

        `KeyboardInterrupt` ends the waiting, not the call.
        """
        answer: Answer = blockingCallFromThread(self._reactor, cast(Any, ask))
        return answer

    def get(
        self, key: Key, *, timeout_ms: int | None = None, **options: Unpack[RangeOptions]
    ) -> pb.RangeResponse:
        """See `KeyValues.get`."""
        return self.wait(lambda: self.client.get(key, timeout_ms=timeout_ms, **options))

    def put(
        self,
        key: Key,
        value: Key,
        *,
        timeout_ms: int | None = None,
        **options: Unpack[PutOptions],
    ) -> pb.PutResponse:
        """See `KeyValues.put`."""
        return self.wait(lambda: self.client.put(key, value, timeout_ms=timeout_ms, **options))

    def delete(
        self, key: Key, *, timeout_ms: int | None = None, **options: Unpack[DeleteOptions]
    ) -> pb.DeleteRangeResponse:
        """See `KeyValues.delete`."""
        return self.wait(lambda: self.client.delete(key, timeout_ms=timeout_ms, **options))

    def txn(self) -> Txn:
        """Begin a transaction, for `commit`."""
        return Txn()

    def commit(self, txn: Txn, *, timeout_ms: int | None = None) -> pb.TxnResponse:
        """See `Txn.commit`."""
        return self.wait(lambda: self.client.calls.txn(txn.request, timeout_ms=timeout_ms))

    def range_stream(
        self, key: Key, **options: Unpack[RangeOptions]
    ) -> Pulled[pb.RangeStreamResponse]:
        """See `KeyValues.range_stream`."""
        stream = self.client.range_stream(key, **options)
        return Pulled(self.wait, stream.receive, stream.cancel)

    def watch(self, key: Key, **options: Unpack[WatchOptions]) -> Pulled[mvccpb.Event]:
        """Yield events as they come: see `Client.watch`.  It begins before this returns."""
        watch: Watch = self.wait(lambda: _made(lambda: self.client.watch(key, **options)))
        self.wait(watch.start)
        return Pulled(self.wait, lambda: Deferred.fromCoroutine(_next_event(watch)), watch.cancel)

    def lease(self, ttl_s: int, *, keep_alive: bool = False) -> Lease:
        """Return a new lease, with ``keep_alive`` one that is renewed by itself."""
        lease = self.wait(lambda: self.client.leases.grant(ttl_s))
        if keep_alive:
            self.wait(lambda: _made(lease.keep_alive))
        return lease

    def revoke(self, lease: Lease) -> None:
        """See `Lease.revoke`."""
        self.wait(lease.revoke)

    def lock(self, name: Key, **more: Any) -> BlockingLock:
        """See `Client.lock`."""
        return BlockingLock(self, self.client.lock(name, **more))

    def election(self, name: Key, **more: Any) -> Election:
        """Return an election, whose Deferreds `wait` waits for."""
        return self.client.election(name, **more)

    def close(self) -> None:
        """See `Client.close`."""
        self.wait(self.client.close)

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _made(make: Callable[[], Answer]) -> Deferred[Answer]:
    return succeed(make())


async def _next_event(watch: Watch) -> mvccpb.Event | None:
    try:
        return await anext(watch)
    except StopAsyncIteration:
        return None
