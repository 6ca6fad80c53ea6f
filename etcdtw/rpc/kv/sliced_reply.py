"""Unary answers too large for one go: rendered in slices, and sent in parts.

Source: etcd v3 api, KV.Range; a gRPC message of etcd's holds at most 2 GiB.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from etcdtw.apply.errors import TooManyRequestsError
from etcdtw.auth.errors import OldRevisionError
from etcdtw.grpc.call import Call, RepliesInParts
from etcdtw.mvcc.applied import Slices
from etcdtw.mvcc.errors import CompactedError, MvccError
from etcdtw.node.facade import Facade
from etcdtw.rpc.errors import fail, status_error

REPLY_BYTES_MAX: Final = (1 << 31) - 1
RENDERED_BYTES_MAX: Final = 256 << 20  # of all unfinished answers; then only the oldest goes on
REPLY_AT_ONCE_MAX: Final = 1 << 18  # octets of an answer that is sent in one go
SENDING_BYTES_MAX: Final = 1 << 30  # of answers being sent; with more none is rendered
STALLED_S: Final = 5.0  # then, an answer of which nothing goes out for so long is given up
QUEUED_BYTES_MAX: Final = 4 << 20  # of one answer: sent, and not yet let out by flow control


class Rendering:
    """All answers being rendered, oldest first, and their octets.  One per member."""

    def __init__(
        self,
        *,
        rendered_max: int = RENDERED_BYTES_MAX,
        sending_max: int = SENDING_BYTES_MAX,
        reply_max: int = REPLY_BYTES_MAX,
    ) -> None:
        self._rendered_max = rendered_max
        self._sending_max = sending_max
        self.reply_max = reply_max
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
        if self.size <= self._rendered_max:
            return True
        return self.replies[0] is reply and not self.is_clogged


Reopen = Callable[[], "bytes | Slices"]
"""Begins an answer anew, at a newer revision: a whole reply, or slices.  Raises an `MvccError`."""


UsersRevision = Callable[[], int]


def nobody_asked() -> int:
    """Users and roles are not asked."""
    return 0


class SlicedReply:
    """One answer; implements `read_queue.ReadTask`.

    When the revision of ``slices`` is compacted meanwhile it starts again, with ``reopen``; without
    that it fails.  ``reopen`` is for reads of "now": the header holds the revision at the last
    start.  ``lost``: what to tell then in the place of the compaction; the answer belongs to
    something that was done.  ``users_revision``: returns that of users and roles, 0 while nobody
    is asked; when it changes the answer is not sent, since its caller may have lost it.
    """

    def __init__(
        self,
        node: Facade,
        rendering: Rendering,
        call: Call,
        slices: Slices,
        revision: int,
        reopen: Reopen | None = None,
        lost: Exception | None = None,
        *,
        users_revision: UsersRevision = nobody_asked,
    ) -> None:
        self._node = node
        self._users_revision = users_revision
        self._allowed_at = users_revision()
        self._rendering = rendering
        self._call = call
        self._slices = slices
        self._reopen = reopen
        self._lost = lost
        self._parts: deque[bytes] = deque()
        self._is_sending = False
        self._moved_s = 0.0  # when the newest part was sent
        self._size = 0
        self._held = 0  # what the slices hold, as it was last counted
        self._revision = revision
        self._is_listed = False

    def start(self) -> None:
        """Count among those being rendered: the oldest of them may always go on."""
        self._is_listed = True
        self._rendering.replies.append(self)

    def _unlist(self) -> None:
        if self._is_listed:
            self._is_listed = False
            self._rendering.replies.remove(self)

    @property
    def is_blocked(self) -> bool:
        """Whether there is no room for more, or the client takes no more."""
        call = self._call
        if not call.is_open:
            return False
        if self._is_sending:
            return call.queued > QUEUED_BYTES_MAX and not self._is_stalled
        return not self._rendering.may_go_on(self)

    @property
    def _is_stalled(self) -> bool:
        stands_s = self._node.clock.seconds() - self._moved_s
        return stands_s >= STALLED_S and self._rendering.is_clogged

    def step(self) -> bool:
        """Render one slice, or send one; return whether there is more to do."""
        if not self._call.is_open:
            return self._release()
        return self._send() if self._is_sending else self._render()

    def _render(self) -> bool:
        try:
            part = self._slices.step()
        except CompactedError as error:
            if self._reopen is not None and error.revision == self._slices.revision:
                return self._start_again(self._reopen)
            return self._fail(self._lost or error)
        except MvccError as refusal:
            return self._fail(refusal)
        if part is None:
            return self._finish()
        if part:
            self._parts.append(part)
            self._size += len(part)
        held = self._slices.held
        self._rendering.size += len(part) + held - self._held
        self._held = held
        if self._size + held > self._rendering.reply_max:
            return self._fail(status_error("RequestTooLarge"))
        return True

    def _finish(self) -> bool:
        """All is rendered: send it, a large answer piece by piece as the client takes it."""
        if self._allowed_at and self._users_revision() != self._allowed_at:
            return self._fail(OldRevisionError())
        call = self._call
        header = self._node.header(self._revision)
        if not isinstance(call, RepliesInParts) or self._size <= REPLY_AT_ONCE_MAX:
            reply = b"".join((header, *self._parts))
            self._release()
            call.reply(reply)
            return False
        call.begin_reply(len(header) + self._size)
        call.continue_reply(header)
        self._is_sending = True
        self._moved_s = self._node.clock.seconds()
        self._rendering.sending_size += self._size
        # What it holds still counts, but a client that reads slowly stands in nobody's way.
        self._unlist()
        return True

    def _send(self) -> bool:
        call = self._call
        assert isinstance(call, RepliesInParts), "the same call as before"
        if call.queued > QUEUED_BYTES_MAX:
            return self._fail(TooManyRequestsError())
        if not self._parts:
            self._release()
            call.end_reply()
            return False
        part = self._parts.popleft()
        self._size -= len(part)
        self._rendering.size -= len(part)
        self._rendering.sending_size -= len(part)
        self._moved_s = self._node.clock.seconds()
        call.continue_reply(part)
        return True

    def _start_again(self, reopen: Reopen) -> bool:
        self._drop_parts()
        self._revision = self._node.store.revision
        try:
            answer = reopen()
        except MvccError as refusal:
            return self._fail(refusal)
        if isinstance(answer, bytes):
            self._release()
            self._call.reply(answer)
            return False
        self._slices = answer
        return True

    def give_up(self, error: Exception) -> None:
        """Nobody has a place for it."""
        self._fail(error)

    def _fail(self, error: Exception) -> bool:
        self._release()
        fail(self._call, error)
        return False

    def _drop_parts(self) -> None:
        self._slices.close()
        self._rendering.size -= self._size + self._held
        if self._is_sending:
            self._rendering.sending_size -= self._size
        self._parts.clear()
        self._size = self._held = 0

    def _release(self) -> bool:
        self._drop_parts()
        self._unlist()
        return False
