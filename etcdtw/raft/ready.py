"""What the core hands out to be done: written, sent, applied, told to readers."""

from __future__ import annotations

from etcdtw.raft.entry import Entry, HardState, Snapshot
from etcdtw.raft.message import Message


class SoftState:
    """What a member knows but need not remember: the leader and its own role."""

    __slots__ = ("lead", "role")

    def __init__(self, lead: int, role: int) -> None:
        self.lead = lead
        self.role = role

    def __repr__(self) -> str:
        return f"SoftState(lead={self.lead:x}, role={self.role})"


class ReadState:
    """A confirmed read: serve it once the state machine has applied ``index``."""

    __slots__ = ("context", "index")

    def __init__(self, index: int, context: bytes) -> None:
        self.index = index
        self.context = context

    def __repr__(self) -> str:
        return f"ReadState(index={self.index}, {self.context!r})"


class Ready:
    """One batch of work.  None or an empty list: nothing of that kind.

    With asynchronous storage writes everything to do is in ``messages``: those to peers may
    leave at once, in order; the one to `STORAGE_APPEND` holds what is to be written and, in
    ``responses``, what may leave (or be stepped) once it is durable; the one to
    `STORAGE_APPLY` holds what is to be applied, with the response to step afterwards.
    Messages to the same target are done in order.  An append without responses may wait.

    Without them: write ``hard_state``, ``entries`` and ``snapshot`` (flushed if
    ``must_sync``), send ``messages``, apply ``committed_entries``, then call ``advance``.
    """

    __slots__ = (
        "committed_entries",
        "entries",
        "hard_state",
        "messages",
        "must_sync",
        "read_states",
        "snapshot",
        "soft_state",
    )

    def __init__(
        self,
        *,
        soft_state: SoftState | None,
        hard_state: HardState | None,
        read_states: list[ReadState],
        entries: list[Entry],
        snapshot: Snapshot | None,
        committed_entries: list[Entry],
        messages: list[Message],
        must_sync: bool,
    ) -> None:
        self.soft_state = soft_state
        self.hard_state = hard_state
        self.read_states = read_states
        self.entries = entries
        self.snapshot = snapshot
        self.committed_entries = committed_entries
        self.messages = messages
        self.must_sync = must_sync
