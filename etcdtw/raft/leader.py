"""What a leader does with a message.

Source: Ongaro's thesis, sections 3.5, 3.10 (transfer), 6.2 (quorum check), 6.4 (reads).
"""

from __future__ import annotations

from etcdtw.raft import replication
from etcdtw.raft.confchange import LEAVE_JOINT, decode_conf_change
from etcdtw.raft.entry import ENTRY_NORMAL, Entry
from etcdtw.raft.errors import ConfChangeError, ProposalDroppedError
from etcdtw.raft.message import (
    MSG_APP_RESP,
    MSG_BEAT,
    MSG_CHECK_QUORUM,
    MSG_HEARTBEAT_RESP,
    MSG_PROP,
    MSG_READ_INDEX,
    MSG_SNAP_STATUS,
    MSG_TIMEOUT_NOW,
    MSG_TRANSFER_LEADER,
    MSG_UNREACHABLE,
    NO_MEMBER,
    Message,
)
from etcdtw.raft.progress import (
    PROGRESS_PROBE,
    PROGRESS_REPLICATE,
    PROGRESS_SNAPSHOT,
    Progress,
)
from etcdtw.raft.read_only import PENDING_READS_MAX
from etcdtw.raft.state import ROLE_LEADER, RaftState, become_follower, become_leader


def lead(state: RaftState) -> None:
    """Become leader and begin the term with an empty entry, to commit what came before."""
    become_leader(state)
    replication.append_data(state, [b""])


def step_leader(state: RaftState, m: Message) -> None:
    """Take a proposal, a read, a tick's duty, or news of a follower."""
    if m.type == MSG_PROP:
        propose(state, m.entries)
    elif m.type == MSG_BEAT:
        replication.broadcast_heartbeat(state)
    elif m.type == MSG_CHECK_QUORUM:
        _check_quorum(state)
    elif m.type == MSG_READ_INDEX:
        _read_index(state, m)
    else:
        progress = state.membership.progress.get(m.from_id)
        if progress is not None:
            _step_about(state, m, progress)


def _step_about(state: RaftState, m: Message, progress: Progress) -> None:
    """Take a message that tells something about the member ``m.from_id``."""
    if m.type == MSG_APP_RESP:
        progress.recent_active = True
        if m.reject:
            _append_rejected(state, m, progress)
        else:
            _append_acknowledged(state, m, progress)
    elif m.type == MSG_HEARTBEAT_RESP:
        _heartbeat_answered(state, m, progress)
    elif m.type == MSG_SNAP_STATUS:
        _snapshot_reported(m, progress)
    elif m.type == MSG_UNREACHABLE:
        # Appends in flight are likely lost: find out where it stands before going on.
        if progress.state == PROGRESS_REPLICATE:
            progress.become_probe()
    elif m.type == MSG_TRANSFER_LEADER:
        _transfer_leader(state, m, progress)


def _require_leading(state: RaftState) -> None:
    if state.id not in state.membership.progress or state.transfer_target != NO_MEMBER:
        # Removed by a change that is applied, or handing over: no new entries now.
        raise ProposalDroppedError


def propose(state: RaftState, entries: list[Entry]) -> None:
    """Append and replicate ``entries``.  Raises `ProposalDroppedError`.

    A conf change that does not fit the present configuration becomes an empty entry: its
    proposer sees it go by and finds nothing changed.
    """
    assert entries, "an empty proposal"
    _require_leading(state)
    entries = list(entries)  # a refused proposal must leave the caller's list alone
    pending_conf_index = state.pending_conf_index
    for position, entry in enumerate(entries):
        if entry.type == ENTRY_NORMAL:
            continue
        if _may_change(state, entry):
            state.pending_conf_index = state.log.last_index() + position + 1
        else:
            entries[position] = Entry(0, 0)
    try:
        replication.append_entries(state, entries)
    except ProposalDroppedError:
        state.pending_conf_index = pending_conf_index
        raise
    replication.broadcast_append(state)


def propose_data(state: RaftState, payloads: list[bytes]) -> None:
    """Append and replicate one normal entry for each of ``payloads``."""
    _require_leading(state)
    replication.append_data(state, payloads)
    replication.broadcast_append(state)


def _may_change(state: RaftState, entry: Entry) -> bool:
    if state.config.disable_conf_change_validation:
        return True
    if state.pending_conf_index > state.log.applied_index:
        return False  # another change may still be on its way
    try:
        leaves = not decode_conf_change(entry).changes
    except ConfChangeError:
        return False
    return leaves == state.membership.config.is_joint()


