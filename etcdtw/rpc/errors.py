"""Every refusal a client can see: gRPC code and exact text, and what in the cores means it.

Clients match the texts, so they are etcd's to the letter (etcd v3 api, ``rpctypes``); this is
the only place that spells them.
"""

from __future__ import annotations

from typing import Final

from etcdtw.apply import errors as member
from etcdtw.auth import errors as auth
from etcdtw.cluster import errors as cluster
from etcdtw.grpc.call import (
    CANCELLED,
    DATA_LOSS,
    DEADLINE_EXCEEDED,
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    NOT_FOUND,
    OUT_OF_RANGE,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNKNOWN,
    Call,
    StatusError,
)
from etcdtw.lease import errors as lease
from etcdtw.mvcc import errors as mvcc
from etcdtw.storage.state import errands as storage

ROWS: Final = (
    ("EmptyKey", INVALID_ARGUMENT, "key is not provided"),
    ("KeyNotFound", INVALID_ARGUMENT, "key not found"),
    ("ValueProvided", INVALID_ARGUMENT, "value is provided"),
    ("LeaseProvided", INVALID_ARGUMENT, "lease is provided"),
    ("TooManyOps", INVALID_ARGUMENT, "too many operations in txn request"),
    ("DuplicateKey", INVALID_ARGUMENT, "duplicate key given in txn request"),
    ("InvalidClientAPIVersion", INVALID_ARGUMENT, "invalid client api version"),
    ("InvalidSortOption", INVALID_ARGUMENT, "invalid sort option"),
    ("Compacted", OUT_OF_RANGE, "mvcc: required revision has been compacted"),
    ("FutureRev", OUT_OF_RANGE, "mvcc: required revision is a future revision"),
    ("NoSpace", RESOURCE_EXHAUSTED, "mvcc: database space exceeded"),
    ("LeaseNotFound", NOT_FOUND, "requested lease not found"),
    ("LeaseExist", FAILED_PRECONDITION, "lease already exists"),
    ("LeaseTTLTooLarge", OUT_OF_RANGE, "too large lease TTL"),
    ("WatchCanceled", CANCELLED, "watch canceled"),
    ("MemberExist", FAILED_PRECONDITION, "member ID already exist"),
    ("PeerURLExist", FAILED_PRECONDITION, "Peer URLs already exists"),
    (
        "MemberNotEnoughStarted",
        UNKNOWN,
        "re-configuration failed due to not enough started members",
    ),
    ("MemberBadURLs", INVALID_ARGUMENT, "given member URLs are invalid"),
    ("MemberNotFound", NOT_FOUND, "member not found"),
    ("MemberNotLearner", FAILED_PRECONDITION, "can only promote a learner member"),
    (
        "LearnerNotReady",
        FAILED_PRECONDITION,
        "can only promote a learner member which is in sync with leader",
    ),
    ("TooManyLearners", FAILED_PRECONDITION, "too many learner members in cluster"),
    ("ClusterIDMismatch", FAILED_PRECONDITION, "cluster ID mismatch"),
    ("RequestTooLarge", INVALID_ARGUMENT, "request is too large"),
    ("RequestTooManyRequests", UNKNOWN, "too many requests"),
    ("RootUserNotExist", FAILED_PRECONDITION, "root user does not exist"),
    ("RootRoleNotExist", FAILED_PRECONDITION, "root user does not have root role"),
    ("UserAlreadyExist", FAILED_PRECONDITION, "user name already exists"),
    ("UserEmpty", INVALID_ARGUMENT, "user name is empty"),
    ("UserNotFound", FAILED_PRECONDITION, "user name not found"),
    ("RoleAlreadyExist", FAILED_PRECONDITION, "role name already exists"),
    ("RoleNotFound", FAILED_PRECONDITION, "role name not found"),
    ("RoleEmpty", INVALID_ARGUMENT, "role name is empty"),
    ("AuthFailed", INVALID_ARGUMENT, "authentication failed, invalid user ID or password"),
    ("PermissionNotGiven", INVALID_ARGUMENT, "permission not given"),
    ("PermissionDenied", PERMISSION_DENIED, "permission denied"),
    ("RoleNotGranted", FAILED_PRECONDITION, "role is not granted to the user"),
    ("PermissionNotGranted", FAILED_PRECONDITION, "permission is not granted to the role"),
    ("AuthNotEnabled", FAILED_PRECONDITION, "authentication is not enabled"),
    ("InvalidAuthToken", UNAUTHENTICATED, "invalid auth token"),
    ("InvalidAuthMgmt", INVALID_ARGUMENT, "invalid auth management"),
    ("AuthOldRevision", INVALID_ARGUMENT, "revision of auth store is old"),
    ("NoLeader", UNAVAILABLE, "no leader"),
    ("NotLeader", FAILED_PRECONDITION, "not leader"),
    ("LeaderChanged", UNAVAILABLE, "leader changed"),
    ("NotCapable", FAILED_PRECONDITION, "not capable"),
    ("Stopped", UNAVAILABLE, "server stopped"),
    ("Timeout", UNAVAILABLE, "request timed out"),
    (
        "TimeoutDueToLeaderFail",
        UNAVAILABLE,
        "request timed out, possibly due to previous leader failure",
    ),
    (
        "TimeoutDueToConnectionLost",
        UNAVAILABLE,
        "request timed out, possibly due to connection lost",
    ),
    (
        "TimeoutWaitAppliedIndex",
        UNAVAILABLE,
        "request timed out, waiting for the applied index took too long",
    ),
    ("Unhealthy", UNAVAILABLE, "unhealthy cluster"),
    ("Corrupt", DATA_LOSS, "corrupt cluster"),
    ("NotSupportedForLearner", FAILED_PRECONDITION, "rpc not supported for learner"),
    ("BadLeaderTransferee", FAILED_PRECONDITION, "bad leader transferee"),
    ("WrongDowngradeVersionFormat", INVALID_ARGUMENT, "wrong downgrade target version format"),
    ("InvalidDowngradeTargetVersion", INVALID_ARGUMENT, "invalid downgrade target version"),
    (
        "ClusterVersionUnavailable",
        FAILED_PRECONDITION,
        "cluster version not found during downgrade",
    ),
    ("DowngradeInProcess", FAILED_PRECONDITION, "cluster has a downgrade job in progress"),
    ("NoInflightDowngrade", FAILED_PRECONDITION, "no inflight downgrade job"),
    ("Canceled", CANCELLED, "request canceled"),
    ("DeadlineExceeded", DEADLINE_EXCEEDED, "context deadline exceeded"),
)
"""(symbol, code, text behind ``etcdserver: ``).

``MemberNotEnoughStarted`` and ``RequestTooManyRequests`` are declared with other codes, but
etcd's server loses them on the way: on the wire they are UNKNOWN.
"""

