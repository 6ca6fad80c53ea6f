"""What only the leader does about versions: set the cluster's, and end a downgrade.

As etcd's leader it asks every member what it runs, every four seconds and when it begins to
lead; what follows is decided in `cluster.version`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from etcdtw.apply.applier import FIELD_DOWNGRADE_INFO_SET
from etcdtw.apply.own_entries import cluster_version_entry
from etcdtw.cluster.member import Member
from etcdtw.cluster.version import (
    Version,
    decide_cluster_version,
    downgrade_is_done,
    parse_version,
)
from etcdtw.wire import membershippb

if TYPE_CHECKING:
    from etcdtw.node.node import Node

INTERVAL_MS: Final = 4_000
PATIENCE_MS: Final = 4 * INTERVAL_MS
"""How long an answer is waited for before the question is asked again."""

VersionsTold = Callable[[Mapping[int, Version]], None]
AskVersions = Callable[[Sequence[Member], VersionsTold], None]
"""Asks members for ``/version`` and tells, once, which release each one runs that answered."""


def nobody_answers(members: Sequence[Member], told: VersionsTold) -> None:
    """What a member without peers learns from them."""
    told({})


class ClusterVersion:
    """The leader's watch over the versions of one member's cluster."""

    def __init__(self, node: Node, ask: AskVersions = nobody_answers) -> None:
        self._node = node
        self.ask = ask
        self._due_ms = 0
        self._question = 0
        self._is_leading = False
        node.on_tick.append(self.look)

    def lead(self) -> None:
        """This member leads and has applied what went before."""
        self._is_leading = True
        self._due_ms = 0
        self.look(self._node.now_ms)

    def look(self, now_ms: int) -> None:
        """Ask everybody when it is time (at each tick)."""
        node = self._node
        if not node.is_leader:
            self._is_leading = False
        if not self._is_leading or now_ms < self._due_ms:
            return
        self._due_ms = now_ms + PATIENCE_MS
        self._question += 1
        question = self._question
        others = [one for one in node.members.all() if one.member_id != node.member_id]
        if not others:
            self._told(question, others, {})
        else:
            self.ask(others, lambda versions: self._told(question, others, versions))

    def _told(
        self, question: int, others: Sequence[Member], versions: Mapping[int, Version]
    ) -> None:
        node = self._node
        if question != self._question or not node.is_leader:
            return  # too late, or asked again meanwhile
        self._due_ms = node.now_ms + INTERVAL_MS
        members = node.members
        servers: list[Version | None] = [parse_version(members.server_version)]
        servers += [versions.get(one.member_id) for one in others]
        target_text = members.downgrade_target
        target = None if target_text is None else parse_version(target_text)
        if target is not None and members.version == target and downgrade_is_done(target, servers):
            request = membershippb.DowngradeInfoSetRequest(enabled=False)
            node.propose_own(FIELD_DOWNGRADE_INFO_SET, request)
        decided = decide_cluster_version(members.version, servers, target)
        if decided is not None:
            node.log.info("the cluster's version becomes {version}", version=str(decided))
            line = members.writing_line
            if not members.is_version_decided:
                # 3.4 dies of the new form; who has answered is known, if nothing else is.
                line = min(line, *(one.line for one in servers if one is not None))
            node.propose_octets(lambda number: cluster_version_entry(line, number, decided))
