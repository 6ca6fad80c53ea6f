"""One LeaseKeepAlive stream: a response for each request, in the order of the requests.

The usual renewal is a dict look-up and is answered at once.  What cannot be answered yet
keeps its place at the head of the line: an expired lease until its revoke is applied, a
checkpointed one until the checkpoint is cleared, an unknown one until everything committed
is applied, any while this member does not lead or the client does not read.

Source: etcd v3 api, LeaseKeepAlive.  TTL 0 says that the lease does not exist.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from google.protobuf.message import DecodeError
from twisted.internet.interfaces import IDelayedCall

from etcdtw.apply.applier import FIELD_LEASE_CHECKPOINT
from etcdtw.grpc.call import INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE, Call
from etcdtw.lease.errors import LeaseNotFoundError
from etcdtw.lease.lessor import RENEW_CHECKPOINTED, RENEW_EXPIRED
from etcdtw.mvcc.applied import Applied
from etcdtw.node.facade import Facade
from etcdtw.rpc.decode import MALFORMED_MESSAGE
from etcdtw.rpc.errors import fail
from etcdtw.rpc.guard import Guard
from etcdtw.rpc.leader_line import LeaderLine
from etcdtw.rpc.leader_loss import NO_LEADER, LeaderLoss
from etcdtw.rpc.lease.for_peers import ask_to_renew
from etcdtw.rpc.lease.key_looks import KeyLook, KeyLooks
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.encode import encode_renewed
from etcdtw.wire.requests import usual_lease_id

OUTPUT_BYTES_MAX: Final = 256 * 1024
"""Octets waiting for the client above which its requests wait too."""
REQUESTS_PENDING_MAX: Final = 10_000
"""Requests waiting behind one that cannot be answered yet."""
TOO_MANY_REQUESTS: Final = f"etcdtw: more than {REQUESTS_PENDING_MAX} keep-alives are unanswered"
PRIMARY_POLL_S: Final = 0.05
PRIMARY_WAIT_S: Final = 7.0
"""How long a renewal waits for a leader: etcd's request timeout at default timings."""

GO_ON: Final = 0
WAIT_FOR_EVENT: Final = 1
WAIT_FOR_DRAIN: Final = 2


