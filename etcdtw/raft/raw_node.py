"""The Raft core as its owner sees it: messages, ticks and proposals in, a `Ready` out.

Knows no disk, network, clock or thread.  Whoever owns it calls these methods one at a time,
carries out each `Ready`, and steps the responses that storage messages carry.
"""

from __future__ import annotations

from etcdtw.raft import leader
from etcdtw.raft import step as raft_step
from etcdtw.raft.confchange import ConfChange, Configuration, encode_conf_change
from etcdtw.raft.config import Config
from etcdtw.raft.entry import ENTRY_NORMAL, ConfState, Entry, HardState, Snapshot
from etcdtw.raft.errors import LocalMessageError, PeerNotFoundError
from etcdtw.raft.message import (
    LOCAL_TYPES,
    MSG_FORGET_LEADER,
    MSG_HUP,
    MSG_PROP,
    MSG_READ_INDEX,
    MSG_SNAP_STATUS,
    MSG_STORAGE_APPEND,
    MSG_STORAGE_APPEND_RESP,
    MSG_STORAGE_APPLY,
    MSG_STORAGE_APPLY_RESP,
    MSG_TRANSFER_LEADER,
    MSG_UNREACHABLE,
    NO_MEMBER,
    RESPONSE_TYPES,
    STORAGE_APPEND,
    STORAGE_APPLY,
    Message,
)
from etcdtw.raft.progress import PROGRESS_NAMES, Progress
from etcdtw.raft.ready import Ready, SoftState
from etcdtw.raft.state import ROLE_LEADER, ROLE_NAMES, RaftState, become_follower


