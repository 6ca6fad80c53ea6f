"""Adapters for the scripts about configurations alone and about quorums alone."""

from __future__ import annotations

from typing import Final

from etcdtw.raft import confchange, quorum
from etcdtw.raft.errors import ConfChangeError
from etcdtw.raft.membership import Membership
from tests.support.datadriven import Directive

CHANGE_TYPES: Final = {
    "v": confchange.ADD_NODE,
    "l": confchange.ADD_LEARNER_NODE,
    "r": confchange.REMOVE_NODE,
    "u": confchange.UPDATE_NODE,
}


def parse_changes(text: str) -> tuple[tuple[int, int], ...]:
    """Return ``v1 l2 r3 u4`` as ``(type, member id)`` pairs."""
    return tuple([(CHANGE_TYPES[word[0]], int(word[1:])) for word in text.split()])


class ConfChangeScript:
    """One configuration, changed step by step; each step moves the log's end by one."""

    def __init__(self) -> None:
        self._membership = Membership(10, 0)
        self._last_index = 0

    def run(self, directive: Directive) -> str:
        try:
            config = self._changed(directive)
        except ConfChangeError as error:
            self._last_index += 1
            return str(error)
        self._membership.switch_to(config, self._last_index)
        self._last_index += 1
        lines = [f"{member}: {one!r}" for member, one in self._membership.progress.items()]
        return "\n".join([str(config), *lines])

    def _changed(self, directive: Directive) -> confchange.Configuration:
        config = self._membership.config
        changes = parse_changes(directive.input)
        if directive.command == "simple":
            return confchange.simple(config, changes)
        if directive.command == "enter-joint":
            auto_leave = directive.value("autoleave", "false") == "true"
            return confchange.enter_joint(config, changes, auto_leave)
        assert directive.command == "leave-joint"
        return confchange.leave_joint(config)


def run_quorum_directive(directive: Directive) -> str:
    """Decide one question, checking on the way that related questions agree with it."""
    voters = [int(word) for word in directive.keys.get("cfg", [])]
    words = directive.keys.get("cfgj", [])
    outgoing = [] if words == ["zero"] else [int(word) for word in words]
    members = list(dict.fromkeys(voters + outgoing))
    answers = directive.keys.get("idx" if directive.command == "committed" else "votes", [])
    assert len(members) == len(answers) or directive.command == "vote"
    known = {member: word for member, word in zip(members, answers, strict=False) if word != "_"}
    if directive.command == "vote":
        votes = {member: word == "y" for member, word in known.items()}
        return _vote(frozenset(voters), frozenset(outgoing), votes)
    indexes = {member: int(word) for member, word in known.items()}
    return _committed(frozenset(voters), frozenset(outgoing), indexes)


def _vote(voters: frozenset[int], outgoing: frozenset[int], votes: dict[int, bool]) -> str:
    result = quorum.joint_vote_result(voters, outgoing, votes)
    assert quorum.joint_vote_result(outgoing, voters, votes) == result
    if not outgoing:
        assert quorum.vote_result(voters, votes) == result
        assert quorum.joint_vote_result(voters, voters, votes) == result
    return quorum.VOTE_RESULT_NAMES[result]


def _committed(voters: frozenset[int], outgoing: frozenset[int], indexes: dict[int, int]) -> str:
    index = quorum.joint_committed_index(voters, outgoing, indexes)
    assert quorum.joint_committed_index(outgoing, voters, indexes) == index
    if not outgoing:
        assert quorum.committed_index(voters, indexes) == index
        assert quorum.joint_committed_index(voters, voters, indexes) == index
    for member, acknowledged in indexes.items():
        # Whatever is only just short of the decision, or zero, cannot raise it.
        for lower in (0, max(0, index - 1)):
            if lower < acknowledged:
                overlaid = quorum.joint_committed_index(
                    voters, outgoing, {**indexes, member: lower}
                )
                assert overlaid <= index
    return _table(sorted(voters | outgoing), indexes) + _index_text(index)


def _index_text(index: int) -> str:
    return "∞" if index == quorum.NO_BOUND else str(index)


def _table(members: list[int], indexes: dict[int, int]) -> str:
    if not members:
        return "<empty majority quorum>"
    lines = [" " * len(members) + "    idx"]
    for member in members:
        index = indexes.get(member, 0)
        below = len([one for one in members if indexes.get(one, 0) < index])
        bar = "x" * below + ">" + " " * (len(members) - below)
        if member not in indexes:
            bar = "?" + " " * len(members)
        lines.append(f"{bar} {index:5d}    (id={member})")
    return "\n".join(lines) + "\n"
