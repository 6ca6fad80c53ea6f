"""The configuration in force and the leader's progress for each of its members.

Knows no messages and no log; indexes are passed in.
"""

from __future__ import annotations

from etcdtw.raft import quorum
from etcdtw.raft.confchange import Configuration
from etcdtw.raft.inflights import Inflights
from etcdtw.raft.progress import Progress


class Membership:
    """Who counts.  ``progress`` holds every member of ``config``, in ascending order of id."""

    def __init__(self, inflight_messages_max: int, inflight_size_max: int) -> None:
        self.config = Configuration()
        self.progress: dict[int, Progress] = {}
        self.votes: dict[int, bool] = {}
        self._inflight_messages_max = inflight_messages_max
        self._inflight_size_max = inflight_size_max

    def new_progress(self, match_index: int, next_index: int) -> Progress:
        window = Inflights(self._inflight_messages_max, self._inflight_size_max)
        return Progress(match_index, next_index, window)

    def switch_to(self, config: Configuration, last_index: int) -> None:
        """Put ``config`` in force.  Members that stay keep their progress."""
        old = self.progress
        self.config = config
        self.progress = {}
        for member_id in config.members():
            progress = old.get(member_id)
            if progress is None:
                # Probed from the end: one refusal tells where its log really ends.  It
                # counts as active so that a quorum check does not fall over a newcomer.
                progress = self.new_progress(0, max(last_index, 1))
                progress.recent_active = True
            progress.is_learner = member_id in config.learners
            self.progress[member_id] = progress

    def reset_progress(self, self_id: int, last_index: int) -> None:
        """Forget how far everybody is; only one's own log is known (a new term began)."""
        for member_id, old in self.progress.items():
            match_index = last_index if member_id == self_id else 0
            progress = self.new_progress(match_index, last_index + 1)
            progress.is_learner = old.is_learner
            self.progress[member_id] = progress

    def is_singleton(self) -> bool:
        return len(self.config.voters) == 1 and not self.config.outgoing

    def voters(self) -> list[int]:
        """Return everyone with a vote in either half, ascending."""
        return sorted(self.config.voters | self.config.outgoing)

    def committed_index(self) -> int:
        """Return the highest index that the voters have acknowledged."""
        config = self.config
        progress = self.progress
        if len(config.voters) == 1 and not config.outgoing:
            (member_id,) = config.voters
            return progress[member_id].match_index
        match = {member_id: one.match_index for member_id, one in progress.items()}
        return quorum.joint_committed_index(config.voters, config.outgoing, match)

    def acknowledged(self, acks: dict[int, int]) -> int:
        """Return the highest number that a quorum has reached in ``acks``."""
        return quorum.joint_committed_index(self.config.voters, self.config.outgoing, acks)

    def record_vote(self, member_id: int, granted: bool) -> int:
        """Count a vote, the first of each member only; return the result so far."""
        self.votes.setdefault(member_id, granted)
        return quorum.joint_vote_result(self.config.voters, self.config.outgoing, self.votes)

    def quorum_is_active(self) -> bool:
        active = {member_id: one.recent_active for member_id, one in self.progress.items()}
        won = quorum.joint_vote_result(self.config.voters, self.config.outgoing, active)
        return won == quorum.VOTE_WON
