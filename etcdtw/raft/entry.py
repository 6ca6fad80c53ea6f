"""What Raft persists: log entries, the hard state, configurations and snapshot marks.

Plain classes with the field names of etcd's ``raftpb``; `wire.raftpb` holds the octets.
"""

from __future__ import annotations

from typing import Final

ENTRY_NORMAL: Final = 0
ENTRY_CONF_CHANGE: Final = 1
ENTRY_CONF_CHANGE_V2: Final = 2


class Entry:
    """One log entry.  ``data`` is opaque to Raft; an empty one is a leader's no-op."""

    __slots__ = ("data", "index", "term", "type")

    def __init__(self, term: int, index: int, type: int = ENTRY_NORMAL, data: bytes = b"") -> None:
        self.term = term
        self.index = index
        self.type = type
        self.data = data

    def __repr__(self) -> str:
        return f"Entry({self.term}/{self.index} type={self.type} {len(self.data)} octets)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Entry) and (
            (self.term, self.index, self.type, self.data)
            == (other.term, other.index, other.type, other.data)
        )

    __hash__ = None  # type: ignore[assignment]


class HardState:
    """The three numbers that must survive a crash.  All zero: nothing persisted yet."""

    __slots__ = ("commit", "term", "vote")

    def __init__(self, term: int = 0, vote: int = 0, commit: int = 0) -> None:
        self.term = term
        self.vote = vote
        self.commit = commit

    def __repr__(self) -> str:
        return f"HardState(term={self.term}, vote={self.vote}, commit={self.commit})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HardState) and (
            (self.term, self.vote, self.commit) == (other.term, other.vote, other.commit)
        )

    __hash__ = None  # type: ignore[assignment]


class ConfState:
    """A configuration: who votes, who learns, and the outgoing half while joint."""

    __slots__ = ("auto_leave", "learners", "learners_next", "voters", "voters_outgoing")

    def __init__(
        self,
        voters: tuple[int, ...] = (),
        learners: tuple[int, ...] = (),
        voters_outgoing: tuple[int, ...] = (),
        learners_next: tuple[int, ...] = (),
        auto_leave: bool = False,
    ) -> None:
        self.voters = voters
        self.learners = learners
        self.voters_outgoing = voters_outgoing
        self.learners_next = learners_next
        self.auto_leave = auto_leave

    def _as_tuple(self) -> tuple[object, ...]:
        return (
            self.voters,
            self.learners,
            self.voters_outgoing,
            self.learners_next,
            self.auto_leave,
        )

    def __repr__(self) -> str:
        return f"ConfState{self._as_tuple()}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfState) and self._as_tuple() == other._as_tuple()

    __hash__ = None  # type: ignore[assignment]


class Snapshot:
    """A snapshot's place in the log, and the octets that stand for everything before it.

    ``index == 0`` means "no snapshot".
    """

    __slots__ = ("conf_state", "data", "index", "term")

    def __init__(
        self, index: int = 0, term: int = 0, conf_state: ConfState | None = None, data: bytes = b""
    ) -> None:
        self.index = index
        self.term = term
        self.conf_state = conf_state if conf_state is not None else ConfState()
        self.data = data

    def __repr__(self) -> str:
        return f"Snapshot(index={self.index}, term={self.term}, {self.conf_state})"
