"""What MVCC refuses, named by the rule that was broken.

The texts clients see stand in `rpc.errors`.
"""

from __future__ import annotations


class MvccError(Exception):
    """A request that the store cannot carry out.  Nothing was changed."""


class CompactedError(MvccError):
    """The revision lies below the compact revision (or, for a compaction, is not above it)."""

    def __init__(self, revision: int, compact_revision: int) -> None:
        super().__init__(f"revision {revision} is compacted (up to {compact_revision})")
        self.revision = revision
        self.compact_revision = compact_revision


class FutureRevisionError(MvccError):
    """The revision lies above the store's current one."""

    def __init__(self, revision: int, current_revision: int) -> None:
        super().__init__(f"revision {revision} is above the current {current_revision}")
        self.revision = revision
        self.current_revision = current_revision


class KeyNotFoundError(MvccError):
    """A put that keeps the old value or lease found no live key."""


class LeaseNotFoundError(MvccError):
    """A put names a lease that does not exist."""

    def __init__(self, lease_id: int) -> None:
        super().__init__(f"lease {lease_id:x} does not exist")
        self.lease_id = lease_id
