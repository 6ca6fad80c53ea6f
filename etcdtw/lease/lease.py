"""One granted lease."""

from __future__ import annotations

from typing import Final

from etcdtw.wire.encode import encode_varint

NEVER_MS: Final = 1 << 62
"""The deadline of every lease on a member that does not lead."""


class Lease:
    """One granted lease.  ``remaining_ttl_s`` is its last checkpoint; 0: it has none."""

    __slots__ = ("deadline_ms", "lease_id", "remaining_ttl_s", "status", "term", "ttl_s")

    def __init__(self, lease_id: int, ttl_s: int, remaining_ttl_s: int) -> None:
        self.lease_id = lease_id
        self.ttl_s = ttl_s
        self.remaining_ttl_s = remaining_ttl_s
        self.deadline_ms = NEVER_MS
        self.term = 0
        """The promotion that its deadline is of; see `Lessor.deadline_ms`."""
        number = encode_varint(lease_id)
        self.status = b"\x12%c\x08%b" % (len(number) + 1, number)
        """The octets of its LeaseStatus in a LeaseLeasesResponse: those of all are asked for."""

    @property
    def recorded_ttl_s(self) -> int:
        """What another leader would arm it with."""
        return self.remaining_ttl_s or self.ttl_s
