"""The turn: everything one member does in one reactor iteration, top to bottom.

    propose   all requests of this iteration become one append
    send      messages that need no fsync: a leader's appends travel while its own disk writes
    append    one durable transaction; its acks and votes are released when it is done
    apply     committed entries; resolve their proposals; collect watch events
    answer    reads whose index is applied; watchers with events
    flush     each dirty connection writes once; behind each slice of a large apply, and
              before many reads, too

Each phase ends or stops within its share of `wire.pieces.BUDGET_S`; what is left is the next
turn's, after the sockets were read.

No step calls back into an earlier one, so nothing here is re-entrant; "persist before promise"
is the order of these lines.  Source of the order: Ongaro's thesis, sections 10.2.1 and 6.4.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final

from etcdtw.apply.applier import Applier
from etcdtw.apply.members import Members
from etcdtw.lease.lessor import ARMED_MAX, Lessor
from etcdtw.mvcc.long_entry import LongEntryError
from etcdtw.mvcc.store import Store
from etcdtw.mvcc.watch.hub import WatchHub
from etcdtw.node.duties.conf_changes import ConfChanges
from etcdtw.node.intake.durations import Durations
from etcdtw.node.intake.inbox import Inbox
from etcdtw.node.intake.reads import oldest_client_ms
from etcdtw.node.intake.requests import Waiter
from etcdtw.node.intake.seams import Flushes, Installs, StateStore
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.loop.leadership import Leadership
from etcdtw.node.loop.long_apply import LongApply
from etcdtw.node.loop.peers import Peers
from etcdtw.node.loop.request_stats import RequestStats
from etcdtw.node.loop.slowness import Slowness
from etcdtw.raft.entry import ENTRY_NORMAL, Entry, HardState
from etcdtw.raft.errors import ProposalDroppedError
from etcdtw.raft.message import NO_MEMBER, STORAGE_APPEND, STORAGE_APPLY, Message
from etcdtw.raft.raw_node import RawNode
from etcdtw.raft.storage import LogStore
from etcdtw.wire.encode import ResponseHeaders
from etcdtw.wire.entry_header import PREFIX_SIZE
from etcdtw.wire.pieces import (
    APPEND,
    APPLY,
    BUDGET_S,
    LEASES,
    LONG_ENTRY,
    PROPOSE,
    READS,
    TURN,
    WATCHES,
    Pieces,
)

APPLY_SLICE_ENTRIES: Final = 64
"""Entries between two looks at the clock, and two flushes: some 0.6 ms of small puts."""
APPLY_SLICE_OCTETS: Final = 1 << 14
"""Octets of entries after which the clock is looked at: those of one txn may do very much."""
APPLY_S: Final = BUDGET_S / 2
"""CPU time of a turn after which it applies no more; passed by at most one slice.

