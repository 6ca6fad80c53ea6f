"""Campaigns and votes: starting one, answering one, counting one.

Source: Ongaro's thesis, sections 3.4, 3.6.1, 4.2.3 (voters with a live leader refuse) and
9.6 (pre-vote).
"""

from __future__ import annotations

from typing import Final

from etcdtw.raft import leader, replication
from etcdtw.raft.entry import ENTRY_NORMAL
from etcdtw.raft.log import RaftLog
from etcdtw.raft.message import (
    CONTEXT_TRANSFER,
    MSG_PRE_VOTE,
    MSG_PRE_VOTE_RESP,
    MSG_VOTE,
    MSG_VOTE_RESP,
    NO_MEMBER,
    Message,
)
from etcdtw.raft.quorum import VOTE_LOST, VOTE_WON
from etcdtw.raft.state import (
    ROLE_LEADER,
    ROLE_PRE_CANDIDATE,
    RaftState,
    become_candidate,
    become_follower,
    become_pre_candidate,
)

SCAN_SIZE: Final = 1024 * 1024  # octets of log looked at in one step


def start_election(state: RaftState, transfer: bool = False) -> None:
    """Campaign, if this member may; a transfer goes without pre-vote and past leases."""
    if state.role == ROLE_LEADER or not state.is_promotable():
        return
    if has_unapplied_conf_change(state.log):
        return  # it would count votes under a configuration that is no longer the one
    if state.config.pre_vote and not transfer:
        _campaign_pre_vote(state)
    else:
        _campaign(state, CONTEXT_TRANSFER if transfer else b"")


def has_unapplied_conf_change(log: RaftLog) -> bool:
    """Return whether a conf change is committed and not yet applied."""
    low = log.applied_index + 1
    while low <= log.commit_index:
        entries = log.slice(low, log.commit_index + 1, SCAN_SIZE)
        for entry in entries:
            if entry.type != ENTRY_NORMAL:
                return True
        low += len(entries)
    return False


def _campaign_pre_vote(state: RaftState) -> None:
    become_pre_candidate(state)
    _request_votes(state, MSG_PRE_VOTE, MSG_PRE_VOTE_RESP, state.term + 1, b"")


def _campaign(state: RaftState, context: bytes) -> None:
    become_candidate(state)
    _request_votes(state, MSG_VOTE, MSG_VOTE_RESP, state.term, context)


def _request_votes(
    state: RaftState, request: int, response: int, term: int, context: bytes
) -> None:
    last_index = state.log.last_index()
    last_term = state.log.last_term()
    for member_id in state.membership.voters():
        if member_id == state.id:
            # One's own vote counts once it is durable, like everybody's.
            state.send(Message(response, to=member_id, term=term))
        else:
            state.send(
                Message(
                    request,
                    to=member_id,
                    term=term,
                    index=last_index,
                    log_term=last_term,
                    context=context,
                )
            )


def is_disturbing(state: RaftState, m: Message) -> bool:
    """Return whether the campaign ``m`` is to be ignored, since a leader was heard lately."""
    return (
        state.config.check_quorum
        and state.lead != NO_MEMBER
        and state.election_elapsed < state.config.election_ticks
        and m.context != CONTEXT_TRANSFER
    )


def answer_vote_request(state: RaftState, m: Message) -> None:
    """Grant or refuse a vote or pre-vote in a term not older than ours.

    A learner answers too: the candidate may know of a promotion that it does not.
    """
    may_vote = (
        state.vote == m.from_id
        or (state.vote == NO_MEMBER and state.lead == NO_MEMBER)
        or (m.type == MSG_PRE_VOTE and m.term > state.term)
    )
    response = MSG_VOTE_RESP if m.type == MSG_VOTE else MSG_PRE_VOTE_RESP
    if may_vote and state.log.is_up_to_date(m.index, m.log_term):
        # A granted pre-vote speaks of the term that was asked for; ours is older.
        state.send(Message(response, to=m.from_id, term=m.term))
        if m.type == MSG_VOTE:
            state.election_elapsed = 0
            state.vote = m.from_id
    else:
        state.send(Message(response, to=m.from_id, term=state.term, reject=True))


def count_vote(state: RaftState, m: Message) -> None:
    """Take a response; answers to the other kind of campaign are stale and ignored."""
    pre_vote = state.role == ROLE_PRE_CANDIDATE
    if m.type != (MSG_PRE_VOTE_RESP if pre_vote else MSG_VOTE_RESP):
        return
    result = state.membership.record_vote(m.from_id, not m.reject)
    if result == VOTE_WON:
        if pre_vote:
            _campaign(state, b"")
        else:
            leader.lead(state)
            replication.broadcast_append(state)
    elif result == VOTE_LOST:
        # At our own term: a refused pre-vote has not raised it.
        become_follower(state, state.term, NO_MEMBER)