class KeepAliveStream:
    """One stream; lives until its call ends.

    Invariant: ``_pending`` is empty or its head is what `_wait` waits for.
    """

    def __init__(
        self,
        call: Call,
        node: Facade,
        leader_loss: LeaderLoss,
        line: LeaderLine | None = None,
        guard: Guard | None = None,
        looks: KeyLooks | None = None,
    ) -> None:
        """``line``: the way to the leader while this member is none; None: there is no other.

        ``guard`` or ``looks`` None: everybody may renew everything.
        """
        self._call = call
        self._node = node
        self._lessor = node.lessor
        self._leader_loss = leader_loss
        self._line = line
        self._guard = guard
        self._looks = looks
        self._pending: deque[int] = deque()
        self._wait = GO_ON
        # Of the request at the head.
        self._header = b""
        self._is_confirmed = False
        self._waited_s = 0.0
        self._revoke_of = 0
        self._poll_due: IDelayedCall | None = None
        self._is_running = False
        self._is_half_closed = False
        self._is_open = leader_loss.admit(call, self._close)
        if self._is_open:
            call.on_message = self._receive
            call.on_half_close = self._half_closed
            call.on_drain = self._drained
            call.on_end = self._ended

    # From the call.

    def _receive(self, message: bytes) -> None:
        lease_id = usual_lease_id(message)
        if lease_id < 0:
            try:
                lease_id = pb.LeaseKeepAliveRequest.FromString(message).ID
            except DecodeError:
                self._fail(INTERNAL, MALFORMED_MESSAGE)
                return
        if self._wait != GO_ON:
            if len(self._pending) >= REQUESTS_PENDING_MAX:
                self._fail(RESOURCE_EXHAUSTED, TOO_MANY_REQUESTS)
            else:
                self._pending.append(lease_id)
            return
        if not self._may_renew(lease_id):
            if self._is_open:
                self._pending.append(lease_id)
            return
        node = self._node
        # Taken before the renewal: what the client may conclude from it holds.
        header = node.header(node.store.revision)
        lessor = node.current_lessor()
        ttl_s = lessor.renew(lease_id) if lessor.is_primary else None
        if ttl_s is not None and ttl_s > 0:
            self._answer(header, lease_id, ttl_s)
        else:
            self._pending.append(lease_id)
            self._go_on()

    def _half_closed(self) -> None:
        self._is_half_closed = True
        if not self._pending:
            self._finish()

    def _drained(self) -> None:
        if self._wait == WAIT_FOR_DRAIN:
            self._go_on()

    def _ended(self) -> None:
        self._leader_loss.forget(self._call)
        self._close()

    # The line of requests.

    def _go_on(self) -> None:
        """Answer from the head of the line until one has to wait or none is left."""
        self._wait = GO_ON
        if self._is_running:
            return  # what was waited for came at once; the loop below us goes on
        self._is_running = True
        while self._pending and self._is_open and self._wait == GO_ON:
            self._try_head(self._pending[0])
        self._is_running = False
        if self._is_half_closed and not self._pending and self._is_open:
            self._finish()

    def _may_renew(self, lease_id: int) -> bool:
        """Whether the caller may; if not the stream has ended, or waits for a look at the keys."""
        guard, looks = self._guard, self._looks
        if guard is None or looks is None or not guard.switch.is_on:
            return True
        check = guard.renewal_check(self._call.caller, lease_id)
        if check is None:
            return True
        if isinstance(check, Exception):
            self._proceed(check)
            return False
        asked, renewal = guard, check

        def looked(refusal: Exception | None, look: KeyLook) -> None:
            if refusal is None:
                asked.may_renew(renewal, lease_id, look.count)
            self._proceed(refusal)

        self._wait = WAIT_FOR_EVENT
        KeyLook(looks, lease_id, check, looked).begin(self._call)
        return self._is_open and self._wait == GO_ON

    def _try_head(self, lease_id: int) -> None:
        if not self._may_renew(lease_id):
            return
        node = self._node
        lessor = node.current_lessor()
        if not self._header:
            self._header = node.header(node.store.revision)
        if not lessor.is_primary:
            self._await_primary()
            return
        ttl_s = lessor.renew(lease_id)
        if ttl_s is None:
            if self._is_confirmed:
                self._answer_head(lease_id, 0)
            else:
                self._wait = WAIT_FOR_EVENT
                node.read(self._call, self._confirmed)
        elif ttl_s == RENEW_EXPIRED:
            self._wait = WAIT_FOR_EVENT
            self._revoke_of = lease_id
            lessor.when_revoked(lease_id, self._revoked)
        elif ttl_s == RENEW_CHECKPOINTED:
            self._wait = WAIT_FOR_EVENT
            checkpoint = pb.LeaseCheckpoint(ID=lease_id)
            request = pb.LeaseCheckpointRequest(checkpoints=[checkpoint])
            message: bytes = request.SerializeToString()
            node.propose(FIELD_LEASE_CHECKPOINT, message, request, self._call, self._cleared)
        else:
            self._answer_head(lease_id, ttl_s)

    def _answer_head(self, lease_id: int, ttl_s: int) -> None:
        header = self._header
        self._pending.popleft()
        self._header = b""
        self._is_confirmed = False
        self._waited_s = 0.0
        self._answer(header, lease_id, ttl_s)

    def _answer(self, header: bytes, lease_id: int, ttl_s: int) -> None:
        call = self._call
        call.send(encode_renewed(header, lease_id, ttl_s))
        if call.queued > OUTPUT_BYTES_MAX:
            self._wait = WAIT_FOR_DRAIN

    # What the head waited for.

    def _confirmed(self, call: Call, error: Exception | None) -> None:
        """Everything committed before is applied."""
        self._is_confirmed = True
        self._proceed(error)

    def _cleared(self, call: Call, applied: Applied) -> None:
        """The checkpoint is cleared, or the lease is gone: the next try will tell."""
        is_gone = isinstance(applied.error, LeaseNotFoundError)
        self._proceed(None if is_gone else applied.error)

    def _proceed(self, error: Exception | None) -> None:
        if not self._is_open:
            return
        if error is not None:
            fail(self._call, error)
            self._ended()
        else:
            self._go_on()

    def _revoked(self) -> None:
        # Unless this is a demotion the revoke is applied: there is nothing to confirm.
        self._is_confirmed = not self._lessor.exists(self._revoke_of)
        self._revoke_of = 0
        self._go_on()

    def _await_primary(self) -> None:
        self._wait = WAIT_FOR_EVENT
        if self._line is not None and self._node.leader_id not in (0, self._node.member_id):
            ask_to_renew(self._line, self._pending[0], self._told)
            return
        if self._waited_s >= PRIMARY_WAIT_S:
            self._fail(UNAVAILABLE, NO_LEADER)
            return
        self._waited_s += PRIMARY_POLL_S
        self._poll_due = self._node.clock.callLater(PRIMARY_POLL_S, self._poll)

    def _told(self, error: Exception | None, ttl_s: int) -> None:
        """The leader has answered the head of the line, or nobody has."""
        if not self._is_open:
            return
        if error is not None:
            fail(self._call, error)
            self._ended()
            return
        self._wait = GO_ON
        self._answer_head(self._pending[0], ttl_s)
        if self._wait == GO_ON:
            self._go_on()

    def _poll(self) -> None:
        self._poll_due = None
        self._go_on()

    # The end.

    def _finish(self) -> None:
        self._call.finish()
        self._ended()

    def _fail(self, code: int, message: str) -> None:
        self._call.fail(code, message)
        self._ended()

    def _close(self) -> None:
        self._is_open = False
        self._pending.clear()
        if self._poll_due is not None:
            self._poll_due.cancel()
            self._poll_due = None
        if self._revoke_of:
            self._lessor.forget_waiter(self._revoke_of, self._revoked)
            self._revoke_of = 0
