"""A member whose disk runs full: it hands over, takes no more than its reserve bears, and says so.

A follower that is short takes few entries and then none: for the others a slow follower.  Only when
the leader commits nothing without it are the members with room no quorum: then it raises the
NOSPACE alarm for itself and takes what is left of its reserve.  A leader that is short holds
proposals back and tries to hand over; when nobody takes it, it does the same.  It needs nothing
of the others but Raft, so that real etcd members stand beside it.

States: `docs/machines/disk-room.md`.  Why so: ADR 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.applier import (
    FIELD_ALARM,
    FIELD_COMPACTION,
    FIELD_LEASE_GRANT,
    FIELD_PUT,
    FIELD_TXN,
)
from etcdtw.apply.errors import NoSpaceError
from etcdtw.node.duties.lag import FollowerWait, LogMarks
from etcdtw.node.duties.quota import SpaceQuota
from etcdtw.node.intake.inbox import NO_BOUND, Inbox
from etcdtw.node.intake.seams import StateStore
from etcdtw.node.intake.stepping import Stepper
from etcdtw.node.intake.wakeup import Wakeup
from etcdtw.node.own_proposals import OwnProposals
from etcdtw.node.standing import Standing
from etcdtw.raft.entry import Entry
from etcdtw.raft.errors import ProposalDroppedError
from etcdtw.raft.message import (
    MSG_APP,
    MSG_PROP,
    MSG_SNAP,
    MSG_TIMEOUT_NOW,
    NO_MEMBER,
    Message,
)
from etcdtw.raft.raw_node import RawNode
from etcdtw.storage.disk.room import RoomFound
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire.entry_header import PREFIX_SIZE

ROOMY: Final = 0
SLOW: Final = 1
GIVING_UP: Final = 2
NEEDED: Final = 3

SHORT_AFTER_MS: Final = 300
"""So long a place must be short: meanwhile what is pending is committed, and a leader waits."""
FLUSH_SPARE_MIN: Final = 2 << 20
"""With fewer octets to spare changes are committed at each look, so that few are pending."""
SLOW_SPARE_MIN: Final = 1 << 20
"""Octets to spare below which a slow member takes no entries at all."""
SLOW_PART: Final = 8
"""A slow member takes, between two looks, one of so many parts of what is above that."""
TRICKLE_AFTER_MS: Final = 3_000
"""After so long a slow member takes what the others have committed, out of what it spares."""
TRICKLE_SPARE_MIN: Final = 64 << 10
"""Octets that are left of it, for the alarm and what ends it."""
NEEDED_OCTETS: Final = 256 << 10
"""What a slow member leaves of what its last pages bear, as it may be needed: the large entries
that wait are before the alarm."""
UNKNOWN_AFTER_MS: Final = 5_000
"""So long no look may tell how much room there is before that is a trouble."""
LAST_OCTETS_MAX: Final = 256 << 10
"""So much a needed member takes in all though nothing is left to spare, once NOSPACE is raised:
what was on its way, and the compaction that makes room."""
PASS_EVERY_MS: Final = 1_000
"""Between two compactions that an exhausted leader lets pass."""
FIRST_FACTOR: Final = 2
"""Half of what entries need at the worst is left out for the first message after each look."""
UNFIT_MARGIN: Final = 2
"""So many times an entry that did not fit must fit before its member has room again."""
NEEDED_AFTER_MS: Final = 1_000
"""So long may the leader commit nothing before a follower that is short concludes that it must."""
PROBE_EVERY_MS: Final = 5_000
"""So long may the leader commit nothing new before a member that lags asks it to."""
REVIEW_MS: Final = 10_000
"""So long a member that was needed takes entries before it sees whether it still is."""
ROOM_AGAIN_MS: Final = 1_000
"""So long there must be room before a member takes part again."""
ASK_EVERY_MS: Final = 1_000
"""Between two requests for the same change of the alarm."""
ALARM_LATE_MS: Final = 15_000
"""So long after it was asked for the alarm may yet be raised: proposals wait for a leader."""
KEPT_OCTETS_MAX: Final = 8 << 20
"""Octets of other members' proposals that wait while the leadership is handed over, or for a
follower."""
OWN_OCTETS_MIN: Final = 256 << 10
"""So much a leader that is not exhausted takes of its own clients between two looks."""
LARGEST_MIN: Final = 64 << 10
"""Room is looked for as if entries of this size came: pages to be used again must stand in rows
for large ones.  A larger one waits for a look that knows of it."""
ENTRY_COST: Final = 300
"""Octets that an entry costs beside its data."""
GROWING: Final = frozenset((FIELD_PUT, FIELD_TXN, FIELD_LEASE_GRANT))


class _Unfit:
    """An entry that was offered and is more than a whole portion, however often one looks.

    Room shrinks by parts of itself: it may end above nothing and below any entry.
    """

    def __init__(self) -> None:
        self._spare = 0  # as found last
        self._octets = 0
        self._offered_ms = 0  # when last

    def offer(self, octets: int, now_ms: int) -> None:
        if octets > FIRST_FACTOR * self._spare:
            self._octets, self._offered_ms = octets, now_ms

    def is_cramped(self, spare: int, now_ms: int, *, is_short: bool) -> bool:
        """Return whether there still is such an entry now that this is to spare."""
        self._spare = spare
        margin = UNFIT_MARGIN if is_short else 1
        is_gone = is_short and now_ms - self._offered_ms >= REVIEW_MS
        if is_gone or FIRST_FACTOR * spare >= margin * self._octets:
            self._octets = 0
        return self._octets > 0


class _Unknown:
    """That no look can tell how much room there is."""

    def __init__(self) -> None:
        self._since_ms: int | None = None
        self.trouble = ""
        """Once that is so for long where room is counted: what was found last is soon used up."""

    def note(self, now_ms: int, why: str, *, is_tight: bool) -> bool:
        """Return whether this is news."""
        if self._since_ms is None:
            self._since_ms = now_ms
            return True
        if is_tight and now_ms - self._since_ms >= UNKNOWN_AFTER_MS:
            self.trouble = f"the free space cannot be told: {why}"
        return False

    def end(self) -> None:
        self._since_ms, self.trouble = None, ""


class SpaceDuty:
    """Looks at one node's disks at each tick, and stands at its door for peers' messages."""

    log = Logger()

    def __init__(
        self,
        *,
        standing: Standing,
        raw: RawNode,
        alarms: Alarms,
        storage: StateStore,
        stepper: Stepper,
        inbox: Inbox,
        own: OwnProposals,
        wakeup: Wakeup,
        quota: SpaceQuota,
        look: Callable[[int], RoomFound],
        marks: LogMarks,
        connected_since_ms: Callable[[int], int | None],
    ) -> None:
        """``look(largest)`` finds room for entries of up to so many octets each.  It may raise
        OSError: then nothing is known, and what was known holds.

        ``connected_since_ms``: when another member was connected to, None: it is not.
        """
        self._standing = standing
        self._raw = raw
        self._alarms = alarms
        self._storage = storage
        self._stepper = stepper
        self._inbox = inbox
        self._own = own
        self._wakeup = wakeup
        self._quota = quota
        self._look = look
        self._connected_since_ms = connected_since_ms
        self.state = ROOMY
        self.where = ""
        """The place with the least room, while the disk is not roomy."""
        self.is_log_short = False
        """Whether entries that nobody needs are to leave the log early."""
        self.is_log_tight = False
        self._lag = FollowerWait(marks)
        self.marks = marks
        self._is_waiting = False
        """Whether proposals wait for a follower, which this leader is too far ahead of."""
        self._largest, self._budget = LARGEST_MIN, 0
        """Octets: of the largest entry since the disk is tight; what may be taken until a look."""
        self._trickle = 0
        """Of what the others have committed, what a slow member takes until the next look."""
        self._last_left, self._passed_ms = LAST_OCTETS_MAX, -PASS_EVERY_MS
        """Of these octets; when a compaction was proposed though this leader is exhausted."""
        self._first = 0
        """What the first message after a look may have: one may be larger than the budget."""
        self._pressed_ms: int | None = None
        """Since when each look found too little room."""
        self._roomy_ms: int | None = None
        self._since_ms = 0  # of the state
        self._term = 0  # in which it is
        self._refused_ms: int | None = None
        """When the first entries were refused."""
        self._probed_ms: int | None = None
        """When the entry was proposed that is to move the leader's commit index."""
        self._has_moved = False
        self._leader_commit = self._moved_ms = 0
        """When the leader was last seen to have committed what this member does not hold."""
        self._tried: set[int] = set()
        self._kept: list[Message] = []
        self._kept_octets, self._has_raised = 0, False
        self._asked_ms = -ASK_EVERY_MS
        self._is_flushing = False
        self._unfit, self._unknown = _Unfit(), _Unknown()
        self.shortages_total = 0
        """Messages of peers that were not taken."""

    @property
    def is_short(self) -> bool:
        return self.state != ROOMY

    def wants_short_log(self) -> bool:
        return self.is_log_short

    def wants_small_log(self) -> bool:
        return self.is_log_tight

    def trouble(self) -> str:
        """Return what a readiness check says; empty while there is room."""
        if self.is_short:
            return f"the disk is short of space: {self.where}"
        return self._unknown.trouble

    def look(self, now_ms: int) -> None:
        """See how much room there is, and do what follows."""
        self._largest = max(self._largest, self._inbox.largest_waiting)
        try:
            found = self._look(self._largest)
        except OSError as error:
            is_tight = self._stepper.door is self
            if self._unknown.note(now_ms, str(error), is_tight=is_tight):
                self.log.warn("the free space cannot be told: {why}", why=str(error))
            return
        self._unknown.end()
        self.where = found.where
        self.is_log_short = found.is_log_short
        self.is_log_tight = found.is_log_tight
        self._budget = found.spare  # for what is let go before the state's portion is known
        is_cramped = self._unfit.is_cramped(found.spare, now_ms, is_short=self.is_short)
        is_pressed = found.is_short or found.is_exhausted or is_cramped
        if is_pressed or found.spare < FLUSH_SPARE_MIN:
            self._flush()
        if not is_pressed:
            self._pressed_ms = None
        elif self._pressed_ms is None:
            self._pressed_ms = now_ms
        pressed_ms = 0 if self._pressed_ms is None else now_ms - self._pressed_ms
        self._weigh(now_ms, is_pressed, pressed_ms)
        self._portion(now_ms, found.spare, max(found.spare, found.last))
        if self.state == GIVING_UP:
            self._hand_over(now_ms)
        elif self.state == SLOW:
            self._follow(now_ms)
        if self.state == NEEDED:
            self._insist(now_ms)
        elif self.state == ROOMY and self._has_raised:
            self._disarm(now_ms)
        self._stepper.door = self if found.is_tight or self.is_short else None
        if self._stepper.door is None:
            self._largest, self._inbox.largest_waiting = LARGEST_MIN, 0
        self._quota.block(self.state in (SLOW, NEEDED))
        self._hold(now_ms, found, is_pressed)

    def _portion(self, now_ms: int, spare: int, last: int) -> None:
        """Say what may be taken until the next look."""
        self._budget = spare
        self._trickle = 0
        self._first = 0 if self.is_short else FIRST_FACTOR * spare
        if self.state == SLOW:
            self._budget = max(0, spare - SLOW_SPARE_MIN) // SLOW_PART
            if now_ms - self._since_ms >= TRICKLE_AFTER_MS:
                self._trickle = max(0, max(spare, last - NEEDED_OCTETS) - TRICKLE_SPARE_MIN)
        elif self.state == NEEDED:
            self._budget, self._first = max(spare, last - TRICKLE_SPARE_MIN), FIRST_FACTOR * last
            if self._is_raised():
                self._trickle = self._last_left

    def _hold(self, now_ms: int, found: RoomFound, is_pressed: bool) -> None:
        """Have proposals wait, or no longer."""
        was_waiting, self._is_waiting = self._is_waiting, self._waits(now_ms)
        if was_waiting and not self._is_waiting and self.state != GIVING_UP:
            self._let_go()
        is_held = self._is_waiting or self.state == GIVING_UP
        if found.is_exhausted or (is_pressed and self.state == ROOMY):
            # The alarm is small, and must pass.
            may_wait = self.state != NEEDED or self._is_raised()
            is_held = is_held or (may_wait and self._standing.is_leader)
        if self._inbox.is_held and not is_held:
            self._wakeup.wake()
        self._inbox.is_held = is_held
        is_counted = self._stepper.door is not None and self._standing.is_leader
        allowed = max(self._budget, OWN_OCTETS_MIN) if is_counted else NO_BOUND
        self._inbox.allow(allowed, self._largest)

    def _waits(self, now_ms: int) -> bool:
        leads = self.is_log_tight and self._standing.is_leader and self.state == ROOMY
        matched = {member_id: one.match_index for member_id, one in self._raw.progress().items()}
        return self._lag.waits(now_ms, matched if leads else {})

    # The states.

    def _weigh(self, now_ms: int, is_pressed: bool, pressed_ms: int) -> None:
        if not is_pressed:
            if self._roomy_ms is None:
                self._roomy_ms = now_ms
            if self.is_short and now_ms - self._roomy_ms >= ROOM_AGAIN_MS:
                self.log.info(
                    "there is room again: {where}", where=self.where or "the disk is roomy"
                )
                self._enter(ROOMY, now_ms)
                self._last_left = LAST_OCTETS_MAX
            return
        self._roomy_ms = None
        if self.state == ROOMY and pressed_ms < SHORT_AFTER_MS:
            return  # what is pending may just need much
        if self.state == ROOMY:
            self.shortages_total += 1
            self.log.error(
                "no space left soon: {where}; this member takes no more entries "
                "and leads no longer, free some space",
                where=self.where,
            )
            self._enter(SLOW, now_ms)
        elif self.state == NEEDED and (
            self._term != self._raw.term or now_ms - self._since_ms >= REVIEW_MS
        ):
            self._enter(SLOW, now_ms)
        if self.state == SLOW and self._standing.is_leader:
            self._enter(GIVING_UP, now_ms)
        elif self.state == GIVING_UP and self._is_led():
            self._enter(SLOW, now_ms)

    def _is_led(self) -> bool:
        """Whether another member leads."""
        return self._standing.leader_id not in (NO_MEMBER, self._standing.member_id)

    def _enter(self, state: int, now_ms: int) -> None:
        self.state = state
        self._since_ms = now_ms
        self._term = self._raw.term
        self._refused_ms = self._probed_ms = None
        self._leader_commit = 0
        self._has_moved = False
        self._moved_ms = now_ms
        self._tried.clear()
        if state != GIVING_UP:
            self._let_go()

    def _hand_over(self, now_ms: int) -> None:
        """Try the voters one after the other; those that hold all of the log come first."""
        if not self._standing.is_leader or self._raw.transfer_target != NO_MEMBER:
            return  # Raft gives each one election timeout
        found = [
            (-(self._standing.match_index(one.member_id) or 0), one.member_id)
            for one in self._standing.other_voters()
            if one.member_id not in self._tried
            and self._connected_since_ms(one.member_id) is not None
        ]
        if not found:
            self._be_needed(now_ms, "no member with room takes the leadership")
            return
        target = min(found)[1]
        self._tried.add(target)
        self.log.info("handing the leadership over to {peer}", peer=f"{target:x}")
        self._raw.transfer_leader(target)
        self._wakeup.wake()

    def _follow(self, now_ms: int) -> None:
        """Find out whether the others go on without this member."""
        if not self._standing.leader_id:
            self._probed_ms = None
            return
        if self._has_moved:
            self._has_moved = False
            self._moved_ms = now_ms
            self._probed_ms = None
            if self._has_raised and now_ms - self._asked_ms >= REVIEW_MS:
                # It may not learn of the outcome before it has room.
                self._ask(pb.AlarmRequest.DEACTIVATE, now_ms)
        if self._leader_commit > self._raw.last_index:
            if self._probed_ms is None and now_ms - self._moved_ms >= PROBE_EVERY_MS:
                self._probe(now_ms)
        elif self._refused_ms is None:
            if self._has_raised and self._probed_ms is None:
                self._probe(now_ms)
        elif now_ms - max(self._refused_ms, self._moved_ms) >= NEEDED_AFTER_MS:
            self._be_needed(now_ms, "the leader commits nothing without it")
        if self._probed_ms is not None and now_ms - self._probed_ms >= NEEDED_AFTER_MS:
            self._be_needed(now_ms, "the leader commits nothing without it")

    def _probe(self, now_ms: int) -> None:
        """Propose an entry that changes nothing, to see whether it is committed."""
        self._probed_ms = now_ms
        self._own.propose(FIELD_ALARM, pb.AlarmRequest(action=pb.AlarmRequest.GET))

    def _be_needed(self, now_ms: int, why: str) -> None:
        self.log.error(
            "{where}, and {why}: this member raises NOSPACE and takes what its reserve bears",
            where=self.where,
            why=why,
        )
        self._enter(NEEDED, now_ms)

    def _insist(self, now_ms: int) -> None:
        """Have the alarm in the log, before anything that waits."""
        waiting: list[bytes] = []
        if self._inbox.is_held:
            waiters = self._inbox.waiters
            growing: list[bytes] = []
            for data in self._inbox.take_proposals():
                waiter = waiters.get(data[:PREFIX_SIZE])
                grows = waiter is not None and waiter.field in GROWING
                (growing if grows else waiting).append(data)
            self._inbox.drop(growing, NoSpaceError())
        if not self._is_raised():
            self._ask(pb.AlarmRequest.ACTIVATE, now_ms)
            self._has_raised = True
        elif self._standing.is_leader and now_ms - self._passed_ms >= PASS_EVERY_MS:
            self._pass_a_compaction(waiting, now_ms)
        for data in waiting:
            self._inbox.add(data)

    def _pass_a_compaction(self, waiting: list[bytes], now_ms: int) -> None:
        """Of what an exhausted leader holds, propose what makes room: nothing else would."""
        for data in waiting:
            waiter = self._inbox.waiters.get(data[:PREFIX_SIZE])
            if waiter is not None and waiter.field == FIELD_COMPACTION:
                self._passed_ms = now_ms
                waiting.remove(data)
                try:
                    self._raw.propose(data)
                except ProposalDroppedError as error:
                    self._inbox.drop([data], error)
                self._wakeup.wake()
                return

    def _disarm(self, now_ms: int) -> None:
        if self._is_raised():
            self._ask(pb.AlarmRequest.DEACTIVATE, now_ms)
        elif now_ms - self._asked_ms >= ALARM_LATE_MS:
            self._has_raised = False

    def _is_raised(self) -> bool:
        return self._alarms.is_active(self._standing.member_id, pb.NOSPACE)

    def _ask(self, action: int, now_ms: int) -> None:
        if now_ms - self._asked_ms >= ASK_EVERY_MS:
            self._asked_ms = now_ms
            self._own.ask_alarm(action, self._standing.member_id, pb.NOSPACE)

    def _flush(self) -> None:
        """What is pending needs most of the reserve: have it committed now."""
        if not self._is_flushing:
            self._is_flushing = True
            self._storage.flush(self._flushed)

    def _flushed(self) -> None:
        self._is_flushing = False

    # The door: `loop.seams.Door`.

    def takes(self, m: Message) -> bool:
        """Return whether a peer's message may be stepped; if not, it is lost as by a network."""
        kind = m.type
        if kind == MSG_APP:
            return self._takes_entries(m)
        if kind in (MSG_SNAP, MSG_TIMEOUT_NOW):
            return not self.is_short
        if kind == MSG_PROP and self._standing.is_leader:
            return self._takes_proposal(m)
        return True

    def _takes_entries(self, m: Message) -> bool:
        if m.commit > max(self._leader_commit, self._raw.last_index):
            self._has_moved = True
        self._leader_commit = max(self._leader_commit, m.commit)
        if not m.entries or self._writes_nothing(m):
            return True
        if self._offered(m) and (self._pay(m) or self._takes_some(m)):
            return True
        if self._refused_ms is None:
            self._refused_ms = self._wakeup.time_ms()
        return False

    def _offered(self, m: Message) -> bool:
        """Return whether the last look knew of entries as large as these."""
        self._unfit.offer(len(m.entries[0].data) + ENTRY_COST, self._wakeup.time_ms())
        largest, self._largest = self._largest, max(self._largest, _largest_of(m))
        return self._largest == largest

    def _writes_nothing(self, m: Message) -> bool:
        """Whether the entries are of a leader of old, or here already, as when an answer was lost:
        what is left is for others."""
        last = m.entries[-1]
        return 0 < m.term < self._raw.term or self._raw.holds(last.index, last.term)

    def _takes_some(self, m: Message) -> bool:
        """Cut a message down to what may be taken of it, as if the leader had sent no more.

        Beyond the budget that is what the others have committed without this member, in trickles:
        they do not need it, but it needs what makes room again, as a compaction that lies ahead.
        """
        count, _ = _fitting(m.entries, self._budget, self._first)
        if count:
            m.entries = m.entries[:count]
            return self._pay(m)
        committed = m.commit - m.index if self.state == SLOW else len(m.entries)
        count, size = _fitting(m.entries[: max(0, committed)], self._trickle, 0)
        if not count:
            return False
        m.entries = m.entries[:count]
        self._trickle -= size
        if self.state == NEEDED:
            self._last_left -= size
        self._refused_ms = None
        return True

    def _takes_proposal(self, m: Message) -> bool:
        if self.state != GIVING_UP and not self._is_waiting:
            return self._offered(m) and self._pay(m)
        size = _size_of(m)
        if self._kept_octets + size <= KEPT_OCTETS_MAX:
            self._kept.append(m)
            self._kept_octets += size
        return False

    def _pay(self, m: Message) -> bool:
        size = _size_of(m)
        if size > self._budget and size > self._first:
            return False
        self._budget = max(0, self._budget - size)
        self._first = 0
        return True

    def _let_go(self) -> None:
        """Step what was kept: this member appends it, or sends it on to who leads now."""
        kept, self._kept = self._kept, []
        self._kept_octets = 0
        for m in kept:
            self._stepper.receive(m)


def _fitting(entries: list[Entry], budget: int, first: int) -> tuple[int, int]:
    """Return how many fit, and their size; the first alone may be as large as ``first``."""
    count = size = 0
    for entry in entries:
        cost = len(entry.data) + ENTRY_COST
        if size + cost > budget and (count or cost > first):
            break
        size += cost
        count += 1
    return count, size


def _largest_of(m: Message) -> int:
    return max([len(entry.data) for entry in m.entries])


def _size_of(m: Message) -> int:
    return sum([len(entry.data) + ENTRY_COST for entry in m.entries])
