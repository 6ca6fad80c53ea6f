"""What a lease operation can be refused for.  Knows no wire text; `rpc` maps these."""

from __future__ import annotations


class LeaseExistsError(Exception):
    """A grant names an id that is in use."""


class LeaseNotFoundError(Exception):
    """No lease has this id."""


class LeaseTtlTooLargeError(Exception):
    """A grant asks for more than `lessor.LEASE_TTL_MAX_S` seconds."""
