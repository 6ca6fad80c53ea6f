"""Which call may be made again after which error.  Pure; the rules are those of etcd's Go client.

A read is made again when its server could not answer; a change only when it is known not to have
been applied.  Where Go's client differs: `LeaseGrant` counts as a change here, since one that was
applied unseen leaves a lease behind.
"""

from __future__ import annotations

from typing import Final

from etcdtw.client.channel import NotTakenError
from etcdtw.grpc.call import (
    INVALID_ARGUMENT,
    UNAUTHENTICATED,
    UNAVAILABLE,
    StatusError,
)

NO: Final = 0
AGAIN: Final = 1
WITH_NEW_TOKEN: Final = 2

RENEWALS_MAX: Final = 1
"""Of one call: a second refusal of a token is told."""
OLD_REVISIONS_MAX: Final = 5
"""Of one call: users and roles may change again while a token is fetched."""

ATTEMPTS_MAX: Final = 100
QUORUM_WAIT_S: Final = 0.025
"""After as many attempts as a quorum has members."""
QUORUM_WAIT_JITTER: Final = 0.1

INVALID_TOKEN: Final = "etcdserver: invalid auth token"  # noqa: S105 - no password
OLD_AUTH_REVISION: Final = "etcdserver: revision of auth store is old"
NO_USER_NAME: Final = "etcdserver: user name is empty"
AUTH_NOT_ENABLED: Final = "etcdserver: authentication is not enabled"
NOT_FOR_LEARNERS: Final = "etcdserver: rpc not supported for learner"

_REPEATABLE: Final = frozenset(
    f"/etcdserverpb.{name}"
    for name in (
        "KV/Range",
        "Lease/LeaseRevoke",  # who revokes twice has revoked
        "Lease/LeaseTimeToLive",
        "Lease/LeaseLeases",
        "Cluster/MemberList",
        "Maintenance/Status",
        "Maintenance/Hash",
        "Maintenance/HashKV",
        "Auth/Authenticate",
        "Auth/AuthStatus",
        "Auth/UserGet",
        "Auth/UserList",
        "Auth/RoleGet",
        "Auth/RoleList",
    )
)
_REFUSED_FOR_THE_TOKEN: Final = (
    (UNAUTHENTICATED, INVALID_TOKEN),
    (INVALID_ARGUMENT, OLD_AUTH_REVISION),
    (INVALID_ARGUMENT, NO_USER_NAME),
)
"""Said before anything is applied."""
TOKEN_REFUSALS: Final = (INVALID_TOKEN, OLD_AUTH_REVISION, NO_USER_NAME)
"""The same as texts, as they stand in the reason of a watch that was ended."""


def is_repeatable(path: str) -> bool:
    """Whether a call of this method changes nothing more when it is made twice."""
    return path in _REPEATABLE


def is_token_refused(error: StatusError) -> bool:
    """Whether another token would help."""
    return (error.code, error.message) in _REFUSED_FOR_THE_TOKEN


def verdict(path: str, error: StatusError, servers: int) -> int:
    """Say what is to be done about a unary call that failed.  ``servers``: how many there are."""
    if is_token_refused(error):
        return WITH_NEW_TOKEN
    if isinstance(error, NotTakenError):
        return NO  # the channel has tried what there is to try
    if error.message == NOT_FOR_LEARNERS:
        return AGAIN if servers > 1 else NO
    return AGAIN if error.code == UNAVAILABLE and is_repeatable(path) else NO


def wait_s(attempt: int, servers: int, random: float) -> float:
    """Return how long to wait before an attempt (the first is 0): only each quorum's time."""
    if attempt % (servers // 2 + 1):
        return 0.0
    return QUORUM_WAIT_S * (1 + QUORUM_WAIT_JITTER * (2 * random - 1))