class RawNode:
    """One member.  Built on its storage: a restart goes on where the hard state says."""

    def __init__(self, config: Config) -> None:
        self._state = RaftState(config)
        self._async = config.async_storage_writes
        # What the last Ready said, so that the next one only tells what changed.
        self._told_lead = self._state.lead
        self._told_role = self._state.role
        self._told_term = self._state.term
        self._told_vote = self._state.vote
        self._told_commit = self._state.log.commit_index
        self._steps_on_advance: list[Message] = []

    # -- what it knows ---------------------------------------------------------------

    @property
    def id(self) -> int:
        return self._state.id

    @property
    def term(self) -> int:
        return self._state.term

    @property
    def vote(self) -> int:
        return self._state.vote

    @property
    def lead(self) -> int:
        """The leader of this term, 0 if none is known."""
        return self._state.lead

    @property
    def role(self) -> int:
        return self._state.role

    @property
    def is_leader(self) -> bool:
        return self._state.role == ROLE_LEADER

    @property
    def commit_index(self) -> int:
        return self._state.log.commit_index

    @property
    def applied_index(self) -> int:
        return self._state.log.applied_index

    @property
    def installing_index(self) -> int:
        """The index of a snapshot that is accepted and not yet installed, 0 if there is none."""
        snapshot = self._state.log.unstable.snapshot
        return 0 if snapshot is None else snapshot.index

    @property
    def last_index(self) -> int:
        return self._state.log.last_index()

    def holds(self, index: int, term: int) -> bool:
        """Return whether the log has the entry of ``term`` at ``index``, and so all before it."""
        return self._state.log.match_term(index, term)

    @property
    def transfer_target(self) -> int:
        """Whom the leader is handing over to, 0 if nobody."""
        return self._state.transfer_target

    @property
    def configuration(self) -> Configuration:
        return self._state.membership.config

    def progress(self) -> dict[int, Progress]:
        """Return the leader's view of each member, by ascending id; to be read only."""
        return self._state.membership.progress

    def status_record(self) -> dict[str, object]:
        """Return where this member stands, under etcd-io/raft's names (``Status.MarshalJSON``)."""
        state = self._state
        record: dict[str, object] = {
            "id": f"{self.id:x}",
            "term": self.term,
            "vote": f"{self.vote:x}",
            "commit": self.commit_index,
            "lead": f"{self.lead:x}",
            "raftState": ROLE_NAMES[state.role],
            "applied": self.applied_index,
        }
        progress: dict[str, object] = {}
        for member_id, one in self.progress().items() if self.is_leader else ():
            progress[f"{member_id:x}"] = {
                "match": one.match_index,
                "next": one.next_index,
                "state": PROGRESS_NAMES[one.state],
            }
        record["progress"] = progress
        record["leadtransferee"] = f"{self.transfer_target:x}"
        return record

    def has_committed_in_term(self) -> bool:
        return self._state.has_committed_in_term()

    def set_randomized_election_ticks(self, ticks: int) -> None:
        """Fix the present election timeout; the next change of role draws a new one."""
        self._state.randomized_election_ticks = ticks

    # -- in --------------------------------------------------------------------------

    def tick(self) -> None:
        """Let one tick of the owner's clock pass."""
        raft_step.tick(self._state)

    def campaign(self) -> None:
        """Start an election now, if this member may."""
        raft_step.step(self._state, Message(MSG_HUP, from_id=self._state.id))

    def bar(self, is_barred: bool) -> None:
        """Have this member never campaign, or again as others; it votes all the same."""
        self._state.is_barred = is_barred

    def step(self, m: Message) -> None:
        """Take a message from a peer, or a response from storage.

        Raises `LocalMessageError` for a type that only this member may make,
        `PeerNotFoundError` for a response from a stranger, `ProposalDroppedError`.
        """
        if m.from_id < STORAGE_APPLY:
            if m.type in LOCAL_TYPES:
                raise LocalMessageError
            if m.type in RESPONSE_TYPES and m.from_id not in self._state.membership.progress:
                if m.from_id == self._state.id:
                    return  # our own acknowledgement, overtaken by our removal
                raise PeerNotFoundError
        raft_step.step(self._state, m)

    def propose(self, data: bytes) -> None:
        """Propose one normal entry.  Raises `ProposalDroppedError`."""
        self.propose_batch([data])

    def propose_batch(self, payloads: list[bytes]) -> None:
        """Propose a normal entry for each of ``payloads``, all or none, in order.

        Raises `ProposalDroppedError`; then nothing was appended.
        """
        state = self._state
        if state.role == ROLE_LEADER:
            leader.propose_data(state, payloads)
            return
        entries = [Entry(0, 0, ENTRY_NORMAL, data) for data in payloads]
        raft_step.step(state, Message(MSG_PROP, from_id=state.id, entries=entries))

    def propose_conf_change(self, change: ConfChange) -> None:
        """Propose ``change``.  Raises `ProposalDroppedError`.

        It may come out of the log as an empty normal entry: then it did not fit.
        """
        entry = Entry(0, 0, change.entry_type, encode_conf_change(change))
        raft_step.step(self._state, Message(MSG_PROP, from_id=self._state.id, entries=[entry]))

    def apply_conf_change(self, change: ConfChange) -> ConfState:
        """Put a committed ``change`` in force; call it for each one, when it is applied.

        To cancel one deterministically, pass it on with its member ids set to 0.  Raises
        `ConfChangeError`, changing nothing.
        """
        return raft_step.apply_conf_change(self._state, change)

    def read_index(self, context: bytes) -> None:
        """Ask for a linearizable read; a `ReadState` with ``context`` answers it, or nothing.

        Nothing comes when there is no leader or it changes: ask again with a new context.
        """
        request = [Entry(0, 0, ENTRY_NORMAL, context)]
        raft_step.step(self._state, Message(MSG_READ_INDEX, entries=request))

    def transfer_leader(self, member_id: int) -> None:
        """Ask the leader to hand over to ``member_id``, within one election timeout."""
        raft_step.step(self._state, Message(MSG_TRANSFER_LEADER, from_id=member_id))

    def step_down(self) -> None:
        """Stop leading, in the same term; whoever is elected next leads."""
        state = self._state
        if state.role == ROLE_LEADER:
            become_follower(state, state.term, NO_MEMBER)

    def forget_leader(self) -> None:
        """Drop the known leader, so as to grant a pre-vote at once."""
        raft_step.step(self._state, Message(MSG_FORGET_LEADER))

    def report_unreachable(self, member_id: int) -> None:
        """Say that the last messages to ``member_id`` may not have arrived."""
        raft_step.step(self._state, Message(MSG_UNREACHABLE, from_id=member_id))

    def report_snapshot(self, member_id: int, ok: bool) -> None:
        """Say how sending the snapshot to ``member_id`` ended; a failure must be told."""
        raft_step.step(self._state, Message(MSG_SNAP_STATUS, from_id=member_id, reject=not ok))

    # -- out -------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Return whether `ready` would hold anything."""
        state = self._state
        unstable = state.log.unstable
        return (
            bool(state.messages)
            or bool(state.messages_after_append)
            or unstable.has_next_entries()
            or state.log.has_committed_entries(not self._async)
            or state.log.commit_index != self._told_commit
            or state.term != self._told_term
            or state.vote != self._told_vote
            or state.lead != self._told_lead
            or state.role != self._told_role
            or bool(state.read_states)
            or unstable.next_snapshot() is not None
        )

    def ready(self) -> Ready:
        """Hand out what is to be done.  It counts as accepted: it will not come again."""
        state = self._state
        log = state.log
        soft_state = self._changed_soft_state()
        must_sync = state.term != self._told_term or state.vote != self._told_vote
        hard_state = self._changed_hard_state()
        entries = log.unstable.next_entries()
        snapshot = log.unstable.next_snapshot()
        committed = log.committed_entries(not self._async)
        messages = state.messages
        promises = state.messages_after_append
        state.messages = []
        state.messages_after_append = []
        if self._async:
            if promises or entries or hard_state is not None or snapshot is not None:
                messages.append(self._storage_append(entries, hard_state, snapshot, promises))
            if committed:
                messages.append(self._storage_apply(committed))
        else:
            self._keep_for_advance(messages, promises, snapshot, committed)
        log.unstable.accept_in_progress()
        if committed:
            log.accept_applying(committed, not self._async)
        read_states = state.read_states
        state.read_states = []
        return Ready(
            soft_state=soft_state,
            hard_state=hard_state,
            read_states=read_states,
            entries=entries,
            snapshot=snapshot,
            committed_entries=committed,
            messages=messages,
            must_sync=must_sync or bool(entries),
        )

    def advance(self) -> None:
        """Say that the last `ready` is done.  Only without asynchronous storage writes."""
        assert not self._async, "asynchronous writes answer through messages"
        steps = self._steps_on_advance
        self._steps_on_advance = []
        for m in steps:
            raft_step.step(self._state, m)

    def _changed_soft_state(self) -> SoftState | None:
        state = self._state
        if state.lead == self._told_lead and state.role == self._told_role:
            return None
        self._told_lead = state.lead
        self._told_role = state.role
        return SoftState(state.lead, state.role)

    def _changed_hard_state(self) -> HardState | None:
        state = self._state
        commit_index = state.log.commit_index
        if (
            commit_index == self._told_commit
            and state.term == self._told_term
            and state.vote == self._told_vote
        ):
            return None
        self._told_commit = commit_index
        self._told_term = state.term
        self._told_vote = state.vote
        return HardState(state.term, state.vote, commit_index)

    def _storage_append(
        self,
        entries: list[Entry],
        hard_state: HardState | None,
        snapshot: Snapshot | None,
        promises: list[Message],
    ) -> Message:
        m = Message(MSG_STORAGE_APPEND, to=STORAGE_APPEND, from_id=self._state.id, entries=entries)
        if hard_state is not None:
            m.term = hard_state.term
            m.vote = hard_state.vote
            m.commit = hard_state.commit
        m.snapshot = snapshot
        m.responses = promises
        if self._needs_append_response(snapshot):
            m.responses.append(self._storage_append_response(snapshot))
        return m

    def _needs_append_response(self, snapshot: Snapshot | None) -> bool:
        return snapshot is not None or self._state.log.unstable.has_unstable_entries()

    def _storage_append_response(self, snapshot: Snapshot | None) -> Message:
        """Return what tells the core that a write is durable.

        It names the end of the log in this term, even if that was handed out earlier: after
        a change of term the answers to earlier writes count for nothing (ABA), and one
        later write must be able to acknowledge them all.
        """
        state = self._state
        m = Message(MSG_STORAGE_APPEND_RESP, to=state.id, from_id=STORAGE_APPEND, term=state.term)
        if state.log.unstable.has_unstable_entries():
            m.index = state.log.last_index()
            m.log_term = state.log.last_term()
        m.snapshot = snapshot
        return m

    def _storage_apply(self, committed: list[Entry]) -> Message:
        return Message(
            MSG_STORAGE_APPLY,
            to=STORAGE_APPLY,
            from_id=self._state.id,
            entries=committed,
            responses=[self._storage_apply_response(committed)],
        )

    def _storage_apply_response(self, committed: list[Entry]) -> Message:
        return Message(
            MSG_STORAGE_APPLY_RESP, to=self._state.id, from_id=STORAGE_APPLY, entries=committed
        )

    def _keep_for_advance(
        self,
        messages: list[Message],
        promises: list[Message],
        snapshot: Snapshot | None,
        committed: list[Entry],
    ) -> None:
        assert not self._steps_on_advance, "the last Ready was not advanced"
        for m in promises:
            (self._steps_on_advance if m.to == self._state.id else messages).append(m)
        if self._needs_append_response(snapshot):
            self._steps_on_advance.append(self._storage_append_response(snapshot))
        if committed:
            self._steps_on_advance.append(self._storage_apply_response(committed))
