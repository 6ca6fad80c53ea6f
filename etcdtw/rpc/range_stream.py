"""KV.RangeStream: one range as a stream of chunks at a pinned revision.

Merged, the chunks are the RangeResponse; ``header``, ``more`` and ``count`` come with the last
one, beside the keys that end the range or reach the limit: a client goes on behind them.  The
header tells the newest revision when the stream began, whatever revision is read.  The chunks
adapt to the size of the keys.  Source: etcd v3.7 api, KV.RangeStream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from google.protobuf.message import DecodeError
from twisted.internet.interfaces import IReactorTime

from etcdtw.grpc.call import INTERNAL, Call, StatusError
from etcdtw.mvcc.errors import MvccError
from etcdtw.mvcc.ranges import count_body, open_end, shape, view_of
from etcdtw.mvcc.slices import PinnedRange, RangeSlices
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.work_bounds import SLICE_KEYS_MAX
from etcdtw.rpc.checks import check_range_stream
from etcdtw.rpc.decode import MALFORMED_MESSAGE
from etcdtw.rpc.errors import fail
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import delimited

FIRST_CHUNK_KEYS: Final = 10
QUEUED_BYTES_MAX: Final = 4 << 20  # sent, and not yet let out by flow control


class StreamNode(Protocol):
    """What a stream needs of the member."""

    @property
    def clock(self) -> IReactorTime: ...

    def header(self, revision: int) -> bytes: ...

    def read(self, call: Call, done: Callable[[Call, Exception | None], None]) -> None: ...


class RangeStream:
    """One RangeStream call, from its request to its last chunk."""

    def __init__(self, node: StreamNode, store: Store, call: Call, request_bytes_max: int) -> None:
        self._node = node
        self._store = store
        self._call = call
        self._chunk_size_low = request_bytes_max // 2
        self._chunk_size_high = request_bytes_max * 2
        self._chunk_keys = FIRST_CHUNK_KEYS
        self._request: pb.RangeRequest | None = None
        self._pinned: PinnedRange | None = None
        self._slices: RangeSlices | None = None  # with a sort target, instead
        self._held = b""  # the newest chunk: only what comes next tells whether it is the last
        self._header = b""
        self._is_waiting = False  # for flow control
        call.on_message = self._opened
        call.on_drain = self._drained

    def _opened(self, message: bytes) -> None:
        if self._request is not None:
            return  # a server stream has one request
        try:
            self._request = request = pb.RangeRequest.FromString(message)
            check_range_stream(request)
        except DecodeError:
            self._call.fail(INTERNAL, MALFORMED_MESSAGE)
        except StatusError as error:
            fail(self._call, error)
        else:
            if request.serializable:
                self._start(self._call, None)
            else:
                self._node.read(self._call, self._start)

    def _start(self, call: Call, error: Exception | None) -> None:
        request = self._request
        assert request is not None, "started before the request"
        if error is not None:
            fail(call, error)
            return
        store = self._store
        try:
            view = view_of(request.revision, store.revision, store.compact_revision)
        except MvccError as refusal:
            fail(call, refusal)
            return
        self._header = self._node.header(store.revision)
        if request.sort_target != pb.RangeRequest.KEY and not request.count_only:
            self._start_sorted(request)
            return
        revision = view or store.revision
        end = open_end(request.range_end) if request.range_end else request.key + b"\0"
        self._pinned = store.pin(request.key, end, revision, request.limit)
        if request.count_only:
            self._pinned.skip()
        self._step()

    def _start_sorted(self, request: pb.RangeRequest) -> None:
        """Go the way of a Range: a target without an order sorts, and all must be seen first."""
        answer = self._store.open_range(request)
        if isinstance(answer, bytes):
            self._finish(answer)
        else:
            self._slices = answer
            self._step_sorted(answer)

    def _drained(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._go_on()

    def _step(self) -> None:
        """Read one chunk, send the one before it, and come back for the next."""
        pinned = self._pinned
        request = self._request
        if not self._call.is_open or pinned is None or request is None:
            return
        try:
            frames = [] if pinned.is_done else pinned.read(self._chunk_keys)
        except MvccError as error:
            fail(self._call, error)
            return
        if frames and request.keys_only:
            frames = shape(frames, request)
        if frames:
            if self._held:
                self._send(self._held)
            self._held = b"".join(frames)
            self._resize(len(self._held))
        if pinned.is_done:
            more = b"\x18\x01" if pinned.more and not request.count_only else b""
            self._finish(b"".join((self._held, more, count_body(pinned.count))))
        else:
            self._come_back()

    def _step_sorted(self, slices: RangeSlices) -> None:
        if not self._call.is_open:
            return
        try:
            chunk = slices.step()
        except MvccError as error:
            fail(self._call, error)
            return
        if chunk is None:
            self._finish(self._held)
            return
        if chunk:
            if self._held:
                self._send(self._held)
            self._held = chunk
        self._come_back()

    def _send(self, chunk: bytes) -> None:
        self._call.send(delimited(b"\x0a", chunk))
        # Without a chunk of its own in the queue no drain would ever be told.
        self._is_waiting = self._call.queued > QUEUED_BYTES_MAX

    def _come_back(self) -> None:
        if not self._is_waiting:
            self._node.clock.callLater(0, self._go_on)

    def _go_on(self) -> None:
        if self._slices is not None:
            self._step_sorted(self._slices)
        else:
            self._step()

    def _resize(self, size: int) -> None:
        if size < self._chunk_size_low:
            self._chunk_keys = min(self._chunk_keys * 2, SLICE_KEYS_MAX)
        elif size > self._chunk_size_high:
            self._chunk_keys = max(self._chunk_keys // 2, 1)

    def _finish(self, chunk: bytes) -> None:
        self._call.send(delimited(b"\x0a", self._header + chunk))
        self._call.finish()
