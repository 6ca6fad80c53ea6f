"""KV.RangeStream: one range as a stream of chunks at a pinned revision.

Merged, the chunks are the RangeResponse; ``header``, ``more`` and ``count`` come with the last
one, beside the keys that end the range or reach the limit: a client goes on behind them.  The
header tells the newest revision when the stream began, whatever revision is read.  The chunks
adapt to the size of the keys.  Source: etcd v3.7 api, KV.RangeStream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from etcdtw.auth.errors import OldRevisionError
from etcdtw.grpc.call import INTERNAL, Call, StatusError
from etcdtw.mvcc.errors import MvccError
from etcdtw.mvcc.ranges import count_body, open_end, shape, view_of
from etcdtw.mvcc.slices import PinnedRange, RangeSlices
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.work_bounds import SLICE_KEYS_MAX, SLICE_PAST_KEYS_MAX
from etcdtw.node.facade import Facade
from etcdtw.rpc.decode import MALFORMED_MESSAGE
from etcdtw.rpc.errors import fail
from etcdtw.rpc.kv.checks import check_range_stream
from etcdtw.rpc.kv.read_queue import ReadQueue
from etcdtw.rpc.kv.sliced_reply import UsersRevision
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import delimited

FIRST_CHUNK_KEYS: Final = 10
QUEUED_BYTES_MAX: Final = 4 << 20  # sent, and not yet let out by flow control


class RangeStream:
    """One RangeStream call, from its request to its last chunk; a `read_queue.ReadTask`."""

    def __init__(
        self,
        node: Facade,
        store: Store,
        reads: ReadQueue,
        call: Call,
        request_bytes_max: int,
        refuses: Callable[[Call, pb.RangeRequest], bool],
        users_revision: UsersRevision,
    ) -> None:
        """``refuses`` fails a call that may not read what it asks for; ``users_revision``: as for
        `SlicedReply`.
        """
        self._refuses = refuses
        self._users_revision = users_revision
        self._allowed_at = 0
        self._node = node
        self._store = store
        self._reads = reads
        self._size = 0  # of the request
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
        self._size = len(message)
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
        if error is not None:
            fail(call, error)
        else:
            self._reads.take(call, self._size, self._begin)

    def _begin(self) -> RangeStream | None:
        """Pin the range and send what a first piece holds."""
        request = self._request
        assert request is not None, "started before the request"
        if self._refuses(self._call, request):
            return None
        self._allowed_at = self._users_revision()
        store = self._store
        try:
            view = view_of(request.revision, store.revision, store.compact_revision)
        except MvccError as refusal:
            fail(self._call, refusal)
            return None
        self._header = self._node.header(store.revision)
        if request.sort_target != pb.RangeRequest.KEY and not request.count_only:
            # As a Range: a target without an order sorts, and all must be seen first.
            answer = store.open_range(request)
            if isinstance(answer, bytes):
                self._finish(answer)
                return None
            self._slices = answer
        else:
            end = open_end(request.range_end) if request.range_end else request.key + b"\0"
            self._pinned = store.pin(request.key, end, view or store.revision, request.limit)
            if request.count_only:
                self._pinned.skip()
        return self if self.step() else None

    def _drained(self) -> None:
        if self._is_waiting:
            self._is_waiting = False
            self._reads.wake()

    @property
    def is_blocked(self) -> bool:
        """Whether the client takes no more."""
        return self._is_waiting and self._call.is_open

    def start(self) -> None:
        """Nothing is to be done: its chunks are not kept."""

    def give_up(self, error: Exception) -> None:
        """There is no place for it."""
        self._close()
        fail(self._call, error)

    def step(self) -> bool:
        """Read one chunk and send the one before it; return whether there is more."""
        has_more = False
        try:
            if self._allowed_at and self._users_revision() != self._allowed_at:
                fail(self._call, OldRevisionError())
            elif self._call.is_open:
                has_more = self._step() if self._slices is None else self._step_sorted(self._slices)
        except MvccError as error:
            fail(self._call, error)
        if not has_more:
            self._close()
        return has_more

    def _close(self) -> None:
        if self._pinned is not None:
            self._pinned.close()
        if self._slices is not None:
            self._slices.close()

    def _step(self) -> bool:
        pinned = self._pinned
        request = self._request
        assert pinned is not None and request is not None, "nothing is pinned"
        keys_max = self._chunk_keys
        if request.keys_only:
            keys_max = min(keys_max, SLICE_PAST_KEYS_MAX)  # they are parsed
        frames = [] if pinned.is_done else pinned.read(keys_max)
        if frames and request.keys_only:
            frames = shape(frames, request)
        if frames:
            if self._held:
                self._send(self._held)
            self._held = b"".join(frames)
            self._resize(len(self._held))
        if not pinned.is_done:
            return True
        more = b"\x18\x01" if pinned.more and not request.count_only else b""
        self._finish(b"".join((self._held, more, count_body(pinned.count))))
        return False

    def _step_sorted(self, slices: RangeSlices) -> bool:
        chunk = slices.step()
        if chunk is None:
            self._finish(self._held)
            return False
        if chunk:
            if self._held:
                self._send(self._held)
            self._held = chunk
        return True

    def _send(self, chunk: bytes) -> None:
        self._call.send(delimited(b"\x0a", chunk))
        # Without a chunk of its own in the queue no drain would ever be told.
        self._is_waiting = self._call.queued > QUEUED_BYTES_MAX

    def _resize(self, size: int) -> None:
        if size < self._chunk_size_low:
            self._chunk_keys = min(self._chunk_keys * 2, SLICE_KEYS_MAX)
        elif size > self._chunk_size_high:
            self._chunk_keys = max(self._chunk_keys // 2, 1)

    def _finish(self, chunk: bytes) -> None:
        self._call.send(delimited(b"\x0a", self._header + chunk))
        self._call.finish()
