"""What only the leader does about versions: set the cluster's, and end a downgrade.

As etcd's leader it asks every member what it runs, every four seconds and when it begins to
lead; what follows is decided in `cluster.version`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from twisted.logger import Logger

from etcdtw.apply.applier import FIELD_DOWNGRADE_INFO_SET
from etcdtw.apply.members import Members
from etcdtw.apply.own_entries import cluster_version_entry
from etcdtw.cluster.member import Member
from etcdtw.cluster.version import (
    Version,
    decide_cluster_version,
    downgrade_is_done,
    parse_version,
)
from etcdtw.node.own_proposals import OwnProposals
from etcdtw.node.standing import Standing
from etcdtw.wire import membershippb

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

    log = Logger()

    def __init__(
        self,
        standing: Standing,
        members: Members,
        own: OwnProposals,
        time_ms: Callable[[], int],
        ask: AskVersions = nobody_answers,
        downgrade_check_ms: int = INTERVAL_MS,
    ) -> None:
        """``downgrade_check_ms``: how often it is looked whether one is done; 0: never."""
        self._standing = standing
        self._members = members
        self._own = own
        self._time_ms = time_ms
        self.ask = ask
        self._downgrade_check_ms = downgrade_check_ms
        self._downgrade_due_ms = 0
        self._due_ms = 0
        self._question = 0
        self._is_leading = False

    def lead(self) -> None:
        """This member leads and has applied what went before."""
        self._is_leading = True
        self._due_ms = 0
        self.look(self._time_ms())

    def look(self, now_ms: int) -> None:
        """Ask everybody when it is time (at each tick)."""
        if not self._standing.is_leader:
            self._is_leading = False
        if not self._is_leading or now_ms < self._due_ms:
            return
        self._due_ms = now_ms + PATIENCE_MS
        self._question += 1
        question = self._question
        others = self._standing.others()
        if not others:
            self._told(question, others, {})
        else:
            self.ask(others, lambda versions: self._told(question, others, versions))

    def _told(
        self, question: int, others: Sequence[Member], versions: Mapping[int, Version]
    ) -> None:
        if question != self._question or not self._standing.is_leader:
            return  # too late, or asked again meanwhile
        now_ms = self._time_ms()
        members = self._members
        self._due_ms = now_ms + self._interval_ms()
        servers: list[Version | None] = [parse_version(members.server_version)]
        servers += [versions.get(one.member_id) for one in others]
        target_text = members.downgrade_target
        target = None if target_text is None else parse_version(target_text)
        if target is None:
            self._downgrade_due_ms = 0
        elif self._downgrade_check_ms and now_ms >= self._downgrade_due_ms:
            # At the question that is nearest to the wanted time.
            self._downgrade_due_ms = now_ms + self._downgrade_check_ms - INTERVAL_MS // 2
            self._end_downgrade(target, servers)
        decided = decide_cluster_version(members.version, servers, target)
        if decided is not None:
            self.log.info("the cluster's version becomes {version}", version=str(decided))
            line = members.writing_line
            if not (members.is_version_decided or members.has_new_members):
                # 3.4 dies of the new form; who has answered is known, if nothing else is.
                line = min(line, *(one.line for one in servers if one is not None))
            self._own.propose_octets(lambda number: cluster_version_entry(line, number, decided))

    def _interval_ms(self) -> int:
        """Return when to ask next: more often while a downgrade is under way, if that is asked."""
        wanted_ms = self._downgrade_check_ms
        if self._members.downgrade_target is None or not wanted_ms:
            return INTERVAL_MS
        return min(wanted_ms, INTERVAL_MS)

    def _end_downgrade(self, target: Version, servers: Sequence[Version | None]) -> None:
        if self._members.version == target and downgrade_is_done(target, servers):
            request = membershippb.DowngradeInfoSetRequest(enabled=False)
            self._own.propose(FIELD_DOWNGRADE_INFO_SET, request)
