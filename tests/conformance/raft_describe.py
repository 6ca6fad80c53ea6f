"""The text that the golden scripts expect for entries, messages and Readys."""

from __future__ import annotations

import json
from typing import Final

from etcdtw.raft import confchange
from etcdtw.raft.entry import ENTRY_NORMAL, Entry, HardState, Snapshot
from etcdtw.raft.message import (
    MESSAGE_NAMES,
    NO_MEMBER,
    STORAGE_APPEND,
    STORAGE_APPLY,
    Message,
)
from etcdtw.raft.ready import Ready
from etcdtw.raft.state import ROLE_NAMES

ENTRY_NAMES: Final = ("EntryNormal", "EntryConfChange", "EntryConfChangeV2")
CHANGE_LETTERS: Final = {
    confchange.ADD_NODE: "v",
    confchange.ADD_LEARNER_NODE: "l",
    confchange.REMOVE_NODE: "r",
    confchange.UPDATE_NODE: "u",
}


def entry_text(entry: Entry) -> str:
    text = f"{entry.term}/{entry.index} {ENTRY_NAMES[entry.type]}"
    if entry.type == ENTRY_NORMAL:
        return f"{text} {json.dumps(entry.data.decode())}"
    changes = confchange.decode_conf_change(entry).changes
    words = [f"{CHANGE_LETTERS[kind]}{member_id}" for kind, member_id in changes]
    return " ".join([text, *words])


def _target(member_id: int) -> str:
    if member_id == NO_MEMBER:
        return "None"
    return {STORAGE_APPEND: "AppendThread", STORAGE_APPLY: "ApplyThread"}.get(
        member_id, f"{member_id:x}"
    )


def _list(ids: tuple[int, ...]) -> str:
    return "[" + " ".join([str(member_id) for member_id in ids]) + "]"


def snapshot_text(snapshot: Snapshot) -> str:
    state = snapshot.conf_state
    return (
        f"Index:{snapshot.index} Term:{snapshot.term} ConfState:Voters:{_list(state.voters)} "
        f"VotersOutgoing:{_list(state.voters_outgoing)} Learners:{_list(state.learners)} "
        f"LearnersNext:{_list(state.learners_next)} AutoLeave:{str(state.auto_leave).lower()}"
    )


def indented(text: str) -> str:
    return "\n".join(["  " + line for line in text.split("\n")])


def message_text(m: Message, with_responses: bool = True) -> str:
    text = (
        f"{_target(m.from_id)}->{_target(m.to)} {MESSAGE_NAMES[m.type]} "
        f"Term:{m.term} Log:{m.log_term}/{m.index}"
    )
    if m.reject:
        text += f" Rejected (Hint: {m.reject_hint})"
    if m.commit:
        text += f" Commit:{m.commit}"
    if m.vote:
        text += f" Vote:{m.vote}"
    if len(m.entries) == 1:
        text += f" Entries:[{entry_text(m.entries[0])}]"
    elif m.entries:
        text += " Entries:["
        for entry in m.entries:
            text += "\n" + indented(entry_text(entry))
        text += "\n]"
    if m.snapshot is not None:
        text += "\n" + indented("Snapshot: " + snapshot_text(m.snapshot))
    if with_responses and m.responses:
        text += " Responses:["
        for response in m.responses:
            text += "\n" + indented(message_text(response))
        text += "\n]"
    return text


def _hard_state_text(hard_state: HardState) -> str:
    vote = f" Vote:{hard_state.vote}" if hard_state.vote else ""
    return f"HardState Term:{hard_state.term}{vote} Commit:{hard_state.commit}"


def ready_text(ready: Ready) -> str:
    lines: list[str] = []
    if ready.soft_state is not None:
        role = ROLE_NAMES[ready.soft_state.role]
        lines.append(f"Lead:{ready.soft_state.lead} State:{role}")
    if ready.hard_state is not None:
        lines.append(_hard_state_text(ready.hard_state))
    if ready.read_states:
        lines.append(f"ReadStates {ready.read_states}")
    if ready.entries:
        lines += ["Entries:", *[entry_text(entry) for entry in ready.entries]]
    if ready.snapshot is not None:
        lines.append("Snapshot " + snapshot_text(ready.snapshot))
    if ready.committed_entries:
        lines += ["CommittedEntries:", *[entry_text(entry) for entry in ready.committed_entries]]
    if ready.messages:
        lines += ["Messages:", *[message_text(m) for m in ready.messages]]
    if not lines:
        return "<empty Ready>"
    return "\n".join([f"Ready MustSync={str(ready.must_sync).lower()}:", *lines])
