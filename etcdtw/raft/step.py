"""The door in: every message and every tick goes through here to the role that it concerns.

Terms are compared here, and nowhere else (thesis 3.3).
"""

from __future__ import annotations

from etcdtw.raft import election, replication
from etcdtw.raft.confchange import ConfChange, changed
from etcdtw.raft.entry import ConfState, Snapshot
from etcdtw.raft.follower import step_candidate, step_follower
from etcdtw.raft.leader import leave_joint_when_due, step_leader
from etcdtw.raft.log import NO_LIMIT, payload_size, stored_size
from etcdtw.raft.message import (
    MSG_APP,
    MSG_APP_RESP,
    MSG_BEAT,
    MSG_CHECK_QUORUM,
    MSG_HEARTBEAT,
    MSG_HUP,
    MSG_PRE_VOTE,
    MSG_PRE_VOTE_RESP,
    MSG_SNAP,
    MSG_STORAGE_APPEND_RESP,
    MSG_STORAGE_APPLY_RESP,
    MSG_VOTE,
    NO_MEMBER,
    Message,
)
from etcdtw.raft.state import ROLE_FOLLOWER, ROLE_LEADER, RaftState, become_follower


def tick(state: RaftState) -> None:
    """Let one tick pass: a leader sends heartbeats, everybody else waits for them."""
    state.election_elapsed += 1
    if state.role == ROLE_LEADER:
        _tick_leader(state)
    elif state.is_promotable() and state.is_past_election_timeout():
        state.election_elapsed = 0
        step(state, Message(MSG_HUP, from_id=state.id))


def _tick_leader(state: RaftState) -> None:
    state.heartbeat_elapsed += 1
    if state.election_elapsed >= state.config.election_ticks:
        state.election_elapsed = 0
        if state.config.check_quorum:
            step(state, Message(MSG_CHECK_QUORUM, from_id=state.id))
        state.transfer_target = NO_MEMBER  # it had one election timeout
    if state.role == ROLE_LEADER and state.heartbeat_elapsed >= state.config.heartbeat_ticks:
        state.heartbeat_elapsed = 0
        step(state, Message(MSG_BEAT, from_id=state.id))


def step(state: RaftState, m: Message) -> None:
    """Take one message.  Raises `ProposalDroppedError` if it was a proposal in vain."""
    if m.term > state.term:
        if not _enter_later_term(state, m):
            return
    elif 0 < m.term < state.term:
        _answer_earlier_term(state, m)
        return
    if m.type == MSG_HUP:
        election.start_election(state)
    elif m.type in (MSG_VOTE, MSG_PRE_VOTE):
        election.answer_vote_request(state, m)
    elif m.type == MSG_STORAGE_APPEND_RESP:
        if m.index != 0:
            state.log.unstable.stable_to(m.index, m.log_term)
        if m.snapshot is not None:
            snapshot_installed(state, m.snapshot)
    elif m.type == MSG_STORAGE_APPLY_RESP:
        _entries_applied(state, m)
    elif state.role == ROLE_LEADER:
        step_leader(state, m)
    elif state.role == ROLE_FOLLOWER:
        step_follower(state, m)
    else:
        step_candidate(state, m)


def _enter_later_term(state: RaftState, m: Message) -> bool:
    """Follow ``m`` into its term where it calls for that; return False to ignore it."""
    if m.type in (MSG_VOTE, MSG_PRE_VOTE) and election.is_disturbing(state, m):
        return False
    if m.type == MSG_PRE_VOTE or (m.type == MSG_PRE_VOTE_RESP and not m.reject):
        return True  # that term is only asked about; nobody is in it yet
    leads = m.type in (MSG_APP, MSG_HEARTBEAT, MSG_SNAP)
    become_follower(state, m.term, m.from_id if leads else NO_MEMBER)
    return True


def _answer_earlier_term(state: RaftState, m: Message) -> None:
    if m.type in (MSG_APP, MSG_HEARTBEAT):
        if state.config.check_quorum or state.config.pre_vote:
            # This member went ahead alone and its votes are not heard: only by learning
            # of our term can the leader step down and let us back in.
            state.send(Message(MSG_APP_RESP, to=m.from_id))
    elif m.type == MSG_PRE_VOTE:
        # Said aloud, or two members with logs and terms crossed wait for ever.
        state.send(Message(MSG_PRE_VOTE_RESP, to=m.from_id, term=state.term, reject=True))
    elif m.type == MSG_STORAGE_APPEND_RESP and m.snapshot is not None:
        # The entries that this write reports may have been replaced twice since, the
        # same term at the same index again (ABA).  A snapshot is committed: it stays.
        snapshot_installed(state, m.snapshot)


def snapshot_installed(state: RaftState, snapshot: Snapshot) -> None:
    """Note that ``snapshot`` is durable and stands in the state machine."""
    state.log.unstable.stable_snapshot_to(snapshot.index)
    applied_to(state, max(snapshot.index, state.log.applied_index), 0)


def _entries_applied(state: RaftState, m: Message) -> None:
    if m.entries:
        size = stored_size(m.entries) if state.config.max_committed_size_per_ready < NO_LIMIT else 0
        if state.config.max_uncommitted_size < NO_LIMIT:
            state.shrink_uncommitted(payload_size(m.entries))
        applied_to(state, max(m.entries[-1].index, state.log.applied_index), size)


def applied_to(state: RaftState, index: int, size: int) -> None:
    """Note that the state machine is at ``index``, and do what waited for that."""
    state.log.applied_to(index, size)
    leave_joint_when_due(state)


def apply_conf_change(state: RaftState, change: ConfChange) -> ConfState:
    """Put a committed change in force, now that it is applied.  Raises `ConfChangeError`."""
    membership = state.membership
    config = changed(membership.config, change)
    membership.switch_to(config, state.log.last_index())
    if state.role == ROLE_LEADER:
        _leader_reconfigured(state)
    return config.conf_state()


def _leader_reconfigured(state: RaftState) -> None:
    membership = state.membership
    own = membership.progress.get(state.id)
    if own is None or own.is_learner:
        # It leads on without a vote, so that the change reaches the others, or steps down.
        if state.config.step_down_on_removal:
            become_follower(state, state.term, NO_MEMBER)
        return
    if replication.maybe_commit(state):
        # Fewer voters may need fewer acknowledgements.
        replication.broadcast_append(state)
    else:
        for member_id in membership.progress:
            if member_id != state.id:
                replication.maybe_send_append(state, member_id, send_if_empty=False)
    replication.release_reads(state)
    if state.transfer_target not in membership.voters():
        state.transfer_target = NO_MEMBER
