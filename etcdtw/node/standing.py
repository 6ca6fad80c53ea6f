"""How one member stands in its cluster: read from Raft and the applied state, never kept."""

from __future__ import annotations

from etcdtw.apply.alarms import Alarms
from etcdtw.apply.members import Members
from etcdtw.cluster.member import Member
from etcdtw.raft.raw_node import RawNode


class Standing:
    """The present standing of one member."""

    def __init__(
        self, cluster_id: int, member_id: int, raw: RawNode, members: Members, alarms: Alarms
    ) -> None:
        self.cluster_id = cluster_id
        self.member_id = member_id
        self._raw = raw
        self._members = members
        self._alarms = alarms
        self.damage = ""
        """Why this member's own state must not be served; empty: nothing is known."""

    @property
    def term(self) -> int:
        return self._raw.term

    @property
    def leader_id(self) -> int:
        """0: no leader is known."""
        return self._raw.lead

    @property
    def is_leader(self) -> bool:
        return self._raw.lead == self.member_id

    @property
    def is_voter(self) -> bool:
        """Whether this member is known as a voter; once it is, it stays one."""
        member = self._members.member(self.member_id)
        return member is not None and not member.is_learner

    @property
    def is_learner(self) -> bool:
        member = self._members.member(self.member_id)
        return member is not None and member.is_learner

    @property
    def is_quarantined(self) -> bool:
        """Whether this member may tell nobody of its keys: the cluster has found them to differ,
        or itself has found them damaged."""
        return bool(self.damage) or self.member_id in self._alarms.corrupt_members

    def others(self) -> list[Member]:
        """Return the other members of the applied membership."""
        return [one for one in self._members.all() if one.member_id != self.member_id]

    def other_voters(self) -> list[Member]:
        return [one for one in self._members.voters() if one.member_id != self.member_id]

    def match_index(self, member_id: int) -> int | None:
        """How much of the log a member holds, as the leader knows; None for a stranger."""
        progress = self._raw.progress().get(member_id)
        return None if progress is None else progress.match_index
