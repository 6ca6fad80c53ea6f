"""Requests that took long, one log line each, as etcd has it: ``request stats``.

Whoever holds requests that have waited for long asks to `note` their calls before they are
answered, and of very many to note some (`share`): the others cost nothing.  What is not looked at
here, all methods but four, is told by `RequestStats.ended`.  Values are never shown.
Source: etcd 3.7.3's ``v3rpc/interceptor.go``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from google.protobuf.message import DecodeError
from twisted.logger import Logger

from etcdtw.apply.applier import FIELD_DELETE_RANGE, FIELD_PUT, FIELD_TXN
from etcdtw.apply.entries import find_request
from etcdtw.grpc.call import Call
from etcdtw.grpc.caller import Caller
from etcdtw.grpc.wrapped_call import WrappedCall
from etcdtw.node.intake.requests import Waiter
from etcdtw.node.no_call import NoCall
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.loggable import (
    duration_text,
    message_text,
    operations_size,
    put_text,
    txn_text,
)
from etcdtw.wire.pieces import BUDGET_S
from etcdtw.wire.requests import Put, Txn

FIRST_MAX: Final = 100
"""Lines within a second that are all written; etcd's numbers."""
THEN_EACH: Final = 100
"""Of those behind them one in so many."""
NO_REMOTE: Final = "No remote client info."
RANGE: Final = "/etcdserverpb.KV/Range"
PUT: Final = "/etcdserverpb.KV/Put"
DELETE_RANGE: Final = "/etcdserverpb.KV/DeleteRange"
TXN: Final = "/etcdserverpb.KV/Txn"
DETAILED: Final = frozenset((RANGE, PUT, DELETE_RANGE, TXN))
"""Whose contents are told."""
_PATHS: Final = {FIELD_PUT: PUT, FIELD_DELETE_RANGE: DELETE_RANGE, FIELD_TXN: TXN}
_RESPONSES: Final[dict[str, Any]] = {
    RANGE: pb.RangeResponse,
    DELETE_RANGE: pb.DeleteRangeResponse,
    TXN: pb.TxnResponse,
}