_PREFIX: Final = "etcdserver: "

STATUSES: Final[dict[str, tuple[int, str]]] = {
    symbol: (code, _PREFIX + text) for symbol, code, text in ROWS
}
"""symbol -> (code, whole text)."""

SYMBOLS: Final[dict[type[Exception], str]] = {
    auth.AuthFailedError: "AuthFailed",
    auth.AuthNotEnabledError: "AuthNotEnabled",
    auth.InvalidManagementError: "InvalidAuthMgmt",
    auth.InvalidTokenError: "InvalidAuthToken",
    auth.OldRevisionError: "AuthOldRevision",
    auth.PermissionDeniedError: "PermissionDenied",
    auth.PermissionMissingError: "PermissionNotGiven",
    auth.PermissionNotGrantedError: "PermissionNotGranted",
    auth.RoleExistsError: "RoleAlreadyExist",
    auth.RoleNameEmptyError: "RoleEmpty",
    auth.RoleNotFoundError: "RoleNotFound",
    auth.RoleNotGrantedError: "RoleNotGranted",
    auth.RootRoleMissingError: "RootRoleNotExist",
    auth.RootUserMissingError: "RootUserNotExist",
    auth.UserExistsError: "UserAlreadyExist",
    auth.UserNameEmptyError: "UserEmpty",
    auth.UserNotFoundError: "UserNotFound",
    cluster.LastVoterError: "MemberNotEnoughStarted",
    cluster.MemberIdExistsError: "MemberExist",
    cluster.MemberIdNotFoundError: "MemberNotFound",
    cluster.MemberIdRemovedError: "MemberNotFound",
    cluster.MemberNotLearnerError: "MemberNotLearner",
    cluster.PeerUrlExistsError: "PeerURLExist",
    cluster.TooManyLearnersError: "TooManyLearners",
    mvcc.CompactedError: "Compacted",
    mvcc.FutureRevisionError: "FutureRev",
    mvcc.KeyNotFoundError: "KeyNotFound",
    mvcc.LeaseNotFoundError: "LeaseNotFound",
    lease.LeaseExistsError: "LeaseExist",
    lease.LeaseNotFoundError: "LeaseNotFound",
    lease.LeaseTtlTooLargeError: "LeaseTTLTooLarge",
    member.ApplyTimeoutError: "TimeoutWaitAppliedIndex",
    member.BadTransfereeError: "BadLeaderTransferee",
    member.ConnectionLostTimeoutError: "TimeoutDueToConnectionLost",
    member.CorruptError: "Corrupt",
    member.LeaderChangedError: "LeaderChanged",
    member.LeaderFailTimeoutError: "TimeoutDueToLeaderFail",
    member.LearnerError: "NotSupportedForLearner",
    member.LearnerNotReadyError: "LearnerNotReady",
    member.NoLeaderError: "NoLeader",
    member.NoSpaceError: "NoSpace",
    member.NotEnoughStartedError: "MemberNotEnoughStarted",
    member.NotCapableError: "NotCapable",
    member.NotLeaderError: "NotLeader",
    member.RequestCanceledError: "Canceled",
    member.RequestTimeoutError: "Timeout",
    member.RequestTooLargeError: "RequestTooLarge",
    member.StoppedError: "Stopped",
    member.TooManyRequestsError: "RequestTooManyRequests",
    member.UnhealthyClusterError: "Unhealthy",
    storage.TooManyErrandsError: "RequestTooManyRequests",
}
"""What in the cores is which row.  The key is the exact class."""

