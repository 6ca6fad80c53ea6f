"""Changes of membership: what a proposal asks for, and what configuration comes out.

A configuration is immutable; each function here returns a new one or raises
`ConfChangeError`.  Progress follows the configuration, see `membership`.

Source: Ongaro's thesis, sections 4.1 to 4.3; messages of etcd's ``raftpb.ConfChangeV2``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from google.protobuf.message import DecodeError

from etcdtw.raft.entry import (
    ENTRY_CONF_CHANGE,
    ENTRY_CONF_CHANGE_V2,
    ConfState,
    Entry,
    HardState,
)
from etcdtw.raft.errors import ConfChangeError
from etcdtw.wire import raftpb

ADD_NODE: Final = 0
REMOVE_NODE: Final = 1
UPDATE_NODE: Final = 2
ADD_LEARNER_NODE: Final = 3

TRANSITION_AUTO: Final = 0  # joint only if more than one change; leaves by itself
TRANSITION_JOINT_IMPLICIT: Final = 1  # joint; leaves by itself
TRANSITION_JOINT_EXPLICIT: Final = 2  # joint; leaves when an empty change is proposed


@dataclass(frozen=True)
class ConfChange:
    """What one proposal asks for: ``changes`` are ``(type, member id)``, applied together.

    An empty one (no changes, automatic transition) asks to leave the joint configuration.
    ``entry_type`` says which of etcd's two encodings it travels in.
    """

    changes: tuple[tuple[int, int], ...] = ()
    transition: int = TRANSITION_AUTO
    context: bytes = b""
    entry_type: int = ENTRY_CONF_CHANGE_V2
    id: int = 0  # v1 only: names the proposal to its proposer

    def leaves_joint(self) -> bool:
        return not self.changes and self.transition == TRANSITION_AUTO

    def enters_joint(self) -> bool:
        return self.transition != TRANSITION_AUTO or len(self.changes) > 1

    def auto_leaves(self) -> bool:
        return self.transition != TRANSITION_JOINT_EXPLICIT


LEAVE_JOINT: Final = ConfChange()


def encode_conf_change(change: ConfChange) -> bytes:
    """Return the entry data of ``change``: ``ConfChange`` or ``ConfChangeV2`` octets."""
    if change.entry_type == ENTRY_CONF_CHANGE:
        assert len(change.changes) == 1, "etcd's first encoding carries exactly one change"
        change_type, member_id = change.changes[0]
        v1 = raftpb.ConfChange(id=change.id, type=change_type, node_id=member_id)
        if change.context:
            v1.context = change.context
        return v1.SerializeToString()
    message = raftpb.ConfChangeV2()
    if change.transition != TRANSITION_AUTO:
        message.transition = change.transition
    for change_type, member_id in change.changes:
        message.changes.add(type=change_type, node_id=member_id)
    if change.context:
        message.context = change.context
    return message.SerializeToString()


def decode_conf_change(entry: Entry) -> ConfChange:
    """Return the change in ``entry``, which must be of one of the two conf change types.

    Raises `ConfChangeError` when its octets are not a change.
    """
    assert entry.type in (ENTRY_CONF_CHANGE, ENTRY_CONF_CHANGE_V2), "not a conf change entry"
    try:
        return _decode(entry)
    except DecodeError as error:
        raise ConfChangeError(f"malformed conf change at index {entry.index}") from error


def _decode(entry: Entry) -> ConfChange:
    if entry.type == ENTRY_CONF_CHANGE:
        v1 = raftpb.ConfChange.FromString(entry.data)
        return ConfChange(
            ((int(v1.type), v1.node_id),), TRANSITION_AUTO, v1.context, ENTRY_CONF_CHANGE, v1.id
        )
    v2 = raftpb.ConfChangeV2.FromString(entry.data)
    changes = tuple([(int(single.type), single.node_id) for single in v2.changes])
    return ConfChange(changes, int(v2.transition), v2.context)


def bootstrap_log(members: Iterable[tuple[int, bytes]]) -> tuple[HardState, list[Entry]]:
    """Return the log that a new cluster begins with: one committed conf change a member.

    ``members`` are ``(member id, context)``; every member of the cluster must be started
    with the same ones in the same order.  They count once they are applied.
    """
    entries: list[Entry] = []
    for index, (member_id, context) in enumerate(members, 1):
        change = ConfChange(((ADD_NODE, member_id),), 0, context, ENTRY_CONF_CHANGE)
        entries.append(Entry(1, index, ENTRY_CONF_CHANGE, encode_conf_change(change)))
    return HardState(term=1, vote=0, commit=len(entries)), entries


@dataclass(frozen=True)
class Configuration:
    """Who votes and who learns.  Joint while ``outgoing`` is not empty.

    ``learners_next`` are demoted voters that still vote in ``outgoing``; they become
    learners when the joint configuration is left.
    """

    voters: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()
    auto_leave: bool = False

    def is_joint(self) -> bool:
        return bool(self.outgoing)

    def members(self) -> list[int]:
        """Return every id that has a place in it, ascending."""
        return sorted(self.voters | self.outgoing | self.learners)

    def conf_state(self) -> ConfState:
        return ConfState(
            tuple(sorted(self.voters)),
            tuple(sorted(self.learners)),
            tuple(sorted(self.outgoing)),
            tuple(sorted(self.learners_next)),
            self.auto_leave,
        )

    def __str__(self) -> str:
        text = f"voters={_ids(self.voters)}"
        if self.outgoing:
            text += f"&&{_ids(self.outgoing)}"
        if self.learners:
            text += f" learners={_ids(self.learners)}"
        if self.learners_next:
            text += f" learners_next={_ids(self.learners_next)}"
        return text + (" autoleave" if self.auto_leave else "")


def _ids(members: frozenset[int]) -> str:
    return f"({' '.join([str(member_id) for member_id in sorted(members)])})"


def restored(conf_state: ConfState) -> Configuration:
    """Return the configuration that ``conf_state`` describes."""
    return Configuration(
        frozenset(conf_state.voters),
        frozenset(conf_state.voters_outgoing),
        frozenset(conf_state.learners),
        frozenset(conf_state.learners_next),
        conf_state.auto_leave,
    )


def changed(config: Configuration, change: ConfChange) -> Configuration:
    """Return ``config`` after ``change``, by whichever of the three ways it asks for."""
    if change.leaves_joint():
        return leave_joint(config)
    if change.enters_joint():
        return enter_joint(config, change.changes, change.auto_leaves())
    return simple(config, change.changes)


def simple(config: Configuration, changes: Iterable[tuple[int, int]]) -> Configuration:
    """Apply changes that move at most one voter, so that old and new majorities overlap."""
    if config.is_joint():
        raise ConfChangeError("can't apply simple config change in joint config")
    result = _apply(config, changes)
    if len(config.voters ^ result.voters) > 1:
        raise ConfChangeError("more than one voter changed without entering joint config")
    return result


def enter_joint(
    config: Configuration, changes: Iterable[tuple[int, int]], auto_leave: bool
) -> Configuration:
    """Apply any changes, the present voters staying on as the outgoing half."""
    if config.is_joint():
        raise ConfChangeError("config is already joint")
    if not config.voters:
        raise ConfChangeError("can't make a zero-voter config joint")
    joint = replace(config, outgoing=config.voters, auto_leave=auto_leave)
    return _apply(joint, changes)


def leave_joint(config: Configuration) -> Configuration:
    """Drop the outgoing half; demoted voters become learners."""
    if not config.is_joint():
        raise ConfChangeError("can't leave a non-joint config")
    return Configuration(voters=config.voters, learners=config.learners | config.learners_next)


def _apply(config: Configuration, changes: Iterable[tuple[int, int]]) -> Configuration:
    voters = set(config.voters)
    learners = set(config.learners)
    learners_next = set(config.learners_next)
    for change_type, member_id in changes:
        # Id 0 is how etcd cancels a change that is already in the log.
        if member_id == 0 or change_type == UPDATE_NODE:
            continue
        voters.discard(member_id)
        learners.discard(member_id)
        learners_next.discard(member_id)
        if change_type == ADD_NODE:
            voters.add(member_id)
        elif change_type == ADD_LEARNER_NODE:
            # One who still votes in the outgoing half cannot be a learner yet.
            (learners_next if member_id in config.outgoing else learners).add(member_id)
        elif change_type != REMOVE_NODE:
            raise ConfChangeError(f"unexpected conf type {change_type}")
    if not voters:
        raise ConfChangeError("removed all voters")
    return replace(
        config,
        voters=frozenset(voters),
        learners=frozenset(learners),
        learners_next=frozenset(learners_next),
    )