class _Thinned:
    """Of very many within a second the first, and then one in so many."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._second = 0
        self._count = 0
        self._passed = 0

    def share(self, count: int) -> int:
        """Return how many of ``count`` are taken."""
        second = int(self._seconds())
        if second != self._second:
            self._second, self._count, self._passed = second, 0, 0
        taken = min(count, FIRST_MAX - self._count)
        self._count += taken
        self._passed += count - taken
        if self._passed >= THEN_EACH:
            self._passed %= THEN_EACH
            taken += 1
        return taken


class RequestStats:
    """The lines of one member.

    ``slow_s``: what takes longer is told (--warning-unary-request-duration); ``tells_all``: all is,
    at debug level, as where etcd logs that.
    """

    log = Logger()

    def __init__(
        self,
        slow_s: float,
        seconds: Callable[[], float],
        unix_ms: Callable[[], int],
        *,
        tells_all: bool = False,
    ) -> None:
        self.slow_s = -1.0 if tells_all else slow_s
        self.noted_s = self.slow_s - BUDGET_S
        """What has waited for so long is noted before it is answered: it is slow once the piece of
        work that answers it is over."""
        self._tells_all = tells_all
        self._noted = _Thinned(seconds)
        self._ended = _Thinned(seconds)
        self._seconds = seconds
        self._write = self.log.debug if tells_all else self.log.warn
        self._unix_ms = unix_ms
        self._reads: tuple[Callable[..., None], ...] = ()

    def share(self, count: int) -> int:
        """Return how many of ``count`` requests that have waited for long are to be noted."""
        return count if self._tells_all else self._noted.share(count)

    def tell_reads(self, *reads: Callable[..., None]) -> None:
        """Tell of reads that are answered by a partial of one of these: with what was asked (a key
        alone, a range or a txn) and, but for a key, its size."""
        self._reads = reads

    def note_waiter(self, waiter: Waiter) -> None:
        """Look at what is answered to a proposal; those of the member's own are nobody's loss."""
        path = _PATHS.get(waiter.field)
        if path is None or isinstance(waiter.call, (NoCall, NotedCall)):
            return
        _, start, end = find_request(waiter.data)
        waiter.call = NotedCall(
            waiter.call, path, waiter.request, end - start, waiter.started_ms, self
        )

    def note_read(self, call: Call, done: object, started_ms: int) -> Call:
        """Look at what is answered to a read, if it is one of `tell_reads`."""
        if isinstance(call, (NoCall, NotedCall)) or not isinstance(done, partial):
            return call
        if done.func not in self._reads:
            return call
        request = done.args[0]
        if isinstance(request, bytes):
            request = pb.RangeRequest(key=request)
            size = request.ByteSize()
        else:
            size = done.args[1]
        path = TXN if isinstance(request, Txn) else RANGE
        return NotedCall(call, path, request, size, started_ms, self)

    def note_long(self, call: Call, request: pb.RangeRequest | Txn, began_s: float) -> Call:
        """Look at what is answered to a read that is rendered in slices from ``began_s`` on."""
        if isinstance(call, NotedCall):
            return call
        is_txn = isinstance(request, Txn)
        size = 0 if isinstance(request, Txn) else request.ByteSize()
        return NotedCall(call, TXN if is_txn else RANGE, request, size, int(began_s * 1000), self)

    def overran(self, waiters: Sequence[Waiter]) -> None:
        """Tell of those that were quick until they were applied: their answers are gone."""
        for waiter in waiters[: self.share(len(waiters))]:
            if not isinstance(waiter.call, NotedCall):
                self.note_waiter(waiter)
                if isinstance(waiter.call, NotedCall):
                    self.answered(waiter.call, None, 0)

    def answered(self, noted: NotedCall, reply: bytes | None, size: int) -> None:
        """A noted call has ended; ``reply`` None: with an error."""
        took_s = self._seconds() - noted.started_ms / 1000
        if took_s > self.slow_s:
            counts = _counts(noted, reply, size)
            self._line(took_s, noted.remote, noted.path, counts)

    def ended(self, path: str, took_ms: int, caller: Caller) -> None:
        """A call of a method whose contents are not told has ended."""
        if took_ms / 1000 > self.slow_s and (self._tells_all or self._ended.share(1)):
            self._line(took_ms / 1000, caller.remote, path, (-1, -1, -1, -1, ""))

    def _line(
        self, took_s: float, remote: str, path: str, counts: tuple[int, int, int, int, str]
    ) -> None:
        began = datetime.fromtimestamp(self._unix_ms() / 1000 - took_s, UTC)
        request_count, request_size, response_count, response_size, content = counts
        self._write(
            "request stats",
            **{
                "start time": began.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "time spent": duration_text(took_s),
                "remote": remote or NO_REMOTE,
                "response type": path,
                "request count": request_count,
                "request size": request_size,
                "response count": response_count,
                "response size": response_size,
                "request content": content,
            },
        )


class NotedCall(WrappedCall):
    """A call whose answer is looked at.

    Implements `grpc.call.Call`, `HasClient` and `RepliesInParts`, as ``inner`` does.
    """

    def __init__(
        self,
        inner: Any,
        path: str,
        request: Any,
        size: int,
        started_ms: int,
        stats: RequestStats,
    ) -> None:
        super().__init__(inner)
        self._stats = stats
        self.path = path
        self.request = request
        self.size = size
        self.started_ms = started_ms
        self.remote: str = inner.caller.remote
        self._reply_size = 0
        self._last = b""

    @property
    def on_end(self) -> Callable[[], None] | None:
        """Those that end so are not told of: nobody waits for them any more."""
        on_end: Callable[[], None] | None = self._inner.on_end
        return on_end

    @on_end.setter
    def on_end(self, on_end: Callable[[], None] | None) -> None:
        self._inner.on_end = on_end

    def reply(self, message: bytes) -> None:
        if self._inner.is_open:
            self._inner.reply(message)
            self._stats.answered(self, message, len(message))

    def begin_reply(self, size: int) -> None:
        self._reply_size = size
        super().begin_reply(size)

    def continue_reply(self, part: bytes) -> None:
        self._last = part
        super().continue_reply(part)

    def end_reply(self) -> None:
        if self._inner.is_open:
            self._inner.end_reply()
            self._stats.answered(self, self._last, self._reply_size)

    def fail(self, code: int, message: str) -> None:
        if self._inner.is_open:
            self._inner.fail(code, message)
            self._stats.answered(self, None, 0)


def _counts(noted: NotedCall, reply: bytes | None, size: int) -> tuple[int, int, int, int, str]:
    """Return counts and sizes of request and response, and what is told of the request."""
    request = noted.request
    response = _parsed(noted.path, reply)
    if isinstance(request, Put):
        return 1, noted.size, 0, size, put_text(request)
    if isinstance(request, Txn):
        if response is None:  # etcd tells nothing of one that failed
            return 0, 0, 0, size, ""
        taken = request.success if response.succeeded else request.failure
        return len(taken), operations_size(taken, noted.size), 0, size, txn_text(request)
    count = 0
    if isinstance(response, pb.RangeResponse):
        count = response.count
    elif response is not None:
        count = response.deleted
    return 0, noted.size, count, size, message_text(request)


def _parsed(path: str, reply: bytes | None) -> Any:
    """Return the response; of one in parts what its last part holds."""
    kind = _RESPONSES.get(path)
    if kind is None or reply is None:
        return None
    try:
        return kind.FromString(reply)
    except DecodeError:
        return None
