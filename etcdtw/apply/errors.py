"""What a member refuses or gives up on, whichever request it was.

The texts clients see stand in `rpc.errors`.
"""

from __future__ import annotations


class MemberError(Exception):
    """This member could not, or would not, carry a request through."""


class RequestTooLargeError(MemberError):
    """The request, as it would stand in the log, is larger than ``max-request-bytes``."""


class TooManyRequestsError(MemberError):
    """Too many entries are committed but not yet applied."""


class RequestTimeoutError(MemberError):
    """The request was not applied in time; it may still be."""


class LeaderFailTimeoutError(RequestTimeoutError):
    """As `RequestTimeoutError`, and a leader was lost shortly before or meanwhile."""


class ConnectionLostTimeoutError(RequestTimeoutError):
    """As `RequestTimeoutError`, and this member has lost its leader or its quorum."""


class ProposalDroppedError(MemberError):
    """Raft took no proposal: it had no leader to give it to."""


class ApplyTimeoutError(MemberError):
    """The applied index did not reach the commit index in time."""


class RequestCanceledError(MemberError):
    """The request was called off before it was applied."""


class StoppedError(MemberError):
    """This member is stopping."""


class NoLeaderError(MemberError):
    """The member knows no leader."""


class NotLeaderError(MemberError):
    """Only the leader can do this, and this member is not it."""


class LeaderChangedError(MemberError):
    """The leader changed while a linearizable read was waiting."""


class LearnerError(MemberError):
    """A learner does not serve this call."""


class NotCapableError(MemberError):
    """The cluster's version line does not have this call."""


class NoSpaceError(MemberError):
    """The quota is used up, or the NOSPACE alarm is raised."""


class CorruptError(MemberError):
    """The CORRUPT alarm is raised."""


class BadTransfereeError(MemberError):
    """Leadership cannot be handed to that member."""


class UnhealthyClusterError(MemberError):
    """The change could cost the cluster its quorum."""


class NotEnoughStartedError(MemberError):
    """Too few voters have started for the change."""


class LearnerNotReadyError(MemberError):
    """The learner does not hold enough of the leader's log to vote."""


class TransferTimeoutError(MemberError):
    """The leadership did not move to the member that was asked for."""
