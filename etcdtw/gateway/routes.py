"""Which path of the JSON gateway is which method.

Source: the routes of etcd 3.7.3's gateway (the ``google.api.http`` options of its protos).
"""

from __future__ import annotations

from typing import Any, Final

from etcdtw.gateway.transcoding.tables import Table, table_of
from etcdtw.grpc.call import BIDI_STREAM, SERVER_STREAM, UNARY
from etcdtw.wire import etcdserverpb as pb
from etcdtw.wire import v3electionpb as epb
from etcdtw.wire import v3lockpb

PREFIX: Final = b"/v3/"
OLD_PREFIX: Final = b"/v3beta/"
"""The same routes, once more."""


class Route:
    """One method.

    ``is_large``: its answer may be too large to be held as a whole.
    """

    __slots__ = ("answer", "is_large", "kind", "method", "request")

    def __init__(
        self,
        method: str,
        request: Any,
        answer: Any,
        *,
        kind: int = UNARY,
        is_large: bool = False,
    ) -> None:
        self.method = method
        self.request: Table = table_of(request)
        self.answer: Table = table_of(answer)
        self.kind = kind
        self.is_large = is_large


_KV: Final = "/etcdserverpb.KV/"
_LEASE: Final = "/etcdserverpb.Lease/"
_CLUSTER: Final = "/etcdserverpb.Cluster/"
_MAINTENANCE: Final = "/etcdserverpb.Maintenance/"
_AUTH: Final = "/etcdserverpb.Auth/"
_LOCK: Final = "/v3lockpb.Lock/"
_ELECTION: Final = "/v3electionpb.Election/"

_REVOKE: Final = Route(_LEASE + "LeaseRevoke", pb.LeaseRevokeRequest, pb.LeaseRevokeResponse)
_TIME_TO_LIVE: Final = Route(
    _LEASE + "LeaseTimeToLive",
    pb.LeaseTimeToLiveRequest,
    pb.LeaseTimeToLiveResponse,
    is_large=True,
)
_LEASES: Final = Route(
    _LEASE + "LeaseLeases", pb.LeaseLeasesRequest, pb.LeaseLeasesResponse, is_large=True
)


def _auth(method: str, message: str = "") -> Route:
    """``message``: what its messages are called, where that is not the method's name."""
    name = message or method
    return Route(_AUTH + method, getattr(pb, f"{name}Request"), getattr(pb, f"{name}Response"))


def _cluster(method: str) -> Route:
    return Route(
        _CLUSTER + method, getattr(pb, f"{method}Request"), getattr(pb, f"{method}Response")
    )


def _maintenance(method: str, kind: int = UNARY) -> Route:
    request, answer = getattr(pb, f"{method}Request"), getattr(pb, f"{method}Response")
    return Route(_MAINTENANCE + method, request, answer, kind=kind)


def _election(method: str) -> Route:
    request, answer = getattr(epb, f"{method}Request"), getattr(epb, f"{method}Response")
    return Route(_ELECTION + method, request, answer)