_OTHERS: Final[dict[type[Exception], tuple[int, str]]] = {
    # Errors that etcd lets through untranslated.
    member.ProposalDroppedError: (UNKNOWN, "raft proposal dropped"),
    member.TransferTimeoutError: (
        UNKNOWN,
        "etcdserver: request timed out, leader transfer took too long",
    ),
    # etcd hashes what it has opened, even when something newer has taken its place.
    storage.SupersededError: (
        UNAVAILABLE,
        "etcdtw: a snapshot takes the place of this member's data; try again",
    ),
}


def status_of(error: Exception) -> tuple[int, str]:
    """Return the code and the text by which a client learns of ``error``.

    An error without a row is UNKNOWN with its own text, as an error of Go's would be.
    """
    symbol = SYMBOLS.get(type(error))
    if symbol is not None:
        return STATUSES[symbol]
    if isinstance(error, StatusError):
        return error.code, error.message
    return _OTHERS.get(type(error)) or (UNKNOWN, str(error))


def status_error(symbol: str) -> StatusError:
    """Return the row ``symbol`` (such as ``EmptyKey``) as an exception to raise."""
    code, text = STATUSES[symbol]
    return StatusError(code, text)


_CODE_NAMES: Final = {
    INVALID_ARGUMENT: "InvalidArgument",
    PERMISSION_DENIED: "PermissionDenied",
    UNAUTHENTICATED: "Unauthenticated",
}
"""gRPC's names of the codes that are told within texts."""


def go_text(error: Exception) -> str:
    """Return what Go's gRPC makes of a status where etcd sends it as a text."""
    code, text = status_of(error)
    return f"rpc error: code = {_CODE_NAMES.get(code, 'Unknown')} desc = {text}"


def fail(call: Call, error: Exception) -> None:
    """End ``call`` with the status that ``error`` means."""
    code, text = status_of(error)
    call.fail(code, text)
