"""etcd's KV service: ranges, puts, deletes, txns and compactions.

Checks and decodes what clients ask, hands changes to the log and reads to the store, and puts
the header in front of what comes back.  Source: etcd v3 api, KV; texts are in `rpc.errors`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from etcdtw.apply.applier import FIELD_COMPACTION, FIELD_DELETE_RANGE, FIELD_PUT, FIELD_TXN
from etcdtw.apply.errors import NoSpaceError, RequestTimeoutError
from etcdtw.auth.switch import Switch
from etcdtw.grpc.call import Call, MethodTable
from etcdtw.grpc.caller import Caller
from etcdtw.mvcc.applied import Applied, Slices
from etcdtw.mvcc.cost import put_cost, txn_cost
from etcdtw.mvcc.errors import MvccError
from etcdtw.node.facade import Facade
from etcdtw.node.intake.durations import RANGE, RANGE_FAILED, READONLY_TXN, Durations
from etcdtw.node.intake.requests import Done
from etcdtw.node.loop.request_stats import RequestStats
from etcdtw.rpc.decode import decode, decode_entry, decode_put, decode_txn
from etcdtw.rpc.errors import fail
from etcdtw.rpc.kv.checks import (
    TXN_OPS_MAX,
    check_delete_range,
    check_put,
    check_range,
    check_txn,
    is_read_only,
    is_serializable,
)
from etcdtw.rpc.kv.range_stream import RangeStream
from etcdtw.rpc.kv.read_queue import ReadQueue
from etcdtw.rpc.kv.sliced_reply import Rendering, SlicedReply
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.requests import Txn

PREFIX: Final = "/etcdserverpb.KV/"
REQUEST_BYTES_MAX: Final = 1_572_864
LARGE_OCTETS_MIN: Final = 1 << 16  # of the answer to one key, which counts as work then
OCTET_S: Final = 1e-9  # of reading, copying and sending it

_SERIALIZABLE: Final = b"\x38\x01"


class Quota(Protocol):
    """Decides whether the state may grow.  A refusal raises the NOSPACE alarm elsewhere."""

    @property
    def is_tight(self) -> bool:
        """Whether `admit` needs to be asked: space is short."""
        ...

    def admit(self, cost: int) -> bool: ...

    def hold(self, cost: int, done: Done) -> Done:
        """Count what was admitted until the call of what is returned, in the place of ``done``."""
        ...


class CheckRead(Protocol):
    """Why a caller may not read what he asks for, if so; asked when it is read."""

    @property
    def switch(self) -> Switch:
        """Whether anybody may be refused."""
        ...

    @property
    def revision(self) -> int:
        """That of users and roles: an answer is not sent under a later one."""
        ...

    def read_refusal(self, caller: Caller, request: pb.RangeRequest | Txn) -> Exception | None: ...

    def range_refusal(self, caller: Caller, key: bytes, range_end: bytes) -> Exception | None: ...


class KvService:
    """The KV methods of one member.

    quota         None: nothing is refused for its size
    check_read    None: everybody may read everything
    """

    def __init__(
        self,
        node: Facade,
        *,
        quota: Quota | None = None,
        txn_ops_max: int = TXN_OPS_MAX,
        request_bytes_max: int = REQUEST_BYTES_MAX,
        reads: ReadQueue | None = None,
        durations: Durations | None = None,
        request_stats: RequestStats | None = None,
        check_read: CheckRead | None = None,
        rendering: Rendering | None = None,
    ) -> None:
        self._node = node
        # Kept, so that requests look nothing up.
        self._read = node.read
        self._header = node.header
        self._propose = node.propose
        self._store = node.store
        self._seconds = node.clock.seconds
        self._quota = quota
        self._txn_ops_max = txn_ops_max
        self._request_bytes_max = request_bytes_max
        self._rendering = rendering or Rendering()
        self._reads = ReadQueue(node.clock) if reads is None else reads
        self._durations = durations or Durations()
        self._request_stats = request_stats
        if request_stats is not None:
            request_stats.tell_reads(self._get, self._range, self._read_txn)
        self._check_read = check_read
        self._switch = Switch() if check_read is None else check_read.switch

    def register(self, methods: MethodTable) -> None:
        """Add this service's methods."""
        methods.add_unary(PREFIX + "Range", self.range)
        methods.add_unary(PREFIX + "Put", self.put)
        methods.add_unary(PREFIX + "DeleteRange", self.delete_range)
        methods.add_unary(PREFIX + "Txn", self.txn)
        methods.add_unary(PREFIX + "Compact", self.compact)
        methods.add_server_stream(PREFIX + "RangeStream", self.range_stream)

    # Ranges.

    def range(self, call: Call, message: bytes) -> bytes | None:
        """Read now (serializable), or once the member knows that nothing newer is committed."""
        # Most ranges name one short key and nothing else: tag, length, key.  Four in five of
        # their microseconds would go into parsing them.
        if len(message) > 2 and message[0] == 0x0A and 0 < message[1] < 0x80:
            rest = len(message) - 2 - message[1]
            if rest == 0:
                self._read(call, partial(self._get, message[2:]))
                return None
            if rest == 2 and message[-2:] == _SERIALIZABLE:
                if self._switch.is_on and self._refuses_range(call, message[2:-2]):
                    return None
                seconds = self._seconds
                began_s = seconds()
                body = self._store.get_body(message[2:-2])
                self._durations.read_locally(seconds() - began_s)
                return self._header(self._store.revision) + body
        request = decode(pb.RangeRequest, message)
        check_range(request)
        if request.serializable:
            self._range(request, len(message), call, None)
        else:
            self._read(call, partial(self._range, request, len(message)))
        return None

    def _get(self, key: bytes, call: Call, error: Exception | None) -> None:
        if error is not None:
            fail(call, error)
            return
        if self._switch.is_on and self._refuses_range(call, key):
            return
        self._durations.ranges += 1
        body = self._store.get_body(key)
        call.reply(self._header(self._store.revision) + body)
        if len(body) > LARGE_OCTETS_MIN:
            self._reads.spend(len(body) * OCTET_S)

    def _refuses(self, call: Call, request: pb.RangeRequest | Txn) -> bool:
        """Fail a read that its caller may not have."""
        if not self._switch.is_on:
            return False
        assert self._check_read is not None
        return _is_refused(call, self._check_read.read_refusal(call.caller, request))

    def _refuses_range(self, call: Call, key: bytes) -> bool:
        """Fail a range of one key that its caller may not have."""
        assert self._check_read is not None
        return _is_refused(call, self._check_read.range_refusal(call.caller, key, b""))

    def _users_revision(self) -> int:
        """Return the revision of users and roles; 0: they are not asked."""
        check_read = self._check_read
        return check_read.revision if check_read is not None and self._switch.is_on else 0

    def _range(
        self, request: pb.RangeRequest, size: int, call: Call, error: Exception | None
    ) -> None:
        if error is not None:
            fail(call, error)
        else:
            self._reads.take(call, size, partial(self._begin_range, request, call))

    def _begin_range(self, request: pb.RangeRequest, call: Call) -> SlicedReply | None:
        if self._refuses(call, request):
            return None
        answer = partial(self._open_range, request)
        is_pinned = request.revision > 0
        return self._begin(call, request, answer, RANGE, RANGE_FAILED, is_pinned=is_pinned)

    def _begin(
        self,
        call: Call,
        request: pb.RangeRequest | Txn,
        open_answer: Callable[[], bytes | Slices],
        kind: int,
        kind_failed: int | None,
        *,
        is_pinned: bool = False,
    ) -> SlicedReply | None:
        """Answer a read at once, or return what is left of it; None: nothing is.

        ``kind_failed`` None: refusals are not timed.  ``is_pinned``: it names its revision, so
        that it is not opened anew at a newer one.
        """
        if not call.is_open:
            return None
        revision = self._store.revision
        seconds = self._seconds
        began_s = seconds()
        try:
            answer = open_answer()
        except MvccError as refusal:
            if kind_failed is not None:
                self._durations.read_apart(kind_failed, seconds() - began_s)
            fail(call, refusal)
            return None
        self._durations.read_apart(kind, seconds() - began_s)
        if isinstance(answer, bytes):
            call.reply(answer)
            return None
        reopen = None if is_pinned else open_answer
        if self._request_stats is not None:
            call = self._request_stats.note_long(call, request, began_s)
        return SlicedReply(
            self._node,
            self._rendering,
            call,
            answer,
            revision,
            reopen,
            users_revision=self._users_revision,
        )

    def _open_range(self, request: pb.RangeRequest) -> bytes | Slices:
        store = self._store
        return store.open_range(request, self._header(store.revision))

    def range_stream(self, call: Call) -> None:
        """Open a RangeStream; its one request follows."""
        RangeStream(
            self._node,
            self._store,
            self._reads,
            call,
            self._request_bytes_max,
            self._refuses,
            self._users_revision,
        )

    # Changes.

    def put(self, call: Call, message: bytes) -> None:
        """Propose a put."""
        request, message = decode_put(message)
        quota = self._quota
        done: Done = self._answer
        if quota is None or not quota.is_tight:
            check_put(request)
        else:
            cost = put_cost(request)
            if not quota.admit(cost):
                fail(call, NoSpaceError())
                return
            check_put(request)
            done = quota.hold(cost, done)
        self._propose(FIELD_PUT, message, request, call, done)

    def delete_range(self, call: Call, message: bytes) -> None:
        """Propose a delete; it is never refused for its size."""
        request, message = decode_entry(pb.DeleteRangeRequest, message)
        check_delete_range(request)
        self._propose(FIELD_DELETE_RANGE, message, request, call, self._answer)

    def txn(self, call: Call, message: bytes) -> None:
        """Propose a txn, or read one that holds nothing but ranges."""
        request, message = decode_txn(message)
        quota = self._quota
        cost = 0
        if quota is not None and quota.is_tight:
            cost = txn_cost(request)
            if cost and not quota.admit(cost):
                fail(call, NoSpaceError())
                return
        check_txn(request, self._txn_ops_max)
        if not is_read_only(request):
            done: Done = self._answer
            if quota is not None and cost:
                done = quota.hold(cost, done)
            self._propose(FIELD_TXN, message, request, call, done)
        elif is_serializable(request):
            self._read_txn(request, len(message), call, None)
        else:
            self._read(call, partial(self._read_txn, request, len(message)))

    def _read_txn(self, request: Txn, size: int, call: Call, error: Exception | None) -> None:
        if error is not None:
            fail(call, error)
        else:
            self._reads.take(call, size, partial(self._begin_txn, request, call))

    def _begin_txn(self, request: Txn, call: Call) -> SlicedReply | None:
        if self._refuses(call, request):
            return None
        return self._begin(call, request, partial(self._open_txn, request), READONLY_TXN, None)

    def _open_txn(self, request: Txn) -> bytes | Slices:
        applied = self._store.read_txn(request)
        if applied.error is not None:
            raise applied.error
        if applied.late is not None:
            return applied.late.open()
        return self._header(applied.revision) + applied.body

    def compact(self, call: Call, message: bytes) -> None:
        """Propose a compaction; a physical one is answered when the history is deleted."""
        request, message = decode_entry(pb.CompactionRequest, message)
        done = partial(self._compacted, request.revision) if request.physical else self._answer
        self._propose(FIELD_COMPACTION, message, request, call, done)

    def _compacted(self, revision: int, call: Call, applied: Applied) -> None:
        if applied.error is not None:
            self._answer(call, applied)
        else:
            answer = partial(self._answer, call, applied)
            self._node.storage.on_compacted(revision, answer)

    def _answer(self, call: Call, applied: Applied) -> None:
        if applied.error is not None:
            fail(call, applied.error)
        elif applied.late is None:
            call.reply(self._header(applied.revision) + applied.body)
        elif call.is_open:
            # The txn is done: nothing that happens to its answer may say otherwise.
            lost = RequestTimeoutError()
            slices = applied.late.open()
            task = SlicedReply(
                self._node, self._rendering, call, slices, applied.revision, None, lost
            )
            if not self._reads.go_on(call, task):
                task.give_up(lost)


def _is_refused(call: Call, refusal: Exception | None) -> bool:
    if refusal is not None:
        fail(call, refusal)
    return refusal is not None
