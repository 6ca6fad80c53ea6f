"""One member's Raft state, and the only functions that change its role or term.

    follower --timeout--> pre-candidate --quorum--> candidate --quorum--> leader
    any role: a higher term, or a leader of this term -> follower

What a role does with a message is in `follower`, `election`, `leader`; they change the
state through here.  Source: Ongaro's thesis, chapter 3; pre-vote is section 9.6.
"""

from __future__ import annotations

from typing import Final

from etcdtw.raft.confchange import restored
from etcdtw.raft.config import Config
from etcdtw.raft.errors import InvariantError
from etcdtw.raft.log import RaftLog
from etcdtw.raft.membership import Membership
from etcdtw.raft.message import (
    AFTER_APPEND_TYPES,
    MSG_PROP,
    MSG_READ_INDEX,
    NO_MEMBER,
    VOTE_TYPES,
    Message,
)
from etcdtw.raft.read_only import ReadOnly
from etcdtw.raft.ready import ReadState

ROLE_FOLLOWER: Final = 0
ROLE_CANDIDATE: Final = 1
ROLE_LEADER: Final = 2
ROLE_PRE_CANDIDATE: Final = 3
ROLE_NAMES: Final = ("StateFollower", "StateCandidate", "StateLeader", "StatePreCandidate")


class RaftState:
    """Everything one member knows.  One exists per member; `RawNode` owns it.

    ``messages`` may leave at once; ``messages_after_append`` promise something and wait
    until the entries and the hard state before them are durable.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.id = config.id
        self.term = 0
        self.vote = NO_MEMBER
        self.lead = NO_MEMBER
        self.role: int = ROLE_FOLLOWER
        self.log = RaftLog(config.storage, config.max_committed_size_per_ready)
        self.membership = Membership(config.max_inflight_messages, config.max_inflight_size)
        self.messages: list[Message] = []
        self.messages_after_append: list[Message] = []
        self.read_states: list[ReadState] = []
        self.read_only = ReadOnly()
        # Reads that came before this leader had committed anything in its own term.
        self.reads_before_commit: list[Message] = []
        self.transfer_target = NO_MEMBER  # leader only: who is to take over
        # No conf change may be proposed until this index is applied (one at a time).
        self.pending_conf_index = 0
        self.uncommitted_size = 0  # octets of payload; leader only
        self.is_barred = False  # from campaigning: its owner knows why
        self.election_elapsed = 0  # ticks
        self.heartbeat_elapsed = 0  # ticks; leader only
        self.randomized_election_ticks = 0
        self._restart(config)

    def _restart(self, config: Config) -> None:
        hard_state, conf_state = config.storage.initial_state()
        if config.conf_state is not None:
            conf_state = config.conf_state
        log = self.log
        self.membership.switch_to(restored(conf_state), log.last_index())
        # A commit index alone is never flushed, so the state machine may be ahead of it.
        commit_index = max(hard_state.commit, config.applied, log.commit_index)
        if commit_index > log.last_index():
            raise InvariantError(
                f"commit index {commit_index} (applied: {config.applied}) is behind the last "
                f"index {log.last_index()}: was the log truncated or lost?"
            )
        log.commit_to(commit_index)
        self.term = hard_state.term
        self.vote = hard_state.vote
        if config.applied > log.applied_index:
            log.applied_to(config.applied, 0)
        become_follower(self, self.term, NO_MEMBER)

    def is_promotable(self) -> bool:
        """Return whether this member may campaign: a voter that is not barred from it, and its
        log not a snapshot to be."""
        progress = self.membership.progress.get(self.id)
        return (
            progress is not None
            and not progress.is_learner
            and not self.is_barred
            and self.log.unstable.snapshot is None
        )

    def is_past_election_timeout(self) -> bool:
        return self.election_elapsed >= self.randomized_election_ticks

    def has_committed_in_term(self) -> bool:
        """Return whether the commit index has an entry of this term (thesis 6.4, step 1)."""
        return self.log.match_term(self.log.commit_index, self.term)

    def send(self, m: Message) -> None:
        """Queue ``m``, from this member and, unless it is forwarded or a vote, in its term."""
        if m.from_id == NO_MEMBER:
            m.from_id = self.id
        if m.type in VOTE_TYPES:
            assert m.term != 0, "a vote names its term itself: pre-votes ask for a later one"
        elif m.type not in (MSG_PROP, MSG_READ_INDEX):
            m.term = self.term
        if m.type in AFTER_APPEND_TYPES:
            self.messages_after_append.append(m)
        else:
            assert m.to != self.id, "only promises are sent to oneself"
            self.messages.append(m)

    def grow_uncommitted(self, size: int) -> bool:
        """Count ``size`` octets of proposals; return False when the bound forbids them.

        The first proposal passes whatever its size, and an empty one always does: the entry
        that ends a term or a joint configuration must never be refused.
        """
        total = self.uncommitted_size + size
        if size > 0 and self.uncommitted_size > 0 and total > self.config.max_uncommitted_size:
            return False
        self.uncommitted_size = total
        return True

    def shrink_uncommitted(self, size: int) -> None:
        # Entries of earlier terms were never counted here.
        self.uncommitted_size = max(0, self.uncommitted_size - size)


def _reset(state: RaftState, term: int) -> None:
    if state.term != term:
        state.term = term
        state.vote = NO_MEMBER
    state.lead = NO_MEMBER
    state.election_elapsed = 0
    state.heartbeat_elapsed = 0
    redraw_election_timeout(state)
    state.transfer_target = NO_MEMBER
    state.membership.votes = {}
    state.membership.reset_progress(state.id, state.log.last_index())
    state.pending_conf_index = 0
    state.uncommitted_size = 0
    state.read_only = ReadOnly(state.read_only.number)
    state.reads_before_commit = []


def redraw_election_timeout(state: RaftState) -> None:
    """Draw from ``[election_ticks, 2 * election_ticks - 1]``, to split votes rarely."""
    election_ticks = state.config.election_ticks
    state.randomized_election_ticks = election_ticks + state.config.random.randrange(election_ticks)


def become_follower(state: RaftState, term: int, lead: int) -> None:
    """Follow ``lead`` (0: whoever shows up) in ``term``, forgetting all that a leader knows."""
    _reset(state, term)
    state.role = ROLE_FOLLOWER
    state.lead = lead


def become_pre_candidate(state: RaftState) -> None:
    """Ask before disturbing anybody: neither term nor vote change (thesis 9.6)."""
    assert state.role != ROLE_LEADER, "a leader does not campaign"
    state.role = ROLE_PRE_CANDIDATE
    state.lead = NO_MEMBER
    state.membership.votes = {}
    redraw_election_timeout(state)


def become_candidate(state: RaftState) -> None:
    """Enter the next term with a vote for oneself."""
    assert state.role != ROLE_LEADER, "a leader does not campaign"
    _reset(state, state.term + 1)
    state.role = ROLE_CANDIDATE
    state.vote = state.id


def become_leader(state: RaftState) -> None:
    """Take over in this term; the caller appends the empty entry that begins it."""
    assert state.role != ROLE_FOLLOWER, "a leader was elected"
    _reset(state, state.term)
    state.role = ROLE_LEADER
    state.lead = state.id
    own = state.membership.progress[state.id]
    # One's own log needs no probing; it counts for the commit index once it is durable.
    own.become_replicate()
    own.recent_active = True
    # There may be a conf change in the tail: none may be proposed until it is applied.
    state.pending_conf_index = state.log.last_index()
