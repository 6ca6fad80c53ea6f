"""What the core refuses, by name.  A caller may catch these; an `InvariantError` it must not."""

from __future__ import annotations


class ProposalDroppedError(Exception):
    """No leader, a transfer under way, or too much uncommitted: propose again later."""

    def __init__(self) -> None:
        super().__init__("raft proposal dropped")


class LocalMessageError(Exception):
    """A message type that only a member itself or its disk may make came from elsewhere."""

    def __init__(self) -> None:
        super().__init__("raft: cannot step raft local message")


class PeerNotFoundError(Exception):
    """A response came from a member that is not in the configuration."""

    def __init__(self) -> None:
        super().__init__("raft: cannot step as peer not found")


class ConfChangeError(Exception):
    """The change does not fit the configuration it was to be applied to."""


class SnapshotUnavailableError(Exception):
    """`Storage.snapshot` has none to give just now; the follower is asked again later."""


class InvariantError(Exception):
    """The log or the disk contradicts Raft.  The member must stop: going on loses data."""