ROUTES: Final[dict[bytes, Route]] = {
    b"/v3/kv/range": Route(_KV + "Range", pb.RangeRequest, pb.RangeResponse, is_large=True),
    b"/v3/kv/put": Route(_KV + "Put", pb.PutRequest, pb.PutResponse),
    b"/v3/kv/deleterange": Route(
        _KV + "DeleteRange", pb.DeleteRangeRequest, pb.DeleteRangeResponse, is_large=True
    ),
    b"/v3/kv/txn": Route(_KV + "Txn", pb.TxnRequest, pb.TxnResponse, is_large=True),
    b"/v3/kv/compaction": Route(_KV + "Compact", pb.CompactionRequest, pb.CompactionResponse),
    b"/v3/watch": Route(
        "/etcdserverpb.Watch/Watch", pb.WatchRequest, pb.WatchResponse, kind=BIDI_STREAM
    ),
    b"/v3/lease/grant": Route(_LEASE + "LeaseGrant", pb.LeaseGrantRequest, pb.LeaseGrantResponse),
    b"/v3/lease/revoke": _REVOKE,
    b"/v3/kv/lease/revoke": _REVOKE,
    b"/v3/lease/keepalive": Route(
        _LEASE + "LeaseKeepAlive",
        pb.LeaseKeepAliveRequest,
        pb.LeaseKeepAliveResponse,
        kind=BIDI_STREAM,
    ),
    b"/v3/lease/timetolive": _TIME_TO_LIVE,
    b"/v3/kv/lease/timetolive": _TIME_TO_LIVE,
    b"/v3/lease/leases": _LEASES,
    b"/v3/kv/lease/leases": _LEASES,
    b"/v3/cluster/member/add": _cluster("MemberAdd"),
    b"/v3/cluster/member/remove": _cluster("MemberRemove"),
    b"/v3/cluster/member/update": _cluster("MemberUpdate"),
    b"/v3/cluster/member/list": _cluster("MemberList"),
    b"/v3/cluster/member/promote": _cluster("MemberPromote"),
    b"/v3/maintenance/alarm": _maintenance("Alarm"),
    b"/v3/maintenance/status": _maintenance("Status"),
    b"/v3/maintenance/defragment": _maintenance("Defragment"),
    b"/v3/maintenance/hash": _maintenance("Hash"),
    b"/v3/maintenance/hashkv": _maintenance("HashKV"),
    b"/v3/maintenance/snapshot": _maintenance("Snapshot", SERVER_STREAM),
    b"/v3/maintenance/transfer-leadership": _maintenance("MoveLeader"),
    b"/v3/maintenance/downgrade": _maintenance("Downgrade"),
    b"/v3/auth/enable": _auth("AuthEnable"),
    b"/v3/auth/disable": _auth("AuthDisable"),
    b"/v3/auth/status": _auth("AuthStatus"),
    b"/v3/auth/authenticate": _auth("Authenticate"),
    b"/v3/auth/user/add": _auth("UserAdd", "AuthUserAdd"),
    b"/v3/auth/user/get": _auth("UserGet", "AuthUserGet"),
    b"/v3/auth/user/list": _auth("UserList", "AuthUserList"),
    b"/v3/auth/user/delete": _auth("UserDelete", "AuthUserDelete"),
    b"/v3/auth/user/changepw": _auth("UserChangePassword", "AuthUserChangePassword"),
    b"/v3/auth/user/grant": _auth("UserGrantRole", "AuthUserGrantRole"),
    b"/v3/auth/user/revoke": _auth("UserRevokeRole", "AuthUserRevokeRole"),
    b"/v3/auth/role/add": _auth("RoleAdd", "AuthRoleAdd"),
    b"/v3/auth/role/get": _auth("RoleGet", "AuthRoleGet"),
    b"/v3/auth/role/list": _auth("RoleList", "AuthRoleList"),
    b"/v3/auth/role/delete": _auth("RoleDelete", "AuthRoleDelete"),
    b"/v3/auth/role/grant": _auth("RoleGrantPermission", "AuthRoleGrantPermission"),
    b"/v3/auth/role/revoke": _auth("RoleRevokePermission", "AuthRoleRevokePermission"),
    b"/v3/lock/lock": Route(_LOCK + "Lock", v3lockpb.LockRequest, v3lockpb.LockResponse),
    b"/v3/lock/unlock": Route(_LOCK + "Unlock", v3lockpb.UnlockRequest, v3lockpb.UnlockResponse),
    b"/v3/election/campaign": _election("Campaign"),
    b"/v3/election/proclaim": _election("Proclaim"),
    b"/v3/election/leader": _election("Leader"),
    b"/v3/election/observe": Route(
        _ELECTION + "Observe", epb.LeaderRequest, epb.LeaderResponse, kind=SERVER_STREAM
    ),
    b"/v3/election/resign": _election("Resign"),
}
"""path -> method, all of them asked by POST."""
