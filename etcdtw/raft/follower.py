"""What followers and candidates do with a message.

Source: Ongaro's thesis, sections 3.4, 3.5; 7.2 (snapshots); 3.10 (transfer).
"""

from __future__ import annotations

from etcdtw.raft import election
from etcdtw.raft.confchange import restored
from etcdtw.raft.config import READ_ONLY_LEASE_BASED
from etcdtw.raft.entry import Snapshot
from etcdtw.raft.errors import ProposalDroppedError
from etcdtw.raft.message import (
    MSG_APP,
    MSG_APP_RESP,
    MSG_FORGET_LEADER,
    MSG_HEARTBEAT,
    MSG_HEARTBEAT_RESP,
    MSG_PRE_VOTE_RESP,
    MSG_PROP,
    MSG_READ_INDEX,
    MSG_READ_INDEX_RESP,
    MSG_SNAP,
    MSG_TIMEOUT_NOW,
    MSG_TRANSFER_LEADER,
    MSG_VOTE_RESP,
    NO_MEMBER,
    Message,
)
from etcdtw.raft.ready import ReadState
from etcdtw.raft.state import RaftState, become_follower


def step_candidate(state: RaftState, m: Message) -> None:
    """Count votes; give up for a leader of this term."""
    if m.type in (MSG_VOTE_RESP, MSG_PRE_VOTE_RESP):
        election.count_vote(state, m)
    elif m.type in (MSG_APP, MSG_HEARTBEAT, MSG_SNAP):
        become_follower(state, m.term, m.from_id)
        _follow(state, m)
    elif m.type == MSG_PROP:
        raise ProposalDroppedError


def step_follower(state: RaftState, m: Message) -> None:
    """Follow the leader of this term; pass on to it what only a leader can do."""
    if m.type in (MSG_APP, MSG_HEARTBEAT, MSG_SNAP):
        state.election_elapsed = 0
        state.lead = m.from_id
        _follow(state, m)
    elif m.type == MSG_PROP:
        if state.lead == NO_MEMBER or state.config.disable_proposal_forwarding:
            raise ProposalDroppedError
        _forward(state, m)
    elif m.type in (MSG_READ_INDEX, MSG_TRANSFER_LEADER):
        if state.lead != NO_MEMBER:
            _forward(state, m)
    elif m.type == MSG_READ_INDEX_RESP:
        if len(m.entries) == 1:
            state.read_states.append(ReadState(m.index, m.entries[0].data))
    elif m.type == MSG_TIMEOUT_NOW:
        election.start_election(state, transfer=True)
    elif m.type == MSG_FORGET_LEADER and (
        # A leader that reads by lease counts on this member remembering it.
        state.config.read_only_option != READ_ONLY_LEASE_BASED
    ):
        state.lead = NO_MEMBER


def _forward(state: RaftState, m: Message) -> None:
    m.to = state.lead
    state.send(m)


def _follow(state: RaftState, m: Message) -> None:
    if m.type == MSG_APP:
        _append(state, m)
    elif m.type == MSG_HEARTBEAT:
        state.log.commit_to(m.commit)
        state.send(Message(MSG_HEARTBEAT_RESP, to=m.from_id, context=m.context))
    else:
        assert m.snapshot is not None, "a snapshot message without one"
        _restore(state, m.snapshot)
        # Installed or not needed: either way this log agrees up to its commit index.
        state.send(Message(MSG_APP_RESP, to=m.from_id, index=state.log.commit_index))


def _append(state: RaftState, m: Message) -> None:
    log = state.log
    if m.index < log.commit_index:
        state.send(Message(MSG_APP_RESP, to=m.from_id, index=log.commit_index))
        return
    last_index = log.append_after(m.index, m.log_term, m.commit, m.entries)
    if last_index is not None:
        state.send(Message(MSG_APP_RESP, to=m.from_id, index=last_index))
        return
    # Tell where the logs may agree at best, so that the leader need not go there one
    # entry at a time (thesis 3.5, the last paragraphs).
    hint_index, hint_term = log.find_conflict_by_term(min(m.index, log.last_index()), m.log_term)
    state.send(
        Message(
            MSG_APP_RESP,
            to=m.from_id,
            index=m.index,
            reject=True,
            reject_hint=hint_index,
            log_term=hint_term,
        )
    )


def _restore(state: RaftState, snapshot: Snapshot) -> None:
    """Install ``snapshot`` unless it is old, not for this member, or already in the log."""
    log = state.log
    if snapshot.index <= log.commit_index:
        return
    conf_state = snapshot.conf_state
    members = conf_state.voters + conf_state.learners + conf_state.voters_outgoing
    if state.id not in members:
        return
    if log.match_term(snapshot.index, snapshot.term):
        log.commit_to(snapshot.index)
        return
    log.restore(snapshot)
    state.membership.switch_to(restored(conf_state), log.last_index())
    state.membership.reset_progress(state.id, log.last_index())
