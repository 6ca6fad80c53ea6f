"""Unary answers too large for one go: a slice for each turn of the reactor.

Source: etcd v3 api, KV.Range; a gRPC message of etcd's holds at most 2 GiB.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from twisted.internet.interfaces import IReactorTime

from etcdtw.apply.errors import TooManyRequestsError
from etcdtw.grpc.call import Call, RepliesInParts
from etcdtw.mvcc.errors import CompactedError
from etcdtw.mvcc.slices import RangeSlices
from etcdtw.mvcc.store import Store
from etcdtw.rpc.errors import fail, status_error
from etcdtw.wire import etcdserverpb as pb

REPLY_BYTES_MAX: Final = (1 << 31) - 1
RENDERED_BYTES_MAX: Final = 256 << 20  # of all unfinished answers; then only the oldest goes on
WAIT_S: Final = 0.01  # until a held-back answer looks again
SENDING_BYTES_MAX: Final = 1 << 30  # of answers being sent; with more none is rendered
STALLED_S: Final = 5.0  # then, an answer of which nothing goes out for so long is given up
QUEUED_BYTES_MAX: Final = 4 << 20  # of one answer: sent, and not yet let out by flow control


class SlicingNode(Protocol):
    """What an answer needs of the member."""

    @property
    def clock(self) -> IReactorTime: ...

    @property
    def store(self) -> Store: ...

    def header(self, revision: int) -> bytes: ...


class Rendering:
    """All answers being rendered, oldest first, and their octets.  One per member."""

    def __init__(self, sending_max: int = SENDING_BYTES_MAX) -> None:
        self._sending_max = sending_max
        self.replies: list[SlicedReply] = []
        self.size = 0
        self.sending_size = 0
        """What of ``size`` is complete and waits for clients to read."""

    @property
    def is_clogged(self) -> bool:
        """Whether clients that do not read hold all that may be held."""
        return self.sending_size > self._sending_max

    def may_go_on(self, reply: SlicedReply) -> bool:
        """The oldest may, so that it ends, but for clogging; the others while there is room."""
        if self.size <= RENDERED_BYTES_MAX:
            return True
        return self.replies[0] is reply and not self.is_clogged


class SlicedReply:
    """One answer.

    A range of "now" whose revision is compacted meanwhile starts again at a newer one; a range
    of a given revision fails.  The header holds the revision at the last start.
    """

    def __init__(
        self,
        node: SlicingNode,
        rendering: Rendering,
        request: pb.RangeRequest,
        call: Call,
        slices: RangeSlices,
    ) -> None:
        self._node = node
        self._rendering = rendering
        self._request = request
        self._call = call
        self._slices = slices
        self._parts: deque[bytes] = deque()
        self._is_sending = False
        self._stalled_s = 0.0
        self._size = 0
        self._revision = node.store.revision
        rendering.replies.append(self)

    def step(self) -> None:
        """Render one slice and come back for the next."""
        if not self._call.is_open:
            self._release()
        elif self._is_sending:
            self._send()
        elif not self._rendering.may_go_on(self):
            self._node.clock.callLater(WAIT_S, self.step)
        else:
            self._render()

    def _render(self) -> None:
        try:
            part = self._slices.step()
        except CompactedError as error:
            if self._request.revision > 0:
                self._release()
                fail(self._call, error)
            else:
                self._start_again()
            return
        if part is None:
            self._finish()
            return
        self._parts.append(part)
        self._size += len(part)
        self._rendering.size += len(part)
        if self._size > REPLY_BYTES_MAX:
            self._release()
            fail(self._call, status_error("RequestTooLarge"))
            return
        self._node.clock.callLater(0, self.step)

    def _finish(self) -> None:
        """All is rendered: send it, a large answer piece by piece as the client takes it."""
        call = self._call
        header = self._node.header(self._revision)
        if not isinstance(call, RepliesInParts):
            reply = b"".join((header, *self._parts))
            self._release()
            call.reply(reply)
            return
        call.begin_reply(len(header) + self._size)
        call.continue_reply(header)
        self._is_sending = True
        self._rendering.sending_size += self._size
        # What it holds still counts, but a client that reads slowly stands in nobody's way.
        self._rendering.replies.remove(self)
        self._send()

    def _send(self) -> None:
        call = self._call
        assert isinstance(call, RepliesInParts), "the same call as before"
        if not self._parts:
            self._release()
            call.end_reply()
        elif call.queued > QUEUED_BYTES_MAX:
            self._stalled_s += WAIT_S
            if self._stalled_s >= STALLED_S and self._rendering.is_clogged:
                self._release()
                fail(call, TooManyRequestsError())
                return
            self._node.clock.callLater(WAIT_S, self.step)
        else:
            part = self._parts.popleft()
            self._size -= len(part)
            self._rendering.size -= len(part)
            self._rendering.sending_size -= len(part)
            self._stalled_s = 0.0
            call.continue_reply(part)
            self._node.clock.callLater(0, self.step)

    def _start_again(self) -> None:
        self._drop_parts()
        store = self._node.store
        self._revision = store.revision
        answer = store.open_range(self._request, self._node.header(self._revision))
        if isinstance(answer, bytes):
            self._release()
            self._call.reply(answer)
        else:
            self._slices = answer
            self._node.clock.callLater(0, self.step)

    def _drop_parts(self) -> None:
        self._rendering.size -= self._size
        if self._is_sending:
            self._rendering.sending_size -= self._size
        self._parts.clear()
        self._size = 0

    def _release(self) -> None:
        self._drop_parts()
        if not self._is_sending:
            self._rendering.replies.remove(self)
