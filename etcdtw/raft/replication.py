"""The leader's side of AppendEntries: what goes to whom, and what is thereby committed.

Source: Ongaro's thesis, sections 3.5, 3.6 and 10.2.1.  Members are visited in ascending
order of id, so that runs repeat exactly.
"""

from __future__ import annotations

from etcdtw.raft.config import READ_ONLY_LEASE_BASED
from etcdtw.raft.entry import ENTRY_NORMAL, Entry
from etcdtw.raft.errors import ProposalDroppedError, SnapshotUnavailableError
from etcdtw.raft.log import NO_LIMIT, payload_size
from etcdtw.raft.message import (
    MSG_APP,
    MSG_APP_RESP,
    MSG_HEARTBEAT,
    MSG_READ_INDEX_RESP,
    MSG_SNAP,
    NO_MEMBER,
    Message,
)
from etcdtw.raft.progress import PROGRESS_REPLICATE, Progress
from etcdtw.raft.ready import ReadState
from etcdtw.raft.state import RaftState
from etcdtw.raft.storage import CompactedError, UnavailableError


def append_entries(state: RaftState, entries: list[Entry]) -> None:
    """Append proposed ``entries``, which get their place in the log here.

    Raises `ProposalDroppedError` when too much is uncommitted already.
    """
    if state.config.max_uncommitted_size < NO_LIMIT and not state.grow_uncommitted(
        payload_size(entries)
    ):
        raise ProposalDroppedError
    index = state.log.last_index()
    term = state.term
    for entry in entries:
        index += 1
        entry.index = index
        entry.term = term
    state.log.append(entries)
    # One's own acknowledgement, like any other, counts only once the entries are durable.
    state.send(Message(MSG_APP_RESP, to=state.id, index=index))


def append_data(state: RaftState, payloads: list[bytes]) -> None:
    """Append one normal entry for each of ``payloads``; as `append_entries`, but built once."""
    index = state.log.last_index()
    term = state.term
    entries = [Entry(term, i, ENTRY_NORMAL, data) for i, data in enumerate(payloads, index + 1)]
    if state.config.max_uncommitted_size < NO_LIMIT and not state.grow_uncommitted(
        payload_size(entries)
    ):
        raise ProposalDroppedError
    state.log.append(entries)
    state.send(Message(MSG_APP_RESP, to=state.id, index=index + len(entries)))


def maybe_commit(state: RaftState) -> bool:
    """Commit what a quorum has, if it is of this term (thesis 3.6.2)."""
    return state.log.maybe_commit(state.membership.committed_index(), state.term)


def broadcast_append(state: RaftState) -> None:
    """Send everyone what is missing there, or just the commit index."""
    progress = state.membership.progress
    if len(progress) == 1 and state.id in progress:
        return
    for member_id in progress:
        if member_id != state.id:
            send_append(state, member_id)


def send_append(state: RaftState, to: int) -> None:
    """Send what ``to`` is missing, an empty append if that is nothing; unless it is paused."""
    maybe_send_append(state, to, send_if_empty=True)


def maybe_send_append(state: RaftState, to: int, send_if_empty: bool) -> bool:
    """Send the next append to ``to``; a snapshot if the log no longer reaches back so far.

    Returns whether anything was sent.
    """
    progress = state.membership.progress[to]
    if progress.is_paused():
        return False
    previous_index = progress.next_index - 1
    entries: list[Entry] = []
    try:
        previous_term = state.log.term(previous_index)
        # Into a full window goes an empty append: lost ones would never be noticed else.
        if progress.state != PROGRESS_REPLICATE or not progress.inflights.is_full():
            entries = state.log.entries(progress.next_index, state.config.max_size_per_message)
    except (CompactedError, UnavailableError):
        return _maybe_send_snapshot(state, to, progress)
    if not entries and not send_if_empty:
        return False
    state.send(
        Message(
            MSG_APP,
            to=to,
            index=previous_index,
            log_term=previous_term,
            entries=entries,
            commit=state.log.commit_index,
        )
    )
    progress.entries_sent(len(entries), payload_size(entries))
    progress.sent_commit = state.log.commit_index
    return True


def _maybe_send_snapshot(state: RaftState, to: int, progress: Progress) -> bool:
    if not progress.recent_active:
        return False  # it would be made for somebody who is not there
    try:
        snapshot = state.log.snapshot()
    except SnapshotUnavailableError:
        return False
    assert snapshot.index > 0, "the log was compacted without a snapshot"
    progress.become_snapshot(snapshot.index)
    state.send(Message(MSG_SNAP, to=to, snapshot=snapshot))
    return True


def broadcast_heartbeat(state: RaftState) -> None:
    """Send everyone a heartbeat, asking at once to confirm the reads that wait."""
    context = state.read_only.heartbeat_context()
    for member_id, progress in state.membership.progress.items():
        if member_id != state.id:
            # Never a commit index that the follower may not have: it would commit
            # whatever stands in its log there.
            commit_index = min(progress.match_index, state.log.commit_index)
            state.send(Message(MSG_HEARTBEAT, to=member_id, commit=commit_index, context=context))


def begin_read(state: RaftState, from_id: int, context: bytes) -> None:
    """Start a read at the present commit index (thesis 6.4); the leader has one of its term."""
    commit_index = state.log.commit_index
    if state.membership.is_singleton() or state.config.read_only_option == READ_ONLY_LEASE_BASED:
        answer_read(state, from_id, context, commit_index)
        return
    state.read_only.add(state.id, from_id, context, commit_index)
    broadcast_heartbeat(state)


def answer_read(state: RaftState, from_id: int, context: bytes, index: int) -> None:
    """Tell whoever asked, this member or a follower, that the read may be served at ``index``."""
    if from_id in (NO_MEMBER, state.id):
        state.read_states.append(ReadState(index, context))
    else:
        request = [Entry(0, 0, ENTRY_NORMAL, context)]
        state.send(Message(MSG_READ_INDEX_RESP, to=from_id, index=index, entries=request))


def release_reads(state: RaftState) -> None:
    """Answer the reads that a quorum has confirmed by now."""
    number = state.membership.acknowledged(state.read_only.acks)
    for read in state.read_only.release(number):
        answer_read(state, read.from_id, read.context, read.index)


def begin_waiting_reads(state: RaftState) -> None:
    """Start the reads that waited for the first commit of this term."""
    if state.reads_before_commit and state.has_committed_in_term():
        waiting = state.reads_before_commit
        state.reads_before_commit = []
        for m in waiting:
            begin_read(state, m.from_id, m.entries[0].data)
