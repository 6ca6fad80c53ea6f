"""Which call needs what, while users are asked: the one table of it.

A call without a row is for administrators only, so that what was forgotten is shut
(tests/rpc/test_needs.py names it).

Source: etcd 3.7.3, measured; GHSA-q8m4-xhhv-38mg is what a missing row was once.
"""

from __future__ import annotations

from typing import Final

OPEN: Final = "open"
"""Anybody; not even a token is looked at."""
USER: Final = "user"
"""Any user; asked before the call is made."""
ADMIN: Final = "admin"
"""Users with the role ``root``; asked before the call is made."""
PROPOSED: Final = "proposed"
"""Who asks is established before it is proposed, and judged where it is applied."""
READ: Final = "read"
"""Asked when it is read: each key that might be."""
WITHIN: Final = "within"
"""The service asks, at the place where etcd does."""

_BY_SERVICE: Final = {
    "etcdserverpb.KV": {
        "Range": READ,
        "RangeStream": READ,
        "Put": PROPOSED,
        "DeleteRange": PROPOSED,
        "Txn": PROPOSED,  # one that only reads is asked when it is read
        "Compact": ADMIN,
    },
    "etcdserverpb.Watch": {
        "Watch": WITHIN,  # each watch, when it is created
    },
    "etcdserverpb.Lease": {
        "LeaseGrant": WITHIN,  # any user, behind the quota
        "LeaseRevoke": USER,  # and when it is applied, for its keys
        "LeaseKeepAlive": WITHIN,  # each renewal, for the keys
        "LeaseTimeToLive": USER,  # and within for the keys, where they are asked for
        "LeaseLeases": WITHIN,  # for the keys of all
    },
    "etcdserverpb.Cluster": {
        "MemberAdd": WITHIN,  # administrators, behind the look at the URLs
        "MemberRemove": ADMIN,
        "MemberUpdate": ADMIN,
        "MemberPromote": ADMIN,
        "MemberList": USER,
    },
    "etcdserverpb.Maintenance": {
        "Alarm": WITHIN,  # any user may look, administrators raise and clear
        "Status": USER,
        "Defragment": ADMIN,
        "Hash": ADMIN,
        "HashKV": ADMIN,
        "Snapshot": ADMIN,
        "MoveLeader": ADMIN,
        "Downgrade": ADMIN,
    },
    "etcdserverpb.Auth": {
        "Authenticate": OPEN,
        "AuthStatus": WITHIN,  # anybody without a token
        "UserGet": WITHIN,  # oneself, or administrators
        "RoleGet": WITHIN,  # one's own, or administrators
        "UserList": WITHIN,
        "RoleList": WITHIN,
        "AuthEnable": PROPOSED,
        "AuthDisable": PROPOSED,
        "UserAdd": PROPOSED,
        "UserDelete": PROPOSED,
        "UserChangePassword": PROPOSED,
        "UserGrantRole": PROPOSED,
        "UserRevokeRole": PROPOSED,
        "RoleAdd": PROPOSED,
        "RoleDelete": PROPOSED,
        "RoleGrantPermission": PROPOSED,
        "RoleRevokePermission": PROPOSED,
    },
    # These do what they do through KV, and in the name of their caller.
    "v3lockpb.Lock": {"Lock": WITHIN, "Unlock": WITHIN},
    "v3electionpb.Election": {
        "Campaign": WITHIN,
        "Proclaim": WITHIN,
        "Leader": WITHIN,
        "Observe": WITHIN,
        "Resign": WITHIN,
    },
    "grpc.health.v1.Health": {"Check": OPEN, "List": OPEN, "Watch": OPEN},
}

NEEDS: Final[dict[str, str]] = {
    f"/{service}/{method}": need
    for service, methods in _BY_SERVICE.items()
    for method, need in methods.items()
}
"""By the path of the call."""