Not wall time: on a machine where others want the cores too, turns that stop because they had to
wait for one only make for more of them, with smaller appends (5 % of a cluster's puts).
"""
READS_S: Final = BUDGET_S / 4
"""For how long a turn answers reads; passed by at most `QUICK_READS` of them."""
QUICK_READS: Final = 8
"""So many are answered between two looks at the clock, which cost a fiftieth of a small read."""
QUICK_READS_S: Final = BUDGET_S / 100
"""Only while those between the last two looks took less than this; otherwise one."""
EARLY_READS_S: Final = BUDGET_S / 20
"""Reads behind which the answers of what was applied go out, if more reads follow."""
PROPOSED_ENTRIES_MAX: Final = 1024
PROPOSED_OCTETS_MAX: Final = 1 << 22
"""What a turn proposes at most, unless a single proposal is larger."""
READIES_PER_TURN_MAX: Final = 16
"""Rounds of work in one turn; what is left waits for the next, after the sockets were read."""
FORWARDED_OCTETS_MAX: Final = 1 << 20
"""Octets of proposals that a follower passes on in one message, unless a single one is larger."""


class Turn:
    """The turn of one node.  ``run`` is the only way in, and it is never entered twice."""

    def __init__(
        self,
        *,
        raw: RawNode,
        log: LogStore,
        state: StateStore,
        store: Store,
        lessor: Lessor,
        hub: WatchHub,
        applier: Applier,
        members: Members,
        headers: ResponseHeaders,
        flusher: Flushes,
        pieces: Pieces,
        peers: Peers,
        installs: Installs,
        inbox: Inbox,
        wakeup: Wakeup,
        conf_changes: ConfChanges,
        leadership: Leadership,
        slowness: Slowness,
        request_stats: RequestStats,
        durations: Durations,
        seconds: Callable[[], float],
        long_work_s: float,
    ) -> None:
        self._raw = raw
        self._log = log
        self._state = state
        self._store = store
        self._lessor = lessor
        self._hub = hub
        self._applier = applier
        self._members = members
        self._headers = headers
        self._flusher = flusher
        self._pieces = pieces
        self._peers = peers
        self._installs = installs
        self._inbox = inbox
        self._wakeup = wakeup
        self._waiters = inbox.waiters
        self._reads = inbox.reads
        self._conf_changes = conf_changes
        self._leadership = leadership
        self._slowness = slowness
        self._request_stats = request_stats
        self._noted_s = request_stats.noted_s
        self._seconds = seconds
        self._long_work_s = long_work_s
        self._durations = durations
        self._answered: list[Waiter] = []  # in the slice that is being applied
        self._is_running = False
        self._released: list[Message] = []
        self._outgoing: list[Message] = []
        self._appends = 0  # at the disk now
        self._append_ms = 0  # when the oldest of them began, or the last one ended
        # Appends behind a snapshot that is being installed, while nothing is applied; or None.
        self._held: list[Message] | None = None
        # Committed and not yet applied: a long entry, and what waits behind it.
        self._long: LongApply | None = None
        self._unapplied: deque[tuple[list[Entry], list[Message]]] = deque()
        self._turn = 0  # the piece that it is
        self._apply_until_s = 0.0  # before that its CPU time cannot have passed `APPLY_S`
        self._has_applied = False  # in this turn
        self._term = raw.term
        inbox.applied_index = self.applied_index = raw.applied_index
        self.applied_term = 0

    def run(self, now_ms: int) -> bool:
        """Do what there is to do; return True when another turn is wanted at once."""
        assert not self._is_running, "a turn within a turn"
        self._is_running = True
        pieces = self._pieces
        turn = self._turn = pieces.begin()
        self._apply_until_s = self._seconds() + APPLY_S
        self._has_applied = False
        self._wakeup.now_ms = now_ms
        self._flusher.hold()
        self._lessor.advance(now_ms)
        self._propose()
        if self._is_long_ready():
            self._work_on_long(self._long_work_s)
        elif self._unapplied:
            self._apply_waiting()  # the turn before ran out of time, or the state was full
        for _ in range(READIES_PER_TURN_MAX):
            self._release()
            self._ask_reads()
            if not self._raw.has_ready():
                break
            self._carry_out()
        self._send()
        more = self._answer_reads()
        if self._hub.has_work:
            piece = pieces.begin()
            more = self._hub.work(now_ms) or more
            pieces.end(piece, WATCHES)
        if self._lessor.has_work:
            piece = pieces.begin()
            self._lessor.work(ARMED_MAX)
            pieces.end(piece, LEASES)
            more = more or self._lessor.has_work
        self._flusher.flush()
        self._is_running = False
        pieces.end(turn, TURN)
        if self._slowness.has_news:
            self._slowness.report()
        return (
            more
            or self._is_long_ready()
            or (bool(self._unapplied) and self._can_apply())
            or bool(self._released)
            or self._raw.has_ready()
            or (self._inbox.has_proposals and self._raw.lead != NO_MEMBER)
        )

    def give_up(self) -> None:
        """The last turn ended amid its work; the next one begins anew."""
        self._is_running = False
        self._flusher.flush()

    def _propose(self) -> None:
        if self._conf_changes.waiting:
            self._conf_changes.propose_due(self._wakeup.now_ms)
        # Without a leader they wait, as in etcd, for one or for their time-out.
        if self._raw.lead == NO_MEMBER or not self._inbox.has_proposals:
            return
        piece = self._pieces.begin()
        proposals = self._inbox.take_allowed(PROPOSED_ENTRIES_MAX, PROPOSED_OCTETS_MAX)
        for some in [proposals] if self._raw.is_leader else _batches(proposals):
            try:
                self._raw.propose_batch(some)
            except ProposalDroppedError as error:
                self._inbox.drop(some, error)
        self._pieces.end(piece, PROPOSE)

    def _send(self) -> None:
        """Let go what waits for no disk."""
        if self._outgoing:
            outgoing, self._outgoing = self._outgoing, []
            self._peers.send(outgoing)

    def _ask_reads(self) -> None:
        context = self._reads.next_round(self._wakeup.now_ms)
        if context is not None:
            self._raw.read_index(context)

    def _carry_out(self) -> None:
        ready = self._raw.ready()
        if ready.hard_state is not None and ready.hard_state.term != self._term:
            self._term = ready.hard_state.term
            self._headers.set_term(self._raw.term)
        if ready.soft_state is not None:
            self._leadership.changed(ready.soft_state.lead)
        for message in ready.messages:
            if message.to == STORAGE_APPEND:
                self._send()
                self._append(message)
            elif message.to == STORAGE_APPLY:
                self._unapplied.append((message.entries, message.responses))
                self._apply_waiting()
            else:
                self._outgoing.append(message)
        for read_state in ready.read_states:
            self._reads.confirm(read_state.context, read_state.index)

    def _append(self, message: Message) -> None:
        if self._held is not None:
            self._held.append(message)
        elif message.snapshot is not None:
            self._held = []
            index = message.snapshot.index
            # Not yet what is committed behind it: the log does not hold that.
            hard_state = HardState(message.term, message.vote, index) if message.term else None
            self._installs.install(hard_state, message.snapshot, lambda: self._installed(message))
        else:
            self._write(message)

    def _write(self, message: Message) -> None:
        hard_state = HardState(message.term, message.vote, message.commit) if message.term else None
        responses = message.responses
        if not self._appends:
            self._append_ms = self._wakeup.now_ms
        self._appends += 1
        piece = self._pieces.begin()
        self._log.append(hard_state, message.entries, lambda: self._written(responses))
        self._pieces.end(piece, APPEND)

    def _written(self, responses: list[Message]) -> None:
        self._appends -= 1
        if self._appends:
            self._append_ms = int(self._seconds() * 1000)
        self._appended(responses)

    def append_age_ms(self, now_ms: int) -> int:
        """How long the disk has been busy without finishing anything."""
        return now_ms - self._append_ms if self._appends else 0

    def _appended(self, responses: list[Message]) -> None:
        """The disk has it: what depended on it is released in this turn, or in one right now."""
        self._released += responses
        if not self._is_running:
            self._wakeup.run_now()

    def _installed(self, message: Message) -> None:
        """The log and the state are those of a snapshot now; go on behind it."""
        snapshot = message.snapshot
        assert snapshot is not None
        self._peers.follow_membership()
        long, self._long = self._long, None
        if long is not None and long.waiter is not None:
            # What became of it is in the snapshot, and nobody can tell.
            self._inbox.give_up(long.waiter)
        self._inbox.applied_index = self.applied_index = snapshot.index
        self.applied_term = snapshot.term
        for _, responses in self._unapplied:
            self._released += responses
        self._unapplied.clear()
        held, self._held = self._held, None
        # All of them before any turn: what that one appends came later.
        was_running, self._is_running = self._is_running, True
        self._write(message)  # what it brought along behind the snapshot
        for later in held or ():
            self._append(later)
        self._is_running = was_running
        self._appended([])

    def _release(self) -> None:
        if self._released:
            released, self._released = self._released, []
            for response in released:
                if response.to == self._raw.id:
                    self._raw.step(response)
                else:
                    self._outgoing.append(response)

    def _apply_waiting(self) -> None:
        """Apply what is committed, up to a long entry, as long as there is time and room.

        Nothing once a snapshot is being installed: it holds all of that.
        """
        waiting = self._unapplied
        while waiting and self._can_apply():
            if self._has_applied and self._is_time_up(self._seconds()):
                return
            self._has_applied = True
            entries, responses = waiting.popleft()
            piece = self._pieces.begin()
            count = self._apply(entries)
            self._pieces.end(piece, APPLY)
            if count:
                self._set_applied(entries[count - 1])
            long = self._long
            if long is not None:
                waiting.appendleft((entries[count + 1 :], responses))
                long.begin()
            elif count < len(entries):
                waiting.appendleft((entries[count:], responses))
            else:
                self._released += responses

    def _is_time_up(self, now_s: float) -> bool:
        """Whether this turn has used what it may use for applying."""
        if now_s < self._apply_until_s:
            return False
        left_s = APPLY_S - self._pieces.used_s(self._turn)
        self._apply_until_s = now_s + left_s
        return left_s <= 0

    def _can_apply(self) -> bool:
        if self._long is not None or self._held is not None:
            return False
        return not (self._state.is_full or self._hub.is_full)

    def _is_long_ready(self) -> bool:
        """Whether a long entry can be worked on now."""
        return self._long is not None and self._long.is_ready and self._held is None

    def _work_on_long(self, work_s: float) -> None:
        long = self._long
        assert long is not None, "nothing to work on"
        piece = self._pieces.begin()
        applied = long.work(work_s)
        self._pieces.end(piece, LONG_ENTRY)
        if applied is None:
            return
        self._long = None
        if long.waiter is not None:
            self._request_stats.note_waiter(long.waiter)
            long.waiter.done(long.waiter.call, applied)
            self._durations.answered([long.waiter], self._wakeup.now_ms)
        self._notify()
        self._set_applied(long.entry)
        self._apply_waiting()

    def finish_long(self) -> None:
        """The node stops: bring the long entry under way to its end, whatever it takes."""
        if self._is_long_ready():
            self._unapplied.clear()
            self._work_on_long(inf)

    def _apply(self, entries: list[Entry]) -> int:
        """Apply ``entries`` in slices, until time is up or to a long one, which is met, not
        applied; return how many are applied."""
        seconds = self._seconds
        slowness = self._slowness
        first = unflushed = 0
        while first < len(entries):
            if first - unflushed >= APPLY_SLICE_ENTRIES:
                # Clients get to work on these answers while we go on.
                self._flusher.flush()
                self._flusher.hold()
                unflushed = first
            started_s = seconds()  # the flush of other answers is no apply
            if first and self._is_time_up(started_s):
                return first
            some = _slice(entries, first)
            oldest = self._waiters.get(some[0].data[:PREFIX_SIZE])
            if oldest is not None and started_s - oldest.started_ms / 1000 > self._noted_s:
                self._note(some)
            self._apply_some(some)
            ended_s = seconds()
            if ended_s - started_s > slowness.apply_s:
                slowness.applied(ended_s - started_s, some, oldest)
                self._request_stats.overran(self._answered)
            self._count(ended_s - started_s)
            if self._long is not None:
                return self._long.entry.index - entries[0].index
            first += len(some)
        return first

    def _note(self, entries: list[Entry]) -> None:
        """Let it be told what is answered to these: their oldest has waited for long."""
        for entry in entries[: self._request_stats.share(len(entries))]:
            waiter = self._waiters.get(entry.data[:PREFIX_SIZE])
            if waiter is not None:
                self._request_stats.note_waiter(waiter)

    def _count(self, took_s: float) -> None:
        """Say how long the slice took that was just applied."""
        applier = self._applier
        if applier.counts:
            self._durations.applied(applier.counts, applier.failed, took_s)
            applier.counts.clear()
            applier.failed.clear()
        if self._answered:
            self._durations.answered(self._answered, self._wakeup.now_ms)
            self._answered = []

    def _set_applied(self, last: Entry) -> None:
        """Everything up to ``last`` is applied."""
        self._inbox.applied_index = self.applied_index = last.index
        self.applied_term = last.term
        self._state.set_applied(last.index, last.term)
        self._leadership.applied(last.term)

    def _apply_some(self, entries: list[Entry]) -> None:
        waiters = self._waiters
        applier = self._applier
        auth = applier.auth
        store = self._store
        answered = self._answered
        waiter: Waiter | None = None
        try:
            for entry in entries:
                if entry.type != ENTRY_NORMAL:
                    self._apply_conf_change(entry)
                    continue
                data = entry.data
                auth.index = entry.index
                waiter = waiters.pop(data[:PREFIX_SIZE], None)
                if waiter is None:
                    applier.apply_data(data)
                elif waiter.data == data:
                    applied = applier.apply(waiter.field, waiter.request, waiter.asker)
                    waiter.done(waiter.call, applied)
                    answered.append(waiter)
                else:
                    # An old entry with the id of a new proposal: that one still waits.
                    waiters[data[:PREFIX_SIZE]] = waiter
                    waiter = None
                    applier.apply_data(data)
                if store.has_watchers and (events := store.take_events()):
                    self._hub.notify(store.revision, events)
        except LongEntryError as long:
            wake = self._wakeup.wake
            self._long = LongApply(self._state, self._seconds, wake, entry, waiter, long.steps)

    def _notify(self) -> None:
        if self._store.has_watchers and (events := self._store.take_events()):
            self._hub.notify(self._store.revision, events)

    def _apply_conf_change(self, entry: Entry) -> None:
        decision = self._members.decide(entry)
        self._members.keep_conf_state(self._raw.apply_conf_change(decision.change))
        self._conf_changes.applied(decision)
        self._peers.follow_membership()

    def _answer_reads(self) -> bool:
        """Answer for a while; return whether there are more that may be answered."""
        reads = self._reads
        reads.gather(self.applied_index)
        ready = reads.ready
        if not ready:
            return False
        piece = self._pieces.begin()
        oldest_ms = oldest_client_ms(ready)
        ranges = self._durations.ranges
        count = started_ms = 0
        began_s = now_s = self._seconds()
        is_old = oldest_ms is not None and began_s - oldest_ms / 1000 > self._noted_s
        until_s = now_s + READS_S
        flush_s = now_s + EARLY_READS_S if self._has_applied else inf
        quick = 1
        while ready and now_s < until_s:
            if now_s >= flush_s:
                # Who has put something does not wait for what others read.
                self._flusher.flush()
                self._flusher.hold()
                flush_s = inf
            looked_s = now_s
            for _ in range(min(quick, len(ready))):
                call, done, asked_ms = ready.popleft()
                if is_old and self._request_stats.share(1):
                    call = self._request_stats.note_read(call, done, asked_ms)
                done(call, None)
                count += 1
                started_ms += asked_ms
            now_s = self._seconds()
            quick = QUICK_READS if now_s - looked_s < QUICK_READS_S else 1
        ranges = self._durations.ranges - ranges
        if ranges:
            part = ranges / count
            waited_ms = max(0, count * self._wakeup.now_ms - started_ms)
            self._durations.read(ranges, part * (now_s - began_s), part * waited_ms / 1000)
        self._pieces.end(piece, READS)
        return bool(ready)


def _slice(entries: list[Entry], first: int) -> list[Entry]:
    """Return the entries from ``first`` on that are applied between two looks at the clock."""
    last = size = 0
    for last in range(first, min(first + APPLY_SLICE_ENTRIES, len(entries))):
        size += len(entries[last].data)
        if size >= APPLY_SLICE_OCTETS:
            break
    return entries[first : last + 1]


def _batches(proposals: list[bytes]) -> list[list[bytes]]:
    """Return ``proposals`` in pieces that each fit a message to the leader."""
    batches: list[list[bytes]] = []
    size = FORWARDED_OCTETS_MAX
    for data in proposals:
        size += len(data)
        if size > FORWARDED_OCTETS_MAX:
            batches.append([])
            size = len(data)
        batches[-1].append(data)
    return batches