def leave_joint_when_due(state: RaftState) -> None:
    """Propose to leave a joint configuration that does so by itself, once it is applied.

    The entry carries no data, so no size limit can refuse it.  A transfer of leadership
    can: then it is tried again at the next apply.
    """
    if (
        state.role == ROLE_LEADER
        and state.membership.config.auto_leave
        and state.log.applied_index >= state.pending_conf_index
    ):
        try:
            propose(state, [Entry(0, 0, LEAVE_JOINT.entry_type)])
        except ProposalDroppedError:
            return


def _check_quorum(state: RaftState) -> None:
    if not state.membership.quorum_is_active():
        become_follower(state, state.term, NO_MEMBER)
        return
    for member_id, progress in state.membership.progress.items():
        if member_id != state.id:
            progress.recent_active = False


def _read_index(state: RaftState, m: Message) -> None:
    # Before its first commit a leader does not know what its predecessors committed;
    # serving then is a stale read, with one voter as well as with many.
    if len(state.read_only) + len(state.reads_before_commit) >= PENDING_READS_MAX:
        return
    if state.has_committed_in_term():
        replication.begin_read(state, m.from_id, m.entries[0].data)
    else:
        state.reads_before_commit.append(m)


def _append_rejected(state: RaftState, m: Message, progress: Progress) -> None:
    """Probe further back, past everything that cannot agree (at most one probe a term)."""
    hint_index = m.reject_hint
    if m.log_term > 0:
        hint_index, _ = state.log.find_conflict_by_term(m.reject_hint, m.log_term)
    if progress.reject(m.index, hint_index):
        if progress.state == PROGRESS_REPLICATE:
            progress.become_probe()
        replication.send_append(state, m.from_id)


def _append_acknowledged(state: RaftState, m: Message, progress: Progress) -> None:
    # A probe answered at the match index is no news, but it ends the probing.
    probed = progress.match_index == m.index and progress.state == PROGRESS_PROBE
    if not progress.acknowledge(m.index) and not probed:
        return
    if progress.state == PROGRESS_PROBE:
        progress.become_replicate()
    elif progress.state == PROGRESS_SNAPSHOT:
        # Whichever snapshot brought it here: the log can take it on from this point.
        if progress.match_index + 1 >= state.log.first_index():
            progress.become_replicate()
    else:
        progress.inflights.free_to(m.index)
    is_peer = m.from_id != state.id
    if replication.maybe_commit(state):
        replication.begin_waiting_reads(state)
        replication.broadcast_append(state)
    elif is_peer and progress.can_bump_commit(state.log.commit_index):
        replication.send_append(state, m.from_id)
    if not is_peer:
        return
    # The window has room again; bounded, since each append takes a place in it.
    while replication.maybe_send_append(state, m.from_id, send_if_empty=False):
        pass
    if m.from_id == state.transfer_target and progress.match_index == state.log.last_index():
        state.send(Message(MSG_TIMEOUT_NOW, to=m.from_id))


def _heartbeat_answered(state: RaftState, m: Message, progress: Progress) -> None:
    progress.recent_active = True
    progress.flow_paused = False
    # One still probed is sent to even if it lacks nothing: only an answer to an append
    # brings it back to replicating.
    if progress.match_index < state.log.last_index() or progress.state == PROGRESS_PROBE:
        replication.send_append(state, m.from_id)
    if m.context and len(state.read_only) > 0:
        state.read_only.acknowledge(m.from_id, m.context)
        replication.release_reads(state)


def _snapshot_reported(m: Message, progress: Progress) -> None:
    if progress.state != PROGRESS_SNAPSHOT:
        return
    if m.reject:
        progress.pending_snapshot = 0  # it did not arrive: probe from the match index
    progress.become_probe()
    # Arrived: its own acknowledgement comes soon.  Lost: not again before a heartbeat.
    progress.flow_paused = True


def _transfer_leader(state: RaftState, m: Message, progress: Progress) -> None:
    if progress.is_learner or m.from_id in (state.transfer_target, state.id):
        return
    # Another transfer under way gives way to this one, which has one election timeout.
    state.transfer_target = m.from_id
    state.election_elapsed = 0
    if progress.match_index == state.log.last_index():
        state.send(Message(MSG_TIMEOUT_NOW, to=m.from_id))
    else:
        replication.send_append(state, m.from_id)
