"""What has come in since the last turn: proposals and reads, and who waits for their outcome.

Everything here only enqueues and asks for a turn; `turn.Turn` does the work.  On the path of
every request, so nothing of Twisted is known here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from etcdtw.apply.applier import FIELD_LEASE_REVOKE
from etcdtw.apply.auth_entries import FIELD_AUTHENTICATE
from etcdtw.apply.errors import (
    ConnectionLostTimeoutError,
    LeaderFailTimeoutError,
    RequestTimeoutError,
    RequestTooLargeError,
    StoppedError,
    TooManyRequestsError,
)
from etcdtw.auth.switch import Switch
from etcdtw.grpc.call import Call
from etcdtw.grpc.caller import Caller
from etcdtw.mvcc.applied import Applied
from etcdtw.mvcc.store import Store
from etcdtw.node.intake.durations import Durations
from etcdtw.node.intake.reads import Linearized, NotesReads, ReadDone, Reads
from etcdtw.node.intake.requests import Done, RequestIds, Waiter, tag
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.no_call import NO_CALL
from etcdtw.raft.raw_node import RawNode
from etcdtw.wire.encode import encode_varint
from etcdtw.wire.entry_header import NOBODY, NOBODYS, PREFIX_SIZE, Asker, around_id

APPLY_GAP_MAX: Final = 5000
"""Entries committed and not yet applied past which proposals are refused (etcd's number)."""
PROPOSALS_MAX: Final = 65_536
"""Proposals waiting for their outcome past which new ones are refused."""
QUEUED_OCTETS_MAX: Final = 1 << 28
"""Octets of proposals that no leader has taken yet, past which new ones are refused."""

TAG_SIZE: Final = 4
"""Octets of the tag and the length of a request from 16 KiB to 2 MiB; the limit is near those."""
NEVER_MS: Final = 1 << 62
NO_BOUND: Final = 1 << 62
NOBODYS_SIZE: Final = len(NOBODYS)


class Identify(Protocol):
    """On whose behalf a caller asks, or why he may not."""

    @property
    def switch(self) -> Switch:
        """Whether callers are anybody; off: all are nobody, and nothing is looked up."""
        ...

    def identify(self, caller: Caller) -> Asker | Exception: ...

    def own(self) -> Asker:
        """Return on whose behalf this member asks for itself."""
        ...


class Notes(NotesReads, Protocol):
    """The same, of proposals, too."""

    def note_waiter(self, waiter: Waiter) -> None:
        """Look at what is answered to this one."""
        ...


class InboxBounds(NamedTuple):
    """How much is taken in, and for how long it may wait."""

    request_bytes_max: int
    request_timeout_ms: int
    election_timeout_ms: int
    proposals_max: int = PROPOSALS_MAX
    apply_gap_max: int = APPLY_GAP_MAX
    revokes_gap_max: int = APPLY_GAP_MAX
    """The same for ends of leases (etcd's gate PriorityRequest)."""
    queued_octets_max: int = QUEUED_OCTETS_MAX


class Inbox:
    """The requests of one member between their service and the turn.

    ``is_connected``: whether the leader (of a leader: a quorum) is reached since a time in ms.
    ``identify`` None: all are nobody; ``notes`` None: nobody hears of those that waited for long.
    """

    def __init__(
        self,
        raw: RawNode,
        store: Store,
        ids: RequestIds,
        bounds: InboxBounds,
        wakeup: Wakeup,
        is_connected: Callable[[int], bool],
        durations: Durations,
        *,
        identify: Identify | None = None,
        notes: Notes | None = None,
    ) -> None:
        self._raw = raw
        self._store = store
        self._ids = ids
        self._request_bytes_max = bounds.request_bytes_max
        self._request_timeout_ms = bounds.request_timeout_ms
        self._election_timeout_ms = bounds.election_timeout_ms
        self._proposals_max = bounds.proposals_max
        self._apply_gap_max = bounds.apply_gap_max
        self._revokes_gap_max = bounds.revokes_gap_max
        self._queued_octets_max = bounds.queued_octets_max
        self._wakeup = wakeup
        self._is_connected = is_connected
        self._durations = durations
        self._identify = identify
        self._notes = notes
        self._switch = Switch() if identify is None else identify.switch
        # Of the asker before, who is often this one, too.
        self._asker = NOBODY
        self._before_id = self._behind_id = b""
        self._proposals: list[bytes] = []
        self._queued_octets = 0
        self.waiters: dict[bytes, Waiter] = {}
        """By the prefix of their entry, oldest first."""
        self.reads = Reads(bounds.request_timeout_ms, ids.next_id(), notes)
        self.is_held = False
        """Whether proposals wait, as they do without a leader."""
        self._allowance = self._largest = NO_BOUND
        self.largest_waiting = 0
        """Octets of a proposal that was larger than allowed."""
        self.applied_index = 0
        """What the turn has applied."""
        self.failed_total = 0
        self._elected_ms = -NEVER_MS

    def _is_too_far(self, field: int) -> bool:
        """Whether apply lags too much for a request that is no common one."""
        gap = self._raw.commit_index - self.applied_index
        return field != FIELD_LEASE_REVOKE or gap > self._revokes_gap_max

    def propose(self, field: int, message: bytes, parsed: Any, call: Call, done: Done) -> None:
        """Put a request into the log; ``done(call, applied)`` is called with its outcome.

        ``message`` is the encoded request of InternalRaftRequest's ``field``, ``parsed`` the same
        request as apply takes it.  Refusals come through ``done`` too, in ``applied.error``.
        """
        wakeup = self._wakeup
        if (
            wakeup.is_stopping
            or len(self.waiters) >= self._proposals_max
            or (
                self._raw.commit_index - self.applied_index > self._apply_gap_max
                and self._is_too_far(field)
            )
            or self._queued_octets > self._queued_octets_max
        ):
            error = StoppedError() if wakeup.is_stopping else TooManyRequestsError()
            self._refuse(call, done, error)
            return
        header = self._ids.next_header()
        asker = NOBODY
        if self._switch.is_on and field != FIELD_AUTHENTICATE:
            identify = self._identify
            assert identify is not None
            found = identify.own() if call is NO_CALL else identify.identify(call.caller)
            if isinstance(found, Exception):
                self._refuse(call, done, found)
                return
            if found is not NOBODY:
                asker = found
                if asker is not self._asker:
                    self._asker = asker
                    self._before_id, self._behind_id = around_id(asker)
                header = self._before_id + header[NOBODYS_SIZE:] + self._behind_id
        size = len(message)
        if size + len(header) + TAG_SIZE > self._request_bytes_max:
            self._refuse(call, done, RequestTooLargeError())
            return
        data = b"".join((header, tag(field), encode_varint(size), message))
        if not wakeup.is_awake:
            wakeup.wake()
        waiter = Waiter(data, asker, field, parsed, call, done, wakeup.now_ms)
        self.waiters[header[:PREFIX_SIZE]] = waiter
        self._proposals.append(data)
        self._queued_octets += len(data)

    def add(self, data: bytes) -> None:
        """Put a whole entry into the log; nobody waits for its outcome."""
        self._wakeup.wake()
        self._proposals.append(data)
        self._queued_octets += len(data)

    def read(self, call: Call, done: ReadDone) -> None:
        """Call ``done(call, None)`` once a read of local state is linearizable."""
        wakeup = self._wakeup
        if wakeup.is_stopping:
            done(call, StoppedError())
            return
        if not wakeup.is_awake:
            wakeup.wake()
        self.reads.ask(call, done, wakeup.now_ms)

    def linearize(self, done: Linearized) -> None:
        """As `read`, for what the member itself, or another, asks: there is no call."""
        self.read(NO_CALL, lambda _, error: done(error))

    @property
    def is_stopping(self) -> bool:
        return self._wakeup.is_stopping

    @property
    def has_proposals(self) -> bool:
        """Whether a turn is to propose something."""
        return bool(self._proposals) and not self.is_held and self._allowance > 0

    def allow(self, octets: int, largest: int) -> None:
        """Let a turn take so much until the next word, and one proposal more at the most.

        None that is larger than ``largest``: it waits, and all that come after it.
        """
        if self._allowance <= 0 < octets and self._proposals:
            self._wakeup.wake()
        self._allowance, self._largest = octets, largest

    def take_proposals(self, count_max: int = NO_BOUND, octets_max: int = NO_BOUND) -> list[bytes]:
        """Return what was proposed, the oldest first; the bounds are passed by at most one."""
        proposals = self._proposals
        if len(proposals) <= count_max and self._queued_octets <= octets_max:
            self._proposals = []
            self._queued_octets = 0
            return proposals
        count = octets = 0
        while count < min(count_max, len(proposals)) and octets < octets_max:
            octets += len(proposals[count])
            count += 1
        self._proposals = proposals[count:]
        self._queued_octets -= octets
        return proposals[:count]

    def take_allowed(self, count_max: int, octets_max: int) -> list[bytes]:
        """The same, within what is allowed."""
        allowance = self._allowance
        if allowance >= NO_BOUND:
            return self.take_proposals(count_max, octets_max)
        taken = self.take_proposals(count_max, min(octets_max, allowance))
        for place, data in enumerate(taken):
            if len(data) > self._largest:
                self.largest_waiting, self._allowance = len(data), 0
                self._proposals = taken[place:] + self._proposals
                self._queued_octets += sum(map(len, taken[place:]))
                return taken[:place]
        self._allowance = allowance - sum(map(len, taken))
        return taken

    def drop(self, proposals: list[bytes], error: Exception) -> None:
        """Raft refused these: tell their waiters."""
        self.failed_total += len(proposals)
        for data in proposals:
            waiter = self.waiters.pop(data[:PREFIX_SIZE], None)
            if waiter is not None:
                self._durations.unanswered(waiter, self._wakeup.now_ms)
                self._refuse(waiter.call, waiter.done, error)

    def leader_changed(self, leader_id: int, now_ms: int) -> None:
        """Reads that nobody will answer are asked of the new leader."""
        if leader_id:
            self._elected_ms = now_ms
            self.reads.ask_again()
        if self._proposals or not self.reads.is_idle:
            self._wakeup.wake()

    def give_up(self, waiter: Waiter) -> None:
        """Nobody can tell any more what became of this one."""
        self.failed_total += 1
        self._durations.unanswered(waiter, self._wakeup.now_ms)
        self._refuse(waiter.call, waiter.done, RequestTimeoutError())

    def expire(self, now_ms: int) -> None:
        """Fail what has waited for the whole request timeout."""
        before_ms = now_ms - self._request_timeout_ms
        overdue: list[bytes] = []
        queued = self._proposals
        for prefix, waiter in self.waiters.items():
            if waiter.started_ms > before_ms:
                break  # a dict keeps the order of insertion: the rest is younger
            overdue.append(prefix)
        self.failed_total += len(overdue)
        notes = self._notes
        noted = 0 if notes is None else notes.share(len(overdue))
        for number, prefix in enumerate(overdue):
            waiter = self.waiters.pop(prefix)
            self._durations.unanswered(waiter, now_ms)
            if notes is not None and number < noted:
                notes.note_waiter(waiter)
            self._refuse(waiter.call, waiter.done, self._why_late(waiter.started_ms))
        if overdue and queued:
            # No leader has taken them, and a later one must not: their clients were told.
            failed = set(overdue)
            self._proposals = [data for data in queued if data[:PREFIX_SIZE] not in failed]
            self._queued_octets = sum(map(len, self._proposals))
        self.reads.expire(now_ms)

    def _why_late(self, started_ms: int) -> Exception:
        """Return etcd's guess at why a proposal has no outcome."""
        before_ms = self._elected_ms - 2 * self._election_timeout_ms
        if before_ms < started_ms < self._elected_ms:
            return LeaderFailTimeoutError()
        if not self._is_connected(started_ms):
            return ConnectionLostTimeoutError()
        return RequestTimeoutError()

    def fail_all(self) -> None:
        """The member stops: fail what still waits."""
        waiters = list(self.waiters.values())
        self.waiters.clear()
        for waiter in waiters:
            self._refuse(waiter.call, waiter.done, StoppedError())
        self.reads.fail_all(StoppedError())

    def _refuse(self, call: Call, done: Done, error: Exception) -> None:
        done(call, Applied(self._store.revision, b"", error))
