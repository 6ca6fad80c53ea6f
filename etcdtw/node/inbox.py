"""What has come in since the last turn: proposals and reads, and who waits for their outcome.

Everything here only enqueues and asks for a turn; `turn.Turn` does the work.  On the path of
every request, so nothing of Twisted is known here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from etcdtw.apply.errors import (
    RequestTimeoutError,
    RequestTooLargeError,
    StoppedError,
    TooManyRequestsError,
)
from etcdtw.grpc.call import Call
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.store import Store
from etcdtw.node.reads import ReadDone, Reads
from etcdtw.node.requests import PREFIX_SIZE, Done, RequestIds, Waiter, tag
from etcdtw.raft.raw_node import RawNode
from etcdtw.wire.encode import encode_varint

APPLY_GAP_MAX: Final = 5000
"""Entries committed and not yet applied past which proposals are refused (etcd's number)."""
PROPOSALS_MAX: Final = 65_536
"""Proposals waiting for their outcome past which new ones are refused."""


class Room(Protocol):
    """The part of the state that admission needs."""

    @property
    def is_full(self) -> bool: ...


class Inbox:
    """The requests of one member between their service and the turn.

    ``wake`` asks for a turn; it is called when `is_awake` is false, and sets it.
    """

    def __init__(
        self,
        raw: RawNode,
        store: Store,
        state: Room,
        ids: RequestIds,
        request_bytes_max: int,
        request_timeout_ms: int,
        wake: Callable[[], None],
    ) -> None:
        self._raw = raw
        self._store = store
        self._state = state
        self._ids = ids
        self._request_bytes_max = request_bytes_max
        self._request_timeout_ms = request_timeout_ms
        self._wake = wake
        self._proposals: list[bytes] = []
        self.waiters: dict[bytes, Waiter] = {}
        """By the prefix of their entry, oldest first."""
        self.reads = Reads(request_timeout_ms)
        self.is_awake = False
        self.is_stopping = False
        self.now_ms = 0
        """When the present iteration began; requests count from it."""
        self.applied_index = 0
        """What the turn has applied."""
        self.failed_total = 0

    def propose(self, field: int, message: bytes, parsed: Any, call: Call, done: Done) -> None:
        """Put a request into the log; ``done(call, applied)`` is called with its outcome.

        ``message`` is the encoded request of InternalRaftRequest's ``field``, ``parsed`` the same
        request as apply takes it.  Refusals come through ``done`` too, in ``applied.error``.
        """
        size = len(message)
        if size + PREFIX_SIZE + 8 > self._request_bytes_max:
            self._refuse(call, done, RequestTooLargeError())
            return
        if (
            self.is_stopping
            or len(self.waiters) >= PROPOSALS_MAX
            or self._raw.commit_index - self.applied_index > APPLY_GAP_MAX
            or self._state.is_full
        ):
            self._refuse(call, done, StoppedError() if self.is_stopping else TooManyRequestsError())
            return
        prefix = self._ids.next_prefix()
        data = b"".join((prefix, tag(field), encode_varint(size), message))
        if not self.is_awake:
            self._wake()
        self.waiters[prefix] = Waiter(data, field, parsed, call, done, self.now_ms)
        self._proposals.append(data)

    def read(self, call: Call, done: ReadDone) -> None:
        """Call ``done(call, None)`` once a read of local state is linearizable."""
        if self.is_stopping:
            done(call, StoppedError())
            return
        if not self.is_awake:
            self._wake()
        self.reads.ask(call, done, self.now_ms)

    def take_proposals(self) -> list[bytes]:
        """Return what was proposed since the last turn."""
        proposals = self._proposals
        self._proposals = []
        return proposals

    def drop(self, proposals: list[bytes], error: Exception) -> None:
        """Raft refused these: tell their waiters."""
        self.failed_total += len(proposals)
        for data in proposals:
            waiter = self.waiters.pop(data[:PREFIX_SIZE], None)
            if waiter is not None:
                self._refuse(waiter.call, waiter.done, error)

    def expire(self, now_ms: int) -> None:
        """Fail what has waited for the whole request timeout."""
        before_ms = now_ms - self._request_timeout_ms
        overdue: list[bytes] = []
        for prefix, waiter in self.waiters.items():
            if waiter.started_ms > before_ms:
                break  # a dict keeps the order of insertion: the rest is younger
            overdue.append(prefix)
        self.failed_total += len(overdue)
        for prefix in overdue:
            waiter = self.waiters.pop(prefix)
            self._refuse(waiter.call, waiter.done, RequestTimeoutError())
        self.reads.expire(now_ms)

    def fail_all(self) -> None:
        """The member stops: fail what still waits."""
        waiters = list(self.waiters.values())
        self.waiters.clear()
        for waiter in waiters:
            self._refuse(waiter.call, waiter.done, StoppedError())
        self.reads.fail_all(StoppedError())

    def _refuse(self, call: Call, done: Done, error: Exception) -> None:
        done(call, Applied(self._store.revision, b"", error))
