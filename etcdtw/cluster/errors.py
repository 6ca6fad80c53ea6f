"""Why a change of the membership is refused when it is applied.

The decision is part of the replicated state: every member must come to the same one.  The
texts are etcd's internal ones; what clients see is decided where the RPC is answered.
"""

from __future__ import annotations


class MembershipError(Exception):
    """The change is refused: the configuration stays as it is."""

    text = ""

    def __init__(self, member_id: int) -> None:
        super().__init__(f"{self.text} ({member_id:x})")
        self.member_id = member_id


class MemberIdRemovedError(MembershipError):
    """A removed id never comes back."""

    text = "membership: ID removed"


class MemberIdExistsError(MembershipError):
    """The id is a member's already."""

    text = "membership: ID exists"


class MemberIdNotFoundError(MembershipError):
    """Nobody has the id."""

    text = "membership: ID not found"


class PeerUrlExistsError(MembershipError):
    """Another member has one of the peer URLs."""

    text = "membership: peerURL exists"


class MemberNotLearnerError(MembershipError):
    """Only learners can be promoted."""

    text = "membership: can only promote a learner member"


class TooManyLearnersError(MembershipError):
    """``--max-learners`` are there already."""

    text = "membership: too many learner members in cluster"


class LastVoterError(MembershipError):
    """Nobody would be left to decide anything; etcd's members die of such a change."""

    text = "membership: the last voter cannot be removed"
